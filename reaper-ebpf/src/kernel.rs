//! The kernel structs that the programs read, and nothing else about them.
//!
//! Each type is a pointer that the verifier knows the type of (it came from a tracepoint's argument or from such a
//! pointer), so a field is one plain load at an offset from [`Layout`], and the verifier checks that the running kernel
//! has a field of that size there. The loads are volatile: LLVM must not merge two of them into one that spans fields.
//! A load through a pointer that has gone bad reads 0 (the kernel handles the fault), it does not crash.
//!
//! What is read may change while it is read, as no lock of the kernel is held. RCU keeps the structs themselves alive.
#![allow(dead_code, reason = "each of the two objects reads its own part")]

use core::ffi::c_void;

use aya_ebpf::Global;
use aya_ebpf::bindings::seq_file;
use aya_ebpf::helpers::{bpf_get_current_task_btf, bpf_probe_read_kernel};
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

/// The number at `at` bytes in [`REAPER_LAYOUT`].
#[inline(always)]
fn constant(at: usize) -> i64 {
    let layout = (&raw const REAPER_LAYOUT).cast::<u8>();
    // SAFETY: a `Global` is a transparent wrapper of the initialised `Layout`, and `at` is the offset of one of its
    // fields, which are all numbers of this type. Volatile because the agent changes it behind the compiler's back.
    unsafe { layout.add(at).cast::<i64>().read_volatile() }
}

/// Loads a `T` at `offset` bytes from `base`.
///
/// # Safety
/// `base` is a pointer that the verifier knows the type of. (If it is not, the program does not load.)
#[inline(always)]
unsafe fn load<T: Copy>(base: *const u8, offset: i64) -> T {
    // SAFETY: the verifier refuses a load outside of a field, and the kernel survives a fault.
    unsafe { base.offset(offset as isize).cast::<T>().read_volatile() }
}

