//! The node's network interfaces, followed through rtnetlink.
//!
//! Invariant: the map of names is rebuilt from a whole dump after every notice, so a lost or
//! reordered message costs nothing. What an interface is for is not known here.

use std::{collections::BTreeMap, io};

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use rtnetlink::{
    Handle, MulticastGroup, new_multicast_connection,
    packet_core::NetlinkMessage,
    packet_route::{RouteNetlinkMessage, link::LinkAttribute},
    sys::SocketAddr,
};

type Notices =
    futures_channel::mpsc::UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>;

/// Interfaces by name.
pub type Names = BTreeMap<String, u32>;

/// A subscription to changes of interfaces.
pub struct Interfaces {
    handle: Handle,
    notices: Notices,
    names: Names,
}

impl Interfaces {
    /// Subscribes, then lists what is there. Needs a running tokio runtime.
    ///
    /// # Errors
    /// When netlink cannot be reached.
    pub async fn watch() -> io::Result<Self> {
        let (connection, handle, notices) = new_multicast_connection(&[MulticastGroup::Link])?;
        tokio::spawn(connection);
        let mut interfaces = Self {
            handle,
            notices,
            names: Names::new(),
        };
        interfaces.list().await?;
        Ok(interfaces)
    }

    /// Interfaces by name, as of the last list.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Waits until the set of interfaces differs from the last list. Safe to cancel.
    ///
    /// # Errors
    /// When the subscription has ended.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            if self.notices.next().await.is_none() {
                return Err(io::Error::other("the netlink subscription ended"));
            }
            while self.notices.next().now_or_never().flatten().is_some() {}
            let before = std::mem::take(&mut self.names);
            self.list().await?;
            if self.names != before {
                return Ok(());
            }
        }
    }

    async fn list(&mut self) -> io::Result<()> {
        let mut links = std::pin::pin!(self.handle.link().get().execute());
        let mut names = Names::new();
        while let Some(link) = links.try_next().await.map_err(io::Error::other)? {
            let name = link
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    LinkAttribute::IfName(name) => Some(name.clone()),
                    _ => None,
                });
            if let Some(name) = name {
                names.insert(name, link.header.index);
            }
        }
        self.names = names;
        Ok(())
    }
}
