//! A system call that returns: who made it, which one it was, and on which socket.

use aya_ebpf::helpers::bpf_get_current_task;
use reaper_common::layout::Layout;

use super::{Copied, Pointer as _, Task, Typed, constant};

/// `S_IFMT` and `S_IFSOCK`, include/uapi/linux/stat.h.
const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;

/// Bytes of a pointer.
const POINTER: i64 = 8;

impl Task<Copied> {
    /// The thread that runs, where a kernel before 5.11 gives no typed pointer to it.
    #[inline(always)]
    pub(crate) fn running() -> Self {
        // SAFETY: no precondition.
        Self(Copied(unsafe { bpf_get_current_task() } as usize))
    }

    /// Inode number of the socket behind a descriptor, as `/proc/PID/fd` shows it; 0 if it is no socket, none if it is closed.
    /// (Another thread may open and close descriptors while this looks.)
    #[inline(always)]
    pub(crate) fn socket(self, fd: u32) -> Option<u64> {
        let table = self.0.follow(offset!(task_files))?.follow(offset!(files_fdt))?;
        if fd >= table.load(offset!(fdt_max_fds)) {
            return None;
        }
        let open = table.follow(offset!(fdt_fd))?;
        let file = open.follow(i64::from(fd) * POINTER)?;
        let inode = file.follow(offset!(file_inode))?;
        let mode: u16 = inode.load(offset!(inode_mode));
        Some(if mode & S_IFMT == S_IFSOCK { inode.load(offset!(inode_ino)) } else { 0 })
    }
}

/// `struct pt_regs` of a system call that returns.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Call(*const u8);

impl Call {
    /// Takes the argument of the tracepoint `sys_exit`.
    #[inline(always)]
    pub(crate) fn new(regs: *const u8) -> Self {
        Self(regs)
    }

    /// Which one it was. (Both architectures keep the number in the lower half of a word, or in a half of its own.)
    #[inline(always)]
    pub(crate) fn number(self) -> i64 {
        i64::from(Typed(self.0).load::<i32>(offset!(regs_call)))
    }

    #[inline(always)]
    pub(crate) fn first(self) -> u64 {
        Typed(self.0).load(offset!(regs_first))
    }

    #[inline(always)]
    pub(crate) fn second(self) -> u64 {
        Typed(self.0).load(offset!(regs_second))
    }

    #[inline(always)]
    pub(crate) fn third(self) -> u64 {
        Typed(self.0).load(offset!(regs_third))
    }

    #[inline(always)]
    pub(crate) fn fourth(self) -> u64 {
        Typed(self.0).load(offset!(regs_fourth))
    }

    /// What it does with data.
    #[inline(always)]
    pub(crate) fn moves(self) -> Moves {
        let number = self.number();
        if number == offset!(call_read) || number == offset!(call_readv) || number == offset!(call_preadv2) {
            Moves::In { flags: 0 }
        } else if number == offset!(call_write)
            || number == offset!(call_writev)
            || number == offset!(call_pwritev2)
            || number == offset!(call_sendto)
            || number == offset!(call_sendmsg)
            || number == offset!(call_sendfile)
        {
            Moves::Out
        } else if number == offset!(call_recvfrom) {
            Moves::In { flags: self.fourth() }
        } else if number == offset!(call_recvmsg) {
            Moves::In { flags: self.third() }
        } else if number == offset!(call_sendmmsg) {
            Moves::Messages { out: true, flags: 0 }
        } else if number == offset!(call_recvmmsg) {
            Moves::Messages { out: false, flags: self.fourth() }
        } else if number == offset!(call_splice) {
            Moves::OutOfPipe
        } else if number == offset!(call_io_uring_enter) || number == offset!(call_io_submit) {
            Moves::Unseen
        } else {
            Moves::Nothing
        }
    }
}

/// What a system call does with data, and where its descriptor is.
#[derive(Clone, Copy)]
pub(crate) enum Moves {
    /// Nothing that counts.
    Nothing,
    /// Into the first argument, as many bytes as it returns.
    Out,
    /// Out of the first argument, as many bytes as it returns.
    In {
        /// `MSG_…`.
        flags: u64,
    },
    /// Into the third argument, as many bytes as it returns.
    OutOfPipe,
    /// Into or out of the first argument, as many messages as it returns, of the vector that is the second one.
    Messages {
        /// They are sent.
        out: bool,
        /// `MSG_…`.
        flags: u64,
    },
    /// By others, later, and into what only they know.
    Unseen,
}
