//! A process that forks as if there were no tomorrow: `forker storm TOKEN SEED LIVES KEEP ADOPTS DIR`.
//!
//! It plays the scenes of [`scenes`] at random, from the seed, until LIVES processes were born or there is a file `enough` in
//! DIR. About KEEP scenes leave somebody behind who lives until `gate`, a fifo that the test holds open, is closed; so does
//! the forker itself. Whoever is orphaned reads its new parent from /proc and appends what it saw to `reports` (see
//! `reaper_tests::storm`). When all scenes are over the forker adds a line to `done`.
//!
//! `forker hold TOKEN GATE` only waits for the gate, whose descriptor it inherits: what the others exec.
//!
//! Nobody here signals anybody else, and nobody waits for longer than for the gate or two seconds.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken forker shows up as a test that fails")]
#![allow(clippy::print_stderr, reason = "the only way to say why")]

mod scenes;
mod sys;

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use sys::{Rng, Storm};

/// Scenes that may be on at once, those not counted that leave somebody behind.
const AT_ONCE: usize = 4;

/// How often, in scenes, the next pid is set back to where it was when the storm began.
const REUSE_EVERY: u64 = 40;

fn main() {
    // A panic must not unwind from a forked child into what its parent was doing.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("forker {}: {panic}", std::process::id());
        sys::exit_now(99);
    }));
    let args: Vec<String> = std::env::args().collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        [_, "hold", _, gate] => sys::wait_for_end_of(gate.parse().unwrap()),
        [_, "storm", token, seed, lives, keep, adopts, dir] => {
            // Whoever watches has priority, the storm has none.
            rustix::process::setpriority_process(None, 0).unwrap();
            let dir = Path::new(dir);
            // Not waiting for whoever writes: nobody does.
            let gate = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(dir.join("gate"));
            let gate = sys::keep_over_exec(gate.unwrap().as_raw_fd());
            let append = |name| OpenOptions::new().append(true).open(dir.join(name)).unwrap();
            if adopts == "1" {
                sys::become_subreaper();
            }
            let plan = Plan {
                lives: lives.parse().unwrap(),
                keep: keep.parse().unwrap(),
                enough: dir.join("enough"),
            };
            let storm = Storm::new(token, gate, append("reports"));
            run(&storm, Rng::new(seed.parse().unwrap()), &plan);
            append("done").write_all(b"done\n").unwrap();
            sys::wait_for_end_of(gate);
        }
        _ => panic!("usage: see the first lines of its source"),
    }
}

/// When it is over.
struct Plan {
    lives: u64,
    /// Scenes that leave somebody behind, of all.
    keep: u64,
    /// There when it shall be over before.
    enough: PathBuf,
}

/// Plays scenes until enough were born and all of them are over.
fn run(storm: &Storm, mut rng: Rng, plan: &Plan) {
    let first_pid = LastPid::read();
    let mut playing = BTreeSet::new();
    let (mut scenes, mut kept) = (0, 0);
    while storm.born() < plan.lives {
        let hold = kept * plan.lives < storm.born() * plan.keep;
        let pid = scenes::play(storm, &mut rng, hold);
        if hold {
            kept += 1;
        } else {
            playing.insert(pid);
        }
        scenes += 1;
        if scenes % REUSE_EVERY == 0 {
            first_pid.set_back();
            if plan.enough.exists() {
                break;
            }
        }
        while playing.len() >= AT_ONCE {
            reap(&mut playing, true);
        }
        reap(&mut playing, false);
    }
    while !playing.is_empty() {
        reap(&mut playing, true);
    }
}

/// Takes the dead ones, whoever they are; with `one`, waits for the first.
fn reap(playing: &mut BTreeSet<i32>, one: bool) {
    let mut blocking = one;
    while let Some(pid) = sys::reap(blocking) {
        playing.remove(&pid);
        blocking = false;
    }
}

/// `/proc/sys/kernel/ns_last_pid`: the kernel tries the next number first.
struct LastPid(u32);

impl LastPid {
    const PATH: &str = "/proc/sys/kernel/ns_last_pid";

    /// Below this number the kernel gives no pid a second time.
    const RESERVED: u32 = 300;

    fn read() -> Self {
        let text = fs::read_to_string(Self::PATH).unwrap();
        Self(text.trim().parse::<u32>().unwrap().max(Self::RESERVED))
    }

    /// Back to this one. Only ever lower: the kernel leaves out pids that are taken.
    fn set_back(&self) {
        if Self::read().0 > self.0 {
            fs::write(Self::PATH, self.0.to_string()).unwrap();
        }
    }
}
