//! Sends hostile frames of every attack family to a fence; see `cargo xtask attack --help`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use clap::Parser;
use ringfence_testbed::attack::{
    FAMILIES, Family, Networks, ROUTED_FAMILIES, Tally, Topology, attack, pcap, recording, wire,
};
use ringfence_testbed::interrupt;

/// Send hostile frames and check that none is delivered where policy denies it.
///
/// Prints one row per attack family and a final line `attack: …`. If a denied frame was delivered
/// or a permitted one was lost, prints these frames, a loss with its reason and counter, writes
/// them to a capture file and exits with 1. Frames that the kernel's queues dropped, by its own
/// counters, are sent again and counted in the last line.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask attack", bin_name = "cargo xtask attack")]
struct Arguments {
    /// Number of frames over all attack families.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    frames: u64,
    /// Seed printed by an earlier run, to repeat its frames.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Only attack families whose name contains this text.
    #[arg(long, value_name = "NAME", default_value = "")]
    family: String,
    /// Directory for capture files of frames with the wrong outcome.
    #[arg(long, value_name = "DIR", default_value = ".")]
    captures: PathBuf,
    /// Send nothing, but record real traffic of two hosts in this file.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["frames", "seed", "family"])]
    record: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Before any thread or child is started, so that all of them inherit the signal mask.
    match interrupt::watch().and_then(|()| run(&arguments)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(_) if interrupt::check().is_err() => {
            eprintln!("interrupted; everything the run created has been removed");
            // The exit status that a shell gives a process that ended by SIGINT.
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    if let Some(file) = &arguments.record {
        let frames = recording::record()?;
        pcap::write(file, frames.iter().map(Vec::as_slice))?;
        println!("{} frames in {}", frames.len(), file.display());
        return Ok(true);
    }
    let wanted = |family: &&Family| family.name.contains(&arguments.family);
    let families = [
        (Topology::Bridge, FAMILIES),
        (Topology::Routed, ROUTED_FAMILIES),
    ];
    let families = families.map(|(topology, all)| {
        let wanted: Vec<_> = all.iter().filter(wanted).collect();
        (topology, wanted)
    });
    let count: usize = families.iter().map(|(_, families)| families.len()).sum();
    ensure!(
        count > 0,
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
    println!("{}", Tally::head());
    let mut total = Tally::default();
    let (mut good, mut left, mut drops, mut again) = (true, u64::try_from(count)?, 0, 0);
    for (topology, families) in families {
        if families.is_empty() {
            continue;
        }
        let mut networks = Networks::new(topology)?;
        wire::stay_on_one_cpu()?;
        for family in families {
            // The remainder of the division goes to the last families.
            let share = arguments.frames.saturating_sub(total.sent) / left;
            left -= 1;
            let tally = attack(&mut networks, family, share, seed)?;
            println!("{}", tally.row(family.name));
            if tally.rejects.rejected > 0 {
                println!("{}", tally.rejects);
            }
            if !tally.is_good() {
                good = false;
                print!("{}", tally.failures_text());
                tally.save(&arguments.captures, family.name)?;
            }
            total.add(&tally);
        }
        drops += networks.sent_again.drops;
        again += networks.sent_again.frames;
    }
    println!(
        "attack: {} frames, {} families: {} of {} denied delivered, {} of {} permitted delivered; \
         kernel queues dropped {}, {} sent again",
        total.sent,
        count,
        total.denied_delivered,
        total.denied,
        total.permitted_delivered,
        total.permitted,
        drops,
        again,
    );
    Ok(good)
}
