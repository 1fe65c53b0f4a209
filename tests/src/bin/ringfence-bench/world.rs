//! The measured world: two local workloads, ten thousand remote ones, forty policies.
//!
//! The remote workloads are twenty replicas each of five hundred applications (fifty in each of ten
//! namespaces). Half of the policies select the target and name labels, namespaces, service
//! accounts, prefixes and port ranges; the others select workloads of the same namespace on other
//! nodes. One more policy is the one that changes.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringfence_testbed::{Addresses, Attributes, Node, Workload};

/// Remote workloads.
pub(crate) const REMOTE: u32 = 10_000;
const NAMESPACES: u32 = 10;
const APPLICATIONS: u32 = 50;
const POLICIES: u32 = 40;

/// The namespace of the local workloads.
pub(crate) const NAMESPACE: &str = "bench";
/// The port that the changing policy is about.
pub(crate) const PORT: u16 = 7000;

/// The addresses of the target and of the workload that sends to it.
pub(crate) const TARGET: Addresses = Addresses {
    ip4: Ipv4Addr::new(10, 1, 0, 1),
    ip6: Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1),
};
pub(crate) const SENDER: Addresses = Addresses {
    ip4: Ipv4Addr::new(10, 1, 0, 2),
    ip6: Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 2),
};

const REMOTE4: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 0);
const REMOTE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 128, 0, 0, 0, 0, 0, 0);

/// The addresses of a remote workload.
pub(crate) fn remote(number: u32) -> [IpAddr; 2] {
    [
        IpAddr::V4(Ipv4Addr::from_bits(REMOTE4.to_bits() + number)),
        IpAddr::V6(Ipv6Addr::from_bits(REMOTE6.to_bits() + u128::from(number))),
    ]
}

/// The inventory; the local workloads come first.
pub(crate) fn inventory(node: &Node, target: &Workload, sender: &Workload) -> String {
    let attributes = |app: &str| Attributes::labels(&[("app", app)]).service_account(app);
    let mut inventory = node
        .inventory()
        .namespace(NAMESPACE, &[("env", "bench")])
        .local(target, &attributes("target"))
        .local(sender, &attributes("sender"));
    for namespace in 0..NAMESPACES {
        let env = if namespace % 2 == 0 { "prod" } else { "test" };
        inventory = inventory.namespace(&format!("ns-{namespace}"), &[("env", env)]);
    }
    for number in 0..REMOTE {
        let namespace = format!("ns-{}", number % NAMESPACES);
        let app = format!("app-{}", number / NAMESPACES % APPLICATIONS);
        let name = format!("{app}-{number}");
        inventory = inventory.remote(&namespace, &name, &remote(number), &attributes(&app));
    }
    inventory.build()
}

/// All policies. The sender may send to the target's [`PORT`] only if `open`; remote
/// workload 0 may always connect to `tcp/8080`.
pub(crate) fn policies(open: bool) -> String {
    let mut text = constant_policies();
    let peer = if open { "sender" } else { "absent" };
    let _ = write!(
        text,
        "[[policy]]\nname = \"changing\"\nnamespace = \"{NAMESPACE}\"\nsubject = \"app=target\"\n\
         \n[[policy.ingress]]\nfrom = [{{ pods = \"app={peer}\" }}]\nports = [\"udp/{PORT}\"]\n"
    );
    text
}

/// Every policy except the one that changes.
pub(crate) fn constant_policies() -> String {
    let mut text = String::new();
    for number in 0..POLICIES {
        let subject = if number % 2 == 0 {
            "target"
        } else {
            "elsewhere"
        };
        policy(&mut text, number, subject, "p");
    }
    text
}

/// Adds a policy with the workloads of an application as subject.
pub(crate) fn policy(text: &mut String, number: u32, subject: &str, prefix: &str) {
    let (app, port) = (number % APPLICATIONS, 8080 + number);
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "[[policy]]\nname = \"{prefix}-{number}\"\nnamespace = \"{NAMESPACE}\"\n\
         subject = \"app={subject}\"\nowner = \"team-{number}\"\n\
         justification = \"a policy to be measured\"\n\n\
         [[policy.ingress]]\n\
         from = [{{ namespaces = \"env=prod\", pods = \"app=app-{app}\" }}, \
         {{ namespaces = \"env=test\", service-account = \"app-{app}\" }}]\n\
         ports = [\"tcp/{port}\", \"tcp/9000-9100\"]\n\n\
         [[policy.ingress]]\nfrom = [{{ cidr = \"192.0.2.0/24\" }}]\nports = [\"tcp/443\"]\n\n\
         [[policy.egress]]\n\
         to = [{{ namespaces = \"\", pods = \"app in (app-{app}, app-0)\" }}]\n\
         ports = [\"tcp/{port}\", \"udp/53\"]\n\n"
    );
}
