//! The two ways of reading a struct of the kernel.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

/// How a struct of the kernel is read.
pub(crate) trait Pointer: Copy {
    /// The field of type `T` at `offset` bytes; 0 where nothing can be read.
    fn load<T: Copy + Default>(self, offset: i64) -> T;

    /// The pointer at `offset` bytes, if it is not NULL.
    fn follow(self, offset: i64) -> Option<Self>;

    /// Where it points to.
    fn address(self) -> *const u8;
}

/// A pointer that the verifier knows the type of: a field is one plain load. Where programs run often.
///
/// For every pointer that is loaded through it the verifier searches all of the kernel's types by name (6.4 and later,
/// `btf_nested_type_is_trusted`): some milliseconds, for every path that leads there and for every turn of a loop.
#[derive(Clone, Copy)]
pub(crate) struct Typed(pub(super) *const u8);

impl Pointer for Typed {
    #[inline(always)]
    fn load<T: Copy + Default>(self, offset: i64) -> T {
        // SAFETY: the verifier refuses a load through another pointer or outside of a field, and the kernel survives a fault.
        unsafe { self.0.offset(offset as isize).cast::<T>().read_volatile() }
    }

    #[inline(always)]
    fn follow(self, offset: i64) -> Option<Self> {
        // SAFETY: as above.
        let to: *const u8 = unsafe { self.0.offset(offset as isize).cast::<*const u8>().read_volatile() };
        (!to.is_null()).then_some(Self(to))
    }

    #[inline(always)]
    fn address(self) -> *const u8 {
        self.0
    }
}

/// The address of a struct that the verifier knows nothing of: fields are copied by a helper. Where programs seldom get to, and in
/// loops.
#[derive(Clone, Copy)]
pub(crate) struct Copied(pub(super) usize);

impl Pointer for Copied {
    #[inline(always)]
    fn load<T: Copy + Default>(self, offset: i64) -> T {
        probe(field(self.0, offset))
    }

    #[inline(always)]
    fn follow(self, offset: i64) -> Option<Self> {
        let to: usize = self.load(offset);
        (to != 0).then_some(Self(to))
    }

    #[inline(always)]
    fn address(self) -> *const u8 {
        self.0 as *const u8
    }
}

impl Copied {
    /// The pointer at `offset` bytes, NULL or not: every field of NULL reads as 0.
    #[inline(always)]
    pub(super) fn follow_null(self, offset: i64) -> Self {
        Self(self.load(offset))
    }
}

/// 1 for 0, and 0 for all else. Computed, because a comparison is a branch to the verifier; LLVM makes some of one all the same.
#[inline(always)]
pub(super) fn is_zero(number: u64) -> u64 {
    (number.wrapping_sub(1) & !number) >> 63
}

/// Copies a `T` from any kernel address; 0 where nothing can be read. (Without a branch: the helper itself clears the copy then,
/// kernel/trace/bpf_trace.c `bpf_probe_read_kernel_common`, and what the verifier has to go through doubles with every branch.)
#[inline(always)]
pub(super) fn probe<T: Copy + Default>(address: *const u8) -> T {
    let mut copy = T::default();
    // SAFETY: `copy` has that many bytes. Any address is fine to the helper, it fails where nothing can be read.
    unsafe { bpf_probe_read_kernel((&raw mut copy).cast(), size_of::<T>() as u32, address.cast()) };
    copy
}

/// The address of a field of a struct that the verifier does not know.
#[inline(always)]
pub(super) fn field(base: usize, offset: i64) -> *const u8 {
    (base as *const u8).wrapping_offset(offset as isize)
}
