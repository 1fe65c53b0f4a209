//! A generated cluster: namespaces, workloads and policies, the same on every machine.
//!
//! Every size has the same label sets, policies and local endpoints; only the number of replicas
//! differs. The cluster resembles real ones: a few labels shared by many workloads, a template hash
//! that makes each label set unique, policies mostly within a namespace, some across namespaces,
//! few for all.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use ringfence::model::{
    Inventory, Labels, NamedPort, Namespace, NamespaceName, NodeEntry, NodeName, Policy, PolicySet,
    PortName, Protocol, ServiceAccountName, Workload, WorkloadId,
};
use ringfence::policy::LocalEndpoint;
use ringfence::source::policy_toml;

use crate::rng::Rng;

const NAMESPACES: usize = 200;
const LABEL_SETS: usize = 5000;
const POLICIES: usize = 1000;
const CLUSTER_POLICIES: usize = 10;
const ENDPOINTS: usize = 30;
const NODES: u32 = 100;
const APPS: [&str; 12] = [
    "api", "auth", "batch", "cache", "cart", "db", "gateway", "mail", "orders", "payments",
    "search", "web",
];
const TIERS: [&str; 4] = ["frontend", "backend", "data", "job"];
const ENVIRONMENTS: [&str; 3] = ["prod", "staging", "dev"];

/// The inputs of the policy engine.
pub(crate) struct World {
    pub(crate) inventory: Arc<Inventory>,
    pub(crate) policies: Arc<PolicySet>,
    pub(crate) endpoints: Vec<LocalEndpoint>,
}

fn namespace(number: usize) -> String {
    format!("ns-{:03}", number % NAMESPACES)
}

impl World {
    /// Generates a cluster with this number of workloads.
    pub(crate) fn generate(workloads: usize) -> Result<Self> {
        Self::generate_with(workloads, LABEL_SETS)
    }

    /// Generates a cluster with these numbers of workloads and of label sets.
    pub(crate) fn generate_with(workloads: usize, sets: usize) -> Result<Self> {
        let namespaces = (0..NAMESPACES).map(|number| {
            let environment = ENVIRONMENTS.get(number % 7 % 3).copied().unwrap_or("");
            let labels = Labels::from_pairs([
                ("env", environment.to_owned()),
                ("team", format!("team-{}", number % 23)),
            ])?;
            Ok(Namespace::new(
                NamespaceName::new(&namespace(number))?,
                labels,
            )?)
        });
        let workloads = (0..workloads).map(|number| {
            let local = number < sets && number % (sets / ENDPOINTS) == 7;
            workload(number, number % sets, local)
        });
        let nodes = (0..NODES).map(|number| {
            Ok(NodeEntry {
                name: NodeName::new(&format!("node-{number}"))?,
                addresses: vec![IpAddr::V4(Ipv4Addr::from(0xac10_0000 + number))],
                local: number == 0,
            })
        });
        let inventory = Inventory::build(
            namespaces.collect::<Result<_>>()?,
            workloads.collect::<Result<_>>()?,
            nodes.collect::<Result<_>>()?,
        )
        .map_err(|errors| anyhow!("{errors:?}"))?;
        let endpoints = (1..)
            .zip(inventory.workloads.values().filter(|w| w.is_endpoint()))
            .map(|(ifindex, workload)| LocalEndpoint::at(workload.id.clone(), ifindex));
        let policies = (0..POLICIES).map(|number| policy(number, Edit::None));
        let policies = PolicySet::build(policies.collect::<Result<Vec<_>>>()?)
            .map_err(|errors| anyhow!("{errors:?}"))?;
        Ok(Self {
            endpoints: endpoints.collect(),
            inventory: Arc::new(inventory),
            policies: Arc::new(policies),
        })
    }

