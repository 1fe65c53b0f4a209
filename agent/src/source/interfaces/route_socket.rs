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
    sys::{
        socket::{
            AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, connect,
            recv, send, setsockopt, socket, sockopt,
        },
        time::{TimeVal, TimeValLike as _},
    },
};

use super::{
    message::{self, Message, messages},
    watch_loop::{Listing, Netlink},
};

/// The multicast group of links, as a bit (`RTMGRP_LINK`).
const LINKS: u32 = 1;
/// Room for notices, in bytes: some ten thousand of them.
const NOTICES: usize = 16 << 20;
/// Room for one datagram, in bytes; the kernel fills at most 32 KiB of it.
const DATAGRAM: usize = 64 << 10;
/// The most datagrams of notices that are read before the next list.
const MOST_NOTICES: usize = 4096;
/// How long a list may take: the kernel's lock over all links may be held for long.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);

/// Netlink sockets in the network namespace of the calling thread.
#[derive(Debug)]
pub(super) struct RouteSocket {
    allow_uplink: bool,
    notices: Option<OwnedFd>,
    buffer: Vec<u8>,
}

impl Netlink for RouteSocket {
    fn subscribe(&mut self) -> io::Result<()> {
        let socket = open(LINKS)?;
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
        let is_interrupted = self.request(&message::list_links(), |message| {
            if message.kind == message::NEW_LINK {
                links.extend(message::link(message.body));
            }
        })?;
        Ok(Listing {
            links,
            is_interrupted,
        })
    }

    fn uplinks(&mut self) -> io::Result<BTreeSet<u32>> {
        let mut uplinks = BTreeSet::new();
        if self.allow_uplink {
            return Ok(uplinks);
        }
        for family in [libc::AF_INET, libc::AF_INET6] {
            let family = u8::try_from(family).unwrap_or_default();
            let listed = self.request(&message::list_routes(family), |message| {
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

    /// Makes a request for a list; returns whether its subject changed in its course.
    fn request(&mut self, request: &[u8], mut each: impl FnMut(&Message<'_>)) -> io::Result<bool> {
        let socket = open(0)?;
        set_timeout(&socket, LIST_TIMEOUT)?;
        self.buffer.resize(DATAGRAM, 0);
        send(socket.as_raw_fd(), request, MsgFlags::empty())?;
        let mut interrupted = false;
        loop {
            let length = match recv(socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_TRUNC) {
                Err(Errno::EINTR) => continue,
                length => length?,
            };
            let datagram = self.buffer.get(..length);
            let datagram = datagram.ok_or_else(|| io::Error::other("a datagram was cut off"))?;
            for message in messages(datagram) {
                interrupted |= message.flags & message::INTERRUPTED != 0;
                match message.kind {
                    message::ERROR | message::DONE => {
                        return match message.error() {
                            0 => Ok(interrupted),
                            code => Err(io::Error::from_raw_os_error(code)),
                        };
                    }
                    _ => each(&message),
                }
            }
        }
    }
}

/// A socket that gets the notices of these groups, and unicast messages from the kernel only.
fn open(groups: u32) -> io::Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    Ok(socket)
}

fn set_timeout(socket: &OwnedFd, most: Duration) -> io::Result<()> {
    // Zero would wait for ever.
    let most = i64::try_from(most.as_micros()).unwrap_or(i64::MAX).max(1);
    let most = TimeVal::microseconds(most);
    Ok(setsockopt(socket, sockopt::ReceiveTimeout, &most)?)
}
