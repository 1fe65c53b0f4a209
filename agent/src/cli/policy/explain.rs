//! `ringfence policy explain`: why a flow is allowed or denied.
//!
//! Invariant: explanations from files and from the running agent have the same form, and the same
//! renderer prints them. The `policy` module explains.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::{load, wall_time};
use crate::cli::InvalidInput;
use crate::cli::output::{print, print_json};
use crate::model::{PortMatch, TestEnd};
use crate::policy::Query;
use crate::policy::explain::{Explanation, explain, render};
use crate::server::{Client, ClientError};
use crate::source::value;

#[derive(Debug, Args)]
pub(in crate::cli) struct ExplainArguments {
    /// The originator of the flow: a workload or an address.
    #[arg(long, value_name = "END", value_parser = value::test_end)]
    from: TestEnd,
    /// The responder: a workload or an address.
    #[arg(long, value_name = "END", value_parser = value::test_end)]
    to: TestEnd,
    /// tcp/8080, a port name of the destination, or a protocol without ports such as icmp.
    #[arg(long, value_name = "PORT", value_parser = value::test_port)]
    port: PortMatch,
    /// 4 or 6; the default is a family that both ends have, preferably IPv4.
    #[arg(long, value_parser = clap::value_parser!(u8).range(4..=6))]
    family: Option<u8>,
    /// Policy files or directories of them, instead of the running agent's policies in force.
    #[arg(long, value_name = "PATH", num_args = 1.., requires = "inventory")]
    policies: Vec<PathBuf>,
    /// The inventory for these policies.
    #[arg(long, value_name = "FILE", requires = "policies")]
    inventory: Option<PathBuf>,
    /// Evaluate as of this time, such as 2026-12-01T00:00:00Z, instead of now.
    #[arg(long, value_name = "TIME", requires = "policies")]
    now: Option<Timestamp>,
    /// List every rule and policy, not only the nearest.
    #[arg(long)]
    all: bool,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    output: ExplainFormat,
}

/// The output format of an explanation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum ExplainFormat {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

pub(super) fn run(client: &Client, arguments: &ExplainArguments) -> Result<ExitCode> {
    let Some(inventory) = &arguments.inventory else {
        return crate::cli::block_on(async { show(arguments, &fetch(client, arguments).await?) })
            .map(|()| ExitCode::SUCCESS);
    };
    let now = wall_time(arguments.now.unwrap_or_else(Timestamp::now))?;
    let reload = match load(inventory, &arguments.policies) {
        Ok(reload) => reload,
        Err(code) => return Ok(code),
    };
    let query = Query {
        from: arguments.from.clone(),
        to: arguments.to.clone(),
        port: arguments.port.clone(),
        family: arguments.family,
    };
    let explained = explain(
        &reload.inventory,
        &reload.policies,
        now,
        &query,
        arguments.all,
    );
    show(
        arguments,
        &explained.map_err(|error| InvalidInput(error.to_string()))?,
    )?;
    Ok(ExitCode::SUCCESS)
}

async fn fetch(client: &Client, arguments: &ExplainArguments) -> Result<Explanation> {
    // Names, addresses and ports need no escaping in a URL.
    let mut target = format!(
        "/v1/explain?from={}&to={}&port={}",
        arguments.from, arguments.to, arguments.port
    );
    if let Some(family) = arguments.family {
        target.push_str(&format!("&family={family}"));
    }
    if arguments.all {
        target.push_str("&all=true");
    }
    client.get(&target).await.map_err(|error| match error {
        ClientError::Refused { status: 400, error } => InvalidInput(error).into(),
        other => other.into(),
    })
}

fn show(arguments: &ExplainArguments, explanation: &Explanation) -> Result<()> {
    match arguments.output {
        ExplainFormat::Text => print(&render(explanation)),
        ExplainFormat::Json => print_json(explanation),
    }
}