    /// A policy that selects every workload of a namespace: with a local endpoint in the namespace
    /// if `local`, otherwise without.
    pub(crate) fn policy_to_edit(&self, local: bool) -> Result<usize> {
        let has_endpoint = |number: usize| {
            let name = namespace(number);
            self.endpoints
                .iter()
                .any(|endpoint| endpoint.id.workload().namespace.as_str() == name)
        };
        (CLUSTER_POLICIES..POLICIES)
            .find(|number| number / NAMESPACES == 1 && has_endpoint(*number) == local)
            .context("no such policy")
    }
}

/// A workload of a label set.
pub(crate) fn workload(number: usize, set: usize, local: bool) -> Result<Arc<Workload>> {
    let app = APPS
        .get(set / NAMESPACES % APPS.len())
        .copied()
        .unwrap_or("");
    labelled(number, set, app, local)
}

/// A workload of a label set with another `app` label.
pub(crate) fn labelled(number: usize, set: usize, app: &str, local: bool) -> Result<Arc<Workload>> {
    let tier = TIERS.get(set / 7 % TIERS.len()).copied().unwrap_or("");
    let labels = Labels::from_pairs([
        ("app", app.to_owned()),
        ("tier", tier.to_owned()),
        ("pod-template-hash", format!("{:010x}", set * 7919)),
    ])?;
    let port = |name: &str, port| {
        let (name, protocol) = (PortName::new(name)?, Protocol::Tcp);
        Ok::<_, anyhow::Error>(NamedPort {
            name,
            protocol,
            port,
        })
    };
    let ports = match tier {
        "frontend" | "backend" => vec![port("http", 8080)?, port("metrics", 9090)?],
        "data" => vec![port("db", 5432)?],
        _ => Vec::new(),
    };
    let host = u32::try_from(number)?;
    let account = if set.is_multiple_of(3) {
        app
    } else {
        "default"
    };
    Ok(Arc::new(Workload {
        id: WorkloadId::new(&namespace(set), &format!("{app}-{number:06}"))?,
        labels,
        service_account: ServiceAccountName::new(account)?,
        addresses: vec![
            IpAddr::V4(Ipv4Addr::from(0x0a00_0001 + host)),
            IpAddr::V6(Ipv6Addr::from((0xfd00_u128 << 112) + u128::from(host) + 1)),
        ],
        ports,
        interface: local.then(|| format!("veth{number}")),
        recency: None,
    }))
}

/// The edit of a policy's first rule.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Edit {
    None,
    Port(usize),
    Peer(usize),
    Cidr(usize),
    Key(usize),
}

/// The policy with this number, edited.
pub(crate) fn policy(number: usize, edit: Edit) -> Result<Arc<Policy>> {
    let text = if number < CLUSTER_POLICIES {
        cluster_policy(number)
    } else {
        namespace_policy(number, edit)?
    };
    let fragment =
        policy_toml::parse("generated", &text).map_err(|errors| anyhow!("{errors:?}"))?;
    fragment.policies.first().cloned().context("no policy")
}

fn cluster_policy(number: usize) -> String {
    let head = |name: &str, tier: &str| {
        format!(
            "[[policy]]\nname = \"{name}-{number}\"\nscope = \"cluster\"\ntier = \"{tier}\"\n\
             priority = {}\nsubject = \"\"\n",
            number * 10
        )
    };
    let monitoring =
        "{ namespaces = \"kubernetes.io/metadata.name=ns-001\", pods = \"app=batch\" }";
    let dns = "{ namespaces = \"kubernetes.io/metadata.name=ns-000\", pods = \"app=gateway\" }";
    match number {
        0 => {
            head("dns", "admin")
                + &format!("[[policy.egress]]\nto = [{dns}]\nports = [\"udp/53\", \"tcp/53\"]\n")
        }
        1 => {
            head("metrics", "admin")
                + &format!("[[policy.ingress]]\nfrom = [{monitoring}]\nports = [\"metrics\"]\n")
        }
        2 => {
            head("no-metadata", "admin")
                + "[[policy.egress]]\naction = \"deny\"\nto = [{ cidr = \"169.254.169.254/32\" }]\n"
        }
        3 => {
            head("dev-out", "admin")
                + "subject-namespaces = \"env=prod\"\n[[policy.ingress]]\naction = \"deny\"\n\
               from = [{ namespaces = \"env=dev\" }]\n"
        }
        4 => {
            head("no-telnet", "admin")
                + "[[policy.ingress]]\naction = \"deny\"\nports = [\"tcp/23\", \"tcp/135-139\"]\n"
        }
        _ => {
            head("default", "baseline")
                + &format!(
                    "[[policy.ingress]]\nfrom = [{{ namespaces = \"team=team-{number}\" }}]\n\
                 ports = [\"tcp/{}\"]\n",
                    7000 + number
                )
        }
    }
}

