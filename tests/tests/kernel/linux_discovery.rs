//! What this kernel sends when an interface comes up, looks for neighbours and joins groups: all of it
//! passes.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use ringfence_testbed::{NetNs, eventually, frame::packet_socket};

use crate::fence::{Fence, LOCAL, Leaving, OTHER};
use crate::frames::IP;

const SOON: Duration = Duration::from_secs(20);
/// Fewer than a report may be about, with those that the addresses need.
const GROUPS: u16 = 30;

/// What a frame is, if discovery passes for it.
fn what(frame: &[u8]) -> Option<&'static str> {
    let unspecified = frame.get(IP + 8..IP + 24) == Some(&[0; 16]);
    match (&frame[12..14], frame.get(IP + 6), frame.get(IP + 40)) {
        ([0x08, 0x06], ..) => Some("ARP"),
        ([0x86, 0xdd], Some(0), _) => match frame.get(IP + 48) {
            Some(131 | 143) => Some("listener report"),
            _ => None,
        },
        ([0x86, 0xdd], Some(58), Some(133)) => Some("router solicitation"),
        ([0x86, 0xdd], Some(58), Some(135)) if unspecified => Some("duplicate address detection"),
        ([0x86, 0xdd], Some(58), Some(135)) => Some("neighbour solicitation"),
        ([0x86, 0xdd], Some(58), Some(136)) => Some("neighbour advertisement"),
        _ => None,
    }
}

/// Sends a datagram to a neighbour that must be looked for, and joins groups.
fn send_and_join() -> Vec<UdpSocket> {
    let send = |v6: bool| {
        let any: IpAddr = if v6 {
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            [0, 0, 0, 0].into()
        };
        let socket = UdpSocket::bind((any, 0)).unwrap();
        // Until the address may be used there is no route.
        let _ = socket.send_to(b"?", (OTHER.ip(v6), 9));
        socket
    };
    let sockets = vec![send(false), send(true)];
    let index = nix::net::if_::if_nametoindex("eth0").unwrap();
    for last in 0..GROUPS {
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0xfb, last);
        sockets[1].join_multicast_v6(&group, index).unwrap();
    }
    sockets
}

#[test]
fn what_a_linux_host_sends_passes() {
    let (host, link) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    let peer = link.path();
    host.ip(&format!(
        "link add eth0 address 02:00:00:00:00:02 type veth peer name eth0 netns {}\n",
        peer.display(),
    ))
    .unwrap();
    host.sysctl("net.ipv6.conf.eth0.ndisc_notify", "1").unwrap();
    link.sysctl("net.ipv6.conf.all.disable_ipv6", "1").unwrap();
    link.ip("link set eth0 up\n").unwrap();
    let mut tap = link.run(|| packet_socket("eth0", 3)).unwrap().unwrap();
    host.ip(&format!(
        "address add {}/16 dev eth0\naddress add {}/64 dev eth0\nlink set eth0 up\n",
        LOCAL.ip(false),
        LOCAL.ip(true),
    ))
    .unwrap();
    let expected = BTreeSet::from([
        "ARP",
        "duplicate address detection",
        "listener report",
        "neighbour advertisement",
        "neighbour solicitation",
        "router solicitation",
    ]);
    let mut sockets = Vec::new();
    let mut frames: Vec<Vec<u8>> = Vec::new();
    eventually(SOON, "every kind of discovery", || {
        let mut buffer = [0; 2048];
        while let Ok(length) = tap.read(&mut buffer) {
            frames.push(buffer[..length].to_vec());
        }
        let seen: BTreeSet<_> = frames.iter().filter_map(|frame| what(frame)).collect();
        if seen.contains("neighbour advertisement") {
            // Its address may be used.
            sockets.push(host.run(send_and_join)?);
        }
        Ok((seen == expected).then_some(()))
    })
    .unwrap();
    let mut fence = Fence::new();
    for frame in &frames {
        if let Some(what) = what(frame) {
            fence.passes(Leaving, frame, what);
        }
    }
}
