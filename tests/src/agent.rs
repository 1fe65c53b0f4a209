//! The real agent as a child process in a node's network namespace.
//!
//! Each agent has its own directory with configuration, policies, inventory, state, socket, logs
//! and a private bpffs. Dropping the agent ends the process, runs `ringfence cleanup`, unmounts the
//! bpffs and removes the directory. A test process killed by SIGKILL cannot do so: then the agent,
//! its mount and its directory (under the temporary directory, `ringfence-test-…`) stay.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::bpffs::Bpffs;
use crate::inventory::quoted;
use crate::netns::NetNs;
use crate::topology::Node;
use crate::wait::eventually;

/// The kernel's verifier takes seconds, and far longer on a busy machine.
const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(30);

/// What an agent starts with.
#[derive(Clone, Debug, Default)]
pub struct AgentSpec {
    /// Inventory text, see [`crate::InventoryBuilder`].
    pub inventory: String,
    /// Additional inventory files, name and text.
    pub inventories: Vec<(String, String)>,
    /// TOML policies.
    pub policies: String,
    /// Additional policy files, name and text, e.g. Kubernetes YAML. A file that the test writes
    /// later is declared here with empty text.
    pub documents: Vec<(String, String)>,
    /// The mode of namespaces that are not in `modes`; if empty, the agent's default applies.
    pub default_mode: String,
    /// Modes by namespace.
    pub modes: Vec<(String, String)>,
    /// The binary to run instead of the one that [`binary`] finds, e.g. one with a seeded bug.
    pub binary: Option<PathBuf>,
    /// TOML keys that precede the tables of the configuration.
    pub keys: String,
    /// TOML appended to the configuration, for keys that the other fields do not cover.
    pub config: String,
}

/// A running agent, or a stopped one whose enforcement is still in place.
#[derive(Debug)]
pub struct Agent {
    binary: PathBuf,
    ns: NetNs,
    child: Option<Child>,
    // Declared before `dir`: fields drop in order, and a mount point cannot be removed.
    bpffs: Bpffs,
    dir: TempDir,
}

impl Agent {
    /// Starts an agent on `node` and waits until its API responds.
    pub fn start(node: &Node, spec: &AgentSpec) -> Result<Self> {
        let binary = spec.binary.clone().map_or_else(binary, Ok)?;
        let dir = tempfile::Builder::new()
            .prefix("ringfence-test-")
            .tempdir()
            .context("making a temporary directory")?;
        for name in ["state", "run", "bpffs", "staging"] {
            fs::create_dir(dir.path().join(name))?;
        }
        let mut agent = Self {
            binary,
            ns: node.ns.clone(),
            child: None,
            bpffs: Bpffs::mount(dir.path().join("bpffs"))?,
            dir,
        };
        agent.write_inventory(&spec.inventory)?;
        agent.write_policies(&spec.policies)?;
        for (name, text) in spec.documents.iter().chain(&spec.inventories) {
            agent.write_document(name, text)?;
        }
        agent.replace("ringfence.toml", &agent.config(node, spec))?;
        agent.launch()?;
        Ok(agent)
    }