/// Five kinds of policies, one of each in every namespace.
fn namespace_policy(number: usize, edit: Edit) -> Result<String> {
    let mut rng = Rng(number as u64);
    let home = namespace(number);
    let kind = number / NAMESPACES;
    let subject = match kind {
        0 | 1 => String::new(),
        _ => format!("app={}", rng.one(&APPS)),
    };
    let mut text = format!(
        "[[policy]]\nname = \"p{number}\"\nnamespace = \"{home}\"\nsubject = \"{subject}\"\n"
    );
    let (app, other) = (rng.one(&APPS), rng.one(&APPS));
    let (tier, team) = (rng.one(&TIERS), rng.below(23));
    let net = rng.below(250);
    match kind {
        0 => write!(
            text,
            "ingress = []\n[[policy.egress]]\nto = [{{ pods = \"tier={tier}\" }}]\n\
             [[policy.egress]]\nto = [{{ cidr = \"0.0.0.0/0\", except = [\"10.0.0.0/8\", \
             \"192.168.0.0/16\"] }}]\nports = [\"tcp/443\"]\n"
        )?,
        1 => {
            let port = match edit {
                Edit::Port(version) => 9000 + version,
                _ => 8080,
            };
            let app = match edit {
                Edit::Peer(version) => APPS.get(version % APPS.len()).copied().unwrap_or(""),
                _ => app,
            };
            let cidr = match edit {
                Edit::Cidr(version) => version % 250,
                _ => net,
            };
            let key = match edit {
                Edit::Key(version) => format!(",!waits-{version}"),
                _ => String::new(),
            };
            write!(
                text,
                "[[policy.ingress]]\nfrom = [{{ pods = \"app={app}{key}\" }}, \
                 {{ cidr = \"203.0.{cidr}.0/24\", except = [\"203.0.{cidr}.7/32\"] }}]\n\
                 ports = [\"tcp/{port}\", \"http\"]\n"
            )?;
        }
        2 => write!(
            text,
            "[[policy.ingress]]\nfrom = [{{ namespaces = \"team=team-{team}\", \
             pods = \"app={app}\" }}, {{ pods = \"app={other}\" }}]\n\
             ports = [\"tcp/8000-8100\", \"udp/5000-5010\"]\n"
        )?,
        3 => write!(
            text,
            "[[policy.egress]]\nto = [{{ namespaces = \"kubernetes.io/metadata.name={}\", \
             pods = \"app={other}\" }}]\nports = [\"db\", \"tcp/6379\"]\n\
             [[policy.egress]]\nto = [{{ cidr = \"198.51.{net}.0/24\" }}]\n\
             ports = [\"tcp/9000-9010\"]\n",
            namespace(net)
        )?,
        _ => write!(
            text,
            "[[policy.ingress]]\naction = \"deny\"\nfrom = [{{ service-account = \"{other}\" }}]\n\
             [[policy.ingress]]\nfrom = [{{ pods = \"app in ({app},{other})\" }}]\n\
             ports = [\"tcp/3000\"]\n"
        )?,
    }
    Ok(text)
}
