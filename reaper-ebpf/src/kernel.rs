//! The kernel structs that the programs read, and nothing else about them.
//!
//! Each type is a pointer, and a field is at an offset from [`Layout`]. Nearly always the pointer is one that the verifier knows
//! the type of ([`Typed`]: it came from a tracepoint's argument or from such a pointer), so a field is one plain load, and the
//! verifier checks that the running kernel has a field of that size there. The loads are volatile: LLVM must not merge two of them
//! into one that spans fields. A load through a pointer that has gone bad reads 0 (the kernel handles the fault), it does not crash.
//!
//! What is read may change while it is read, as no lock of the kernel is held. RCU keeps the structs themselves alive.
#![allow(dead_code, reason = "each of the two objects reads its own part")]

use core::ffi::c_void;

use aya_ebpf::Global;
use aya_ebpf::bindings::seq_file;
use aya_ebpf::helpers::bpf_get_current_task_btf;
use reaper_common::layout::{Layout, MISSING};
use reaper_common::{COMM_LEN, Proc, flag};

/// `PF_KTHREAD`, include/linux/sched.h.
const PF_KTHREAD: u32 = 0x0020_0000;

/// `SIGNAL_GROUP_EXIT`, include/linux/sched/signal.h.
const SIGNAL_GROUP_EXIT: u32 = 4;

/// The running kernel's layout; the agent writes it before it loads the object.
#[unsafe(no_mangle)]
static REAPER_LAYOUT: Global<Layout> = Global::new(Layout::EMPTY);

/// One field of [`REAPER_LAYOUT`], which the verifier sees as a constant.
macro_rules! offset {
    ($field:ident) => {
        constant(core::mem::offset_of!(Layout, $field))
    };
}

// Here, behind the macro that it uses.
pub(crate) mod call;
mod pointer;

pub(crate) use pointer::{Copied, Pointer, Typed};
use pointer::{field, is_zero, probe};

/// The number at `at` bytes in [`REAPER_LAYOUT`].
#[inline(always)]
fn constant(at: usize) -> i64 {
    let layout = (&raw const REAPER_LAYOUT).cast::<u8>();
    // SAFETY: a `Global` is a transparent wrapper of the initialised `Layout`, and `at` is the offset of one of its
    // fields, which are all numbers of this type. Volatile because the agent changes it behind the compiler's back.
    unsafe { layout.add(at).cast::<i64>().read_volatile() }
}

/// `struct bpf_iter__task`, kernel/bpf/task_iter.c: the interface of every iterator over tasks.
#[repr(C)]
pub(crate) struct TaskIterator {
    meta: *const IteratorMeta,
    /// NULL once, after the last task.
    task: *const u8,
}

/// The beginning of `struct bpf_iter_meta`, include/linux/bpf.h.
#[repr(C)]
struct IteratorMeta {
    seq: *mut seq_file,
}

impl TaskIterator {
    /// Where to write, and the task.
    ///
    /// # Safety
    /// `ctx` is what the kernel called an iterator over tasks with.
    #[inline(always)]
    pub(crate) unsafe fn of(ctx: *mut c_void) -> (*mut seq_file, *const u8) {
        let ctx: *const Self = ctx.cast();
        // SAFETY: the caller's; the kernel passes its own `seq_file`.
        unsafe { ((*(*ctx).meta).seq, (*ctx).task) }
    }
}

/// `struct task_struct`: a thread.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Task<P = Typed>(P);

impl Task {
    /// Takes a pointer that the kernel passed as a `struct task_struct *`.
    #[inline(always)]
    pub(crate) fn new(pointer: *const u8) -> Option<Self> {
        (!pointer.is_null()).then_some(Self(Typed(pointer)))
    }

    /// The thread that runs. Needs 5.11.
    #[inline(always)]
    pub(crate) fn current() -> Option<Self> {
        // SAFETY: no precondition.
        Self::new(unsafe { bpf_get_current_task_btf() }.cast())
    }

    /// The same one, its fields to be copied from here on.
    #[inline(always)]
    pub(crate) fn copied(self) -> Task<Copied> {
        Task(Copied(self.0.0 as usize))
    }

