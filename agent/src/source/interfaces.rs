//! The node's network interfaces and their addresses, watched through netlink.
//!
//! The watch has its own thread, because a list of interfaces waits for the kernel's lock over all of
//! them, and a list that is abandoned loses what it would have found. Invariants: no error of netlink
//! ends the watch; every notice leads to a new list, and so does time ([`RESYNC`]), so that lost or
//! reordered notices do no harm. This module does not know which workload an interface belongs to.

mod link;
mod message;
mod route_socket;
mod unsuitable;
mod watch_loop;

use std::{io, sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::netlink::message::Message;
pub use link::{Link, LinkAddresses, Links};
use route_socket::RouteSocket;
pub use unsuitable::Unsuitable;
pub use watch_loop::RESYNC;
use watch_loop::WatchLoop;

/// The link of a message about one, with its index.
pub(super) fn link_of(message: &Message<'_>) -> Option<(u32, Link)> {
    let is_link = message.kind == message::NEW_LINK;
    is_link.then(|| message::link(message.body)).flatten()
}

/// How long a start waits for the first list.
const FIRST_LIST: Duration = Duration::from_secs(10);

/// A subscription to changes of interfaces and their addresses.
#[derive(Debug)]
pub struct Interfaces(watch::Receiver<Arc<Links>>);

impl Interfaces {
    /// Subscribes to the interfaces of the calling thread's network namespace, and waits for the first
    /// list. The watch ends when this value is dropped. Unless `allow_uplink`, the devices of default
    /// routes are unsuitable.
    ///
    /// # Errors
    /// When there is no list after ten seconds, or the thread cannot be started.
    pub async fn watch(allow_uplink: bool) -> io::Result<Self> {
        let (sender, receiver) = watch::channel(Arc::default());
        let watch = WatchLoop::new(RouteSocket::new(allow_uplink), sender);
        std::thread::Builder::new()
            .name("interfaces".to_owned())
            .spawn(|| watch.run())?;
        let mut interfaces = Self(receiver);
        match tokio::time::timeout(FIRST_LIST, interfaces.changed()).await {
            Ok(outcome) => outcome.map(|()| interfaces),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "netlink lists no interfaces; the log says why",
            )),
        }
    }

    /// The interfaces as of the last list.
    #[must_use]
    pub fn links(&self) -> Arc<Links> {
        Arc::clone(&self.0.borrow())
    }

    /// Waits until the interfaces differ from those that [`Self::links`] gave when this last returned.
    /// Safe to cancel.
    ///
    /// # Errors
    /// When the thread of the watch has ended, which no error of netlink brings about.
    pub async fn changed(&mut self) -> io::Result<()> {
        let ended = |_| io::Error::other("the watch of interfaces ended");
        self.0.changed().await.map_err(ended)
    }
}