/// Copies a `T` from any kernel address, where the verifier does not know the pointer's type.
#[inline(always)]
fn probe<T>(address: *const u8) -> Option<T> {
    // SAFETY: any address is fine to the helper, it fails where nothing can be read.
    unsafe { bpf_probe_read_kernel(address.cast::<T>()) }.ok()
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
pub(crate) struct Task(*const u8);

impl Task {
    /// Takes a pointer that the kernel passed as a `struct task_struct *`.
    #[inline(always)]
    pub(crate) fn new(pointer: *const u8) -> Option<Self> {
        (!pointer.is_null()).then_some(Self(pointer))
    }

    /// The thread that runs. Needs 5.11.
    #[inline(always)]
    pub(crate) fn current() -> Option<Self> {
        // SAFETY: no precondition.
        Self::new(unsafe { bpf_get_current_task_btf() }.cast())
    }

    /// Thread id in the initial pid namespace.
    #[inline(always)]
    pub(crate) fn pid(self) -> u32 {
        // SAFETY: `self` is typed.
        unsafe { load(self.0, offset!(task_pid)) }
    }

    /// Thread group id in the initial pid namespace.
    #[inline(always)]
    pub(crate) fn tgid(self) -> u32 {
        // SAFETY: `self` is typed.
        unsafe { load(self.0, offset!(task_tgid)) }
    }

    /// What a wait(2) would report of this thread alone.
    #[inline(always)]
    fn exit_code(self) -> u32 {
        // SAFETY: `self` is typed.
        unsafe { load(self.0, offset!(task_exit_code)) }
    }

    /// A thread of the process that waits for this one.
    #[inline(always)]
    pub(crate) fn real_parent(self) -> Option<Self> {
        // SAFETY: `self` is typed.
        Self::new(unsafe { load(self.0, offset!(task_real_parent)) })
    }

    /// The thread whose id is the process's.
    #[inline(always)]
    pub(crate) fn group_leader(self) -> Option<Self> {
        // SAFETY: `self` is typed.
        Self::new(unsafe { load(self.0, offset!(task_group_leader)) })
    }

    /// What the threads of the process share.
    #[inline(always)]
    pub(crate) fn signal(self) -> Option<Signal> {
        // SAFETY: `self` is typed.
        let signal: *const u8 = unsafe { load(self.0, offset!(task_signal)) };
        (!signal.is_null()).then_some(Signal(signal))
    }

    /// `thread_pid`: the thread's `struct pid`. None once the thread is released.
    #[inline(always)]
    pub(crate) fn thread_pid(self) -> Option<Pid> {
        // SAFETY: `self` is typed.
        let pid: *const u8 = unsafe { load(self.0, offset!(task_thread_pid)) };
        (!pid.is_null()).then_some(Pid(pid))
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
            Some(number) => probe(field(number, offset!(upid_nr))).unwrap_or(0),
            None => 0,
        }
    }

    /// Address of `thread_pid->numbers[level]`. A level is no constant, and before about 6.4 the verifier lets no variable
    /// be added to a typed pointer: so the address is made from a pointer that was copied as a number.
    #[inline(always)]
    fn number(self, level: u32) -> Option<usize> {
        let pid: usize = probe(self.0.wrapping_offset(offset!(task_thread_pid) as isize))?;
        let index = (level as usize).wrapping_mul(offset!(upid_size).cast_unsigned() as usize);
        Some(field(pid, offset!(pid_numbers)) as usize + index)
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
        // SAFETY: `leader` is typed.
        let start_ns = unsafe { load(leader.0, offset!(task_start_boottime)) };
        Proc { start_ns, tgid: self.tgid(), _pad: 0 }
    }

    /// Real uid in the initial user namespace.
    #[inline(always)]
    pub(crate) fn uid(self) -> u32 {
        // SAFETY: `self` is typed, and so is what it points to.
        unsafe {
            let cred: *const u8 = load(self.0, offset!(task_real_cred));
            if cred.is_null() { 0 } else { load(cred, offset!(cred_uid)) }
        }
    }

    /// The thread's name, NUL-padded.
    #[inline(always)]
    pub(crate) fn comm(self) -> [u8; COMM_LEN] {
        let at = offset!(task_comm);
        if at & 7 == 0 {
            // SAFETY: `self` is typed; two aligned loads inside of the array.
            let halves: [u64; 2] = unsafe { [load(self.0, at), load(self.0, at + 8)] };
            // SAFETY: any 16 bytes are a `[u8; 16]`.
            unsafe { core::mem::transmute::<[u64; 2], [u8; COMM_LEN]>(halves) }
        } else {
            probe(self.0.wrapping_offset(at as isize)).unwrap_or_default()
        }
    }

    /// Whether this thread (not its process) is somebody's `real_parent`.
    #[inline(always)]
    pub(crate) fn has_children(self) -> bool {
        let at = offset!(task_children);
        // SAFETY: `self` is typed; a list is empty when its head points to itself.
        unsafe {
            let next: *const u8 = load(self.0, at + offset!(list_next));
            next != self.0.offset(at as isize)
        }
    }

    /// [`flag`] bits of what does not change during a life: kernel thread and child reaper.
    #[inline(always)]
    pub(crate) fn birth_flags(self) -> u32 {
        // SAFETY: `self` is typed.
        let task_flags: u32 = unsafe { load(self.0, offset!(task_flags)) };
        let mut flags = 0;
        if task_flags & PF_KTHREAD != 0 {
            flags |= flag::KERNEL_THREAD;
        }
        if self.innermost_nr() == 1 {
            flags |= flag::CHILD_REAPER;
        }
        flags
    }

    /// The address range of argv in the process's own memory. `None` for kernel threads and on kernels that keep it
    /// elsewhere.
    #[inline(always)]
    pub(crate) fn argv_range(self) -> Option<(u64, u64)> {
        if offset!(mm_arg_start) == MISSING || offset!(mm_arg_end) == MISSING {
            return None;
        }
        // SAFETY: `self` is typed, and so is what it points to.
        unsafe {
            let mm: *const u8 = load(self.0, offset!(task_mm));
            if mm.is_null() {
                return None;
            }
            Some((load(mm, offset!(mm_arg_start)), load(mm, offset!(mm_arg_end))))
        }
    }
}

