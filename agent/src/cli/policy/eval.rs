//! `ringfence policy eval`: one verdict line for each query line.
//!
//! Invariants: streams, so that its memory does not grow with the queries; answers come in the
//! order of the queries; the first malformed query ends it, named by its line, after the answers
//! to those before it. Judging is the policy module's.

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

/// How much is read and written at once.
const BUFFER: usize = 128 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked<'a> {
    #[serde(borrow)]
    from: Cow<'a, str>,
    #[serde(borrow)]
    to: Cow<'a, str>,
    #[serde(borrow)]
    port: Cow<'a, str>,
    family: Option<u8>,
}

/// The query's own fields first; they are names and addresses by then, safe for a terminal.
#[derive(Serialize)]
struct Judged<'a> {
    from: &'a str,
    to: &'a str,
    port: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    family: Option<u8>,
    verdict: &'static str,
    egress: JudgedSide<'a>,
    ingress: JudgedSide<'a>,
}

/// What one end said.
#[derive(Serialize)]
pub(super) struct JudgedSide<'a> {
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
    let reload = match FileSet::load_initial(paths.0, paths.1) {
        Ok((_, reload)) => reload,
        Err(errors) => return Ok(refuse(&errors)),
    };
    for warning in &reload.warnings {
        // What is odd is no reason not to answer.
        let _ = writeln!(io::stderr(), "warning: {warning}");
    }
    let evaluator = Evaluator::new(&reload.inventory, &reload.policies, now)?;
    let mut out = BufWriter::with_capacity(BUFFER, io::stdout().lock());
    let outcome = open(&arguments.queries)
        .and_then(|queries| judge(queries, &arguments.queries, &evaluator, &mut out));
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

fn judge(
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
        answer(&line, evaluator, out)?.map_err(|reason| {
            let path = sanitise(&path.to_string_lossy());
            InvalidInput(format!("{path}:{number}: {}", sanitise(&reason)))
        })?;
    }
    Ok(())
}

/// The outer result is about writing, the inner one about the query.
fn answer(line: &[u8], evaluator: &Evaluator, out: &mut impl Write) -> Result<Result<(), String>> {
    let asked: Asked<'_> = match serde_json::from_slice(line) {
        Ok(asked) => asked,
        Err(error) => return Ok(Err(format!("not a query: {error}"))),
    };
    let judged =
        query(&asked).and_then(|query| evaluator.ask(&query).map_err(|error| error.to_string()));
    let judged = match judged {
        Ok(judged) => judged,
        Err(reason) => return Ok(Err(reason)),
    };
    let judged = Judged {
        from: &asked.from,
        to: &asked.to,
        port: &asked.port,
        family: asked.family,
        verdict: judged.verdict.name(),
        egress: side(&judged.egress),
        ingress: side(&judged.ingress),
    };
    serde_json::to_writer(&mut *out, &judged).map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(Ok(()))
}

fn query(asked: &Asked<'_>) -> Result<Query, String> {
    let end = |text| value::test_end(text).map_err(|error| error.to_string());
    Ok(Query {
        from: end(&asked.from)?,
        to: end(&asked.to)?,
        port: value::test_port(&asked.port).map_err(|error| error.to_string())?,
        family: asked.family,
    })
}

pub(super) fn side(side: &Side) -> JudgedSide<'_> {
    JudgedSide {
        verdict: side.verdict.name(),
        rule: &side.rule,
        policy: side.policy.as_deref(),
    }
}
