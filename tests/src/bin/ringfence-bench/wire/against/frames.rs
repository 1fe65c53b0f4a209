//! UDP frames sent on a workload's device, each with ports of its own.
//!
//! A frame is built once; for each packet only its ports and its checksum are rewritten. The device
//! at the other end counts arrivals, which costs no packet anything.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::frame::{self, IPV4, IPV6, packet_socket};
use socket2::Socket;

use super::twin::End;

/// With an IPv4 header this makes the shortest Ethernet frame.
const PAYLOAD: [u8; 18] = [0; 18];

/// Puts frames from one workload to another on the first one's `eth0`.
pub(super) struct Sender {
    socket: Socket,
    frame: Vec<u8>,
    /// Offset of the UDP header.
    header: usize,
    /// The checksum over everything that stays the same.
    sum: u32,
}

impl Sender {
    pub(super) fn open(from: &End, to: &End, v6: bool) -> Result<Self> {
        let (source, target) = (from.workload.ip(v6), to.workload.ip(v6));
        let packet = frame::udp((source, 0), (target, 0), &PAYLOAD)?;
        let ethertype = if v6 { IPV6 } else { IPV4 };
        let frame = frame::ethernet(from.gateway, from.mac, ethertype, &packet);
        let header = if v6 { 54 } else { 34 };
        let checksum = frame.get(header + 6..header + 8).context("a checksum")?;
        let sum = match *checksum {
            [high, low] => u32::from(!u16::from_be_bytes([high, low])),
            _ => 0,
        };
        let socket = from.workload.ns.run(|| packet_socket("eth0", 0))?;
        let socket = socket.context("opening a packet socket")?;
        socket.set_nonblocking(false)?;
        Ok(Self {
            socket,
            frame,
            header,
            sum,
        })
    }

    /// Sends one frame; it has reached the other end when this returns.
    pub(super) fn send(&mut self, source: u16, target: u16) -> Result<()> {
        let sum = self.sum + u32::from(source) + u32::from(target);
        let fields = [(0, source), (2, target), (6, checksum(sum))];
        for (offset, field) in fields {
            let at = self.header + offset;
            let bytes = self.frame.get_mut(at..at + 2).context("a UDP header")?;
            bytes.copy_from_slice(&field.to_be_bytes());
        }
        let sent = self.socket.send(&self.frame).context("sending a frame")?;
        ensure!(sent == self.frame.len(), "a frame was sent in part");
        Ok(())
    }
}

fn checksum(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !u16::try_from(sum).unwrap_or_default();
    // Zero would mean "no checksum".
    if sum == 0 { u16::MAX } else { sum }
}

/// How many frames the `eth0` of a workload has received.
pub(super) struct Arrivals(File);

impl Arrivals {
    pub(super) fn of(end: &End) -> Result<Self> {
        // The file still shows the network namespace in which it was opened.
        let open = || File::open("/proc/thread-self/net/dev");
        let file = end.workload.ns.run(open)?;
        Ok(Self(file.context("opening the counters of a device")?))
    }

    pub(super) fn count(&self) -> Result<u64> {
        let mut buffer = [0; 4096];
        let length = self.0.read_at(&mut buffer, 0)?;
        let text = buffer.get(..length).unwrap_or_default();
        received(&String::from_utf8_lossy(text)).context("no counters of eth0")
    }
}

/// The second number of `eth0`: bytes, then packets.
fn received(text: &str) -> Option<u64> {
    let mut lines = text.lines();
    let counters = lines.find_map(|line| line.trim_start().strip_prefix("eth0:"))?;
    counters.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn received_packets_are_the_second_number() {
        let text = "Inter-|   Receive  |\n face |bytes    packets errs\n    lo:  1 2 3\n  eth0: 126 7 0 0\n";
        assert_eq!(received(text), Some(7));
        assert_eq!(received("lo: 1 2"), None);
    }

    #[test]
    fn checksums_are_adjusted_for_ports() {
        let ips: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()];
        let field = |packet: &[u8]| u16::from_be_bytes([packet[26], packet[27]]);
        let packet = |from, to| frame::udp((ips[0], from), (ips[1], to), &PAYLOAD).unwrap();
        let base = u32::from(!field(&packet(0, 0)));
        for (from, to) in [(1, 2), (10_000, 9000), (65_535, 65_535)] {
            let adjusted = checksum(base + u32::from(from) + u32::from(to));
            assert_eq!(adjusted, field(&packet(from, to)));
        }
    }
}
