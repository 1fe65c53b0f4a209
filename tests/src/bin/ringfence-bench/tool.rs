//! Runs netfilter tools with their input on stdin.

use std::io::Write as _;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::NetNs;

/// Runs a tool in a namespace; it must succeed.
pub(crate) fn feed(ns: &NetNs, tool: &[&str], text: &str) -> Result<()> {
    let (program, arguments) = tool.split_first().context("no tool given")?;
    let mut child = ns
        .command(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {program}: `cargo xtask setup` installs it"))?;
    if let Some(mut input) = child.stdin.take() {
        // If the tool exits early the pipe breaks; the tool's own message is reported below.
        let _ = input.write_all(text.as_bytes());
    }
    let output = child.wait_with_output();
    let output = output.with_context(|| format!("waiting for {program}"))?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {}", message.trim());
    Ok(())
}
