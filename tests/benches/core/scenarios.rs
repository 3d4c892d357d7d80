//! What happens again and again on a host, each as one operation.

use std::hint::black_box;
use std::sync::Arc;

use reaper::config::Config;
use reaper::core::ids::{MS, ProcKey, SECOND};
use reaper::core::input::{Exec, Exit, Fork, Identified, Identity, Input, Parent};
use reaper::kernel::decode::decode;
use reaper_tests::bench::bed::{self, Bed, INIT, Image};

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

/// Of the records that are decoded.
const PROGRAM: ProcKey = ProcKey { tgid: 4_711, start_ns: SECOND };

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
            "decode_fork" => Self::Decode(bed::fork(SECOND, PROGRAM, INIT)),
            "decode_exec" => Self::Decode(bed::exec(SECOND, PROGRAM, &gzip())),
            "decode_exit" => Self::Decode(bed::exit(SECOND, PROGRAM)),
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
                assert_eq!(host.bed.core.orphans().count(), workers.len());
                workers.into_iter().for_each(|worker| host.exit(worker, 15));
            }
        }
    }
}

/// A core that has seen its first dump.
pub(crate) struct Host {
    bed: Bed,
    next: u32,
}

impl Host {
    fn new(config: &Config) -> Self {
        Self { bed: Bed::new(Arc::new(config.rules.clone())), next: 2 }
    }

    fn give(&mut self, input: Input) {
        self.bed.now += MS / 20;
        self.bed.give(input, identify);
    }

    fn fork(&mut self, parent: ProcKey) -> ProcKey {
        self.next = if self.next > 30_000 { 2 } else { self.next + 1 };
        let child = ProcKey { tgid: self.next, start_ns: self.bed.now };
        let fork = Fork {
            at: self.bed.now,
            child,
            parent,
            comm: "sh".into(),
            uid: 0,
            session: 1,
            kernel_thread: false,
        };
        self.give(Input::Fork(fork));
        child
    }

    fn exec(&mut self, key: ProcKey, argv: &[&str]) {
        let argv: Vec<Arc<str>> = argv.iter().map(|&argument| argument.into()).collect();
        let exec = Exec {
            at: self.bed.now,
            key,
            comm: argv[0].clone(),
            uid: 0,
            session: 1,
            filename: "/usr/bin/gzip".into(),
            argv,
            truncated: false,
        };
        self.give(Input::Exec(exec));
    }

    fn exit(&mut self, key: ProcKey, status: u32) {
        self.give(Input::Exit(Exit { at: self.bed.now, key, status, adopter: Parent::Known(INIT) }));
    }

    fn master(&mut self) -> ProcKey {
        let master = self.fork(INIT);
        self.exec(master, &["master"]);
        master
    }
}

/// As /proc would: what exec told, in the adopter's care.
fn identify(bed: &Bed, key: ProcKey) -> Identified {
    let Some(id) = bed.core.tree().find(key) else { return Identified::Gone };
    let node = &bed.core.tree()[id];
    Identified::Alive(Identity {
        at: bed.now,
        comm: node.comm().clone(),
        argv: node.argv().to_vec(),
        exe: node.exe().clone(),
        uid: node.uid(),
        ppid: 1,
        session: node.session(),
        cgroups: Vec::new(),
    })
}

fn gzip() -> Image {
    Image {
        comm: "gzip",
        filename: "/usr/bin/gzip",
        argv: ["gzip", "-9", "/var/log/syslog.1"].map(String::from).into(),
        uid: 0,
        session: 1,
    }
}
