//! What the kernel's queues lose is provoked here: the run names it with its counter, never blames
//! it for anything that it did not count, and sends the frames again.

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::NetNs;
use ringfence_testbed::attack::case::{Case, Expect, Offload, Rejected, TestFrame};
use ringfence_testbed::attack::fixture::{self, Direction, protocol};
use ringfence_testbed::attack::network::Fence;
use ringfence_testbed::attack::run::FrameResult;
use ringfence_testbed::attack::{Cause, Networks, Tally, craft, wire};

use crate::shared::{lock, networks};

/// Bytes of a receive buffer that holds a few small frames.
const TINY: usize = 4096;
/// Cases of one datagram; a batch holds them all.
const DATAGRAMS: u8 = 100;

fn case(frame: TestFrame) -> Case {
    Case {
        member: "provoked",
        mutated: false,
        frames: vec![frame],
    }
}

/// A datagram out of the workload, each of its own flow, that policy allows.
fn datagram(number: u8) -> Vec<u8> {
    let (from, to) = (fixture::workload(false), [10, 1, 1, number].into());
    let port = fixture::allowed_port(Direction::Out, protocol::UDP);
    craft::ip_frame(from, to, protocol::UDP, &craft::udp(4000, port, b"payload"))
}

fn datagrams(expect: Expect) -> Vec<Case> {
    let frame = |number| TestFrame {
        direction: Direction::Out,
        bytes: datagram(number),
        offload: None,
        expect,
        rejected: Rejected::No,
    };
    (0..DATAGRAMS).map(|number| case(frame(number))).collect()
}

fn tally(results: &[FrameResult]) -> Tally {
    let mut tally = Tally::default();
    results.iter().for_each(|result| tally.count(result));
    tally
}

/// Runs cases while the tap behind a fence has a tiny receive buffer.
fn with_tiny_buffer(
    networks: &mut Networks,
    fence: Fence,
    cases: Vec<Case>,
) -> Result<Vec<FrameResult>> {
    let tap = |networks: &Networks, size| {
        let network = networks.network(fence);
        network.target(Direction::Out).set_receive_buffer(size)
    };
    tap(networks, TINY)?;
    let results = networks.run(cases);
    tap(networks, wire::ROOM)?;
    results
}

#[test]
fn what_a_full_receive_buffer_loses_is_counted_and_sent_again() -> Result<()> {
    let networks = networks()?;
    let mut networks = lock(&networks)?;
    for fence in [Fence::Absent, Fence::Enforce, Fence::Observe] {
        let before = networks.sent_again.clone();
        let results = with_tiny_buffer(&mut networks, fence, datagrams(Expect::Permitted))?;
        let tally = tally(&results);
        ensure!(
            tally.is_good() && tally.permitted == u64::from(DATAGRAMS),
            "{fence:?}: {tally:?}"
        );
        let after = &networks.sent_again;
        ensure!(
            after.drops >= before.drops + 50 && after.frames >= before.frames + 50,
            "void: nothing was lost, {fence:?}: {before:?}, {after:?}"
        );
    }
    Ok(())
}

#[test]
fn what_the_fence_drops_is_never_the_kernels() -> Result<()> {
    let networks = networks()?;
    let mut networks = lock(&networks)?;
    // To a port that policy denies, but wrongly expected to pass.
    let mut cases = datagrams(Expect::Permitted);
    let wrong = cases.last_mut().and_then(|case| case.frames.last_mut());
    let wrong = wrong.context("no frame")?;
    craft::write(&mut wrong.bytes, craft::AFTER_IP4 + 2, &9_u16.to_be_bytes());
    let results = networks.run(cases)?;
    let lost: Vec<_> = results.iter().filter(|result| result.lost()).collect();
    ensure!(lost.len() == 1, "{lost:?}");
    let named = lost[0].losses.first().context("no cause")?;
    ensure!(
        matches!(&named.cause, Cause::Again(denials) if denials.get("policy") == Some(&1)),
        "{named}"
    );
    ensure!(!tally(&results).is_good());
    let text = tally(&results).failures_text();
    ensure!(
        text.contains("lost (Enforce): lost again alone; the fence counted: policy +1"),
        "{text}"
    );
    Ok(())
}

/// A frame that becomes this many segments on an interface that cannot segment; more than the
/// backlog holds.
const SEGMENTS: usize = 1900;
const SEGMENT: u16 = 32;

#[test]
fn what_a_full_backlog_loses_is_named_and_fails_the_run() -> Result<()> {
    let networks = networks()?;
    let mut networks = lock(&networks)?;
    let limit = std::fs::read_to_string("/proc/sys/net/core/netdev_max_backlog")?;
    ensure!(limit.trim().parse::<usize>()? < SEGMENTS, "void: {limit}");
    let (from, start) = (fixture::workload(false), u16::try_from(craft::AFTER_IP4)?);
    let port = fixture::allowed_port(Direction::Out, protocol::TCP);
    let mut segment = craft::tcp(4000, port, craft::flag::ACK);
    segment.resize(20 + SEGMENTS * usize::from(SEGMENT), 0x5a);
    let frame = TestFrame {
        direction: Direction::Out,
        bytes: craft::ip_frame(from, [10, 1, 1, 1].into(), protocol::TCP, &segment),
        offload: Some(Offload {
            segment: SEGMENT,
            // VIRTIO_NET_HDR_GSO_TCPV4
            kind: 1,
            headers: start + 20,
            checksum: Some((start, 16)),
        }),
        expect: Expect::Permitted,
        rejected: Rejected::No,
    };
    // The bridge serves its newest port first. Its segments fill the backlog of this CPU, so the
    // frame itself no longer fits when it is sent on to the next port.
    let elsewhere = NetNs::new()?;
    let bridge = networks.network(Fence::Enforce).bridge_ns().clone();
    bridge.ip(&format!(
        "link add rf-filler mtu 9000 gso_max_segs 1 type veth peer name eth0 mtu 9000 netns {}\n\
         link set rf-filler master br0\nlink set rf-filler up\n",
        elsewhere.path().display()
    ))?;
    elsewhere.ip("link set eth0 up\n")?;
    ringfence_testbed::topology::wait_running(&bridge, "rf-filler")?;
    let results = networks.run(vec![case(frame.clone())]);
    bridge.ip("link del rf-filler\n")?;
    let results = results?;
    ensure!(results[0].lost(), "void: {:?}", results[0].arrived);
    let named = results[0].losses.first().context("no cause")?.to_string();
    ensure!(
        named.starts_with("lost (Enforce): dropped by the kernel: backlogs +")
            && named.contains("rx_dropped of eth0 of outside +1"),
        "{named}"
    );
    ensure!(!tally(&results).is_good());
    let results = networks.run(vec![case(frame)])?;
    ensure!(results[0].arrived.enforce, "control: {:?}", results[0]);
    ensure!(tally(&results).is_good());
    Ok(())
}
