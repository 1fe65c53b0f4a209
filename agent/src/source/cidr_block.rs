//! An address range with exceptions, as in all policy languages.

use ipnet::IpNet;

use crate::model::Peer;

/// An exception that is not a proper part of its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("except {exception} is not a part of {net}: expected a smaller range inside the cidr")]
pub(super) struct NotInside {
    net: IpNet,
    exception: IpNet,
}

/// Checks that an exception is a proper part of its range; both are masked.
pub(super) fn check_inside(net: IpNet, exception: IpNet) -> Result<(), NotInside> {
    if exception != net && net.contains(&exception) {
        Ok(())
    } else {
        Err(NotInside { net, exception })
    }
}

/// The peer for a range, with its exceptions in canonical order.
pub(super) fn peer(net: IpNet, mut except: Vec<IpNet>) -> Peer {
    except.sort();
    except.dedup();
    Peer::Cidr { net, except }
}
