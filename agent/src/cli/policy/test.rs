//! `ringfence policy test`: checks that flows get the verdicts their authors expect.
//!
//! Invariants: all tests are evaluated with all files as one set, as of one moment; a test without
//! a family must pass over each family that both ends have; a test that cannot be evaluated fails.
//! The `policy` module evaluates.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::eval::{EvaluatedSide, side};
use super::{refuse, wall_time};
use crate::cli::arguments::{Format, Listing};
use crate::cli::output::{print, print_json};
use crate::model::PolicySet;
use crate::model::quote::sanitise;
use crate::policy::explain::{explain, render};
use crate::policy::{Answer, Evaluator, Query, QueryError};
use crate::source::{ExpectedFlow, FileSet, SourceError, expected_flows};
use crate::source::{document::decode, limits::MAX_TOML_POLICY_SIZE};

#[derive(Debug, Args)]
pub(in crate::cli) struct TestArguments {
    /// Policy files or directories of them, evaluated as one set.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The inventory.
    #[arg(long, required = true, value_name = "FILE")]
    inventory: Vec<PathBuf>,
    /// More expected flows: [[test]] tables in a .toml file, otherwise JSON lines such as
    /// {"from":"x/a","to":"y/b","port":"tcp/80","expect":"deny"}; may be repeated.
    #[arg(long, value_name = "FILE")]
    flows: Vec<PathBuf>,
    /// Evaluate as of this time, such as 2026-12-01T00:00:00Z, instead of now.
    #[arg(long, value_name = "TIME")]
    now: Option<Timestamp>,
    #[command(flatten)]
    listing: Listing,
}

/// An expected flow and its place.
struct Case {
    file: Arc<str>,
    /// The policy whose test it is; `None` for flows from other files.
    policy: Option<String>,
    flow: ExpectedFlow,
}

/// The outcome of a case: the query that decided it, and its result.
struct Outcome {
    query: Query,
    result: Result<Answer, QueryError>,
}

impl Outcome {
    fn passed(&self, case: &Case) -> bool {
        let result = self.result.as_ref();
        result.is_ok_and(|flow| flow.verdict == case.flow.test.expect)
    }
}

pub(super) fn run(arguments: &TestArguments) -> Result<ExitCode> {
    let now = wall_time(arguments.now.unwrap_or_else(Timestamp::now))?;
    let files = (arguments.inventory.clone(), arguments.files.clone());
    let reload = match FileSet::load_strict(files.0, files.1) {
        Ok((_, reload)) => reload,
        Err(errors) => return Ok(refuse(&errors)),
    };
    let mut cases = inline(&reload.policies);
    for path in &arguments.flows {
        match expected(path) {
            Ok(more) => cases.extend(more),
            Err(errors) => return Ok(refuse(&errors)),
        }
    }
    let evaluator = Evaluator::new(&reload.inventory, &reload.policies, now)?;
    let outcomes: Vec<(Case, Outcome)> = cases
        .into_iter()
        .map(|case| {
            let outcome = evaluate(&case.flow, &evaluator);
            (case, outcome)
        })
        .collect();
    let passed = outcomes.iter();
    let passed = passed
        .filter(|(case, outcome)| outcome.passed(case))
        .count();
    let failed = outcomes.len() - passed;
    match arguments.listing.output {
        Format::Json => print_json(&report(&outcomes, passed, failed))?,
        Format::Table => {
            let why = |query: &Query| {
                explain(&reload.inventory, &reload.policies, now, query, false)
                    .map_or_else(|error| format!("{error}\n"), |explained| render(&explained))
            };
            let mut text: String = outcomes
                .iter()
                .filter(|(case, outcome)| !outcome.passed(case))
                .map(|(case, outcome)| failure(case, outcome, why))
                .collect();
            text.push_str(&format!("{passed} passed, {failed} failed\n"));
            print(&text)?;
        }
    }
    Ok(ExitCode::from(u8::from(failed > 0)))
}

/// The tests in the policies, ordered by file and line.
fn inline(policies: &PolicySet) -> Vec<Case> {
    let mut cases: Vec<Case> = policies
        .iter()
        .flat_map(|policy| {
            policy.tests.iter().map(|test| Case {
                file: policy.origin.file.clone(),
                policy: Some(policy.id().to_string()),
                flow: ExpectedFlow {
                    test: test.clone(),
                    family: None,
                },
            })
        })
        .collect();
    cases.sort_by(|one, other| {
        (&one.file, one.flow.test.line).cmp(&(&other.file, other.flow.test.line))
    });
    cases
}

fn expected(path: &Path) -> Result<Vec<Case>, Vec<SourceError>> {
    let name = path.to_string_lossy();
    let flows = if path
        .extension()
        .is_some_and(|extension| extension == "toml")
    {
        toml_flows(path, &name)?
    } else {
        json_flows(path, &name)?
    };
    let file: Arc<str> = Arc::from(&*name);
    let cases = flows.into_iter().map(|flow| Case {
        file: file.clone(),
        policy: None,
        flow,
    });
    Ok(cases.collect())
}

