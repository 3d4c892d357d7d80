//! The race drill: an idle orphan gets a job at a random moment around the signal that would stop it, and its stop signal is
//! immediate death.
//!
//! The workers are `bin/racer.rs`: nothing stands between the signal and their death, so every job that reaches a worker
//! between the agent's last look and its signal is lost. The agent holds a worker still for that look, which closes the
//! window; the drill is also run with an agent that may not call ptrace(2) (a seccomp filter answers EPERM, as a container
//! runtime's would), to show how wide the window is without.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, Result};

use super::env::text;
use super::facts::{Shot, within};
use super::ledger::{self, boot_now};
use super::random::Random;
use crate::agent::{self, Agent};
use crate::config::Config;
use crate::log::Record;
use crate::process::{Proc, Signal};
use crate::scene::{Scene, build_folder};

/// Workers of a master, each with a round of its own.
const WORKERS: usize = 4;
/// `quiet` of the group: short, because there are many rounds.
const QUIET_MS: u64 = 50;
const MS: u64 = 1_000_000;
/// After so many rounds it is measured anew when workers die.
const RECALIBRATE: usize = 200;

/// What became of the jobs.
#[derive(Clone, Debug, Default)]
pub struct Race {
    /// Whether the agent could hold workers still.
    pub frozen: bool,
    /// Jobs that were sent, one to each worker.
    pub rounds: usize,
    /// Jobs that were done.
    pub ended: usize,
    /// Jobs that were started and not ended: the worker was killed in the middle.
    pub lost: usize,
    /// Jobs that were sent when the worker had been killed already.
    pub late: usize,
    /// Jobs that were sent while the worker lived, and never read: they came between the last look and the end of the process.
    pub unread: usize,
    /// Signals whose record says that the worker was held still.
    pub verified: usize,
    /// Signals.
    pub signals: usize,
    /// How densely jobs came around the signal: jobs per millisecond of distance.
    density: f64,
    /// From the record of the signal to the worker's end, nanoseconds, sorted.
    pub deaths: Vec<u64>,
    /// What was wrong, one each.
    pub wrongs: Vec<String>,
}

impl Race {
    /// How wide the window is in which a job is lost, in microseconds: the jobs that fell into it over the density with which
    /// they came. With none it is below what would have caught one.
    pub fn window_us(&self) -> f64 {
        1000.0 * f64::from(u32::try_from(self.lost.max(1)).unwrap()) / self.density
    }

    /// The table's line.
    pub fn row(&self) -> String {
        let Self { rounds, ended, lost, late, unread, verified, signals, .. } = self;
        let less = if *lost == 0 { "< " } else { "" };
        let death = within(&self.deaths, 50).map_or_else(|| "–".into(), |took| took.as_micros().to_string());
        format!(
            "| {} | {rounds} | {ended} | {lost} | {late} | {unread} | {verified} of {signals} | {less}{:.0} | {death} |",
            if self.frozen { "held still" } else { "ptrace(2) not permitted" },
            self.window_us()
        )
    }

    /// The lines above it.
    pub const HEAD: &str = "\
| last look | rounds | jobs ended | lost | sent to a dead worker | sent and never read | signals verified \
| window in which a job is lost, us | record to death p50, us |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |";
}

/// One job of the race.
struct Sent {
    pid: i32,
    at: u64,
}

