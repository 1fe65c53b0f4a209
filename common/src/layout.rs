//! The only place that declares shared types as plain bytes to the loader.
//!
//! Invariant: every type passed to [`shared_layout!`] also derives zerocopy's `IntoBytes`, which
//! the compiler accepts only for types without padding. So the declaration is checked at compile
//! time.

/// Asserts size and field offsets of a shared struct and, for the agent, implements `aya::Pod`.
macro_rules! shared_layout {
    ($type:ty, size $size:literal $(, $field:ident at $offset:literal)* $(,)?) => {
        const _: () = {
            assert!(core::mem::size_of::<$type>() == $size);
            $(assert!(core::mem::offset_of!($type, $field) == $offset);)*
            const fn has_no_padding<T: zerocopy::IntoBytes + zerocopy::Immutable>() {}
            has_no_padding::<$type>();
        };
        #[cfg(feature = "user")]
        #[allow(unsafe_code, reason = "aya asks for this marker on every map key and value")]
        // SAFETY: `has_no_padding` above proves the type is `IntoBytes`: no padding, no pointers.
        unsafe impl aya::Pod for $type {}
    };
}
pub(crate) use shared_layout;
