//! What a rule covers: deny over allow, port ranges, named ports, echo, errors, fragments.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use ringfence_testbed::{Attributes, Outcome, Probe, Proto};

use crate::testbed::{Large, Ping, ProbeSpec, SHORT, SOON, Tcp, Testbed, Udp, apply};

const POLICIES: &str = r#"
[[policy]]
name = "server"
namespace = "shop"
subject = "app=server"

[[policy.ingress]]
from = [{ pods = "" }]
ports = ["tcp/9000-9010", "http", "icmp", "udp/53"]

# Deny beats allow in any order, and in another policy too.
[[policy.ingress]]
action = "deny"
from = [{ pods = "app=web" }]
ports = ["tcp/9005"]

[[policy]]
name = "no-guests"
namespace = "shop"
subject = ""

[[policy.ingress]]
action = "deny"
from = [{ pods = "app=guest" }]

# A deny rule isolates too; this allows all other pods at all other workloads.
[[policy]]
name = "others"
namespace = "shop"
subject = "app!=server"

[[policy.ingress]]
from = [{ pods = "" }]

[[policy]]
name = "named"
namespace = "shop"
subject = "app=client"

[[policy.egress]]
to = [{ pods = "app in (server,second)" }]
ports = ["http"]
"#;

#[test]
fn deny_beats_allow_and_rules_cover_exactly_their_ports() -> Result<()> {
    let http = |app: &str, port: &str| Attributes::labels(&[("app", app)]).port("http", port);
    let testbed = Testbed::new(&[("shop", &[])])?
        .with("shop/server", http("server", "tcp/8080"))?
        .with("shop/second", http("second", "tcp/8081"))?
        .with_labels("shop/web", &[("app", "web")])?
        .with_labels("shop/guest", &[("app", "guest")])?
        .with_labels("shop/client", &[("app", "client")])?;
    let agent = testbed.agent("observe", POLICIES)?;
    let allowed: [ProbeSpec; 13] = [
        ("web", "server", Tcp(9000)),
        ("web", "server", Tcp(9004)),
        ("web", "server", Tcp(9010)),
        ("web", "server", Tcp(8080)),
        ("web", "server", Ping),
        ("web", "server", Udp(53)),
        ("web", "server", Large(53)),
        ("second", "server", Tcp(9005)),
        ("client", "server", Tcp(8080)),
        ("client", "second", Tcp(8081)),
        ("server", "second", Tcp(9011)),
        ("server", "web", Ping),
        ("guest", "node", Tcp(8080)),
    ];
    let denied: [ProbeSpec; 14] = [
        ("web", "server", Tcp(9005)),
        ("web", "server", Tcp(9011)),
        ("web", "server", Tcp(8081)),
        ("web", "server", Udp(9005)),
        ("web", "server", Large(9011)),
        ("second", "server", Tcp(9011)),
        ("guest", "server", Tcp(9000)),
        ("guest", "server", Ping),
        ("guest", "second", Udp(53)),
        ("guest", "second", Large(53)),
        ("client", "server", Tcp(8081)),
        ("client", "second", Tcp(8080)),
        ("client", "server", Ping),
        ("client", "web", Tcp(8080)),
    ];
    testbed.check_policy(&agent, &allowed, &denied)
}

const CLOSED_PORT: u16 = 7;

fn open(rules: &str) -> String {
    format!(
        "[[policy]]\nname = \"server\"\nnamespace = \"shop\"\nsubject = \"app=server\"\n{rules}\n\
         [[policy]]\nname = \"client\"\nnamespace = \"shop\"\nsubject = \"app=client\"\n\
         ingress = []\n"
    )
}

#[test]
fn only_errors_about_allowed_flows_come_back() -> Result<()> {
    let testbed = Testbed::new(&[("shop", &[])])?
        .with_labels("shop/server", &[("app", "server")])?
        .with_labels("shop/client", &[("app", "client")])?;
    // The client's ingress is isolated: only replies and errors of its own flows may come back.
    let rule =
        format!("[[policy.ingress]]\nports = [\"tcp/{CLOSED_PORT}\", \"udp/{CLOSED_PORT}\"]");
    let agent = testbed.agent("enforce", &open(&rule))?;
    let all = |expected: Outcome, deadline| -> Result<()> {
        for ip in testbed.host("server").workload.ips() {
            for proto in [Proto::Udp, Proto::Tcp] {
                let probe = Probe::new(proto, SocketAddr::new(ip, CLOSED_PORT));
                let outcome = probe.run(&testbed.host("client").workload.ns, deadline)?;
                ensure!(
                    outcome == expected,
                    "{proto:?} {ip}: {outcome:?}, not {expected:?}"
                );
            }
        }
        Ok(())
    };
    all(Outcome::Refused, SOON)?;
    apply(&agent, &open("ingress = []"))?;
    all(Outcome::Silent, SHORT)?;
    testbed.set_mode(&agent, "observe")?;
    all(Outcome::Refused, SOON)
}
