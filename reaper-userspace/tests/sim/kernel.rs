//! A small kernel: processes with threads, sessions, subreapers and pid namespaces, as far as reaper sees them.
//!
//! It owns the time. What happens to processes comes out of [`Kernel::take_news`] as the records that the eBPF programs
//! would write, at the moment they would; the reparenting of a dead process's children comes a little later, as in
//! `do_exit`. The rules are those of kernel/exit.c (`find_new_reaper`, `find_child_reaper`, `zap_pid_ns_processes`),
//! kernel/fork.c (`copy_process`) and kernel/sys.c (`PR_SET_CHILD_SUBREAPER`). Every process ever born is kept: this is
//! the ground truth.

use std::sync::Arc;

use reaper::core::argv::Argv;
use reaper::core::ids::{MS, Ns, ProcKey};
use reaper::core::input::{
    Birth as Kept, Comm, Death, Exec, Exit, Fork, Identified, Identity, Input, Parent, Sampled, Task,
};
use reaper::core::sample::{Address, Depth, File, FileKind, Sample, Source, Thread, Wait};

/// Between the exit tracepoint and the reparenting of the children.
const EXIT_NOTIFY: Ns = 3 * MS;

/// Between the death of a namespace's pid 1 and the death of everybody in it.
const ZAP: Ns = 2 * MS;

/// The descriptor that a process waits for.
const SOURCE_FD: i32 = 3;

/// CPU time that the shortest piece of work takes.
const LEAST_WORK: Ns = 2 * MS;

/// Index of a process in the kernel's memory of all processes.
pub type Who = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Alive,
    /// Past the exit tracepoint, before `exit_notify`.
    Dying,
    /// Dead, not waited for: its pid is taken.
    Zombie,
    Reaped,
}

/// What it does when it is asked to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// Goes at once if idle, else when its job is done.
    #[default]
    Obeys,
    Ignores,
}

#[derive(Clone, Debug)]
pub struct Proc {
    pub key: ProcKey,
    pub life: Life,
    pub real_parent: Option<Who>,
    /// `real_parent` when it was forked.
    pub born_of: Option<Who>,
    pub comm: Comm,
    pub argv: Argv,
    pub exe: Arc<str>,
    pub uid: u32,
    pub session: u32,
    /// When it made its own session.
    pub session_since: Ns,
    pub kernel_thread: bool,
    pub is_subreaper: bool,
    has_subreaper: bool,
    /// Its pid namespace.
    pub ns: usize,
    /// Thread ids, the leader's first.
    pub tids: Vec<u32>,
    pub leader_gone: bool,
    pub manner: Manner,
    cpu: Ns,
    /// Working in this state until then.
    job: Option<(char, Ns)>,
    asked: bool,
    /// When the last of its work ended, or the last of its children went.
    pub busy_until: Ns,
    pub died: Ns,
    /// What the programs keep of it.
    pub kept: Option<Kept>,
    due: Option<Ns>,
    next_tid: u32,
}

#[derive(Clone, Debug)]
struct PidNs {
    parent: Option<usize>,
    child_reaper: Who,
}

/// One thing that happened, with the adopter as it truly is (the record may not know it).
#[derive(Clone, Debug)]
pub struct News {
    pub input: Input,
    pub adopter: Option<Who>,
}

#[derive(Debug)]
pub struct Kernel {
    pub now: Ns,
    pub procs: Vec<Proc>,
    spaces: Vec<PidNs>,
    pub pid_max: u32,
    /// The programs are attached.
    pub keeps: bool,
    last_pid: u32,
    news: Vec<News>,
    /// Whoever sends signals for reaper.
    pub agent: Who,
    /// Whom /proc does not show.
    pub hidden: Option<Who>,
}

/// A program to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    pub comm: &'static str,
    pub argv: &'static str,
}

/// How a process is born.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Birth {
    #[default]
    Plain,
    /// CLONE_PARENT: the sibling of the one that forks.
    Sibling,
    /// The first of a new pid namespace.
    NewNs,
    /// Into the pid namespace of this process.
    Into(Who),
}

