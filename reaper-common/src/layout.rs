//! Where the running kernel keeps what the programs read.
//!
//! rustc emits no CO-RE relocations, so the agent looks the offsets up in `/sys/kernel/btf/vmlinux` and writes this
//! struct over a global in the object's read-only data before it loads it. The kernel freezes that map, so its verifier
//! sees constants and checks every load against its own BTF: a wrong offset is a program that does not load, not a wrong
//! value.
//!
//! Offsets are in bytes from the start of the struct, those that end in `_bit` in bits. [`MISSING`] marks a field that
//! this kernel does not have; the branch that reads it is then dead code to the verifier.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The value of a field that this kernel does not have.
pub const MISSING: i64 = -1;

/// Name of the global in the object that holds a [`Layout`].
pub const SYMBOL: &str = "REAPER_LAYOUT";

/// The layout of the kernel structs that the programs read.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Layout {
    /// `task_struct::pid`.
    pub task_pid: i64,
    /// `task_struct::tgid`.
    pub task_tgid: i64,
    /// `task_struct::flags`.
    pub task_flags: i64,
    /// `task_struct::exit_code`.
    pub task_exit_code: i64,
    /// `task_struct::real_parent`.
    pub task_real_parent: i64,
    /// `task_struct::group_leader`.
    pub task_group_leader: i64,
    /// `task_struct::start_boottime`, nanoseconds.
    pub task_start_boottime: i64,
    /// `task_struct::signal`.
    pub task_signal: i64,
    /// `task_struct::comm`.
    pub task_comm: i64,
    /// `task_struct::children`.
    pub task_children: i64,
    /// `task_struct::thread_pid`.
    pub task_thread_pid: i64,
    /// `task_struct::real_cred`.
    pub task_real_cred: i64,
    /// `task_struct::mm`.
    pub task_mm: i64,
    /// `signal_struct::live`.
    pub signal_live: i64,
    /// `signal_struct::nr_threads`.
    pub signal_nr_threads: i64,
    /// `signal_struct::flags`.
    pub signal_flags: i64,
    /// `signal_struct::group_exit_code`.
    pub signal_group_exit_code: i64,
    /// `signal_struct::pids[PIDTYPE_SID]`.
    pub signal_session: i64,
    /// `signal_struct::is_child_subreaper`, one bit.
    pub signal_is_child_subreaper_bit: i64,
    /// `signal_struct::has_child_subreaper`, one bit.
    pub signal_has_child_subreaper_bit: i64,
    /// `pid::level`.
    pub pid_level: i64,
    /// `pid::numbers`.
    pub pid_numbers: i64,
    /// Bytes of a `struct upid`, the element of `pid::numbers`.
    pub upid_size: i64,
    /// `upid::nr`.
    pub upid_nr: i64,
    /// `upid::ns`.
    pub upid_ns: i64,
    /// `pid_namespace::child_reaper`.
    pub ns_child_reaper: i64,
    /// `cred::uid`.
    pub cred_uid: i64,
    /// `mm_struct::arg_start`, or [`MISSING`].
    pub mm_arg_start: i64,
    /// `mm_struct::arg_end`, or [`MISSING`].
    pub mm_arg_end: i64,
    /// `linux_binprm::filename`, or [`MISSING`].
    pub binprm_filename: i64,
    /// `list_head::next`.
    pub list_next: i64,
    /// `sock::sk_socket`, or [`MISSING`].
    pub sock_socket: i64,
    /// `socket::file`, or [`MISSING`].
    pub socket_file: i64,
    /// `file::f_inode`, or [`MISSING`].
    pub file_inode: i64,
    /// `inode::i_ino`, or [`MISSING`].
    pub inode_ino: i64,
    /// `inode::i_mode`, or [`MISSING`].
    pub inode_mode: i64,
    /// `task_struct::files`, or [`MISSING`].
    pub task_files: i64,
    /// `files_struct::fdt`, or [`MISSING`].
    pub files_fdt: i64,
    /// `fdtable::max_fds`, or [`MISSING`].
    pub fdt_max_fds: i64,
    /// `fdtable::fd`, or [`MISSING`].
    pub fdt_fd: i64,
    /// Number of the system call in a `pt_regs`: `orig_ax`, or `syscallno`; or [`MISSING`].
    pub regs_call: i64,
    /// Its first argument, `di` or `orig_x0`, or [`MISSING`].
    pub regs_first: i64,
    /// Its second one, `si` or `regs[1]`, or [`MISSING`].
    pub regs_second: i64,
    /// Its third one, `dx` or `regs[2]`, or [`MISSING`].
    pub regs_third: i64,
    /// Its fourth one, `r10` or `regs[3]`, or [`MISSING`].
    pub regs_fourth: i64,
    /// Number of read(2), as the others not a place but known to the agent's compiler.
    pub call_read: i64,
    /// Number of readv(2).
    pub call_readv: i64,
    /// Number of preadv2(2).
    pub call_preadv2: i64,
    /// Number of write(2).
    pub call_write: i64,
    /// Number of writev(2).
    pub call_writev: i64,
    /// Number of pwritev2(2).
    pub call_pwritev2: i64,
    /// Number of sendto(2).
    pub call_sendto: i64,
    /// Number of recvfrom(2).
    pub call_recvfrom: i64,
    /// Number of sendmsg(2).
    pub call_sendmsg: i64,
    /// Number of recvmsg(2).
    pub call_recvmsg: i64,
    /// Number of sendmmsg(2).
    pub call_sendmmsg: i64,
    /// Number of recvmmsg(2).
    pub call_recvmmsg: i64,
    /// Number of sendfile(2).
    pub call_sendfile: i64,
    /// Number of splice(2).
    pub call_splice: i64,
    /// Number of io_uring_enter(2).
    pub call_io_uring_enter: i64,
    /// Number of io_submit(2).
    pub call_io_submit: i64,
    /// Whether `signal_struct::real_timer` runs: the byte `hrtimer::state` or its successor in it, or [`MISSING`].
    pub signal_real_timer_queued: i64,
    /// `signal_struct::it_real_incr`, or [`MISSING`].
    pub signal_it_real_incr: i64,
    /// 1 if the tracepoint sched_process_exit passes `group_dead` (about 6.16), else 0.
    pub exit_has_group_dead: i64,
}

