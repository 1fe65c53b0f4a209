//! Packets that policy denies, sent all the time: every two milliseconds a SYN, a datagram and an echo
//! request over each IP version.
//!
//! What arrives is counted by the target's kernel, packet by packet, because nothing else is ever sent
//! to that target. A single packet that passes in an instant is seen; which one it was is not.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::NetNs;
use crate::topology::Workload;
use crate::wait::eventually;

/// Between two rounds of packets.
const INTERVAL: Duration = Duration::from_millis(2);
/// Packets of the control, of each protocol.
const CONTROL: u64 = 100;
const DEADLINE: Duration = Duration::from_secs(20);
/// Nothing listens there, and nothing has to.
const PORT: u16 = 7009;

/// Packets by protocol, both IP versions together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packets {
    /// TCP segments.
    pub tcp: u64,
    /// UDP datagrams.
    pub udp: u64,
    /// ICMP and ICMPv6 echo requests.
    pub icmp: u64,
}

impl Packets {
    /// All of them.
    #[must_use]
    pub const fn sum(self) -> u64 {
        self.tcp + self.udp + self.icmp
    }

    fn since(self, earlier: Self) -> Self {
        Self {
            tcp: self.tcp.saturating_sub(earlier.tcp),
            udp: self.udp.saturating_sub(earlier.udp),
            icmp: self.icmp.saturating_sub(earlier.icmp),
        }
    }

    fn at_least(self, least: u64) -> bool {
        [self.tcp, self.udp, self.icmp].iter().all(|n| *n >= least)
    }
}

impl fmt::Display for Packets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tcp, udp, icmp } = self;
        write!(f, "TCP {tcp}, UDP {udp}, echo {icmp}")
    }
}

/// The counters of what a workload's kernel has received.
#[derive(Debug)]
struct Received {
    both: File,
    v6: File,
}

impl Received {
    fn open(ns: &NetNs) -> Result<Self> {
        let open = |name| File::open(format!("/proc/thread-self/net/{name}"));
        let (both, v6) = ns.run(|| (open("snmp"), open("snmp6")))?;
        Ok(Self {
            both: both.context("opening /proc/net/snmp")?,
            v6: v6.context("opening /proc/net/snmp6")?,
        })
    }

    fn read(&self) -> Result<Packets> {
        Ok(parse(&text(&self.both)?, &text(&self.v6)?))
    }
}

