//! The system calls that the agent makes, and no others (seccomp(2)).
//!
//! An allow-list: what a library may call some day is not known, but what this agent has a use for is. It was
//! found by tracing the agent through its tests, and completed with the siblings of what was found: which call the C library
//! or the runtime takes for one and the same thing depends on version and architecture. Whatever is not on it fails with `EPERM`.
//!
//! Not on it, among all others: execve(2), kill(2) and its kin (whoever is signalled is signalled through a pidfd), mount(2),
//! setuid(2) and its kin, chown(2), init_module(2), unshare(2), setns(2), process_vm_readv(2), perf_event_open(2), keyctl(2),
//! io_uring_setup(2).

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter_all_threads,
};

/// Made by both architectures.
const CALLS: &[libc::c_long] = &[
    // Files and directories: the log, the state, the configuration, /proc.
    libc::SYS_close,
    libc::SYS_copy_file_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_ioctl,
    libc::SYS_lseek,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_umask,
    libc::SYS_unlinkat,
    libc::SYS_write,
    libc::SYS_writev,
    // Other processes: who they are, what they wait for, holding them still, signalling them.
    libc::SYS_getpgid,
    libc::SYS_getsid,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_wait4,
    libc::SYS_waitid,
    // The kernel's programs.
    libc::SYS_bpf,
    // Waiting.
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_nanosleep,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_restart_syscall,
    libc::SYS_timer_create,
    libc::SYS_timer_delete,
    libc::SYS_timer_settime,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_gettime,
    libc::SYS_timerfd_settime,
    // The status socket, the metrics, the service manager.
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_socket,
    libc::SYS_socketpair,
    // The process itself: memory, threads, signals it handles, its end.
    libc::SYS_brk,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_get_robust_list,
    libc::SYS_getcpu,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getgroups,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getresgid,
    libc::SYS_getresuid,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_prctl,
    libc::SYS_prlimit64,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    // The freezer starts where the agent waits for it.
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sigaltstack,
    libc::SYS_sysinfo,
    libc::SYS_uname,
];

/// The requests of ptrace(2) that hold a process still and look at it; none that changes anything.
const REQUESTS: &[libc::c_uint] = &[
    libc::PTRACE_SEIZE,
    libc::PTRACE_INTERRUPT,
    libc::PTRACE_DETACH,
    libc::PTRACE_PEEKTEXT,
    libc::PTRACE_PEEKDATA,
    libc::PTRACE_GETREGSET,
    libc::PTRACE_GETSIGINFO,
    #[cfg(target_arch = "x86_64")]
    libc::PTRACE_GETREGS,
];

/// Older forms that only x86-64 has.
#[cfg(target_arch = "x86_64")]
const OLDER: &[libc::c_long] = &[
    libc::SYS_access,
    libc::SYS_arch_prctl,
    libc::SYS_chmod,
    libc::SYS_dup2,
    libc::SYS_epoll_wait,
    libc::SYS_getdents,
    libc::SYS_getrlimit,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_select,
    libc::SYS_stat,
    libc::SYS_time,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[libc::c_long] = &[];

/// What Linux has had since 5.8 and may get: a C library that is newer than this list tries its own newest call first, and an older
/// one only if it hears that there is no such call. (The numbers are the same on every architecture.)
const NEWER: RangeInclusive<libc::c_long> = libc::SYS_faccessat2 + 1..=511;

/// Restricts this thread and all that it starts.
pub(super) fn restrict() -> anyhow::Result<()> {
    let mut calls: BTreeMap<i64, Vec<SeccompRule>> =
        CALLS.iter().chain(OLDER).map(|&call| (call, Vec::new())).collect();
    // The arguments of clone3(2) are in memory, where no filter can look; the C library takes clone(2) then.
    let unknown = NEWER.chain([libc::SYS_clone3]).filter(|call| !calls.contains_key(call));
    let unknown: BTreeMap<i64, Vec<SeccompRule>> = unknown.map(|call| (call, Vec::new())).collect();
    // So that it is the other filter that answers.
    calls.extend(unknown.clone());
    // Threads, not processes.
    let thread = u64::from(libc::CLONE_THREAD.cast_unsigned());
    calls.insert(libc::SYS_clone, vec![first_is(SeccompCmpOp::MaskedEq(thread), thread)?]);
    // abort(3).
    let own = u64::from(std::process::id());
    calls.insert(libc::SYS_tgkill, vec![first_is(SeccompCmpOp::Eq, own)?]);
    let requests = REQUESTS.iter().map(|&request| first_is(SeccompCmpOp::Eq, request.into()));
    calls.insert(libc::SYS_ptrace, requests.collect::<Result<_, _>>()?);
    let allowed = filter(calls, SeccompAction::Errno(libc::EPERM.cast_unsigned()), SeccompAction::Allow)?;
    let unknown = filter(unknown, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS.cast_unsigned()))?;
    // In this order: installing a filter is a call that the other one does not allow.
    apply_filter_all_threads(&unknown)?;
    apply_filter_all_threads(&allowed)?;
    Ok(())
}

/// A rule about the first argument.
fn first_is(op: SeccompCmpOp, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(0, SeccompCmpArgLen::Dword, op, value)?])
}

fn filter(
    calls: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matching: SeccompAction,
) -> anyhow::Result<BpfProgram> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    Ok(SeccompFilter::new(calls, otherwise, matching, arch)?.try_into()?)
}
