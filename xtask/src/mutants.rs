//! `cargo xtask mutants`: does a test notice when compile, look-up or the packet path errs?
//!
//! Every seam `mutant!(name, right, wrong)` in `agent`, `common` and `ebpf` is a seeded bug, about
//! policy or about packets. The suites are built once with all of them and must pass with none
//! chosen; then those of its area run once for each bug, and one test must fail. Nothing that ships is built here. How a suite is run is `suites`' business.

mod seams;
mod suites;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail, ensure};

use crate::lint::source;
use crate::{setup, test, workspace};
use suites::{Area, Outcome, Suites};

/// The subcommand: all bugs, or those whose name contains `filter`.
pub(crate) fn run(filter: Option<&str>) -> Result<ExitCode> {
    test::require_root("the kernel programs")?;
    let names = seams::names(&source::all(&workspace::root()?)?);
    let chosen: Vec<(&String, Area)> = names
        .iter()
        .map(|(name, area)| (name, *area))
        .filter(|(name, _)| filter.is_none_or(|filter| name.contains(filter)))
        .collect();
    ensure!(
        !chosen.is_empty(),
        "no seeded bug has such a name; there are: {}",
        Vec::from_iter(names.into_keys()).join(", ")
    );
    let toolchain = setup::ensure()?;
    let mut areas = vec![Area::Policy, Area::Datapath];
    areas.retain(|area| chosen.iter().any(|(_, of)| of == area));
    let suites = Suites::build(&toolchain, &areas)?;

    for area in areas {
        let started = Instant::now();
        if let Outcome::Failed(test) = suites.run(area, None)? {
            bail!("{test} fails without any seeded bug: nothing can be learnt from it");
        }
        println!("passed  {area:?}, without any  {:.0?}", started.elapsed());
    }
    let width = chosen.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut caught = 0;
    for (name, area) in &chosen {
        match suites.run(*area, Some(name))? {
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