/// `struct task_struct` as an address only, where few processes get to or a loop goes: its fields are copied.
///
/// For every pointer that is loaded through a typed one the verifier searches all of the kernel's types by name (6.4 and later,
/// `btf_nested_type_is_trusted`), about a millisecond each, once for every path that leads there and for every turn of a loop.
#[derive(Clone, Copy)]
pub(crate) struct Distant(usize);

impl Distant {
    #[inline(always)]
    pub(crate) fn of(task: Task) -> Self {
        Self(task.0 as usize)
    }

    /// See [`Task::real_parent`].
    #[inline(always)]
    pub(crate) fn real_parent(self) -> Option<Self> {
        let parent: usize = probe(field(self.0, offset!(task_real_parent)))?;
        (parent != 0).then_some(Self(parent))
    }

    /// See [`Pid::level`]. `None` too if the thread is released.
    #[inline(always)]
    pub(crate) fn level(self) -> Option<u32> {
        probe(field(self.thread_pid()?, offset!(pid_level)))
    }

    /// See [`Task::tgid`].
    #[inline(always)]
    pub(crate) fn tgid(self) -> Option<u32> {
        probe(field(self.0, offset!(task_tgid)))
    }

    /// See [`Signal::live`].
    #[inline(always)]
    pub(crate) fn live(self) -> Option<i32> {
        probe(field(self.signal()?, offset!(signal_live)))
    }

    /// See [`Signal::is_child_subreaper`] and [`Signal::live`].
    #[inline(always)]
    pub(crate) fn is_live_subreaper(self) -> Option<bool> {
        if !self.signal_bit(offset!(signal_is_child_subreaper_bit))? {
            return Some(false);
        }
        Some(self.live()? > 0)
    }

    /// The process has, or had, a subreaper among its ancestors.
    #[inline(always)]
    pub(crate) fn has_child_subreaper(self) -> Option<bool> {
        self.signal_bit(offset!(signal_has_child_subreaper_bit))
    }

    /// The child reaper of the pid namespace of that level in which the thread is: `task_active_pid_ns(task)->child_reaper`.
    #[inline(always)]
    pub(crate) fn child_reaper(self, level: u32) -> Option<Self> {
        let index = (level as usize).wrapping_mul(offset!(upid_size).cast_unsigned() as usize);
        let number = (field(self.thread_pid()?, offset!(pid_numbers)) as usize).wrapping_add(index);
        let ns: usize = probe(field(number, offset!(upid_ns)))?;
        Some(Self(probe(field(ns, offset!(ns_child_reaper)))?))
    }

    /// See [`Task::process`].
    #[inline(always)]
    pub(crate) fn process(self) -> Option<Proc> {
        let leader: usize = probe(field(self.0, offset!(task_group_leader)))?;
        let start_ns = probe(field(leader, offset!(task_start_boottime)))?;
        Some(Proc { start_ns, tgid: self.tgid()?, _pad: 0 })
    }

    #[inline(always)]
    fn thread_pid(self) -> Option<usize> {
        let pid: usize = probe(field(self.0, offset!(task_thread_pid)))?;
        (pid != 0).then_some(pid)
    }

    #[inline(always)]
    fn signal(self) -> Option<usize> {
        probe(field(self.0, offset!(task_signal)))
    }

    /// A field of one bit, counted from the lowest bit of the first byte of `struct signal_struct`.
    #[inline(always)]
    fn signal_bit(self, bit: i64) -> Option<bool> {
        let byte: u8 = probe(field(self.signal()?, bit >> 3))?;
        Some(byte & (1 << (bit & 7)) != 0)
    }
}

/// `struct signal_struct`: what the threads of a process share.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Signal(*const u8);

impl Signal {
    /// Threads that have not begun to die. do_exit lowers it before the tracepoint.
    #[inline(always)]
    pub(crate) fn live(self) -> i32 {
        // SAFETY: `self` is typed.
        unsafe { load(self.0, offset!(signal_live)) }
    }

    /// Whether the process has threads besides the one that asks, dead ones included that are not released yet.
    #[inline(always)]
    pub(crate) fn has_other_threads(self) -> bool {
        if offset!(signal_nr_threads) == MISSING {
            return true;
        }
        // SAFETY: `self` is typed.
        unsafe { load::<i32>(self.0, offset!(signal_nr_threads)) != 1 }
    }

