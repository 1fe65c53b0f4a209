//! The skb as a [`Frame`], and the metadata that only an skb has.
//!
//! Invariant: packet bytes are read with `bpf_skb_load_bytes` only, which sees non-linear data and
//! checks bounds.

use aya_ebpf::{
    EbpfContext, bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes, programs::TcContext,
};
use ringfence_common::packet::Frame;

/// One packet at one hook.
pub struct Skb {
    raw: *mut __sk_buff,
}

impl Skb {
    #[inline(always)]
    pub fn of(ctx: &TcContext) -> Self {
        Self { raw: ctx.skb.skb }
    }

    /// The interface whose hook this is.
    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        // SAFETY: the kernel passes a valid context for the whole run.
        unsafe { (*self.raw).ifindex }
    }

    /// The interface the packet entered the host by; 0 when a socket of this host sent it.
    #[inline(always)]
    pub fn ingress_ifindex(&self) -> u32 {
        // SAFETY: as in `ifindex`.
        unsafe { (*self.raw).ingress_ifindex }
    }

    /// EtherType after a hardware-accelerated tag, host byte order.
    #[inline(always)]
    pub fn ethertype(&self) -> u16 {
        // SAFETY: as in `ifindex`.
        u16::from_be(unsafe { (*self.raw).protocol } as u16)
    }

    /// Whether a VLAN tag was taken out of the frame by the kernel.
    #[inline(always)]
    pub fn has_vlan_tag(&self) -> bool {
        // SAFETY: as in `ifindex`.
        unsafe { (*self.raw).vlan_present != 0 }
    }
}

impl Frame for Skb {
    #[inline(always)]
    fn len(&self) -> u32 {
        // SAFETY: as in `ifindex`.
        unsafe { (*self.raw).len }
    }

    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32, into: &mut [u8; N]) -> bool {
        // SAFETY: the helper writes exactly N bytes into an array of N, or fails; it checks the
        // offset against the packet itself.
        unsafe {
            bpf_skb_load_bytes(self.raw.cast(), offset, into.as_mut_ptr().cast(), N as u32) == 0
        }
    }

    #[inline(always)]
    fn is_gso(&self) -> bool {
        // SAFETY: as in `ifindex`.
        unsafe { (*self.raw).gso_size != 0 }
    }
}

impl EbpfContext for Skb {
    fn as_ptr(&self) -> *mut core::ffi::c_void {
        self.raw.cast()
    }
}
