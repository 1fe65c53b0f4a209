//! The policies: one that stays, one that is granted and revoked in turn, and a few for each of the
//! youngest namespaces, edited again and again. No two edits have equal rules.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use ringfence::model::{NamespaceName, Policy, PolicySet};
use ringfence::source::policy_toml;

use super::population::{KEPT, Population};

/// Namespaces with policies.
const POLICED: usize = 16;
/// Policies of each of them.
const POLICIES: usize = 4;
/// The most edits between two publishes that all take effect.
pub(super) const AT_ONCE: u64 = (POLICED * POLICIES / 2) as u64;

/// The policies in force and how often they were edited.
pub(super) struct Edits {
    kept: Arc<Policy>,
    grant: Arc<Policy>,
    pub(super) is_granted: bool,
    by_namespace: BTreeMap<(NamespaceName, usize), Arc<Policy>>,
    pub(super) made: u64,
    next: usize,
}

impl Edits {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            kept: policy(&format!(
                "[[policy]]\nname = \"web\"\nnamespace = \"{KEPT}\"\nsubject = \"kind=web\"\n\
                 egress = []\n[[policy.ingress]]\n\
                 from = [{{ pods = \"app=friend\" }}, {{ namespaces = \"\", pods = \"kind=guest\" }}]\n\
                 ports = [\"tcp/443\"]\n"
            ))?,
            grant: grant(false, 0)?,
            is_granted: false,
            by_namespace: BTreeMap::new(),
            made: 0,
            next: 0,
        })
    }

    /// Makes this many edits, the first of which grants or revokes.
    pub(super) fn make(&mut self, count: u64, population: &Population) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        self.is_granted = !self.is_granted;
        self.grant = grant(self.is_granted, self.made)?;
        self.made += 1;
        let youngest: Vec<NamespaceName> = population
            .namespaces()
            .rev()
            .take(POLICED)
            .cloned()
            .collect();
        self.by_namespace
            .retain(|(name, _), _| youngest.contains(name));
        let slots = (0..POLICIES).flat_map(|slot| youngest.iter().map(move |name| (name, slot)));
        let slots: Vec<_> = slots.collect();
        for _ in 1..count {
            let Some((name, slot)) = slots.get(self.next % slots.len().max(1)) else {
                break;
            };
            let edited = self.namespace_policy(name, *slot, population.lives_begun)?;
            self.by_namespace.insert(((*name).clone(), *slot), edited);
            self.next += 1;
            self.made += 1;
        }
        Ok(())
    }

    /// Whether a namespace has a policy.
    pub(super) fn polices(&self, namespace: &NamespaceName) -> bool {
        self.by_namespace.keys().any(|(name, _)| name == namespace)
    }

    /// All policies, and one that opens the endpoint that stays to everyone.
    pub(super) fn opened(&self) -> Result<Arc<PolicySet>> {
        let open = policy(&format!(
            "[[policy]]\nname = \"open\"\nnamespace = \"{KEPT}\"\nsubject = \"kind=web\"\n\
             [[policy.ingress]]\nfrom = [{{ cidr = \"0.0.0.0/0\" }}, {{ cidr = \"::/0\" }}, \
             {{ namespaces = \"\" }}]\n"
        ))?;
        let all = [&self.kept, &self.grant, &open];
        let set = PolicySet::build(all.into_iter().cloned());
        Ok(Arc::new(set.map_err(|errors| anyhow!("{errors:?}"))?))
    }

    /// Goes back to the policies of the beginning.
    pub(super) fn end_all(&mut self) -> Result<()> {
        self.is_granted = false;
        self.grant = grant(false, 0)?;
        self.by_namespace.clear();
        Ok(())
    }

    /// All policies.
    pub(super) fn set(&self) -> Result<Arc<PolicySet>> {
        let all = self.by_namespace.values().chain([&self.kept, &self.grant]);
        let set = PolicySet::build(all.cloned()).map_err(|errors| anyhow!("{errors:?}"))?;
        Ok(Arc::new(set))
    }

    /// A policy that isolates a namespace, with a rule for one life and a port.
    fn namespace_policy(
        &self,
        namespace: &NamespaceName,
        slot: usize,
        lives: u64,
    ) -> Result<Arc<Policy>> {
        let life = lives.saturating_sub(1 + self.made % 500);
        policy(&format!(
            "[[policy]]\nname = \"edited-{slot}\"\nnamespace = \"{namespace}\"\nsubject = \"\"\n\
             [[policy.ingress]]\nfrom = [{{ pods = \"app=a{life}\" }}]\nports = [\"tcp/{}\"]\n",
            1024 + self.made % 60_000
        ))
    }
}

/// The grant, with a rule of its own each time.
fn grant(is_granted: bool, number: u64) -> Result<Arc<Policy>> {
    let peer = if is_granted { "revoked" } else { "none" };
    let port = 1024 + number % 60_000;
    policy(&format!(
        "[[policy]]\nname = \"grant\"\nnamespace = \"{KEPT}\"\nsubject = \"kind=web\"\n\
         [[policy.ingress]]\nfrom = [{{ pods = \"kind={peer}\" }}]\n\
         ports = [\"tcp/443\", \"udp/{port}\", \"udp/{}\"]\n",
        number / 60_000 + 1
    ))
}

fn policy(text: &str) -> Result<Arc<Policy>> {
    let parsed = policy_toml::parse("generated", text);
    let parsed = parsed.map_err(|errors| anyhow!("{errors:?}\n{text}"))?;
    parsed.policies.first().cloned().context("no policy")
}
