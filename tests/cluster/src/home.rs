//! Where clusters are kept: one folder per cluster, below the XDG state folder.
//!
//! A folder holds everything of its cluster: a description, the ledger of processes, certificates,
//! logs, and the nodes' files. The folder is created before anything else of the cluster and
//! removed last, so `down` finds every cluster that was begun.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::addresses::{CLUSTERS, Ranges};
use crate::binaries::Programs;
use crate::ledger::{ProcessId, boot_id};
use crate::spec::{Spec, check_name};

/// The folder of all clusters.
#[derive(Clone, Debug)]
pub struct Home {
    clusters: PathBuf,
}

/// What is written down about a cluster when it is begun.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Description {
    /// What was asked for.
    pub spec: Spec,
    /// Decides the address ranges.
    pub number: u8,
    /// The boot of the machine that the cluster belongs to: later ones have none of its processes.
    pub boot: String,
    /// The process whose end makes the cluster useless, if any.
    pub owner: Option<ProcessId>,
    /// Where the programs are.
    pub programs: Programs,
}

impl Description {
    /// The address ranges.
    #[must_use]
    pub fn ranges(&self) -> Ranges {
        Ranges::new(self.number)
    }
}

impl Home {
    /// `$XDG_STATE_HOME/ringfence/clusters`, by default below `~/.local/state`.
    pub fn default_place() -> Result<Self> {
        let state = xdg("XDG_STATE_HOME", ".local/state")?;
        Ok(Self::at(state.join("ringfence/clusters")))
    }

    /// A given folder, which need not exist.
    #[must_use]
    pub fn at(clusters: PathBuf) -> Self {
        Self { clusters }
    }

    /// The folder of the cluster `name`, whether or not it exists.
    pub fn folder(&self, name: &str) -> Result<Folder> {
        check_name(name)?;
        Ok(Folder {
            path: self.clusters.join(name),
            name: name.to_owned(),
        })
    }

    /// All clusters that were begun, also those that are incomplete.
    pub fn folders(&self) -> Result<Vec<Folder>> {
        let entries = match fs::read_dir(&self.clusters) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).context("reading the folder of clusters"),
        };
        let mut folders = Vec::new();
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if let Ok(folder) = self.folder(&name) {
                folders.push(folder);
            }
        }
        folders.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(folders)
    }

    /// Begins a cluster: its folder, its number and its description. The lock is released with the
    /// returned file.
    pub fn begin(
        &self,
        spec: &Spec,
        owner: Option<ProcessId>,
        programs: Programs,
    ) -> Result<(Folder, Description, File)> {
        spec.validate()?;
        fs::create_dir_all(&self.clusters)
            .with_context(|| format!("creating {}", self.clusters.display()))?;
        let numbers = File::create(self.clusters.join(".lock"))?;
        numbers.lock().context("locking the folder of clusters")?;
        let taken: Vec<u8> = self
            .folders()?
            .iter()
            .filter_map(|folder| Some(folder.description().ok()?.number))
            .collect();
        let Some(number) = lowest_free(&taken) else {
            bail!("{CLUSTERS} clusters exist: end some with `cargo xtask cluster down`");
        };
        let folder = self.folder(&spec.name)?;
        if let Err(error) = fs::create_dir(folder.path()) {
            if error.kind() == std::io::ErrorKind::AlreadyExists {
                bail!(
                    "there is a cluster {0} already: end it with `cargo xtask cluster down {0}`",
                    spec.name
                );
            }
            return Err(error).with_context(|| format!("creating {}", folder.path().display()));
        }
        let lock = folder.lock()?;
        let description = Description {
            spec: spec.clone(),
            number,
            boot: boot_id()?,
            owner,
            programs,
        };
        folder.write("cluster.json", &serde_json::to_vec_pretty(&description)?)?;
        fs::create_dir(folder.logs())?;
        Ok((folder, description, lock))
    }
}

/// The folder of one cluster.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    name: String,
}

