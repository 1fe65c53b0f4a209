//! Kernels on disk: a package's kernel and modules, unpacked in a cache outside the tree.
//!
//! The cache is `ringfence/kernels` below `$XDG_CACHE_HOME`, or `~/.cache`. apt downloads a package
//! and verifies it against the signed index. A directory of the cache is complete or not there: it is
//! made under another name, which is removed on failure, and renamed. So several processes can do
//! this at the same time. Nothing is installed, and nothing is ever removed from the cache here.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::packages::KernelPackage;
use crate::child;

/// An unpacked kernel.
pub(super) struct Kernel {
    /// The image that is booted.
    pub(super) image: PathBuf,
    /// `lib/modules` of the package, with the lists of `depmod`.
    pub(super) modules: PathBuf,
    /// The release, as `uname -r` prints it.
    release: String,
}

impl Kernel {
    /// The kernel of `package`, downloaded and unpacked if the cache does not have it.
    pub(super) fn of(package: &KernelPackage) -> Result<Self> {
        let cache = cache()?;
        fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
        // In the guest, the path is one of the same file system: without symbolic links.
        let cache = fs::canonicalize(cache)?;
        let place = cache.join(format!("{}_{}", package.name, package.version));
        if !place.is_dir() {
            eprintln!("downloading {} {}", package.name, package.version);
            let making = Making::new(&cache, &package.name)?;
            making.unpack(package)?;
            making.finish(&place)?;
        }
        Self::open(&place)
    }

    fn open(place: &Path) -> Result<Self> {
        let modules = place.join("lib/modules");
        let kernel = Self {
            release: only_entry(&modules)?,
            image: place.join("boot"),
            modules,
        };
        let image = kernel.image.join(format!("vmlinuz-{}", kernel.release));
        ensure!(image.is_file(), "no kernel image {}", image.display());
        Ok(Self { image, ..kernel })
    }

