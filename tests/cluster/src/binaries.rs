//! The programs of a cluster, built from Go modules into a cache.
//!
//! Each folder next to this crate's sources has a `go.mod` that names the programs as tools and pins
//! every module that they need; `go.sum` has their hashes. A build is kept below the XDG cache
//! folder under a key made from these two files and the flags, and is never built twice. Nothing
//! but the Go module proxy is used.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::home::xdg;
use crate::images;

/// Folders with the programs of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Programs {
    /// etcd, the parts of Kubernetes, kubectl, agnhost.
    pub kubernetes: PathBuf,
    /// containerd, its shim, ctr.
    pub containerd: PathBuf,
    /// CNI plugins.
    pub cni: PathBuf,
    /// Image archives.
    pub images: PathBuf,
}

impl Programs {
    /// The image archives that every node gets.
    pub fn images(&self) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(&self.images).context("reading the folder of images")?;
        let paths: Result<Vec<_>, _> = entries.map(|entry| entry.map(|e| e.path())).collect();
        let mut paths = paths?;
        paths.sort();
        Ok(paths)
    }
}

/// One Go module of ours.
struct Module {
    name: &'static str,
    /// Flags in addition to [`FLAGS`].
    flags: &'static [&'static str],
    /// A program whose name is not that of its folder: what `go` calls it, and what we call it.
    renamed: Option<(&'static str, &'static str)>,
}

const FLAGS: [&str; 3] = ["-mod=readonly", "-trimpath", "-buildvcs=false"];
const KUBERNETES: Module = Module {
    name: "kubernetes",
    flags: &[],
    renamed: Some(("server", "etcd")),
};
const CONTAINERD: Module = Module {
    name: "containerd",
    flags: &["-tags=no_btrfs,no_devmapper,no_zfs"],
    renamed: None,
};
const CNI: Module = Module {
    name: "cni",
    flags: &[],
    renamed: None,
};
const HELM: Module = Module {
    name: "helm",
    flags: &[],
    renamed: None,
};

/// The programs, built now if they were not before: 15 to 20 minutes and 7 GB of Go's caches on two
/// cores the first time.
pub fn ensure_built() -> Result<Programs> {
    let (cache, _lock) = locked_cache()?;
    let kubernetes = KUBERNETES.ensure_built(&cache)?;
    let containerd = CONTAINERD.ensure_built(&cache)?;
    let cni = CNI.ensure_built(&cache)?;
    let built_from = kubernetes.as_os_str().as_encoded_bytes();
    let key = key(&[images::PAUSE_SOURCE.as_bytes(), built_from]);
    let images = in_cache(&cache, "images", &key, |new| images::make(new, &kubernetes))?;
    Ok(Programs {
        kubernetes,
        containerd,
        cni,
        images,
    })
}

/// The path of Helm, which no cluster needs, built now if it was not before.
pub fn ensure_helm() -> Result<PathBuf> {
    let (cache, _lock) = locked_cache()?;
    Ok(HELM.ensure_built(&cache)?.join("helm"))
}

/// The cache, in which nothing else builds as long as the file is held.
fn locked_cache() -> Result<(PathBuf, File)> {
    let cache = xdg("XDG_CACHE_HOME", ".cache")?.join("ringfence/cluster");
    fs::create_dir_all(&cache).with_context(|| format!("creating {}", cache.display()))?;
    let lock = File::create(cache.join(".lock"))?;
    lock.lock().context("locking the cache of programs")?;
    Ok((cache, lock))
}

impl Module {
    fn folder(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(self.name)
    }

    fn ensure_built(&self, cache: &Path) -> Result<PathBuf> {
        let folder = self.folder();
        let read = |file: &str| {
            let path = folder.join(file);
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
        };
        let (modules, sums) = (read("go.mod")?, read("go.sum")?);
        let flags = self.flags(&modules)?;
        let key = key(&[
            modules.as_bytes(),
            sums.as_bytes(),
            flags.join(" ").as_bytes(),
        ]);
        in_cache(cache, self.name, &key, |new| self.build(&flags, new))
    }