    /// [`Self::group_leader`] as an address, which is a number to the verifier and not only to Rust.
    #[inline(always)]
    pub(crate) fn leader_copied(self) -> Task<Copied> {
        Task(Copied(probe(self.0.address().wrapping_offset(offset!(task_group_leader) as isize))))
    }

    /// The address range of argv in the process's own memory. `None` for kernel threads and on kernels that keep it
    /// elsewhere.
    #[inline(always)]
    pub(crate) fn argv_range(self) -> Option<(u64, u64)> {
        if offset!(mm_arg_start) == MISSING || offset!(mm_arg_end) == MISSING {
            return None;
        }
        let mm = self.0.follow(offset!(task_mm))?;
        Some((mm.load(offset!(mm_arg_start)), mm.load(offset!(mm_arg_end))))
    }
}

impl Task<Copied> {
    /// The one at an address.
    #[inline(always)]
    pub(crate) fn at(address: u64) -> Self {
        Self(Copied(address as usize))
    }

    /// Its address.
    #[inline(always)]
    pub(crate) fn to_address(self) -> u64 {
        self.0.0 as u64
    }

    /// [`Self::real_parent`], or NULL.
    #[inline(always)]
    pub(crate) fn real_parent_or_null(self) -> Self {
        Self(self.0.follow_null(offset!(task_real_parent)))
    }

    /// What decides whether it adopts somebody far below.
    #[inline(always)]
    pub(crate) fn ancestor(self) -> Ancestor {
        let pid = self.0.follow_null(offset!(task_thread_pid));
        let signal = Signal(self.0.follow_null(offset!(task_signal)));
        Ancestor {
            has_hole: is_zero(pid.0 as u64) | is_zero(signal.0.0 as u64),
            level: pid.load(offset!(pid_level)),
            is_idle: is_zero(u64::from(self.tgid())),
            adopts: signal.raw_bit(offset!(signal_is_child_subreaper_bit))
                & !is_zero(u64::from(signal.live().cast_unsigned())),
        }
    }
}

impl<P: Pointer> Task<P> {
    /// Thread id in the initial pid namespace.
    #[inline(always)]
    pub(crate) fn pid(self) -> u32 {
        self.0.load(offset!(task_pid))
    }

    /// Thread group id in the initial pid namespace.
    #[inline(always)]
    pub(crate) fn tgid(self) -> u32 {
        self.0.load(offset!(task_tgid))
    }

    /// What a wait(2) would report of this thread alone.
    #[inline(always)]
    fn exit_code(self) -> u32 {
        self.0.load(offset!(task_exit_code))
    }

    /// A thread of the process that waits for this one.
    #[inline(always)]
    pub(crate) fn real_parent(self) -> Option<Self> {
        self.0.follow(offset!(task_real_parent)).map(Self)
    }

    /// The thread whose id is the process's.
    #[inline(always)]
    pub(crate) fn group_leader(self) -> Option<Self> {
        self.0.follow(offset!(task_group_leader)).map(Self)
    }

    /// What the threads of the process share.
    #[inline(always)]
    pub(crate) fn signal(self) -> Option<Signal<P>> {
        self.0.follow(offset!(task_signal)).map(Signal)
    }

    /// `thread_pid`: the thread's `struct pid`. None once the thread is released.
    #[inline(always)]
    pub(crate) fn thread_pid(self) -> Option<Pid<P>> {
        self.0.follow(offset!(task_thread_pid)).map(Pid)
    }

    /// The thread's id in its own pid namespace, or 0. (Not an `Option`: LLVM would compute with the number before it looks
    /// whether there is one, and the verifier lets no unset register be read.)
    #[inline(always)]
    fn innermost_nr(self) -> u32 {
        let Some(pid) = self.thread_pid() else {
            return 0;
        };
        let level = pid.level();
        if level == 0 {
            return pid.outermost_nr();
        }
        match self.number(level) {
            Some(number) => number.load(offset!(upid_nr)),
            None => 0,
        }
    }

    /// Whether it is pid 1 of its pid namespace.
    #[inline(always)]
    pub(crate) fn is_child_reaper(self) -> bool {
        self.innermost_nr() == 1
    }

