//! Attacks a fence with frames of every family; see `cargo xtask attack --help`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use clap::Parser;
use ringfence_testbed::attack::{Arenas, FAMILIES, Tally, attack, wire};
use ringfence_testbed::interrupt;

/// Send hostile frames, and see that none arrives where policy denies it.
///
/// Prints a row for each family and last `attack: …`. Exits with 1 if a denied frame arrived or
/// permitted ones were lost, after printing the frames and writing them to a capture file.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask attack", bin_name = "cargo xtask attack")]
struct Arguments {
    /// How many frames, over all families.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    frames: u64,
    /// Repeats the frames of the run that printed it.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Only families whose name contains this.
    #[arg(long, value_name = "NAME", default_value = "")]
    family: String,
    /// Where capture files of frames that went wrong are written.
    #[arg(long, value_name = "DIR", default_value = ".")]
    captures: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Before any other thread or child exists: all of them must leave signals to the watcher.
    match interrupt::watch().and_then(|()| run(&arguments)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(_) if interrupt::check().is_err() => {
            eprintln!("interrupted; everything the attack made has been removed");
            // As a shell reports a process that ended by SIGINT.
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let wanted = |name: &str| name.contains(&arguments.family);
    let families: Vec<_> = FAMILIES.iter().filter(|f| wanted(f.name)).collect();
    ensure!(
        !families.is_empty(),
        "no family's name contains '{}'",
        arguments.family
    );
    let seed = arguments.seed.unwrap_or_else(|| {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::from(now.subsec_nanos()) ^ now.as_secs() << 20
    });
    println!("seed {seed}");
    let mut arenas = Arenas::new()?;
    wire::stay_on_one_cpu()?;
    println!("{}", Tally::head());
    let mut total = Tally::default();
    let mut good = true;
    for (index, family) in families.iter().enumerate() {
        // The last families make up for what the division left over.
        let (index, count) = (u64::try_from(index)?, u64::try_from(families.len())?);
        let share = (arguments.frames.saturating_sub(total.sent)) / (count - index);
        let tally = attack(&mut arenas, family, share, seed)?;
        println!("{}", tally.row(family.name));
        if !tally.is_good() {
            good = false;
            print!("{}", tally.offences());
            tally.save(&arguments.captures, family.name)?;
        }
        total.add(&tally);
    }
    println!(
        "attack: {} frames, {} families: {} of {} denied delivered, {} of {} permitted delivered",
        total.sent,
        families.len(),
        total.denied_delivered,
        total.denied,
        total.permitted_delivered,
        total.permitted,
    );
    Ok(good)
}
