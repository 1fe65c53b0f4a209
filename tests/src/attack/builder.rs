//! Builds one case: a direction, an IP version, an unused peer and port, and the frames so far.

use std::net::IpAddr;

use ringfence_common::drop_reason::DropReason;

use super::case::{Expect, Offload, Rejected, TestFrame};
use super::craft::{self, flag};
use super::fixture::{self, Direction, protocol};
use super::rng::Rng;

/// The context in which a member of a family builds its frames.
#[derive(Debug)]
pub struct CaseBuilder<'a> {
    /// The random number generator.
    pub rng: &'a mut Rng,
    /// IPv6 rather than IPv4.
    pub v6: bool,
    /// The direction of the attack.
    pub direction: Direction,
    /// The peer of the workload.
    pub peer: IpAddr,
    /// A random port for the originator of the flow.
    pub port: u16,
    frames: Vec<TestFrame>,
}

impl<'a> CaseBuilder<'a> {
    /// An empty case with an unused peer and port.
    pub fn new(rng: &'a mut Rng, v6: bool, direction: Direction) -> Self {
        let peer = fixture::peer(v6, rng);
        let port = rng.between(20_000, 60_000);
        Self {
            rng,
            v6,
            direction,
            peer,
            port,
            frames: Vec::new(),
        }
    }

    /// The frames of the case.
    #[must_use]
    pub fn into_frames(self) -> Vec<TestFrame> {
        self.frames
    }

    /// The fenced workload's address.
    #[must_use]
    pub const fn workload(&self) -> IpAddr {
        fixture::workload(self.v6)
    }

    /// Sender and receiver of this direction.
    #[must_use]
    pub const fn ends(&self) -> (IpAddr, IpAddr) {
        self.ends_of(self.direction)
    }

    /// Sender and receiver of a direction.
    #[must_use]
    pub const fn ends_of(&self, direction: Direction) -> (IpAddr, IpAddr) {
        match direction {
            Direction::Out => (self.workload(), self.peer),
            Direction::In => (self.peer, self.workload()),
        }
    }

    /// The port that policy allows in this direction.
    #[must_use]
    pub const fn allowed_port(&self, protocol: u8) -> u16 {
        fixture::allowed_port(self.direction, protocol)
    }

    /// A port that policy allows in neither direction.
    pub fn denied_port(&mut self) -> u16 {
        self.rng.between(100, 5000)
    }

    /// The ICMP protocol number of this IP version.
    #[must_use]
    pub const fn icmp(&self) -> u8 {
        craft::icmp_of(self.v6)
    }

    /// A frame with a packet of this direction.
    #[must_use]
    pub fn frame(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let (from, to) = self.ends();
        self.identified(craft::ip_frame(from, to, protocol, payload))
    }

    /// A frame with a packet of the other direction.
    #[must_use]
    pub fn frame_back(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let (to, from) = self.ends();
        self.identified(craft::ip_frame(from, to, protocol, payload))
    }

    /// With an IPv4 identification of this case: mutations make fragments of packets, and those of two cases
    /// with the same ends must not be fragments of one packet.
    fn identified(&self, frame: Vec<u8>) -> Vec<u8> {
        if self.peer.is_ipv6() {
            return frame;
        }
        craft::with_bytes(frame, craft::IP + 4, &self.port.to_be_bytes())
    }

    /// Adds a frame of this direction.
    pub fn send(&mut self, expect: Expect, frame: Vec<u8>) {
        self.send_on(self.direction, expect, frame);
    }

    /// Adds a frame of the given direction.
    pub fn send_on(&mut self, direction: Direction, expect: Expect, frame: Vec<u8>) {
        self.frames.push(TestFrame {
            direction,
            bytes: frame,
            offload: None,
            expect,
            rejected: Rejected::No,
        });
    }

    /// Adds a frame that the kernel segments, or whose checksum it completes.
    pub fn send_offloaded(&mut self, expect: Expect, frame: Vec<u8>, offload: Offload) {
        self.frames.push(TestFrame {
            direction: self.direction,
            bytes: frame,
            offload: Some(offload),
            expect,
            rejected: Rejected::No,
        });
    }

    /// Adds a frame that must not arrive, and whose sender gets a reject packet.
    pub fn reject(&mut self, frame: Vec<u8>) {
        self.deny(DropReason::Policy, frame);
        self.reject_last();
    }

    /// The same in the other direction.
    pub fn reject_back(&mut self, frame: Vec<u8>) {
        self.deny_back(DropReason::Policy, frame);
        self.reject_last();
    }

    /// The same for a frame that the kernel segments, or whose checksum it completes.
    pub fn reject_offloaded(&mut self, frame: Vec<u8>, offload: Offload) {
        self.send_offloaded(Expect::Denied(Some(DropReason::Policy)), frame, offload);
        self.reject_last();
    }

    fn reject_last(&mut self) {
        if let Some(last) = self.frames.last_mut() {
            last.rejected = Rejected::Yes;
        }
    }

    /// The sender of the last frame may get a reject packet or none.
    pub fn may_be_rejected(&mut self) {
        if let Some(last) = self.frames.last_mut() {
            last.rejected = Rejected::Unknown;
        }
    }

    /// Adds a frame that must arrive.
    pub fn permit(&mut self, frame: Vec<u8>) {
        self.send(Expect::Permitted, frame);
    }

    /// Adds a frame of the other direction that must arrive.
    pub fn permit_back(&mut self, frame: Vec<u8>) {
        self.send_on(self.direction.opposite(), Expect::Permitted, frame);
    }

    /// Adds a frame that must not arrive.
    pub fn deny(&mut self, reason: DropReason, frame: Vec<u8>) {
        self.send(Expect::Denied(Some(reason)), frame);
    }

    /// Adds a frame of the other direction that must not arrive.
    pub fn deny_back(&mut self, reason: DropReason, frame: Vec<u8>) {
        self.send_on(
            self.direction.opposite(),
            Expect::Denied(Some(reason)),
            frame,
        );
    }

    /// Adds an allowed connection with a complete handshake, opened in this direction.
    pub fn connect(&mut self) {
        let port = self.allowed_port(protocol::TCP);
        let open = [
            (false, flag::SYN),
            (true, flag::SYN | flag::ACK),
            (false, flag::ACK),
        ];
        for (back, flags) in open {
            if back {
                let segment = craft::tcp(port, self.port, flags);
                self.permit_back(self.frame_back(protocol::TCP, &segment));
            } else {
                let segment = craft::tcp(self.port, port, flags);
                self.permit(self.frame(protocol::TCP, &segment));
            }
        }
    }

    /// Adds an allowed exchange of datagrams, opened in this direction.
    pub fn exchange(&mut self) {
        let port = self.allowed_port(protocol::UDP);
        let request = craft::udp(self.port, port, b"question");
        self.permit(self.frame(protocol::UDP, &request));
        let reply = craft::udp(port, self.port, b"answer");
        self.permit_back(self.frame_back(protocol::UDP, &reply));
    }

    /// A UDP datagram of this direction to a port.
    #[must_use]
    pub fn datagram(&self, port: u16) -> Vec<u8> {
        let datagram = craft::udp(self.port, port, b"attacking");
        self.frame(protocol::UDP, &datagram)
    }

    /// A TCP segment of this direction to a port.
    #[must_use]
    pub fn segment(&self, port: u16, flags: u8) -> Vec<u8> {
        self.frame(protocol::TCP, &craft::tcp(self.port, port, flags))
    }
}
