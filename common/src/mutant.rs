//! Seeded bugs: places where compile and look-up can be made to err, to see that a test notices.
//!
//! Invariants: without the feature `mutants` a seam is its right expression and nothing else, and
//! the wrong one is not even compiled; with it, one bug at a time is chosen by the environment. No
//! agent that ships is built with the feature. `cargo xtask mutants` finds every seam by itself.

#[cfg(feature = "mutants")]
mod chosen {
    use std::sync::OnceLock;

    /// Names the bug to run with.
    const VARIABLE: &str = "RINGFENCE_MUTANT";

    /// Whether this bug was chosen when it, or another, was first asked for.
    #[must_use]
    pub fn is_chosen(name: &str) -> bool {
        static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
        CHOSEN
            .get_or_init(|| std::env::var(VARIABLE).ok())
            .as_deref()
            == Some(name)
    }
}

#[cfg(feature = "mutants")]
pub use chosen::is_chosen;

/// `mutant!(name, right, wrong)`: the right expression, or the wrong one if that bug was chosen.
#[cfg(feature = "mutants")]
#[macro_export]
macro_rules! mutant {
    ($name:ident, $right:expr, $wrong:expr $(,)?) => {
        if $crate::mutant::is_chosen(stringify!($name)) {
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
