//! The traffic of every metric, from any sender to the receiver.
//!
//! UDP is frames on the device; no socket receives them, and they are counted on arrival. TCP uses
//! sockets at both ends. Every new and every denied packet has a source port that was not used
//! before, and every established flow was opened under the program that is measured.

use anyhow::{Context as _, Result, ensure};

use super::connections::Connections;
use super::frames::{Arrivals, Sender};
use super::links::{Links, On};
use super::twin::{SENDERS, Twin};
use crate::wire::metric::{Kind, Metric};
use crate::wire::stopwatch::Clock;
use crate::wire::traffic::{self, FLOWS, Traffic};
use crate::wire::world::{FORBIDDEN, PORTS};

/// The first source port, and their number.
const SOURCE: u16 = 10_000;
const SOURCES: u16 = 50_000;
/// Destination ports: of one established flow, of many, and the first one of new flows.
const ESTABLISHED: u16 = PORTS.0;
const MANY: u16 = PORTS.0 + 2;
const NEW: u16 = PORTS.0 + 3;
/// Frames that may arrive in addition to those of a sample: resets of earlier connections.
const STRAYS: u64 = 8;

/// What is measured.
pub(super) const KINDS: [Kind; 6] = [
    Kind::Established,
    Kind::Flows,
    Kind::New,
    Kind::Denied,
    Kind::TcpRoundTrip,
    Kind::TcpConnectReset,
];

/// Whether sockets take part.
pub(super) const fn has_sockets(kind: Kind) -> bool {
    matches!(kind, Kind::TcpRoundTrip | Kind::TcpConnectReset)
}

/// The part of a metric's traffic in one sample; the same for all subjects.
#[derive(Clone, Copy)]
pub(super) struct Part {
    /// Its number.
    pub(super) number: u32,
    /// Operations of a sample.
    pub(super) count: u32,
}

impl Part {
    /// A few milliseconds of a metric.
    pub(super) const fn new(number: u32, metric: Metric) -> Self {
        let count = match metric.kind {
            Kind::Established => 800,
            Kind::Flows => 1024,
            Kind::New => 320,
            Kind::Denied => 1600,
            Kind::TcpRoundTrip => 160,
            Kind::TcpConnectReset => 64,
            Kind::Fragmented => 0,
        };
        Self { number, count }
    }

    /// Warm-up operations.
    const fn warm_up(self) -> u32 {
        self.count / 8
    }

    const fn sender(self) -> usize {
        (self.number % SENDERS as u32) as usize
    }

    fn measure(self, clock: Clock, mut once: impl FnMut() -> Result<()>) -> Result<f64> {
        for _ in 0..self.warm_up() {
            once()?;
        }
        let start = clock.now()?;
        for _ in 0..self.count {
            once()?;
        }
        let took = clock.now()?.saturating_sub(start);
        Ok(took.as_secs_f64() * 1e9 / f64::from(self.count))
    }
}

/// Source ports in turn, each with the next destination port once all have been used.
#[derive(Clone, Copy, Default)]
struct Unused(u32);

impl Unused {
    /// A source port, and the offset of the destination port.
    fn next(&mut self, targets: u16) -> (u16, u16) {
        let sources = u32::from(SOURCES);
        let (offset, source) = (self.0 / sources % u32::from(targets), self.0 % sources);
        self.0 = self.0.wrapping_add(1);
        let short = |number: u32| u16::try_from(number).unwrap_or_default();
        (SOURCE + short(source), short(offset))
    }
}

/// All traffic.
pub(super) struct Streams {
    families: [Family; 2],
    arrived: Arrivals,
    /// At the first sender.
    answered: Arrivals,
}

/// The traffic of one family.
struct Family {
    senders: Vec<Sender>,
    /// From the receiver to each sender.
    answers: Vec<Sender>,
    connections: Connections,
    connect_reset: Box<dyn Traffic>,
    established: Unused,
    /// By sender.
    new: Vec<Unused>,
    denied: Unused,
}

impl Streams {
    /// Opens every socket.
    pub(super) fn open(twin: &Twin) -> Result<Self> {
        let first = twin.senders.first().context("a sender")?;
        Ok(Self {
            families: [Family::open(twin, false)?, Family::open(twin, true)?],
            arrived: Arrivals::of(&twin.receiver)?,
            answered: Arrivals::of(first)?,
        })
    }

    /// The control of denied packets: they arrive without an agent's programs.
    pub(super) fn try_out(&mut self, links: &mut Links) -> Result<()> {
        links.put(On::Noop)?;
        links.sink(true)?;
        let before = self.arrived.count()?;
        let mut sent = 0;
        for family in &mut self.families {
            for sender in &mut family.senders {
                let (source, _) = family.denied.next(1);
                sender.send(source, FORBIDDEN)?;
                sent += 1;
            }
        }
        let arrived = self.arrived.count()? - before;
        ensure!(
            arrived >= sent,
            "{arrived} of {sent} packets arrived although nothing denies them"
        );
        Ok(())
    }

    /// Opens the many flows under the programs on the links.
    pub(super) fn establish_many(&mut self, v6: bool) -> Result<()> {
        let before = (self.arrived.count()?, self.answered.count()?);
        let (sender, answer) = self.family(v6).pair(0)?;
        for flow in 0..FLOWS {
            establish(sender, answer, source(flow), MANY)?;
        }
        let arrived = self.arrived.count()? - before.0;
        let answered = self.answered.count()? - before.1;
        let flows = u64::from(FLOWS);
        ensure!(
            arrived >= 3 * flows && answered >= flows,
            "{arrived} of {} packets and {answered} of {flows} answers of {flows} flows arrived",
            3 * flows
        );
        Ok(())
    }

