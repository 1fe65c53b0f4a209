//! What a stand-in does while it has no program to call. Where it has one, `fence::verification` sees packets.

use aya::{TestRun as _, TestRunOptions};
use ringfence_common::{drop_reason::DropReason, mode::Mode};

use crate::fence::{Arriving, FRIEND, Fence, LOCAL, Leaving, Way};
use crate::frames::{SYN, TCP, frame, tcp};

/// What the stand-in returns.
fn stand_in(fence: &mut Fence, way: Way, frame: &[u8]) -> i32 {
    let name = match way {
        Leaving => "stand_in_from",
        _ => "stand_in_to",
    };
    let mut out = vec![0; frame.len()];
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        ..TestRunOptions::new()
    };
    let program = fence.loaded().datapath.program(name).unwrap();
    program
        .test_run(options)
        .unwrap()
        .return_value
        .cast_signed()
}

#[test]
fn without_a_program_to_call_packets_are_denied_and_counted() {
    const PASS: i32 = -1;
    const SHOT: i32 = 2;
    let mut fence = Fence::new();
    fence.allow_friends();
    let segment = tcp(1, 2, SYN);
    for (way, from, to) in [(Leaving, LOCAL, FRIEND), (Arriving, FRIEND, LOCAL)] {
        let frame = frame(from.ip(false), to.ip(false), TCP, &segment);
        fence.passes(way, &frame, "control: the program itself");
        for (mode, expected, delta) in [
            (Mode::Enforce, SHOT, (1, 0)),
            (Mode::Lockdown, SHOT, (1, 0)),
            (Mode::Observe, PASS, (0, 1)),
        ] {
            fence.set_mode(mode);
            let before = fence.count(DropReason::NoProgram);
            let returned = stand_in(&mut fence, way, &frame);
            let after = fence.count(DropReason::NoProgram);
            let counted = (after.0 - before.0, after.1 - before.1);
            assert_eq!((returned, counted), (expected, delta), "{way:?}, {mode:?}");
        }
        fence.set_mode(Mode::Enforce);
    }
}
