//! Runs cases in every network, in batches, and records which frames arrived where.
//!
//! On a busy machine the kernel's queues may lose frames. It counts them: then all cases are sent
//! again, in smaller batches. A missing frame that no counter explains is not sent again.

use anyhow::{Context as _, Result, ensure};

use super::case::{Case, Expect, Rejected, TestFrame};
use super::craft;
use super::fixture::{self, Direction, protocol};
use super::network::counters::Counters;
use super::network::{Fence, Network, Topology};

mod losses;
mod reject_packets;

pub use losses::{Cause, Loss, SentAgain};
pub use reject_packets::RejectPacket;

/// Frames between two sentinels: at first, and when the frames are sent again.
const BATCHES: [usize; 4] = [200, 20, 1, 1];

/// The networks, and the next mark.
#[derive(Debug)]
pub struct Networks {
    control: Network,
    /// Where policy is enforced.
    pub enforce: Network,
    /// Where it is only observed.
    pub observe: Network,
    /// What the kernel's queues dropped so far, and what was sent again.
    pub sent_again: SentAgain,
    topology: Topology,
    next: u32,
    /// Sentinels that were sent more than once and may arrive late.
    late: Vec<u32>,
    /// Reject packets of this run that a fence counted as sent, and that did not arrive at the sender.
    missing: u64,
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

impl Arrived {
    const fn at(&mut self, fence: Fence) -> &mut bool {
        match fence {
            Fence::Absent => &mut self.control,
            Fence::Enforce => &mut self.enforce,
            Fence::Observe => &mut self.observe,
        }
    }
}

/// A frame and where it arrived.
#[derive(Clone, Debug)]
pub struct FrameResult {
    /// The member that built it.
    pub member: &'static str,
    /// Whether it was mutated.
    pub mutated: bool,
    /// The number of its case.
    pub case: usize,
    /// The frame as sent.
    pub sent: TestFrame,
    /// Where it arrived.
    pub arrived: Arrived,
    /// Where and why it was lost, if it should have arrived.
    pub losses: Vec<Loss>,
    /// The reject packet about it, where policy is enforced.
    pub reject_packet: Option<RejectPacket>,
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

    /// What is wrong with the reject packet about it.
    #[must_use]
    pub fn reject_fault(&self) -> Option<&'static str> {
        let packet = self.reject_packet?;
        let unexpected = self.sent.rejected == Rejected::No;
        unexpected
            .then_some("a reject packet about a frame that gets none")
            .or(packet.fault)
    }

    /// Whether its sender got no reject packet although a rule rejects it.
    #[must_use]
    pub fn lacks_reject_packet(&self) -> bool {
        self.sent.rejected == Rejected::Yes && self.reject_packet.is_none()
    }

    /// Whether it was lost although the fence only observes.
    #[must_use]
    pub const fn lost_while_observed(&self) -> bool {
        self.arrived.control && !self.arrived.observe
    }
}

/// All fences, in the order in which their networks get a batch.
const FENCES: [Fence; 3] = [Fence::Absent, Fence::Enforce, Fence::Observe];

impl Networks {
    /// Builds all three. The calling thread must stay on one CPU.
    pub fn new(topology: Topology) -> Result<Self> {
        let network = |fence| Network::new(fence, topology);
        Ok(Self {
            control: network(Fence::Absent).context("the network without a fence")?,
            enforce: network(Fence::Enforce).context("the network that enforces")?,
            observe: network(Fence::Observe).context("the network that observes")?,
            sent_again: SentAgain::default(),
            topology,
            next: 1,
            late: Vec::new(),
            missing: 0,
        })
    }

    /// What lies between the two ends.
    #[must_use]
    pub const fn topology(&self) -> Topology {
        self.topology
    }

    /// The network with this fence.
    #[must_use]
    pub const fn network(&self, fence: Fence) -> &Network {
        match fence {
            Fence::Absent => &self.control,
            Fence::Enforce => &self.enforce,
            Fence::Observe => &self.observe,
        }
    }

    /// Runs cases; returns for every frame where it arrived.
    pub fn run(&mut self, cases: Vec<Case>) -> Result<Vec<FrameResult>> {
        let mut frames: Vec<FrameResult> = Vec::new();
        for (number, case) in cases.into_iter().enumerate() {
            let result = |sent| FrameResult {
                member: case.member,
                mutated: case.mutated,
                case: number,
                sent,
                arrived: Arrived::default(),
                losses: Vec::new(),
                reject_packet: None,
            };
            frames.extend(case.frames.into_iter().map(result));
        }
        for (number, batch) in BATCHES.into_iter().enumerate() {
            for frame in &mut frames {
                frame.arrived = Arrived::default();
                frame.losses.clear();
                frame.reject_packet = None;
            }
            self.missing = 0;
            let counted = self.send(&mut frames, batch)?;
            let may_repeat = losses::name_causes(&mut frames, &counted);
            let lacking = reject_packets::lacking(&frames, &counted, self.missing);
            let may_repeat =
                may_repeat || (lacking > 0 && losses::dropped_where_enforced(&counted));
            let again = may_repeat && number + 1 < BATCHES.len();
            self.sent_again.count(&counted, &frames, again);
            if !again {
                let example = frames.iter().find(|frame| frame.lacks_reject_packet());
                ensure!(
                    lacking == 0,
                    "{lacking} reject packets are missing, {} of them were sent: {example:?}",
                    self.missing
                );
                break;
            }
        }
        self.examine(&mut frames)?;
        Ok(frames)
    }

