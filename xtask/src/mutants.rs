//! `cargo xtask mutants`: does a test notice when compile or look-up errs?
//!
//! Every seam `mutant!(name, right, wrong)` in `agent` and `common` is a seeded bug. The suites are
//! built once with all of them and must pass with none chosen; then they run once for each, and one
//! test must fail. Nothing that ships is built here. How a suite is run is `suites`' business.

mod seams;
mod suites;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail, ensure};

use crate::lint::source;
use crate::{setup, test, workspace};
use suites::{Outcome, Suites};

/// The subcommand: all bugs, or those whose name contains `filter`.
pub(crate) fn run(filter: Option<&str>) -> Result<ExitCode> {
    test::require_root("the kernel programs")?;
    let names = seams::names(&source::all(&workspace::root()?)?);
    let chosen: BTreeSet<&String> = names
        .iter()
        .filter(|name| filter.is_none_or(|filter| name.contains(filter)))
        .collect();
    ensure!(
        !chosen.is_empty(),
        "no seeded bug has such a name; there are: {}",
        Vec::from_iter(names).join(", ")
    );
    let toolchain = setup::ensure()?;
    let suites = Suites::build(&toolchain)?;

    let started = Instant::now();
    if let Outcome::Failed(test) = suites.run(None)? {
        bail!("{test} fails without any seeded bug: nothing can be learnt from it");
    }
    println!("passed  without any  {:.0?}", started.elapsed());
    let width = chosen.iter().map(|name| name.len()).max().unwrap_or(0);
    let mut caught = 0;
    for name in &chosen {
        match suites.run(Some(name))? {
            Outcome::Failed(test) => {
                caught += 1;
                println!("caught  {name:width$}  by {test}");
            }
            Outcome::Passed => println!("MISSED  {name}"),
        }
    }
    println!("{caught} of {} caught", chosen.len());
    Ok(if caught == chosen.len() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
