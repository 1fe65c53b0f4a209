//! Finds and installs missing Debian packages.
//!
//! The network is used only if a package is missing, and the package lists are refreshed at most
//! once per run. Other package managers are not supported: the error names what to install.

use std::process::Command;

use anyhow::{Result, bail};
use nix::unistd::Uid;

use crate::child;

/// Installs packages, except in a dry run.
pub(crate) struct Apt {
    dry_run: bool,
    refreshed: bool,
}

impl Apt {
    pub(crate) fn new(dry_run: bool) -> Self {
        Self {
            dry_run,
            refreshed: false,
        }
    }

    /// Installs those of `packages` that are missing and returns them.
    pub(crate) fn ensure<'a>(&mut self, packages: &[&'a str]) -> Result<Vec<&'a str>> {
        let missing: Vec<&str> = packages
            .iter()
            .copied()
            .filter(|package| !is_installed(package))
            .collect();
        if missing.is_empty() || self.dry_run {
            return Ok(missing);
        }
        if child::find_program("apt-get").is_none() {
            bail!(
                "no apt-get here; install the equivalent of {} and run `cargo xtask setup` again",
                missing.join(", ")
            );
        }
        if !self.refreshed {
            child::run(&mut apt_get(&["update", "--quiet=2"])?)?;
            self.refreshed = true;
        }
        let mut install = apt_get(&["install", "--yes", "--quiet=2", "--no-install-recommends"])?;
        child::run(install.args(&missing))?;
        Ok(missing)
    }
}

fn is_installed(package: &str) -> bool {
    let mut query = child::command("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", package]);
    child::output_of(&mut query).is_ok_and(|status| status == "installed")
}

fn apt_get(arguments: &[&str]) -> Result<Command> {
    let mut command = if Uid::effective().is_root() {
        child::command("env")
    } else if child::find_program("sudo").is_some() {
        let mut command = child::command("sudo");
        command.arg("env");
        command
    } else {
        bail!("installing packages needs root and there is no sudo; run this as root");
    };
    command
        .arg("DEBIAN_FRONTEND=noninteractive")
        .arg("apt-get")
        .args(arguments);
    Ok(command)
}