impl Folder {
    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The cluster's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether such a cluster was begun and not ended.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.path.is_dir()
    }

    /// The logs of the components.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.path.join("log")
    }

    /// The log of one component of a place (`cp` or a node).
    #[must_use]
    pub fn log(&self, component: &str, place: &str) -> PathBuf {
        self.logs().join(format!("{component}-{place}.log"))
    }

    /// The ledger of processes.
    #[must_use]
    pub fn ledger(&self) -> PathBuf {
        self.path.join("processes.jsonl")
    }

    /// Certificates, keys and kubeconfigs.
    #[must_use]
    pub fn pki(&self) -> PathBuf {
        self.path.join("pki")
    }

    /// The files of a node.
    #[must_use]
    pub fn node(&self, node: &str) -> PathBuf {
        self.path.join(node)
    }

    /// The name of the cluster's cgroup, in every hierarchy. Clusters of one name in different
    /// state folders have different ones.
    #[must_use]
    pub fn cgroup(&self) -> String {
        let digest = Sha256::digest(self.path.as_os_str().as_encoded_bytes());
        let suffix: String = digest.iter().take(4).map(|b| format!("{b:02x}")).collect();
        format!("ringfence-{}-{suffix}", self.name)
    }

    /// What was written down when the cluster was begun.
    pub fn description(&self) -> Result<Description> {
        let path = self.path.join("cluster.json");
        let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is malformed", path.display()))
    }

    /// Excludes others from beginning or ending the cluster for as long as the file is held.
    pub fn lock(&self) -> Result<File> {
        let lock = File::create(self.path.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(TryLockError::WouldBlock) => bail!(
                "another process is bringing the cluster {} up or down: wait for it or end it",
                self.name
            ),
            Err(TryLockError::Error(error)) => Err(error).context("locking a cluster"),
        }
    }

    /// Writes a file whole: a reader sees either nothing or all of it.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> Result<PathBuf> {
        let (path, new) = (self.path.join(name), self.path.join(format!("{name}.new")));
        fs::write(&new, content).with_context(|| format!("writing {}", new.display()))?;
        fs::rename(&new, &path)?;
        Ok(path)
    }
}

/// The folder that the XDG variable names, or its default below the home folder.
pub(crate) fn xdg(variable: &str, default: &str) -> Result<PathBuf> {
    let given = std::env::var_os(variable).map(PathBuf::from);
    if let Some(path) = given.filter(|path| path.is_absolute()) {
        return Ok(path);
    }
    let home: OsString =
        std::env::var_os("HOME").with_context(|| format!("set {variable} or HOME"))?;
    Ok(Path::new(&home).join(default))
}

fn lowest_free(taken: &[u8]) -> Option<u8> {
    (0..CLUSTERS).find(|number| !taken.contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cluster_gets_the_lowest_free_number() -> Result<()> {
        let place = tempfile::tempdir()?;
        let home = Home::at(place.path().join("clusters"));
        let begin = |name: &str| home.begin(&Spec::new(name), None, Programs::default());
        assert_eq!(begin("a")?.1.number, 0);
        assert_eq!(begin("b")?.1.number, 1);
        fs::remove_dir_all(home.folder("a")?.path())?;
        assert_eq!(begin("c")?.1.number, 0);
        let names: Vec<String> = home.folders()?.iter().map(|f| f.name.clone()).collect();
        assert_eq!(names, ["b", "c"]);
        Ok(())
    }

    #[test]
    fn a_cluster_cannot_be_begun_twice_nor_ended_while_it_is_begun() -> Result<()> {
        let place = tempfile::tempdir()?;
        let home = Home::at(place.path().to_owned());
        let begin = || home.begin(&Spec::new("a"), None, Programs::default());
        let (folder, _, lock) = begin()?;
        assert!(begin().is_err());
        assert!(folder.lock().is_err());
        drop(lock);
        folder.lock()?;
        Ok(())
    }

    #[test]
    fn cgroups_of_one_name_in_two_homes_differ() -> Result<()> {
        let one = Home::at("/a".into()).folder("x")?;
        let other = Home::at("/b".into()).folder("x")?;
        assert!(one.cgroup().starts_with("ringfence-x-"));
        assert_ne!(one.cgroup(), other.cgroup());
        Ok(())
    }
}
