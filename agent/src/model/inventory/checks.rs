//! What an object must be by itself to be part of an inventory.

use std::net::IpAddr;

use super::{InventoryFault, MAX_ENDPOINT_IPV4, MAX_ENDPOINT_IPV6, unusable_reason};
use crate::model::dispute::Claimant;
use crate::model::workload::Workload;

/// Why one of the addresses that a workload or node lists cannot be its own, whatever others list.
pub(super) fn address_fault(
    addresses: &[IpAddr],
    place: usize,
    claimant: impl Fn() -> Claimant,
) -> Option<InventoryFault> {
    let address = *addresses.get(place)?;
    if let Some(reason) = unusable_reason(address) {
        let claimant = claimant();
        return Some(InventoryFault::UnusableAddress {
            address,
            claimant,
            reason,
        });
    }
    let before = addresses.get(..place)?;
    before.contains(&address).then(|| {
        let claimant = claimant();
        InventoryFault::AddressListedTwice { address, claimant }
    })
}

/// Why a workload with an interface does not fit the kernel's endpoint record.
pub(super) fn endpoint_fault(workload: &Workload) -> Option<InventoryFault> {
    let addresses = workload.addresses.iter();
    let ipv4 = addresses.filter(|address| address.is_ipv4()).count();
    let ipv6 = workload.addresses.len() - ipv4;
    let fits = ipv4 <= MAX_ENDPOINT_IPV4 && ipv6 <= MAX_ENDPOINT_IPV6;
    (!fits).then(|| InventoryFault::TooManyAddresses {
        workload: workload.id.clone(),
        ipv4,
        ipv6,
    })
}
