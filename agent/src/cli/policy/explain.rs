//! `ringfence policy explain`: why a flow is allowed or denied.
//!
//! Invariants: from files and from the running agent comes the same explanation, printed by the
//! same renderer. Explaining is the policy module's.

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
    /// Who opens the flow: a workload or an address.
    #[arg(long, value_name = "END", value_parser = value::test_end)]
    from: TestEnd,
    /// Whom it is opened to.
    #[arg(long, value_name = "END", value_parser = value::test_end)]
    to: TestEnd,
    /// tcp/8080, a port name of the destination, or a protocol without ports such as icmp.
    #[arg(long, value_name = "PORT", value_parser = value::test_port)]
    port: PortMatch,
    /// 4 or 6; by default what both ends have, IPv4 first.
    #[arg(long, value_parser = clap::value_parser!(u8).range(4..=6))]
    family: Option<u8>,
    /// Policy files or directories of them, instead of what the running agent has in force.
    #[arg(long, value_name = "PATH", num_args = 1.., requires = "inventory")]
    policies: Vec<PathBuf>,
    /// The inventory that goes with them.
    #[arg(long, value_name = "FILE", requires = "policies")]
    inventory: Option<PathBuf>,
    /// Judge as of this time, such as 2026-12-01T00:00:00Z, instead of now.
    #[arg(long, value_name = "TIME", requires = "policies")]
    now: Option<Timestamp>,
    /// List every rule and policy, not only those that are nearest.
    #[arg(long)]
    all: bool,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t)]
    output: ExplainFormat,
}

/// How an explanation is printed.
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
        return crate::cli::block_on(async { show(arguments, &ask(client, arguments).await?) });
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

async fn ask(client: &Client, arguments: &ExplainArguments) -> Result<Explanation> {
    // Names, addresses and ports need no escaping in a query.
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
