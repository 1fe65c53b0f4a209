//! UDP by ordinary connected sockets: one established flow.

use std::net::UdpSocket;

use anyhow::{Context as _, Result, ensure};

use super::{End, Traffic, taken};

/// Datagrams of one flow. Each is numbered.
pub(super) struct Stream {
    sender: UdpSocket,
    receiver: UdpSocket,
    datagram: Vec<u8>,
    buffer: Vec<u8>,
    number: u64,
}

impl Stream {
    pub(super) fn open(from: &End, to: &End, port: u16, size: usize) -> Result<Self> {
        let (sender, receiver) = sockets(from, to, port)?;
        Ok(Self {
            sender,
            receiver,
            datagram: vec![0; size],
            buffer: vec![0; size],
            number: 0,
        })
    }

    fn send(&mut self) -> Result<()> {
        self.number += 1;
        let number = self.number.to_be_bytes();
        let head = self.datagram.first_chunk_mut().context("a number")?;
        *head = number;
        self.sender.send(&self.datagram).context("sending")?;
        Ok(())
    }

    fn check(&self, length: usize) -> Result<()> {
        ensure!(
            length == self.datagram.len()
                && self.buffer.first_chunk() == self.datagram.first_chunk::<8>(),
            "another datagram than was sent arrived"
        );
        Ok(())
    }
}

impl Traffic for Stream {
    fn establish(&mut self) -> Result<()> {
        self.once()?;
        let (length, client) = (self.datagram.len(), self.sender.local_addr()?);
        self.receiver.send_to(&self.datagram, client)?;
        let answer = taken(&self.sender, &mut self.buffer, |b| self.sender.recv(b))?;
        ensure!(answer == length, "another answer than was sent");
        // The first packet after the reply establishes the flow, the second makes it assured.
        self.once()?;
        self.once()
    }

    fn once(&mut self) -> Result<()> {
        self.send()?;
        let length = taken(&self.receiver, &mut self.buffer, |b| self.receiver.recv(b))?;
        self.check(length)
    }
}

fn sockets(from: &End, to: &End, port: u16) -> Result<(UdpSocket, UdpSocket)> {
    let receiver = to.ns.run(|| UdpSocket::bind(to.at(port)))??;
    receiver.set_nonblocking(true)?;
    let sender = from.ns.run(|| UdpSocket::bind(from.at(0)))??;
    sender.connect(to.at(port))?;
    sender.set_nonblocking(true)?;
    Ok((sender, receiver))
}
