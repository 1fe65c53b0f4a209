//! Modes of namespaces: as configured, unless `ringfence mode set` has changed them since.
//!
//! Modes set at run time are stored in `<state-dir>/modes.json` and survive restarts. Invariant: a
//! mode that could not be stored is not put in force.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use ringfence_common::mode::Mode;

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
        Ok(Self {
            default: config.modes.default,
            configured: config.modes.namespaces.clone(),
            set: read(&file)?,
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

    /// Sets a namespace's mode, after writing it to disk.
    pub(super) fn set(&mut self, namespace: NamespaceName, mode: ModeName) -> io::Result<()> {
        let mut set = self.set.clone();
        set.insert(namespace, mode);
        write(&self.file, &set)?;
        self.set = set;
        Ok(())
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

fn write(file: &Path, set: &BTreeMap<NamespaceName, ModeName>) -> io::Result<()> {
    let raw: BTreeMap<&str, ModeName> = set.iter().map(|(n, mode)| (n.as_str(), *mode)).collect();
    let staged = file.with_extension("new");
    fs::write(&staged, serde_json::to_vec_pretty(&raw)?)?;
    fs::rename(&staged, file)
}
