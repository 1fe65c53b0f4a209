//! Reject packets as they arrive at the senders of the rejected frames.
//!
//! Invariants: a fence counts as many as arrive; each is about one frame of its batch, arrives where that was
//! sent, and is compared with what [`rejection`] permits. Networks that do not enforce have none.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{FENCES, FrameResult};
use crate::attack::fixture::Direction;
use crate::attack::network::counters::{Counters, Rejects};
use crate::attack::network::{Fence, Network, Topology};
use crate::attack::rejection::{self, Received};

/// After this time a reject packet that has not arrived is missing.
const DEADLINE: Duration = Duration::from_secs(5);

/// The reject packet about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RejectPacket {
    /// Its length with the Ethernet header.
    pub length: usize,
    /// What is wrong with it.
    pub fault: Option<&'static str>,
}

/// A reject packet that arrived.
#[derive(Debug)]
pub(super) struct Packet {
    /// The direction of the frame that it is about.
    direction: Direction,
    head: Vec<u8>,
    length: usize,
}

/// A frame without a mark that arrived at the target of a direction, if it is a reject packet.
pub(super) fn read(
    topology: Topology,
    direction: Direction,
    frame: &Received<'_>,
) -> Option<Packet> {
    let is_one = topology.marking().is_reject_packet(frame.head);
    is_one.then(|| Packet {
        direction: direction.opposite(),
        head: frame.head.to_vec(),
        length: frame.length,
    })
}

/// Waits until as many have arrived as the fence counted since `before`. Returns that count, and the marks
/// of other frames that arrived meanwhile.
pub(super) fn wait(
    network: &Network,
    topology: Topology,
    before: &Rejects,
    packets: &mut Vec<Packet>,
) -> Result<(u64, Vec<u32>)> {
    let sent = network.rejects()?.since(before).sent;
    let mut marks = Vec::new();
    let end = Instant::now() + DEADLINE;
    while (packets.len() as u64) < sent && Instant::now() < end {
        for direction in [Direction::Out, Direction::In] {
            let target = network.target(direction);
            target.receive_now(|mark, frame| match mark {
                Some(mark) => marks.push(mark),
                None => packets.extend(read(topology, direction, frame)),
            })?;
        }
    }
    ensure!(
        packets.len() as u64 <= sent,
        "{} reject packets arrived, {sent} were sent",
        packets.len()
    );
    Ok((sent, marks))
}

/// Records each at the frame that it is about.
pub(super) fn record(
    topology: Topology,
    batch: &mut [FrameResult],
    first: u32,
    packets: &[Packet],
) -> Result<()> {
    for packet in packets {
        let received = Received {
            head: &packet.head,
            length: packet.length,
        };
        let mark = topology.marking().of_rejected(&packet.head);
        let place = match mark {
            Some(mark) => usize::try_from(mark.wrapping_sub(first)).ok(),
            // A reset through a router has no mark; ends and numbers are those of one frame.
            None => batch.iter().position(|result| {
                result.sent.direction == packet.direction
                    && result.reject_packet.is_none()
                    && rejection::fault(topology, &result.sent, &received).is_none()
            }),
        };
        let result = place.and_then(|place| batch.get_mut(place));
        let result =
            result.with_context(|| format!("about no frame of its batch: {packet:02x?}"))?;
        let fault = if result.sent.direction != packet.direction {
            Some("a reject packet at the wrong end")
        } else if result.reject_packet.is_some() {
            Some("a second reject packet about a frame")
        } else {
            rejection::fault(topology, &result.sent, &received)
        };
        result.reject_packet = Some(RejectPacket {
            length: packet.length,
            fault,
        });
    }
    Ok(())
}

/// How many reject packets are missing: sent and not arrived, or neither sent nor over the limit.
pub(super) fn lacking(frames: &[FrameResult], counted: &[Counters; 3], missing: u64) -> u64 {
    let lacking = frames.iter().filter(|frame| frame.lacks_reject_packet());
    let limited = FENCES.iter().zip(counted);
    let limited = limited.filter(|(fence, _)| **fence == Fence::Enforce);
    let limited: u64 = limited.map(|(_, counters)| counters.rejects.limited).sum();
    missing + (lacking.count() as u64).saturating_sub(limited)
}
