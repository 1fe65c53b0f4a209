//! One emulated machine: a QEMU process that runs a [`Session`] and ends with it.
//!
//! The machine has no disk, no network and no names: any number can run at the same time. Its root
//! file system is this machine's, shared read-only. It is ended by SIGKILL: when the session is over,
//! at the deadline, when this value is dropped, and by the kernel if this process dies. Emulation is
//! by software, so that it works inside virtual machines too, and is slow.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};

use super::initramfs::{self, ROOT_TAG};
use super::kernel::Kernel;
use super::session::{self, Session};
use super::trailer::Trailer;
use crate::{child, interrupt};

/// QEMU's program.
pub(super) const EMULATOR: &str = "qemu-system-x86_64";
const PARAMETERS: &str = "console=ttyS0 quiet no_timer_check panic=-1";
const POLL: Duration = Duration::from_millis(100);
/// How much of the console an error has.
const CONSOLE_LINES: usize = 20;

static MACHINES: AtomicU32 = AtomicU32::new(0);

/// What a machine gets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) cpus: u32,
    /// In MiB; taken from this machine as it is used.
    pub(crate) memory: u32,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The program's exit status.
    Exited(u8),
    /// It took too long.
    Deadline,
}

/// A running machine.
pub(super) struct Machine {
    qemu: Child,
    secret: String,
    directory: Directory,
}

