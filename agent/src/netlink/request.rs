//! Sockets of the routing family, and a request with its whole answer.
//!
//! Invariants: a socket takes nothing but what the kernel sends; an answer is read to its end or its
//! socket is closed, so that no later request meets it; every request has a time limit, because the
//! kernel's lock over all network devices may be held for long.

use std::{
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

use super::message::{self, Message, messages};

/// Room for one datagram, in bytes; the kernel fills at most 32 KiB of it.
pub(crate) const DATAGRAM: usize = 64 << 10;
/// How long an answer may take.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// A socket in the network namespace of the calling thread, which gets the notices of these groups, and
/// other messages from the kernel only.
///
/// # Errors
/// When the system refuses it.
pub(crate) fn open(groups: u32) -> io::Result<OwnedFd> {
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

/// Sets how long a read may wait.
///
/// # Errors
/// When the system refuses it.
pub(crate) fn set_timeout(socket: &OwnedFd, most: Duration) -> io::Result<()> {
    // Zero would wait for ever.
    let most = i64::try_from(most.as_micros()).unwrap_or(i64::MAX).max(1);
    let most = TimeVal::microseconds(most);
    Ok(setsockopt(socket, sockopt::ReceiveTimeout, &most)?)
}

/// Makes a request, and shows each message of the answer. Returns whether the subject of a list changed
/// in its course.
///
/// # Errors
/// When the kernel refuses the request, or does not answer in time.
pub(crate) fn exchange(request: &[u8], mut each: impl FnMut(&Message<'_>)) -> io::Result<bool> {
    let socket = open(0)?;
    set_timeout(&socket, TIME_LIMIT)?;
    send(socket.as_raw_fd(), request, MsgFlags::empty())?;
    let mut buffer = vec![0; DATAGRAM];
    let mut interrupted = false;
    loop {
        let length = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC) {
            Err(Errno::EINTR) => continue,
            length => length.map_err(failure_to_receive)?,
        };
        let datagram = buffer.get(..length);
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

/// No answer in time is `EAGAIN`, which the kernel also says of a route that throws: that is an answer.
fn failure_to_receive(error: Errno) -> io::Error {
    match error {
        Errno::EAGAIN => io::ErrorKind::TimedOut.into(),
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_answer_is_no_answer_of_the_kernel() {
        let late = failure_to_receive(Errno::EAGAIN);
        assert_eq!(late.raw_os_error(), None);
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        let full = failure_to_receive(Errno::ENOBUFS);
        assert_eq!(full.raw_os_error(), Some(libc::ENOBUFS));
    }
}
