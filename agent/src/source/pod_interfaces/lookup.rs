//! Which interface an address of a pod is behind, by what the kernel says.
//!
//! Invariants: an address is behind a device only if a route of it alone leads there without a gateway, or if
//! its range is on a bridge and that knows its port; the kernel is asked about one address at a time, so that
//! a large table of routes costs nothing. Every call blocks.

use std::io;
use std::net::IpAddr;

use super::message;
use crate::netlink::message::Message;
use crate::netlink::request::exchange;
use crate::source::interfaces::{Link, link_of};

/// The interface of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) index: u32,
    pub(super) name: String,
}

/// What is known of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// It is behind this interface, by a route of its own.
    To(Found),
    /// It is on a bridge, which knows it behind this port.
    AtPort(Found),
    /// It is on a bridge, which does not know its port yet.
    OnBridge(u32),
    /// No way leads straight to it.
    None,
}

/// What the lookup asks the kernel; a trait, so that tests can answer.
pub(super) trait Kernel {
    /// Makes a request, and reads the first message of the answer that can be read. `None` if the kernel
    /// knows no such thing.
    fn ask<T>(
        &mut self,
        request: &[u8],
        read: impl Fn(&Message<'_>) -> Option<T>,
    ) -> io::Result<Option<T>>;
}

/// The kernel of the calling thread's network namespace.
#[derive(Debug)]
pub(super) struct Netlink;

impl Kernel for Netlink {
    fn ask<T>(
        &mut self,
        request: &[u8],
        read: impl Fn(&Message<'_>) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let mut found = None;
        let answer = exchange(request, |message| {
            found = found.take().or_else(|| read(message));
        });
        match answer {
            Ok(_) => Ok(found),
            Err(error) if is_unknown(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether an error says that there is no such route, neighbour, port or link.
fn is_unknown(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    code.is_some_and(|code| {
        [
            libc::ENETUNREACH,
            libc::EHOSTUNREACH,
            libc::ENOENT,
            libc::ENODEV,
            libc::ENXIO,
            libc::EAFNOSUPPORT,
            // A prohibiting or throwing route.
            libc::EACCES,
            libc::EAGAIN,
            libc::EINVAL,
        ]
        .contains(&code)
    })
}

/// Looks an address up.
///
/// # Errors
/// When the kernel does not answer.
pub(super) fn look_up(kernel: &mut impl Kernel, address: IpAddr) -> io::Result<Way> {
    let Some(route) = kernel.ask(&message::get_route(address), message::route)? else {
        return Ok(Way::None);
    };
    let Some((index, link)) = find_link(kernel, route.device)? else {
        return Ok(Way::None);
    };
    if link.kind != "bridge" {
        let found = Found {
            index,
            name: link.name,
        };
        let is_straight = route.is_of_host && !link.is_loopback;
        return Ok(if is_straight {
            Way::To(found)
        } else {
            Way::None
        });
    }
    let bridge = index;
    let request = message::get_neighbour(address, bridge);
    let Some(hardware) = kernel.ask(&request, message::hardware)? else {
        return Ok(Way::OnBridge(bridge));
    };
    let request = message::get_port(hardware, bridge);
    let Some(port) = kernel.ask(&request, |it| message::port(it, bridge))? else {
        return Ok(Way::OnBridge(bridge));
    };
    let found = find_link(kernel, port)?.map(|(index, link)| Found {
        index,
        name: link.name,
    });
    Ok(found.map_or(Way::OnBridge(bridge), Way::AtPort))
}

/// Has the kernel find out behind which port of a bridge an address is.
pub(super) fn solicit(kernel: &mut impl Kernel, address: IpAddr, bridge: u32) -> io::Result<()> {
    let request = message::solicit(address, bridge);
    kernel.ask(&request, |_| Some(())).map(drop)
}

/// A link, if it exists.
pub(super) fn find_link(kernel: &mut impl Kernel, index: u32) -> io::Result<Option<(u32, Link)>> {
    kernel.ask(&message::get_link(index), link_of)
}
