//! The skb as a [`Frame`], with metadata that only an skb has.
//!
//! Invariant: packet bytes are read in the linear part up to `data_end`, or with
//! `bpf_skb_load_bytes`, which also reads non-linear data and checks bounds.

use aya_ebpf::{
    EbpfContext,
    bindings::{__sk_buff, BPF_F_INGRESS, BPF_F_INVALIDATE_HASH, BPF_F_RECOMPUTE_CSUM},
    helpers::generated::{
        bpf_l4_csum_replace, bpf_redirect, bpf_skb_change_tail, bpf_skb_load_bytes,
        bpf_skb_store_bytes,
    },
    programs::TcContext,
};
use ringfence_common::packet::{Frame, reject::Checksum};

/// One packet at one hook.
pub struct Skb {
    raw: *mut __sk_buff,
}

impl Skb {
    #[inline(always)]
    pub fn of(ctx: &TcContext) -> Self {
        Self { raw: ctx.skb.skb }
    }

    /// From the raw context.
    #[inline(always)]
    pub fn at(raw: *mut __sk_buff) -> Self {
        Self { raw }
    }

    /// The raw context.
    #[inline(always)]
    pub fn raw(&self) -> *mut __sk_buff {
        self.raw
    }

    /// Changes the length of the frame. Clears GSO.
    #[inline(always)]
    pub fn resize(&self, length: u32) -> bool {
        // SAFETY: the context is valid; the programs hold no pointer into the packet.
        unsafe { bpf_skb_change_tail(self.raw, length, 0) == 0 }
    }

    /// Writes bytes at an offset.
    #[inline(always)]
    pub fn store(&self, offset: u32, bytes: &[u8]) -> bool {
        let flags = u64::from(BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH);
        // SAFETY: the helper reads as many bytes as the slice has, and checks the offset against
        // the packet itself.
        unsafe {
            bpf_skb_store_bytes(
                self.raw.cast(),
                offset,
                bytes.as_ptr().cast(),
                bytes.len() as u32,
                flags,
            ) == 0
        }
    }

    /// Bytes in the linear part of the packet, read without a helper call. It holds the headers of
    /// nearly all packets.
    #[inline(always)]
    fn linear<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        // SAFETY: as in `ifindex`.
        let (data, end) = unsafe { ((*self.raw).data as usize, (*self.raw).data_end as usize) };
        let start = data + offset as usize;
        if start + N > end {
            return None;
        }
        // SAFETY: N bytes from `start` on lie before `data_end`, which was just checked. Bytes have no
        // alignment.
        Some(unsafe { *(start as *const [u8; N]) })
    }

    /// Who completes the checksum. The context does not show it, but `bpf_l4_csum_replace` outside
    /// the pseudo-header leaves a `CHECKSUM_PARTIAL` checksum unchanged. Writes two bytes at the
    /// offset to find out.
    #[inline(always)]
    pub fn checksum(&self, scratch: u32) -> Option<Checksum> {
        let mut probe = [0; 2];
        // SAFETY: the context is valid; the helper checks the offset itself.
        let replace = || unsafe { bpf_l4_csum_replace(self.raw.cast(), scratch, 0, 1, 2) == 0 };
        if !(self.store(scratch, &probe) && replace() && self.load(scratch, &mut probe)) {
            return None;
        }
        Some(if probe == [0; 2] {
            Checksum::Partial
        } else {
            Checksum::Complete
        })
    }

    /// Sends the packet back out of its interface: a packet from the workload to the workload, a
    /// packet to the workload as if it came from the workload. Returns the program's return value.
    #[inline(always)]
    pub fn send_back(&self, from_workload: bool) -> i32 {
        let flags = if from_workload { 0 } else { BPF_F_INGRESS };
        // SAFETY: the helper takes numbers only.
        unsafe { bpf_redirect(self.ifindex(), u64::from(flags)) as i32 }
    }

    /// The interface of this hook.
    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        // SAFETY: the kernel passes a valid context for the whole run.
        unsafe { (*self.raw).ifindex }
    }

    /// The interface by which the packet entered the host; 0 if a socket of this host sent it.
    #[inline(always)]
    pub fn ingress_ifindex(&self) -> u32 {
        // SAFETY: as in `ifindex`.
        unsafe { (*self.raw).ingress_ifindex }
    }

    /// Whether a socket of this host owns the packet.
    #[inline(always)]
    pub fn has_socket(&self) -> bool {
        // SAFETY: as in `ifindex`; the pointer is compared, not followed.
        unsafe { !(*self.raw).__bindgen_anon_2.sk.is_null() }
    }

    /// EtherType after a hardware-accelerated tag, host byte order.
    #[inline(always)]
    pub fn ethertype(&self) -> u16 {
        // SAFETY: as in `ifindex`.
        u16::from_be(unsafe { (*self.raw).protocol } as u16)
    }

    /// Whether the kernel moved a VLAN tag from the frame to metadata.
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
    fn peek<const N: usize, const OFFSET: u32>(&self, into: &mut [u8; N]) -> bool {
        if let Some(bytes) = self.linear(OFFSET) {
            *into = bytes;
            return true;
        }
        self.load(OFFSET, into)
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
