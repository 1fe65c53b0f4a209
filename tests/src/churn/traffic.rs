//! Packets whose verdict is known while everything else comes and goes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;

use super::population::{FRIEND, Life, OTHER, REVOKED, WEB, kept_address};
use crate::program_run::frames::{ACK, End, RST, SYN, Transport, frame};
use crate::program_run::{Hook, Programs};

const HTTPS: u16 = 443;
/// Client port of workloads that come and go: the same, so that an address's next owner uses the
/// former one's tuple.
const LIFE_PORT: u16 = 31_000;
/// Client ports of connections that are granted and revoked, in turn.
const REVOKED_PORT: u16 = 32_000;
const REVOKED_PORTS: u64 = 1000;
/// Every other revoked connection is silent until this many others have been granted and revoked.
const SILENT: u64 = 20;
/// Ports of new flows of the pair that is always allowed, and of the one that never is.
const FRESH_PORT: u16 = 33_000;
const FRESH_PORTS: u64 = 64;

/// Counts of one kind of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets checked.
    pub packets: u64,
    /// Packets that passed and must not.
    pub passed: u64,
    /// Packets that were dropped and must not be.
    pub dropped: u64,
}

/// Counts by kind.
#[derive(Clone, Debug, Default)]
pub struct Checked(pub BTreeMap<&'static str, Count>);

impl Checked {
    /// The sum over all kinds.
    #[must_use]
    pub fn sum(&self) -> Count {
        let mut sum = Count::default();
        self.0.values().for_each(|count| sum.add(count));
        sum
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (kind, count) in &other.0 {
            self.0.entry(kind).or_default().add(count);
        }
    }
}

impl Count {
    const fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.passed += other.passed;
        self.dropped += other.dropped;
    }

    /// Packets with a wrong verdict.
    #[must_use]
    pub const fn wrong(&self) -> u64 {
        self.passed + self.dropped
    }
}

/// The endpoint that stays, as packets see it.
pub(super) struct Traffic<'a> {
    programs: &'a Programs,
    ifindex: u32,
    pub(super) checked: Checked,
    granted: u64,
}

impl<'a> Traffic<'a> {
    pub(super) fn new(programs: &'a Programs, ifindex: u32) -> Self {
        Self {
            programs,
            ifindex,
            checked: Checked::default(),
            granted: 0,
        }
    }

    fn check(&mut self, what: &'static str, passed: bool, expected: bool) {
        let count = self.checked.0.entry(what).or_default();
        count.packets += 1;
        count.passed += u64::from(passed && !expected);
        count.dropped += u64::from(expected && !passed);
    }

    /// A segment from a client to the endpoint that stays, or back.
    fn segment(&self, client: End, flags: u8, back: bool) -> Result<bool> {
        let server = (kept_address(client.0.is_ipv6(), WEB), HTTPS);
        let (hook, from, to) = if back {
            (Hook::FromWorkload, server, client)
        } else {
            (Hook::ToWorkload, client, server)
        };
        let frame = frame(from, to, Transport::Tcp(flags))?;
        self.programs.passes(hook, self.ifindex, &frame)
    }

    /// Opens and uses a connection, so that its entry is assured.
    fn open(&mut self, what: &'static str, client: End) -> Result<()> {
        for (flags, back) in [(SYN, false), (SYN | ACK, true), (ACK, false), (ACK, true)] {
            let passed = self.segment(client, flags, back)?;
            self.check(what, passed, true);
        }
        Ok(())
    }

    fn expect(&mut self, what: &'static str, client: End, flags: u8, expected: bool) -> Result<()> {
        let passed = self.segment(client, flags, false)?;
        self.check(what, passed, expected);
        Ok(())
    }

    /// The pair that is always allowed and the one that never is, over and over.
    pub(super) fn run(&mut self, running: &AtomicBool) -> Result<()> {
        let mut round = 0;
        for v6 in [false, true] {
            self.open("always allowed", (kept_address(v6, FRIEND), FRESH_PORT - 1))?;
        }
        while running.load(Ordering::SeqCst) {
            let v6 = round % 2 == 1;
            let port = FRESH_PORT + u16::try_from(round / 2 % FRESH_PORTS)?;
            let (friend, other) = (kept_address(v6, FRIEND), kept_address(v6, OTHER));
            self.expect("always allowed", (friend, FRESH_PORT - 1), ACK, true)?;
            self.expect("always allowed", (friend, port), SYN, true)?;
            self.expect("always denied", (other, port), SYN, false)?;
            self.expect("always denied", (other, port), ACK, false)?;
            round += 1;
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Workloads that have just come: guests may connect, whatever workload had their address before; others
    /// may not.
    pub(super) fn arrivals(&mut self, born: &[Life]) -> Result<()> {
        for life in born {
            for address in &life.workload.addresses {
                let client = (*address, LIFE_PORT);
                if life.is_guest {
                    self.expect("guest at a reused address", client, ACK, true)?;
                    self.open("guest at a reused address", client)?;
                } else {
                    self.expect("former guest's address", client, ACK, false)?;
                    self.expect("former guest's address", client, SYN, false)?;
                }
            }
        }
        Ok(())
    }

    /// A new endpoint: closed to the friend if its namespace has a policy.
    pub(super) fn endpoint(&mut self, ifindex: u32, life: &Life, is_policed: bool) -> Result<()> {
        for address in &life.workload.addresses {
            let from = (kept_address(address.is_ipv6(), FRIEND), LIFE_PORT);
            let frame = frame(from, (*address, HTTPS), Transport::Tcp(SYN))?;
            let passed = self.programs.passes(Hook::ToWorkload, ifindex, &frame)?;
            self.check("new endpoint", passed, !is_policed);
        }
        Ok(())
    }

    /// While the grant is in force, a new connection; otherwise connections granted just now or long
    /// ago, which are revoked.
    pub(super) fn grant(&mut self, is_granted: bool) -> Result<()> {
        if is_granted {
            self.granted += 1;
            return self.open("granted", revoked_client(self.granted));
        }
        for number in [Some(self.granted), self.granted.checked_sub(SILENT)] {
            let Some(number) = number.filter(|number| *number > 0) else {
                continue;
            };
            let is_recent = number == self.granted;
            // Every other connection is not tried before it has been silent for long.
            if is_recent != number.is_multiple_of(2) {
                continue;
            }
            let what = if is_recent {
                "revoked just now"
            } else {
                "revoked long ago"
            };
            self.expect(what, revoked_client(number), ACK, false)?;
        }
        Ok(())
    }

    /// Resets every connection, while everything is allowed, so that its entry expires soon.
    pub(super) fn close_all(
        &self,
        addresses: impl Iterator<Item = std::net::IpAddr>,
    ) -> Result<()> {
        let lives = addresses.map(|address| (address, LIFE_PORT));
        let revoked = (1..=REVOKED_PORTS).map(revoked_client);
        let friends = [false, true].map(|v6| (kept_address(v6, FRIEND), FRESH_PORT - 1));
        for client in lives.chain(revoked).chain(friends) {
            self.segment(client, RST, false)?;
        }
        Ok(())
    }
}

/// The client's end of a granted connection.
fn revoked_client(number: u64) -> End {
    let port = u16::try_from(number % REVOKED_PORTS).unwrap_or(0);
    let v6 = number / 2 % 2 == 1;
    (kept_address(v6, REVOKED), REVOKED_PORT + port)
}
