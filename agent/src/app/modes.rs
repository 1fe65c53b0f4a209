//! Modes of namespaces: as configured, unless `ringfence mode set` has changed them since.
//!
//! Modes set at run time are stored in `<state-dir>/modes.json` and survive restarts. Invariant: a
//! mode that cannot be stored is set nevertheless, because a lockdown must not depend on the disk; it is
//! known that it will not survive a restart, and storing it is tried again.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use ringfence_common::mode::Mode;

use super::durable_write;
use crate::{
    config::Config,
    model::{ModeName, NamespaceName},
    policy,
};

/// The configured modes, and those set at run time.
#[derive(Debug, Clone)]
pub(super) struct Modes {
    pub(super) default: ModeName,
    configured: BTreeMap<NamespaceName, ModeName>,
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
            set: stored.clone(),
            stored,
            file,
        })
    }

    /// The mode of a namespace, and whether it was set at run time.
    pub(super) fn of(&self, namespace: &NamespaceName) -> (ModeName, bool) {
        if let Some(mode) = self.set.get(namespace) {
            return (*mode, true);
        }
        (
            self.configured
                .get(namespace)
                .copied()
                .unwrap_or(self.default),
            false,
        )
    }

    /// Sets a namespace's mode. Call [`Self::store`] as well.
    pub(super) fn set(&mut self, namespace: NamespaceName, mode: ModeName) {
        self.set.insert(namespace, mode);
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
        let names = self.set.keys().filter(|name| self.is_unstored(name));
        names.map(|name| self.unstored_text(name)).collect()
    }

    /// The same about one namespace.
    pub(super) fn unstored_text(&self, namespace: &NamespaceName) -> String {
        let mode = self.of(namespace).0;
        let file = self.file.display();
        format!(
            "mode {mode} of namespace {namespace} will not survive a restart of the agent: {file} cannot \
             be written; free space there, the agent tries again"
        )
    }

    /// The modes as the policy compiler takes them.
    pub(super) fn for_policy(&self) -> policy::Modes {
        let all = self.configured.iter().chain(&self.set);
        policy::Modes {
            default: kernel_mode(self.default),
            namespaces: all
                .map(|(name, mode)| (name.clone(), kernel_mode(*mode)))
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

    fn modes(dir: &Path) -> Modes {
        let file = dir.join("modes.json");
        let stored = read(&file).unwrap();
        Modes {
            default: ModeName::Observe,
            configured: BTreeMap::new(),
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
        subject.set(shop.clone(), ModeName::Lockdown);
        assert!(subject.store().is_err());
        assert_eq!(subject.of(&shop), (ModeName::Lockdown, true));
        let lockdown = subject.for_policy().namespaces[&shop];
        assert_eq!(lockdown, Mode::Lockdown);
        assert!(subject.is_unstored(&shop));
        assert!(subject.unstored()[0].contains("lockdown of namespace shop will not survive"));
        assert_eq!(modes(dir.path()).of(&shop), (ModeName::Observe, false));
        // The failure removed what was in the way.
        subject.store().unwrap();
        assert!(!subject.is_unstored(&shop) && subject.unstored().is_empty());
        assert_eq!(modes(dir.path()).of(&shop), (ModeName::Lockdown, true));
    }
}
