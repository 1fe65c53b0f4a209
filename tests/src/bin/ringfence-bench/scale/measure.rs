//! The measurements on one generated cluster.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::time::{ClockId, clock_gettime};
use ringfence::model::{Inventory, PolicySet, PortMatch, Protocol, TestEnd, WallTime, Workload};
use ringfence::plan::{Plan, State, plan};
use ringfence::policy::{Clock, Compiled, Compiler, Evaluator, Inputs, Modes, Query, explain};
use ringfence_common::mode::Mode;
use ringfence_testbed::interrupt;

use super::world::{Edit, World, labelled, policy, workload};

const CLOCK: Clock = Clock {
    now: WallTime(1_700_000_000_000_000_000),
    boot: 5_000_000_000_000,
};
/// Number of full compilations measured.
const FULL: usize = 5;
const QUERIES: usize = 200_000;

/// The CPU time of this thread, independent of other load on the machine.
pub(super) struct CpuTimer(Duration);

impl CpuTimer {
    pub(super) fn start() -> Result<Self> {
        Ok(Self(Self::read()?))
    }

    fn read() -> Result<Duration> {
        Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
    }

    pub(super) fn elapsed(&self) -> Result<Duration> {
        Ok(Self::read()?.saturating_sub(self.0))
    }
}

/// The samples of one operation, and its goal at the larger size.
pub(crate) struct Measurement {
    pub(crate) what: &'static str,
    pub(crate) goal: Option<Duration>,
    pub(crate) samples: Vec<Duration>,
}

/// All figures of one size.
pub(crate) struct Figures {
    pub(crate) durations: Vec<Measurement>,
    pub(crate) rows: usize,
    pub(crate) counts: Vec<(&'static str, usize)>,
    pub(crate) queries: u64,
}

/// Measures everything on a cluster of this size.
pub(crate) fn figures(workloads: usize, rounds: usize) -> Result<Figures> {
    let world = World::generate(workloads)?;
    let mut full = Vec::new();
    for _ in 0..FULL {
        let mut engine = Engine::new(&world);
        full.push(engine.pass()?.0);
    }
    let mut engine = Engine::new(&world);
    engine.pass()?;
    engine.settle()?;
    let compiled = engine.compiled.as_ref().context("no compiled state")?;
    let state = &compiled.state;
    let rows = state.rows();
    let counts = vec![
        ("tables", state.tables.len()),
        ("classes", compiled.classes),
        ("identities", compiled.identities.len()),
        ("rules", compiled.rules.len()),
        ("prefixes", state.prefixes.len()),
        ("addresses", state.addresses.len()),
    ];
    let (milliseconds, microseconds) = (Duration::from_millis, Duration::from_micros);
    let mut durations = vec![line("full compile", Some(milliseconds(1000)), full)];
    durations.extend(policy_changes(
        &world,
        &mut engine,
        rounds,
        milliseconds(5),
    )?);
    durations.extend(workload_changes(
        &mut engine,
        workloads,
        rounds,
        microseconds(100),
    )?);
    let (preparation, queries) = evaluate(&world)?;
    durations.push(line(
        "policy eval: until the first query",
        None,
        vec![preparation],
    ));
    let explaining = explanations(&world, rounds)?;
    durations.push(line("policy explain", Some(milliseconds(50)), explaining));
    Ok(Figures {
        durations,
        rows,
        counts,
        queries,
    })
}

fn line(what: &'static str, goal: Option<Duration>, samples: Vec<Duration>) -> Measurement {
    Measurement {
        what,
        goal,
        samples,
    }
}

/// The compiler with its inputs and the state that the kernel would have.
struct Engine<'a> {
    world: &'a World,
    inventory: Arc<Inventory>,
    policies: Arc<PolicySet>,
    modes: Modes,
    compiler: Compiler,
    compiled: Option<Compiled>,
    actual: State,
}

impl<'a> Engine<'a> {
    fn new(world: &'a World) -> Self {
        Self {
            world,
            inventory: Arc::clone(&world.inventory),
            policies: Arc::clone(&world.policies),
            modes: Modes {
                default: Mode::Enforce,
                namespaces: BTreeMap::new(),
            },
            compiler: Compiler::default(),
            compiled: None,
            actual: State::default(),
        }
    }

    /// One pass up to the writes, which are then considered done.
    fn pass(&mut self) -> Result<(Duration, Plan)> {
        interrupt::check()?;
        let inputs = Inputs {
            inventory: &self.inventory,
            policies: &self.policies,
            endpoints: &self.world.endpoints,
            modes: &self.modes,
            locked: &[],
            clock: CLOCK,
        };
        let timer = CpuTimer::start()?;
        let compiled = self.compiler.compile(&inputs)?;
        let plan = plan(&self.actual, &compiled.state);
        let took = timer.elapsed()?;
        self.compiler.in_force();
        self.actual = compiled.state.clone();
        self.compiled = Some(compiled);
        Ok((took, black_box(plan)))
    }

    /// The pass after the grace period; checks that nothing is left to do then.
    fn settle(&mut self) -> Result<Duration> {
        let (took, _) = self.pass()?;
        let (_, plan) = self.pass()?;
        ensure!(plan.is_empty(), "the state does not settle");
        Ok(took)
    }
}

