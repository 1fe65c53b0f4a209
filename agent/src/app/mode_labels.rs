//! What the labels of namespaces say about their modes, as long as there is anything of the namespace.
//!
//! Invariants: a label with a value that is no mode leaves the last good one; a namespace whose object is gone
//! keeps what its labels said until nothing is in it any more. What is kept is stored in
//! `<state-dir>/label-modes.json` for the next start; a file there that cannot be used is set aside.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::durable_write;
use crate::{
    config::{Config, Kubernetes, MODE_LABEL, ModeFloor, ModeLabels},
    model::{ModeName, Namespace, NamespaceName},
    ordmap::Map,
    source::{SourceError, kubernetes_api::KUBERNETES},
};

/// The most errors about labels that are listed one by one.
const MOST: usize = 100;
/// The most bytes of the stored file.
const LONGEST: u64 = 4 * 1024 * 1024;

/// What the labels of one namespace say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfLabels {
    /// The mode in its label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) label: Option<ModeName>,
    /// The strictest floor that selects its labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) floor: Option<ModeName>,
}

type All = BTreeMap<NamespaceName, OfLabels>;
/// All namespaces, those of them that are not declared, and whether these are all.
type Seen = (Map<NamespaceName, Namespace>, Map<NamespaceName, ()>, bool);

/// What labels say about all namespaces.
#[derive(Debug, Clone, Default)]
pub(super) struct LabelModes {
    pub(super) meaning: ModeLabels,
    floors: Arc<Vec<ModeFloor>>,
    said: Arc<All>,
    errors: Arc<Vec<SourceError>>,
    /// What was looked at last.
    seen: Option<Seen>,
    /// What the file has.
    stored: Arc<All>,
    file: PathBuf,
}

/// The file that stores what labels say.
pub(super) fn file(config: &Config) -> PathBuf {
    config.state_dir.join("label-modes.json")
}

impl LabelModes {
    /// What labels may say with this configuration, and what they said when an agent ran last.
    pub(super) fn load(config: &Config) -> Self {
        let Some(Kubernetes {
            mode_labels,
            mode_floors,
            ..
        }) = &config.kubernetes
        else {
            return Self {
                meaning: ModeLabels::Off,
                ..Self::default()
            };
        };
        let file = file(config);
        let said = Arc::new(read(&file).unwrap_or_else(|error| {
            set_aside(&file, &error);
            All::new()
        }));
        Self {
            meaning: *mode_labels,
            floors: Arc::new(mode_floors.clone()),
            stored: Arc::clone(&said),
            said,
            file,
            ..Self::default()
        }
    }

    /// The mode in a namespace's label, and the strictest of its floors.
    pub(super) fn of(&self, namespace: &NamespaceName) -> OfLabels {
        let said = self.said.get(namespace).copied().unwrap_or_default();
        let named = self.floors.iter();
        let named = named.filter(|it| it.namespaces.contains(namespace));
        let floor = named.map(|it| it.mode).chain(said.floor).max();
        OfLabels { floor, ..said }
    }

    /// The namespaces that a label or a floor says something about.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = &NamespaceName> {
        let named = self.floors.iter().flat_map(|it| &it.namespaces);
        self.said.keys().chain(named)
    }

    /// Takes over the labels of all namespaces. Those that are not declared have no object; what was said of
    /// others is forgotten only if every namespace is known. Returns what is wrong with labels.
    pub(super) fn follow(
        &mut self,
        namespaces: &Map<NamespaceName, Namespace>,
        undeclared: &Map<NamespaceName, ()>,
        are_all_known: bool,
    ) -> Arc<Vec<SourceError>> {
        if self.meaning == ModeLabels::Off && self.floors.is_empty() {
            return Arc::default();
        }
        let is_same = self.seen.as_ref().is_some_and(|(known, gone, all)| {
            known.is_same(namespaces) && gone.is_same(undeclared) && *all == are_all_known
        });
        if is_same {
            return Arc::clone(&self.errors);
        }
        let mut said = if are_all_known {
            All::new()
        } else {
            All::clone(&self.said)
        };
        let mut errors = Vec::new();
        for (name, namespace) in namespaces {
            let before = self.said.get(name).copied().unwrap_or_default();
            let now = if undeclared.contains_key(name) {
                before
            } else {
                self.read(namespace, before, &mut errors)
            };
            said.insert(name.clone(), now);
        }
        said.retain(|_, it| *it != OfLabels::default());
        if said != *self.said {
            self.said = Arc::new(said);
        }
        let left_out = errors.len().saturating_sub(MOST);
        if left_out > 0 {
            errors.truncate(MOST);
            errors.push(error(&format!("{left_out} more labels are no modes")));
        }
        self.errors = Arc::new(errors);
        self.seen = Some((namespaces.clone(), undeclared.clone(), are_all_known));
        Arc::clone(&self.errors)
    }

    /// What the labels of a namespace say.
    fn read(
        &self,
        namespace: &Namespace,
        before: OfLabels,
        errors: &mut Vec<SourceError>,
    ) -> OfLabels {
        let labels = namespace.labels();
        let floors = self.floors.iter().filter(|it| it.selects(labels));
        let floor = floors.map(|it| it.mode).max();
        let text = labels.get(MODE_LABEL);
        let text = text.filter(|_| self.meaning != ModeLabels::Off);
        let label = match text.map(str::parse::<ModeName>) {
            None => None,
            Some(Ok(mode)) => Some(mode),
            Some(Err(wrong)) => {
                let outcome = before.label.map_or_else(
                    || "it says nothing, and had no good value before".to_owned(),
                    |mode| format!("its last good value {mode} holds"),
                );
                let name = namespace.name();
                errors.push(error(&format!(
                    "namespace {name}: label {MODE_LABEL}: {wrong}; {outcome}"
                )));
                before.label
            }
        };
        OfLabels { label, floor }
    }

    /// Stores what labels say, if that is not what the file has.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn store(&mut self) -> io::Result<()> {
        if self.said == self.stored {
            return Ok(());
        }
        let raw: BTreeMap<&str, &OfLabels> =
            self.said.iter().map(|(n, it)| (n.as_str(), it)).collect();
        durable_write::replace(&self.file, &serde_json::to_vec_pretty(&raw)?)?;
        self.stored = Arc::clone(&self.said);
        Ok(())
    }
}

fn error(message: &str) -> SourceError {
    SourceError::whole_file(KUBERNETES.name, message)
}

fn read(file: &Path) -> io::Result<All> {
    let size = match fs::metadata(file) {
        Ok(about) => about.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(All::new()),
        Err(error) => return Err(error),
    };
    if size > LONGEST {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let raw: BTreeMap<String, OfLabels> = serde_json::from_slice(&fs::read(file)?)?;
    raw.into_iter()
        .map(|(name, said)| Ok((NamespaceName::new(&name).map_err(io::Error::other)?, said)))
        .collect()
}

/// Keeps a file that cannot be used, under another name.
fn set_aside(file: &Path, error: &io::Error) {
    let aside = file.with_extension("set-aside");
    let outcome = match fs::rename(file, &aside) {
        Ok(()) => format!("set aside as {}", aside.display()),
        Err(error) => format!("cannot be set aside: {error}"),
    };
    let file = file.display();
    warn!("{file}: what labels said about modes cannot be used: {error}; {outcome}");
}

#[cfg(test)]
mod tests;
