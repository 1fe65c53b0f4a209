//! UDP of many flows by one raw socket: thousands of established ones, and an unlimited number of
//! new and denied ones.
//!
//! A raw socket sends its data after an IP header from the kernel, so another port costs the sender
//! nothing and the same under every fence. Ordinary sockets receive the packets. The checksum is
//! computed once and adjusted for each packet.

use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::{Context as _, Result, bail, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use super::{End, FLOWS, Traffic, taken};
use crate::wire::world::PORTS;

const UDP: u8 = 17;
/// Length of a UDP header and a number of eight bytes.
const LENGTH: u16 = 16;
/// The first source port of flows, and their number.
const SOURCE: u16 = 10_000;
const SOURCES: u64 = 50_000;

/// Datagrams of a chosen source and target port.
struct Sender {
    socket: Socket,
    /// The checksum over everything that stays the same.
    base: u32,
}

impl Sender {
    fn open(from: &End, to: &End) -> Result<Self> {
        let domain = match to.ip {
            IpAddr::V4(_) => Domain::IPV4,
            IpAddr::V6(_) => Domain::IPV6,
        };
        let open = || Socket::new(domain, Type::RAW, Some(Protocol::UDP));
        let socket = from.ns.run(open)?.context("opening a raw socket")?;
        socket.bind(&from.at(0).into())?;
        socket.connect(&to.at(0).into())?;
        socket.set_nonblocking(true)?;
        let words = |ip: IpAddr| -> u32 {
            let octets = match ip {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            sum(&octets)
        };
        let lengths = 2 * u32::from(LENGTH);
        Ok(Self {
            socket,
            base: words(from.ip) + words(to.ip) + u32::from(UDP) + lengths,
        })
    }

    fn send(&self, source: u16, target: u16, number: u64) -> Result<()> {
        let mut datagram = [0; LENGTH as usize];
        let (header, payload) = datagram.split_at_mut(8);
        payload.copy_from_slice(&number.to_be_bytes());
        let sum = self.base + u32::from(source) + u32::from(target) + sum(payload);
        let fields = [source, target, LENGTH, checksum(sum)];
        for (place, field) in header.chunks_exact_mut(2).zip(fields) {
            place.copy_from_slice(&field.to_be_bytes());
        }
        let sent = self.socket.send(&datagram).context("sending")?;
        ensure!(sent == datagram.len(), "a datagram was sent in part");
        Ok(())
    }
}

fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks_exact(2).map(|word| match *word {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        _ => 0,
    });
    words.sum()
}

fn checksum(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !u16::try_from(sum).unwrap_or_default();
    // Zero would mean "no checksum".
    if sum == 0 { u16::MAX } else { sum }
}

fn arrived(receiver: &UdpSocket, number: u64) -> Result<()> {
    let mut buffer = [0; 16];
    let length = taken(receiver, &mut buffer, |buffer| receiver.recv(buffer))?;
    ensure!(
        length == 8 && buffer.first_chunk() == Some(&number.to_be_bytes()),
        "another datagram than was sent arrived"
    );
    Ok(())
}

fn bind(to: &End, port: u16) -> Result<UdpSocket> {
    let receiver = to.ns.run(|| UdpSocket::bind(to.at(port)))??;
    receiver.set_nonblocking(true)?;
    Ok(receiver)
}

/// Packets of [`FLOWS`] established flows, in turn.
pub(super) struct Flows {
    sender: Sender,
    receiver: UdpSocket,
    client: IpAddr,
    port: u16,
    next: u16,
    number: u64,
}

impl Flows {
    pub(super) fn open(from: &End, to: &End, port: u16) -> Result<Self> {
        Ok(Self {
            sender: Sender::open(from, to)?,
            receiver: bind(to, port)?,
            client: from.ip,
            port,
            next: 0,
            number: 0,
        })
    }

    /// The other end replies in one flow. Only the raw socket receives on that port.
    fn answer(&mut self, source: u16) -> Result<()> {
        let client = SocketAddr::new(self.client, source);
        self.receiver.send_to(&[0; 8], client)?;
        let mut buffer = [0; 64];
        let mut socket = &self.sender.socket;
        taken(&self.sender.socket, &mut buffer, |b| socket.read(b))?;
        Ok(())
    }
}

impl Traffic for Flows {
    fn establish(&mut self) -> Result<()> {
        self.next = 0;
        for _ in 0..FLOWS {
            let source = SOURCE + self.next;
            self.once()?;
            self.answer(source)?;
        }
        // The first packet after the reply establishes the flow, the second makes it assured.
        self.refresh()?;
        self.refresh()
    }

    /// Busy flows are measured: no flow has been silent for so long that its first packet costs
    /// more than the next ones.
    fn refresh(&mut self) -> Result<()> {
        (0..FLOWS).try_for_each(|_| self.once())
    }

    fn once(&mut self) -> Result<()> {
        let source = SOURCE + self.next;
        self.next = if u32::from(self.next) + 1 < FLOWS {
            self.next + 1
        } else {
            0
        };
        self.number += 1;
        self.sender.send(source, self.port, self.number)?;
        arrived(&self.receiver, self.number)
    }
}

/// Packets that each open a new flow.
pub(super) struct Fresh {
    sender: Sender,
    receivers: Vec<(u16, UdpSocket)>,
    number: u64,
}

impl Fresh {
    pub(super) fn open(from: &End, to: &End, first: u16) -> Result<Self> {
        let receivers = (first..=PORTS.1).map(|port| Ok((port, bind(to, port)?)));
        Ok(Self {
            sender: Sender::open(from, to)?,
            receivers: receivers.collect::<Result<_>>()?,
            number: 0,
        })
    }
}

impl Traffic for Fresh {
    fn once(&mut self) -> Result<()> {
        let (place, offset) = (self.number / SOURCES, self.number % SOURCES);
        let receiver = self.receivers.get(usize::try_from(place)?);
        let (port, receiver) = receiver.context("every pair of ports has been used")?;
        let source = SOURCE + u16::try_from(offset)?;
        self.number += 1;
        self.sender.send(source, *port, self.number)?;
        arrived(receiver, self.number)
    }
}

/// Packets that must not arrive, each from another port than the one before.
pub(super) struct Denied {
    sender: Sender,
    receiver: UdpSocket,
    port: u16,
    number: u64,
}

impl Denied {
    pub(super) fn open(from: &End, to: &End, port: u16) -> Result<Self> {
        Ok(Self {
            sender: Sender::open(from, to)?,
            receiver: bind(to, port)?,
            port,
            number: 0,
        })
    }
}

impl Traffic for Denied {
    /// The control: called while nothing denies it.
    fn establish(&mut self) -> Result<()> {
        self.once()?;
        arrived(&self.receiver, self.number)
    }

    fn once(&mut self) -> Result<()> {
        let source = SOURCE + u16::try_from(self.number % SOURCES)?;
        self.number += 1;
        self.sender.send(source, self.port, self.number)
    }

    fn finish(&mut self) -> Result<()> {
        match self.receiver.recv(&mut [0; 8]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error).context("looking for denied packets"),
            Ok(_) => bail!("a denied packet arrived"),
        }
    }
}
