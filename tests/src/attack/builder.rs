//! The builder of one case: a direction, an IP version, a peer and ports that nothing used before, and
//! what is sent so far.

use std::net::IpAddr;

use ringfence_common::drop_reason::DropReason;

use super::case::{Expect, Offload, TestFrame};
use super::craft::{self, flag};
use super::fixture::{self, Direction, protocol};
use super::rng::Rng;

/// What a member of a family writes its frames with.
#[derive(Debug)]
pub struct CaseBuilder<'a> {
    /// Chance, as the seed has it.
    pub rng: &'a mut Rng,
    /// IPv6 rather than IPv4.
    pub v6: bool,
    /// Which way the attack goes.
    pub direction: Direction,
    /// The peer of the workload.
    pub peer: IpAddr,
    /// A port of no meaning, for whoever opens the flow.
    pub port: u16,
    frames: Vec<TestFrame>,
}

impl<'a> CaseBuilder<'a> {
    /// A fresh builder.
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

    /// What was sent.
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

    /// The port that policy allows on this direction.
    #[must_use]
    pub const fn allowed_port(&self, protocol: u8) -> u16 {
        fixture::allowed_port(self.direction, protocol)
    }

    /// A port that policy allows on no direction.
    pub fn denied_port(&mut self) -> u16 {
        self.rng.between(100, 5000)
    }

    /// ICMP of this IP version.
    #[must_use]
    pub const fn icmp(&self) -> u8 {
        craft::icmp_of(self.v6)
    }

    /// A packet of this direction in its frame.
    #[must_use]
    pub fn frame(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let (from, to) = self.ends();
        craft::ip_frame(from, to, protocol, payload)
    }

    /// A packet of the other direction in its frame.
    #[must_use]
    pub fn frame_back(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let (to, from) = self.ends();
        craft::ip_frame(from, to, protocol, payload)
    }

    /// Sends a frame on this direction.
    pub fn send(&mut self, expect: Expect, frame: Vec<u8>) {
        self.send_on(self.direction, expect, frame);
    }

    /// Sends a frame on a direction.
    pub fn send_on(&mut self, direction: Direction, expect: Expect, frame: Vec<u8>) {
        self.frames.push(TestFrame {
            direction,
            bytes: frame,
            offload: None,
            expect,
        });
    }

    /// Sends a frame for the kernel to cut, or to finish its checksum.
    pub fn send_offloaded(&mut self, expect: Expect, frame: Vec<u8>, offload: Offload) {
        self.frames.push(TestFrame {
            direction: self.direction,
            bytes: frame,
            offload: Some(offload),
            expect,
        });
    }

    /// Sends what must arrive.
    pub fn permit(&mut self, frame: Vec<u8>) {
        self.send(Expect::Permitted, frame);
    }

    /// Sends, the other way, what must arrive.
    pub fn permit_back(&mut self, frame: Vec<u8>) {
        self.send_on(self.direction.opposite(), Expect::Permitted, frame);
    }

    /// Sends what must not arrive.
    pub fn deny(&mut self, reason: DropReason, frame: Vec<u8>) {
        self.send(Expect::Denied(Some(reason)), frame);
    }

    /// Sends, the other way, what must not arrive.
    pub fn deny_back(&mut self, reason: DropReason, frame: Vec<u8>) {
        self.send_on(
            self.direction.opposite(),
            Expect::Denied(Some(reason)),
            frame,
        );
    }

    /// An allowed connection with its handshake done, opened in this direction's direction.
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

    /// An allowed exchange of datagrams, opened in this direction's direction.
    pub fn exchange(&mut self) {
        let port = self.allowed_port(protocol::UDP);
        let question = craft::udp(self.port, port, b"question");
        self.permit(self.frame(protocol::UDP, &question));
        let answer = craft::udp(port, self.port, b"answer");
        self.permit_back(self.frame_back(protocol::UDP, &answer));
    }

    /// UDP of this direction to a port.
    #[must_use]
    pub fn datagram(&self, port: u16) -> Vec<u8> {
        let datagram = craft::udp(self.port, port, b"attacking");
        self.frame(protocol::UDP, &datagram)
    }

    /// TCP of this direction to a port.
    #[must_use]
    pub fn segment(&self, port: u16, flags: u8) -> Vec<u8> {
        self.frame(protocol::TCP, &craft::tcp(self.port, port, flags))
    }
}
