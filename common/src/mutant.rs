//! Seeded bugs: places where a decision can be made to err, to see that a test notices.
//!
//! Invariants: without the feature `mutants` a seam is its right expression and nothing else, and
//! the wrong one is not even compiled; with it, one bug at a time is chosen: in a process by the
//! environment, in the kernel programs by a constant that the loader sets to the same choice. The
//! verifier knows that constant, so wrong expressions that nobody chose cost nothing. No agent that
//! ships is built with the feature. `cargo xtask mutants` finds every seam by itself.

#[cfg(feature = "mutants")]
mod chosen {
    /// The number by which a bug is known where there is no text: FNV-1a of its name, without the
    /// top bit, so that it fits an instruction.
    #[must_use]
    pub const fn number(name: &str) -> u32 {
        let mut hash: u32 = 0x811c_9dc5;
        let mut rest = name.as_bytes();
        while let [byte, after @ ..] = rest {
            hash = (hash ^ *byte as u32).wrapping_mul(0x0100_0193);
            rest = after;
        }
        hash & 0x7fff_ffff
    }

    /// The bug that was chosen when it, or another, was first asked for; 0 for none.
    #[cfg(not(target_arch = "bpf"))]
    pub fn chosen() -> u32 {
        use std::sync::OnceLock;
        static CHOSEN: OnceLock<u32> = OnceLock::new();
        *CHOSEN.get_or_init(|| std::env::var("RINGFENCE_MUTANT").map_or(0, |name| number(&name)))
    }

    /// Set by the loader.
    #[cfg(target_arch = "bpf")]
    #[allow(unsafe_code, reason = "a loader finds a constant by its name")]
    #[unsafe(no_mangle)]
    static MUTANT: core::mem::MaybeUninit<u32> = core::mem::MaybeUninit::new(0);

    /// The bug that the loader chose; 0 for none.
    #[cfg(target_arch = "bpf")]
    #[inline(always)]
    #[allow(unsafe_code, reason = "a constant that is not what was compiled")]
    pub fn chosen() -> u32 {
        // SAFETY: a static that is never written while programs run. Volatile, because its value is
        // the loader's and not the one above.
        unsafe { core::ptr::read_volatile(MUTANT.as_ptr()) }
    }
}

#[cfg(feature = "mutants")]
pub use chosen::{chosen, number};

/// `mutant!(name, right, wrong)`: the right expression, or the wrong one if that bug was chosen.
#[cfg(feature = "mutants")]
#[macro_export]
macro_rules! mutant {
    ($name:ident, $right:expr, $wrong:expr $(,)?) => {
        if $crate::mutant::chosen() == const { $crate::mutant::number(stringify!($name)) } {
            $wrong
        } else {
            $right
        }
    };
}

/// `mutant!(name, right, wrong)`: the right expression. The wrong one is only there with the
/// feature `mutants`.
#[cfg(not(feature = "mutants"))]
#[macro_export]
macro_rules! mutant {
    ($name:ident, $right:expr, $wrong:expr $(,)?) => {
        $right
    };
}
