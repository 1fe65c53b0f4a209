//! Invalid input at the start: exit status 2, and an error with the position.

use anyhow::{Result, ensure};
use ringfence_testbed::{Agent, AgentSpec};

use crate::testbed::Testbed;

/// The agent must exit with status 2 and report the position and the word.
fn expect_start_error(testbed: &Testbed, spec: &AgentSpec, place: &str, word: &str) -> Result<()> {
    let Err(error) = Agent::start(&testbed.node, spec) else {
        anyhow::bail!("started despite {place}: {word}");
    };
    let error = format!("{error:#}");
    for expected in ["exit status: 2", place, word] {
        ensure!(error.contains(expected), "no {expected:?} in: {error}");
    }
    Ok(())
}

#[test]
fn invalid_files_fail_the_start_and_the_error_has_the_position() -> Result<()> {
    let testbed = Testbed::new(&[("shop", &[])])?.with_labels("shop/a", &[])?;
    let good = AgentSpec {
        inventory: testbed.inventory().build(),
        default_mode: "enforce".to_owned(),
        ..AgentSpec::default()
    };

    let config = AgentSpec {
        config: "[flows]\nhistroy = 5\n".to_owned(),
        ..good.clone()
    };
    let line = 1 + line_of(&config, &testbed, "histroy")?;
    expect_start_error(
        &testbed,
        &config,
        &format!("ringfence.toml:{line}:1"),
        "histroy",
    )?;

    let mode = AgentSpec {
        default_mode: "open".to_owned(),
        ..good.clone()
    };
    expect_start_error(&testbed, &mode, "ringfence.toml:", "open")?;

    let inventory = AgentSpec {
        inventory: good.inventory.replace("labels", "lables"),
        ..good.clone()
    };
    let place = |text: &str, word: &str| {
        let line = text.lines().position(|line| line.starts_with(word));
        line.map_or(0, |line| line + 1)
    };
    let line = place(&inventory.inventory, "lables");
    expect_start_error(
        &testbed,
        &inventory,
        &format!("inventory.toml:{line}:1"),
        "lables",
    )?;

    // The control: without the mistakes the agent starts.
    let agent = Agent::start(&testbed.node, &good)?;
    ensure!(agent.cli(&["status"])?.status.success());
    Ok(())
}

/// The index of the configuration's line that starts with this word. The test bed renders the file,
/// so an agent with a valid configuration has to write it first.
fn line_of(spec: &AgentSpec, testbed: &Testbed, word: &str) -> Result<usize> {
    let good = AgentSpec {
        config: spec.config.replace("histroy", "history"),
        ..spec.clone()
    };
    let agent = Agent::start(&testbed.node, &good)?;
    let text = std::fs::read_to_string(agent.config_path())?;
    let word = word.replace("histroy", "history");
    let found = text.lines().position(|line| line.starts_with(&word));
    found.ok_or_else(|| anyhow::anyhow!("no {word} in {text}"))
}