    /// Nanoseconds of one operation, as the mean of a sample.
    pub(super) fn sample(&mut self, metric: Metric, part: Part, clock: Clock) -> Result<f64> {
        let family = self.family(metric.v6);
        match metric.kind {
            Kind::TcpRoundTrip => {
                family.connections.enter(part.sender())?;
                let mut connection = family.connections.connect()?;
                part.measure(clock, || connection.round_trip())
            }
            Kind::TcpConnectReset => {
                family.connect_reset.prepare()?;
                part.measure(clock, || family.connect_reset.once())
            }
            _ => self.frames(metric, part, clock),
        }
    }

    fn frames(&mut self, metric: Metric, part: Part, clock: Clock) -> Result<f64> {
        let before = self.arrived.count()?;
        let family = self.family(metric.v6);
        let mut sent = part.count + part.warm_up();
        let took = match metric.kind {
            Kind::New => family.unheard(part, clock)?,
            Kind::Denied => family.forbidden(part, clock)?,
            Kind::Flows => family.flows(part, clock)?,
            _ => {
                sent += 3;
                family.established(part, clock)?
            }
        };
        let arrived = self.arrived.count()? - before;
        let denied = metric.kind == Kind::Denied;
        let wanted = if denied { 0 } else { u64::from(sent) };
        ensure!(
            (wanted..=wanted + STRAYS).contains(&arrived),
            "{arrived} of {sent} packets arrived instead of {wanted}"
        );
        Ok(took)
    }

    const fn family(&mut self, v6: bool) -> &mut Family {
        let [four, six] = &mut self.families;
        if v6 { six } else { four }
    }
}

impl Family {
    fn open(twin: &Twin, v6: bool) -> Result<Self> {
        let receiver = &twin.receiver;
        let first = twin.senders.first().context("a sender")?;
        let senders = twin.senders.iter();
        let senders = senders.map(|end| Sender::open(end, receiver, v6));
        let answers = twin.senders.iter();
        let answers = answers.map(|end| Sender::open(receiver, end, v6));
        let kind = Kind::TcpConnectReset;
        let (from, to) = (&first.workload, &receiver.workload);
        Ok(Self {
            senders: senders.collect::<Result<_>>()?,
            answers: answers.collect::<Result<_>>()?,
            connections: Connections::open(twin, v6, PORTS.0)?,
            connect_reset: traffic::open(Metric { kind, v6 }, from, to)?,
            established: Unused::default(),
            new: vec![Unused::default(); twin.senders.len()],
            denied: Unused::default(),
        })
    }

    fn sender(&mut self, index: usize) -> Result<&mut Sender> {
        self.senders.get_mut(index).context("a sender")
    }

    /// A sender, and the socket that replies to it.
    fn pair(&mut self, index: usize) -> Result<(&mut Sender, &mut Sender)> {
        let sender = self.senders.get_mut(index).context("a sender")?;
        Ok((sender, self.answers.get_mut(index).context("a sender")?))
    }

    fn established(&mut self, part: Part, clock: Clock) -> Result<f64> {
        let (source, _) = self.established.next(1);
        let (sender, answer) = self.pair(part.sender())?;
        establish(sender, answer, source, ESTABLISHED)?;
        part.measure(clock, || sender.send(source, ESTABLISHED))
    }

    /// The next of the many flows; continues from one sample to the next.
    fn flows(&mut self, part: Part, clock: Clock) -> Result<f64> {
        let sender = self.sender(0)?;
        let mut flow = part.number.wrapping_mul(part.count);
        part.measure(clock, || {
            flow = flow.wrapping_add(1);
            sender.send(source(flow % FLOWS), MANY)
        })
    }

    fn unheard(&mut self, part: Part, clock: Clock) -> Result<f64> {
        let mut unused = *self.new.get(part.sender()).context("a sender")?;
        let sender = self.sender(part.sender())?;
        let took = part.measure(clock, || {
            let (source, offset) = unused.next(PORTS.1 - NEW + 1);
            sender.send(source, NEW + offset)
        });
        let place = self.new.get_mut(part.sender());
        *place.context("a sender")? = unused;
        took
    }

    fn forbidden(&mut self, part: Part, clock: Clock) -> Result<f64> {
        let mut unused = self.denied;
        let sender = self.sender(part.sender())?;
        let took = part.measure(clock, || {
            let (source, _) = unused.next(1);
            sender.send(source, FORBIDDEN)
        });
        self.denied = unused;
        took
    }
}

fn source(flow: u32) -> u16 {
    SOURCE + u16::try_from(flow).unwrap_or_default()
}

/// A request, its reply, and two more packets: the first establishes the flow, the second makes it
/// assured.
fn establish(sender: &mut Sender, answer: &mut Sender, from: u16, to: u16) -> Result<()> {
    sender.send(from, to)?;
    answer.send(to, from)?;
    sender.send(from, to)?;
    sender.send(from, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_pair_of_ports_comes_twice() {
        let mut unused = Unused::default();
        let pairs: std::collections::BTreeSet<_> = (0..3 * u32::from(SOURCES))
            .map(|_| unused.next(3))
            .collect();
        assert_eq!(pairs.len(), 3 * usize::from(SOURCES));
        assert_eq!(unused.next(3), (SOURCE, 0));
        assert!(SOURCE.checked_add(SOURCES).is_some());
    }

    #[test]
    fn samples_of_the_many_flows_continue_where_the_last_one_ended() {
        let metric = Metric {
            kind: Kind::Flows,
            v6: false,
        };
        // So all flows have the same age when they are used.
        assert_eq!(FLOWS % Part::new(0, metric).count, 0);
    }
}
