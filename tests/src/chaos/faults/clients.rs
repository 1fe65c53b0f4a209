//! Many clients of the metrics listener and the control API.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::chaos::network::Network;
use crate::clients;
use crate::netns::NetNs;

/// Clients that ask all the time.
const BUSY: usize = 4;
/// How long a client waits.
const SHORT: Duration = Duration::from_millis(250);

/// They come, and while they are there a change of policy is put in force.
pub(super) fn crowd(network: &mut Network, lasting: Duration) -> Result<String> {
    let status = network.agent.cli_json(&["status"])?;
    let listen = status.get("metrics_listen").and_then(|at| at.as_str());
    let listen: SocketAddr = listen.context("an address")?.parse()?;
    let ns = network.hosts.node.ns.clone();
    let idle = clients::idle(&ns, listen)?;
    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let socket = network.agent.socket_path();
    std::thread::scope(|scope| -> Result<()> {
        for _ in 0..BUSY {
            scope.spawn(|| ask_metrics(&ns, listen, &stop, &answered));
        }
        scope.spawn(|| clients::ask_control(&socket, &stop));
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