    /// The files of modules and of what they depend on, in the order in which they must be loaded.
    /// What is built into the kernel needs no file.
    pub(super) fn module_files(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let directory = self.modules.join(&self.release);
        let read = |file: &str| {
            let path = directory.join(file);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let (dependencies, builtin) = (read("modules.dep")?, read("modules.builtin")?);
        let files = load_order(&dependencies, &builtin, names)?;
        Ok(files.into_iter().map(|file| directory.join(file)).collect())
    }
}

/// `ringfence/kernels` below the user's cache directory.
fn cache() -> Result<PathBuf> {
    let absolute = |path: PathBuf| path.is_absolute().then_some(path);
    let base = env::var_os("XDG_CACHE_HOME").and_then(|path| absolute(path.into()));
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let base = base.or_else(home);
    let base = base.context("neither XDG_CACHE_HOME nor HOME says where downloads are kept")?;
    Ok(base.join("ringfence/kernels"))
}

/// A directory of the cache that is not complete yet; dropping it removes it.
struct Making {
    directory: PathBuf,
}

impl Making {
    fn new(cache: &Path, name: &str) -> Result<Self> {
        let directory = cache.join(format!(".{name}-{}", process::id()));
        // An earlier process with this id may have been killed before it cleaned up.
        _ = fs::remove_dir_all(&directory);
        fs::create_dir(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(Self { directory })
    }

    fn unpack(&self, package: &KernelPackage) -> Result<()> {
        let mut download = child::command("apt-get");
        download
            .current_dir(&self.directory)
            .args(["download", "--quiet=2"])
            .arg(format!("{}={}", package.name, package.version));
        child::output_of(&mut download)
            .context("the package index may be out of date: run `apt-get update`, and try again")?;
        let archive = self.directory.join(only_entry(&self.directory)?);
        let mut unpack = child::command("dpkg-deb");
        unpack.arg("--extract").arg(&archive).arg(&self.directory);
        child::run(&mut unpack)?;
        fs::remove_file(&archive)?;
        let usr = self.directory.join("usr/lib/modules");
        if usr.is_dir() {
            fs::rename(self.directory.join("usr/lib"), self.directory.join("lib"))?;
        }
        let release = only_entry(&self.directory.join("lib/modules"))
            .context("this package has no kernel; a metapackage only depends on one")?;
        let mut depmod = child::command("depmod");
        depmod.arg("-b").arg(&self.directory).arg(release);
        child::run(depmod.stdout(Stdio::null()))
    }

    /// Puts it in its place, unless another process was faster.
    fn finish(self, place: &Path) -> Result<()> {
        match fs::rename(&self.directory, place) {
            Err(_) if place.is_dir() => Ok(()),
            other => other.with_context(|| format!("cannot make {}", place.display())),
        }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        // After the rename there is nothing.
        _ = fs::remove_dir_all(&self.directory);
    }
}

/// The name of the only entry of a directory.
fn only_entry(directory: &Path) -> Result<String> {
    let entries = fs::read_dir(directory);
    let entries = entries.with_context(|| format!("cannot read {}", directory.display()))?;
    let names: Vec<_> = entries
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<_, _>>()?;
    match names.as_slice() {
        [name] => Ok(name.to_string_lossy().into_owned()),
        _ => anyhow::bail!(
            "{} files in {}, expected 1",
            names.len(),
            directory.display()
        ),
    }
}

/// The files of modules by `modules.dep`, dependencies first, each once.
fn load_order<'a>(dependencies: &'a str, builtin: &str, names: &[&str]) -> Result<Vec<&'a str>> {
    let lines = dependencies.lines().filter_map(|line| line.split_once(':'));
    let lines: BTreeMap<String, (&str, &str)> = lines
        .map(|(file, needs)| (module_name(file), (file, needs)))
        .collect();
    let builtin: BTreeSet<String> = builtin.lines().map(module_name).collect();
    let mut order: Vec<&str> = Vec::new();
    for name in names {
        let Some((file, needs)) = lines.get(*name) else {
            ensure!(
                builtin.contains(*name),
                "this kernel has no module `{name}`, which booting it from this machine's root file system needs"
            );
            continue;
        };
        // The last one named needs none of the others.
        for file in needs.split_whitespace().rev().chain([*file]) {
            if !order.contains(&file) {
                order.push(file);
            }
        }
    }
    Ok(order)
}

/// `9pnet_virtio` of `kernel/net/9p/9pnet_virtio.ko.xz`; hyphens count as underscores.
fn module_name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split('.').next().unwrap_or(name).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str = "\
kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz
kernel/net/9p/9pnet.ko.xz:
kernel/fs/netfs/netfs.ko.xz:
kernel/net/9p/9pnet_virtio.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/drivers/virtio/virtio.ko.xz kernel/drivers/virtio/virtio-ring.ko.xz
kernel/drivers/virtio/virtio-ring.ko.xz:
kernel/drivers/virtio/virtio.ko.xz: kernel/drivers/virtio/virtio-ring.ko.xz
";

    #[test]
    fn modules_are_loaded_once_and_after_what_they_depend_on() {
        let order = load_order(DEPENDENCIES, "", &["9p", "9pnet_virtio", "virtio_ring"]).unwrap();
        let names: Vec<String> = order.into_iter().map(module_name).collect();
        let expected = [
            "netfs",
            "9pnet",
            "9p",
            "virtio_ring",
            "virtio",
            "9pnet_virtio",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_module_is_a_file_or_built_in_or_missing() {
        let builtin = "kernel/drivers/char/virtio_console.ko\n";
        let found = load_order(DEPENDENCIES, builtin, &["virtio_console"]).unwrap();
        assert!(found.is_empty());
        let error = load_order(DEPENDENCIES, builtin, &["9p", "overlay"]).unwrap_err();
        assert!(error.to_string().contains("`overlay`"), "{error}");
    }
}
