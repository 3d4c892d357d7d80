//! Storms of processes, from outside: eight `forker`s (`src/bin/forker`), what they report, and what /proc says.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::process::{Child, Command, Stdio};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::process::Proc;
use crate::scene::{Scene, build_folder};

/// Forkers in a storm.
pub const FORKERS: u64 = 8;

/// A storm that goes on, or is over while some of its processes live on. Dropping it ends them all.
pub struct Storm {
    /// All that live on wait for the end of this fifo. Closed first.
    gate: Option<File>,
    forkers: Vec<(Child, Proc)>,
    scene: Scene,
}

/// What an orphaned process saw of itself and its parent in /proc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its pid.
    pub pid: u32,
    /// Its start, in ticks.
    pub start_ticks: u64,
    /// Its parent's pid.
    pub ppid: u32,
    /// Its parent's start, in ticks.
    pub parent_start_ticks: u64,
    /// `CLOCK_BOOTTIME` before it looked.
    pub before: u64,
    /// `CLOCK_BOOTTIME` after it had looked.
    pub after: u64,
}

impl Storm {
    /// Starts the forkers. They make `lives` processes together, and let about `keep` scenes leave somebody behind. The same
    /// seed gives the same scenes, as far as each forker's own order goes.
    pub fn start(seed: u64, lives: u64, keep: u64) -> Self {
        let scene = Scene::new();
        let gate = scene.path("gate");
        mkfifo(&gate, Mode::from_bits_truncate(0o600)).unwrap();
        let gate = OpenOptions::new().read(true).write(true).open(&gate).unwrap();
        for name in ["reports", "done"] {
            File::create(scene.path(name)).unwrap();
        }
        let forkers = (0..FORKERS).map(|number| {
            let child = Command::new(build_folder().join("forker"))
                .args(["storm", scene.token()])
                .args([seed * FORKERS + number, lives / FORKERS, keep / FORKERS].map(|n| n.to_string()))
                // One of them leaves its orphans to whoever adopts on this machine.
                .arg(if number < 1 { "0" } else { "1" })
                .arg(scene.path(""))
                .stdin(Stdio::null())
                .spawn()
                .unwrap();
            let held = Proc::of_child(&child).unwrap();
            (child, held)
        });
        Self { forkers: forkers.collect(), gate: Some(gate), scene }
    }

    /// Pids of the forkers.
    pub fn forkers(&self) -> Vec<u32> {
        self.forkers.iter().map(|(child, _)| child.id()).collect()
    }

    /// Whether every forker has played its scenes to the end. Those that it left behind live on, and so does it.
    #[track_caller]
    pub fn is_over(&self) -> bool {
        let over = fs::read_to_string(self.scene.path("done")).unwrap().lines().count();
        // A panic of any process is the end of its forker's count, not of the forker; its words are on stderr.
        assert!(self.forkers.iter().all(|(_, held)| held.is_alive()), "a forker died");
        over == self.forkers.len()
    }

    /// What orphans have seen so far.
    pub fn reports(&self) -> Vec<Report> {
        let text = fs::read_to_string(self.scene.path("reports")).unwrap();
        text.lines().map(|line| Report::parse(line).unwrap_or_else(|| panic!("report: {line:?}"))).collect()
    }

    /// Has it come to its end before all were born.
    pub fn enough(&self) {
        File::create(self.scene.path("enough")).unwrap();
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.gate = None;
        // Whoever does not go by itself is killed, the others are waited for.
        self.scene.end();
        for (child, _) in &mut self.forkers {
            let _ = child.wait();
        }
    }
}

impl Report {
    fn parse(line: &str) -> Option<Self> {
        let numbers: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
        let [pid, start_ticks, ppid, parent_start_ticks, before, after] = numbers[..] else { return None };
        let (pid, ppid) = (u32::try_from(pid).ok()?, u32::try_from(ppid).ok()?);
        Some(Self { pid, start_ticks, ppid, parent_start_ticks, before, after })
    }
}

/// A process as /proc shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// Its start, in ticks.
    pub start_ticks: u64,
    /// Its parent's pid.
    pub ppid: u32,
}

/// Every process that has a live thread, by pid.
pub fn proc_rows() -> BTreeMap<u32, Row> {
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: u32| Some((pid, row_of(pid)?))).collect()
}

fn row_of(pid: u32) -> Option<Row> {
    let (dead, row) = stat(&format!("/proc/{pid}/stat"))?;
    if !dead {
        return Some(row);
    }
    // A leader may be dead while other threads live.
    let mut threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let lives = threads.any(|t| {
        let stat = stat(&t.path().join("stat").display().to_string());
        stat.is_some_and(|(dead, _)| !dead)
    });
    lives.then_some(row)
}

/// Whether a thread has begun to die, its process's start and parent: of a stat file, proc(5).
fn stat(path: &str) -> Option<(bool, Row)> {
    /// The flag of a thread that is past the tracepoint, include/linux/sched.h. Pid 1 of a namespace can stay so for long: it
    /// waits for everybody in it to be waited for.
    const PF_EXITING: u32 = 4;
    let bytes = fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    let is_zombie = matches!(fields.next()?, "Z" | "X");
    let ppid = fields.next()?.parse().ok()?;
    let flags: u32 = fields.nth(4)?.parse().ok()?;
    let start_ticks = fields.nth(12)?.parse().ok()?;
    Some((is_zombie || flags & PF_EXITING != 0, Row { start_ticks, ppid }))
}