fn text(file: &File) -> Result<String> {
    let mut text = vec![0; 32_768];
    let length = file.read_at(&mut text, 0).context("reading counters")?;
    text.truncate(length);
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// `snmp` has a line of names and a line of values for each protocol, and TCP of both IP versions;
/// `snmp6` has a name and a value on each line.
fn parse(both: &str, v6: &str) -> Packets {
    let value = |protocol: &str, name: &str| -> u64 {
        let mut lines = both.lines().filter(|line| line.starts_with(protocol));
        let (names, values) = (lines.next(), lines.next());
        let names = names.unwrap_or_default().split_whitespace();
        let mut pairs = names.zip(values.unwrap_or_default().split_whitespace());
        let found = pairs.find(|(found, _)| *found == name);
        found.and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
    };
    let value6 = |name: &str| -> u64 {
        let mut lines = v6.lines().map(str::split_whitespace);
        let found = lines.find_map(|mut words| (words.next()? == name).then_some(words.next()?));
        found.and_then(|value| value.parse().ok()).unwrap_or(0)
    };
    let (udp, udp6) = ("Udp: ", ["Udp6InDatagrams", "Udp6NoPorts"].map(value6));
    Packets {
        tcp: value("Tcp: ", "InSegs"),
        udp: value(udp, "InDatagrams") + value(udp, "NoPorts") + udp6.iter().sum::<u64>(),
        icmp: value("Icmp: ", "InEchos") + value6("Icmp6InEchos"),
    }
}

#[derive(Debug, Default)]
struct Sent {
    stop: AtomicBool,
    tcp: AtomicU64,
    udp: AtomicU64,
    icmp: AtomicU64,
}

/// One workload that sends, and what it has sent.
#[derive(Debug)]
struct Sender {
    sent: Arc<Sent>,
    thread: Option<JoinHandle<Result<Result<()>>>>,
}

impl Sender {
    fn start(from: &NetNs, targets: [SocketAddr; 2]) -> Result<Self> {
        let sent = Arc::<Sent>::default();
        let counts = Arc::clone(&sent);
        let thread = from.spawn(move || send(targets, &counts))?;
        Ok(Self {
            sent,
            thread: Some(thread),
        })
    }

    fn stop(&mut self) -> Result<()> {
        self.sent.stop.store(true, Ordering::Release);
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        let sent = thread.join();
        sent.map_err(|_| anyhow!("a sender of denied packets panicked"))??
    }
}

/// Senders to one target, and the target's counters. Dropping it stops them.
#[derive(Debug)]
pub(super) struct DeniedPackets {
    to: String,
    received: Received,
    begun: Packets,
    senders: Vec<Sender>,
}

impl DeniedPackets {
    /// Starts sending from these workloads.
    pub(super) fn start(from: &[&Workload], to: &Workload) -> Result<Self> {
        let received = Received::open(&to.ns)?;
        let begun = received.read()?;
        let targets = to.ips().map(|ip| SocketAddr::new(ip, PORT));
        let senders = from.iter().map(|from| Sender::start(&from.ns, targets));
        Ok(Self {
            to: to.name.clone(),
            received,
            begun,
            senders: senders.collect::<Result<_>>()?,
        })
    }

    /// Sends from each workload alone while nothing is enforced: every packet must arrive.
    pub(super) fn control(from: &[&Workload], to: &Workload) -> Result<()> {
        for source in from {
            let mut packets = Self::start(&[source], to)?;
            eventually(DEADLINE, "packets of the control", || {
                Ok(packets.sent().at_least(CONTROL).then_some(()))
            })?;
            packets.stop()?;
            let sent = packets.sent();
            let mut arrived = Packets::default();
            let all = eventually(DEADLINE, "the control's packets", || {
                arrived = packets.arrived()?;
                Ok((arrived == sent).then_some(()))
            });
            all.with_context(|| format!("from {}: {arrived} of {sent} arrived", source.name))?;
        }
        Ok(())
    }

    /// The workload that nothing may arrive at.
    pub(super) fn target(&self) -> &str {
        &self.to
    }

    /// What was sent.
    pub(super) fn sent(&self) -> Packets {
        let read = |count: &AtomicU64| count.load(Ordering::Acquire);
        let all = self.senders.iter().map(|sender| &sender.sent);
        all.fold(Packets::default(), |sum, sent| Packets {
            tcp: sum.tcp + read(&sent.tcp),
            udp: sum.udp + read(&sent.udp),
            icmp: sum.icmp + read(&sent.icmp),
        })
    }

    /// What arrived.
    pub(super) fn arrived(&self) -> Result<Packets> {
        Ok(self.received.read()?.since(self.begun))
    }

    /// Stops sending.
    pub(super) fn stop(&mut self) -> Result<()> {
        self.senders.iter_mut().try_for_each(Sender::stop)
    }
}

impl Drop for DeniedPackets {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

/// Sends in rounds until told to stop.
fn send(targets: [SocketAddr; 2], sent: &Sent) -> Result<()> {
    let mut sockets = Vec::new();
    for target in targets {
        let (icmp, kind) = match target {
            SocketAddr::V4(_) => (Protocol::ICMPV4, 8),
            SocketAddr::V6(_) => (Protocol::ICMPV6, 128),
        };
        let open = |protocol| -> Result<Socket> {
            let domain = Domain::for_address(target);
            let socket = Socket::new(domain, Type::DGRAM, Some(protocol))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        sockets.push((target, open(Protocol::UDP)?, open(icmp)?, kind));
    }
    while !sent.stop.load(Ordering::Acquire) {
        for (target, udp, icmp, kind) in &sockets {
            let count = |counter: &AtomicU64, outcome: io::Result<()>| match outcome {
                Ok(()) => {
                    counter.fetch_add(1, Ordering::AcqRel);
                    Ok(())
                }
                // It was not sent: a queue is full.
                Err(error) if is_full(&error) => Ok(()),
                Err(error) => Err(error).with_context(|| format!("sending to {target}")),
            };
            count(&sent.tcp, syn(*target))?;
            count(
                &sent.udp,
                udp.send_to(b"denied", &(*target).into()).map(drop),
            )?;
            let echo = [*kind, 0, 0, 0, 0, 0, 0, 1];
            count(&sent.icmp, icmp.send_to(&echo, &(*target).into()).map(drop))?;
        }
        // This sleep limits the rate; it does not wait for a condition.
        std::thread::sleep(INTERVAL);
    }
    Ok(())
}

/// Sends one SYN: the socket is closed before an answer could come.
fn syn(target: SocketAddr) -> io::Result<()> {
    let domain = Domain::for_address(target);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match socket.connect(&target.into()) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
        // The answer came at once: nothing listens.
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        other => other,
    }
}

fn is_full(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_both_ip_versions_are_added_up() {
        let both = "Icmp: InMsgs InErrors InEchos\nIcmp: 9 0 3\n\
                    IcmpMsg: InType3\nIcmpMsg: 7\n\
                    Tcp: ActiveOpens InSegs\nTcp: 4 11\n\
                    Udp: InDatagrams NoPorts\nUdp: 2 5\nUdpLite: InDatagrams\nUdpLite: 8\n";
        let v6 = "Icmp6InEchos \t 1\nUdp6InDatagrams 1\nUdp6NoPorts\t2\n";
        let expected = Packets {
            tcp: 11,
            udp: 10,
            icmp: 4,
        };
        assert_eq!(parse(both, v6), expected);
    }
}
