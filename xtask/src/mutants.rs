//! `cargo xtask mutants`: does a test fail for each seeded bug?
//!
//! The seeded bugs are data (`tests/mutants`); production source does not contain them. A copy of the tree
//! below the target directory gets a switch in every place, so that one build holds all bugs. The
//! suites must pass with none chosen; then, for each bug, a test of its suite must fail. Nothing that
//! ships is built here. `suites` runs the tests.

mod catalogue;
mod check;
mod expressions;
mod matching;
mod rewrite;
mod suites;
#[allow(
    dead_code,
    unreachable_pub,
    unused_macros,
    reason = "a module of the copy: only the numbers of names are needed here too"
)]
mod switch;
pub(crate) mod tree;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use crate::toolchain::Toolchain;
use crate::{setup, test, workspace};
use catalogue::{Catalogue, Mutant};
pub(crate) use check::check;
use suites::{Outcome, Suite, Suites};

/// The subcommand: all bugs, or those whose name contains `filter`.
pub(crate) fn run(filter: Option<&str>) -> Result<ExitCode> {
    test::require_root("the kernel programs")?;
    let root = workspace::root()?;
    let catalogue = catalogue::load(&root)?;
    let mut chosen = catalogue.mutants.iter().collect::<Vec<_>>();
    chosen.retain(|mutant| filter.is_none_or(|filter| mutant.name.contains(filter)));
    chosen.sort_by(|a, b| a.name.cmp(&b.name));
    ensure!(
        !chosen.is_empty(),
        "no seeded bug has such a name; there are: {}",
        names(&catalogue).join(", ")
    );
    let toolchain = setup::ensure()?;
    let started = Instant::now();
    let cargo = prepare(&root, &catalogue, &toolchain)?;
    let suites = BTreeSet::from_iter(
        chosen
            .iter()
            .map(|mutant| suite(mutant))
            .collect::<Result<Vec<_>>>()?,
    );
    let programs = Suites::build(cargo, &suites.iter().copied())?;
    println!(
        "built   {} bugs  {:.0?}",
        catalogue.mutants.len(),
        started.elapsed()
    );

    check_unchanged(suites, &programs)?;
    let caught = run_each(&chosen, &programs)?;
    println!("took    {:.0?}", started.elapsed());
    println!("{caught} of {} caught", chosen.len());
    Ok(if caught == chosen.len() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Checks that every suite passes while no bug is chosen.
fn check_unchanged(suites: BTreeSet<Suite<'_>>, programs: &Suites) -> Result<()> {
    for suite in suites {
        let began = Instant::now();
        match programs.run(suite, None)? {
            Outcome::Passed => println!("passed  {suite}, without any  {:.1?}", began.elapsed()),
            Outcome::Failed(test) => bail!("{test} fails without any seeded bug: fix it first"),
            Outcome::Refused => {
                bail!("the kernel refuses the programs with all switches: move one")
            }
        }
    }
    Ok(())
}

/// Brings the copy up to date; returns a cargo that builds it.
fn prepare(root: &Path, catalogue: &Catalogue, toolchain: &Toolchain) -> Result<Command> {
    let sources = check::sources(root, catalogue)?;
    let (places, findings) = check::places(catalogue, &sources);
    for finding in &findings {
        eprintln!("{finding}");
    }
    ensure!(
        findings.is_empty(),
        "{} of the seeded bugs do not fit the tree: correct {}",
        findings.len(),
        catalogue::DIRECTORY
    );
    let directory = workspace::target_directory()?.join("mutants");
    let copy = directory.join("tree");
    let changed = tree::refresh(root, &copy, &sources, &places)?;
    println!("copied  {}  {changed} files changed", copy.display());
    let mut cargo = workspace::cargo(toolchain)?;
    cargo
        .current_dir(&copy)
        .env("CARGO_TARGET_DIR", directory.join("target"));
    Ok(cargo)
}

/// Runs each bug against its suite; returns how many were caught.
fn run_each(chosen: &[&Mutant], programs: &Suites) -> Result<usize> {
    let width = chosen
        .iter()
        .map(|mutant| mutant.name.len())
        .max()
        .unwrap_or(0);
    let mut caught = 0;
    for mutant in chosen {
        let name = &mutant.name;
        match programs.run(suite(mutant)?, Some(name))? {
            Outcome::Failed(test) => {
                caught += 1;
                println!("caught  {name:width$}  by {test}");
            }
            Outcome::Passed => println!("MISSED  {name:width$}  by {}", mutant.suite),
            Outcome::Refused => println!("MISSED  {name:width$}  the kernel refuses the programs"),
        }
    }
    Ok(caught)
}

fn suite(mutant: &Mutant) -> Result<Suite<'_>> {
    suites::parse(&mutant.suite).with_context(|| format!("{} has no suite", mutant.name))
}

fn names(catalogue: &Catalogue) -> Vec<&str> {
    let mut names = Vec::from_iter(catalogue.mutants.iter().map(|mutant| mutant.name.as_str()));
    names.sort_unstable();
    names
}