impl Layout {
    /// Every field [`MISSING`]: what the object holds until the agent writes the real one.
    pub const EMPTY: Self = Self {
        task_pid: MISSING,
        task_tgid: MISSING,
        task_flags: MISSING,
        task_exit_code: MISSING,
        task_real_parent: MISSING,
        task_group_leader: MISSING,
        task_start_boottime: MISSING,
        task_signal: MISSING,
        task_comm: MISSING,
        task_children: MISSING,
        task_thread_pid: MISSING,
        task_real_cred: MISSING,
        task_mm: MISSING,
        signal_live: MISSING,
        signal_nr_threads: MISSING,
        signal_flags: MISSING,
        signal_group_exit_code: MISSING,
        signal_session: MISSING,
        signal_is_child_subreaper_bit: MISSING,
        signal_has_child_subreaper_bit: MISSING,
        pid_level: MISSING,
        pid_numbers: MISSING,
        upid_size: MISSING,
        upid_nr: MISSING,
        upid_ns: MISSING,
        ns_child_reaper: MISSING,
        cred_uid: MISSING,
        mm_arg_start: MISSING,
        mm_arg_end: MISSING,
        binprm_filename: MISSING,
        list_next: MISSING,
        sock_socket: MISSING,
        socket_file: MISSING,
        file_inode: MISSING,
        inode_ino: MISSING,
        inode_mode: MISSING,
        task_files: MISSING,
        files_fdt: MISSING,
        fdt_max_fds: MISSING,
        fdt_fd: MISSING,
        regs_call: MISSING,
        regs_first: MISSING,
        regs_second: MISSING,
        regs_third: MISSING,
        regs_fourth: MISSING,
        call_read: MISSING,
        call_readv: MISSING,
        call_preadv2: MISSING,
        call_write: MISSING,
        call_writev: MISSING,
        call_pwritev2: MISSING,
        call_sendto: MISSING,
        call_recvfrom: MISSING,
        call_sendmsg: MISSING,
        call_recvmsg: MISSING,
        call_sendmmsg: MISSING,
        call_recvmmsg: MISSING,
        call_sendfile: MISSING,
        call_splice: MISSING,
        call_io_uring_enter: MISSING,
        call_io_submit: MISSING,
        signal_real_timer_queued: MISSING,
        signal_it_real_incr: MISSING,
        exit_has_group_dead: MISSING,
    };
}
