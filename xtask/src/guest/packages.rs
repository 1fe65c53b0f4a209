//! Which kernels the package index has, and which of them is meant.
//!
//! A kernel is named by its package (`linux-image-6.1.0-50-amd64`), or by a version and a flavour:
//! `6.1` is the newest 6.1 of the ordinary flavour, `6.1.176` that release, `6.12-rt` the newest
//! 6.12 with PREEMPT_RT. Only signed images of this machine's architecture count; metapackages have
//! no kernel and do not. The index is read by `apt-cache`; nothing here refreshes it.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context as _, Result, bail};

use super::debian_version;
use crate::child;

/// The architecture whose kernels QEMU boots here, in Debian's word.
pub(super) const ARCHITECTURE: &str = "amd64";
const PREFIX: &str = "linux-image-";

/// A package with a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KernelPackage {
    pub(super) name: String,
    /// The newest version of the package in the index: `6.1.192-3`.
    pub(super) version: String,
    flavour: String,
}

impl KernelPackage {
    /// A package of the index, or `None` if it has no kernel for this architecture.
    fn new(name: &str, version: &str) -> Option<Self> {
        let abi = name.strip_prefix(PREFIX)?;
        let abi = abi.strip_suffix(ARCHITECTURE)?.strip_suffix('-')?;
        let (release, flavour) = match abi.rsplit_once('-') {
            Some((release, flavour)) if flavour.starts_with(char::is_alphabetic) => {
                (release, flavour)
            }
            _ => (abi, ""),
        };
        // A metapackage has a series, or no version at all.
        let dots = release.matches('.').count();
        (release.starts_with(|first: char| first.is_ascii_digit()) && dots >= 2).then(|| Self {
            name: name.to_owned(),
            version: version.to_owned(),
            flavour: flavour.to_owned(),
        })
    }

    /// The kernel's release: `6.1.192`.
    pub(crate) fn release(&self) -> &str {
        self.version.split('-').next().unwrap_or(&self.version)
    }

    /// Major and minor version: `6.1`.
    pub(crate) fn series(&self) -> String {
        let parts: Vec<&str> = self.release().split('.').take(2).collect();
        parts.join(".")
    }

    /// Series and flavour, by which the newest of them can be asked for: `6.1`, `6.12-rt`.
    pub(crate) fn short_name(&self) -> String {
        with_flavour(&self.series(), &self.flavour)
    }

    /// Empty for the ordinary one, else `cloud` or `rt`.
    pub(crate) fn flavour(&self) -> &str {
        &self.flavour
    }

    fn is(&self, version: &str, flavour: &str) -> bool {
        self.flavour == flavour && (self.release() == version || self.series() == version)
    }
}

impl fmt::Display for KernelPackage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&with_flavour(self.release(), &self.flavour))
    }
}

fn with_flavour(version: &str, flavour: &str) -> String {
    if flavour.is_empty() {
        version.to_owned()
    } else {
        format!("{version}-{flavour}")
    }
}

/// The kernels of the package index, oldest first.
pub(crate) fn available() -> Result<Vec<KernelPackage>> {
    let names = child::output_of(child::command("apt-cache").args(["pkgnames", PREFIX]))
        .context("the package index is read by apt-cache, which needs Debian or Ubuntu")?;
    let mut versions = child::command("apt-cache");
    versions.arg("madison");
    let kernels = names
        .lines()
        .filter(|name| KernelPackage::new(name, "").is_some());
    let kernels: Vec<&str> = kernels.collect();
    if kernels.is_empty() {
        bail!("the package index has no kernels: run `apt-get update`");
    }
    Ok(parse(&child::output_of(versions.args(kernels))?))
}

/// From `apt-cache madison`: each package once, in its newest version.
fn parse(madison: &str) -> Vec<KernelPackage> {
    let mut newest: BTreeMap<&str, KernelPackage> = BTreeMap::new();
    for line in madison.lines() {
        let mut columns = line.split('|').map(str::trim);
        let (Some(name), Some(version), Some(place)) =
            (columns.next(), columns.next(), columns.next())
        else {
            continue;
        };
        if place.ends_with("Sources") {
            continue;
        }
        let Some(kernel) = KernelPackage::new(name, version) else {
            continue;
        };
        let known = newest.get(name);
        if known.is_none_or(|known| order(known, &kernel).is_lt()) {
            newest.insert(name, kernel);
        }
    }
    let mut kernels: Vec<KernelPackage> = newest.into_values().collect();
    kernels.sort_by(|one, other| order(one, other).then_with(|| one.flavour.cmp(&other.flavour)));
    kernels
}

fn order(one: &KernelPackage, other: &KernelPackage) -> Ordering {
    debian_version::compare(&one.version, &other.version)
}

