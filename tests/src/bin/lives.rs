//! Processes for the benchmarks, made by a process that is as small as a process can be here, so that it is not its own
//! memory that is measured.
//!
//! `lives make TOKEN` reads lines `fork N`, `vfork N` or `spawn N PROGRAM`, makes so many processes one after the other, waits
//! for each, and answers with the nanoseconds that took. `lives hold TOKEN N` has N children that share its memory and sleep.
//! `lives wide TOKEN THREADS SOCKETS` has so many threads that sleep and so many sockets. `lives burn TOKEN THREADS` has so many
//! threads that use all the CPU time they can get. Each writes `ready` and lives until
//! its standard input ends; children die with it.
#![allow(clippy::unwrap_used, reason = "a broken helper shows up as a benchmark that fails")]
#![allow(clippy::print_stdout, reason = "it answers on stdout")]

use std::ffi::{CString, c_int, c_void};
use std::io::BufRead as _;
use std::os::unix::net::UnixStream;
use std::ptr::{null, null_mut};
use std::time::{Duration, Instant};

/// What a child that only sleeps or exits needs.
const STACK: usize = 4096;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<usize>().unwrap();
    match args[1..] {
        ["make", _token] => make(),
        ["hold", _token, count] => {
            (0..number(count)).for_each(|_| _ = clone(sleeper, libc::CLONE_VM));
            ready();
        }
        ["wide", _token, threads, sockets] => {
            for _ in 1..number(threads) {
                std::thread::spawn(|| std::thread::sleep(Duration::from_secs(3_600)));
            }
            let pairs: Vec<_> = (0..number(sockets) / 2).map(|_| UnixStream::pair().unwrap()).collect();
            ready();
            drop(pairs);
        }
        ["burn", _token, threads] => {
            for _ in 0..number(threads) {
                std::thread::spawn(|| {
                    loop {
                        std::hint::spin_loop();
                    }
                });
            }
            ready();
        }
        _ => std::process::exit(2),
    }
}

/// Says so, and waits for the end of standard input.
fn ready() {
    println!("ready");
    std::io::stdin().lines().for_each(drop);
}

fn make() {
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let count: usize = words[1].parse().unwrap();
        let began = Instant::now();
        match words[..] {
            ["fork", _] => (0..count).for_each(|_| wait(fork())),
            ["vfork", _] => (0..count).for_each(|_| wait(clone(exiter, libc::CLONE_VM | libc::CLONE_VFORK))),
            ["spawn", _, program] => {
                let program = CString::new(program).unwrap();
                (0..count).for_each(|_| wait(spawn(&program)));
            }
            _ => std::process::exit(2),
        }
        println!("{}", began.elapsed().as_nanos());
    }
}

fn fork() -> i32 {
    // SAFETY: the child exits at once; this process has one thread.
    match unsafe { libc::fork() } {
        // SAFETY: no precondition.
        0 => unsafe { libc::_exit(0) },
        child => child,
    }
}

fn spawn(program: &CString) -> i32 {
    let mut child = 0;
    let arguments = [program.as_ptr().cast_mut(), null_mut()];
    // SAFETY: the program and its arguments end with NUL, the list with a null pointer, and all outlive the call.
    let failed = unsafe {
        let environment = [null_mut()];
        libc::posix_spawn(
            &raw mut child,
            program.as_ptr(),
            null(),
            null(),
            arguments.as_ptr(),
            environment.as_ptr(),
        )
    };
    assert_eq!(failed, 0, "posix_spawn");
    child
}

/// A child that shares this process's memory and has a stack of its own, which is never given back.
fn clone(body: extern "C" fn(*mut c_void) -> c_int, flags: c_int) -> i32 {
    /// The stack of those that live while this process waits.
    static mut SHORT_LIVED: [u8; 4 * STACK] = [0; 4 * STACK];
    let stack = if flags & libc::CLONE_VFORK == 0 {
        Box::leak(vec![0_u8; STACK].into_boxed_slice()).as_mut_ptr_range().end
    } else {
        // SAFETY: one child at a time has it, and this process waits until that is gone.
        unsafe { (&raw mut SHORT_LIVED).cast::<u8>().add(4 * STACK) }
    };
    // Stacks are aligned to 16 bytes.
    let stack = stack.wrapping_sub(stack.addr() % 16);
    // SAFETY: the stack is the child's alone, and long enough for a system call.
    let child = unsafe { libc::clone(body, stack.cast(), flags | libc::SIGCHLD, null_mut()) };
    assert!(child > 0, "clone: {}", std::io::Error::last_os_error());
    child
}

extern "C" fn exiter(_: *mut c_void) -> c_int {
    // SAFETY: no precondition.
    unsafe { libc::_exit(0) }
}

extern "C" fn sleeper(_: *mut c_void) -> c_int {
    // SAFETY: plain system calls. It dies with its parent.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    loop {
        // SAFETY: no precondition.
        unsafe { libc::pause() };
    }
}

fn wait(child: i32) {
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0);
}