impl Kernel {
    /// init, a kernel thread, and the agent below a supervisor of its own. Ten seconds after boot.
    pub fn boot(pid_max: u32) -> Self {
        let mut kernel = Self {
            now: 10_000 * MS,
            procs: Vec::new(),
            spaces: vec![PidNs { parent: None, child_reaper: 0 }],
            pid_max,
            keeps: false,
            last_pid: 0,
            news: Vec::new(),
            agent: 0,
            hidden: None,
        };
        let init = kernel.insert(None, Proc { comm: "init".into(), ..Proc::blank("init") });
        kernel.insert(None, Proc { kernel_thread: true, ..Proc::blank("kthreadd") });
        let keeper = kernel.insert(Some(init), Proc::blank("keeper"));
        kernel.agent = kernel.insert(Some(keeper), Proc::blank("reaper"));
        kernel.news.clear();
        kernel
    }

    pub fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// When something happens by itself.
    pub fn next_due(&self) -> Option<Ns> {
        let own = self.procs.iter().filter_map(|p| p.due);
        let jobs = self.procs.iter().filter(|p| p.life == Life::Alive && p.asked).filter_map(|p| p.job);
        own.chain(jobs.map(|(_, until)| until)).min()
    }

    /// Lets time pass.
    pub fn advance_to(&mut self, time: Ns) {
        while let Some(due) = self.next_due().filter(|&d| d <= time) {
            self.now = self.now.max(due);
            for who in 0..self.procs.len() {
                self.come_due(who);
            }
        }
        self.now = self.now.max(time);
        for p in &mut self.procs {
            if p.job.is_some_and(|(_, until)| until <= self.now) {
                p.job = None;
            }
        }
    }

    fn come_due(&mut self, who: Who) {
        let now = self.now;
        if self.procs[who].due.is_some_and(|d| d <= now) {
            self.procs[who].due = None;
            match self.procs[who].life {
                Life::Alive => self.exit(who, 9),
                Life::Dying => self.exit_notify(who),
                Life::Zombie | Life::Reaped => {}
            }
        }
        let p = &self.procs[who];
        if p.life == Life::Alive && p.asked && p.job.is_some_and(|(_, until)| until <= now) {
            self.exit(who, 0);
        }
    }

    pub fn find(&self, key: ProcKey) -> Option<Who> {
        self.procs.iter().position(|p| p.key == key)
    }

    pub fn is_alive(&self, who: Who) -> bool {
        self.procs[who].life == Life::Alive
    }

