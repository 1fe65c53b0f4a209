//! The cost of a packet in the kernel programs, by `BPF_PROG_TEST_RUN`.
//!
//! The maps hold the whole world, compiled as the agent compiles it, and the endpoint enforces. A
//! figure is the median over rounds of the mean time of a run; in each round the no-op program runs
//! on the same frame. A run repeats one packet: "new flow" is a SYN that is evaluated each time, so
//! the insertion of a new conntrack entry is not included. Flow records are written and read.
//! Caches are warm; interfaces, routing and the network stack are not included.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ringfence::datapath::KernelDatapath;
use ringfence_testbed::sizes::Record;
use ringfence_testbed::{Node, interrupt};

use crate::arguments::Options;
use crate::figures::{Figure, Unit};
use crate::frames::{ACK, SYN, malformed, tcp};
use crate::loaded::{LoadedPrograms, PASSED};
use crate::report::{heading, line, milliseconds, table};
use crate::world;

/// Runs per round, and runs between two reads of the flow records: few enough that the ring is
/// never so full that every record wakes the reader.
const REPEAT: u32 = 100_000;
const BATCH: u32 = 2_000;
const ROUNDS: usize = 9;
const QUICK_ROUNDS: usize = 3;
/// The measured kinds of packets.
const METRICS: [&str; 5] = ["established", "reply", "new", "denied", "malformed"];
const PROGRAMS: &str = "kernel/programs";
/// `TC_ACT_SHOT`.
const DROPPED: i32 = 2;

struct Fixture {
    loaded: LoadedPrograms,
    /// Time to load the programs, including verification.
    loading: Duration,
}

/// One measurement.
struct Case {
    name: &'static str,
    program: &'static str,
    frame: Vec<u8>,
    expect: i32,
    /// Whether each run writes a flow record.
    records: bool,
    /// Nanoseconds of the program and of the no-op, by round.
    program_ns: Vec<f64>,
    noop_ns: Vec<f64>,
}

/// Measures and prints tables.
pub(crate) fn measure(options: &Options) -> Result<Vec<Figure>> {
    let named = |name: &&str| [4, 6].map(|family| format!("kernel/{name}{family}"));
    let mut metrics = METRICS.iter().flat_map(named);
    let sizes = options.wants(PROGRAMS);
    if !sizes && !metrics.any(|metric| options.wants(&metric)) {
        return Ok(Vec::new());
    }
    let mut fixture = Fixture::new()?;
    heading("A packet in the kernel programs (BPF_PROG_TEST_RUN, median)");
    let (mut rows, mut figures) = (Vec::new(), Vec::new());
    for v6 in [false, true] {
        let mut cases = fixture.cases(v6)?;
        let family = if v6 { 6 } else { 4 };
        cases.retain(|case| options.wants(&format!("kernel/{}{family}", case.name)));
        for _ in 0..options.rounds(ROUNDS, QUICK_ROUNDS) {
            for case in &mut cases {
                interrupt::check()?;
                fixture.run(case)?;
            }
        }
        for case in &cases {
            rows.push(case.row(family));
            let name = format!("kernel/{}{family}/{}", case.name, case.program);
            figures.push(Figure::of(name, Unit::Ns, &case.above_noop()));
        }
    }
    let head = [
        "packet",
        "hook",
        "family",
        "ns",
        "no-op ns",
        "ns above no-op",
    ];
    table(&head, &rows);
    if sizes {
        figures.extend(programs(&mut fixture.loaded.datapath)?);
        let loading = milliseconds(fixture.loading);
        line(&format!(
            "  Loading and verifying the programs took {loading}."
        ));
    }
    Ok(figures)
}

impl Fixture {
    fn new() -> Result<Self> {
        let started = Instant::now();
        let mut loaded = LoadedPrograms::load(Vec::new())?;
        let loading = started.elapsed();
        let node = Node::new()?;
        let target = node.workload_at(world::NAMESPACE, "target", world::TARGET)?;
        let sender = node.workload_at(world::NAMESPACE, "sender", world::SENDER)?;
        let inventory = world::inventory(&node, &target, &sender);
        loaded.publish_texts(
            &[inventory],
            &[world::policies(true)],
            &["target".to_owned()],
        )?;
        Ok(Self { loaded, loading })
    }

