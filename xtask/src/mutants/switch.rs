//! The switch between right code and seeded bugs, as it is in the copy of the tree.
//!
//! `tree` writes this file into the copy as a module of the shared crate. Invariants: one bug at most
//! is chosen; a process reads which from the environment, the kernel programs from a constant that
//! the loader sets. The verifier knows that constant, so code that was not chosen costs nothing.
//! Nothing here is part of what ships; xtask itself uses only [`number`].

#[cfg(not(target_arch = "bpf"))]
extern crate std;

/// The number by which a bug is known where there is no text: FNV-1a of its name, without the top
/// bit, so that it fits an instruction.
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
    static CHOSEN: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
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
    // SAFETY: a static that is never written while programs run. Volatile, because its value is the
    // loader's and not the one above.
    unsafe { core::ptr::read_volatile(MUTANT.as_ptr()) }
}

/// Keeps the compiler from doing once, for both halves of a switch, what both begin with: the results
/// would need stack.
#[inline(always)]
pub fn apart() {
    #[cfg(target_arch = "bpf")]
    #[allow(unsafe_code, reason = "an instruction that is none")]
    // SAFETY: there is nothing in it.
    unsafe {
        core::arch::asm!("", options(nomem, nostack));
    }
}

/// `mutant!(name, right, wrong)`: the right expression, or the wrong one if that bug was chosen.
#[macro_export]
macro_rules! mutant {
    ($name:ident, $right:expr, $wrong:expr $(,)?) => {
        if $crate::mutant::chosen() == const { $crate::mutant::number(stringify!($name)) } {
            $crate::mutant::apart();
            $wrong
        } else {
            $right
        }
    };
}