    /// `thread_pid->numbers[level]`. A level is no constant, and before about 6.4 the verifier lets no variable be added to a
    /// typed pointer: so the address is made from a pointer that was copied as a number.
    #[inline(always)]
    fn number(self, level: u32) -> Option<Copied> {
        let pid: usize = probe(self.0.address().wrapping_offset(offset!(task_thread_pid) as isize));
        if pid == 0 {
            return None;
        }
        let index = (level as usize).wrapping_mul(offset!(upid_size).cast_unsigned() as usize);
        Some(Copied((field(pid, offset!(pid_numbers)) as usize).wrapping_add(index)))
    }

    /// The child reaper of the thread's pid namespace of this level: `task_active_pid_ns(task)->child_reaper`.
    #[inline(always)]
    pub(crate) fn child_reaper(self, level: u32) -> Option<Task<Copied>> {
        self.number(level)?.follow(offset!(upid_ns))?.follow(offset!(ns_child_reaper)).map(Task)
    }

    /// The process: never a bare pid.
    #[inline(always)]
    pub(crate) fn process(self) -> Proc {
        match self.group_leader() {
            Some(leader) => self.process_led_by(leader),
            None => Proc { start_ns: 0, tgid: self.tgid(), _pad: 0 },
        }
    }

    /// The same of somebody whose [`Self::group_leader`] is known.
    #[inline(always)]
    pub(crate) fn process_led_by(self, leader: Self) -> Proc {
        Proc { start_ns: leader.0.load(offset!(task_start_boottime)), tgid: self.tgid(), _pad: 0 }
    }

    /// Real uid in the initial user namespace.
    #[inline(always)]
    pub(crate) fn uid(self) -> u32 {
        match self.0.follow(offset!(task_real_cred)) {
            Some(cred) => cred.load(offset!(cred_uid)),
            None => 0,
        }
    }

    /// The thread's name, NUL-padded.
    #[inline(always)]
    pub(crate) fn comm(self) -> [u8; COMM_LEN] {
        let at = offset!(task_comm);
        if at & 7 == 0 {
            let halves: [u64; 2] = [self.0.load(at), self.0.load(at + 8)];
            // SAFETY: any 16 bytes are a `[u8; 16]`.
            unsafe { core::mem::transmute::<[u64; 2], [u8; COMM_LEN]>(halves) }
        } else {
            probe(self.0.address().wrapping_offset(at as isize))
        }
    }

    /// Whether this thread (not its process) is somebody's `real_parent`: a list is empty when its head points to itself.
    #[inline(always)]
    pub(crate) fn has_children(self) -> bool {
        let list = self.0.address().wrapping_offset(offset!(task_children) as isize);
        let next: usize = probe(list.wrapping_offset(offset!(list_next) as isize));
        next != list as usize
    }

    /// [`flag`] bits of what does not change during a life: kernel thread and child reaper.
    #[inline(always)]
    pub(crate) fn birth_flags(self) -> u32 {
        let task_flags: u32 = self.0.load(offset!(task_flags));
        let mut flags = 0;
        if task_flags & PF_KTHREAD != 0 {
            flags |= flag::KERNEL_THREAD;
        }
        if self.is_child_reaper() {
            flags |= flag::CHILD_REAPER;
        }
        flags
    }
}

/// A task of those above another one, as [`crate::reparent`] looks at it. What is a `bool` elsewhere is 0 or 1, so that it takes one branch
/// to find that nothing is the case.
#[derive(Clone, Copy)]
pub(crate) struct Ancestor {
    /// A pointer is missing: it is going, and nothing else here is right.
    pub(crate) has_hole: u64,
    /// [`Pid::level`].
    pub(crate) level: u32,
    /// The process is the idle task's, pid 0.
    pub(crate) is_idle: u64,
    /// It is a subreaper and has a live thread.
    pub(crate) adopts: u64,
}

/// `struct signal_struct`: what the threads of a process share.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Signal<P = Typed>(P);

impl<P: Pointer> Signal<P> {
    /// Threads that have not begun to die. do_exit lowers it before the tracepoint.
    #[inline(always)]
    pub(crate) fn live(self) -> i32 {
        self.0.load(offset!(signal_live))
    }

    /// Whether the process has threads besides the one that asks, dead ones included that are not released yet.
    #[inline(always)]
    pub(crate) fn has_other_threads(self) -> bool {
        if offset!(signal_nr_threads) == MISSING {
            return true;
        }
        self.0.load::<i32>(offset!(signal_nr_threads)) != 1
    }

