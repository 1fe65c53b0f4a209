//! Two workloads that send between the same two UDP ports (SIP, NTP, gossip): what policy allows one
//! of them arrives at once, whatever the other did before.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::testbed::{SHORT, SOON, Testbed, apply, run};

const PORT: u16 = 5060;
/// Between two datagrams without a reply so far.
const AGAIN: Duration = Duration::from_millis(50);

/// A policy whose subject accepts these rules only.
fn accepts(subject: &str, rule: &str) -> String {
    format!(
        r#"
[[policy]]
name = "{subject}"
namespace = "shop"
subject = "app={subject}"
{rule}
"#
    )
}

fn from(peer: &str) -> String {
    format!(
        r#"
[[policy.ingress]]
from = [{{ pods = "app={peer}" }}]
ports = ["udp/{PORT}"]
"#
    )
}

const NONE: &str = "ingress = []";

/// A socket of each end in one family, both bound to [`PORT`].
struct Pair {
    sockets: [UdpSocket; 2],
    addresses: [SocketAddr; 2],
    next: u64,
}

const A: usize = 0;
const B: usize = 1;

impl Pair {
    fn new(testbed: &Testbed, v6: bool) -> Result<Self> {
        let bind = |name: &str| -> Result<(UdpSocket, SocketAddr)> {
            let workload = &testbed.host(name).workload;
            let address = SocketAddr::new(workload.ip(v6), PORT);
            let socket = workload.ns.run(|| UdpSocket::bind(address))??;
            Ok((socket, address))
        };
        let ((a, at_a), (b, at_b)) = (bind("a")?, bind("b")?);
        Ok(Self {
            sockets: [a, b],
            addresses: [at_a, at_b],
            next: 1,
        })
    }

    /// Sends a datagram with a new number from one end to the other.
    fn send(&mut self, from: usize) -> Result<u64> {
        let number = self.next;
        self.next += 1;
        self.sockets[from].send_to(&number.to_be_bytes(), self.addresses[1 - from])?;
        Ok(number)
    }

    /// Whether a datagram with at least this number reaches an end in time.
    fn receives(&self, at: usize, number: u64, within: Duration) -> Result<bool> {
        let until = Instant::now() + within;
        loop {
            let rest = until.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Ok(false);
            }
            self.sockets[at].set_read_timeout(Some(rest))?;
            let mut bytes = [0; 8];
            match self.sockets[at].recv(&mut bytes) {
                Ok(8) if u64::from_be_bytes(bytes) >= number => return Ok(true),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends from one end until the other receives.
    fn arrives(&mut self, from: usize) -> Result<()> {
        let first = self.next;
        let until = Instant::now() + SOON;
        while Instant::now() < until {
            self.send(from)?;
            if self.receives(1 - from, first, AGAIN)? {
                return Ok(());
            }
        }
        bail!("nothing from {} arrived", ["a", "b"][from])
    }

    /// Sends from one end; the other must receive nothing.
    fn is_silent(&mut self, from: usize) -> Result<()> {
        let number = self.send(from)?;
        let received = self.receives(1 - from, number, SHORT)?;
        ensure!(!received, "a datagram from {} arrived", ["a", "b"][from]);
        Ok(())
    }
}

fn testbed() -> Result<Testbed> {
    Testbed::new(&[("shop", &[])])?
        .with_labels("shop/a", &[("app", "a")])?
        .with_labels("shop/b", &[("app", "b")])
}

#[test]
fn the_open_direction_of_the_same_ports_passes_when_the_other_is_shut() -> Result<()> {
    let testbed = testbed()?;
    let a = accepts("a", &from("b"));
    let open = [a.clone(), accepts("b", &from("a"))].concat();
    let agent = testbed.agent("enforce", &open)?;
    let mut pairs = [Pair::new(&testbed, false)?, Pair::new(&testbed, true)?];
    for pair in &mut pairs {
        pair.arrives(A).context("both directions are open")?;
        pair.arrives(B).context("both directions are open")?;
    }
    apply(&agent, &[a, accepts("b", NONE)].concat())?;
    for pair in &mut pairs {
        pair.is_silent(A).context("what is shut")?;
        for _ in 0..3 {
            pair.arrives(B)
                .context("the direction that is still open")?;
            pair.is_silent(A)
                .context("a stream of b does not revive what is shut")?;
        }
    }
    apply(&agent, &open)?;
    for pair in &mut pairs {
        pair.arrives(A).context("the control: open again")?;
    }
    Ok(())
}

#[test]
fn a_flow_that_was_only_observed_does_not_shut_the_other_direction() -> Result<()> {
    let testbed = testbed()?;
    let policies = [accepts("a", &from("b")), accepts("b", NONE)].concat();
    let agent = testbed.agent("observe", &policies)?;
    let mut pairs = [Pair::new(&testbed, false)?, Pair::new(&testbed, true)?];
    for pair in &mut pairs {
        pair.arrives(A).context("observed")?;
    }
    // Over IPv4 b has sent before the change of mode, over IPv6 it has not.
    pairs[0].arrives(B).context("observed")?;
    run(&agent, &["mode", "set", "shop", "enforce"])?;
    pairs[1].is_silent(A).context("the control: it is denied")?;
    for pair in &mut pairs {
        pair.arrives(B).context("what policy allows")?;
        pair.arrives(A).context("its reply")?;
    }
    Ok(())
}
