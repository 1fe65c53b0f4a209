//! The node's network interfaces, watched through rtnetlink.
//!
//! Invariant: the map of names is rebuilt from a full dump after every notification, so that lost
//! or reordered messages do no harm. This module does not know which workload an interface belongs
//! to.

use std::{collections::BTreeMap, io};

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use rtnetlink::{
    Handle, MulticastGroup, new_multicast_connection,
    packet_core::NetlinkMessage,
    packet_route::{RouteNetlinkMessage, link::LinkAttribute},
    sys::SocketAddr,
};

type Notifications =
    futures_channel::mpsc::UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>;

/// Interfaces by name.
pub type Names = BTreeMap<String, u32>;

/// A subscription to changes of interfaces.
pub struct Interfaces {
    handle: Handle,
    notifications: Notifications,
    names: Names,
}

impl Interfaces {
    /// Subscribes, then lists the existing interfaces. Needs a running tokio runtime.
    ///
    /// # Errors
    /// When netlink cannot be reached.
    pub async fn watch() -> io::Result<Self> {
        let (connection, handle, notifications) =
            new_multicast_connection(&[MulticastGroup::Link])?;
        tokio::spawn(connection);
        let mut interfaces = Self {
            handle,
            notifications,
            names: Names::new(),
        };
        interfaces.list().await?;
        Ok(interfaces)
    }

    /// Interfaces by name, as of the last dump.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Waits until the set of interfaces differs from the last dump. Safe to cancel.
    ///
    /// # Errors
    /// When the subscription has ended.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            if self.notifications.next().await.is_none() {
                return Err(io::Error::other("the netlink subscription ended"));
            }
            while self.notifications.next().now_or_never().flatten().is_some() {}
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
