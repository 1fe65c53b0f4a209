//! Runs cases in every network, in batches, and records which frames arrived where.

use anyhow::{Context as _, Result, ensure};

use super::case::{Case, Expect, TestFrame};
use super::craft;
use super::fixture::{self, Direction, protocol};
use super::network::{Fence, Network};
use super::wire::mark;

/// Frames between two sentinels.
const BATCH: usize = 200;

/// The networks, and the next mark.
#[derive(Debug)]
pub struct Networks {
    control: Network,
    /// Where policy is enforced.
    pub enforce: Network,
    /// Where it is only observed.
    pub observe: Network,
    next: u32,
}

/// Where a frame arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrived {
    /// In the network without a fence.
    pub control: bool,
    /// In the network whose fence enforces.
    pub enforce: bool,
    /// In the network whose fence observes.
    pub observe: bool,
}

/// A frame and where it arrived.
#[derive(Clone, Debug)]
pub struct FrameResult {
    /// The member that built it.
    pub member: &'static str,
    /// Whether it was mutated.
    pub mutated: bool,
    /// The frame as sent.
    pub sent: TestFrame,
    /// Where it arrived.
    pub arrived: Arrived,
}

impl FrameResult {
    /// Whether it arrived although policy denies it.
    #[must_use]
    pub fn leaked(&self) -> bool {
        self.arrived.enforce && self.sent.expect != Expect::Permitted
    }

    /// Whether it was lost although policy permits it.
    #[must_use]
    pub fn lost(&self) -> bool {
        self.arrived.control && !self.arrived.enforce && self.sent.expect == Expect::Permitted
    }
}

impl Networks {
    /// Builds all three. The calling thread must stay on one CPU.
    pub fn new() -> Result<Self> {
        Ok(Self {
            control: Network::new(Fence::Absent).context("the network without a fence")?,
            enforce: Network::new(Fence::Enforce).context("the network that enforces")?,
            observe: Network::new(Fence::Observe).context("the network that observes")?,
            next: 1,
        })
    }

    /// Runs cases; returns for every frame where it arrived.
    pub fn run(&mut self, cases: Vec<Case>) -> Result<Vec<FrameResult>> {
        self.enforce.clear_state()?;
        self.observe.clear_state()?;
        let mut frames: Vec<FrameResult> = Vec::new();
        for case in cases {
            let result = |sent| FrameResult {
                member: case.member,
                mutated: case.mutated,
                sent,
                arrived: Arrived::default(),
            };
            frames.extend(case.frames.into_iter().map(result));
        }
        for batch in frames.chunks_mut(BATCH) {
            let first = self.next;
            for result in &mut *batch {
                mark(&mut result.sent.bytes, self.next);
                self.next = self.next.wrapping_add(1);
            }
            let sentinel = self.next;
            self.next = self.next.wrapping_add(1);
            let networks = [&self.control, &self.enforce, &self.observe];
            for (index, network) in networks.into_iter().enumerate() {
                send_batch(network, batch, sentinel)?;
                for direction in [Direction::Out, Direction::In] {
                    let seen = |number: u32| {
                        record_arrival(batch, number.wrapping_sub(first), direction, index)
                    };
                    receive(network, direction, sentinel, seen)?;
                }
            }
        }
        Ok(frames)
    }
}

/// Records an arrival; false if no frame of this batch was sent in this direction with this mark.
fn record_arrival(
    batch: &mut [FrameResult],
    place: u32,
    direction: Direction,
    network: usize,
) -> bool {
    let result = usize::try_from(place)
        .ok()
        .and_then(|place| batch.get_mut(place));
    match result {
        Some(result) if result.sent.direction == direction => {
            let arrived = &mut result.arrived;
            let which = [
                &mut arrived.control,
                &mut arrived.enforce,
                &mut arrived.observe,
            ];
            if let Some(which) = which.into_iter().nth(network) {
                *which = true;
            }
            true
        }
        _ => false,
    }
}

fn send_batch(network: &Network, batch: &[FrameResult], number: u32) -> Result<()> {
    for result in batch {
        let sent = &result.sent;
        let sent = network
            .sender(sent.direction)
            .send(&sent.bytes, sent.offload.as_ref());
        sent.with_context(|| format!("a frame of '{}'", result.member))?;
    }
    for direction in [Direction::Out, Direction::In] {
        network
            .sender(direction)
            .send(&sentinel(direction, number), None)?;
    }
    Ok(())
}

fn receive(
    network: &Network,
    direction: Direction,
    sentinel: u32,
    mut seen: impl FnMut(u32) -> bool,
) -> Result<()> {
    let mut strays = 0_u32;
    network
        .target(direction)
        .receive_until(sentinel, |number| {
            if !seen(number) {
                strays += 1;
            }
        })?;
    ensure!(
        strays == 0,
        "{strays} frames arrived after their batch, or in the wrong direction"
    );
    Ok(())
}

/// A datagram of a separate flow that policy allows.
fn sentinel(direction: Direction, number: u32) -> Vec<u8> {
    let own = fixture::workload(false);
    let peer = std::net::IpAddr::from([10, 255, 255, 254]);
    let (from, to) = match direction {
        Direction::Out => (own, peer),
        Direction::In => (peer, own),
    };
    let datagram = craft::udp(
        9,
        fixture::allowed_port(direction, protocol::UDP),
        b"sentinel",
    );
    let mut frame = craft::ip_frame(from, to, protocol::UDP, &datagram);
    mark(&mut frame, number);
    frame
}
