//! Bad input at the start: exit code 2, and where to look.

use anyhow::{Result, ensure};
use ringfence_testbed::{Agent, AgentSpec};

use crate::world::World;

/// The agent ends with 2 and names the place and the word.
fn refused(world: &World, spec: &AgentSpec, place: &str, word: &str) -> Result<()> {
    let Err(error) = Agent::start(&world.node, spec) else {
        anyhow::bail!("started in spite of {place}: {word}");
    };
    let error = format!("{error:#}");
    for expected in ["exit status: 2", place, word] {
        ensure!(error.contains(expected), "no {expected:?} in: {error}");
    }
    Ok(())
}

#[test]
fn bad_files_end_the_start_with_the_place_of_the_mistake() -> Result<()> {
    let world = World::new(&[("shop", &[])])?.labelled("shop/a", &[])?;
    let good = AgentSpec {
        inventory: world.inventory().build(),
        default_mode: "enforce".to_owned(),
        ..AgentSpec::default()
    };

    let config = AgentSpec {
        config: "[flows]\nhistroy = 5\n".to_owned(),
        ..good.clone()
    };
    let line = 1 + line_of(&config, &world, "histroy")?;
    refused(
        &world,
        &config,
        &format!("ringfence.toml:{line}:1"),
        "histroy",
    )?;

    let mode = AgentSpec {
        default_mode: "open".to_owned(),
        ..good.clone()
    };
    refused(&world, &mode, "ringfence.toml:", "open")?;

    let inventory = AgentSpec {
        inventory: good.inventory.replace("labels", "lables"),
        ..good.clone()
    };
    let place = |text: &str, word: &str| {
        let line = text.lines().position(|line| line.starts_with(word));
        line.map_or(0, |line| line + 1)
    };
    let line = place(&inventory.inventory, "lables");
    refused(
        &world,
        &inventory,
        &format!("inventory.toml:{line}:1"),
        "lables",
    )?;

    // The control: the same without a mistake starts.
    let agent = Agent::start(&world.node, &good)?;
    ensure!(agent.cli(&["status"])?.status.success());
    Ok(())
}

/// How many lines of the configuration stand before the one with this word: it is rendered by the
/// test bed, so an agent with a good one says.
fn line_of(spec: &AgentSpec, world: &World, word: &str) -> Result<usize> {
    let good = AgentSpec {
        config: spec.config.replace("histroy", "history"),
        ..spec.clone()
    };
    let agent = Agent::start(&world.node, &good)?;
    let text = std::fs::read_to_string(agent.config_path())?;
    let word = word.replace("histroy", "history");
    let found = text.lines().position(|line| line.starts_with(&word));
    found.ok_or_else(|| anyhow::anyhow!("no {word} in {text}"))
}
