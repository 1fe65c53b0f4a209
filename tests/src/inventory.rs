//! Renders inventory files: the agent's view of a test's topology.
//!
//! The builder writes exactly what it is given, in order; it neither validates nor deduplicates, so
//! that tests can also give the agent invalid input.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use crate::topology::Workload;

/// A workload's attributes in the inventory besides its name and addresses.
#[derive(Clone, Debug, Default)]
pub struct Attributes {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Service account; `None` omits the key.
    pub service_account: Option<String>,
    /// Named ports: name to `tcp/8080`.
    pub ports: BTreeMap<String, String>,
}

impl Attributes {
    /// Attributes with only labels.
    #[must_use]
    pub fn labels(labels: &[(&str, &str)]) -> Self {
        Self {
            labels: owned(labels),
            ..Self::default()
        }
    }

    /// Sets the service account.
    #[must_use]
    pub fn service_account(mut self, name: &str) -> Self {
        self.service_account = Some(name.to_owned());
        self
    }

    /// Adds a named port, e.g. `port("http", "tcp/8080")`.
    #[must_use]
    pub fn port(mut self, name: &str, port: &str) -> Self {
        self.ports.insert(name.to_owned(), port.to_owned());
        self
    }
}

/// Builds the TOML text of an inventory.
#[derive(Clone, Debug)]
pub struct InventoryBuilder {
    text: String,
}

impl InventoryBuilder {
    /// An inventory that contains the local node.
    #[must_use]
    pub fn new(node: &str, addresses: &[IpAddr]) -> Self {
        Self::empty().entry_node(node, addresses, true)
    }

    /// An empty inventory: for a second file in addition to the one with the local node.
    #[must_use]
    pub fn empty() -> Self {
        let text = String::new();
        Self { text }
    }

    /// Adds another node.
    #[must_use]
    pub fn remote_node(self, name: &str, addresses: &[IpAddr]) -> Self {
        self.entry_node(name, addresses, false)
    }

    /// Adds a namespace.
    #[must_use]
    pub fn namespace(mut self, name: &str, labels: &[(&str, &str)]) -> Self {
        self.line(format_args!("[[namespace]]\nname = {}", quoted(name)));
        self.line(format_args!("labels = {}\n", table(&owned(labels))));
        self
    }

    /// Adds a workload of this node: an endpoint on its interface.
    #[must_use]
    pub fn local(self, workload: &Workload, attributes: &Attributes) -> Self {
        let Workload {
            namespace, name, ..
        } = workload;
        let interface = Some(workload.interface.as_str());
        self.workload(namespace, name, &workload.ips(), interface, attributes)
    }

    /// Adds a workload that is not on this node.
    #[must_use]
    pub fn remote(
        self,
        namespace: &str,
        name: &str,
        addresses: &[IpAddr],
        attributes: &Attributes,
    ) -> Self {
        self.workload(namespace, name, addresses, None, attributes)
    }

    /// The inventory file's text.
    #[must_use]
    pub fn build(&self) -> String {
        self.text.clone()
    }

    fn entry_node(mut self, name: &str, addresses: &[IpAddr], local: bool) -> Self {
        self.line(format_args!("[[node]]\nname = {}", quoted(name)));
        self.line(format_args!("addresses = {}", list(addresses)));
        self.line(format_args!("local = {local}\n"));
        self
    }

    /// Adds a workload; with an interface it is an endpoint of this node.
    #[must_use]
    pub fn workload(
        mut self,
        namespace: &str,
        name: &str,
        addresses: &[IpAddr],
        interface: Option<&str>,
        attributes: &Attributes,
    ) -> Self {
        self.line(format_args!("[[workload]]\nname = {}", quoted(name)));
        self.line(format_args!("namespace = {}", quoted(namespace)));
        self.line(format_args!("labels = {}", table(&attributes.labels)));
        if let Some(account) = &attributes.service_account {
            self.line(format_args!("service-account = {}", quoted(account)));
        }
        self.line(format_args!("addresses = {}", list(addresses)));
        if !attributes.ports.is_empty() {
            self.line(format_args!("ports = {}", table(&attributes.ports)));
        }
        if let Some(interface) = interface {
            self.line(format_args!("interface = {}", quoted(interface)));
        }
        self.text.push('\n');
        self
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{line}");
    }
}

/// A TOML basic string.
#[must_use]
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for char in text.chars() {
        match char {
            '"' | '\\' => out.extend(['\\', char]),
            _ if char.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(char));
            }
            _ => out.push(char),
        }
    }
    out.push('"');
    out
}

fn list(addresses: &[IpAddr]) -> String {
    let items: Vec<_> = addresses.iter().map(|ip| format!("\"{ip}\"")).collect();
    format!("[{}]", items.join(", "))
}

fn table(entries: &BTreeMap<String, String>) -> String {
    let items: Vec<_> = entries
        .iter()
        .map(|(key, value)| format!("{} = {}", quoted(key), quoted(value)))
        .collect();
    format!("{{ {} }}", items.join(", "))
}

fn owned(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let own = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
    pairs.iter().map(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_every_part() {
        let node: IpAddr = "10.0.0.1".parse().unwrap();
        let ip: IpAddr = "fd00::3".parse().unwrap();
        let attributes = Attributes::labels(&[("app", "a\"b")])
            .service_account("orders")
            .port("http", "tcp/80");
        let text = InventoryBuilder::new("n", &[node])
            .namespace("shop", &[("env", "prod")])
            .remote("shop", "orders-1", &[ip], &attributes)
            .build();
        let expected = r#"[[node]]
name = "n"
addresses = ["10.0.0.1"]
local = true

[[namespace]]
name = "shop"
labels = { "env" = "prod" }

[[workload]]
name = "orders-1"
namespace = "shop"
labels = { "app" = "a\"b" }
service-account = "orders"
addresses = ["fd00::3"]
ports = { "http" = "tcp/80" }

"#;
        assert_eq!(text, expected);
    }
}
