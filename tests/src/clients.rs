//! Clients of the agent's listeners that cost it something: idle connections, and requests one after
//! another.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::netns::NetNs;

/// More than the descriptors that a service has by default.
const IDLE: usize = 1100;
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(3);
/// How long a client waits for a response.
const SHORT: Duration = Duration::from_millis(250);

/// Connections that send nothing. Those that the agent does not accept wait in its queue, and when that
/// is full there are no more. Raises the limit of this process, which holds their other ends.
pub fn idle(ns: &NetNs, listen: SocketAddr) -> Result<Vec<TcpStream>> {
    let (now, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = now.max(8192);
    ensure!(wanted <= most, "at most {most} descriptors per process");
    setrlimit(Resource::RLIMIT_NOFILE, wanted, most)?;
    let connect = |_| TcpStream::connect_timeout(&listen, CONNECT).ok();
    let idle: Vec<_> = ns.run(|| (0..IDLE).map_while(connect).collect())?;
    ensure!(idle.len() > IDLE / 2, "only {} connections", idle.len());
    Ok(idle)
}

/// Asks for listings at the control API until told to stop.
pub fn ask_control(socket: &Path, stop: &AtomicBool) {
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
