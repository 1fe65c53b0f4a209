//! The file system that programs and maps are pinned in.
//!
//! A node that systemd starts has it on `/sys/fs/bpf`; others may not. Mounting needs CAP_SYS_ADMIN, which the agent
//! does not have: `ringfence mount-bpffs` is what a privileged init container runs.

use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sys::statfs;

use super::PreflightError;

/// Where it is on every distribution.
pub const MOUNT_POINT: &str = "/sys/fs/bpf";

/// Whether what is mounted at a path is bpffs.
pub(super) fn is_bpffs(path: &Path) -> bool {
    statfs::statfs(path).is_ok_and(|fs| fs.filesystem_type() == statfs::BPF_FS_MAGIC)
}

/// Mounts it at [`MOUNT_POINT`], unless it is there. Returns whether it was mounted.
///
/// # Errors
/// When the kernel refuses.
pub fn mount_bpffs() -> Result<bool, PreflightError> {
    let place = Path::new(MOUNT_POINT);
    if is_bpffs(place) {
        return Ok(false);
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), place, Some("bpf"), flags, Some("mode=0700")).map_err(|errno| {
        PreflightError::Mount {
            error: errno.to_string(),
        }
    })?;
    Ok(true)
}
