//! Modes of namespaces: as configured and as their labels say, unless `ringfence mode set` has changed them.
//!
//! What results is decided in [`super::mode_decision`], and what labels say in [`super::mode_labels`].
//! Modes set at run time are stored in `<state-dir>/modes.json` and survive restarts. Invariant: a
//! mode that cannot be stored is set nevertheless, because a lockdown must not depend on the disk; it is
//! known that it will not survive a restart, and storing it is tried again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use ringfence_common::mode::Mode;

use super::{
    durable_write,
    mode_decision::{Said, decide},
    mode_labels::{LabelModes, OfLabels},
};
use crate::{
    config::{Config, MODE_LABEL, ModeLabels},
    model::{ModeName, NamespaceName},
    policy,
    server::view::ModeSource,
};

/// The most warnings about modes that are listed one by one.
const MOST: usize = 100;

/// The configured modes, those that labels say, and those set at run time.
#[derive(Debug, Clone)]
pub(super) struct Modes {
    pub(super) default: ModeName,
    configured: BTreeMap<NamespaceName, ModeName>,
    pub(super) labels: LabelModes,
    set: BTreeMap<NamespaceName, ModeName>,
    /// What the file has of these.
    stored: BTreeMap<NamespaceName, ModeName>,
    file: PathBuf,
}

/// The file that stores modes set at run time.
pub(super) fn file(config: &Config) -> PathBuf {
    config.state_dir.join("modes.json")
}

impl Modes {
    /// Reads the modes that were set earlier.
    pub(super) fn load(config: &Config) -> io::Result<Self> {
        let file = file(config);
        let stored = read(&file)?;
        Ok(Self {
            default: config.modes.default,
            configured: config.modes.namespaces.clone(),
            labels: LabelModes::load(config),
            set: stored.clone(),
            stored,
            file,
        })
    }

    /// The mode of a namespace, and what it comes from.
    pub(super) fn of(&self, namespace: &NamespaceName) -> (ModeName, ModeSource) {
        decide(&self.said(namespace), self.labels.meaning)
    }

    fn said(&self, namespace: &NamespaceName) -> Said {
        let OfLabels { label, floor } = self.labels.of(namespace);
        Said {
            default: self.default,
            by_name: self.configured.get(namespace).copied(),
            floor,
            label,
            here: self.set.get(namespace).copied(),
        }
    }

    /// Sets a namespace's mode on this node, or `None` to have it no longer set. Call [`Self::store`] as well.
    pub(super) fn set(&mut self, namespace: NamespaceName, mode: Option<ModeName>) {
        match mode {
            Some(mode) => _ = self.set.insert(namespace, mode),
            None => _ = self.set.remove(&namespace),
        }
    }

    /// Modes of this node below what the cluster's administrators say, and labels without effect.
    pub(super) fn warnings(&self) -> Vec<String> {
        let names: BTreeSet<&NamespaceName> =
            self.set.keys().chain(self.labels.namespaces()).collect();
        let mut warnings: Vec<String> = names
            .into_iter()
            .filter_map(|it| self.warning(it))
            .collect();
        let left_out = warnings.len().saturating_sub(MOST);
        if left_out > 0 {
            warnings.truncate(MOST);
            warnings.push(format!(
                "{left_out} more warnings about modes are not shown"
            ));
        }
        warnings
    }

    fn warning(&self, namespace: &NamespaceName) -> Option<String> {
        let said = self.said(namespace);
        let (shared, source) = decide(&Said { here: None, ..said }, self.labels.meaning);
        let origin = match source {
            ModeSource::Label => "its label",
            ModeSource::Floor => "its floor",
            ModeSource::Config | ModeSource::Set => "the configuration",
        };
        if let Some(here) = said.here {
            // Below the configuration it may be: that is what the command is for.
            let is_of_cluster = matches!(source, ModeSource::Label | ModeSource::Floor);
            return (is_of_cluster && here < shared).then(|| {
                format!(
                    "namespace {namespace}: mode {here} was set on this node, and {origin} says {shared}; \
                     `ringfence mode unset {namespace}` makes that hold"
                )
            });
        }
        let label = said.label.filter(|label| *label < shared)?;
        let why = match self.labels.meaning {
            ModeLabels::Raise => "labels only raise modes here",
            ModeLabels::Set | ModeLabels::Off => "labels do not lower that",
        };
        Some(format!(
            "namespace {namespace}: label {MODE_LABEL}={label} has no effect: {origin} says {shared}, and {why}"
        ))
    }

