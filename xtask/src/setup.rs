//! `cargo xtask setup`: finds or installs what building and testing need.
//!
//! Prints one line for each item found or installed. If nothing is missing, it changes nothing and
//! does not use the network. It never removes or downgrades anything, except a `bpf-linker` that
//! does not match the toolchain's LLVM.

use std::fmt::Arguments;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::{env, fs};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::apt::Apt;
use crate::toolchain::{self, Toolchain};
use crate::{child, cluster, guest, image, workspace};

const LINKER: &str = "bpf-linker";
const LINKER_VERSION: &str = "0.13.0";
/// Programs that tests, demo and benchmark run, each with its package.
const PROGRAMS: [(&str, &str); 4] = [
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("ipset", "ipset"),
    ("iptables", "iptables"),
];
const DEBIAN_TOOLCHAIN: [&str; 4] = ["rustc-web", "rust-web-src", "cargo-web", "rust-web-clippy"];

/// The subcommand.
pub(crate) fn run(dry_run: bool, with_guest: bool) -> Result<ExitCode> {
    let print: Print = |line| println!("{line}");
    prepare(dry_run, print)?;
    prepare_cluster(dry_run, print)?;
    if with_guest {
        Setup::new(dry_run, print).guest()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Installs what is missing and returns the toolchain for the kernel programs. Prints to standard
/// error, because standard output belongs to the calling command.
pub(crate) fn ensure() -> Result<Toolchain> {
    prepare(false, |line| eprintln!("{line}"))?;
    toolchain::required()
}

/// Installs what clusters need.
pub(crate) fn ensure_cluster() -> Result<()> {
    let mut setup = Setup::new(false, |_| ());
    setup.programs(&PROGRAMS)?;
    setup.programs(&cluster::PROGRAMS)?;
    cluster::go().map(drop)
}

/// Installs what an image needs, for the agent of this target, and returns the toolchain for the kernel programs.
pub(crate) fn ensure_image(target: &str) -> Result<Toolchain> {
    let toolchain = ensure()?;
    let mut setup = Setup::new(false, |line| eprintln!("{line}"));
    setup.only_missing = true;
    setup.programs(&image::PROGRAMS)?;
    setup.target(target)?;
    Ok(toolchain)
}

fn prepare_cluster(dry_run: bool, print: Print) -> Result<()> {
    let mut setup = Setup::new(dry_run, print);
    setup.programs(&cluster::PROGRAMS)?;
    match cluster::go() {
        Ok(version) => setup.say(format_args!("go: found {version}")),
        Err(error) => setup.say(format_args!("go: only clusters need it: {error}")),
    }
    Ok(())
}

/// Installs what is missing for booting a guest, and prints only that.
pub(crate) fn ensure_guest() -> Result<()> {
    let mut setup = Setup::new(false, |line| eprintln!("{line}"));
    setup.only_missing = true;
    setup.guest()
}

/// Prints a line about an item.
type Print = fn(Arguments<'_>);

fn prepare(dry_run: bool, print: Print) -> Result<()> {
    let mut setup = Setup::new(dry_run, print);
    setup.programs(&PROGRAMS)?;
    match setup.toolchain()? {
        Some(toolchain) => setup.linker(&toolchain)?,
        None => {
            setup.say(format_args!(
                "{LINKER}: would be built for the new toolchain's LLVM if it does not match"
            ));
        }
    }
    Ok(())
}

struct Setup {
    dry_run: bool,
    apt: Apt,
    print: Print,
    /// What is there is not worth a line.
    only_missing: bool,
}

impl Setup {
    fn new(dry_run: bool, print: Print) -> Self {
        Self {
            dry_run,
            apt: Apt::new(dry_run),
            print,
            only_missing: false,
        }
    }

    fn found(&self, line: Arguments<'_>) {
        if !self.only_missing {
            self.say(line);
        }
    }

    fn say(&self, line: Arguments<'_>) {
        (self.print)(line);
    }

    fn installed(&self) -> &'static str {
        if self.dry_run {
            "would install"
        } else {
            "installed"
        }
    }

    fn programs(&mut self, programs: &[(&str, &str)]) -> Result<()> {
        for (program, package) in programs {
            if let Some(path) = child::find_program(program) {
                self.found(format_args!("{program}: found {}", path.display()));
                continue;
            }
            self.apt.ensure(&[package])?;
            self.say(format_args!(
                "{program}: {} package {package}",
                self.installed()
            ));
        }
        Ok(())
    }

    /// The standard library for another target of the compiler that builds the agent.
    fn target(&self, target: &str) -> Result<()> {
        let mut rustc = child::command("rustc");
        rustc.current_dir(workspace::root()?);
        let sysroot = child::output_of(rustc.args(["--print", "sysroot"]))?;
        let library = Path::new(sysroot.trim()).join("lib/rustlib").join(target);
        if library.is_dir() {
            self.found(format_args!("{target}: found"));
            return Ok(());
        }
        let remedy = "install the compiler's standard library for it";
        ensure!(
            child::find_program("rustup").is_some(),
            "no {target} here, and no rustup: {remedy}"
        );
        if !self.dry_run {
            let mut add = child::command("rustup");
            add.current_dir(workspace::root()?);
            child::run(add.args(["target", "add", target])).context(remedy)?;
        }
        self.say(format_args!("{target}: {}", self.installed()));
        Ok(())
    }

    /// What booting an emulated machine needs.
    fn guest(&mut self) -> Result<()> {
        self.programs(&guest::PROGRAMS)?;
        // Not by program: a `busybox` with libraries has the same name.
        let package = guest::SHELL_PACKAGE;
        if self.apt.ensure(&[package])?.is_empty() {
            self.found(format_args!("{package}: found"));
        } else {
            self.say(format_args!("{package}: {}", self.installed()));
        }
        Ok(())
    }

    /// The toolchain to use; `None` only in a dry run that would have to install one.
    fn toolchain(&mut self) -> Result<Option<Toolchain>> {
        let found = toolchain::find()?;
        let Some(found) = found else {
            return self.install_toolchain();
        };
        let missing = found.missing_components();
        let usable = found.has_sources();
        if missing.is_empty() || (!found.version.nightly && usable) {
            self.say(format_args!("toolchain: found {}", found.describe()));
            return Ok(Some(found));
        }
        if self.dry_run {
            self.say(format_args!(
                "toolchain: would add {} to {}",
                missing.join(", "),
                found.describe()
            ));
            return Ok(Some(found));
        }
        let name = found
            .name
            .clone()
            .context("a nightly without rustup cannot be extended")?;
        let mut add = child::command("rustup");
        add.args(["component", "add", "--toolchain", &name])
            .args(&missing);
        if child::succeeds(&mut add)? {
            self.say(format_args!(
                "toolchain: added {} to {}",
                missing.join(", "),
                found.describe()
            ));
        } else if usable {
            self.say(format_args!(
                "toolchain: cannot add {}, which `cargo xtask lint` needs",
                missing.join(", ")
            ));
        } else {
            return self.install_debian_toolchain();
        }
        Ok(Some(found))
    }

    fn install_toolchain(&mut self) -> Result<Option<Toolchain>> {
        if child::find_program("rustup").is_none() {
            return self.install_debian_toolchain();
        }
        if self.dry_run {
            self.say(format_args!(
                "toolchain: would install nightly with rust-src, clippy, rustfmt by rustup"
            ));
            return Ok(None);
        }
        let mut install = child::command("rustup");
        install.args([
            "toolchain",
            "install",
            toolchain::NIGHTLY,
            "--profile",
            "minimal",
        ]);
        install.args(["--no-self-update", "--component", "rust-src,clippy,rustfmt"]);
        if !child::succeeds(&mut install)? {
            return self.install_debian_toolchain();
        }
        let installed = toolchain::inspect(Some(toolchain::NIGHTLY))?;
        self.say(format_args!(
            "toolchain: installed {}",
            installed.describe()
        ));
        Ok(Some(installed))
    }

    /// The last resort: Debian's matched compiler, sources and cargo, linked into rustup if there
    /// is one.
    fn install_debian_toolchain(&mut self) -> Result<Option<Toolchain>> {
        let rustup = child::find_program("rustup").is_some();
        let packages = self.apt.ensure(&DEBIAN_TOOLCHAIN).context(
            "no nightly toolchain with sources, and Debian's is not available either; \
             install rustup from https://rustup.rs and run `cargo xtask setup` again",
        )?;
        if self.dry_run {
            self.say(format_args!(
                "toolchain: would install packages {}",
                packages.join(", ")
            ));
            return Ok(None);
        }
        let name = rustup.then_some(toolchain::DEBIAN);
        if let Some(name) = name {
            child::run(child::command("rustup").args(["toolchain", "link", name, "/usr"]))?;
        }
        let installed = toolchain::inspect(name)?;
        self.say(format_args!(
            "toolchain: installed {}",
            installed.describe()
        ));
        Ok(Some(installed))
    }

    fn linker(&mut self, toolchain: &Toolchain) -> Result<()> {
        let llvm = toolchain.version.llvm_major;
        let found = child::find_program(LINKER);
        if let Some(path) = found.filter(|_| linker_matches(llvm)) {
            self.say(format_args!(
                "{LINKER}: found {LINKER_VERSION} for LLVM {llvm} at {}",
                path.display()
            ));
            return Ok(());
        }
        self.llvm(llvm)?;
        if !self.dry_run {
            child::run(&mut build_linker(llvm)?)?;
        }
        self.say(format_args!(
            "{LINKER}: {} {LINKER_VERSION} for LLVM {llvm}",
            self.installed()
        ));
        Ok(())
    }

    /// The libraries that `bpf-linker` is built against.
    fn llvm(&mut self, llvm: u32) -> Result<()> {
        let packages = [
            format!("llvm-{llvm}-dev"),
            format!("libpolly-{llvm}-dev"),
            String::from("libzstd-dev"),
        ];
        let wanted: Vec<&str> = packages.iter().map(String::as_str).collect();
        let missing = self.apt.ensure(&wanted)?;
        if missing.is_empty() {
            self.say(format_args!("llvm: found {}", wanted.join(", ")));
        } else {
            self.say(format_args!(
                "llvm: {} packages {}",
                self.installed(),
                missing.join(", ")
            ));
        }
        Ok(())
    }
}

/// Builds the linker against Debian's LLVM `llvm`. The prefix is set explicitly, because the
/// linker's build otherwise expects the libraries next to the first `llvm-config` that it finds.
fn build_linker(llvm: u32) -> Result<Command> {
    let mut install = child::command("cargo");
    install
        .current_dir(workspace::root()?)
        .args(["install", LINKER, "--force", "--locked"]);
    install.args(["--version", LINKER_VERSION, "--no-default-features"]);
    install.args(["--features", &format!("llvm-{llvm}")]);
    let prefix = format!("/usr/lib/llvm-{llvm}");
    if env::var_os("LLVM_PREFIX").is_none() && Path::new(&prefix).is_dir() {
        install.env("LLVM_PREFIX", prefix);
    }
    Ok(install)
}

/// Whether the installed linker has the expected version and, if cargo recorded it, was built for
/// `llvm`. A linker that cargo did not install is assumed to match.
fn linker_matches(llvm: u32) -> bool {
    let version = child::output_of(child::command(LINKER).arg("--version"));
    if version
        .ok()
        .as_deref()
        .and_then(|line| line.split_whitespace().nth(1))
        != Some(LINKER_VERSION)
    {
        return false;
    }
    let record = child::cargo_home().map(|home| home.join(".crates2.json"));
    let record = record.and_then(|path| fs::read_to_string(path).ok());
    record.is_none_or(|json| recorded_llvm(&json).is_none_or(|built_for| built_for == llvm))
}

/// The LLVM version of the linker in cargo's record of installed programs.
fn recorded_llvm(json: &str) -> Option<u32> {
    let record: Value = serde_json::from_str(json).ok()?;
    let prefix = format!("{LINKER} {LINKER_VERSION} ");
    let mut installs = record.get("installs")?.as_object()?.iter();
    let (_, linker) = installs.find(|(package, _)| package.starts_with(&prefix))?;
    let features = linker.get("features")?.as_array()?;
    let mut features = features.iter().filter_map(Value::as_str);
    features.find_map(|feature| feature.strip_prefix("llvm-")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::recorded_llvm;

    #[test]
    fn reads_the_llvm_a_linker_was_built_for() {
        let record = |package: &str, feature: &str| {
            format!(r#"{{"installs":{{"{package}":{{"features":["{feature}"]}}}}}}"#)
        };
        let source = "(registry+https://github.com/rust-lang/crates.io-index)";
        let ours = format!("bpf-linker 0.13.0 {source}");
        assert_eq!(recorded_llvm(&record(&ours, "llvm-22")), Some(22));
        assert_eq!(recorded_llvm(&record(&ours, "llvm-link-static")), None);
        let older = format!("bpf-linker 0.12.0 {source}");
        assert_eq!(recorded_llvm(&record(&older, "llvm-22")), None);
        assert_eq!(recorded_llvm("nonsense"), None);
    }
}
