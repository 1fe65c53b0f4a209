//! Two CPUs that store flows of one set at once: each keeps its entry.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use ringfence_common::mode::Direction;

use crate::fence::{FRIEND, Fence, IFINDEX, LOCAL, sk_buff};
use crate::frames::{Flow, UDP};

/// Conntrack with the fewest sets, so that two flows often are in the same one.
const SMALLEST: u32 = 64;
/// Flows of each CPU between which the tables are emptied: they nearly always leave free ways.
const FLOWS: u16 = 12;
const ROUNDS: u16 = 500;
/// `TC_ACT_UNSPEC`.
const PASSED: i32 = -1;

/// Each flow of two CPUs is stored, and its second packet finds the entry.
#[test]
fn flows_of_one_set_that_two_cpus_store_at_once_are_both_kept() {
    for v6 in [false, true] {
        let mut fence = Fence::with_conntrack(SMALLEST);
        for port in [443, 444] {
            fence.allow(Direction::Egress, UDP, port);
        }
        for round in 0..ROUNDS {
            send_at_once(&mut fence, v6, 1024 + round * FLOWS);
            assert_eq!(
                fence.usage().unreplied,
                fence.unreplied() as u64,
                "the account is exact"
            );
            fence.loaded().clear_unreplied(IFINDEX);
        }
        let counters = fence.counters();
        assert_eq!(counters.flows_not_stored, 0);
        let again = counters.flows_allowed - 2 * u64::from(FLOWS) * u64::from(ROUNDS);
        assert!(
            again <= counters.flows_recycled,
            "{again} flows were new twice"
        );
    }
}

/// Two CPUs send flows, each from its ports from `first` on: two packets of each, at the same times.
fn send_at_once(fence: &mut Fence, v6: bool, first: u16) {
    fence.wait_for_rows();
    let program = fence.loaded().datapath.program("from_workload").unwrap();
    let program: &SchedClassifier = program;
    let arrived = AtomicU32::new(0);
    thread::scope(|scope| {
        for (cpu, server_port) in two_cpus().into_iter().zip([443, 444]) {
            let arrived = &arrived;
            scope.spawn(move || {
                sched_setaffinity(Pid::from_raw(0), &cpu).unwrap();
                for number in 0..FLOWS {
                    let flow = Flow {
                        v6,
                        local: (LOCAL, first + number),
                        peer: (FRIEND, server_port),
                    };
                    let frame = flow.outbound(UDP, 0);
                    for packet in 0..2 {
                        meet(arrived, 2 * u32::from(number) + packet);
                        assert_eq!(leave(program, &frame), PASSED);
                    }
                }
            });
        }
    });
}

/// What the program returns for a packet of the workload.
fn leave(program: &SchedClassifier, frame: &[u8]) -> i32 {
    let context = sk_buff(IFINDEX, 0);
    let options = TestRunOptions {
        data_in: Some(frame),
        ctx_in: Some(&context),
        ..TestRunOptions::new()
    };
    let result = program.test_run(options).unwrap();
    result.return_value.cast_signed()
}

/// Returns when both threads have come to this meeting, nearly at once.
fn meet(arrived: &AtomicU32, meeting: u32) {
    arrived.fetch_add(1, Ordering::AcqRel);
    while arrived.load(Ordering::Acquire) < 2 * (meeting + 1) {
        std::hint::spin_loop();
    }
}

/// Two CPUs that this process may use.
fn two_cpus() -> [CpuSet; 2] {
    let usable = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let mut sets = (0..CpuSet::count())
        .filter(|cpu| usable.is_set(*cpu).unwrap_or(false))
        .map(|cpu| {
            let mut set = CpuSet::new();
            set.set(cpu).unwrap();
            set
        });
    let mut next = || sets.next().expect("a machine with two CPUs");
    [next(), next()]
}
