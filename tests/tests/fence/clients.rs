//! Clients of the metrics listener and of the control API, many, idle and busy: what the node is
//! asked to enforce is in force as soon as without them.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ringfence_testbed::{Agent, Attributes, NetNs, eventually};

use crate::testbed::{DENY_ALL, ProbeSpec, SHORT, Tcp, Testbed};

/// More than the descriptors that the agent may have here.
const IDLE: usize = 1100;
const DESCRIPTORS: u64 = 1024;
/// How long a change may take to be in force. Without clients it takes milliseconds.
const IN_FORCE: Duration = Duration::from_secs(3);

const OLD: [ProbeSpec; 1] = [("client", "server", Tcp(8080))];
const LATE: [ProbeSpec; 1] = [("client", "late", Tcp(8080))];

/// This process holds the other ends of all these connections.
fn allow_descriptors() -> Result<()> {
    let (now, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = now.max(4 * IDLE as u64);
    ensure!(wanted <= most, "at most {most} descriptors per process");
    Ok(setrlimit(Resource::RLIMIT_NOFILE, wanted, most)?)
}

/// Gives the running agent as many descriptors as a service has by default.
fn limit_descriptors(agent: &Agent) -> Result<()> {
    let pid = agent.pid().context("the agent")?.to_string();
    let limit = format!("--nofile={DESCRIPTORS}:{DESCRIPTORS}");
    let status = Command::new("prlimit")
        .args(["--pid", &pid, &limit])
        .status()?;
    ensure!(status.success(), "prlimit: {status}");
    Ok(())
}

/// Connections that send nothing. Those that the agent does not accept wait in its queue, and when that
/// is full there are no more.
fn idle(ns: &NetNs, listen: SocketAddr) -> Result<Vec<TcpStream>> {
    let connect = |_| TcpStream::connect_timeout(&listen, IN_FORCE).ok();
    let idle: Vec<_> = ns.run(|| (0..IDLE).map_while(connect).collect())?;
    ensure!(idle.len() > IDLE / 2, "only {} connections", idle.len());
    Ok(idle)
}

/// Asks for a page again and again until told to stop; every tenth time without reading it.
fn hammer(ns: &NetNs, listen: SocketAddr, stop: &AtomicBool, answered: &AtomicU64) -> Result<()> {
    ns.run(|| {
        let mut slow = Vec::new();
        for round in 0_u64.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let Ok(mut stream) = TcpStream::connect_timeout(&listen, SHORT) else {
                continue;
            };
            let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            let _ = stream.set_read_timeout(Some(SHORT));
            if stream.write_all(request.as_bytes()).is_err() {
                continue;
            }
            if round % 10 == 0 {
                slow.push(stream);
                slow.truncate(20);
                continue;
            }
            let mut page = Vec::new();
            let _ = stream.read_to_end(&mut page);
            answered.fetch_add(u64::from(page.ends_with(b"# EOF\n")), Ordering::Relaxed);
        }
    })
}

/// The same at the control API.
fn hammer_control(socket: &Path, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        for path in ["rules", "identities", "endpoints", "flows"] {
            let Ok(mut stream) = UnixStream::connect(socket) else {
                continue;
            };
            let _ = stream.set_read_timeout(Some(SHORT));
            let request =
                format!("GET /v1/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            let mut page = Vec::new();
            let _ = stream.write_all(request.as_bytes());
            let _ = stream.read_to_end(&mut page);
        }
    }
}

/// Waits until no probe arrives; returns how long that took.
fn until_silent(testbed: &Testbed, probes: &[ProbeSpec], what: &str) -> Result<Duration> {
    let began = Instant::now();
    eventually(IN_FORCE, what, || {
        Ok(testbed.all_silent(probes).then_some(()))
    })?;
    Ok(began.elapsed())
}

#[test]
fn a_thousand_idle_clients_and_busy_ones_delay_no_change() -> Result<()> {
    let mut testbed = Testbed::new(&[("shop", &[])])?
        .with_labels("shop/client", &[("app", "client")])?
        .with_labels("shop/server", &[("app", "server")])?;
    let agent = testbed.agent("enforce", "")?;
    testbed.expect_answered(&OLD).context("the control")?;
    limit_descriptors(&agent)?;
    allow_descriptors()?;
    let listen = agent.cli_json(&["status"])?;
    let listen = listen["metrics_listen"].as_str().context("an address")?;
    let (listen, text) = (listen.parse()?, listen.to_owned());
    let idle = idle(&testbed.node.ns, listen)?;

    // Not the agent's yet: nothing is in its way.
    let late = testbed.node.workload("shop", "late")?;
    testbed.add(late, Attributes::labels(&[("app", "late")]))?;
    testbed.expect_answered(&LATE).context("the control")?;

    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let socket = agent.socket_path();
    let outcome = std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| hammer(&testbed.node.ns, listen, &stop, &answered));
        }
        scope.spawn(|| hammer_control(&socket, &stop));
        let changes = || -> Result<()> {
            agent.write_policies(DENY_ALL)?;
            let took = until_silent(&testbed, &OLD, "a policy change in force")?;
            println!("policy change in force after {took:?}, at most");
            agent.write_inventory(&testbed.inventory().build())?;
            let took = until_silent(&testbed, &LATE, "a fence on a new endpoint")?;
            println!("new endpoint fenced after {took:?}, at most");
            let alive = agent.http_response(&text, "/livez")?;
            ensure!(alive.starts_with("HTTP/1.1 200"), "{alive}");
            Ok(())
        };
        let outcome = changes();
        stop.store(true, Ordering::Relaxed);
        outcome
    });
    let log = agent.stderr();
    outcome.with_context(|| format!("with {} idle clients; {log}", idle.len()))?;
    let answered = answered.load(Ordering::Relaxed);
    ensure!(answered > 0, "no client was answered");
    println!("{answered} pages answered");
    ensure!(agent.cli(&["status"])?.status.success());
    Ok(())
}
