//! Faults of the state directory: a file system without room, and one that cannot be written.
//!
//! Mounts are gone before the agent's directory is, also after an error.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::chaos::network::{Network, SOON};

/// Room for the ledger and the modes, and a little more.
const SIZE: &str = "size=256k";

/// Something mounted over the state directory; dropping it shows what was there before.
struct Over(PathBuf);

impl Over {
    /// A small file system with the same files.
    fn small(dir: &Path) -> Result<Self> {
        let files = read(dir)?;
        let (kind, flags) = (Some("tmpfs"), MsFlags::empty());
        mount(kind, dir, kind, flags, Some(SIZE)).context("mounting a small file system")?;
        let over = Self(dir.to_owned());
        write(dir, &files)?;
        Ok(over)
    }

    /// The same directory, read-only.
    fn read_only(dir: &Path) -> Result<Self> {
        let (none, bind) = (None::<&str>, MsFlags::MS_BIND);
        mount(Some(dir), dir, none, bind, none).context("mounting the directory over itself")?;
        let over = Self(dir.to_owned());
        let flags = bind | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(none, dir, none, flags, none).context("making it read-only")?;
        Ok(over)
    }
}

impl Drop for Over {
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.0, MntFlags::MNT_DETACH) {
            // A second panic while unwinding would abort.
            eprintln!("unmounting {}: {error}", self.0.display());
        }
    }
}

fn read(dir: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            let name = entry.file_name().to_string_lossy().into_owned();
            files.insert(name, fs::read(entry.path())?);
        }
    }
    Ok(files)
}

fn write(dir: &Path, files: &BTreeMap<String, Vec<u8>>) -> Result<()> {
    for (name, content) in files {
        fs::write(dir.join(name), content).with_context(|| format!("writing {name}"))?;
    }
    Ok(())
}

/// Appends to a file until there is no room left.
fn fill(file: &Path) -> Result<()> {
    let mut file = fs::File::options().create(true).append(true).open(file)?;
    for size in [4096, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
    Ok(())
}

/// Changes policy until the agent has no room to store its new numbers.
///
/// Once is not always enough: where the records of source files cannot be replaced, the agent removes the old
/// ones, and if that is done before the numbers are stored, there is room for them.
fn fail_for_room(network: &mut Network, filler: &Path) -> Result<()> {
    const TIMES: u32 = 3;
    let mut outcome = Ok(());
    for _ in 0..TIMES {
        fill(filler)?;
        add_identities(network)?;
        outcome = wait_failing(network, SOON / TIMES);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// Needs more room for numbers than what is left of the page at the end of the ledger.
fn add_identities(network: &mut Network) -> Result<()> {
    network.desired.identities = 100;
    network.renew_inventory()?;
    network.renew_policies()
}

/// Waits until the agent says that something is not in force.
fn wait_failing(network: &Network, within: Duration) -> Result<()> {
    let failing = || {
        let status = network.agent.cli(&["status", "-o", "json"])?;
        let status: serde_json::Value = serde_json::from_slice(&status.stdout)?;
        Ok(status.get("ready") == Some(&false.into()))
    };
    network
        .agent
        .wait_until(failing, within, "the agent not ready")
}

/// Without room, a change that needs new numbers is not in force, and the agent says so; the old policy is,
/// also after a kill.
pub(super) fn full(network: &mut Network, lasting: Duration) -> Result<String> {
    let dir = network.agent.dir().join("state");
    network.agent.kill()?;
    let over = Over::small(&dir)?;
    network.start()?;
    let filler = dir.join("filler");
    fail_for_room(network, &filler)?;
    // How long the fault lasts.
    std::thread::sleep(lasting / 2);
    network.agent.kill()?;
    network.agent.spawn()?;
    std::thread::sleep(lasting / 2);
    let ended = network.agent.exited()?;
    fs::remove_file(&filler)?;
    if ended.is_some() {
        network.agent.kill()?;
        network.agent.spawn()?;
    }
    network.wait_ready()?;
    network.agent.kill()?;
    let files = read(&dir)?;
    drop(over);
    write(&dir, &files)?;
    network.agent.spawn()?;
    Ok(how_started(ended.is_some()))
}

/// The agent is killed, and its state directory cannot be written when it starts again.
pub(super) fn read_only(network: &mut Network, lasting: Duration) -> Result<String> {
    let dir = network.agent.dir().join("state");
    network.agent.kill()?;
    let over = Over::read_only(&dir)?;
    ensure!(
        fs::write(dir.join("filler"), b"").is_err(),
        "the control: the directory can be written"
    );
    network.renew_inventory()?;
    network.renew_policies()?;
    network.agent.spawn()?;
    // How long the fault lasts.
    std::thread::sleep(lasting);
    let ended = network.agent.exited()?;
    if ended.is_none() {
        wait_failing(network, SOON)?;
    }
    network.agent.kill()?;
    drop(over);
    network.agent.spawn()?;
    Ok(how_started(ended.is_some()))
}

fn how_started(has_ended: bool) -> String {
    let how = if has_ended {
        "a start meanwhile ended by itself"
    } else {
        "a start meanwhile stayed up and was not ready"
    };
    how.to_owned()
}
