//! Many clients of the metrics listener and the control API.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::chaos::network::Network;
use crate::netns::NetNs;

/// Connections that send nothing.
const IDLE: usize = 1100;
/// Clients that ask all the time.
const BUSY: usize = 4;
/// How long a client waits.
const SHORT: Duration = Duration::from_millis(250);

/// This process holds the other ends of all these connections.
fn allow_descriptors() -> Result<()> {
    let (now, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = now.max(8192);
    ensure!(wanted <= most, "at most {most} descriptors per process");
    Ok(setrlimit(Resource::RLIMIT_NOFILE, wanted, most)?)
}

/// They come, and while they are there a change of policy is put in force.
pub(super) fn crowd(network: &mut Network, lasting: Duration) -> Result<String> {
    allow_descriptors()?;
    let status = network.agent.cli_json(&["status"])?;
    let listen = status.get("metrics_listen").and_then(|at| at.as_str());
    let listen: SocketAddr = listen.context("an address")?.parse()?;
    let connect = |_| TcpStream::connect_timeout(&listen, Duration::from_secs(3)).ok();
    let ns = network.hosts.node.ns.clone();
    let idle: Vec<_> = ns.run(|| (0..IDLE).map_while(connect).collect())?;
    ensure!(idle.len() > IDLE / 2, "only {} connections", idle.len());

    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let socket = network.agent.socket_path();
    std::thread::scope(|scope| -> Result<()> {
        for _ in 0..BUSY {
            scope.spawn(|| ask_metrics(&ns, listen, &stop, &answered));
        }
        scope.spawn(|| ask_control(&socket, &stop));
        let changed = network.apply_policies();
        // How long the fault lasts.
        std::thread::sleep(lasting);
        stop.store(true, Ordering::Release);
        changed
    })?;
    let answered = answered.load(Ordering::Acquire);
    ensure!(answered > 0, "no client was answered");
    Ok(format!("{} idle clients, {answered} pages", idle.len()))
}

fn ask_metrics(ns: &NetNs, listen: SocketAddr, stop: &AtomicBool, answered: &AtomicU64) {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&listen, SHORT)?;
        stream.set_read_timeout(Some(SHORT))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut page = Vec::new();
        stream.read_to_end(&mut page)?;
        Ok(page.ends_with(b"# EOF\n"))
    };
    // A client that is not answered asks again.
    let _ = ns.run(|| {
        while !stop.load(Ordering::Acquire) {
            answered.fetch_add(u64::from(ask().unwrap_or(false)), Ordering::AcqRel);
        }
    });
}

fn ask_control(socket: &Path, stop: &AtomicBool) {
    while !stop.load(Ordering::Acquire) {
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