fn policy_changes(
    world: &World,
    engine: &mut Engine<'_>,
    rounds: usize,
    goal: Duration,
) -> Result<Vec<Measurement>> {
    type Kind<'a> = (&'a str, usize, fn(usize) -> Edit);
    let near = world.policy_to_edit(true)?;
    let far = world.policy_to_edit(false)?;
    let kinds: [Kind<'_>; 4] = [
        ("policy: a port of a rule", near, Edit::Port),
        ("policy: a peer of a rule", near, Edit::Peer),
        ("policy: a CIDR of a rule", near, Edit::Cidr),
        ("policy: without a local endpoint", far, Edit::Peer),
    ];
    let mut lines = Vec::new();
    let mut settling = Vec::new();
    for (what, number, edit) in kinds {
        let mut samples = Vec::new();
        for round in 0..rounds {
            let mut next = PolicySet::clone(&engine.policies);
            let policy = policy(number, edit(round + 1))?;
            next.policies.insert(policy.id(), policy);
            engine.policies = Arc::new(next);
            samples.push(engine.pass()?.0);
            settling.push(engine.settle()?);
        }
        lines.push(line(what, Some(goal), samples));
        engine.policies = Arc::clone(&world.policies);
        engine.pass()?;
        engine.settle()?;
    }
    lines.push(line("policy: the settling pass", Some(goal), settling));
    Ok(lines)
}

fn workload_changes(
    engine: &mut Engine<'_>,
    workloads: usize,
    rounds: usize,
    goal: Duration,
) -> Result<Vec<Measurement>> {
    let goal = Some(goal);
    let mut lines = [
        line("workload: new, known labels", goal, Vec::new()),
        line("workload: relabelled", None, Vec::new()),
        line("workload: gone", goal, Vec::new()),
        line("workload: new, new labels", None, Vec::new()),
        line("workload: gone, with its labels", None, Vec::new()),
    ];
    for round in 0..rounds {
        let number = workloads + round;
        // Label sets of remote workloads, spread over the cluster.
        let set = round * 37 + 8;
        let first = workload(number, set % 5000, false)?;
        let mut relabelled = Workload::clone(&first);
        relabelled.labels = workload(number, (set + 200) % 5000, false)?.labels.clone();
        let fresh = labelled(number, set % 5000, "unheard-of", false)?;
        let steps = [
            (&first, Some(Arc::clone(&first))),
            (&first, Some(Arc::new(relabelled))),
            (&first, None),
            (&fresh, Some(Arc::clone(&fresh))),
            (&fresh, None),
        ];
        for (line, (named, workload)) in lines.iter_mut().zip(steps) {
            let mut next = Inventory::clone(&engine.inventory);
            match workload {
                Some(workload) => next.workloads.insert(named.id.clone(), workload),
                None => next.workloads.remove(&named.id),
            };
            engine.inventory = Arc::new(next);
            line.samples.push(engine.pass()?.0);
        }
    }
    Ok(lines.into())
}

/// The times of explaining flows between workloads and addresses.
fn explanations(world: &World, rounds: usize) -> Result<Vec<Duration>> {
    let workloads: Vec<&Arc<Workload>> = world.inventory.workloads.values().collect();
    let mut samples = Vec::new();
    for round in 0..rounds {
        let at = |step: usize| workloads.get(round * step % workloads.len()).copied();
        let (from, to) = (
            at(7919).context("a source")?,
            at(104_729).context("a target")?,
        );
        let address = to.addresses.first().copied().context("an address")?;
        let query = Query {
            from: TestEnd::Workload(from.id.clone()),
            to: TestEnd::Address(address),
            port: tcp(8080),
            family: None,
        };
        let timer = CpuTimer::start()?;
        let (inventory, policies) = (&world.inventory, &world.policies);
        black_box(explain(inventory, policies, CLOCK.now, &query, false)?);
        samples.push(timer.elapsed()?);
    }
    Ok(samples)
}

fn tcp(port: u16) -> PortMatch {
    PortMatch::Range {
        protocol: Protocol::Tcp,
        first: port,
        last: port,
    }
}

/// The time until the first query, and the number of queries per second after that.
fn evaluate(world: &World) -> Result<(Duration, u64)> {
    let timer = CpuTimer::start()?;
    let inventory = Arc::clone(&world.inventory);
    let evaluator = Evaluator::new(&inventory, &world.policies, CLOCK.now)
        .map_err(|error| anyhow!("{error}"))?;
    let preparation = timer.elapsed()?;
    let ids: Vec<_> = world.inventory.workloads.keys().cloned().collect();
    let end = |at: usize| ids.get(at % ids.len()).cloned().map(TestEnd::Workload);
    let queries: Option<Vec<Query>> = (0..QUERIES)
        .map(|number| {
            let port = [8080, 443, 5432, 3000].get(number % 4).copied()?;
            Some(Query {
                from: end(number * 7919)?,
                to: end(number * 104_729)?,
                port: tcp(port),
                family: None,
            })
        })
        .collect();
    let queries = queries.context("an empty world")?;
    let timer = CpuTimer::start()?;
    for query in &queries {
        black_box(evaluator.ask(query)?);
    }
    let nanoseconds = timer.elapsed()?.as_nanos().max(1);
    let rate = QUERIES as u128 * 1_000_000_000 / nanoseconds;
    Ok((preparation, u64::try_from(rate)?))
}
