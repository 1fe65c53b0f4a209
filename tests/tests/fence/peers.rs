//! Who is who: default deny, and every way of naming a peer, in both directions.

use anyhow::Result;
use ringfence_testbed::Attributes;

use crate::world::{Large, Ping, Tcp, Try, Udp, World};

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
fn an_isolated_direction_is_closed_and_the_other_is_not() -> Result<()> {
    let world = World::new(&[("shop", &[])])?
        .labelled("shop/client", &[("app", "client")])?
        .labelled("shop/closed", &[("app", "closed")])?
        .labelled("shop/quiet", &[("app", "quiet")])?
        .labelled("ext", &[])?;
    let agent = world.agent("observe", CLOSED)?;
    let mut allowed: Vec<Try> = Vec::new();
    let mut denied: Vec<Try> = Vec::new();
    for what in [Tcp(8080), Udp(53), Large(53), Ping] {
        denied.extend([
            ("client", "closed", what),
            ("ext", "closed", what),
            ("quiet", "client", what),
            ("quiet", "ext", what),
            // Egress to the own node is subject to policy, too.
            ("quiet", "node", what),
            ("quiet", "closed", what),
        ]);
        allowed.extend([
            // Replies need no rule: each of these has one direction closed on one end.
            ("closed", "client", what),
            ("closed", "ext", what),
            ("client", "quiet", what),
            ("ext", "quiet", what),
            ("closed", "node", what),
            // Sockets of the workload's own node are always let in.
            ("node", "closed", what),
            ("node", "quiet", what),
        ]);
    }
    world.judge(&agent, &allowed, &denied)
}

/// Each port of `server` has one kind of peer.
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

/// The same peers, as targets of `sender`.
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
const GRANTS: [(u16, &[&str]); 6] = [
    (8080, &["web"]),
    (8081, &["batch", "other"]),
    (9000, &["batch"]),
    (9004, &["robot"]),
    (9005, &["ext1"]),
    (9010, &["ext1", "ext2"]),
];
const PEERS: [&str; 6] = ["web", "robot", "batch", "other", "ext1", "ext2"];

#[test]
fn every_kind_of_peer_is_told_from_every_other() -> Result<()> {
    let world = World::new(&[("shop", &[("env", "test")]), ("live", &[("env", "prod")])])?
        .labelled("shop/server", &[("app", "server")])?
        .labelled("shop/sender", &[("app", "sender")])?
        .labelled("shop/web", &[("app", "web")])?
        .with(
            "shop/robot",
            Attributes::labels(&[("app", "batch")]).service_account("robot"),
        )?
        .labelled("live/batch", &[("app", "batch")])?
        // Neither a label nor an account of another namespace is the own one's.
        .with(
            "live/other",
            Attributes::labels(&[("app", "web")]).service_account("robot"),
        )?
        .labelled("ext1", &[])?
        .labelled("ext2", &[])?;
    let second = &world.at("ext2").workload;
    let policies = format!("{INGRESS}{EGRESS}")
        .replace("EXT2-4", &second.ip4.to_string())
        .replace("EXT2-6", &second.ip6.to_string());
    let agent = world.agent("observe", &policies)?;
    let mut allowed: Vec<Try> = vec![("sender", "node", Tcp(9011))];
    let mut denied: Vec<Try> = vec![
        ("sender", "node", Tcp(9010)),
        ("sender", "server", Tcp(8080)),
        ("sender", "ext1", Udp(53)),
        ("web", "server", Ping),
        ("web", "server", Udp(53)),
    ];
    for (port, granted) in GRANTS {
        for peer in PEERS {
            let grid = if granted.contains(&peer) {
                &mut allowed
            } else {
                &mut denied
            };
            grid.extend([(peer, "server", Tcp(port)), ("sender", peer, Tcp(port))]);
        }
    }
    world.judge(&agent, &allowed, &denied)
}