    /// Session id in the initial pid namespace.
    #[inline(always)]
    pub(crate) fn session(self) -> u32 {
        match self.0.follow(offset!(signal_session)) {
            Some(session) => Pid(session).outermost_nr(),
            None => 0,
        }
    }

    /// The process adopts orphans among its descendants (`PR_SET_CHILD_SUBREAPER`).
    #[inline(always)]
    pub(crate) fn is_child_subreaper(self) -> bool {
        self.bit(offset!(signal_is_child_subreaper_bit))
    }

    /// The process has, or had, a subreaper among its ancestors.
    #[inline(always)]
    pub(crate) fn has_child_subreaper(self) -> bool {
        self.bit(offset!(signal_has_child_subreaper_bit))
    }

    /// Whether alarm(2) or setitimer(2) with `ITIMER_REAL` will send a SIGALRM. `None` if this kernel keeps it elsewhere.
    #[inline(always)]
    pub(crate) fn has_alarm(self) -> Option<bool> {
        if offset!(signal_real_timer_queued) == MISSING || offset!(signal_it_real_incr) == MISSING {
            return None;
        }
        // Between expiry and the delivery of its signal a timer with an interval is not queued, but it will be
        // (kernel/time/itimer.c, kernel/signal.c `dequeue_signal`).
        let queued: u8 = self.0.load(offset!(signal_real_timer_queued));
        let interval: u64 = self.0.load(offset!(signal_it_real_incr));
        Some(queued & 1 != 0 || interval != 0)
    }

    /// A field of one bit, counted from the lowest bit of the first byte.
    #[inline(always)]
    fn bit(self, bit: i64) -> bool {
        self.raw_bit(bit) != 0
    }

    /// The same as 0 or 1.
    #[inline(always)]
    fn raw_bit(self, bit: i64) -> u64 {
        let byte: u8 = self.0.load(bit >> 3);
        u64::from(byte >> (bit & 7)) & 1
    }

    /// What wait(2) reports of the whole process: kernel/exit.c `wait_task_zombie`.
    #[inline(always)]
    pub(crate) fn wait_status(self, leader: Task<P>) -> u32 {
        if self.0.load::<u32>(offset!(signal_flags)) & SIGNAL_GROUP_EXIT != 0 {
            self.0.load(offset!(signal_group_exit_code))
        } else {
            leader.exit_code()
        }
    }
}

/// `struct pid`: an id in each of the pid namespaces that see it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Pid<P>(P);

impl<P: Pointer> Pid<P> {
    /// How many pid namespaces lie around the one it was made in; 0 is the initial one.
    #[inline(always)]
    pub(crate) fn level(self) -> u32 {
        self.0.load(offset!(pid_level))
    }

    /// The number in the initial pid namespace.
    #[inline(always)]
    fn outermost_nr(self) -> u32 {
        self.0.load(offset!(pid_numbers) + offset!(upid_nr))
    }
}

/// `linux_binprm::filename` as an address in the kernel, of a string that ends with a NUL.
#[inline(always)]
pub(crate) fn binprm_filename(binprm: *const u8) -> Option<*const u8> {
    if offset!(binprm_filename) == MISSING || binprm.is_null() {
        return None;
    }
    // A number to the verifier, so it is not followed.
    Typed(binprm).follow(offset!(binprm_filename)).map(Pointer::address)
}

/// Inode number of a `struct sock`, as `/proc/PID/fd` shows it; 0 if it has no inode, or this kernel keeps it elsewhere.
#[inline(always)]
pub(crate) fn socket_inode(sock: *const u8) -> u64 {
    if offset!(sock_socket) == MISSING
        || offset!(socket_file) == MISSING
        || offset!(file_inode) == MISSING
        || offset!(inode_ino) == MISSING
        || sock.is_null()
    {
        return 0;
    }
    let inode = || {
        let socket = Typed(sock).follow(offset!(sock_socket))?;
        socket.follow(offset!(socket_file))?.follow(offset!(file_inode))
    };
    inode().map_or(0, |inode| inode.load(offset!(inode_ino)))
}

/// Whether the tracepoint sched_process_exit says itself that the thread is its process's last.
#[inline(always)]
pub(crate) fn exit_has_group_dead() -> bool {
    offset!(exit_has_group_dead) == 1
}