/// Runs the race.
///
/// # Errors
/// When workers or agent do not come up.
pub fn race(rounds: usize, frozen: bool, seed: u64) -> Result<Race> {
    let scene = Scene::new();
    File::create(scene.path("jobs"))?;
    let queue = TcpListener::bind("127.0.0.1:0")?;
    let agent = start_agent(&scene, queue.local_addr()?.port(), frozen)?;
    let workers = accept(queue.try_clone()?);
    let mut stand = Stand { scene: &scene, queue: &queue, workers: &workers, random: Random::new(seed) };
    let (mut sent, mut at, mut densities) = (Vec::new(), BTreeMap::new(), Vec::new());
    let mut span = None;
    while sent.len() < rounds {
        // Without jobs it is seen when workers die: that is where to send. Now and then anew, because machines change.
        if sent.len() % RECALIBRATE == 0 || span.is_none() {
            span = Some(aim(&stand.calibrate()?));
        }
        let (early, late) = span.unwrap_or_default();
        densities.push(MS as f64 / (late - early) as f64);
        stand.batch(Some((early, late)), &mut sent, &mut at)?;
    }
    let shots = agent.stop();
    let mut race = Race { frozen, rounds: sent.len(), ..Race::default() };
    race.density = densities.iter().sum::<f64>() * WORKERS as f64;
    judge(&mut race, &sent, &at, &ledger::read(&scene.path("jobs")), &shots);
    Ok(race)
}

/// When to send after a master's death: around where workers have died without a job, a little wider than that.
fn aim(deaths: &[u64]) -> (u64, u64) {
    let at = |per_cent| within(deaths, per_cent).map_or(0, |took| u64::try_from(took.as_nanos()).unwrap());
    (at(5).saturating_sub(3 * MS), at(95) + 3 * MS)
}

/// Where batches are run.
struct Stand<'a> {
    scene: &'a Scene,
    queue: &'a TcpListener,
    workers: &'a Receiver<(i32, TcpStream)>,
    random: Random,
}

impl Stand<'_> {
    /// How long after their master's death workers die that get no job; sorted.
    fn calibrate(&mut self) -> Result<Vec<u64>> {
        let mut deaths = Vec::new();
        while deaths.len() < 24 {
            deaths.extend(self.batch(None, &mut Vec::new(), &mut BTreeMap::new())?);
        }
        deaths.sort_unstable();
        Ok(deaths)
    }

    /// One master with its workers: kills it and sends each worker a job at a random moment of the span. Gives the time from
    /// the master's death to each worker's.
    fn batch(
        &mut self,
        span: Option<(u64, u64)>,
        sent: &mut Vec<Sent>,
        ends: &mut BTreeMap<i32, u64>,
    ) -> Result<Vec<u64>> {
        let mut master = Command::new(build_folder().join("racer"));
        master
            .args(["master", self.scene.token(), &self.queue.local_addr()?.port().to_string()])
            .arg(self.scene.path("jobs"))
            .arg(WORKERS.to_string())
            .stdin(Stdio::null());
        let mut child = master.spawn().context("cannot start a master")?;
        let held = Proc::of_child(&child).context("the master died")?;
        let mut crew = Vec::new();
        for _ in 0..WORKERS {
            let worker = self.workers.recv_timeout(Duration::from_secs(10));
            let (pid, stream) = worker.context("a worker does not connect")?;
            crew.push((Proc::with_token(pid, self.scene.token()).context("a worker died")?, stream));
        }
        // Until the agent knows of them, and they wait for their jobs.
        std::thread::sleep(self.random.millis(20, 40));
        let killed = boot_now();
        held.signal(Signal::KILL);
        let mut racers = Vec::new();
        for (proc, stream) in crew {
            let at = span.map(|(early, late)| killed + self.random.between(early, late));
            let job = sent.len() + racers.len();
            let pid = proc.pid();
            racers.push((pid, std::thread::spawn(move || run(&proc, &stream, job, at))));
        }
        child.wait()?;
        let mut deaths = Vec::new();
        for (pid, racer) in racers {
            let end = racer.join().unwrap().context("a worker was not stopped")?;
            sent.push(Sent { pid, at: end.sent });
            ends.insert(pid, end.gone);
            deaths.push(end.gone - killed);
        }
        Ok(deaths)
    }
}

struct End {
    sent: u64,
    gone: u64,
}