    fn flags(&self, modules: &str) -> Result<Vec<String>> {
        let mut flags: Vec<String> = FLAGS.iter().chain(self.flags).map(|&f| f.into()).collect();
        let mut linker = "-s -w".to_owned();
        if let Some(version) = required(modules, "k8s.io/kubernetes") {
            // Clients compare versions; the sources have a placeholder.
            let package = "k8s.io/component-base/version";
            let mut parts = version.trim_start_matches('v').split('.');
            let (major, minor) = (parts.next(), parts.next());
            let (Some(major), Some(minor)) = (major, minor) else {
                bail!("{version} is not a version of Kubernetes");
            };
            linker.push_str(&format!(
                " -X {package}.gitVersion={version} -X {package}.gitMajor={major} \
                 -X {package}.gitMinor={minor}"
            ));
        }
        flags.push(format!("-ldflags={linker}"));
        Ok(flags)
    }

    fn build(&self, flags: &[String], into: &Path) -> Result<()> {
        eprintln!("building {} from its Go modules, once", self.name);
        let mut output = OsString::from("-o=");
        output.push(into);
        // `go` takes it for a folder only with a slash.
        output.push("/");
        let status = Command::new("nice")
            .args(["-n", "10", "go", "build"])
            .args(flags)
            .arg(output)
            .arg("tool")
            .current_dir(self.folder())
            // Static programs, which run in an image without anything else.
            .env("CGO_ENABLED", "0")
            .env("GOFLAGS", "")
            .env("GOWORK", "off")
            .status()
            .context("starting go: install Go 1.26 or later from https://go.dev/dl")?;
        ensure!(
            status.success(),
            "`go build` of {} failed; see above",
            self.name
        );
        if let Some((from, to)) = self.renamed {
            fs::rename(into.join(from), into.join(to)).context("renaming a built program")?;
        }
        Ok(())
    }
}

/// The folder `NAME-KEY` of the cache, made by `make` if it is not there. It appears whole or not
/// at all.
fn in_cache(
    cache: &Path,
    name: &str,
    key: &str,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let place = cache.join(format!("{name}-{key}"));
    if place.is_dir() {
        return Ok(place);
    }
    let new = cache.join(format!("{name}.new"));
    if new.exists() {
        fs::remove_dir_all(&new).context("removing an unfinished build")?;
    }
    fs::create_dir(&new)?;
    make(&new)?;
    fs::rename(&new, &place).with_context(|| format!("creating {}", place.display()))?;
    Ok(place)
}

fn key(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(Sha256::digest(part));
    }
    let digest = hash.finalize();
    digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The version of `module` that a `go.mod` requires.
fn required<'a>(modules: &'a str, module: &str) -> Option<&'a str> {
    let lines = modules
        .lines()
        .map(|line| line.trim().trim_start_matches("require "));
    lines.filter(|line| !line.contains("=>")).find_map(|line| {
        let version = line.strip_prefix(module)?.strip_prefix(' ')?;
        version.split_whitespace().next()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_report_the_version_that_is_pinned() -> Result<()> {
        let modules = fs::read_to_string(KUBERNETES.folder().join("go.mod"))?;
        let version = required(&modules, "k8s.io/kubernetes").context("not required")?;
        let flags = KUBERNETES.flags(&modules)?.join(" ");
        assert!(
            flags.contains(&format!("version.gitVersion={version} ")),
            "{flags}"
        );
        assert!(flags.contains("version.gitMajor=1 "), "{flags}");
        assert!(!CNI.flags("module cni")?.join(" ").contains("version"));
        Ok(())
    }

    #[test]
    fn a_key_depends_on_every_part() {
        let all = [key(&[b"a", b"b"]), key(&[b"ab", b""]), key(&[b"a", b"c"])];
        assert_ne!(all[0], all[1]);
        assert_ne!(all[0], all[2]);
        assert_eq!(key(&[b"a", b"b"]), all[0]);
    }

    #[test]
    fn the_cache_keeps_what_was_made_and_nothing_unfinished() -> Result<()> {
        let cache = tempfile::tempdir()?;
        let failing = |folder: &Path| {
            fs::write(folder.join("half"), "x")?;
            bail!("on purpose")
        };
        assert!(in_cache(cache.path(), "m", "1", failing).is_err());
        let made = in_cache(cache.path(), "m", "1", |f| {
            Ok(fs::write(f.join("whole"), "x")?)
        })?;
        assert!(made.join("whole").exists() && !made.join("half").exists());
        let again = in_cache(cache.path(), "m", "1", |_| bail!("made twice"))?;
        assert_eq!(again, made);
        Ok(())
    }
}