    /// Session id in the initial pid namespace.
    #[inline(always)]
    pub(crate) fn session(self) -> u32 {
        // SAFETY: `self` is typed.
        let session: *const u8 = unsafe { load(self.0, offset!(signal_session)) };
        if session.is_null() { 0 } else { Pid(session).outermost_nr() }
    }

    /// The process adopts orphans among its descendants (`PR_SET_CHILD_SUBREAPER`).
    #[inline(always)]
    pub(crate) fn is_child_subreaper(self) -> bool {
        let bit = offset!(signal_is_child_subreaper_bit);
        // SAFETY: `self` is typed, and a load of the byte covers the field of one bit.
        let byte: u8 = unsafe { load(self.0, bit >> 3) };
        byte & (1 << (bit & 7)) != 0
    }

    /// Whether alarm(2) or setitimer(2) with `ITIMER_REAL` will send a SIGALRM. `None` if this kernel keeps it elsewhere.
    #[inline(always)]
    pub(crate) fn has_alarm(self) -> Option<bool> {
        if offset!(signal_real_timer_queued) == MISSING || offset!(signal_it_real_incr) == MISSING {
            return None;
        }
        // SAFETY: `self` is typed. Between expiry and the delivery of its signal a timer with an interval is not queued, but it
        // will be (kernel/time/itimer.c, kernel/signal.c `dequeue_signal`).
        unsafe {
            let queued: u8 = load(self.0, offset!(signal_real_timer_queued));
            let interval: u64 = load(self.0, offset!(signal_it_real_incr));
            Some(queued & 1 != 0 || interval != 0)
        }
    }

    /// What wait(2) reports of the whole process: kernel/exit.c `wait_task_zombie`.
    #[inline(always)]
    pub(crate) fn wait_status(self, leader: Task) -> u32 {
        // SAFETY: `self` is typed.
        unsafe {
            if load::<u32>(self.0, offset!(signal_flags)) & SIGNAL_GROUP_EXIT != 0 {
                load(self.0, offset!(signal_group_exit_code))
            } else {
                leader.exit_code()
            }
        }
    }
}

/// `struct pid`: an id in each of the pid namespaces that see it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Pid(*const u8);

impl Pid {
    /// How many pid namespaces lie around the one it was made in; 0 is the initial one.
    #[inline(always)]
    pub(crate) fn level(self) -> u32 {
        // SAFETY: `self` is typed.
        unsafe { load(self.0, offset!(pid_level)) }
    }

    /// The number in the initial pid namespace.
    #[inline(always)]
    fn outermost_nr(self) -> u32 {
        // SAFETY: `self` is typed.
        unsafe { load(self.0, offset!(pid_numbers) + offset!(upid_nr)) }
    }
}

/// The address of a field of a struct that the verifier does not know.
#[inline(always)]
fn field(base: usize, offset: i64) -> *const u8 {
    (base as *const u8).wrapping_offset(offset as isize)
}

/// `linux_binprm::filename` as an address in the kernel, of a string that ends with a NUL.
#[inline(always)]
pub(crate) fn binprm_filename(binprm: *const u8) -> Option<*const u8> {
    if offset!(binprm_filename) == MISSING || binprm.is_null() {
        return None;
    }
    // SAFETY: `binprm` is the tracepoint's argument.
    Some(unsafe { load(binprm, offset!(binprm_filename)) })
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
    // SAFETY: `sock` is the tracepoint's argument, and what it points to is typed.
    unsafe {
        let socket: *const u8 = load(sock, offset!(sock_socket));
        if socket.is_null() {
            return 0;
        }
        let file: *const u8 = load(socket, offset!(socket_file));
        if file.is_null() {
            return 0;
        }
        let inode: *const u8 = load(file, offset!(file_inode));
        if inode.is_null() { 0 } else { load(inode, offset!(inode_ino)) }
    }
}

/// Whether the tracepoint sched_process_exit says itself that the thread is its process's last.
#[inline(always)]
pub(crate) fn exit_has_group_dead() -> bool {
    offset!(exit_has_group_dead) == 1
}
