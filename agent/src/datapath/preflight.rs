//! Checks of the machine before anything is loaded.
//!
//! Invariants: every error is one line with a remedy; the checks change nothing, except that the pin directory
//! is created by [`create_pin_directory`].

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use caps::{CapSet, Capability};
use nix::sys::utsname;

use super::bpffs::is_bpffs;

/// The oldest kernel with everything the programs use: atomic comparison and exchange, which other
/// JIT compilers than that of x86-64 learned later (commit 1902472b4fa9 for arm64).
const OLDEST: (u32, u32) = if cfg!(target_arch = "x86_64") {
    (5, 12)
} else {
    (5, 18)
};

/// Why the agent cannot run here.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PreflightError {
    /// The kernel is too old.
    #[error("kernel {found} is too old: Ringfence needs {}.{} or newer", OLDEST.0, OLDEST.1)]
    Kernel {
        /// Its release.
        found: String,
    },
    /// The kernel has no BTF.
    #[error(
        "the kernel has no BTF (/sys/kernel/btf/vmlinux): use a kernel built with CONFIG_DEBUG_INFO_BTF=y"
    )]
    NoBtf,
    /// The pin directory is not on bpffs.
    #[error(
        "{} is not on a BPF file system: run `mount -t bpf bpf {}` on the node (the chart does with \
         mountBpffs=true), or set `bpffs` to a directory on one",
        dir.display(),
        mount.display()
    )]
    NoBpffs {
        /// The configured directory.
        dir: PathBuf,
        /// Where to mount bpffs.
        mount: PathBuf,
    },
    /// The pin directory cannot be written to, though bpffs is there.
    #[error(
        "cannot write below {}: {error}; root may, so a security module forbids it: run the container with the \
         AppArmor profile `Unconfined` (containerd's default one forbids all of /sys/fs/bpf), or an SELinux type \
         that may (the chart's appArmorProfile and seLinuxOptions)",
        dir.display()
    )]
    Forbidden {
        /// The configured directory.
        dir: PathBuf,
        /// The system's error.
        error: String,
    },
    /// The pin directory cannot be created for another reason.
    #[error("cannot create the directory {}: {error}; it must be on a BPF file system", dir.display())]
    PinDirectory {
        /// The configured directory.
        dir: PathBuf,
        /// The system's error.
        error: String,
    },
    /// bpffs cannot be mounted.
    #[error(
        "cannot mount bpffs on /sys/fs/bpf: {error}; it needs a kernel with CONFIG_BPF_SYSCALL, and CAP_SYS_ADMIN: \
         run this as root, in a privileged container"
    )]
    Mount {
        /// The system's error.
        error: String,
    },
    /// A capability is missing.
    #[error("missing {0}: run as root, or give the service CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON")]
    Capability(String),
}

/// Checks kernel, BTF, bpffs and privileges.
///
/// # Errors
/// The first check that fails.
pub fn check(bpffs: &Path) -> Result<(), PreflightError> {
    privileges()?;
    kernel()?;
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Err(PreflightError::NoBtf);
    }
    on_bpffs(bpffs)
}

/// Creates the directory of pins.
///
/// # Errors
/// When the system refuses, with the remedy.
pub fn create_pin_directory(dir: &Path) -> Result<(), PreflightError> {
    fs::create_dir_all(dir).map_err(|error| refused(dir, &error))
}

fn refused(dir: &Path, error: &io::Error) -> PreflightError {
    let (kind, dir, error) = (error.kind(), dir.to_owned(), error.to_string());
    if kind == io::ErrorKind::PermissionDenied {
        PreflightError::Forbidden { dir, error }
    } else {
        PreflightError::PinDirectory { dir, error }
    }
}

fn kernel() -> Result<(), PreflightError> {
    let release = utsname::uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    match version_of(&release) {
        Some(version) if version < OLDEST => Err(PreflightError::Kernel { found: release }),
        _ => Ok(()),
    }
}

/// Major and minor version of a release; `None` if it does not begin with two numbers.
fn version_of(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn on_bpffs(dir: &Path) -> Result<(), PreflightError> {
    let existing = dir.ancestors().find(|path| fs::metadata(path).is_ok());
    if existing.is_some_and(is_bpffs) {
        return Ok(());
    }
    let mount = dir.parent().unwrap_or(dir).to_owned();
    Err(PreflightError::NoBpffs {
        dir: dir.to_owned(),
        mount,
    })
}

fn privileges() -> Result<(), PreflightError> {
    let held = caps::read(None, CapSet::Effective).unwrap_or_default();
    for needed in [
        Capability::CAP_BPF,
        Capability::CAP_NET_ADMIN,
        Capability::CAP_PERFMON,
    ] {
        if !held.contains(&needed) && !held.contains(&Capability::CAP_SYS_ADMIN) {
            return Err(PreflightError::Capability(needed.to_string()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        assert_eq!(version_of("5.10.0-33-amd64"), Some((5, 10)));
        assert_eq!(version_of("6.1"), Some((6, 1)));
        assert_eq!(version_of("odd"), None);
        let too_old = |release| version_of(release).is_some_and(|version| version < OLDEST);
        assert!(too_old("5.11.22") && too_old("4.19") && !too_old("5.18.1"));
    }

    #[test]
    fn a_plain_directory_is_refused_with_the_command_to_run() {
        let error = on_bpffs(Path::new("/tmp/ringfence")).unwrap_err();
        assert!(
            error.to_string().contains("mount -t bpf bpf /tmp")
                && error.to_string().contains("mountBpffs=true"),
            "{error}"
        );
    }

    #[test]
    fn what_a_security_module_forbids_names_its_profile() {
        let text = |errno| {
            let error = io::Error::from_raw_os_error(errno);
            refused(Path::new("/sys/fs/bpf/ringfence"), &error).to_string()
        };
        for remedy in ["AppArmor", "SELinux", "/sys/fs/bpf/ringfence"] {
            assert!(text(libc::EACCES).contains(remedy), "{remedy}");
        }
        assert!(!text(libc::ENOENT).contains("AppArmor"));
    }
}
