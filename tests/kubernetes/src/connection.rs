//! A TCP connection of a pod that stays open.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};
use ringfence_cluster::namespaces::Namespaces;

use crate::pods::{PORT, Pod};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection from a pod to another one's server.
pub struct Connection(TcpStream);

impl Connection {
    /// Opens it, with a socket in the client's network namespace.
    pub fn open(client: &Pod, server: &Pod) -> Result<Self> {
        let (from, to) = (client.addresses.first(), server.addresses.first());
        let (from, to) = from.copied().zip(to.copied()).context("no addresses")?;
        let to = SocketAddr::new(to, PORT);
        let open = || {
            let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(stream)
        };
        Ok(Self(network_of(from)?.run(open)?))
    }

    /// Whether the server answers on it.
    pub fn asks(&mut self) -> Result<bool> {
        // Not by `?`: that it is broken is an answer.
        let request = b"GET /hostname HTTP/1.1\r\nHost: server\r\n\r\n";
        if self.0.write_all(request).is_err() {
            return Ok(false);
        }
        let mut answer = [0; 4096];
        let length = self.0.read(&mut answer).unwrap_or_default();
        let answer = answer.get(..length).unwrap_or_default();
        Ok(answer.starts_with(b"HTTP/1.1 200"))
    }
}

/// The network namespace of the pod with this address.
fn network_of(address: IpAddr) -> Result<Namespaces> {
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Ok(pid) = name.parse::<i32>() else {
            continue;
        };
        let program = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if !program.starts_with(b"/bin/agnhost") && !program.starts_with(b"agnhost") {
            continue;
        }
        let Ok(network) = Namespaces::network_of(pid) else {
            continue;
        };
        // Only its owner can listen on an address.
        let listens = || Ok(TcpListener::bind((address, 0)).is_ok());
        if network.run(listens).unwrap_or_default() {
            return Ok(network);
        }
    }
    anyhow::bail!("no process of a pod with the address {address}")
}
