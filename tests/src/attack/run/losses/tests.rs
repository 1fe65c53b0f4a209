use super::*;
use crate::attack::case::{Expect, Rejected, TestFrame};
use crate::attack::run::Arrived;
use crate::kernel_drops::DeviceDrops;

fn frame(case: usize, direction: Direction, enforce: bool) -> FrameResult {
    FrameResult {
        member: "member",
        mutated: false,
        case,
        sent: TestFrame {
            direction,
            bytes: Vec::new(),
            offload: None,
            expect: Expect::Permitted,
            rejected: Rejected::No,
        },
        arrived: Arrived {
            control: true,
            enforce,
            observe: true,
        },
        losses: Vec::new(),
        reject_packet: None,
    }
}

/// Counters of a network that lost this many frames in each direction, out and in.
fn counters(out: u64, into: u64) -> Counters {
    let drops = |received| {
        let mut drops = KernelDrops::new(received);
        let receiver = DeviceDrops { received, sent: 0 };
        drops.link("eth0", DeviceDrops::default(), receiver, 0);
        drops
    };
    Counters::new(drops(out), drops(into), Denials::from([("policy", 3)]))
}

fn causes(frames: &mut [FrameResult], enforce: Counters) -> (bool, Vec<String>) {
    let quiet = counters(0, 0);
    let again = name_causes(frames, &[quiet.clone(), enforce, quiet]);
    let losses = frames.iter().flat_map(|frame| &frame.losses);
    (again, losses.map(ToString::to_string).collect())
}

use Direction::{In, Out};

#[test]
fn a_loss_without_a_counted_drop_is_never_the_kernels() {
    let mut frames = [frame(0, Out, false), frame(1, Out, true)];
    let (again, losses) = causes(&mut frames, counters(0, 0));
    assert!(!again);
    assert_eq!(
        losses,
        ["lost (Enforce): unexplained; kernel: none; the fence counted in all: policy +3"]
    );
    assert_eq!(
        unexplained_cases(&frames, Fence::Enforce),
        BTreeSet::from([0])
    );
    explain(&mut frames[0], Fence::Enforce, false, &counters(0, 0));
    let named = frames[0].losses[0].to_string();
    assert_eq!(
        named,
        "lost (Enforce): lost again alone; the fence counted: policy +3"
    );
}

#[test]
fn each_case_with_a_loss_needs_a_drop_in_the_direction_of_its_first() {
    // The second frame of case 0 is missing because of the first.
    let lost = || {
        [
            frame(0, Out, false),
            frame(0, In, false),
            frame(1, Out, false),
        ]
    };
    let (again, losses) = causes(&mut lost(), counters(2, 0));
    assert!(again);
    assert_eq!(losses.len(), 3);
    assert!(
        losses
            .iter()
            .all(|loss| loss.contains("rx_dropped of eth0 +2")),
        "{losses:?}"
    );
    for (out, into) in [(1, 0), (1, 5), (0, 2)] {
        let (again, losses) = causes(&mut lost(), counters(out, into));
        assert!(!again, "{out} {into}");
        assert!(losses.iter().all(|loss| loss.contains("unexplained")));
    }
}

#[test]
fn without_losses_or_when_one_network_has_no_explanation_nothing_is_sent_again() {
    assert!(!causes(&mut [frame(0, Out, true)], counters(9, 9)).0);
    let mut frames = [frame(0, Out, false)];
    frames[0].arrived.observe = false;
    let (again, losses) = causes(&mut frames, counters(9, 9));
    assert!(!again);
    assert_eq!(losses.len(), 2);
    assert!(losses[0].contains("dropped by the kernel") && losses[1].contains("Observe"));
    // The control lost a frame, and only there did the kernel drop one.
    let mut frames = [frame(0, Out, false)];
    frames[0].arrived = Arrived::default();
    let quiet = counters(0, 0);
    let control = [counters(1, 0), quiet.clone(), quiet.clone()];
    assert!(name_causes(&mut frames, &control));
    assert!(!name_causes(
        &mut frames,
        &[quiet.clone(), quiet.clone(), quiet]
    ));
}