    /// The directory with all of this agent's files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The configuration file.
    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.dir().join("ringfence.toml")
    }

    /// The control socket.
    #[must_use]
    pub fn socket_path(&self) -> PathBuf {
        self.dir().join("run/ringfence.sock")
    }

    /// The private bpffs that holds the agent's pins.
    #[must_use]
    pub fn bpffs(&self) -> &Path {
        self.bpffs.path()
    }

    /// The process ID of the agent, if it is running.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Replaces the TOML policies atomically.
    pub fn write_policies(&self, text: &str) -> Result<()> {
        self.replace("policies.toml", text)
    }

    /// Replaces the inventory atomically.
    pub fn write_inventory(&self, text: &str) -> Result<()> {
        self.replace("inventory.toml", text)
    }

    /// Replaces one of [`AgentSpec::documents`] or of [`AgentSpec::inventories`] atomically.
    pub fn write_document(&self, name: &str, text: &str) -> Result<()> {
        self.replace(name, text)
    }

    /// Ends the process with SIGKILL; enforcement stays in place.
    pub fn kill(&mut self) -> Result<()> {
        self.end().map(drop)
    }

    /// Like [`Agent::kill`]; returns how the process ended, which it may have done by itself before.
    pub fn end(&mut self) -> Result<Option<ExitStatus>> {
        let Some(mut child) = self.child.take() else {
            return Ok(None);
        };
        child.kill().context("killing the agent")?;
        let status = child.wait().context("waiting for the killed agent")?;
        Ok(Some(status))
    }

    /// How the process ended, if it did so by itself.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        let status = self.child.as_mut().map(Child::try_wait).transpose()?;
        Ok(status.flatten())
    }

    /// Sends a signal to the running process.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().context("the agent is not running")?;
        kill(Pid::from_raw(pid.try_into()?), signal)?;
        Ok(())
    }

    /// Ends the process with SIGTERM, waits for it, and returns its exit status.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        let child = self.child.as_mut().context("the agent is not running")?;
        let status = eventually(STOP, "the agent's exit after SIGTERM", || {
            Ok(child.try_wait()?)
        })?;
        self.child = None;
        Ok(status)
    }

    /// Starts the agent again on the same files (after killing it if it is running) and waits until
    /// its API responds.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        self.launch()
    }

    /// Starts another build of the agent on the same files, and waits until its API responds.
    pub fn restart_as(&mut self, binary: PathBuf) -> Result<()> {
        self.use_binary(binary);
        self.restart()
    }

    /// The next start will be of another build.
    pub fn use_binary(&mut self, binary: PathBuf) {
        self.binary = binary;
    }

    /// A `ringfence` command that uses this agent's socket, in the node's network namespace.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = self.ns.command(&self.binary);
        command
            .env("RINGFENCE_SOCKET", self.socket_path())
            .stdin(Stdio::null());
        command
    }

    /// Runs a `ringfence` command and returns its output, whatever its exit status.
    pub fn cli(&self, arguments: &[&str]) -> Result<Output> {
        let output = self.command().args(arguments).output();
        output.with_context(|| format!("running ringfence {arguments:?}"))
    }

    /// Runs a `ringfence` command with `-o json`, which must succeed, and parses its output. `status`
    /// may also exit with 1: then it says what is wrong.
    pub fn cli_json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let output = self.cli(&[arguments, &["-o", "json"]].concat())?;
        let message = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success() || (arguments == ["status"] && has_status(&output)),
            "ringfence {arguments:?}: {}",
            message.trim()
        );
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("ringfence {arguments:?} printed invalid JSON"))
    }

    /// The text of `ringfence status`, whatever it says, and whether its exit code is 0.
    pub fn status_text(&self) -> Result<(String, bool)> {
        let output = self.cli(&["status"])?;
        ensure!(has_status(&output), "{output:?}");
        Ok((String::from_utf8(output.stdout)?, output.status.success()))
    }

    /// Polls a condition; the error on a timeout includes the end of the agent's stderr.
    pub fn wait_until(
        &self,
        mut condition: impl FnMut() -> Result<bool>,
        deadline: Duration,
        what: &str,
    ) -> Result<()> {
        eventually(deadline, what, || Ok(condition()?.then_some(())))
            .with_context(|| format!("the agent's stderr ends:\n{}", tail(&self.stderr())))
    }

    /// Waits until the agent reports that it enforces.
    pub fn wait_enforcing(&self, deadline: Duration) -> Result<()> {
        let enforcing = || {
            let status = self.cli_json(&["status"])?;
            Ok(status.get("enforcing").and_then(serde_json::Value::as_bool) == Some(true))
        };
        self.wait_until(enforcing, deadline, "the agent enforcing")
    }

    /// What the agent has written to stderr, over all its starts.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.log("stderr")
    }

    /// What the agent has written to stdout, over all its starts.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.log("stdout")
    }

    /// The text of `/metrics`.
    pub fn metrics(&self) -> Result<String> {
        self.http_get("/metrics")
    }

    /// The body of the metrics and health listener's response for `path`.
    pub fn http_get(&self, path: &str) -> Result<String> {
        let status = self.cli_json(&["status"])?;
        let listen = status.get("metrics_listen").and_then(|l| l.as_str());
        let listen = listen.context("status has no metrics_listen")?;
        let response = self.http_response(listen, path)?;
        let (head, body) = response
            .split_once("\r\n\r\n")
            .context("no HTTP response")?;
        ensure!(head.starts_with("HTTP/1.1 200"), "GET {path}: {head}");
        Ok(body.to_owned())
    }

    /// The whole response, head included, of the process that listens on an address of the node.
    pub fn http_response(&self, listen: &str, path: &str) -> Result<String> {
        use std::io::{Read as _, Write as _};
        self.ns.run(|| -> Result<String> {
            let mut stream = std::net::TcpStream::connect(listen)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            write!(
                stream,
                "GET {path} HTTP/1.1\r\nHost: ringfence\r\nConnection: close\r\n\r\n"
            )?;
            let mut response = String::new();
            stream.read_to_string(&mut response)?;
            Ok(response)
        })?
    }

    fn log(&self, name: &str) -> String {
        let bytes = fs::read(self.dir().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn config(&self, node: &Node, spec: &AgentSpec) -> String {
        let path = |name: &str| quoted(&self.dir().join(name).to_string_lossy());
        let paths = |first: &str, more: &[(String, String)]| {
            let more = more.iter().map(|(name, _)| path(name));
            let all: Vec<_> = std::iter::once(path(first)).chain(more).collect();
            all.join(", ")
        };
        let mut text = format!(
            "node = {}\nstate-dir = {}\nrun-dir = {}\nbpffs = {}\ninventory = [{}]\n\
             policies = [{}]\n{}\n[metrics]\nlisten = \"127.0.0.1:0\"\n\n[modes]\n",
            quoted(&node.name),
            path("state"),
            path("run"),
            path("bpffs"),
            paths("inventory.toml", &spec.inventories),
            paths("policies.toml", &spec.documents),
            spec.keys,
        );
        let default = ("default".to_owned(), spec.default_mode.clone());
        for (name, mode) in std::iter::once(&default).chain(&spec.modes) {
            if !mode.is_empty() {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{} = {}", quoted(name), quoted(mode));
            }
        }
        text + "\n" + &spec.config
    }

    fn launch(&mut self) -> Result<()> {
        self.spawn()?;
        self.wait_responding()?;
        self.wait_linked()
    }

    /// Waits until every fence has its links: before, qdiscs come and go, and packets with them.
    pub fn wait_linked(&self) -> Result<()> {
        let linked = || Ok(!self.has_bridges()?);
        self.wait_until(linked, START, "links of every fence")
    }

    /// Whether a fence consists of filters, or did until a moment ago.
    pub fn has_bridges(&self) -> Result<bool> {
        for abi in fs::read_dir(self.bpffs())? {
            let Ok(pins) = fs::read_dir(abi?.path().join("links")) else {
                continue;
            };
            for pin in pins {
                if pin?.file_name().to_string_lossy().ends_with("-bridge") {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Starts the process, which must not be running, and does not wait for it.
    pub fn spawn(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "the agent is running");
        let log = |name: &str| -> Result<Stdio> {
            let mut options = File::options();
            let file = options.create(true).append(true);
            Ok(file.open(self.dir().join(name))?.into())
        };
        let child = self
            .command()
            .args(["agent", "--config"])
            .arg(self.config_path())
            .stdout(log("stdout")?)
            .stderr(log("stderr")?)
            .spawn()
            .with_context(|| format!("starting {}", self.binary.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until the API responds; an error if the process ends before.
    pub fn wait_responding(&mut self) -> Result<()> {
        let pid = self.pid().context("the agent is not running")?;
        let ready = eventually(START, "the agent's first response", || {
            if let Some(status) = self.child.as_mut().and_then(|c| c.try_wait().transpose()) {
                bail!("the agent exited: {}", status?);
            }
            let output = self.cli(&["status", "-o", "json"])?;
            Ok(has_status(&output).then_some(()))
        });
        ready.with_context(|| format!("agent {pid}; its stderr ends:\n{}", tail(&self.stderr())))
    }

    /// Writes a file atomically: readers see the old or the new content, never a part of it.
    fn replace(&self, name: &str, text: &str) -> Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(self.dir().join("staging"))?;
        std::io::Write::write_all(&mut file, text.as_bytes())?;
        let target = self.dir().join(name);
        file.persist(&target)
            .with_context(|| format!("writing {}", target.display()))?;
        Ok(())
    }

    fn clean_up(&mut self) -> Result<()> {
        self.kill()?;
        let mut child = self
            .command()
            .args(["cleanup", "--config"])
            .arg(self.config_path())
            .stdout(Stdio::null())
            .stderr(File::create(self.dir().join("cleanup"))?)
            .spawn()?;
        let status = eventually(STOP, "ringfence cleanup", || Ok(child.try_wait()?));
        if status.is_err() {
            child.kill()?;
            child.wait()?;
        }
        let status = status?;
        ensure!(status.success(), "{status}\n{}", self.log("cleanup"));
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Err(error) = self.clean_up() {
            // A second panic while unwinding would abort.
            eprintln!("ringfence cleanup: {error:#}");
        }
    }
}

/// Whether `ringfence status` got an answer from the agent.
fn has_status(output: &Output) -> bool {
    matches!(output.status.code(), Some(0 | 1)) && !output.stdout.is_empty()
}

/// `RINGFENCE_BIN`, or the newer of the release and the debug build in this test's target
/// directory.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("RINGFENCE_BIN") {
        let path = PathBuf::from(path);
        ensure!(
            path.is_file(),
            "RINGFENCE_BIN: {} is not a file",
            path.display()
        );
        return Ok(path);
    }
    let target = target()?;
    let built = |profile: &str| {
        let path = target.join(profile).join("ringfence");
        let built = fs::metadata(&path).and_then(|meta| meta.modified()).ok()?;
        Some((built, path))
    };
    let newest = ["release", "debug"].into_iter().filter_map(built).max();
    let (_, path) = newest.with_context(|| {
        format!(
            "no ringfence binary in {}: build it, or set RINGFENCE_BIN",
            target.display()
        )
    })?;
    Ok(path)
}

/// `RINGFENCE_OTHER_LAYOUT`, or the build of another ABI version in this test's target directory.
pub fn other_layout_binary() -> Result<PathBuf> {
    let path = match std::env::var_os("RINGFENCE_OTHER_LAYOUT") {
        Some(path) => PathBuf::from(path),
        None => target()?.join("debug/ringfence-other-layout"),
    };
    ensure!(
        path.is_file(),
        "no {}: run `cargo xtask build --other-layout`",
        path.display()
    );
    Ok(path)
}

/// The target directory that this program is in.
fn target() -> Result<PathBuf> {
    let exe = std::env::current_exe().context("finding this executable")?;
    // A test is <target>/<profile>/deps/NAME, a binary <target>/<profile>/NAME.
    let target = exe
        .ancestors()
        .find(|dir| dir.join("debug").is_dir() || dir.join("release").is_dir())
        .ok_or_else(|| anyhow!("{} is not in a target directory", exe.display()))?;
    Ok(target.to_owned())
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    let start = lines.len().saturating_sub(40);
    lines.get(start..).unwrap_or_default().join("\n")
}
