//! `cargo xtask guest`: boots a Debian kernel in an emulated machine and runs a program there.
//!
//! The guest has this machine's root file system, read-only under an overlay in memory, and runs the
//! program as root. Its output, its errors and its exit status are passed on. Kernels come from the
//! package index; what booting needs is installed as by `cargo xtask setup --guest`.

mod cpio;
mod debian_version;
mod initramfs;
mod kernel;
mod machine;
mod packages;
mod session;
mod trailer;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::{child, interrupt, setup};
use kernel::Kernel;
use machine::Machine;

pub(crate) use machine::{Ending, Size};
pub(crate) use packages::{KernelPackage, available, choose, newest_of_each_series};
pub(crate) use session::Session;

/// Programs that booting a guest needs, each with its package.
pub(crate) const PROGRAMS: [(&str, &str); 4] = [
    (machine::EMULATOR, "qemu-system-x86"),
    ("depmod", "kmod"),
    ("xz", "xz-utils"),
    ("setpriv", "util-linux"),
];
/// The package of a shell without libraries, whose program has the name of another package's.
pub(crate) const SHELL_PACKAGE: &str = "busybox-static";

/// The exit status after the deadline, which is that of timeout(1).
const DEADLINE_STATUS: u8 = 124;

#[derive(Args)]
pub(crate) struct Arguments {
    /// A kernel package, or a version and a flavour: 6.1, 6.1.176, 6.12-rt
    #[arg(long, default_value = "6.1")]
    kernel: String,
    /// Print the kernels that the package index has, and exit
    #[arg(long)]
    list: bool,
    /// Seconds until the guest is ended
    #[arg(long, default_value_t = 600)]
    deadline: u64,
    #[command(flatten)]
    machine: MachineArguments,
    /// The script or program, and its arguments
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required_unless_present = "list"
    )]
    program: Vec<OsString>,
}

/// What a guest gets of this machine.
#[derive(Args, Clone, Copy)]
pub(crate) struct MachineArguments {
    /// Number of CPUs
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// MiB of memory
    #[arg(long, default_value_t = 4096)]
    memory: u32,
}

impl MachineArguments {
    pub(crate) fn size(self) -> Size {
        Size {
            cpus: self.cpus,
            memory: self.memory,
        }
    }
}

/// The subcommand.
pub(crate) fn run(arguments: Arguments) -> Result<ExitCode> {
    let kernels = available()?;
    if arguments.list {
        for kernel in &kernels {
            println!("{kernel:<14} {}", kernel.name);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let package = choose(&kernels, &arguments.kernel)?;
    let directory = env::current_dir().context("cannot tell the current directory")?;
    let session = Session {
        program: resolve(arguments.program, &directory)?,
        directory,
        environment: Vec::new(),
    };
    let deadline = Duration::from_secs(arguments.deadline);
    let size = arguments.machine.size();
    let (ending, ..) = boot(
        package,
        &session,
        size,
        deadline,
        io::stdout(),
        io::stderr(),
    )?;
    Ok(match ending {
        Ending::Exited(status) => ExitCode::from(status),
        Ending::Deadline => {
            eprintln!("error: the guest was ended after {} s", arguments.deadline);
            ExitCode::from(DEADLINE_STATUS)
        }
    })
}

/// Runs a session on the kernel of a package and passes on what it prints.
pub(crate) fn boot<O, E>(
    package: &KernelPackage,
    session: &Session,
    size: Size,
    deadline: Duration,
    output: O,
    errors: E,
) -> Result<(Ending, O, E)>
where
    O: Write + Send + 'static,
    E: Write + Send + 'static,
{
    interrupt::watch()?;
    setup::ensure_guest()?;
    let kernel = Kernel::of(package)?;
    interrupt::check()?;
    Machine::start(&kernel, session, size)?.wait(output, errors, deadline)
}

/// The words to execute: a file that is not executable is a script for bash, and a name that is no
/// file here is one of `PATH`.
fn resolve(words: Vec<OsString>, directory: &Path) -> Result<Vec<OsString>> {
    let mut words = words.into_iter();
    let first = words.next().context("no program")?;
    let file = directory.join(&first);
    let mut resolved = Vec::new();
    if file.is_file() {
        // The path of the guest is that of the file system: without symbolic links of mounts.
        let file: PathBuf = fs::canonicalize(&file)?;
        let mode = file.metadata()?.permissions().mode();
        if mode & 0o111 == 0 {
            resolved.push("/bin/bash".into());
        }
        resolved.push(file.into());
    } else {
        let name = first.to_string_lossy();
        let is_name = !name.contains('/') && child::find_program(&name).is_some();
        ensure!(is_name, "no script or program `{name}`");
        resolved.push(first);
    }
    resolved.extend(words);
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_a_file_or_a_name() {
        let root = Path::new("/");
        let resolved = |word: &str| resolve(vec![word.into(), "-x".into()], root);
        assert_eq!(
            resolved("etc/../etc/passwd").unwrap(),
            ["/bin/bash", "/etc/passwd", "-x"]
        );
        assert_eq!(resolved("uname").unwrap(), ["uname", "-x"]);
        for missing in ["no/such/file", "no-such-program-anywhere", "/etc"] {
            let error = resolved(missing).unwrap_err().to_string();
            assert!(error.contains(missing), "{error}");
        }
    }
}
