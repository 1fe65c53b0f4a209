//! Tools of netfilter, fed on their standard input.

use std::io::Write as _;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::NetNs;

/// Runs a tool in a namespace; it must succeed.
pub(crate) fn feed(ns: &NetNs, tool: &[&str], text: &str) -> Result<()> {
    let (program, arguments) = tool.split_first().context("a tool")?;
    let mut child = ns
        .command(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {program}: `cargo xtask setup` installs it"))?;
    if let Some(mut input) = child.stdin.take() {
        // When the tool stops early the pipe breaks; its own message tells more.
        let _ = input.write_all(text.as_bytes());
    }
    let output = child.wait_with_output();
    let output = output.with_context(|| format!("waiting for {program}"))?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {}", message.trim());
    Ok(())
}
