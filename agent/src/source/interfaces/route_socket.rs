//! The sockets of the watch: one for notices, and one for each list.
//!
//! Invariants: notices never wait behind a list, and an error of one socket is none of the other; a list
//! is read to its end or its socket is closed, so that no later request meets it. Every call blocks.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv, setsockopt, sockopt},
};

use super::{
    LinkAddresses, message,
    watch_loop::{Listing, Netlink},
};
use crate::netlink::{
    message::messages,
    request::{DATAGRAM, exchange, open, set_timeout},
};

/// The multicast groups of links and of both families' addresses, as bits (`RTMGRP_LINK`,
/// `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV6_IFADDR`).
const GROUPS: u32 = 0x1 | 0x10 | 0x100;
/// Room for notices, in bytes: some ten thousand of them.
const NOTICES: usize = 16 << 20;
/// The most datagrams of notices that are read before the next list.
const MOST_NOTICES: usize = 4096;

/// Netlink sockets in the network namespace of the calling thread.
#[derive(Debug)]
pub(super) struct RouteSocket {
    allow_uplink: bool,
    notices: Option<OwnedFd>,
    buffer: Vec<u8>,
}

impl Netlink for RouteSocket {
    fn subscribe(&mut self) -> io::Result<()> {
        let socket = open(GROUPS)?;
        if setsockopt(&socket, sockopt::RcvBufForce, &NOTICES).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &NOTICES)?;
        }
        self.notices = Some(socket);
        self.buffer.resize(DATAGRAM, 0);
        Ok(())
    }

    fn notices(&mut self, most: Duration, left: &mut BTreeSet<u32>) -> io::Result<bool> {
        let Some(socket) = &self.notices else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        set_timeout(socket, most)?;
        let mut flags = MsgFlags::empty();
        for read in 0..MOST_NOTICES {
            match recv(socket.as_raw_fd(), &mut self.buffer, flags) {
                Ok(length) => {
                    let datagram = self.buffer.get(..length).unwrap_or_default();
                    left.extend(messages(datagram).filter_map(|it| message::left(&it)));
                    flags = MsgFlags::MSG_DONTWAIT;
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(read > 0),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    fn list(&mut self) -> io::Result<Listing> {
        let mut links = BTreeMap::new();
        let is_interrupted = exchange(&message::list_links(), |message| {
            if message.kind == message::NEW_LINK {
                links.extend(message::link(message.body));
            }
        })?;
        Ok(Listing {
            links,
            is_interrupted,
        })
    }

    fn addresses(&mut self) -> io::Result<(LinkAddresses, bool)> {
        let mut addresses = LinkAddresses::default();
        let is_interrupted = exchange(&message::list_addresses(), |message| {
            if message.kind == message::NEW_ADDRESS
                && let Some(address) = message::address(message.body)
            {
                addresses.add(address);
            }
        })?;
        Ok((addresses, is_interrupted))
    }

    fn uplinks(&mut self) -> io::Result<BTreeSet<u32>> {
        let mut uplinks = BTreeSet::new();
        if self.allow_uplink {
            return Ok(uplinks);
        }
        for family in [libc::AF_INET, libc::AF_INET6] {
            let family = u8::try_from(family).unwrap_or_default();
            let listed = exchange(&message::list_routes(family), |message| {
                if message.kind == message::NEW_ROUTE {
                    uplinks.extend(message::uplinks(message.body));
                }
            });
            match listed {
                // A kernel without IPv6 has no such routes.
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
                listed => listed.map(drop)?,
            }
        }
        Ok(uplinks)
    }
}

impl RouteSocket {
    /// Sockets that are opened when they are needed. If uplinks are allowed, none are listed.
    pub(super) const fn new(allow_uplink: bool) -> Self {
        Self {
            allow_uplink,
            notices: None,
            buffer: Vec::new(),
        }
    }
}
