//! Plays cases in every arena, in batches, and counts what arrived where.

use anyhow::{Context as _, Result, ensure};

use super::arena::{Arena, Fence};
use super::craft;
use super::ground::{self, Lane, number};
use super::shot::{Case, Expect, Shot};
use super::wire::mark;

/// Frames between two sentinels.
const BATCH: usize = 200;

/// The arenas, and the number of the next mark.
#[derive(Debug)]
pub struct Arenas {
    control: Arena,
    /// Where policy is enforced.
    pub enforce: Arena,
    /// Where it is only observed.
    pub observe: Arena,
    next: u32,
}

/// Where a frame arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrived {
    /// Without a fence.
    pub control: bool,
    /// Past a fence that enforces.
    pub enforce: bool,
    /// Past a fence that observes.
    pub observe: bool,
}

/// A frame, and where it arrived.
#[derive(Clone, Debug)]
pub struct Played {
    /// The member that sent it.
    pub member: &'static str,
    /// Whether it was changed at random.
    pub mutated: bool,
    /// As it was sent.
    pub shot: Shot,
    /// Where it arrived.
    pub arrived: Arrived,
}

impl Played {
    /// Whether it arrived although policy denies it.
    #[must_use]
    pub fn leaked(&self) -> bool {
        self.arrived.enforce && self.shot.expect != Expect::Permitted
    }

    /// Whether it was lost although policy permits it.
    #[must_use]
    pub fn lost(&self) -> bool {
        self.arrived.control && !self.arrived.enforce && self.shot.expect == Expect::Permitted
    }
}

impl Arenas {
    /// Builds all three. The calling thread is to play in them, on one CPU.
    pub fn new() -> Result<Self> {
        Ok(Self {
            control: Arena::new(Fence::Absent).context("the arena without a fence")?,
            enforce: Arena::new(Fence::Enforce).context("the arena that enforces")?,
            observe: Arena::new(Fence::Observe).context("the arena that observes")?,
            next: 1,
        })
    }

    /// Plays cases; says of every frame where it arrived.
    pub fn play(&mut self, cases: Vec<Case>) -> Result<Vec<Played>> {
        self.enforce.forget()?;
        self.observe.forget()?;
        let mut frames: Vec<Played> = Vec::new();
        for case in cases {
            let played = |shot| Played {
                member: case.member,
                mutated: case.mutated,
                shot,
                arrived: Arrived::default(),
            };
            frames.extend(case.shots.into_iter().map(played));
        }
        for batch in frames.chunks_mut(BATCH) {
            let first = self.next;
            for played in &mut *batch {
                mark(&mut played.shot.frame, self.next);
                self.next = self.next.wrapping_add(1);
            }
            let sentinel = self.next;
            self.next = self.next.wrapping_add(1);
            let arenas = [&self.control, &self.enforce, &self.observe];
            for (index, arena) in arenas.into_iter().enumerate() {
                volley(arena, batch, sentinel)?;
                for lane in [Lane::Out, Lane::In] {
                    let seen = |number: u32| note(batch, number.wrapping_sub(first), lane, index);
                    receive(arena, lane, sentinel, seen)?;
                }
            }
        }
        Ok(frames)
    }
}

/// Notes an arrival; a frame that arrives where nobody sent it is not one of ours.
fn note(batch: &mut [Played], place: u32, lane: Lane, arena: usize) -> bool {
    let played = usize::try_from(place)
        .ok()
        .and_then(|place| batch.get_mut(place));
    match played {
        Some(played) if played.shot.lane == lane => {
            let arrived = &mut played.arrived;
            let which = [
                &mut arrived.control,
                &mut arrived.enforce,
                &mut arrived.observe,
            ];
            if let Some(which) = which.into_iter().nth(arena) {
                *which = true;
            }
            true
        }
        _ => false,
    }
}

fn volley(arena: &Arena, batch: &[Played], number: u32) -> Result<()> {
    for played in batch {
        let shot = &played.shot;
        let sent = arena
            .sender(shot.lane)
            .send(&shot.frame, shot.offload.as_ref());
        sent.with_context(|| format!("a frame of '{}'", played.member))?;
    }
    for lane in [Lane::Out, Lane::In] {
        arena.sender(lane).send(&sentinel(lane, number), None)?;
    }
    Ok(())
}

fn receive(
    arena: &Arena,
    lane: Lane,
    sentinel: u32,
    mut seen: impl FnMut(u32) -> bool,
) -> Result<()> {
    let mut strays = 0_u32;
    arena.target(lane).until(sentinel, |number| {
        if !seen(number) {
            strays += 1;
        }
    })?;
    ensure!(
        strays == 0,
        "{strays} frames arrived after their batch, or where they do not belong"
    );
    Ok(())
}

/// A datagram that policy allows, of a flow of its own.
fn sentinel(lane: Lane, number: u32) -> Vec<u8> {
    let own = ground::workload(false);
    let peer = std::net::IpAddr::from([10, 255, 255, 254]);
    let (from, to) = match lane {
        Lane::Out => (own, peer),
        Lane::In => (peer, own),
    };
    let datagram = craft::udp(9, ground::service(lane, number::UDP), b"sentinel");
    let mut frame = craft::ip_frame(from, to, number::UDP, &datagram);
    mark(&mut frame, number);
    frame
}