/// Sends a job at that moment, if there is one, and waits until the worker is gone.
fn run(proc: &Proc, mut stream: &TcpStream, job: usize, at: Option<u64>) -> Option<End> {
    let mut gone = None;
    let mut sent = 0;
    if let Some(at) = at {
        // Whoever dies before that is noticed when it dies.
        let early = proc.wait_gone(Duration::from_nanos(at.saturating_sub(boot_now() + MS)));
        gone = early.then(boot_now);
        while boot_now() < at {
            std::hint::spin_loop();
        }
        sent = boot_now();
        // That nobody is there any more is one of the outcomes.
        let _ = stream.write_all(format!("{job}\n").as_bytes());
    }
    if gone.is_none() {
        gone = proc.wait_gone(Duration::from_secs(10)).then(boot_now);
    }
    gone.map(|gone| End { sent, gone })
}

fn judge(
    race: &mut Race,
    sent: &[Sent],
    ends: &BTreeMap<i32, u64>,
    runs: &[ledger::Run],
    records: &[Record],
) {
    for (job, round) in (0_u64..).zip(sent) {
        let run = runs.iter().find(|run| run.job == job);
        match run {
            Some(run) if run.ended.is_some() => race.ended += 1,
            Some(run) => {
                race.lost += 1;
                race.wrongs.push(format!("{run:?}"));
            }
            None if ends.get(&round.pid).is_some_and(|gone| *gone <= round.at) => race.late += 1,
            None => race.unread += 1,
        }
    }
    let shots = Shot::all(records);
    race.signals = shots.len();
    let verified = |r: &&Record| agent::is_shot(r) && r.flag("verified");
    race.verified = records.iter().filter(verified).count();
    let deaths = shots.iter().filter_map(|shot| ends.get(&shot.pid)?.checked_sub(shot.at));
    race.deaths = deaths.collect();
    race.deaths.sort_unstable();
}

/// Hands over every worker that connects, with its pid.
fn accept(queue: TcpListener) -> Receiver<(i32, TcpStream)> {
    let (hand, workers) = channel();
    std::thread::spawn(move || {
        for stream in queue.incoming().flatten() {
            let mut line = String::new();
            let told = BufReader::with_capacity(1, &stream).read_line(&mut line).is_ok();
            let Some(pid) = line.trim().parse().ok().filter(|_| told) else { continue };
            if hand.send((pid, stream)).is_err() {
                return;
            }
        }
    });
    workers
}

fn start_agent(scene: &Scene, port: u16, frozen: bool) -> Result<Agent> {
    let token = scene.token();
    let mut config = String::from("[agent]\n");
    for (key, file) in [("log", "agent.jsonl"), ("socket", "agent.sock"), ("state", "state")] {
        writeln!(config, "{key} = \"{}\"", text(scene.path(file)))?;
    }
    write!(
        config,
        "log_max_size = \"4GiB\"\n[[group]]\nname = \"race\"\nmode = \"enforce\"\n\
         [group.master]\ncmdline = 'racer master {token} '\n[group.worker]\ncmdline = 'worker {token} '\n\
         [group.idle]\nproof = \"source\"\nquiet = \"{QUIET_MS}ms\"\nqueue = [\"tcp/{port}\"]\n\
         [group.stop]\nsignals = [\"TERM\"]\nmax_kills = 1000000\n"
    )?;
    let file = scene.path("race.toml");
    fs::write(&file, config)?;
    let mut command = Command::new(agent::binary());
    command.arg("run").arg("--config").arg(file);
    if !frozen {
        // SAFETY: only system calls on values that are built in place; nothing is allocated.
        unsafe { command.pre_exec(forbid_ptrace) };
    }
    Ok(Agent::launch(scene, &Config::new(scene), command))
}

/// From here on ptrace(2) fails with EPERM in this process and those that it becomes.
fn forbid_ptrace() -> std::io::Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let op = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        // The first field of struct seccomp_data is the number of the system call.
        op(LOAD, 0, 0, 0),
        op(JUMP_EQUAL, 0, 1, libc::SYS_ptrace as u32),
        op(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        op(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies the filter, which lives until it has. Root needs no PR_SET_NO_NEW_PRIVS.
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    if done < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}
