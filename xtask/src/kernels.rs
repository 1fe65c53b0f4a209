//! `cargo xtask kernels`: the tests of the kernel programs and of the agent, on Debian's kernels.
//!
//! Every kernel is booted in a guest and runs the same test programs, so the programs are loaded by
//! that kernel's verifier and attached as that kernel does it. Kernels without the file system that
//! shares this machine's root (the cloud flavours) cannot be booted, which is said.

mod refusal;
mod results;
mod suites;

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;

use crate::guest::{self, Ending, KernelPackage, MachineArguments};
use crate::{interrupt, setup};
use results::Results;
use suites::{Programs, SUITES};

/// Flavours whose kernels can be booted with a shared root file system.
const FLAVOURS: [&str; 2] = ["", "rt"];

#[derive(Args)]
pub(crate) struct Arguments {
    /// A kernel, as for `guest`; by default the newest of every series and flavour
    #[arg(long)]
    kernel: Vec<String>,
    /// Only tests whose name contains this
    #[arg(long)]
    filter: Vec<String>,
    /// Seconds until a guest is ended
    #[arg(long, default_value_t = 2400)]
    deadline: u64,
    #[command(flatten)]
    machine: MachineArguments,
}

/// The subcommand.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let toolchain = setup::ensure()?;
    let available = guest::available()?;
    let kernels = chosen(&available, &arguments.kernel)?;
    ensure!(
        !kernels.is_empty(),
        "no kernel in the package index can be booted: run `apt-get update`"
    );
    let programs = Programs::build(&toolchain)?;
    let mut lines = Vec::new();
    let mut passed = 0;
    for &kernel in &kernels {
        println!("{kernel}: {}", suites::description(kernel));
        let (succeeded, line) = test_on(kernel, &programs, arguments)?;
        passed += usize::from(succeeded);
        println!("{line}");
        lines.push(line);
    }
    if kernels.len() > 1 {
        println!("\n{}", lines.join("\n"));
    }
    println!("kernels: {passed} of {} passed", kernels.len());
    Ok(if passed == kernels.len() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The kernels asked for, or the newest of every series and flavour that can be booted.
fn chosen<'a>(available: &'a [KernelPackage], asked: &[String]) -> Result<Vec<&'a KernelPackage>> {
    if !asked.is_empty() {
        let asked = asked.iter();
        return asked.map(|asked| guest::choose(available, asked)).collect();
    }
    let newest = guest::newest_of_each_series(available);
    let (bootable, others): (Vec<_>, Vec<_>) =
        newest.partition(|kernel| FLAVOURS.contains(&kernel.flavour()));
    for other in others {
        println!("{other}: cannot be booted: it has no 9p file system");
    }
    Ok(bootable)
}

/// Runs all suites on a kernel; returns whether all tests passed, and the result for people.
fn test_on(
    kernel: &KernelPackage,
    programs: &Programs,
    arguments: &Arguments,
) -> Result<(bool, String)> {
    let started = Instant::now();
    let session = programs.session(kernel, &arguments.filter);
    let booted = guest::boot(
        kernel,
        &session,
        arguments.machine.size(),
        Duration::from_secs(arguments.deadline),
        Results::printing(format!("{kernel} ")),
        io::stderr(),
    );
    let (ending, results) = match booted {
        Ok((ending, results, _)) => (ending, results),
        // Another kernel may do better, unless this command was interrupted.
        Err(error) => {
            interrupt::check()?;
            return Ok((false, format!("{kernel:<14} FAILED: {error:#}")));
        }
    };
    // A filter may leave nothing of a suite.
    let (suites, missing) = if arguments.filter.is_empty() {
        let suites = SUITES.iter().map(|suite| suite.name).collect();
        (suites, suites::without_tests(results.ran()))
    } else {
        (Vec::new(), Vec::new())
    };
    let succeeded = ending == Ending::Exited(0) && results.succeeded(&suites) && missing.is_empty();
    let verdict = match ending {
        _ if succeeded => "passed".to_owned(),
        Ending::Deadline => "FAILED, ended at the deadline".to_owned(),
        Ending::Exited(_) => "FAILED".to_owned(),
    };
    let mut line = format!(
        "{kernel:<14} {:<7} {} ({} s): {verdict}",
        results.attached(),
        results.summary(),
        started.elapsed().as_secs(),
    );
    for name in missing {
        line.push_str("\n  no test has this name: ");
        line.push_str(&name);
    }
    for note in results.notes() {
        line.push_str("\n  ");
        line.push_str(note);
    }
    for failure in results.failures() {
        line.push('\n');
        line.push_str(&failure);
    }
    Ok((succeeded, line))
}
