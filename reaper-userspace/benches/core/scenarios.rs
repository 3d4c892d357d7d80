//! What happens again and again on a host, each as one operation.

use std::hint::black_box;
use std::sync::Arc;

use reaper::config::Config;
use reaper::core::Core;
use reaper::core::effect::Effect;
use reaper::core::ids::{MS, Ns, ProcKey, SECOND};
use reaper::core::input::{Exec, Exit, Fork, Identified, Identity, Input, Parent, Task};
use reaper::kernel::decode::decode;
use reaper_common::{self as wire, adopter, kind};
use zerocopy::IntoBytes as _;

/// Every scenario.
pub(crate) const NAMES: [&str; 6] = [
    "decode_fork",
    "decode_exec",
    "decode_exit",
    "life_of_a_program",
    "life_of_a_worker",
    "death_of_a_master",
];

/// The group of `life_of_a_worker` and `death_of_a_master`; the others have every built-in profile.
const GROUP: &str = "[[group]]\nname = \"g\"\n[group.master]\ncmdline = '^master$'\n";

/// Workers of the master that dies.
const WORKERS: u32 = 16;

const INIT: ProcKey = ProcKey { tgid: 1, start_ns: 1 };

/// One of [`NAMES`], ready to be done again and again.
pub(crate) enum Scenario {
    Decode(Vec<u8>),
    Program(Host),
    Worker(Host, ProcKey),
    Master(Host),
}

impl Scenario {
    pub(crate) fn new(name: &str) -> Self {
        match name {
            "decode_fork" => Self::Decode(fork_record()),
            "decode_exec" => Self::Decode(exec_record()),
            "decode_exit" => Self::Decode(exit_record()),
            "life_of_a_program" => Self::Program(Host::new(&Config::embedded())),
            "life_of_a_worker" => {
                let mut host = Host::new(&Config::parse("bench", GROUP).unwrap());
                let master = host.master();
                Self::Worker(host, master)
            }
            "death_of_a_master" => Self::Master(Host::new(&Config::parse("bench", GROUP).unwrap())),
            unknown => unreachable!("{unknown} is not a scenario"),
        }
    }

    pub(crate) fn once(&mut self) {
        match self {
            Self::Decode(record) => _ = black_box(decode(black_box(record))),
            Self::Program(host) => {
                let program = host.fork(INIT);
                host.exec(program, &["gzip", "-9", "/var/log/syslog.1"]);
                host.exit(program, 0);
            }
            Self::Worker(host, master) => {
                let worker = host.fork(*master);
                host.exit(worker, 0);
            }
            Self::Master(host) => {
                let master = host.master();
                let workers: Vec<ProcKey> = (0..WORKERS).map(|_| host.fork(master)).collect();
                host.exit(master, 9);
                assert_eq!(host.core.orphans().count(), workers.len());
                workers.into_iter().for_each(|worker| host.exit(worker, 15));
            }
        }
    }
}

/// A core that has seen its first dump.
pub(crate) struct Host {
    core: Core,
    now: Ns,
    next: u32,
}

impl Host {
    fn new(config: &Config) -> Self {
        let mut host = Self { core: Core::new(0), now: SECOND, next: 2 };
        let init = Task {
            key: INIT,
            parent: Parent::None,
            comm: "systemd".into(),
            uid: 0,
            session: 1,
            kernel_thread: false,
            reaper: true,
        };
        let rules = Arc::new(config.rules.clone());
        host.give(Input::Configured { at: SECOND, rules, armed: Vec::new(), broken: Vec::new() });
        host.give(Input::Snapshot { at: SECOND, took_ns: 1, tasks: vec![init] });
        host.give(Input::Merged { at: SECOND });
        host
    }

    fn give(&mut self, input: Input) {
        self.now += MS / 20;
        self.core.handle(self.now, input);
        while let Some(effect) = self.core.poll_effect() {
            if let Effect::Identify(key) = effect {
                let outcome = self.identify(key);
                self.core.handle(self.now, Input::Identified { key, outcome });
            }
        }
    }

    /// As /proc would: what exec told, in the adopter's care.
    fn identify(&self, key: ProcKey) -> Identified {
        let Some(id) = self.core.tree().find(key) else { return Identified::Gone };
        let node = &self.core.tree()[id];
        Identified::Alive(Identity {
            at: self.now,
            comm: node.comm().clone(),
            argv: node.argv().clone(),
            exe: node.exe().clone(),
            uid: node.uid(),
            ppid: 1,
            session: node.session(),
            cgroups: Vec::new(),
        })
    }

    fn fork(&mut self, parent: ProcKey) -> ProcKey {
        self.next = if self.next > 30_000 { 2 } else { self.next + 1 };
        let child = ProcKey { tgid: self.next, start_ns: self.now };
        let fork =
            Fork { at: self.now, child, parent, comm: "sh".into(), uid: 0, session: 1, kernel_thread: false };
        self.give(Input::Fork(fork));
        child
    }

    fn exec(&mut self, key: ProcKey, argv: &[&str]) {
        let exec = Exec {
            at: self.now,
            key,
            comm: argv[0].into(),
            uid: 0,
            session: 1,
            filename: "/usr/bin/gzip".into(),
            argv: argv.iter().collect(),
            truncated: false,
        };
        self.give(Input::Exec(exec));
    }

    fn exit(&mut self, key: ProcKey, status: u32) {
        self.give(Input::Exit(Exit { at: self.now, key, status, adopter: Parent::Known(INIT) }));
    }

    fn master(&mut self) -> ProcKey {
        let master = self.fork(INIT);
        self.exec(master, &["master"]);
        master
    }
}

fn header(kind: u32) -> wire::Header {
    wire::Header { kind, boot_ns: SECOND, ..wire::Header::default() }
}

fn fork_record() -> Vec<u8> {
    let record = wire::Fork {
        header: header(kind::FORK),
        comm: *b"gzip\0\0\0\0\0\0\0\0\0\0\0\0",
        ..wire::Fork::default()
    };
    record.as_bytes().to_vec()
}

fn exec_record() -> Vec<u8> {
    let (filename, argv) = (b"/usr/bin/gzip", b"gzip\0-9\0/var/log/syslog.1\0");
    let record = wire::Exec {
        header: header(kind::EXEC),
        comm: *b"gzip\0\0\0\0\0\0\0\0\0\0\0\0",
        filename_len: u16::try_from(filename.len()).unwrap(),
        argv_len: u16::try_from(argv.len()).unwrap(),
        ..wire::Exec::default()
    };
    [record.as_bytes(), filename, argv].concat()
}

fn exit_record() -> Vec<u8> {
    let record =
        wire::Exit { header: header(kind::EXIT), adopter_kind: adopter::UNKNOWN, ..wire::Exit::default() };
    record.as_bytes().to_vec()
}
