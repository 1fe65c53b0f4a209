//! The functions of each address family that the verifier checks once: exported (global) ones.
//!
//! Invariant: arguments are numbers; what else a function needs is in this CPU's scratch space. Each
//! calls the generic function of its purpose, so nothing is decided here.

use ringfence_common::{
    ids::{EndpointNumber, IdentityId},
    net::{Ip4, Ip6},
    stats::Counter,
};

use crate::{conntrack, ct_evaluate, ct_store, ct_unreplied, events, family::Family};

/// Lookups of a record at most, if its memory is given to another key meanwhile.
pub const RETRIES: u32 = 4;

/// The identity of an address. Each further lookup finds the present value, unless its memory is
/// given to another address again. An address counts as unlisted only if two searches in a row miss it, because
/// one can miss an address that is listed (see [`crate::maps`]): its prefix may allow what it does not.
#[inline(always)]
fn find_identity<A: Family>(address: A) -> IdentityId {
    let mut was_missed = false;
    for _ in 0..RETRIES {
        let Some(entry) = address.ipcache() else {
            if was_missed {
                return address.prefix_identity().unwrap_or(IdentityId::UNKNOWN);
            }
            was_missed = true;
            continue;
        };
        if let Some(identity) = entry.identity_of(address) {
            return identity;
        }
        events::count(Counter::RecordsRecycled);
    }
    IdentityId::UNKNOWN
}

/// The functions of a family that the verifier checks once each: exported (global), with scalar
/// arguments.
macro_rules! global_functions {
    ($family:ident, $identity:ident($($part:ident: $type:ty),*) = $address:expr, $find:ident,
     $renew:ident, $store:ident, $relocate:ident, $remove:ident, $create:ident, $reevaluate:ident, $reply:ident, $update:ident, $track:ident,
     $report:ident) => {
        #[inline(never)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $identity($($part: $type),*) -> u32 {
            find_identity::<$family>($address).0
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $create(contested: u32) -> u32 {
            ct_evaluate::create_flow::<$family>(contested)
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $reevaluate(epoch: u32) -> u32 {
            ct_evaluate::reevaluate_flow::<$family>(epoch)
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $reply(fresh: u32) -> u32 {
            ct_evaluate::reply_flow::<$family>(fresh)
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $update(unreported: u32) -> u32 {
            conntrack::update_reversed::<$family>(unreported)
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $report(which: u32, action: u32) -> u32 {
            conntrack::report_denied_flow::<$family>(which, action)
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $track() -> u32 {
            conntrack::track_current::<$family>()
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $find() -> u32 {
            ct_unreplied::find::<$family>()
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $renew(number: u32, protocol: u32, state: u32, expires: u64) -> u32 {
            ct_unreplied::renew::<$family>(EndpointNumber(number), protocol as u8, state as u8, expires)
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $store(which: u32, number: u32, protocol: u32, now: u64) -> u32 {
            ct_store::store_entry::<$family>(which, EndpointNumber(number), protocol as u8, now)
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $relocate(number: u32, protocol: u32, now: u64) -> u32 {
            ct_store::relocate_entry::<$family>(EndpointNumber(number), protocol as u8, now)
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $remove(number: u32) -> u32 {
            ct_store::remove_entry::<$family>(EndpointNumber(number))
        }
    };
}

global_functions!(
    Ip4, identity4(address: u32) = Ip4(address), ct4_find, ct4_renew, ct4_store, ct4_relocate,
    ct4_remove, ct4_create,
    ct4_reevaluate,
    ct4_reply, ct4_update, ct4_track, ct4_report
);
global_functions!(
    Ip6, identity6(first: u64, last: u64) = Ip6 { first, last }, ct6_find, ct6_renew, ct6_store,
    ct6_relocate, ct6_remove, ct6_create,
    ct6_reevaluate,
    ct6_reply, ct6_update, ct6_track, ct6_report
);