    /// The measurements of a family, after the handshakes that they need: one connection opened by
    /// the remote workload, and one by the target.
    fn cases(&mut self, v6: bool) -> Result<Vec<Case>> {
        let local: IpAddr = if v6 {
            world::TARGET.ip6.into()
        } else {
            world::TARGET.ip4.into()
        };
        let [remote4, remote6] = world::remote(0);
        let remote = if v6 { remote6 } else { remote4 };
        let (into, out_of) = ("to_workload", "from_workload");
        let mut cases = Vec::new();
        for (program, back, client, server) in
            [(into, out_of, remote, local), (out_of, into, local, remote)]
        {
            let (from, to) = ((client, 40_000), (server, 8080));
            for (program, frame) in [
                (program, tcp(from, to, SYN)?),
                (back, tcp(to, from, SYN | ACK)?),
                (program, tcp(from, to, ACK)?),
                // The first packet after the handshake promotes the entry to assured.
                (program, tcp(from, to, ACK)?),
            ] {
                let (verdict, _) = self.loaded.run_with_verdict(program, &frame, 1)?;
                ensure!(verdict == PASSED, "the handshake is dropped by {program}");
            }
            let fresh = tcp((client, 40_001), to, SYN)?;
            let denied = tcp((client, 40_002), (server, 22), SYN)?;
            let garbage = malformed(fresh.clone());
            let case = |name, program, frame, expect, records| Case {
                name,
                program,
                frame,
                expect,
                records,
                program_ns: Vec::new(),
                noop_ns: Vec::new(),
            };
            cases.extend([
                case("established", program, tcp(from, to, ACK)?, PASSED, false),
                case("reply", back, tcp(to, from, ACK)?, PASSED, false),
                case("new", program, fresh, PASSED, true),
                case("denied", program, denied, DROPPED, true),
                case("malformed", program, garbage, DROPPED, true),
            ]);
        }
        cases.sort_by_key(|case| METRICS.iter().position(|name| *name == case.name));
        Ok(cases)
    }

    fn run(&mut self, case: &mut Case) -> Result<()> {
        let batch = if case.records { BATCH } else { REPEAT };
        let (mut total, mut batches) = (Duration::ZERO, 0);
        while batches * batch < REPEAT {
            let (verdict, mean) = self
                .loaded
                .run_with_verdict(case.program, &case.frame, batch)?;
            ensure!(
                verdict == case.expect,
                "{} at {}: verdict {verdict} instead of {}",
                case.name,
                case.program,
                case.expect
            );
            total += mean;
            batches += 1;
            self.loaded.telemetry.events.drain(usize::MAX, |_| {});
        }
        let noop = self.loaded.noop.run(&case.frame, REPEAT)?;
        let nanoseconds = |time: Duration| time.as_secs_f64() * 1e9;
        case.program_ns
            .push(nanoseconds(total) / f64::from(batches));
        case.noop_ns.push(nanoseconds(noop));
        Ok(())
    }
}

impl Case {
    fn above_noop(&self) -> Vec<f64> {
        let pairs = self.program_ns.iter().zip(&self.noop_ns);
        pairs.map(|(program, noop)| program - noop).collect()
    }

    fn row(&self, family: u8) -> Vec<String> {
        let shown = |samples: &[f64]| {
            let figure = Figure::of("", Unit::Ns, samples);
            format!("{:.0}", figure.median)
        };
        vec![
            self.name.to_owned(),
            self.program.to_owned(),
            format!("IPv{family}"),
            shown(&self.program_ns),
            shown(&self.noop_ns),
            shown(&self.above_noop()),
        ]
    }
}

/// The sizes of the programs.
fn programs(datapath: &mut KernelDatapath) -> Result<Vec<Figure>> {
    heading("The programs");
    let (mut rows, mut figures) = (Vec::new(), Vec::new());
    let measured = Record::measured(datapath)?;
    for (name, sizes) in &measured.programs {
        let sizes = [
            ("verified-instructions", sizes.verified),
            ("translated-bytes", sizes.translated),
            ("jitted-bytes", sizes.jitted),
        ];
        let mut row = vec![name.clone()];
        for (what, size) in sizes {
            row.push(size.to_string());
            let name = format!("{PROGRAMS}/{name}-{what}");
            figures.push(Figure::of(name, Unit::Count, &[f64::from(size)]));
        }
        rows.push(row);
    }
    let head = [
        "program",
        "instructions verified",
        "bytes translated",
        "bytes jitted",
    ];
    table(&head, &rows);
    for difference in measured.differences(&Record::kept()?) {
        line(&format!("  {difference}"));
    }
    Ok(figures)
}
