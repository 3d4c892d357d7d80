//! Wire structs as keys and values of maps.

use aya::Pod;

/// A wire struct as a key or a value of a map.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(super) struct Plain<T>(pub(super) T);

// SAFETY: a wire struct has no padding and takes any bytes, which zerocopy's derives have checked.
unsafe impl<T: zerocopy::FromBytes + zerocopy::IntoBytes + Copy + 'static> Pod for Plain<T> {}
