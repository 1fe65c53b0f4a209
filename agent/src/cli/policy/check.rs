//! `ringfence policy check`: are these files valid, and is there anything to be said about them?
//!
//! Invariants: reads what the agent would read, the same way; exits with 0 if all is clean, 1 if
//! there are findings, 2 if a file is invalid. The lints themselves are the policy module's.

use std::process::ExitCode;

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;

use super::{CheckArguments, INVALID, refuse, wall_time};
use crate::cli::arguments::Format;
use crate::cli::output::{print, print_json};
use crate::policy::{Finding, lint};
use crate::source::{FileSet, Oddity, SourceError};

/// A finding, or an error, for programs.
#[derive(Serialize)]
struct Reported<'a> {
    file: &'a str,
    line: u32,
    code: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'static str>,
}

pub(super) fn run(arguments: &CheckArguments) -> Result<ExitCode> {
    let format = arguments.listing.output;
    let now = wall_time(Timestamp::now())?;
    let reload = match FileSet::load_initial(Vec::new(), arguments.files.clone()) {
        Ok((_, reload)) => reload,
        Err(errors) if format == Format::Json => {
            print_json(&errors.iter().map(invalid).collect::<Vec<_>>())?;
            return Ok(ExitCode::from(INVALID));
        }
        Err(errors) => return Ok(refuse(&errors)),
    };
    let mut findings: Vec<Finding> = reload.warnings.into_iter().map(warning).collect();
    findings.extend(reload.policies.iter().flat_map(|policy| lint(policy, now)));
    findings.sort();
    if format == Format::Json {
        print_json(&findings.iter().map(reported).collect::<Vec<_>>())?;
    } else if findings.is_empty() {
        print(&format!(
            "policies: {}, findings: 0\n",
            reload.policies.len()
        ))?;
    } else {
        let lines: Vec<String> = findings
            .iter()
            .map(|finding| format!("{finding}\n"))
            .collect();
        print(&lines.concat())?;
    }
    Ok(ExitCode::from(u8::from(!findings.is_empty())))
}

fn warning(warning: SourceError) -> Finding {
    Finding {
        file: warning.file,
        line: warning.line,
        code: warning.oddity.map_or("odd", Oddity::code),
        message: warning.message,
        remedy: warning.oddity.map_or("look at it", Oddity::remedy),
    }
}

fn reported(finding: &Finding) -> Reported<'_> {
    Reported {
        file: &finding.file,
        line: finding.line,
        code: finding.code,
        message: &finding.message,
        remedy: Some(finding.remedy),
    }
}

fn invalid(error: &SourceError) -> Reported<'_> {
    Reported {
        file: &error.file,
        line: error.line,
        code: "invalid",
        message: &error.message,
        remedy: None,
    }
}
