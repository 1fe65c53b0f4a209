//! `cargo xtask test`: every test of the workspace, on a release build of the agent.
//!
//! Nothing is skipped silently: without root the command fails, and so does a run without any test.
//! Summary lines of tests are printed before the last line on standard output, which is the total
//! over all test programs.

mod tally;

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write as _};
use std::process::{ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};
use nix::unistd::Uid;

use crate::report::Report;
use crate::{build, child, other_layout, setup, workspace};
use tally::Tally;

/// The environment variable with the agent binary that tests, demo and benchmark run.
pub(crate) const AGENT_VARIABLE: &str = "RINGFENCE_BIN";

/// The subcommand.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    require_root("the integration tests")?;
    let toolchain = setup::ensure()?;
    let agent = build::release(&toolchain)?;
    let other = other_layout::build(&toolchain)?;
    let report = Report::new()?;
    let mut cargo = workspace::cargo(&toolchain)?;
    report.announce(&mut cargo);
    cargo.args([
        "test",
        "--workspace",
        "--exclude",
        workspace::EBPF_PACKAGE,
        "--no-fail-fast",
    ]);
    cargo
        .args(arguments)
        .env(AGENT_VARIABLE, agent)
        .env(other_layout::VARIABLE, other)
        .stdout(Stdio::piped());

    let mut running = cargo
        .spawn()
        .with_context(|| format!("cannot start `{}`", child::describe(&cargo)))?;
    let output = running
        .stdout
        .take()
        .context("cannot read cargo's output")?;
    let tally = relay(BufReader::new(output))?;
    let status = running.wait().context("cannot wait for cargo")?;

    let passed = status.success() && tally.succeeded();
    if !status.success() && tally.failed == 0 {
        eprintln!("a test program did not build or exited without a result; see above");
    }
    if tally.ran() == 0 {
        eprintln!("no test ran");
    }
    report.print()?;
    println!("{tally}");
    Ok(if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Fails unless this process runs as root; `what` is named in the error.
pub(crate) fn require_root(what: &str) -> Result<()> {
    if !Uid::effective().is_root() {
        bail!("{what} need root (network namespaces, eBPF): run this command as root");
    }
    Ok(())
}

/// Forwards each line as it arrives, and counts results.
fn relay(mut output: impl BufRead) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut line = Vec::new();
    let mut terminal = std::io::stdout();
    while output
        .read_until(b'\n', &mut line)
        .context("cannot read the tests' output")?
        > 0
    {
        terminal
            .write_all(&line)
            .context("cannot forward the tests' output")?;
        tally.count(&String::from_utf8_lossy(&line));
        line.clear();
    }
    Ok(tally)
}