    /// Stores the modes that are set and not stored yet.
    ///
    /// # Errors
    /// When they cannot be written; they stay set.
    pub(super) fn store(&mut self) -> io::Result<()> {
        if self.set != self.stored {
            durable_write::replace(&self.file, &render(&self.set)?)?;
            self.stored.clone_from(&self.set);
        }
        Ok(())
    }

    /// Whether a restart would change the mode of a namespace.
    pub(super) fn is_unstored(&self, namespace: &NamespaceName) -> bool {
        self.set.get(namespace) != self.stored.get(namespace)
    }

    /// What users are told about namespaces whose mode a restart would change; empty without any.
    pub(super) fn unstored(&self) -> Vec<String> {
        let names: BTreeSet<&NamespaceName> = self.set.keys().chain(self.stored.keys()).collect();
        let names = names.into_iter().filter(|name| self.is_unstored(name));
        names.map(|name| self.unstored_text(name)).collect()
    }

    /// The same about one namespace.
    pub(super) fn unstored_text(&self, namespace: &NamespaceName) -> String {
        let mode = self.of(namespace).0;
        let file = self.file.display();
        if !self.set.contains_key(namespace) {
            return format!(
                "after a restart of the agent, namespace {namespace} has the mode again that was unset: {file} \
                 cannot be written; free space there, the agent tries again"
            );
        }
        format!(
            "mode {mode} of namespace {namespace} will not survive a restart of the agent: {file} cannot \
             be written; free space there, the agent tries again"
        )
    }

    /// The modes as the policy compiler takes them.
    pub(super) fn for_policy(&self) -> policy::Modes {
        let all = self.configured.keys().chain(self.set.keys());
        let all = all.chain(self.labels.namespaces());
        policy::Modes {
            default: kernel_mode(self.default),
            namespaces: all
                .map(|name| (name.clone(), kernel_mode(self.of(name).0)))
                .collect(),
        }
    }
}

/// The datapath's value for a mode.
pub(super) const fn kernel_mode(mode: ModeName) -> Mode {
    match mode {
        ModeName::Observe => Mode::Observe,
        ModeName::Enforce => Mode::Enforce,
        ModeName::Lockdown => Mode::Lockdown,
    }
}

fn read(file: &Path) -> io::Result<BTreeMap<NamespaceName, ModeName>> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error),
    };
    let raw: BTreeMap<String, ModeName> = serde_json::from_str(&text)?;
    raw.into_iter()
        .map(|(name, mode)| Ok((NamespaceName::new(&name).map_err(io::Error::other)?, mode)))
        .collect()
}

