//! The loaded kernel programs without an agent, and their maps filled with a world of a given size.
//!
//! The world is compiled and planned as the agent does it. From one size to the next only the
//! difference is written. Nothing is attached: the programs are run on frames, and the interface of
//! a run is always `lo`, which is used as the target's.

use std::collections::BTreeMap;
use std::iter;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use ringfence::datapath::{Datapath as _, KernelDatapath, LoadOptions, Pins, Telemetry};
use ringfence::model::WallTime;
use ringfence::plan::{State, plan};
use ringfence::policy::{Clock, Compiler, Inputs, LocalEndpoint, Modes};
use ringfence::source::FileSet;
use ringfence_common::mode::Mode;
use ringfence_testbed::{Bpffs, InventoryBuilder};
use tempfile::TempDir;

use crate::bench_node::{PER_FILE, cluster, local_inventory, local_name, policies};
use crate::bpf::{Program, Verdict};
use crate::world::{self, NAMESPACE};

/// `lo`, which a test run reports as the interface.
pub(crate) const IFINDEX: u32 = 1;
/// The ingress interface of packets that are forwarded to the workload.
const ELSEWHERE: u32 = 77;
/// The target's port that every remote workload may connect to.
pub(crate) const PORT: u16 = 7000;
/// Policies per file; a file must stay below the agent's size limit.
const PER_POLICY_FILE: u32 = 500;
/// `TC_ACT_UNSPEC`.
pub(crate) const PASSED: i32 = -1;

/// The size of a world.
#[derive(Clone, Copy, Debug)]
pub(crate) struct World {
    /// Remote workloads.
    pub(crate) peers: u32,
    /// Local workloads, including the target.
    pub(crate) endpoints: u32,
    /// Additional policies with the target as subject.
    pub(crate) policies: u32,
}

impl World {
    /// The texts of the inventory files and of the policy files.
    fn texts(self) -> Result<(Vec<String>, Vec<String>)> {
        let node = InventoryBuilder::new("node-1", &["10.0.0.1".parse()?]);
        let mut inventory = vec![local_inventory(node, "target", self.endpoints).build()];
        for first in (0..self.peers).step_by(PER_FILE as usize) {
            inventory.push(cluster(first..self.peers.min(first + PER_FILE), None));
        }
        let mut policies = vec![policies(self.endpoints)];
        for first in (0..self.policies).step_by(PER_POLICY_FILE as usize) {
            let mut text = String::new();
            for number in first..self.policies.min(first + PER_POLICY_FILE) {
                world::policy(&mut text, 1000 + number, "target", "more");
            }
            policies.push(text);
        }
        policies.push(format!(
            "[[policy]]\nname = \"open\"\nnamespace = \"{NAMESPACE}\"\nsubject = \"app=target\"\n\
             [[policy.ingress]]\nfrom = [{{ namespaces = \"env in (prod,test)\" }}]\n\
             ports = [\"tcp/{PORT}\"]\n"
        ));
        Ok((inventory, policies))
    }
}

/// The loaded programs and their maps.
pub(crate) struct LoadedPrograms {
    pub(crate) datapath: KernelDatapath,
    pub(crate) telemetry: Telemetry,
    pub(crate) noop: Program,
    pub(crate) pins: Pins,
    compiler: Compiler,
    actual: State,
    // Before `dir`: fields drop in order, and a mounted directory cannot be removed.
    _bpffs: Bpffs,
    dir: TempDir,
}

