//! Clients of the metrics listener and of the control API, many, idle and busy: what the node is
//! asked to enforce is in force as soon as without them.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::clients::{self, idle};
use ringfence_testbed::{Agent, Attributes, NetNs, eventually};

use crate::testbed::{DENY_ALL, ProbeSpec, SHORT, Tcp, Testbed};

/// Fewer than the idle connections.
const DESCRIPTORS: u64 = 1024;
/// How long a change may take to be in force. Without clients it takes milliseconds.
const IN_FORCE: Duration = Duration::from_secs(3);

const OLD: [ProbeSpec; 1] = [("client", "server", Tcp(8080))];
const LATE: [ProbeSpec; 1] = [("client", "late", Tcp(8080))];

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
        scope.spawn(|| clients::ask_control(&socket, &stop));
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