fn render(set: &BTreeMap<NamespaceName, ModeName>) -> io::Result<Vec<u8>> {
    let raw: BTreeMap<&str, ModeName> = set.iter().map(|(n, mode)| (n.as_str(), *mode)).collect();
    Ok(serde_json::to_vec_pretty(&raw)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::{
        config::{self, Kubernetes, ModeFloor},
        model::{Labels, Namespace},
        ordmap::Map,
    };

    fn modes(dir: &Path) -> Modes {
        let file = dir.join("modes.json");
        let stored = read(&file).unwrap();
        Modes {
            default: ModeName::Observe,
            configured: BTreeMap::new(),
            labels: LabelModes::default(),
            set: stored.clone(),
            stored,
            file,
        }
    }

    #[test]
    fn a_mode_that_cannot_be_stored_is_set_and_stored_later() {
        let dir = tempfile::tempdir().unwrap();
        let shop = NamespaceName::new("shop").unwrap();
        let full = dir.path().join("modes.new");
        symlink("/dev/full", &full).unwrap();
        let mut subject = modes(dir.path());
        subject.set(shop.clone(), Some(ModeName::Lockdown));
        assert!(subject.store().is_err());
        assert_eq!(subject.of(&shop), (ModeName::Lockdown, ModeSource::Set));
        let lockdown = subject.for_policy().namespaces[&shop];
        assert_eq!(lockdown, Mode::Lockdown);
        assert!(subject.is_unstored(&shop));
        assert!(subject.unstored()[0].contains("lockdown of namespace shop will not survive"));
        assert_eq!(
            modes(dir.path()).of(&shop),
            (ModeName::Observe, ModeSource::Config)
        );
        // The failure removed what was in the way.
        subject.store().unwrap();
        assert!(!subject.is_unstored(&shop) && subject.unstored().is_empty());
        assert_eq!(
            modes(dir.path()).of(&shop),
            (ModeName::Lockdown, ModeSource::Set)
        );
    }

    #[test]
    fn a_mode_that_is_unset_is_what_it_was_and_stays_so() {
        let dir = tempfile::tempdir().unwrap();
        let shop = NamespaceName::new("shop").unwrap();
        let mut subject = modes(dir.path());
        subject.set(shop.clone(), Some(ModeName::Enforce));
        subject.store().unwrap();
        subject.set(shop.clone(), None);
        assert_eq!(subject.of(&shop), (ModeName::Observe, ModeSource::Config));
        assert!(subject.is_unstored(&shop));
        assert!(subject.unstored()[0].contains("namespace shop has the mode again that was unset"));
        subject.store().unwrap();
        assert_eq!(subject.unstored(), [""; 0]);
        assert_eq!(
            modes(dir.path()).of(&shop),
            (ModeName::Observe, ModeSource::Config)
        );
    }

    /// Modes with a floor for `pay` and labels for `shop` and `web`.
    fn with_labels(dir: &Path, meaning: ModeLabels) -> Modes {
        let config = Config {
            state_dir: dir.to_owned(),
            kubernetes: Some(Kubernetes {
                pod_ranges: crate::source::kubernetes_api::PodRanges::Off,
                kubeconfig: None,
                node_name: None,
                mode_labels: meaning,
                mode_floors: vec![ModeFloor {
                    mode: ModeName::Enforce,
                    namespaces: [NamespaceName::new("pay").unwrap()].into(),
                    selector: None,
                }],
            }),
            modes: config::Modes {
                default: ModeName::Enforce,
                ..config::Modes::default()
            },
            ..Config::default()
        };
        let mut namespaces = Map::new();
        for (name, mode) in [("shop", "lockdown"), ("web", "observe"), ("pay", "observe")] {
            let name = NamespaceName::new(name).unwrap();
            let labels = Labels::from_pairs([(MODE_LABEL, mode)]).unwrap();
            let namespace = Namespace::new(name.clone(), labels).unwrap();
            namespaces.insert(name, namespace);
        }
        let mut modes = Modes::load(&config).unwrap();
        modes.labels.follow(&namespaces, &Map::new(), true);
        modes
    }

    #[test]
    fn labels_and_floors_reach_the_kernel_and_the_operator() {
        let dir = tempfile::tempdir().unwrap();
        for (meaning, web) in [
            (ModeLabels::Raise, Mode::Enforce),
            (ModeLabels::Set, Mode::Observe),
        ] {
            let modes = with_labels(dir.path(), meaning);
            let of = |name: &str| modes.for_policy().of(&NamespaceName::new(name).unwrap());
            let found = ["shop", "web", "pay", "other"].map(of);
            assert_eq!(found, [Mode::Lockdown, web, Mode::Enforce, Mode::Enforce]);
            let warnings = modes.warnings().join("\n");
            let is_raising = meaning == ModeLabels::Raise;
            let why = "namespace web: label ringfence.dev/mode=observe has no effect: the configuration says \
                       enforce, and labels only raise modes here";
            assert_eq!(warnings.contains(why), is_raising, "{warnings}");
            assert!(
                warnings.contains("namespace pay: label ringfence.dev/mode=observe has no effect")
            );
            assert!(!warnings.contains("shop"), "{warnings}");
        }
    }

    #[test]
    fn a_mode_set_here_below_a_label_holds_and_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let mut modes = with_labels(dir.path(), ModeLabels::Raise);
        let [shop, other] = ["shop", "other"].map(|it| NamespaceName::new(it).unwrap());
        modes.set(shop.clone(), Some(ModeName::Enforce));
        modes.set(other.clone(), Some(ModeName::Observe));
        assert_eq!(modes.for_policy().of(&shop), Mode::Enforce);
        assert_eq!(modes.for_policy().of(&other), Mode::Observe);
        let warnings = modes.warnings();
        let said = "namespace shop: mode enforce was set on this node, and its label says lockdown; \
                    `ringfence mode unset shop` makes that hold";
        assert!(warnings.contains(&said.to_owned()), "{warnings:?}");
        assert!(
            !warnings.iter().any(|it| it.contains("other")),
            "{warnings:?}"
        );
        modes.set(shop.clone(), None);
        assert_eq!(modes.for_policy().of(&shop), Mode::Lockdown);
        assert!(!modes.warnings().contains(&said.to_owned()));
    }
}