fn unreadable(name: &str, error: &std::io::Error) -> Vec<SourceError> {
    let message = format!("cannot be read: {error}; expected a file of expected flows");
    vec![SourceError::whole_file(name, message)]
}

fn toml_flows(path: &Path, name: &str) -> Result<Vec<ExpectedFlow>, Vec<SourceError>> {
    let mut bytes = Vec::new();
    // Reading one byte above the limit shows that the file is too large.
    let limit = u64::try_from(MAX_TOML_POLICY_SIZE + 1).unwrap_or(u64::MAX);
    File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .map_err(|error| unreadable(name, &error))?;
    let text = decode(name, &bytes, MAX_TOML_POLICY_SIZE).map_err(|error| vec![error])?;
    expected_flows::parse_toml(name, text)
}

fn json_flows(path: &Path, name: &str) -> Result<Vec<ExpectedFlow>, Vec<SourceError>> {
    let file = File::open(path).map_err(|error| unreadable(name, &error))?;
    let (mut flows, mut errors) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(BufReader::new(file).split(b'\n')) {
        let line = line.map_err(|error| unreadable(name, &error))?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        match expected_flows::parse_line(name, number, &line) {
            Ok(flow) => flows.push(flow),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() {
        Ok(flows)
    } else {
        Err(errors)
    }
}

/// Evaluates a flow over each possible family, until one does not give the expected verdict.
fn evaluate(flow: &ExpectedFlow, evaluator: &Evaluator) -> Outcome {
    let over = |family| {
        let test = &flow.test;
        let query = Query {
            from: test.from.clone(),
            to: test.to.clone(),
            port: test.port.clone(),
            family,
        };
        let result = evaluator.ask(&query);
        Outcome { query, result }
    };
    if flow.family.is_some() {
        return over(flow.family);
    }
    let first = over(None);
    let has_failed = match &first.result {
        Ok(evaluated) => evaluated.verdict != flow.test.expect,
        Err(_) => true,
    };
    if has_failed {
        return first;
    }
    let second = over(Some(6));
    match &second.result {
        Ok(evaluated) if evaluated.verdict != flow.test.expect => second,
        Ok(_) | Err(_) => first,
    }
}

/// One line about a failed test and, indented, the explanation of its verdict.
fn failure(case: &Case, outcome: &Outcome, why: impl Fn(&Query) -> String) -> String {
    let test = &case.flow.test;
    let place = format!("{}:{}", sanitise(&case.file), test.line);
    let family = outcome
        .query
        .family
        .map(|family| format!(" over IPv{family}"));
    let flow = format!(
        "{} → {} {}{}",
        test.from,
        test.to,
        test.port,
        family.unwrap_or_default()
    );
    let expected = test.expect.name();
    match &outcome.result {
        Ok(evaluated) => {
            let got = evaluated.verdict.name();
            let mut text = format!("{place}: {flow}: expected {expected}, got {got}\n");
            for line in why(&outcome.query).lines() {
                let indent = if line.is_empty() { "" } else { "    " };
                text.push_str(&format!("{indent}{line}\n"));
            }
            text
        }
        Err(error) => {
            let error = sanitise(&error.to_string());
            format!("{place}: {flow}: expected {expected}, cannot be evaluated: {error}\n")
        }
    }
}

#[derive(Serialize)]
struct Report<'a> {
    passed: usize,
    failed: usize,
    tests: Vec<Reported<'a>>,
}

#[derive(Serialize)]
struct Reported<'a> {
    file: &'a str,
    line: u32,
    policy: Option<&'a str>,
    from: String,
    to: String,
    port: String,
    family: Option<u8>,
    expect: &'static str,
    passed: bool,
    verdict: Option<&'static str>,
    egress: Option<EvaluatedSide<'a>>,
    ingress: Option<EvaluatedSide<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

fn report(outcomes: &[(Case, Outcome)], passed: usize, failed: usize) -> Report<'_> {
    let tests = outcomes.iter().map(|(case, outcome)| {
        let (test, evaluated) = (&case.flow.test, outcome.result.as_ref().ok());
        Reported {
            file: &case.file,
            line: test.line,
            policy: case.policy.as_deref(),
            from: test.from.to_string(),
            to: test.to.to_string(),
            port: test.port.to_string(),
            family: outcome.query.family,
            expect: test.expect.name(),
            passed: outcome.passed(case),
            verdict: evaluated.map(|evaluated| evaluated.verdict.name()),
            egress: evaluated.map(|evaluated| side(&evaluated.egress)),
            ingress: evaluated.map(|evaluated| side(&evaluated.ingress)),
            error: outcome.result.as_ref().err().map(ToString::to_string),
        }
    });
    Report {
        passed,
        failed,
        tests: tests.collect(),
    }
}