/// The kernel that is meant by `asked`, of `kernels` with the oldest first.
pub(crate) fn choose<'a>(kernels: &'a [KernelPackage], asked: &str) -> Result<&'a KernelPackage> {
    let (version, flavour) = asked.split_once('-').unwrap_or((asked, ""));
    let mut newest_first = kernels.iter().rev();
    let chosen = if asked.starts_with(PREFIX) {
        newest_first.find(|kernel| kernel.name == asked)
    } else {
        newest_first.find(|kernel| kernel.is(version, flavour))
    };
    chosen.with_context(|| {
        let series = newest_of_each_series(kernels);
        let names: Vec<String> = series.map(KernelPackage::short_name).collect();
        format!(
            "the package index has no kernel `{asked}`; it has {}, and what `cargo xtask guest --list` \
             shows. After `apt-get update` it may have more",
            names.join(", ")
        )
    })
}

/// The newest kernel of each series and flavour, oldest first.
pub(crate) fn newest_of_each_series(
    kernels: &[KernelPackage],
) -> impl Iterator<Item = &KernelPackage> {
    kernels.iter().enumerate().filter_map(|(index, kernel)| {
        let mut newer = kernels.iter().skip(index + 1);
        let is_newest = !newer.any(|newer| newer.short_name() == kernel.short_name());
        is_newest.then_some(kernel)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MADISON: &str = "\
linux-image-6.1.0-50-amd64 |  6.1.176-1 | http://deb.debian.org/debian bookworm/main amd64 Packages
linux-image-6.1.0-9-amd64 |  6.1.27-1 | http://deb.debian.org/debian bookworm/main amd64 Packages
linux-image-6.1.0-57-amd64 | 6.1.192-2 | http://security.debian.org bookworm-security/main amd64 Packages
linux-image-6.1.0-57-amd64 | 6.1.192-10 | http://security.debian.org bookworm-security/main amd64 Packages
linux-image-6.1.0-57-amd64 | 6.1.192-3 | http://security.debian.org bookworm-security/main amd64 Packages
linux-image-6.1.0-57-rt-amd64 | 6.1.192-3 | http://security.debian.org bookworm-security/main amd64 Packages
linux-image-6.12.117+deb12-amd64 | 6.12.117-1~deb12u1 | http://security.debian.org bookworm-security/main amd64 Packages
linux-image-6.12.9+deb12-amd64 | 6.12.9-1~deb12u1 | http://security.debian.org bookworm-security/main amd64 Packages
linux-image-6.12.117+deb12-cloud-amd64 | 6.12.117-1~deb12u1 | http://security.debian.org bookworm-security/main amd64 Packages
linux-image-6.12-amd64 | 6.12.117-1~deb12u1 | http://security.debian.org bookworm-security/main amd64 Packages
linux-image-amd64 |  6.1.192-3 | http://security.debian.org bookworm-security/main amd64 Packages
linux-image-6.1.0-57-amd64-unsigned | 6.1.192-3 | http://security.debian.org bookworm-security/main amd64 Packages
linux-image-6.1.0-57-arm64 | 6.1.192-3 | http://security.debian.org bookworm-security/main amd64 Packages
     linux | 6.12.200-1 | http://deb.debian.org/debian bookworm/main Sources
";

    fn chosen(asked: &str) -> String {
        let kernels = parse(MADISON);
        let kernel = choose(&kernels, asked).unwrap();
        format!("{} {}", kernel.name, kernel.version)
    }

    #[test]
    fn a_series_is_its_newest_package_by_version_and_not_by_name() {
        assert_eq!(chosen("6.1"), "linux-image-6.1.0-57-amd64 6.1.192-10");
        let newest = "linux-image-6.12.117+deb12-amd64 6.12.117-1~deb12u1";
        assert_eq!(chosen("6.12"), newest);
        assert_eq!(chosen("6.1.27"), "linux-image-6.1.0-9-amd64 6.1.27-1");
        let rt = "linux-image-6.1.0-57-rt-amd64";
        assert_eq!(chosen("6.1-rt"), format!("{rt} 6.1.192-3"));
        assert_eq!(chosen(rt), format!("{rt} 6.1.192-3"));
    }

    #[test]
    fn what_is_not_there_is_an_error_that_says_what_is() {
        let kernels = parse(MADISON);
        for asked in ["6", "5.10", "6.1.0", "6.12-rt", "linux-image-amd64", ""] {
            let error = choose(&kernels, asked).unwrap_err().to_string();
            assert!(error.contains(&format!("`{asked}`")), "{error}");
            assert!(
                error.contains("has 6.1-rt, 6.1, 6.12, 6.12-cloud, and"),
                "{error}"
            );
        }
    }

    #[test]
    fn only_signed_images_of_this_architecture_are_kernels() {
        let names: Vec<String> = parse(MADISON)
            .into_iter()
            .map(|kernel| kernel.name)
            .collect();
        let expected = [
            "linux-image-6.1.0-9-amd64",
            "linux-image-6.1.0-50-amd64",
            "linux-image-6.1.0-57-rt-amd64",
            "linux-image-6.1.0-57-amd64",
            "linux-image-6.12.9+deb12-amd64",
            "linux-image-6.12.117+deb12-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64",
        ];
        assert_eq!(names, expected);
    }
}
