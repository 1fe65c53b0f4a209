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
use ringfence_testbed::{Bpffs, Node, interrupt};

use crate::Effort;
use crate::bpf::{Program, Verdict};
use crate::frames::{ACK, SYN, malformed, tcp};
use crate::report::{heading, line, median, milliseconds, table};
use crate::world;

/// `lo`, which a test run reports as the interface.
const IFINDEX: u32 = 1;
/// Some other interface: packets for the workload are forwarded, not sent by this host.
const ELSEWHERE: u32 = 77;
/// Runs between two readings of the flow records: fewer than the ring holds.
const BATCH: u32 = 10_000;
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
    ours: Vec<u64>,
    noop: Vec<u64>,
}

/// Measures and prints.
pub(crate) fn measure(effort: Effort) -> Result<()> {
    let dir = tempfile::Builder::new()
        .prefix("ringfence-bench-")
        .tempdir()?;
    let bpffs = dir.path().join("bpffs");
    std::fs::create_dir(&bpffs)?;
    let bpffs = Bpffs::mount(bpffs)?;
    let mut fixture = Fixture::new(bpffs.path(), dir.path())?;
    heading("A packet in the kernel programs (BPF_PROG_TEST_RUN, median)");
    let mut rows = Vec::new();
    for (family, name) in ["IPv4", "IPv6"].into_iter().enumerate() {
        let mut cases = fixture.cases(family)?;
        for _ in 0..effort.rounds {
            for case in &mut cases {
                interrupt::check()?;
                fixture.run(case, effort.repeat)?;
            }
        }
        rows.extend(cases.iter().map(|case| case.row(name)));
    }
    let head = ["path", "hook", "family", "ns", "no-op ns", "ns above no-op"];
    table(&head, &rows);
    programs(&mut fixture.datapath)?;
    let loading = milliseconds(fixture.loading);
    line(&format!("  Loading and verifying them took {loading}."));
    Ok(())
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

    /// The measurements of a family, after the handshake that some of them need.
    fn cases(&mut self, family: usize) -> Result<Vec<Case>> {
        let local: [IpAddr; 2] = [world::TARGET.ip4.into(), world::TARGET.ip6.into()];
        let local = *local.get(family).context("two families")?;
        let remote = *world::remote(0).get(family).context("two families")?;
        let (client, server) = ((remote, 40_000), (local, 8080));
        for (program, frame) in [
            ("to_workload", tcp(client, server, SYN)?),
            ("from_workload", tcp(server, client, SYN | ACK)?),
            ("to_workload", tcp(client, server, ACK)?),
        ] {
            let (verdict, _) = self.test_run(program, &frame, 1)?;
            ensure!(verdict == PASSED, "the handshake is dropped by {program}");
        }
        let fresh = tcp((remote, 40_001), server, SYN)?;
        let denied = tcp((remote, 40_002), (local, 22), SYN)?;
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
        let (to, from) = ("to_workload", "from_workload");
        Ok(vec![
            case("established", to, tcp(client, server, ACK)?, PASSED, false),
            case(
                "established",
                from,
                tcp(server, client, ACK)?,
                PASSED,
                false,
            ),
            case("new flow", to, fresh, PASSED, true),
            case("denied", to, denied, DROPPED, true),
            case("malformed", to, garbage, DROPPED, true),
        ])
    }

    fn run(&mut self, case: &mut Case, repeat: u32) -> Result<()> {
        let batch = if case.records { BATCH } else { repeat };
        let (mut total, mut runs) = (Duration::ZERO, 0);
        while runs < repeat {
            let (verdict, mean) = self.test_run(case.program, &case.frame, batch)?;
            ensure!(
                verdict == case.expect,
                "{} at {}: verdict {verdict} instead of {}",
                case.name,
                case.program,
                case.expect
            );
            total += mean;
            runs += batch;
            self.telemetry.drain(usize::MAX, |_| {});
        }
        let ours = total.as_nanos() / u128::from(runs / batch);
        case.ours.push(u64::try_from(ours)?);
        let noop = self.noop.run(&case.frame, repeat)?.as_nanos();
        case.noop.push(u64::try_from(noop)?);
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
    fn row(&self, family: &str) -> Vec<String> {
        let above: Vec<u64> = self
            .ours
            .iter()
            .zip(&self.noop)
            .map(|(ours, noop)| ours.saturating_sub(*noop))
            .collect();
        vec![
            self.name.to_owned(),
            self.program.to_owned(),
            family.to_owned(),
            median(&self.ours).to_string(),
            median(&self.noop).to_string(),
            median(&above).to_string(),
        ]
    }
}

fn programs(datapath: &mut KernelDatapath) -> Result<()> {
    heading("The programs");
    let mut rows = Vec::new();
    for name in ["from_workload", "to_workload"] {
        let program = datapath.program(name).context("no such program")?;
        let info = program.info()?;
        let shown = |number: Option<u32>| number.map_or("-".to_owned(), |n| n.to_string());
        rows.push(vec![
            name.to_owned(),
            shown(info.verified_instruction_count()),
            shown(info.size_translated()),
            info.size_jitted().to_string(),
        ]);
    }
    let head = [
        "program",
        "instructions verified",
        "bytes translated",
        "bytes jitted",
    ];
    table(&head, &rows);
    Ok(())
}

/// The part of `struct __sk_buff` that a test run takes from its caller: `ingress_ifindex`.
fn sk_buff() -> [u8; 184] {
    let mut context = [0; 184];
    if let Some(field) = context.get_mut(36..40) {
        field.copy_from_slice(&ELSEWHERE.to_ne_bytes());
    }
    context
}
