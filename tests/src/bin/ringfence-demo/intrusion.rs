//! Intrusions: connections that no policy allows.
//!
//! Each path is tried over IPv4 and IPv6, several times, from new sockets. An attempt succeeded if
//! it was answered *or* if the server received it: a request that arrives without a response is an
//! intrusion too. The expected result is not known here.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, anyhow};
use ringfence_testbed::http::HttpClient;
use ringfence_testbed::probe::run_all;
use ringfence_testbed::{NetNs, Outcome, Probe, Proto, interrupt};

use crate::shop::{Member, Shop};

/// How long an attempt waits for a response; shorter than the first SYN retransmission.
const TIMEOUT: Duration = Duration::from_millis(500);

/// A connection to try.
#[derive(Debug)]
pub(crate) struct Path<'a> {
    pub(crate) from: &'a Member,
    pub(crate) to: &'a Member,
    pub(crate) proto: Proto,
}

/// The result of the attempts on one path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempts {
    pub(crate) made: usize,
    pub(crate) succeeded: usize,
}

/// Everything the intruder and the compromised frontend try.
pub(crate) fn paths(shop: &Shop) -> Result<Vec<Path<'_>>> {
    let mut paths = Vec::new();
    for from in ["intruder-1", "frontend-2"] {
        for (to, proto) in [
            ("orders-db-1", Proto::Tcp),
            ("orders-db-1", Proto::Udp),
            ("payments-1", Proto::Tcp),
        ] {
            let (from, to) = (shop.member(from)?, shop.member(to)?);
            paths.push(Path { from, to, proto });
        }
    }
    Ok(paths)
}

impl Path<'_> {
    /// Protocol and port, for example `tcp/5432`.
    pub(crate) fn port(&self) -> Result<String> {
        let proto = match self.proto {
            Proto::Udp => "udp",
            Proto::Tcp | Proto::Icmp => "tcp",
        };
        Ok(format!("{proto}/{}", self.to.port()?))
    }

    /// The ends and the port, as cells of a row.
    pub(crate) fn cells(&self) -> Result<Vec<String>> {
        let ends = format!("{} → {}", self.from.name(), self.to.name());
        Ok(vec![ends, self.port()?])
    }

    /// Tries `rounds` times over each family, all concurrently.
    pub(crate) fn attempt(&self, rounds: usize) -> Result<Attempts> {
        interrupt::check()?;
        let (to, port) = (&self.to.workload, self.to.port()?);
        let targets = to.ips().map(|ip| SocketAddr::new(ip, port)).repeat(rounds);
        let succeeded = match self.proto {
            Proto::Udp => self.over_udp(&targets)?,
            Proto::Tcp | Proto::Icmp => self.over_tcp(&targets)?,
        };
        Ok(Attempts {
            made: targets.len(),
            succeeded,
        })
    }

    fn over_udp(&self, targets: &[SocketAddr]) -> Result<usize> {
        let probe = |target: &SocketAddr| {
            let probe = Probe::new(Proto::Udp, *target);
            Ok(probe.seen_by(self.to.udp()?))
        };
        let probes = targets.iter().map(probe).collect::<Result<Vec<_>>>()?;
        let outcomes = run_all(&self.from.workload.ns, &probes, TIMEOUT)?;
        let succeeded = outcomes.iter().filter(|o| **o != Outcome::Silent);
        Ok(succeeded.count())
    }

    fn over_tcp(&self, targets: &[SocketAddr]) -> Result<usize> {
        let sources: [IpAddr; 2] = self.from.workload.ips();
        let server = self.to.http()?;
        let before = server.accepted_from(&sources)?;
        let answered = answered(&self.from.workload.ns, targets)?;
        let seen = server.accepted_from(&sources)? - before;
        Ok(answered.max(seen))
    }
}

/// Number of these requests that are answered.
fn answered(from: &NetNs, targets: &[SocketAddr]) -> Result<usize> {
    from.run(|| {
        // A thread inherits the network namespace of its parent.
        std::thread::scope(|scope| {
            let request = |target: &SocketAddr| {
                let target = *target;
                scope.spawn(move || HttpClient::new(target, TIMEOUT).get("/secrets").is_ok())
            };
            let requests: Vec<_> = targets.iter().map(request).collect();
            let mut answered = 0;
            for request in requests {
                let ok = request.join().map_err(|_| anyhow!("a request panicked"))?;
                answered += usize::from(ok);
            }
            Ok(answered)
        })
    })?
}
