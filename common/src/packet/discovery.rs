//! What a neighbour discovery message of a host says (RFC 4861 §4.1, §4.3, §4.4).
//!
//! Invariant: a message that can be read carries nothing but what its receiver uses: no extension
//! headers, no reserved bits, options of known types, each once and in its one length, and nothing
//! after the packet. So discovery, which passes without policy, is no way to send data. Checksums are
//! not checked: the receiver does that.

use super::{ETHERNET, Frame, Packet};
use crate::net::Ip6;

/// Offset of a message without extension headers before it.
const AFTER_IPV6: u32 = ETHERNET + 40;
/// Bytes of a router solicitation before its options.
const SOLICITATION: u32 = 8;
/// Bytes of a neighbour solicitation or advertisement before its options.
pub(super) const WITH_TARGET: u32 = 24;
/// Bytes of each option that a message may have.
const OPTION: u32 = 8;
/// The link-layer address of the source, that of the target (RFC 4861 §4.6.1), a nonce (RFC 7527 §4.1).
const OPTIONS: [u8; 3] = [SOURCE, TARGET, 14];
const SOURCE: u8 = 1;
const TARGET: u8 = 2;
/// The only flags of an advertisement: router, solicited, override.
const FLAGS: u8 = 0xe0;
pub(super) const SOLICITED: u8 = 0x40;

/// A router solicitation, neighbour solicitation or neighbour advertisement.
pub(super) struct Message {
    /// The flags of an advertisement.
    pub(super) flags: u8,
    /// What it is about; unspecified in a router solicitation.
    pub(super) target: Ip6,
    /// The hardware address that the receiver stores.
    pub(super) hardware: Option<[u8; 6]>,
}

impl Message {
    /// Reads a message that may have flags and a target. `None` if it has another form.
    #[inline(always)]
    pub(super) fn read<F: Frame>(
        frame: &F,
        packet: &Packet<Ip6>,
        has_flags: bool,
        has_target: bool,
    ) -> Option<Self> {
        let head = if has_target {
            WITH_TARGET
        } else {
            SOLICITATION
        };
        let at = packet.transport;
        let is_whole = at == AFTER_IPV6 && packet.end == frame.len() && !frame.is_gso();
        if !is_whole || packet.end < at + head {
            return None;
        }
        let mut first = [0u8; 8];
        let mut target = [0u8; 16];
        if !frame.peek::<8, AFTER_IPV6>(&mut first)
            || has_target && !frame.load(at + 8, &mut target)
        {
            return None;
        }
        let [_, code, _, _, flags, reserved @ ..] = first;
        let may_be_set = if has_flags { FLAGS } else { 0 };
        if code != 0 || flags & !may_be_set != 0 || reserved != [0; 3] {
            return None;
        }
        let mut message = Self {
            flags,
            target: Ip6::from_wire(target),
            hardware: None,
        };
        message.read_options(frame, at + head, packet.end)?;
        Some(message)
    }

    #[inline(always)]
    fn read_options<F: Frame>(&mut self, frame: &F, mut at: u32, end: u32) -> Option<()> {
        let mut before = 0;
        for _ in 0..OPTIONS.len() {
            if at == end {
                return Some(());
            }
            let mut option = [0u8; OPTION as usize];
            if !frame.load(at, &mut option) {
                return None;
            }
            let [kind, units, hardware @ ..] = option;
            let bit = 1_u32 << (kind & 31);
            if units != 1 || !OPTIONS.contains(&kind) || before & bit != 0 {
                return None;
            }
            before |= bit;
            if kind == SOURCE || kind == TARGET {
                if self.hardware.is_some() {
                    return None;
                }
                self.hardware = Some(hardware);
            }
            at += OPTION;
        }
        (at == end).then_some(())
    }
}
