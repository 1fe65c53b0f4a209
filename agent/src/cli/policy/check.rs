//! `ringfence policy check`: validates policy files and reports lint findings.
//!
//! Invariants: reads files as the agent would; exits with 0 if there are no findings, 1 if there
//! are findings, 2 if a file is invalid or a finding is denied. The `policy` module has the lints.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde::Serialize;

use super::{INVALID, refuse, sarif, wall_time};
use crate::cli::InvalidInput;
use crate::cli::output::{print, print_json};
use crate::model::WallTime;
use crate::model::quote::sanitise;
use crate::policy::{Finding, LintCode, LintInput, lint};
use crate::source::{FileSet, Reload, SourceError, WarningKind};

#[derive(Debug, Args)]
pub(in crate::cli) struct CheckArguments {
    /// Policy files or directories of them, checked as one set.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The inventory; names in policies are then checked against it.
    #[arg(long, value_name = "FILE")]
    inventory: Vec<PathBuf>,
    /// Check as of this time, such as 2026-12-01T00:00:00Z, instead of now.
    #[arg(long, value_name = "TIME")]
    now: Option<Timestamp>,
    /// Do not report findings with this code; may be repeated.
    #[arg(long, value_name = "CODE", value_parser = codes())]
    allow: Vec<LintCode>,
    /// Treat findings with this code as errors; may be repeated; codes as for --allow.
    #[arg(long, value_name = "CODE", value_parser = codes(), hide_possible_values = true)]
    deny: Vec<LintCode>,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// SARIF 2.1.0, for code scanning.
    Sarif,
}

/// Parses the name of a lint; the error for another name lists all lints.
fn codes() -> impl TypedValueParser<Value = LintCode> {
    let shown = |code: &LintCode| PossibleValue::new(code.name()).help(code.about());
    PossibleValuesParser::new(LintCode::ALL.iter().map(shown)).try_map(|name| name.parse())
}

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Warning,
    Error,
}

/// A reported finding or error; sorts by file, line and code.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Reported {
    pub(super) file: String,
    /// 0 for the file as a whole.
    pub(super) line: u32,
    pub(super) code: &'static str,
    pub(super) level: Level,
    pub(super) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<&'static str>,
}

pub(super) fn run(arguments: &CheckArguments) -> Result<ExitCode> {
    let mut allowed = arguments.allow.iter().copied();
    if let Some(code) = allowed.find(|code| arguments.deny.contains(code)) {
        let message = format!("{code} is both allowed and denied: expected one of the two");
        return Err(InvalidInput(message).into());
    }
    let now = wall_time(arguments.now.unwrap_or_else(Timestamp::now))?;
    let files = (arguments.inventory.clone(), arguments.files.clone());
    let (set, reload) = match FileSet::load_strict(files.0, files.1) {
        Ok(loaded) => loaded,
        Err(errors) => return refuse_as(arguments.output, &errors),
    };
    let reported = findings(arguments, &set, &reload, now);
    match arguments.output {
        Format::Json => print_json(&reported)?,
        Format::Sarif => print_json(&sarif::log(&reported))?,
        Format::Table if reported.is_empty() => {
            let policies = reload.policies.len();
            print(&format!("policies: {policies}, findings: 0\n"))?;
        }
        Format::Table => print(&reported.iter().map(line).collect::<String>())?,
    }
    let worst = reported.iter().map(|reported| match reported.level {
        Level::Warning => 1,
        Level::Error => INVALID,
    });
    Ok(ExitCode::from(worst.max().unwrap_or(0)))
}

fn refuse_as(format: Format, errors: &[SourceError]) -> Result<ExitCode> {
    let reported = || errors.iter().map(invalid).collect::<Vec<_>>();
    match format {
        Format::Table => return Ok(refuse(errors)),
        Format::Json => print_json(&reported())?,
        Format::Sarif => print_json(&sarif::log(&reported()))?,
    }
    Ok(ExitCode::from(INVALID))
}

/// The findings of the lints and the warnings of the parsers, ordered by file and line.
fn findings(
    arguments: &CheckArguments,
    set: &FileSet,
    reload: &Reload,
    now: WallTime,
) -> Vec<Reported> {
    let has_inventory = !arguments.inventory.is_empty();
    let found = lint(&LintInput {
        policies: &reload.policies,
        inventory: has_inventory.then_some(&*reload.inventory),
        namespaces: &set.declared_namespaces(),
        now,
    });
    let warnings = reload.warnings.iter().map(warning);
    let mut reported: Vec<Reported> = found.into_iter().map(finding).chain(warnings).collect();
    let names = |codes: &[LintCode], code| codes.iter().any(|named| named.name() == code);
    reported.retain(|reported| !names(&arguments.allow, reported.code));
    for reported in &mut reported {
        if names(&arguments.deny, reported.code) {
            reported.level = Level::Error;
        }
    }
    reported.sort();
    reported
}

fn warning(warning: &SourceError) -> Reported {
    let warning_kind = warning.warning_kind.unwrap_or(WarningKind::More);
    Reported {
        file: warning.file.to_string(),
        line: warning.line,
        code: warning_kind.code(),
        level: Level::Warning,
        message: warning.message.clone(),
        remedy: Some(warning_kind.remedy()),
    }
}

fn finding(finding: Finding) -> Reported {
    Reported {
        file: finding.file.to_string(),
        line: finding.line,
        code: finding.code.name(),
        level: Level::Warning,
        message: finding.message,
        remedy: Some(finding.remedy),
    }
}

fn line(reported: &Reported) -> String {
    let file = sanitise(&reported.file);
    let denied = match reported.level {
        Level::Warning => "",
        Level::Error => " (denied)",
    };
    let Reported {
        line,
        code,
        message,
        remedy,
        ..
    } = reported;
    let remedy = remedy.unwrap_or_default();
    format!("{file}:{line}: {code}{denied}: {message} — {remedy}\n")
}

fn invalid(error: &SourceError) -> Reported {
    Reported {
        file: error.file.to_string(),
        line: error.line,
        code: sarif::INVALID_ID,
        level: Level::Error,
        message: error.message.clone(),
        remedy: None,
    }
}
