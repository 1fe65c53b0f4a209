//! Peers: default deny, and every peer selector, in both directions.

use anyhow::Result;
use ringfence_testbed::Attributes;

use crate::testbed::{Large, Ping, ProbeSpec, Tcp, Testbed, Udp};

const CLOSED: &str = r#"
[[policy]]
name = "closed"
namespace = "shop"
subject = "app=closed"
ingress = []

[[policy]]
name = "quiet"
namespace = "shop"
subject = "app=quiet"
egress = []
"#;

#[test]
fn only_the_isolated_direction_is_closed() -> Result<()> {
    let testbed = Testbed::new(&[("shop", &[])])?
        .with_labels("shop/client", &[("app", "client")])?
        .with_labels("shop/closed", &[("app", "closed")])?
        .with_labels("shop/quiet", &[("app", "quiet")])?
        .with_labels("ext", &[])?;
    let agent = testbed.agent("observe", CLOSED)?;
    let mut allowed: Vec<ProbeSpec> = Vec::new();
    let mut denied: Vec<ProbeSpec> = Vec::new();
    for what in [Tcp(8080), Udp(53), Large(53), Ping] {
        denied.extend([
            ("client", "closed", what),
            ("ext", "closed", what),
            ("quiet", "client", what),
            ("quiet", "ext", what),
            // Egress to the host is subject to policy, too.
            ("quiet", "node", what),
            ("quiet", "closed", what),
        ]);
        allowed.extend([
            // Replies need no rule: each of these flows has an isolated direction at one end.
            ("closed", "client", what),
            ("closed", "ext", what),
            ("client", "quiet", what),
            ("ext", "quiet", what),
            ("closed", "node", what),
            // Host ingress is always allowed.
            ("node", "closed", what),
            ("node", "quiet", what),
        ]);
    }
    testbed.check_policy(&agent, &allowed, &denied)
}

/// Each port of `server` is allowed for one peer selector.
const INGRESS: &str = r#"
[[policy]]
name = "server"
namespace = "shop"
subject = "app=server"

[[policy.ingress]]
from = [{ pods = "app=web" }]
ports = ["tcp/8080"]

[[policy.ingress]]
from = [{ namespaces = "env=prod" }]
ports = ["tcp/8081"]

[[policy.ingress]]
from = [{ namespaces = "env=prod", pods = "app=batch" }]
ports = ["tcp/9000"]

[[policy.ingress]]
from = [{ service-account = "robot" }]
ports = ["tcp/9004"]

[[policy.ingress]]
from = [{ cidr = "100.96.0.0/16", except = ["EXT2-4/32"] }, { cidr = "2001:db8:96::/48", except = ["EXT2-6/128"] }]
ports = ["tcp/9005"]

[[policy.ingress]]
from = [{ entity = "world" }]
ports = ["tcp/9010"]
"#;

/// The same peer selectors for the egress of `sender`.
const EGRESS: &str = r#"
[[policy]]
name = "sender"
namespace = "shop"
subject = "app=sender"

[[policy.egress]]
to = [{ pods = "app=web" }]
ports = ["tcp/8080"]

[[policy.egress]]
to = [{ namespaces = "env=prod" }]
ports = ["tcp/8081"]

[[policy.egress]]
to = [{ namespaces = "env=prod", pods = "app=batch" }]
ports = ["tcp/9000"]

[[policy.egress]]
to = [{ service-account = "robot" }]
ports = ["tcp/9004"]

[[policy.egress]]
to = [{ cidr = "100.96.0.0/16", except = ["EXT2-4/32"] }, { cidr = "2001:db8:96::/48", except = ["EXT2-6/128"] }]
ports = ["tcp/9005"]

[[policy.egress]]
to = [{ entity = "world" }]
ports = ["tcp/9010"]

[[policy.egress]]
to = [{ entity = "host" }]
ports = ["tcp/9011"]
"#;

/// Which peers may use which port.
const ALLOWED: [(u16, &[&str]); 6] = [
    (8080, &["web"]),
    (8081, &["batch", "other"]),
    (9000, &["batch"]),
    (9004, &["robot"]),
    (9005, &["ext1"]),
    (9010, &["ext1", "ext2"]),
];
const PEERS: [&str; 6] = ["web", "robot", "batch", "other", "ext1", "ext2"];

#[test]
fn each_peer_selector_matches_only_its_peers() -> Result<()> {
    let testbed = Testbed::new(&[("shop", &[("env", "test")]), ("live", &[("env", "prod")])])?
        .with_labels("shop/server", &[("app", "server")])?
        .with_labels("shop/sender", &[("app", "sender")])?
        .with_labels("shop/web", &[("app", "web")])?
        .with(
            "shop/robot",
            Attributes::labels(&[("app", "batch")]).service_account("robot"),
        )?
        .with_labels("live/batch", &[("app", "batch")])?
        // Labels and service accounts of another namespace must not match.
        .with(
            "live/other",
            Attributes::labels(&[("app", "web")]).service_account("robot"),
        )?
        .with_labels("ext1", &[])?
        .with_labels("ext2", &[])?;
    let second = &testbed.host("ext2").workload;
    let policies = format!("{INGRESS}{EGRESS}")
        .replace("EXT2-4", &second.ip4.to_string())
        .replace("EXT2-6", &second.ip6.to_string());
    let agent = testbed.agent("observe", &policies)?;
    let mut allowed: Vec<ProbeSpec> = vec![("sender", "node", Tcp(9011))];
    let mut denied: Vec<ProbeSpec> = vec![
        ("sender", "node", Tcp(9010)),
        ("sender", "server", Tcp(8080)),
        ("sender", "ext1", Udp(53)),
        ("web", "server", Ping),
        ("web", "server", Udp(53)),
    ];
    for (port, peers) in ALLOWED {
        for peer in PEERS {
            let grid = if peers.contains(&peer) {
                &mut allowed
            } else {
                &mut denied
            };
            grid.extend([(peer, "server", Tcp(port)), ("sender", peer, Tcp(port))]);
        }
    }
    testbed.check_policy(&agent, &allowed, &denied)
}
