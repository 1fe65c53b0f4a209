//! `ringfence policy eval`: one verdict line for each query line.
//!
//! Invariants: queries are streamed, so memory does not grow with their number; results have the
//! order of the queries; the first malformed query ends the command with an error that names its
//! line, after the results of earlier queries. The `policy` module evaluates.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{EvalArguments, refuse, wall_time};
use crate::cli::InvalidInput;
use crate::model::quote::sanitise;
use crate::policy::{Evaluator, Query, Side};
use crate::source::{FileSet, value};

/// The size of the read and write buffers.
const BUFFER: usize = 128 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QueryFields<'a> {
    #[serde(borrow)]
    from: Cow<'a, str>,
    #[serde(borrow)]
    to: Cow<'a, str>,
    #[serde(borrow)]
    port: Cow<'a, str>,
    family: Option<u8>,
}

/// The query's fields first; they are valid names and addresses, and so safe for a terminal.
#[derive(Serialize)]
struct Evaluated<'a> {
    from: &'a str,
    to: &'a str,
    port: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    family: Option<u8>,
    verdict: &'static str,
    egress: EvaluatedSide<'a>,
    ingress: EvaluatedSide<'a>,
}

/// The decision at one end.
#[derive(Serialize)]
pub(super) struct EvaluatedSide<'a> {
    verdict: &'static str,
    rule: &'a str,
    policy: Option<&'a str>,
}

pub(super) fn run(arguments: &EvalArguments) -> Result<ExitCode> {
    let now = wall_time(arguments.now.unwrap_or_else(Timestamp::now))?;
    let paths = (
        vec![arguments.inventory.clone()],
        vec![arguments.policies.clone()],
    );
    let reload = match FileSet::load_strict(paths.0, paths.1) {
        Ok((_, reload)) => reload,
        Err(errors) => return Ok(refuse(&errors)),
    };
    for warning in &reload.warnings {
        // A warning does not prevent the result.
        let _ = writeln!(io::stderr(), "warning: {warning}");
    }
    let evaluator = Evaluator::new(&reload.inventory, &reload.policies, now)?;
    let mut out = BufWriter::with_capacity(BUFFER, io::stdout().lock());
    let outcome = open(&arguments.queries)
        .and_then(|queries| evaluate(queries, &arguments.queries, &evaluator, &mut out));
    out.flush()?;
    outcome.map(|()| ExitCode::SUCCESS)
}

fn open(path: &Path) -> Result<Box<dyn BufRead>> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::with_capacity(BUFFER, io::stdin())));
    }
    let file = File::open(path).map_err(|error| {
        let path = sanitise(&path.to_string_lossy());
        InvalidInput(format!("cannot read {path}: {error}"))
    })?;
    Ok(Box::new(BufReader::with_capacity(BUFFER, file)))
}

fn evaluate(
    mut queries: impl BufRead,
    path: &Path,
    evaluator: &Evaluator,
    out: &mut impl Write,
) -> Result<()> {
    let mut line = Vec::new();
    for number in 1u64.. {
        line.clear();
        if queries
            .read_until(b'\n', &mut line)
            .context("cannot read the queries")?
            == 0
        {
            break;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        evaluate_line(&line, evaluator, out)?.map_err(|reason| {
            let path = sanitise(&path.to_string_lossy());
            InvalidInput(format!("{path}:{number}: {}", sanitise(&reason)))
        })?;
    }
    Ok(())
}

/// Evaluates one query and writes the result. The outer result is that of writing, the inner one
/// that of the query.
fn evaluate_line(
    line: &[u8],
    evaluator: &Evaluator,
    out: &mut impl Write,
) -> Result<Result<(), String>> {
    let fields: QueryFields<'_> = match serde_json::from_slice(line) {
        Ok(fields) => fields,
        Err(error) => return Ok(Err(format!("not a query: {error}"))),
    };
    let evaluated =
        query(&fields).and_then(|query| evaluator.ask(&query).map_err(|error| error.to_string()));
    let evaluated = match evaluated {
        Ok(evaluated) => evaluated,
        Err(reason) => return Ok(Err(reason)),
    };
    let evaluated = Evaluated {
        from: &fields.from,
        to: &fields.to,
        port: &fields.port,
        family: fields.family,
        verdict: evaluated.verdict.name(),
        egress: side(&evaluated.egress),
        ingress: side(&evaluated.ingress),
    };
    serde_json::to_writer(&mut *out, &evaluated).map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(Ok(()))
}

fn query(fields: &QueryFields<'_>) -> Result<Query, String> {
    let end = |text| value::test_end(text).map_err(|error| error.to_string());
    Ok(Query {
        from: end(&fields.from)?,
        to: end(&fields.to)?,
        port: value::test_port(&fields.port).map_err(|error| error.to_string())?,
        family: fields.family,
    })
}

pub(super) fn side(side: &Side) -> EvaluatedSide<'_> {
    EvaluatedSide {
        verdict: side.verdict.name(),
        rule: &side.rule,
        policy: side.policy.as_deref(),
    }
}
