//! What a packet costs in the kernel programs, by `BPF_PROG_TEST_RUN`.
//!
//! The maps hold the whole world, compiled as the agent compiles it, and the endpoint enforces. A
//! figure is the median over rounds of the mean time of a run, and in each round the no-op program
//! runs on the same frame. A run repeats one packet: "new flow" is a SYN that is judged again each
//! time, so inserting into an empty place of conntrack is not in it. Flow records are written and
//! read. Caches are as warm as they get; interfaces, routing and the stack are not in here.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::programs::{TestRun as _, TestRunOptions};
use ringfence::datapath::{Datapath as _, KernelDatapath, LoadOptions, Telemetry};
use ringfence::model::{WallTime, WorkloadId};
use ringfence::plan::{State, plan};
use ringfence::policy::{Clock, Compiler, Inputs, LocalEndpoint, Modes};
use ringfence::source::FileSet;
use ringfence_common::mode::Mode;
use ringfence_testbed::sizes::Record;
use ringfence_testbed::{Bpffs, Node, interrupt};

use crate::arguments::Options;
use crate::bpf::{Program, Verdict};
use crate::figures::{Figure, Unit};
use crate::frames::{ACK, SYN, malformed, tcp};
use crate::report::{heading, line, milliseconds, table};
use crate::world;

/// `lo`, which a test run reports as the interface.
const IFINDEX: u32 = 1;
/// Some other interface: packets for the workload are forwarded, not sent by this host.
const ELSEWHERE: u32 = 77;
/// Runs of a round, and those between two readings of the flow records: so few that the ring never gets
/// so full that each record wakes its reader.
const REPEAT: u32 = 100_000;
const BATCH: u32 = 2_000;
const ROUNDS: usize = 9;
const QUICK_ROUNDS: usize = 3;
/// Paths of a packet.
const METRICS: [&str; 5] = ["established", "reply", "new", "denied", "malformed"];
const PROGRAMS: &str = "kernel/programs";
/// `TC_ACT_UNSPEC` and `TC_ACT_SHOT`.
const PASSED: i32 = -1;
const DROPPED: i32 = 2;

struct Fixture {
    datapath: KernelDatapath,
    telemetry: Telemetry,
    noop: Program,
    /// What loading took, verification included.
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
    /// Nanoseconds of ours, and of the no-op, by round.
    ours: Vec<f64>,
    noop: Vec<f64>,
}

/// Measures, and prints tables unless figures are wanted instead.
pub(crate) fn measure(options: &Options) -> Result<Vec<Figure>> {
    let named = |name: &&str| [4, 6].map(|family| format!("kernel/{name}{family}"));
    let mut metrics = METRICS.iter().flat_map(named);
    let sizes = options.wants(PROGRAMS);
    if !sizes && !metrics.any(|metric| options.wants(&metric)) {
        return Ok(Vec::new());
    }
    let dir = tempfile::Builder::new()
        .prefix("ringfence-bench-")
        .tempdir()?;
    let bpffs = dir.path().join("bpffs");
    std::fs::create_dir(&bpffs)?;
    let bpffs = Bpffs::mount(bpffs)?;
    let mut fixture = Fixture::new(bpffs.path(), dir.path())?;
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
            figures.push(Figure::of(name, Unit::Ns, &case.above()));
        }
    }
    let head = ["path", "hook", "family", "ns", "no-op ns", "ns above no-op"];
    table(&head, &rows);
    if sizes {
        figures.extend(programs(&mut fixture.datapath)?);
        let loading = milliseconds(fixture.loading);
        line(&format!("  Loading and verifying them took {loading}."));
    }
    Ok(figures)
}

impl Fixture {
    fn new(bpffs: &Path, dir: &Path) -> Result<Self> {
        let started = Instant::now();
        let (mut datapath, telemetry) = KernelDatapath::load(bpffs, &LoadOptions::default())?;
        let loading = started.elapsed();
        let node = Node::new()?;
        let target = node.workload_at(world::NAMESPACE, "target", world::TARGET)?;
        let sender = node.workload_at(world::NAMESPACE, "sender", world::SENDER)?;
        let (inventory, policies) = (dir.join("inventory.toml"), dir.join("policies.toml"));
        std::fs::write(&inventory, world::inventory(&node, &target, &sender))?;
        std::fs::write(&policies, world::policies(true))?;
        let (set, _) = FileSet::load_initial(vec![inventory], vec![policies])
            .map_err(|errors| anyhow!("{errors:?}"))?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let workload: WorkloadId = format!("{}/target", world::NAMESPACE).parse()?;
        let inputs = Inputs {
            inventory: set.inventory(),
            policies: set.policies(),
            endpoints: &[LocalEndpoint {
                ifindex: IFINDEX,
                workload,
                pickup_until: 0,
            }],
            modes: &Modes {
                default: Mode::Enforce,
                namespaces: BTreeMap::new(),
            },
            locked: &[],
            clock: Clock {
                now: WallTime(i64::try_from(now.as_nanos())?),
                boot: datapath.clocks()?.boot,
            },
        };
        let compiled = Compiler::default().compile(&inputs)?;
        for action in plan(&State::default(), &compiled.state).publish {
            datapath.write(&action)?;
        }
        Ok(Self {
            datapath,
            telemetry,
            noop: Program::returning(Verdict::Pass)?,
            loading,
        })
    }

    /// The measurements of a family, after the handshakes that some of them need: one opened by the
    /// remote workload, and one by ours.
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
            ] {
                let (verdict, _) = self.test_run(program, &frame, 1)?;
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
                ours: Vec::new(),
                noop: Vec::new(),
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
            let (verdict, mean) = self.test_run(case.program, &case.frame, batch)?;
            ensure!(
                verdict == case.expect,
                "{} at {}: verdict {verdict} instead of {}",
                case.name,
                case.program,
                case.expect
            );
            total += mean;
            batches += 1;
            self.telemetry.drain(usize::MAX, |_| {});
        }
        let noop = self.noop.run(&case.frame, REPEAT)?;
        let nanoseconds = |time: Duration| time.as_secs_f64() * 1e9;
        case.ours.push(nanoseconds(total) / f64::from(batches));
        case.noop.push(nanoseconds(noop));
        Ok(())
    }

    /// The verdict and the mean time.
    fn test_run(
        &mut self,
        program: &'static str,
        frame: &[u8],
        repeat: u32,
    ) -> Result<(i32, Duration)> {
        let context = sk_buff();
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            repeat,
            ..TestRunOptions::new()
        };
        let program = self.datapath.program(program).context("no such program")?;
        let result = program.test_run(options)?;
        Ok((result.return_value.cast_signed(), result.duration))
    }
}

impl Case {
    fn above(&self) -> Vec<f64> {
        let pairs = self.ours.iter().zip(&self.noop);
        pairs.map(|(ours, noop)| ours - noop).collect()
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
            shown(&self.ours),
            shown(&self.noop),
            shown(&self.above()),
        ]
    }
}

/// Sizes of the programs.
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

/// The part of `struct __sk_buff` that a test run takes from its caller: `ingress_ifindex`.
fn sk_buff() -> [u8; 184] {
    let mut context = [0; 184];
    if let Some(field) = context.get_mut(36..40) {
        field.copy_from_slice(&ELSEWHERE.to_ne_bytes());
    }
    context
}
