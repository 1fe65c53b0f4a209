//! Parses inventory files: `[[namespace]]`, `[[workload]]` and `[[node]]` tables.
//!
//! Checks each value by itself. Conflicts between values (names, addresses or interfaces claimed
//! twice, unknown namespaces) are left to `Inventory::build`, because the other value may be in
//! another file. The line of each item is kept for these errors.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;
use toml::{Spanned, Value};

use super::document::{Document, SourceError};
use super::limits::MAX_FILE_SIZE;
use super::{inventory_parts, value};
use crate::model::workload::check_interface_name;
use crate::model::{
    Labels, NamedPort, Namespace, NamespaceName, NodeEntry, NodeName, PortName, ServiceAccountName,
    Workload, WorkloadId, WorkloadName,
};

/// Text of the file, copied only if it contains escapes.
#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(transparent)]
struct Word<'a>(#[serde(borrow)] Cow<'a, str>);

type Text<'a> = Spanned<Word<'a>>;
type RawLabels<'a> = BTreeMap<Text<'a>, Text<'a>>;

fn text<'t>(text: &'t Text<'_>) -> &'t str {
    &text.get_ref().0
}

/// An item and the line it is declared on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared<T> {
    /// The item.
    pub item: T,
    /// Its line, counted from 1.
    pub line: u32,
}

/// The content of one inventory file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InventoryFragment {
    /// Its namespaces in file order.
    pub namespaces: Vec<Declared<Namespace>>,
    /// Its workloads in file order.
    pub workloads: Vec<Declared<Arc<Workload>>>,
    /// Its nodes in file order.
    pub nodes: Vec<Declared<NodeEntry>>,
    /// The warnings about the file.
    pub warnings: Vec<SourceError>,
}

impl InventoryFragment {
    /// Appends the next fragment of the same file, which begins after `lines` lines and has no
    /// warnings.
    pub(super) fn append(&mut self, mut next: Self, lines: u32) {
        fn shift_lines<T>(declared: &mut [Declared<T>], lines: u32) {
            for declared in declared {
                declared.line += lines;
            }
        }
        shift_lines(&mut next.namespaces, lines);
        shift_lines(&mut next.workloads, lines);
        shift_lines(&mut next.nodes, lines);
        self.namespaces.append(&mut next.namespaces);
        self.workloads.append(&mut next.workloads);
        self.nodes.append(&mut next.nodes);
    }

