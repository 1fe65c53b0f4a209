//! A range of addresses without some ranges inside it, as every policy language has it.

use ipnet::IpNet;

use crate::model::Peer;

/// An exception that excepts nothing, or all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("except {exception} is not a part of {net}: expected a smaller range inside the cidr")]
pub(super) struct NotInside {
    net: IpNet,
    exception: IpNet,
}

/// Checks that an exception is a part of its range; both are masked.
pub(super) fn check_inside(net: IpNet, exception: IpNet) -> Result<(), NotInside> {
    if exception != net && net.contains(&exception) {
        Ok(())
    } else {
        Err(NotInside { net, exception })
    }
}

/// The peer of a range, its exceptions in canonical order.
pub(super) fn peer(net: IpNet, mut except: Vec<IpNet>) -> Peer {
    except.sort();
    except.dedup();
    Peer::Cidr { net, except }
}
