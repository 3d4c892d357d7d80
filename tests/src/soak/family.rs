//! Masters with workers of every kind, and what must become of each: known from what was done to them, not from the agent.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Name, STOPPED_WITHIN, name, name_in, now};
use crate::drill::random::Random;
use crate::log::Record;
use crate::process::{PATIENCE, Proc, Signal};
use crate::scene::Scene;
use crate::script::{Op, exec, fork, note, worker, worker_doing};

/// What reaper has to do about somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// Stop it once it has lost its master.
    Stops,
    /// The same, but not before it has said this.
    StopsAfter(String),
    /// Nothing, ever.
    Lives,
}

/// One process of a family.
struct Member {
    said: String,
    fate: Fate,
    held: Option<Proc>,
}

/// One master and those below it.
pub(super) struct Family {
    master: Proc,
    members: Vec<Member>,
    began: Instant,
    lives: Duration,
    /// Since when the master is gone.
    lost: Option<Instant>,
}

/// Everybody there has been, and what was said and signalled.
#[derive(Default)]
pub(super) struct Book {
    /// What actors said: who and when.
    said: BTreeMap<String, (Name, u64)>,
    known: BTreeMap<Name, Known>,
    signals: Vec<(Name, u64, String)>,
}

struct Known {
    said: String,
    fate: Fate,
    /// When its master was killed, at the earliest.
    lost: Option<u64>,
}

impl Family {
    /// Idle workers, one that works on after its master's death, sometimes one below an intermediate that dies, and a daemon that
    /// leaves on purpose.
    pub(super) fn start(scene: &Scene, number: u64, rng: &mut Random, book: &mut Book) -> Self {
        let member = |letter: &str, fate| Member { said: format!("{letter}{number}"), fate, held: None };
        let mut members = vec![member("idle", Fate::Stops)];
        let mut program = vec![worker(&members[0].said)];
        if rng.between(0, 2) == 0 {
            program.insert(0, Op::Subreaper(true));
        }
        if rng.between(0, 2) == 0 {
            let done = format!("done{number}");
            let busy = member("busy", Fate::StopsAfter(done.clone()));
            let job = Op::Busy(rng.between(300, 4_000));
            program.push(worker_doing(&busy.said, [job, note(&done), Op::Forever]));
            members.push(busy);
        }
        if rng.between(0, 3) == 0 {
            let below = member("below", Fate::Stops);
            program.push(fork([exec("helper", [worker(&below.said), Op::Forever])]));
            members.push(below);
        }
        if rng.between(0, 3) == 0 {
            let threads = member("threads", Fate::Stops);
            program.push(worker_doing(&threads.said, [Op::Thread(vec![Op::Forever]), Op::Forever]));
            members.push(threads);
        }
        if rng.between(0, 3) == 0 {
            let daemon = member("daemon", Fate::Lives);
            let leaves = exec("daemon", [note(&daemon.said), Op::Forever]);
            program.push(fork([Op::Setsid, fork([leaves]), Op::Exit(0)]));
            members.push(daemon);
        }
        program.push(Op::Forever);
        let master = scene.spawn("master", program);
        book.known.insert(name(&master), Known { said: "master".into(), fate: Fate::Lives, lost: None });
        Self { master, members, began: Instant::now(), lives: rng.millis(200, 4_000), lost: None }
    }

    /// Takes hold of those that have been born, and kills the master when it is time.
    pub(super) fn lead(&mut self, scene: &Scene, book: &mut Book, going_on: bool) {
        for member in self.members.iter_mut().filter(|m| m.held.is_none()) {
            let Some(&((pid, start), _)) = book.said.get(&member.said) else { continue };
            let held = Proc::with_token(pid, scene.token()).filter(|held| held.start_ticks() == start);
            if held.is_some() {
                let known = Known { said: member.said.clone(), fate: member.fate.clone(), lost: None };
                book.known.insert((pid, start), known);
            }
            member.held = held;
        }
        let whole = self.members.iter().all(|m| m.held.is_some());
        let late = self.began.elapsed() > PATIENCE;
        let over = self.began.elapsed() > self.lives || !going_on;
        if self.lost.is_none() && (whole || late) && over {
            let at = now();
            for held in self.members.iter().filter_map(|m| m.held.as_ref()) {
                book.known.entry(name(held)).and_modify(|known| known.lost = Some(at));
            }
            self.master.signal(Signal::KILL);
            self.lost = Some(Instant::now());
        }
    }

    pub(super) fn lost_for(&self) -> Duration {
        self.lost.map(|at| at.elapsed()).unwrap_or_default()
    }

    /// Everybody is where he must be in the end.
    pub(super) fn is_done(&self) -> bool {
        let gone = |m: &Member| m.fate == Fate::Lives || m.held.as_ref().is_none_or(|held| !held.is_alive());
        self.lost.is_some() && self.members.iter().all(gone)
    }

    /// Looks after those that must live, and ends them.
    pub(super) fn close(&self, wrong: &mut Vec<String>) {
        for member in self.members.iter().filter(|m| m.fate == Fate::Lives) {
            let Some(held) = &member.held else { continue };
            if !held.is_alive() {
                wrong.push(format!("{} ({}) died, whom nobody may touch", member.said, held.pid()));
            }
            held.signal(Signal::KILL);
        }
    }

    /// Somebody is still there.
    pub(super) fn give_up(&self, wrong: &mut Vec<String>) {
        for member in self.members.iter().filter(|m| m.fate != Fate::Lives) {
            let Some(held) = member.held.as_ref().filter(|held| held.is_alive()) else { continue };
            let (for_s, pid) = (STOPPED_WITHIN.as_secs(), held.pid());
            let text = format!("{} ({pid}) has been an orphan for {for_s} s and is still there", member.said);
            wrong.push(text);
            held.signal(Signal::KILL);
        }
        self.close(wrong);
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        self.master.signal(Signal::KILL);
    }
}

impl Book {
    /// A line of the ledger.
    pub(super) fn ledger(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let [event, pid, start, at, _parent] = words[..] else { panic!("ledger: {line:?}") };
        let who = (pid.parse().unwrap(), start.parse().unwrap());
        self.said.insert(event.to_owned(), (who, at.parse().unwrap()));
    }

    /// A `signal` record.
    pub(super) fn signal(&mut self, record: &Record) {
        let signal = record.text("signal").to_owned();
        self.signals.push((name_in(record), record.boot_ns(), signal));
    }

    pub(super) fn lives(&self) -> u64 {
        self.known.len() as u64
    }

    /// Every signal that should not have been sent.
    pub(super) fn judge(&self) -> Vec<String> {
        let wrong = |(who, at, signal): &(Name, u64, String)| {
            let pid = who.0;
            let Some(known) = self.known.get(who) else {
                return Some(format!("{signal} to {pid}, who is nobody's worker"));
            };
            let said = &known.said;
            if known.fate == Fate::Lives {
                return Some(format!("{signal} to {said} ({pid}), whom nobody may touch"));
            }
            if known.lost.is_none_or(|lost| *at < lost) {
                return Some(format!("{signal} to {said} ({pid}), whose master lives"));
            }
            let Fate::StopsAfter(done) = &known.fate else { return None };
            let ended = self.said.get(done).is_some_and(|(_, ended)| ended < at);
            (!ended).then(|| format!("{signal} to {said} ({pid}) in the middle of its work"))
        };
        self.signals.iter().filter_map(wrong).collect()
    }
}
