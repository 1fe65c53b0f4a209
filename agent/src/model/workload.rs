//! The items of the inventory: namespaces, workloads and nodes.
//!
//! The constructors check each value by itself; `Inventory` checks that values are consistent with
//! each other. A workload with an interface is a local endpoint.

use std::net::IpAddr;

use super::dispute::Recency;
use super::labels::Labels;
use super::name::{NamespaceName, NodeName, PortName, ServiceAccountName, WorkloadId};
use super::protocol::Protocol;
use super::quote::quote;

/// The label whose value is the name of the namespace.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The maximum length of an alternative name of an interface on Linux; of a name it is 15.
const MAX_INTERFACE: usize = 127;

/// A namespace and its labels, which always include its own name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    name: NamespaceName,
    labels: Labels,
}

/// A namespace whose name label has the name of another namespace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "namespace {name} has the label {NAMESPACE_NAME_LABEL}={}: expected no such label, it is set \
     to the namespace's name",
    quote(value)
)]
pub struct NamespaceLabelError {
    /// The namespace.
    pub name: NamespaceName,
    /// The conflicting value.
    pub value: String,
}

impl Namespace {
    /// Builds a namespace and sets its name label.
    ///
    /// # Errors
    /// When the labels include a name label with another value.
    pub fn new(name: NamespaceName, mut labels: Labels) -> Result<Self, NamespaceLabelError> {
        match labels.get(NAMESPACE_NAME_LABEL) {
            Some(value) if value != name.as_str() => {
                let value = value.to_owned();
                return Err(NamespaceLabelError { name, value });
            }
            _ => {}
        }
        labels.set_checked(NAMESPACE_NAME_LABEL, name.as_str());
        Ok(Self { name, labels })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &NamespaceName {
        &self.name
    }

    /// Its labels, including the name label.
    #[must_use]
    pub fn labels(&self) -> &Labels {
        &self.labels
    }
}

/// A port that a workload declares by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedPort {
    /// The name; name and protocol together are unique within a workload.
    pub name: PortName,
    /// The protocol; always one that has ports.
    pub protocol: Protocol,
    /// The port number, never 0.
    pub port: u16,
}

/// A pod, container, service unit or VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Its full name.
    pub id: WorkloadId,
    /// Its labels.
    pub labels: Labels,
    /// The service account it runs as.
    pub service_account: ServiceAccountName,
    /// Its addresses, in the order given.
    pub addresses: Vec<IpAddr>,
    /// The ports it declares by name.
    pub ports: Vec<NamedPort>,
    /// The host-side interface, if the workload runs on this node.
    pub interface: Option<String>,
    /// How recent its claims to addresses are, if its source says so.
    pub recency: Option<Recency>,
}

impl Workload {
    /// True if the workload is a local endpoint: it has an interface on this node.
    #[must_use]
    pub fn is_endpoint(&self) -> bool {
        self.interface.is_some()
    }

    /// The same workload, with claims to addresses that give it none unless this node confirms them.
    #[must_use]
    pub fn lapsed(&self) -> Self {
        let recency = self.recency.clone().map(|it| Recency {
            has_lapsed: true,
            ..it
        });
        Self {
            recency,
            ..self.clone()
        }
    }

    /// True if nothing but an object of an API says that it has its addresses.
    #[must_use]
    pub fn is_claim(&self) -> bool {
        self.recency.is_some() && !self.is_endpoint()
    }
}

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeEntry {
    /// Its name.
    pub name: NodeName,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// True for the node this agent runs on.
    pub local: bool,
}

/// An invalid interface name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} is not an interface name: expected 1 to 127 bytes without '/', ':', spaces or control \
     characters, and not \".\" or \"..\"", quote(.0)
)]
pub struct InterfaceNameError(pub String);

/// Checks the name of a network interface like the kernel does.
///
/// # Errors
/// When the kernel would refuse the name.
pub fn check_interface_name(name: &str) -> Result<(), InterfaceNameError> {
    let bad_character =
        |c: char| matches!(c, '/' | ':') || c.is_whitespace() || super::quote::is_deceptive(c);
    let good = (1..=MAX_INTERFACE).contains(&name.len())
        && !matches!(name, "." | "..")
        && !name.contains(bad_character);
    if good {
        Ok(())
    } else {
        Err(InterfaceNameError(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_a_label_with_its_name() {
        let name = NamespaceName::new("shop").unwrap();
        let namespace = Namespace::new(name.clone(), Labels::new()).unwrap();
        assert_eq!(namespace.labels().get(NAMESPACE_NAME_LABEL), Some("shop"));

        let same = Labels::from_pairs([(NAMESPACE_NAME_LABEL, "shop")]).unwrap();
        assert!(Namespace::new(name.clone(), same).is_ok());

        let other = Labels::from_pairs([(NAMESPACE_NAME_LABEL, "lab")]).unwrap();
        assert_eq!(
            Namespace::new(name, other).unwrap_err().to_string(),
            "namespace shop has the label kubernetes.io/metadata.name=\"lab\": expected no such \
             label, it is set to the namespace's name"
        );
    }

    #[test]
    fn interface_names_are_checked_like_the_kernel_does() {
        let longest = "a".repeat(127);
        for good in [
            "lo",
            "veth-orders",
            "eth0.1",
            "an-alternative-name-of-a-link",
            &longest,
        ] {
            assert!(check_interface_name(good).is_ok(), "{good}");
        }
        assert!(check_interface_name(&"a".repeat(128)).is_err());
        for bad in ["", ".", "..", "a/b", "a b", "a:b", "a\0", "a\u{202e}"] {
            assert!(check_interface_name(bad).is_err(), "{bad:?}");
        }
    }
}