    /// Shares the workloads that are equal in an older fragment.
    pub(super) fn reuse_equal(&mut self, older: &Self) {
        let known: HashMap<&WorkloadId, &Arc<Workload>> = older
            .workloads
            .iter()
            .map(|declared| (&declared.item.id, &declared.item))
            .collect();
        for declared in &mut self.workloads {
            if let Some(same) = known.get(&declared.item.id)
                && **same == declared.item
            {
                declared.item = Arc::clone(same);
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile<'a> {
    #[serde(default, borrow)]
    namespace: Vec<Spanned<RawNamespace<'a>>>,
    #[serde(default, borrow)]
    workload: Vec<Spanned<RawWorkload<'a>>>,
    #[serde(default, borrow)]
    node: Vec<Spanned<RawNode<'a>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNamespace<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(default, borrow)]
    labels: RawLabels<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawWorkload<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    namespace: Text<'a>,
    #[serde(default, borrow)]
    labels: RawLabels<'a>,
    #[serde(borrow)]
    service_account: Option<Text<'a>>,
    #[serde(default, borrow)]
    addresses: Vec<Text<'a>>,
    #[serde(default, borrow)]
    ports: BTreeMap<Text<'a>, Spanned<Value>>,
    #[serde(borrow)]
    interface: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNode<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(default, borrow)]
    addresses: Vec<Text<'a>>,
    #[serde(default)]
    local: bool,
}

/// Parses an inventory file; an empty file has no items.
///
/// # Errors
/// All errors of the file.
pub fn parse(file_name: &str, text: &str) -> Result<InventoryFragment, Vec<SourceError>> {
    let mut fragment = match inventory_parts::parse(file_name, text) {
        Some(fragment) => fragment,
        None => parse_sequentially(file_name, text)?,
    };
    intern_common_values(&mut fragment.workloads);
    Ok(fragment)
}

/// Parses a file, or a part of one, as a whole; values that occur repeatedly are not shared yet.
pub(super) fn parse_sequentially(
    file_name: &str,
    text: &str,
) -> Result<InventoryFragment, Vec<SourceError>> {
    let mut document =
        Document::new(file_name, text, MAX_FILE_SIZE).map_err(|error| vec![error])?;
    let raw: RawFile = document.read().map_err(|error| vec![error])?;
    let namespaces = declared(&mut document, raw.namespace, namespace);
    let workloads = declared(&mut document, raw.workload, workload);
    let nodes = declared(&mut document, raw.node, |document, raw| {
        node(document, &raw)
    });
    let warnings = document.close()?;
    Ok(InventoryFragment {
        namespaces,
        workloads,
        nodes,
        warnings,
    })
}

/// Shares values that several workloads have in common: replicas differ in little more than their
/// names.
fn intern_common_values(workloads: &mut [Declared<Arc<Workload>>]) {
    let mut labels = HashSet::new();
    let mut namespaces = HashSet::new();
    let mut accounts = HashSet::new();
    let mut ports = HashSet::new();
    for declared in workloads {
        let Some(workload) = Arc::get_mut(&mut declared.item) else {
            continue;
        };
        intern(&mut labels, &mut workload.labels);
        intern(&mut namespaces, &mut workload.id.namespace);
        intern(&mut accounts, &mut workload.service_account);
        for port in &mut workload.ports {
            intern(&mut ports, &mut port.name);
        }
    }
}

fn intern<T: Clone + Eq + Hash>(known: &mut HashSet<T>, value: &mut T) {
    match known.get(value) {
        Some(same) => value.clone_from(same),
        None => {
            known.insert(value.clone());
        }
    }
}

fn declared<R, T>(
    document: &mut Document<'_>,
    raw: Vec<Spanned<R>>,
    convert: impl Fn(&mut Document<'_>, R) -> Option<T>,
) -> Vec<Declared<T>> {
    let mut items = Vec::with_capacity(raw.len());
    for raw in raw {
        let line = document.line(raw.span().start);
        items.extend(convert(document, raw.into_inner()).map(|item| Declared { item, line }));
    }
    items
}

fn namespace(document: &mut Document<'_>, raw: RawNamespace<'_>) -> Option<Namespace> {
    let name = document.accept(raw.name.span(), NamespaceName::new(text(&raw.name)));
    let labels = labels(document, raw.labels);
    document.accept(raw.name.span(), Namespace::new(name?, labels?))
}

fn labels(document: &mut Document<'_>, raw: RawLabels<'_>) -> Option<Labels> {
    let mut labels = Labels::new();
    let mut good = true;
    for (key, value) in raw {
        let place = match crate::model::labels::check_key(text(&key)) {
            Ok(()) => value.span(),
            Err(_) => key.span(),
        };
        let outcome = labels.insert(text(&key).to_owned(), text(&value).to_owned());
        good &= document.accept(place, outcome).is_some();
    }
    good.then_some(labels)
}

fn workload(document: &mut Document<'_>, raw: RawWorkload<'_>) -> Option<Arc<Workload>> {
    let namespace = &raw.namespace;
    let namespace = document.accept(namespace.span(), NamespaceName::new(text(namespace)));
    let name = document.accept(raw.name.span(), WorkloadName::new(text(&raw.name)));
    let labels = labels(document, raw.labels);
    let service_account = match &raw.service_account {
        Some(name) => document.accept(name.span(), ServiceAccountName::new(text(name))),
        None => Some(ServiceAccountName::default()),
    };
    let addresses = addresses(document, &raw.addresses);
    let ports = ports(document, &raw.ports);
    let interface = raw.interface.map(|name| {
        document.accept(name.span(), check_interface_name(text(&name)));
        text(&name).to_owned()
    });
    Some(Arc::new(Workload {
        id: WorkloadId {
            namespace: namespace?,
            name: name?,
        },
        labels: labels?,
        service_account: service_account?,
        addresses,
        ports,
        interface,
        recency: None,
    }))
}

fn addresses(document: &mut Document<'_>, raw: &[Text<'_>]) -> Vec<IpAddr> {
    raw.iter()
        .filter_map(|address| document.accept(address.span(), value::owned_address(text(address))))
        .collect()
}

fn ports(document: &mut Document<'_>, raw: &BTreeMap<Text<'_>, Spanned<Value>>) -> Vec<NamedPort> {
    let mut ports: Vec<NamedPort> = Vec::new();
    for (name, port) in raw {
        let Some(name) = document.accept(name.span(), PortName::new(text(name))) else {
            continue;
        };
        for port_text in port_texts(document, port) {
            let outcome = value::declared_port(port_text);
            let Some((protocol, number)) = document.accept(port.span(), outcome) else {
                continue;
            };
            if ports
                .iter()
                .any(|other| other.name == name && other.protocol == protocol)
            {
                let message = format!(
                    "port {name} is declared twice for {protocol}: expected one \
                                       port for each name and protocol"
                );
                document.refuse(port.span(), message);
            }
            ports.push(NamedPort {
                name: name.clone(),
                protocol,
                port: number,
            });
        }
    }
    ports
}

/// A port is `"tcp/53"`, or `["tcp/53", "udp/53"]` for one name with two protocols.
fn port_texts<'a>(document: &mut Document<'_>, port: &'a Spanned<Value>) -> Vec<&'a str> {
    let texts: Option<Vec<&str>> = match port.get_ref() {
        Value::String(text) => Some(vec![text]),
        Value::Array(values) if !values.is_empty() => values.iter().map(Value::as_str).collect(),
        _ => None,
    };
    texts.unwrap_or_else(|| {
        let message = "a declared port is text: expected for example \"tcp/8080\" or \
                       [\"tcp/53\", \"udp/53\"]";
        document.refuse(port.span(), message);
        Vec::new()
    })
}

fn node(document: &mut Document<'_>, raw: &RawNode<'_>) -> Option<NodeEntry> {
    let name = document.accept(raw.name.span(), NodeName::new(text(&raw.name)));
    let addresses = addresses(document, &raw.addresses);
    Some(NodeEntry {
        name: name?,
        addresses,
        local: raw.local,
    })
}

#[cfg(test)]
mod tests;