    /// Sends all frames in every network, and returns what each counted meanwhile.
    fn send(&mut self, frames: &mut [FrameResult], batch: usize) -> Result<[Counters; 3]> {
        self.enforce.clear_state()?;
        self.observe.clear_state()?;
        let read = |networks: &Self| -> Result<[Counters; 3]> {
            let [a, b, c] = FENCES.map(|fence| networks.network(fence).counters());
            Ok([a?, b?, c?])
        };
        let before = read(self)?;
        for batch in frames.chunks_mut(batch) {
            let (first, sentinel) = self.mark_all(batch);
            for fence in FENCES {
                self.exchange(fence, batch, (first, sentinel))?;
            }
        }
        let [mut control, mut enforce, mut observe] = read(self)?;
        let networks = [&mut control, &mut enforce, &mut observe];
        for (counters, before) in networks.into_iter().zip(&before) {
            *counters = counters.since(before);
        }
        Ok([control, enforce, observe])
    }

    /// Marks the frames of a batch; returns the first mark and that of the sentinels.
    fn mark_all(&mut self, batch: &mut [FrameResult]) -> (u32, u32) {
        let marking = self.topology.marking();
        let room = u32::try_from(batch.len() + 1).unwrap_or(u32::MAX);
        if self.next > marking.largest() - room {
            self.next = 1;
            self.late.clear();
        }
        let first = self.next;
        for result in batch {
            marking.mark(&mut result.sent.bytes, self.next);
            self.next = self.next.wrapping_add(1);
        }
        let sentinel = self.next;
        self.next = self.next.wrapping_add(1);
        (first, sentinel)
    }

    /// Sends a batch in one network and records which of its frames arrive.
    fn exchange(
        &mut self,
        fence: Fence,
        batch: &mut [FrameResult],
        (first, sentinel): (u32, u32),
    ) -> Result<()> {
        let network = match fence {
            Fence::Absent => &self.control,
            Fence::Enforce => &self.enforce,
            Fence::Observe => &self.observe,
        };
        let topology = self.topology;
        let before = network.rejects()?;
        let mut packets = Vec::new();
        send_batch(network, batch, (topology, sentinel))?;
        for direction in [Direction::Out, Direction::In] {
            let mut strays = 0_u32;
            let late = &mut self.late;
            let again = || {
                if !late.contains(&sentinel) {
                    late.push(sentinel);
                }
                let frame = sentinel_frame(direction, topology, sentinel);
                network.sender(direction).send(&frame, None)
            };
            let mut marks = Vec::new();
            network
                .target(direction)
                .receive_until_or(
                    sentinel,
                    again,
                    |number| marks.push(number),
                    |frame| packets.extend(reject_packets::read(topology, direction, frame)),
                )
                .with_context(|| format!("{fence:?}, {direction:?}"))?;
            for number in marks {
                let known = record_arrival(batch, number.wrapping_sub(first), direction, fence);
                if !known && !self.late.contains(&number) {
                    strays += 1;
                }
            }
            ensure!(
                strays == 0,
                "{strays} frames arrived after their batch, or in the wrong direction"
            );
        }
        let (sent, late) = reject_packets::wait(network, topology, &before, &mut packets)?;
        ensure!(
            late.iter().all(|number| self.late.contains(number)),
            "a frame arrived after its batch"
        );
        ensure!(
            sent == 0 || fence == Fence::Enforce,
            "{fence:?}: {sent} reject packets"
        );
        self.missing += sent.saturating_sub(packets.len() as u64);
        reject_packets::record(topology, batch, first, &packets)
    }

    /// Names the reason of losses that no counter of the kernel explains: sends their cases alone,
    /// one frame at a time, and reads the fence's counters after each.
    fn examine(&mut self, frames: &mut [FrameResult]) -> Result<()> {
        for fence in [Fence::Enforce, Fence::Observe] {
            let cases = losses::unexplained_cases(frames, fence);
            for case in cases {
                self.network(fence).clear_state()?;
                for frame in frames.iter_mut().filter(|frame| frame.case == case) {
                    let before = self.network(fence).counters()?;
                    let mut alone = [FrameResult {
                        arrived: Arrived::default(),
                        losses: Vec::new(),
                        reject_packet: None,
                        ..frame.clone()
                    }];
                    let marks = self.mark_all(&mut alone);
                    self.exchange(fence, &mut alone, marks)?;
                    let counted = self.network(fence).counters()?.since(&before);
                    let [mut alone] = alone;
                    losses::explain(frame, fence, *alone.arrived.at(fence), &counted);
                }
            }
        }
        Ok(())
    }
}

/// Records an arrival; false if no frame of this batch was sent in this direction with this mark.
fn record_arrival(
    batch: &mut [FrameResult],
    place: u32,
    direction: Direction,
    fence: Fence,
) -> bool {
    let result = usize::try_from(place)
        .ok()
        .and_then(|place| batch.get_mut(place));
    match result {
        Some(result) if result.sent.direction == direction => {
            *result.arrived.at(fence) = true;
            true
        }
        _ => false,
    }
}

fn send_batch(
    network: &Network,
    batch: &[FrameResult],
    (topology, number): (Topology, u32),
) -> Result<()> {
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
            .send(&sentinel_frame(direction, topology, number), None)?;
    }
    Ok(())
}

/// A datagram of a separate flow that policy allows.
fn sentinel_frame(direction: Direction, topology: Topology, number: u32) -> Vec<u8> {
    let (own, peer) = match topology {
        Topology::Bridge => (
            fixture::workload(false),
            std::net::IpAddr::from([10, 255, 255, 254]),
        ),
        Topology::Routed => (
            fixture::workload(true),
            std::net::IpAddr::from([0x2001, 0xdb8, 0x18, 0x8000, 0, 0, 0, 0xfffe]),
        ),
    };
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
    topology.marking().mark(&mut frame, number);
    frame
}