impl LoadedPrograms {
    /// Loads the programs with these map capacities.
    pub(crate) fn load(capacities: Vec<(&'static str, u32)>) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("ringfence-bench-")
            .tempdir()?;
        let path = dir.path().join("bpffs");
        std::fs::create_dir(&path)?;
        let bpffs = Bpffs::mount(path)?;
        let options = LoadOptions {
            capacities,
            ..LoadOptions::default()
        };
        let (datapath, telemetry) = KernelDatapath::load(bpffs.path(), &options)?;
        Ok(Self {
            datapath,
            telemetry,
            noop: Program::returning(Verdict::Pass)?,
            pins: Pins::below(bpffs.path()),
            compiler: Compiler::default(),
            actual: State::default(),
            _bpffs: bpffs,
            dir,
        })
    }

    /// Publishes a world to the maps and returns its number of policy rows.
    pub(crate) fn publish(&mut self, world: World) -> Result<usize> {
        let names: Vec<String> = iter::once("target".to_owned())
            .chain((1..world.endpoints).map(local_name))
            .collect();
        let (inventory, policies) = world.texts()?;
        self.publish_texts(&inventory, &policies, &names)
    }

    /// Publishes a world given as texts. The first of the endpoints' names is that of the workload
    /// whose packets are run.
    pub(crate) fn publish_texts(
        &mut self,
        inventory: &[String],
        policies: &[String],
        names: &[String],
    ) -> Result<usize> {
        let inventory = self.write("inventory", inventory)?;
        let policies = self.write("policies", policies)?;
        let (_, read) = FileSet::load_strict(inventory, policies).map_err(|e| anyhow!("{e:?}"))?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let endpoint = |(ifindex, name): (u32, &String)| -> Result<LocalEndpoint> {
            let workload = format!("{NAMESPACE}/{name}").parse()?;
            Ok(LocalEndpoint::at(workload, ifindex))
        };
        let endpoints = (IFINDEX..).zip(names).map(endpoint);
        let endpoints = endpoints.collect::<Result<Vec<_>>>()?;
        let modes = Modes {
            default: Mode::Enforce,
            namespaces: BTreeMap::new(),
        };
        // The first pass keeps the tables that were in force; the second one removes them.
        for _ in 0..2 {
            let clock = Clock {
                now: WallTime(i64::try_from(now.as_nanos())?),
                boot: self.datapath.clocks()?.boot,
            };
            self.pass(&Inputs {
                inventory: &read.inventory,
                policies: &read.policies,
                endpoints: &endpoints,
                modes: &modes,
                locked: &[],
                clock,
            })?;
        }
        Ok(self.actual.rows())
    }

    fn pass(&mut self, inputs: &Inputs<'_>) -> Result<()> {
        let compiled = self.compiler.compile(inputs)?;
        let plan = plan(&self.actual, &compiled.state);
        for action in plan.publish.iter().chain(&plan.retire) {
            self.datapath.write(action)?;
        }
        self.compiler.in_force();
        self.actual = compiled.state;
        Ok(())
    }

    /// Writes files and returns their paths.
    fn write(&self, kind: &str, texts: &[String]) -> Result<Vec<PathBuf>> {
        let put = |(number, text): (usize, &String)| -> Result<PathBuf> {
            let path = self.dir.path().join(format!("{kind}-{number}.toml"));
            std::fs::write(&path, text)?;
            Ok(path)
        };
        texts.iter().enumerate().map(put).collect()
    }

    /// The verdict of a program on a frame, and the mean time of a run.
    pub(crate) fn run_with_verdict(
        &mut self,
        program: &'static str,
        frame: &[u8],
        repeat: u32,
    ) -> Result<(i32, Duration)> {
        let program = self.datapath.program(program).context("no such program")?;
        run_with_verdict(program, frame, repeat)
    }

    /// Runs a program on a frame that must pass, and returns the mean time.
    pub(crate) fn run(
        &mut self,
        program: &'static str,
        frame: &[u8],
        repeat: u32,
    ) -> Result<Duration> {
        let program = self.datapath.program(program).context("no such program")?;
        run(program, frame, repeat)
    }
}

/// Runs a program that several threads may share on a frame that must pass.
pub(crate) fn run(program: &SchedClassifier, frame: &[u8], repeat: u32) -> Result<Duration> {
    let (verdict, mean) = run_with_verdict(program, frame, repeat)?;
    ensure!(verdict == PASSED, "verdict {verdict} instead of {PASSED}");
    Ok(mean)
}

fn run_with_verdict(
    program: &SchedClassifier,
    frame: &[u8],
    repeat: u32,
) -> Result<(i32, Duration)> {
    let mut context = [0; 184];
    // `ingress_ifindex` of `struct __sk_buff`.
    if let Some(field) = context.get_mut(36..40) {
        field.copy_from_slice(&ELSEWHERE.to_ne_bytes());
    }
    let options = TestRunOptions {
        data_in: Some(frame),
        ctx_in: Some(&context),
        repeat,
        ..TestRunOptions::new()
    };
    let result = program.test_run(options)?;
    Ok((result.return_value.cast_signed(), result.duration))
}