    /// Everybody alive, by age.
    pub fn alive(&self) -> impl Iterator<Item = Who> + '_ {
        (0..self.procs.len()).filter(|&w| self.is_alive(w))
    }

    pub fn live_children(&self, who: Who) -> impl Iterator<Item = Who> + '_ {
        self.alive().filter(move |&c| self.parent(c) == Some(who))
    }

    /// Its parent, or who will be when the dying one has let go of it.
    pub fn parent(&self, who: Who) -> Option<Who> {
        let mut parent = self.procs[who].real_parent?;
        while !self.is_alive(parent) {
            match self.find_new_reaper(parent) {
                Ok(Some(next)) if next != parent => parent = next,
                _ => return None,
            }
        }
        Some(parent)
    }

    pub fn is_child_reaper(&self, who: Who) -> bool {
        self.spaces[self.procs[who].ns].child_reaper == who
    }

    fn space_dies(&self, who: Who) -> bool {
        !self.is_alive(self.spaces[self.procs[who].ns].child_reaper)
    }

    /// Whether `/proc/PID` exists.
    fn in_proc(&self, who: Who) -> bool {
        self.procs[who].life != Life::Reaped
    }

    fn free_pid(&self) -> Option<u32> {
        let taken = |pid: u32| {
            let holds = |p: &Proc| p.key.tgid == pid || p.session == pid || p.tids.contains(&pid);
            self.procs.iter().any(|p| p.life != Life::Reaped && holds(p))
        };
        (1..=self.pid_max).map(|n| (self.last_pid + n - 1) % self.pid_max + 1).find(|&pid| !taken(pid))
    }

    fn insert(&mut self, parent: Option<Who>, proc: Proc) -> Who {
        self.now += 1_000;
        let pid = self.procs.len() as u32 + 1;
        self.last_pid = pid;
        let key = ProcKey { tgid: pid, start_ns: self.now };
        self.procs.push(Proc {
            key,
            real_parent: parent,
            born_of: parent,
            tids: vec![pid],
            session: pid,
            ..proc
        });
        self.procs.len() - 1
    }

    /// fork(2), or clone(2) with a flag. `None`: no pid is free, or nobody may be born there.
    pub fn fork(&mut self, by: Who, birth: Birth) -> Option<Who> {
        let pid = self.free_pid()?;
        let mother = &self.procs[by];
        let ns = match birth {
            Birth::Into(other) if self.is_inside(self.procs[other].ns, mother.ns) => self.procs[other].ns,
            _ => mother.ns,
        };
        if self.space_dies(by) || !self.is_alive(self.spaces[ns].child_reaper) {
            return None;
        }
        // An init must not fork siblings: they would be nobody's to wait for (kernel/fork.c: SIGNAL_UNKILLABLE).
        if birth == Birth::Sibling && (self.is_child_reaper(by) || mother.kernel_thread) {
            return None;
        }
        let parent = if birth == Birth::Sibling { mother.real_parent } else { Some(by) };
        self.last_pid = pid;
        self.now += 1_000;
        let who = self.procs.len();
        let child = Proc {
            key: ProcKey { tgid: pid, start_ns: self.now },
            real_parent: parent,
            born_of: parent,
            is_subreaper: false,
            has_subreaper: mother.has_subreaper || mother.is_subreaper,
            ns,
            tids: vec![pid],
            leader_gone: false,
            cpu: 0,
            job: None,
            asked: false,
            busy_until: self.now,
            kept: None,
            due: None,
            next_tid: 1,
            ..mother.clone()
        };
        let kept = parent.and_then(|p| self.procs[p].kept);
        let child = Proc {
            kept: (self.keeps && !child.kernel_thread).then(|| Kept {
                key: child.key,
                parent: parent.map(|p| self.procs[p].key),
                birth_session: child.session,
                exec_at: kept.map_or(0, |k| k.exec_at),
                exec_session: kept.map_or(child.session, |k| k.exec_session),
                execed: false,
                dumped: false,
                death: None,
            }),
            ..child
        };
        self.procs.push(child);
        if birth == Birth::NewNs {
            self.spaces.push(PidNs { parent: Some(ns), child_reaper: who });
            self.procs[who].ns = self.spaces.len() - 1;
        }
        let p = &self.procs[who];
        let input = Input::Fork(Fork {
            at: self.now,
            child: p.key,
            parent: parent.map(|m| self.procs[m].key)?,
            comm: p.comm.clone(),
            uid: p.uid,
            session: p.session,
            kernel_thread: p.kernel_thread,
        });
        self.news.push(News { input, adopter: None });
        Some(who)
    }

    /// execve(2). From another thread than the leader the process keeps its identity and only one thread stays.
    pub fn exec(&mut self, who: Who, program: Program) {
        self.now += 1_000;
        let now = self.now;
        let p = &mut self.procs[who];
        p.tids.truncate(1);
        p.leader_gone = false;
        p.comm = program.comm.into();
        p.argv = program.argv.split(' ').collect();
        p.exe = format!("/bin/{}", program.comm).into();
        p.job = None;
        p.busy_until = p.busy_until.min(now);
        let session = p.session;
        if let Some(kept) = &mut p.kept {
            (kept.exec_at, kept.exec_session, kept.execed) = (now, session, true);
        }
        let input = Input::Exec(Exec {
            at: now,
            key: p.key,
            comm: p.comm.clone(),
            uid: p.uid,
            session: p.session,
            filename: p.exe.clone(),
            argv: p.argv.clone(),
            truncated: false,
        });
        self.news.push(News { input, adopter: None });
    }

    /// The process writes over its arguments. Nobody is told.
    pub fn retitle(&mut self, who: Who, program: Program) {
        self.procs[who].argv = Argv::from_iter([program.argv]);
    }

    /// setsid(2). A leader of a session stays one.
    pub fn setsid(&mut self, who: Who) {
        let p = &mut self.procs[who];
        if p.session != p.key.tgid {
            p.session = p.key.tgid;
            p.session_since = self.now;
        }
    }

    /// prctl(PR_SET_CHILD_SUBREAPER): for itself, and known to all that descend from it now. Deaths that are under way
    /// are finished first: the record of an exit names the adopter of that moment, and this is the one thing that could
    /// still change it.
    pub fn become_subreaper(&mut self, who: Who) {
        for dying in 0..self.procs.len() {
            if self.procs[dying].life == Life::Dying && !self.is_child_reaper(dying) {
                self.procs[dying].due = None;
                self.exit_notify(dying);
            }
        }
        self.procs[who].is_subreaper = true;
        for other in 0..self.procs.len() {
            let mut up = self.procs[other].real_parent;
            while let Some(parent) = up {
                if parent == who {
                    self.procs[other].has_subreaper = true;
                    break;
                }
                up = self.procs[parent].real_parent;
            }
        }
    }

    /// clone(CLONE_THREAD). Thread ids are out of the way of the small pid space.
    pub fn add_thread(&mut self, who: Who) {
        let p = &mut self.procs[who];
        p.tids.push(p.key.tgid * 1_000 + 1_000 + p.next_tid);
        p.next_tid += 1;
    }

    /// The leader calls pthread_exit(3). The process lives on while it has other threads.
    pub fn leader_exits(&mut self, who: Who) {
        if self.procs[who].tids.len() > 1 {
            self.procs[who].leader_gone = true;
        } else {
            self.exit(who, 0);
        }
    }

    /// Work in the given state for that long: R, D, T, or S for a job that waits for somebody else.
    pub fn work(&mut self, who: Who, state: char, time: Ns) {
        let until = self.now + time.max(LEAST_WORK);
        let p = &mut self.procs[who];
        p.cpu += if state == 'R' { until - self.now } else { LEAST_WORK };
        if p.job.is_some_and(|(_, other)| other > until) {
            return;
        }
        p.job = Some((state, until));
        p.busy_until = p.busy_until.max(until);
    }

    pub fn is_working(&self, who: Who) -> bool {
        self.procs[who].job.is_some_and(|(_, until)| until > self.now)
    }

    /// Every thread asleep and no live child.
    pub fn is_idle(&self, who: Who) -> bool {
        !self.is_working(who) && self.live_children(who).next().is_none()
    }

    /// Since when it is.
    pub fn idle_since(&self, who: Who) -> Ns {
        self.procs[who].busy_until
    }

    /// exit(2) of the whole process, with a wait status.
    pub fn exit(&mut self, who: Who, status: u32) {
        if !self.is_alive(who) {
            return;
        }
        self.now += 1_000;
        let now = self.now;
        self.procs[who].life = Life::Dying;
        self.procs[who].died = now;
        if let Some(kept) = &mut self.procs[who].kept {
            kept.death = Some(Death { at: now, status });
        }
        self.procs[who].due = Some(now + EXIT_NOTIFY);
        self.procs[who].job = None;
        if let Some(parent) = self.procs[who].real_parent {
            self.procs[parent].busy_until = self.procs[parent].busy_until.max(now);
        }
        let (record, adopter) = match self.find_new_reaper(who) {
            Ok(Some(adopter)) => (Parent::Known(self.procs[adopter].key), Some(adopter)),
            Ok(None) => (Parent::None, None),
            Err(()) => {
                self.zap(self.procs[who].ns);
                (Parent::NamespaceDies, None)
            }
        };
        let exit = Exit { at: now, key: self.procs[who].key, status, adopter: record };
        self.news.push(News { input: Input::Exit(exit), adopter });
    }

    /// setns(2) leads into a namespace of one's own descendants only, never out.
    fn is_inside(&self, inner: usize, outer: usize) -> bool {
        std::iter::successors(Some(inner), |&ns| self.spaces[ns].parent).any(|ns| ns == outer)
    }

    fn zap(&mut self, ns: usize) {
        let at = self.now + ZAP;
        for who in 0..self.procs.len() {
            if self.is_inside(self.procs[who].ns, ns) && self.is_alive(who) {
                self.procs[who].due = Some(at);
            }
        }
    }

    /// kernel/exit.c. `Err`: the namespace goes with it. The child reaper is named even when it is dying itself.
    fn find_new_reaper(&self, father: Who) -> Result<Option<Who>, ()> {
        let ns = self.procs[father].ns;
        let child_reaper = self.spaces[ns].child_reaper;
        if child_reaper == father {
            return Err(());
        }
        if self.procs[father].has_subreaper {
            let mut up = self.procs[father].real_parent;
            while let Some(reaper) = up.filter(|&r| self.procs[r].ns == ns && r != 0) {
                if self.procs[reaper].is_subreaper && self.is_alive(reaper) {
                    return Ok(Some(reaper));
                }
                up = self.procs[reaper].real_parent;
            }
        }
        Ok(Some(child_reaper))
    }

    /// The children go to whoever adopts them now; the dead one waits to be waited for.
    fn exit_notify(&mut self, who: Who) {
        let adopter = self.find_new_reaper(who).ok().flatten();
        for child in 0..self.procs.len() {
            if self.procs[child].real_parent == Some(who) && self.procs[child].life != Life::Reaped {
                self.procs[child].real_parent = adopter;
                if self.procs[child].life == Life::Zombie {
                    self.procs[child].life = Life::Reaped;
                }
            }
        }
        self.procs[who].life = Life::Zombie;
        // init waits for everybody; so does whoever ignores SIGCHLD, and here a dead parent's heir.
        if self.procs[who].real_parent.is_none_or(|p| self.is_child_reaper(p) || !self.in_proc(p)) {
            self.procs[who].life = Life::Reaped;
        }
    }

    /// wait(2) for all dead children.
    pub fn reap(&mut self, who: Who) {
        for child in 0..self.procs.len() {
            if self.procs[child].real_parent == Some(who) && self.procs[child].life == Life::Zombie {
                self.procs[child].life = Life::Reaped;
            }
        }
    }

    /// A signal arrives. KILL kills; every other one here asks to stop.
    pub fn signal(&mut self, who: Who, number: i32, sender: Who) {
        let input = Input::SignalSeen {
            at: self.now,
            target: self.procs[who].key,
            signal: number,
            sender: self.procs[sender].key.tgid,
        };
        self.news.push(News { input, adopter: None });
        if !self.is_alive(who) {
            return;
        }
        if number == 9 {
            self.exit(who, 9);
        } else if self.procs[who].manner == Manner::Obeys {
            if self.is_working(who) { self.procs[who].asked = true } else { self.exit(who, 0) }
        }
    }

    /// The row that `iter/task` writes.
    pub fn row(&self, who: Who) -> Task {
        let p = &self.procs[who];
        let parent = match p.real_parent {
            None => Parent::None,
            Some(parent) if self.is_alive(parent) => Parent::Known(self.procs[parent].key),
            Some(dying) => match self.find_new_reaper(dying) {
                Ok(Some(adopter)) => Parent::Known(self.procs[adopter].key),
                Ok(None) => Parent::None,
                Err(()) => Parent::NamespaceDies,
            },
        };
        Task {
            key: p.key,
            parent,
            comm: p.comm.clone(),
            uid: p.uid,
            session: p.session,
            kernel_thread: p.kernel_thread,
            reaper: p.is_subreaper || self.is_child_reaper(who),
        }
    }

    /// What /proc says of it.
    pub fn identify(&self, key: ProcKey) -> Identified {
        let Some(who) = self.find(key).filter(|&w| matches!(self.procs[w].life, Life::Alive | Life::Dying))
        else {
            return Identified::Gone;
        };
        if self.hidden == Some(who) {
            return Identified::Unreadable("it is hidden".to_owned());
        }
        let p = &self.procs[who];
        // The memory of a leader that is gone cannot be read, nor that of a process that is past exit_mm.
        let unreadable = p.leader_gone
            || p.kernel_thread
            || (p.life == Life::Dying && !p.key.start_ns.is_multiple_of(3_000));
        Identified::Alive(Identity {
            at: self.now,
            comm: p.comm.clone(),
            argv: if unreadable { Argv::default() } else { p.argv.clone() },
            exe: if unreadable { "".into() } else { p.exe.clone() },
            uid: p.uid,
            ppid: p.real_parent.map_or(0, |p| self.procs[p].key.tgid),
            session: p.session,
            cgroups: Vec::new(),
        })
    }

    /// What every thread of it does, and at [`Depth::Source`] what for: jobs, or the answer of another service.
    pub fn sample(&self, key: ProcKey, depth: Depth) -> Sampled {
        let Some(who) = self.find(key).filter(|&w| matches!(self.procs[w].life, Life::Alive | Life::Dying))
        else {
            return Sampled::Gone;
        };
        let p = &self.procs[who];
        let working = p.job.filter(|(_, until)| *until > self.now);
        let state = |n: usize| match working {
            _ if p.life == Life::Dying => 'R',
            _ if n == 0 && p.leader_gone => 'Z',
            Some((state, _)) if n + 1 == p.tids.len() => state,
            _ => 'S',
        };
        let thread = |(n, &tid): (usize, &u32)| Thread {
            tid,
            comm: p.comm.to_string(),
            state: state(n),
            syscall: None,
            wait: match (depth, state(n)) {
                (Depth::Threads, _) => Wait::NotAsked,
                (Depth::Source, 'S') => Wait::Files { fds: vec![SOURCE_FD], timeout: None },
                (Depth::Source, _) => Wait::Nothing,
            },
            switches: None,
        };
        let threads = p.tids.iter().enumerate().map(thread).collect();
        let here = Address::Unix("/run/source.sock".to_owned());
        let what = match working {
            Some(('S', _)) => FileKind::Connected { local: Address::Unix(String::new()), peer: here },
            _ => FileKind::Listening(here),
        };
        let file = File {
            fd: SOURCE_FD,
            what,
            inode: 1,
            readable: Some(false),
            holders: Some(Vec::new()),
            traffic: None,
        };
        let source = (depth == Depth::Source).then(|| Source { files: vec![file], ..Source::default() });
        Sampled::Seen(Sample { at: self.now, threads, cpu_ns: p.cpu, source, ..Sample::default() })
    }
}

impl Proc {
    fn blank(name: &str) -> Self {
        Self {
            key: ProcKey { tgid: 0, start_ns: 0 },
            life: Life::Alive,
            real_parent: None,
            born_of: None,
            comm: name.into(),
            argv: Argv::from_iter([name]),
            exe: format!("/bin/{name}").into(),
            uid: 0,
            session: 0,
            session_since: 0,
            kernel_thread: false,
            is_subreaper: false,
            has_subreaper: false,
            ns: 0,
            tids: Vec::new(),
            leader_gone: false,
            manner: Manner::Obeys,
            cpu: 0,
            job: None,
            asked: false,
            busy_until: 0,
            died: 0,
            kept: None,
            due: None,
            next_tid: 1,
        }
    }
}
