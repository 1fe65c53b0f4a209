//! `ringfence flows`.
//!
//! Invariants: following ends without an error on Ctrl-C, on a closed pipe and when the agent
//! exits; gaps are always shown. The agent does the filtering.

use std::io::{self, Write};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use jiff::{SignedDuration, Timestamp};

use super::duration::Duration;
use super::flow_line;
use crate::model::{NamespaceName, WorkloadId};
use crate::observe::FlowVerdict;
use crate::server::Client;

/// The output format of flows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum FlowFormat {
    /// One line for people; times are UTC.
    #[default]
    Compact,
    /// One JSON object per line, in Hubble's format.
    Json,
}

#[derive(Debug, Args)]
pub(super) struct FlowArguments {
    /// Keep showing new flows until interrupted.
    #[arg(short, long)]
    follow: bool,
    /// Only the newest N past flows [default: 20 with --follow, otherwise all].
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// Only flows since this long ago, such as 5m.
    #[arg(long, value_name = "DURATION")]
    since: Option<Duration>,
    /// Only flows from or to this namespace.
    #[arg(short, long, value_name = "NS")]
    namespace: Option<NamespaceName>,
    /// Only flows from or to this workload, namespace/name.
    #[arg(short, long, value_name = "WORKLOAD")]
    workload: Option<WorkloadId>,
    /// Only flows with this verdict: allowed, denied or would-deny.
    #[arg(long)]
    verdict: Option<FlowVerdict>,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    output: FlowFormat,
}

impl FlowArguments {
    fn target(&self, now: Timestamp) -> String {
        let last = self
            .last
            .or((self.follow && self.since.is_none()).then_some(20));
        let since = self.since.map(|since| {
            let since = now - SignedDuration::from_secs(i64::from(since.seconds()));
            format!("since={since}")
        });
        // None of the values can have a character that needs escaping in a URL.
        let parameters = [
            self.follow.then(|| "follow=true".to_owned()),
            last.map(|last| format!("last={last}")),
            since,
            self.namespace
                .as_ref()
                .map(|namespace| format!("namespace={namespace}")),
            self.workload
                .as_ref()
                .map(|workload| format!("workload={workload}")),
            self.verdict.map(|verdict| format!("verdict={verdict}")),
        ];
        let parameters: Vec<_> = parameters.into_iter().flatten().collect();
        format!("/v1/flows?{}", parameters.join("&"))
    }
}

pub(super) async fn run(client: &Client, arguments: &FlowArguments) -> Result<()> {
    let mut lines = client.lines(&arguments.target(Timestamp::now())).await?;
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let line = tokio::select! {
            line = lines.next() => line?,
            signal = &mut interrupted => return signal.context("cannot wait for Ctrl-C"),
        };
        let Some(line) = line else { return Ok(()) };
        let shown = match arguments.output {
            FlowFormat::Json => line,
            FlowFormat::Compact => flow_line::compact(&line)?,
        };
        let mut out = io::stdout().lock();
        writeln!(out, "{shown}")?;
        out.flush()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_become_url_parameters() {
        let mut arguments = FlowArguments {
            follow: true,
            last: None,
            since: None,
            namespace: None,
            workload: None,
            verdict: None,
            output: FlowFormat::Compact,
        };
        let now = Timestamp::from_second(1000).unwrap();
        assert_eq!(arguments.target(now), "/v1/flows?follow=true&last=20");
        arguments.since = Some("5m".parse().unwrap());
        assert_eq!(
            arguments.target(now),
            "/v1/flows?follow=true&since=1970-01-01T00:11:40Z"
        );
        arguments.follow = false;
        arguments.since = None;
        assert_eq!(arguments.target(now), "/v1/flows?");
        arguments.last = Some(3);
        arguments.namespace = Some("shop".parse().unwrap());
        arguments.workload = Some("shop/a".parse().unwrap());
        arguments.verdict = Some(FlowVerdict::WouldDeny);
        assert_eq!(
            arguments.target(now),
            "/v1/flows?last=3&namespace=shop&workload=shop/a&verdict=would-deny"
        );
    }
}
