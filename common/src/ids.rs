//! Numbers used in the maps.
//!
//! Invariants: numbers are node-local; 0 always means "none". Reserved numbers are fixed here; the
//! agent allocates the others and knows what they stand for.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::layout::shared_layout;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[repr(transparent)]
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
            FromBytes, IntoBytes, Immutable, KnownLayout,
        )]
        pub struct $name(pub u32);
        shared_layout!($name, size 4);
    };
}

id!(
    /// A set of indistinguishable peers; index into `CLASSES`.
    IdentityId
);
id!(
    /// All identities that no selector on this node can tell apart.
    ClassId
);
id!(
    /// A compiled policy table shared by endpoints; new whenever its content changes.
    TableId
);
id!(
    /// Index into `RULE_HITS`; the rule, or the default, that decided.
    RuleSlot
);
id!(
    /// Index into `NAMESPACE_MODE`.
    NamespaceSlot
);
id!(
    /// An endpoint of this node; index into `CT_USAGE`.
    EndpointNumber
);

impl EndpointNumber {
    /// No endpoint.
    pub const NONE: Self = Self(0);
}

const _: () = assert!(crate::maps::IDENTITIES <= 1 << 16 && crate::maps::RULES <= 1 << 16);

impl IdentityId {
    /// The number as conntrack and ipcache entries have it: identities are below
    /// [`crate::maps::IDENTITIES`], 65,536.
    #[must_use]
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "see above")]
    pub const fn narrow(self) -> u16 {
        self.0 as u16
    }

    /// The address is in no map. Matched by no selector, never `world`.
    pub const UNKNOWN: Self = Self(0);
    /// This node's own addresses and sockets.
    pub const HOST: Self = Self(1);
    /// Any other node.
    pub const REMOTE_NODE: Self = Self(2);
    /// Every address that belongs to neither a workload nor a node.
    pub const WORLD: Self = Self(3);
    /// First number that the agent allocates.
    pub const FIRST_FREE: Self = Self(16);
    /// First number of this node's own addresses in policy prefixes. Up to [`crate::maps::IDENTITIES`],
    /// every even number is such an identity, and the odd number after it is [`Self::behind_node`].
    pub const FIRST_NODE: Self = Self(crate::maps::IDENTITIES - 8192);

    /// Whether it is one of this node's own addresses: [`Self::HOST`], or the same in policy prefixes.
    #[must_use]
    #[inline(always)]
    pub const fn is_node(self) -> bool {
        const _: () = assert!(IdentityId::FIRST_NODE.0.is_multiple_of(2));
        self.0 == Self::HOST.0 || (self.0 >= Self::FIRST_NODE.0 && self.0 & 1 == 0)
    }

    /// The identity of unknown clients to which the node gave this address of its own
    /// ([`Self::is_node`]): a remote node in the same prefixes.
    #[must_use]
    #[inline(always)]
    pub const fn behind_node(self) -> Self {
        const _: () = assert!(IdentityId::HOST.behind_node().0 == IdentityId::REMOTE_NODE.0);
        Self(self.0 + 1)
    }

    /// The node's own address of the clients behind it: of what [`Self::behind_node`] gave.
    #[must_use]
    #[inline(always)]
    pub const fn node_of(self) -> Self {
        Self(self.0 - 1)
    }
}

impl ClassId {
    /// The rows for every class without rows of its own.
    pub const ANY: Self = Self(0);
}

impl TableId {
    /// The table of an endpoint whose policy is not known yet: no rows, so nothing is allowed.
    pub const NONE: Self = Self(0);
}

impl NamespaceSlot {
    /// The node's default mode, for packets that belong to no known endpoint.
    pub const NODE_DEFAULT: Self = Self(0);
}

impl RuleSlot {
    /// The slot as conntrack entries have it: slots are below [`crate::maps::RULES`], 16,384.
    #[must_use]
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "see above")]
    pub const fn narrow(self) -> u16 {
        self.0 as u16
    }

    /// Nothing decided: the packet was dropped for its [`crate::drop_reason::DropReason`] alone.
    pub const NONE: Self = Self(0);
    /// The endpoint is isolated in this direction and no rule allowed the flow.
    pub const DEFAULT_DENY: Self = Self(1);
    /// No policy isolates the endpoint in this direction.
    pub const DEFAULT_ALLOW: Self = Self(2);
    /// Sent by a socket of this host to a workload.
    pub const HOST_INGRESS: Self = Self(3);
    /// A workload's traffic to its own address.
    pub const OWN_ADDRESS: Self = Self(4);
    /// The default egress rule does not allow tunnels and raw protocols; they need an explicit
    /// rule.
    pub const RAW_PROTOCOL: Self = Self(5);
    /// No default allows what leads into a tunnel of a node; it needs a rule that names it.
    pub const NODE_TUNNEL: Self = Self(6);
    /// The Service has no backend at this port.
    pub const SERVICE_PORT: Self = Self(7);
    /// Some backends of the Service's port are allowed and some are not, and which one a connection gets is not known
    /// before its packets are translated.
    pub const SERVICE_MIXED: Self = Self(8);
    /// First slot that the agent allocates to rules of policies.
    pub const FIRST_FREE: Self = Self(16);

    /// Whether this slot allows without a policy lookup.
    #[must_use]
    #[inline(always)]
    pub const fn is_implicit_allow(self) -> bool {
        const _: () = assert!(RuleSlot::OWN_ADDRESS.0 == RuleSlot::HOST_INGRESS.0 + 1);
        self.0.wrapping_sub(Self::HOST_INGRESS.0) < 2
    }

    /// The stable name of a reserved slot, `None` for a policy's rule.
    #[must_use]
    pub const fn reserved_name(self) -> Option<&'static str> {
        Some(match self.0 {
            0 => "none",
            1 => "default-deny",
            2 => "default-allow",
            3 => "host-ingress",
            4 => "own-address",
            5 => "raw-protocol",
            6 => "node-tunnel",
            7 => "service-port",
            8 => "service-mixed",
            9..16 => "reserved",
            _ => return None,
        })
    }
}