impl Machine {
    /// Starts a machine. If the calling thread ends before the machine, so does the machine.
    pub(super) fn start(kernel: &Kernel, session: &Session, size: Size) -> Result<Self> {
        let directory = Directory::new()?;
        let secret = secret()?;
        let archive = initramfs::archive(kernel, &session.script(&secret))?;
        fs::write(directory.initramfs(), archive)?;
        let mut qemu = command(kernel, &directory, size);
        let qemu = qemu
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{}`", child::describe(&qemu)))?;
        Ok(Self {
            qemu,
            secret,
            directory,
        })
    }

    /// Passes on what the program prints until it has ended; returns both destinations.
    pub(super) fn wait<O, E>(
        mut self,
        output: O,
        errors: E,
        deadline: Duration,
    ) -> Result<(Ending, O, E)>
    where
        O: Write + Send + 'static,
        E: Write + Send + 'static,
    {
        let end = Instant::now() + deadline;
        let (sender, ended) = channel();
        let streams = (self.qemu.stdout.take(), self.qemu.stderr.take());
        let (Some(from_output), Some(from_errors)) = streams else {
            bail!("QEMU has no output");
        };
        let output = relay(
            from_output,
            output,
            Trailer::new(&self.secret),
            sender.clone(),
        )?;
        let errors = relay(from_errors, errors, Trailer::new(&self.secret), sender)?;
        let ending = wait_for_both(&ended, end);
        // Ends the streams too.
        self.kill();
        let output = joined(output)?;
        let errors = joined(errors)?;
        let ending = ending?.map_or_else(|| self.without_trailer(), Ok)?;
        Ok((ending, output, errors))
    }

    fn without_trailer(&self) -> Result<Ending> {
        let console = fs::read(self.directory.console()).unwrap_or_default();
        Err(anyhow!(
            "the guest ended before its program did; its console ends:\n{}",
            last_lines(&String::from_utf8_lossy(&console))
        ))
    }

    fn kill(&mut self) {
        // Both fail only if it has ended.
        _ = self.qemu.kill();
        _ = self.qemu.wait();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
    }
}

fn command(kernel: &Kernel, directory: &Directory, size: Size) -> Command {
    // The kernel ends QEMU if this process dies by a signal that cannot be caught.
    let mut qemu = child::command("setpriv");
    qemu.args(["--pdeathsig", "KILL", EMULATOR]);
    qemu.args([
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
    ]);
    qemu.args([
        "-machine",
        "q35",
        "-accel",
        "tcg,thread=multi",
        "-cpu",
        "max",
    ]);
    qemu.args(["-smp", &size.cpus.to_string()]);
    qemu.args(["-m", &format!("{}M", size.memory)]);
    qemu.arg("-kernel").arg(&kernel.image);
    qemu.arg("-initrd").arg(directory.initramfs());
    qemu.args(["-append", PARAMETERS]);
    let share = "local,path=/,security_model=none,readonly=on,multidevs=remap,mount_tag=";
    qemu.args(["-virtfs", &format!("{share}{ROOT_TAG}")]);
    let console = directory.console();
    qemu.args([
        "-chardev",
        &format!("file,id=console,path={}", console.display()),
    ]);
    qemu.args(["-serial", "chardev:console", "-device", "virtio-serial-pci"]);
    // Files, because the guest cannot write to a port whose input has ended, as that of `stdio` has.
    let ports = [
        (session::OUTPUT, "file,id=output,path=/dev/fd/1"),
        (session::ERRORS, "file,id=errors,path=/dev/fd/2"),
    ];
    for (name, chardev) in ports {
        qemu.args(["-chardev", chardev, "-device"]);
        qemu.arg(format!("virtserialport,chardev={name},name={name}"));
    }
    qemu
}

/// Passes a stream on until its trailer or its end, of which `ended` is informed: with the status, or
/// nothing.
fn relay<W: Write + Send + 'static>(
    mut from: impl Read + Send + 'static,
    mut to: W,
    mut trailer: Trailer,
    ended: Sender<Option<u8>>,
) -> Result<JoinHandle<Result<W>>> {
    let pass = move || -> Result<W> {
        let mut buffer = [0; 16 * 1024];
        loop {
            let length = from
                .read(&mut buffer)
                .context("cannot read the guest's output")?;
            let arrived = buffer.get(..length).unwrap_or_default();
            let (passed, status) = trailer.take(arrived);
            to.write_all(&passed)
                .context("cannot pass on the guest's output")?;
            if status.is_none() && length > 0 {
                to.flush()?;
                continue;
            }
            if status.is_none() {
                to.write_all(&trailer.rest())?;
            }
            to.flush()?;
            // The receiver may have given up at the deadline.
            _ = ended.send(status);
            return Ok(to);
        }
    };
    let thread = thread::Builder::new().name("guest output".to_owned());
    thread.spawn(pass).context("cannot start a thread")
}

fn joined<W>(relay: JoinHandle<Result<W>>) -> Result<W> {
    let ended = relay.join();
    ended.map_err(|_| anyhow!("passing on the guest's output panicked"))?
}

/// Waits for the trailers of both streams; `None` if one ended without.
fn wait_for_both(ended: &Receiver<Option<u8>>, end: Instant) -> Result<Option<Ending>> {
    let mut trailers = 0;
    loop {
        interrupt::check()?;
        match ended.recv_timeout(POLL) {
            Ok(Some(status)) if trailers == 1 => return Ok(Some(Ending::Exited(status))),
            Ok(Some(_)) => trailers = 1,
            Ok(None) | Err(RecvTimeoutError::Disconnected) => return Ok(None),
            Err(RecvTimeoutError::Timeout) if Instant::now() >= end => {
                return Ok(Some(Ending::Deadline));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// A word that nothing prints by chance.
fn secret() -> Result<String> {
    let mut bytes = [0; 16];
    let mut random = fs::File::open("/dev/urandom").context("cannot open /dev/urandom")?;
    random.read_exact(&mut bytes)?;
    Ok(format!("guest-{:032x}", u128::from_ne_bytes(bytes)))
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.len().saturating_sub(CONSOLE_LINES);
    lines.get(first..).unwrap_or_default().join("\n")
}

/// The files of one machine; dropping it removes them.
struct Directory {
    path: PathBuf,
}

impl Directory {
    fn new() -> Result<Self> {
        let number = MACHINES.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringfence-guest-{}-{number}", process::id());
        let path = std::env::temp_dir().join(name);
        // An earlier process with this id may have been killed before it cleaned up.
        _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path })
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::join(&self.path, name)
    }

    fn initramfs(&self) -> PathBuf {
        self.file("initramfs")
    }

    fn console(&self) -> PathBuf {
        self.file("console")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.path);
    }
}
