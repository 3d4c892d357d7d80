//! A system call that returns: who made it, which one it was, and on which socket.

use aya_ebpf::helpers::bpf_get_current_task;
use reaper_common::Proc;
use reaper_common::layout::Layout;

use super::{constant, field, load, probe};

/// `S_IFMT` and `S_IFSOCK`, include/uapi/linux/stat.h.
const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;

/// The thread that runs, as an address: a kernel before 5.11 gives no typed pointer to it.
#[derive(Clone, Copy)]
pub(crate) struct Current(usize);

impl Current {
    #[inline(always)]
    pub(crate) fn get() -> Self {
        // SAFETY: no precondition.
        Self(unsafe { bpf_get_current_task() } as usize)
    }

    /// Its process.
    #[inline(always)]
    pub(crate) fn process(self) -> Option<Proc> {
        let leader: usize = probe(field(self.0, offset!(task_group_leader)))?;
        Some(Proc {
            start_ns: probe(field(leader, offset!(task_start_boottime)))?,
            tgid: probe(field(self.0, offset!(task_tgid)))?,
            _pad: 0,
        })
    }

    /// Inode number of the socket behind a descriptor, as `/proc/PID/fd` shows it; 0 if it is no socket, none if it is closed.
    /// (Another thread may open and close descriptors while this looks.)
    #[inline(always)]
    pub(crate) fn socket(self, fd: u32) -> Option<u64> {
        let files: usize = probe(field(self.0, offset!(task_files)))?;
        let table: usize = probe(field(files, offset!(files_fdt)))?;
        let most: u32 = probe(field(table, offset!(fdt_max_fds)))?;
        if fd >= most {
            return None;
        }
        let open: usize = probe(field(table, offset!(fdt_fd)))?;
        let file: usize = probe((open as *const usize).wrapping_add(fd as usize).cast())?;
        let inode: usize = probe(field(file, offset!(file_inode)))?;
        let mode: u16 = probe(field(inode, offset!(inode_mode)))?;
        if mode & S_IFMT == S_IFSOCK { probe(field(inode, offset!(inode_ino))) } else { Some(0) }
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
        // SAFETY: `self` is typed.
        i64::from(unsafe { load::<i32>(self.0, offset!(regs_call)) })
    }

    #[inline(always)]
    pub(crate) fn first(self) -> u64 {
        // SAFETY: `self` is typed.
        unsafe { load(self.0, offset!(regs_first)) }
    }

    #[inline(always)]
    pub(crate) fn second(self) -> u64 {
        // SAFETY: `self` is typed.
        unsafe { load(self.0, offset!(regs_second)) }
    }

    #[inline(always)]
    pub(crate) fn third(self) -> u64 {
        // SAFETY: `self` is typed.
        unsafe { load(self.0, offset!(regs_third)) }
    }

    #[inline(always)]
    pub(crate) fn fourth(self) -> u64 {
        // SAFETY: `self` is typed.
        unsafe { load(self.0, offset!(regs_fourth)) }
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
