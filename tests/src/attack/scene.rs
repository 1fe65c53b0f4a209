//! The scene of one case: a lane, an IP version, a peer and ports that nothing used before, and
//! what is sent so far.

use std::net::IpAddr;

use ringfence_common::drop_reason::DropReason;

use super::craft::{self, flag};
use super::dice::Dice;
use super::ground::{self, Lane, number};
use super::shot::{Expect, Offload, Shot};

/// What a member of a family writes its frames with.
#[derive(Debug)]
pub struct Scene<'a> {
    /// Chance, as the seed has it.
    pub dice: &'a mut Dice,
    /// IPv6 rather than IPv4.
    pub v6: bool,
    /// Which way the attack goes.
    pub lane: Lane,
    /// The peer of the workload.
    pub peer: IpAddr,
    /// A port of no meaning, for whoever opens the flow.
    pub port: u16,
    shots: Vec<Shot>,
}

impl<'a> Scene<'a> {
    /// A fresh scene.
    pub fn new(dice: &'a mut Dice, v6: bool, lane: Lane) -> Self {
        let peer = ground::peer(v6, dice);
        let port = dice.between(20_000, 60_000);
        Self {
            dice,
            v6,
            lane,
            peer,
            port,
            shots: Vec::new(),
        }
    }

    /// What was sent.
    #[must_use]
    pub fn into_shots(self) -> Vec<Shot> {
        self.shots
    }

    /// The fenced workload's address.
    #[must_use]
    pub const fn own(&self) -> IpAddr {
        ground::workload(self.v6)
    }

    /// Sender and receiver of this lane.
    #[must_use]
    pub const fn ends(&self) -> (IpAddr, IpAddr) {
        self.ends_of(self.lane)
    }

    /// Sender and receiver of a lane.
    #[must_use]
    pub const fn ends_of(&self, lane: Lane) -> (IpAddr, IpAddr) {
        match lane {
            Lane::Out => (self.own(), self.peer),
            Lane::In => (self.peer, self.own()),
        }
    }

    /// The port that policy allows on this lane.
    #[must_use]
    pub const fn service(&self, protocol: u8) -> u16 {
        ground::service(self.lane, protocol)
    }

    /// A port that policy allows on no lane.
    pub fn closed(&mut self) -> u16 {
        self.dice.between(100, 5000)
    }

    /// ICMP of this IP version.
    #[must_use]
    pub const fn icmp(&self) -> u8 {
        craft::icmp_of(self.v6)
    }

    /// A packet of this lane in its frame.
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

    /// Sends a frame on this lane.
    pub fn send(&mut self, expect: Expect, frame: Vec<u8>) {
        self.send_on(self.lane, expect, frame);
    }

    /// Sends a frame on a lane.
    pub fn send_on(&mut self, lane: Lane, expect: Expect, frame: Vec<u8>) {
        self.shots.push(Shot {
            lane,
            frame,
            offload: None,
            expect,
        });
    }

    /// Sends a frame for the kernel to cut, or to finish its checksum.
    pub fn send_offloaded(&mut self, expect: Expect, frame: Vec<u8>, offload: Offload) {
        self.shots.push(Shot {
            lane: self.lane,
            frame,
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
        self.send_on(self.lane.back(), Expect::Permitted, frame);
    }

    /// Sends what must not arrive.
    pub fn deny(&mut self, reason: DropReason, frame: Vec<u8>) {
        self.send(Expect::Denied(Some(reason)), frame);
    }

    /// Sends, the other way, what must not arrive.
    pub fn deny_back(&mut self, reason: DropReason, frame: Vec<u8>) {
        self.send_on(self.lane.back(), Expect::Denied(Some(reason)), frame);
    }

    /// An allowed connection with its handshake done, opened in this lane's direction.
    pub fn connect(&mut self) {
        let port = self.service(number::TCP);
        let open = [
            (false, flag::SYN),
            (true, flag::SYN | flag::ACK),
            (false, flag::ACK),
        ];
        for (back, flags) in open {
            if back {
                let segment = craft::tcp(port, self.port, flags);
                self.permit_back(self.frame_back(number::TCP, &segment));
            } else {
                let segment = craft::tcp(self.port, port, flags);
                self.permit(self.frame(number::TCP, &segment));
            }
        }
    }

    /// An allowed exchange of datagrams, opened in this lane's direction.
    pub fn exchange(&mut self) {
        let port = self.service(number::UDP);
        let question = craft::udp(self.port, port, b"question");
        self.permit(self.frame(number::UDP, &question));
        let answer = craft::udp(port, self.port, b"answer");
        self.permit_back(self.frame_back(number::UDP, &answer));
    }

    /// UDP of this lane to a port.
    #[must_use]
    pub fn datagram(&self, port: u16) -> Vec<u8> {
        let datagram = craft::udp(self.port, port, b"attacking");
        self.frame(number::UDP, &datagram)
    }

    /// TCP of this lane to a port.
    #[must_use]
    pub fn segment(&self, port: u16, flags: u8) -> Vec<u8> {
        self.frame(number::TCP, &craft::tcp(self.port, port, flags))
    }
}
