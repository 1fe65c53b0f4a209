//! Two agents over the same pins or the same state: the second one never writes a map.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringfence_testbed::{Agent, eventually};

use crate::testbed::{DENY_ALL, ProbeSpec, SOON, Tcp, Testbed, Udp, probing, run};

const DENIED: [ProbeSpec; 2] = [
    ("client", "server", Tcp(8080)),
    ("client", "server", Udp(53)),
];
/// As long as an agent may take to start on a busy machine.
const START: Duration = Duration::from_secs(60);

fn testbed() -> Result<Testbed> {
    Testbed::new(&[("shop", &[])])?
        .with_labels("shop/client", &[])?
        .with_labels("shop/server", &[])
}

/// What a second agent has for itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Own {
    State,
    Pins,
}

/// A second agent, without policies, whose configuration is next to the first one's.
struct Second<'a> {
    first: &'a Agent,
    config: PathBuf,
    child: Option<Child>,
}

impl<'a> Second<'a> {
    /// Another run-dir, and another state-dir or other pins.
    fn next_to(first: &'a Agent, own: Own) -> Result<Self> {
        let dir = |name: &str| first.dir().join(name).to_string_lossy().into_owned();
        let mut config = fs::read_to_string(first.config_path())?;
        let mut give = |old: &str, new: &str| {
            ensure!(config.contains(&dir(old)), "no {old} in {config}");
            config = config.replace(&format!("\"{}\"", dir(old)), &format!("\"{}\"", dir(new)));
            Ok(())
        };
        give("run", "second-run")?;
        give("policies.toml", "no-policies.toml")?;
        match own {
            Own::State => give("state", "second-state")?,
            Own::Pins => give("bpffs", "bpffs/second")?,
        }
        first.write_document("no-policies.toml", "")?;
        first.write_document("second.toml", &config)?;
        Ok(Self {
            first,
            config: first.dir().join("second.toml"),
            child: None,
        })
    }

    fn spawn(&mut self, options: &[&str]) -> Result<()> {
        let mut command = self.first.command();
        let child = command
            .args(["agent", "--config"])
            .arg(&self.config)
            .args(options)
            .stdout(Stdio::null())
            .stderr(File::create(self.first.dir().join("second-stderr"))?)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    fn stderr(&self) -> Result<String> {
        Ok(fs::read_to_string(self.first.dir().join("second-stderr"))?)
    }

    fn child(&mut self) -> Result<&mut Child> {
        self.child.as_mut().context("no second agent")
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        let child = self.child()?;
        eventually(START, "the exit of the second agent", || {
            Ok(child.try_wait()?)
        })
    }

    fn terminate(&mut self) -> Result<ExitStatus> {
        kill(
            Pid::from_raw(self.child()?.id().try_into()?),
            Signal::SIGTERM,
        )?;
        self.wait()
    }

    /// A command to the second agent.
    fn cli(&self, arguments: &[&str]) -> Result<Output> {
        let socket = self.first.dir().join("second-run/ringfence.sock");
        let mut command = self.first.command();
        Ok(command
            .env("RINGFENCE_SOCKET", socket)
            .args(arguments)
            .output()?)
    }

    /// Where it says whether it is ready; it logs that while it waits.
    fn health(&self) -> Result<String> {
        eventually(SOON, "the second agent's health listener", || {
            let log = self.stderr()?;
            let line = log.lines().find(|line| line.contains("readyz says so on"));
            Ok(line.and_then(|line| Some(line.rsplit_once(' ')?.1.to_owned())))
        })
    }
}

impl Drop for Second<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The text of an exit with status 2 that names the holder and what to do.
fn expect_refusal(status: ExitStatus, text: &str, pid: u32, remedy: &str) -> Result<()> {
    ensure!(status.code() == Some(2), "{status}: {text}");
    for expected in [format!("pid {pid} "), remedy.to_owned()] {
        ensure!(text.contains(&expected), "no {expected:?} in: {text}");
    }
    Ok(())
}

#[test]
fn a_second_agent_exits_with_status_2_and_opens_nothing() -> Result<()> {
    let testbed = testbed()?;
    let agent = testbed.agent("observe", DENY_ALL)?;
    testbed.expect_answered(&DENIED).context("the control")?;
    testbed.set_mode(&agent, "enforce")?;
    let pid = agent.pid().context("the first agent")?;
    for own in [Own::State, Own::Pins] {
        let mut second = Second::next_to(&agent, own)?;
        probing(&testbed, &DENIED, &[], || {
            second.spawn(&[])?;
            let status = second.wait()?;
            expect_refusal(status, &second.stderr()?, pid, "--wait-for-lock")
        })?;
    }
    ensure!(agent.cli(&["status"])?.status.success());
    Ok(())
}

#[test]
fn a_waiting_agent_says_so_and_takes_over() -> Result<()> {
    let testbed = testbed()?;
    let mut agent = testbed.agent("observe", DENY_ALL)?;
    testbed.expect_answered(&DENIED).context("the control")?;
    testbed.set_mode(&agent, "enforce")?;
    let pid = agent.pid().context("the first agent")?;

    // One that is told to end while it waits ends at once, and well.
    let mut second = Second::next_to(&agent, Own::State)?;
    second.spawn(&["--wait-for-lock"])?;
    second.health()?;
    ensure!(second.terminate()?.success(), "{}", second.stderr()?);

    let config = fs::read_to_string(&second.config)?;
    let config = config
        .replace("no-policies.toml", "policies.toml")
        .replace("\"observe\"", "\"enforce\"");
    agent.write_document("second.toml", &config)?;
    second.spawn(&["--wait-for-lock"])?;
    let health = second.health()?;
    let ready = agent.http_response(&health, "/readyz")?;
    ensure!(
        ready.starts_with("HTTP/1.1 503") && ready.contains(&format!("pid {pid} ")),
        "{ready}"
    );
    let alive = agent.http_response(&health, "/livez")?;
    ensure!(alive.starts_with("HTTP/1.1 200"), "{alive}");
    ensure!(!second.cli(&["status"])?.status.success());

    kill(Pid::from_raw(pid.try_into()?), Signal::SIGKILL)?;
    probing(&testbed, &DENIED, &[], || {
        eventually(START, "the takeover", || {
            Ok(second.cli(&["status"])?.status.success().then_some(()))
        })
    })
    .with_context(|| second.stderr().unwrap_or_default())?;
    let ready = agent.http_response(&health, "/readyz")?;
    ensure!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    let set = second.cli(&["mode", "set", "shop", "observe"])?;
    ensure!(set.status.success(), "{set:?}");
    testbed
        .expect_answered(&DENIED)
        .context("what the second agent published")?;

    // The first one's socket is dead, and its pins are in use.
    let pid = second.child()?.id();
    let config = agent.config_path().to_string_lossy().into_owned();
    let refused = agent.cli(&["cleanup", "--config", &config])?;
    let text = String::from_utf8_lossy(&refused.stderr);
    expect_refusal(refused.status, &text, pid, "end that agent first")?;
    drop(second);
    run(&agent, &["cleanup", "--config", &config])?;
    let left = fs::read_dir(agent.dir().join("state"))?.count();
    ensure!(left == 0, "{left} files in the state directory");
    agent.kill()
}
