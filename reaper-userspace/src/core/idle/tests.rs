//! What is judged idle, and what never is. The samples have the shapes that the real frameworks have from outside.
#![allow(clippy::unwrap_used, reason = "tests")]

use core::net::{IpAddr, Ipv4Addr};

use globset::Glob;
use proptest::prelude::*;
use regex::Regex;

use super::super::ids::{ProcKey, SECOND};
use super::super::rules::{AlarmRule, Endpoint, Proof};
use super::super::sample::{Address, File, Operation, Traffic};
use super::*;

const PID: u32 = 100;
const MASTER: u32 = 10;
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn tcp(port: u16) -> Address {
    Address::Tcp(LOCAL, port)
}

fn file(fd: i32, what: FileKind) -> File {
    let inode = u64::try_from(fd).unwrap() + 1_000;
    let traffic = what.is_socket().then(Traffic::default);
    File { fd, what, inode, readable: Some(false), holders: Some(Vec::new()), traffic }
}

fn connected(fd: i32, port: u16) -> File {
    file(fd, FileKind::Connected { local: tcp(40_000), peer: tcp(port) })
}

fn listening(fd: i32, port: u16) -> File {
    file(fd, FileKind::Listening(tcp(port)))
}

fn held_by(pids: &[u32], file: File) -> File {
    File { holders: Some(pids.to_vec()), ..file }
}

fn waits(fds: &[i32]) -> Wait {
    Wait::Files { fds: fds.to_vec(), timeout: None }
}

fn sleeps(length: Ns) -> Wait {
    Wait::Sleep { length: Some(length) }
}

fn sample(waits: &[Wait], files: &[File]) -> Sample {
    let thread = |(n, wait): (u32, &Wait)| Thread {
        tid: PID + n,
        comm: "worker".to_owned(),
        state: 'S',
        syscall: Some("poll".to_owned()),
        wait: wait.clone(),
        switches: Some(1),
    };
    Sample {
        at: SECOND,
        threads: (0..).zip(waits).map(thread).collect(),
        cpu_ns: 0,
        frozen: false,
        source: Some(Source {
            files: files.to_vec(),
            alarm: Some(false),
            caught: Some(1 << 14),
            ..Source::default()
        }),
    }
}

fn rules() -> IdleRules {
    IdleRules {
        proof: Proof::Source,
        queue: vec![Endpoint::Tcp { ip: None, port: 6379 }],
        ..IdleRules::default()
    }
}

struct Scene {
    children: Vec<Child>,
    mates: Vec<(u32, Standing)>,
}

impl Scene {
    fn judge(&self, sample: &Sample, span: Option<&IdleSpan>, polls: &Polls, rules: &IdleRules) -> Judged {
        let around = Around {
            pid: PID,
            children: &self.children,
            lineage: &[50, MASTER],
            mate: &|pid| self.mates.iter().find(|(mate, _)| *mate == pid).map(|(_, standing)| *standing),
            siblings: &|| self.mates.clone(),
            polls: 0,
            title_says_idle: false,
        };
        judge(sample, around, span, polls, rules)
    }
}

fn alone() -> Scene {
    Scene { children: Vec::new(), mates: Vec::new() }
}

#[track_caller]
fn check(sample: &Sample, rules: &IdleRules, verdict: Verdict, because: &str) {
    let evidence = alone().judge(sample, None, &Polls::default(), rules).evidence;
    assert_eq!(evidence.verdict, verdict, "{}", evidence.because);
    assert!(evidence.because.contains(because), "{}", evidence.because);
}

#[test]
fn a_server_in_accept_is_idle() {
    check(
        &sample(&[waits(&[3])], &[listening(3, 9000)]),
        &rules(),
        Verdict::Idle,
        "new connections at tcp/127.0.0.1:9000",
    );
}

#[test]
fn a_server_with_its_own_wake_up_pipe_is_idle() {
    let files = [listening(3, 9000), file(4, FileKind::Pipe), file(5, FileKind::Neutral("eventfd".into()))];
    check(&sample(&[waits(&[3, 4, 5])], &files), &rules(), Verdict::Idle, "new connections");
}

#[test]
fn a_server_with_a_client_is_busy_whatever_it_waits_for() {
    let client = file(9, FileKind::Connected { local: tcp(9000), peer: tcp(50_000) });
    check(
        &sample(&[waits(&[3])], &[listening(3, 9000), client]),
        &rules(),
        Verdict::Busy,
        "a client is connected",
    );
}

#[test]
fn a_client_that_has_reset_its_connection_may_still_be_served() {
    let client = file(9, FileKind::Unconnected { family: "tcp".into(), local: Some(tcp(9000)) });
    check(
        &sample(&[waits(&[3])], &[listening(3, 9000), client]),
        &rules(),
        Verdict::Busy,
        "a client is connected",
    );
}

#[test]
fn a_connection_that_waits_to_be_accepted_is_work() {
    let listening = File { readable: Some(true), ..listening(3, 9000) };
    check(&sample(&[waits(&[3])], &[listening]), &rules(), Verdict::Busy, "unread");
}

#[test]
fn a_wait_for_another_service_is_work() {
    check(
        &sample(&[waits(&[3])], &[connected(3, 5432)]),
        &rules(),
        Verdict::Busy,
        "tcp/127.0.0.1:5432, which is not its source",
    );
    check(
        &sample(&[waits(&[3, 4])], &[connected(3, 6379), connected(4, 5432)]),
        &rules(),
        Verdict::Busy,
        "5432",
    );
}

#[test]
fn a_blocking_pop_is_idle_until_an_answer_is_there() {
    check(
        &sample(&[waits(&[3])], &[connected(3, 6379)]),
        &rules(),
        Verdict::Idle,
        "its queue tcp/127.0.0.1:6379",
    );
    let answered = File { readable: Some(true), ..connected(3, 6379) };
    check(&sample(&[waits(&[3])], &[answered]), &rules(), Verdict::Busy, "unread");
}

#[test]
fn of_two_connections_to_the_queue_nobody_knows_which_brings_the_jobs() {
    let files = [connected(3, 6379), connected(4, 6379)];
    check(&sample(&[waits(&[4])], &files), &rules(), Verdict::Unknown, "one of 2 connections");
    // Unless a thread waits on each, or the job would be a child.
    check(&sample(&[waits(&[3]), waits(&[4])], &files), &rules(), Verdict::Idle, "its queue");
    let rules = IdleRules { job_in_child: true, ..rules() };
    check(&sample(&[waits(&[4])], &files), &rules, Verdict::Idle, "its queue");
}

#[test]
fn whoever_gets_its_jobs_over_a_pipe_waits_on_the_queue_in_a_job_only() {
    let rules = IdleRules { job_by_pipe: true, ..rules() };
    check(&sample(&[waits(&[3])], &[connected(3, 6379)]), &rules, Verdict::Busy, "over a pipe");
}

#[test]
fn an_alarm_tells_a_job_on_the_queues_connection_from_the_pop() {
    let rules = IdleRules { alarm: Some(AlarmRule { except: Regex::new("--timeout=0").ok() }), ..rules() };
    let mut look = sample(&[waits(&[3])], &[connected(3, 6379), connected(4, 6379)]);
    check(&look, &rules, Verdict::Idle, "its queue");
    look.source.as_mut().unwrap().alarm = Some(true);
    check(&look, &rules, Verdict::Busy, "alarm");
    look.source.as_mut().unwrap().alarm = None;
    check(&look, &rules, Verdict::Unknown, "alarm");
    let source = look.source.as_mut().unwrap();
    (source.alarm, source.title) = (Some(false), "php artisan queue:work --timeout=0".into());
    check(&look, &rules, Verdict::Unknown, "no alarm would");
    let source = look.source.as_mut().unwrap();
    (source.caught, source.title) = (Some(1), "php artisan queue:work".into());
    check(&look, &rules, Verdict::Unknown, "no alarm would");
}

#[test]
fn a_connection_that_was_inherited_proves_nothing() {
    let shared = held_by(&[77], connected(3, 6379));
    check(&sample(&[waits(&[3])], &[shared]), &rules(), Verdict::Unknown, "process 77 shares");
    let unknown = File { holders: None, ..connected(3, 6379) };
    check(&sample(&[waits(&[3])], &[unknown]), &rules(), Verdict::Unknown, "may share");
}

#[test]
fn after_a_large_answer_it_works() {
    let got =
        |bytes| Some(Traffic { last: Some(Operation { at: 0, sent: false, bytes }), ..Traffic::default() });
    let job = File { traffic: got(900), ..connected(3, 6379) };
    check(&sample(&[waits(&[3])], &[job]), &rules(), Verdict::Busy, "were 900 bytes: a job");
    // Whichever of those that it waits for brought it.
    let files = [File { traffic: got(900), ..connected(3, 6379) }, connected(4, 6379)];
    check(&sample(&[waits(&[3, 4])], &files), &rules(), Verdict::Busy, "900 bytes");
    let nothing = File { traffic: got(5), ..connected(3, 6379) };
    check(&sample(&[waits(&[3])], &[nothing]), &rules(), Verdict::Idle, "its queue");
}

#[test]
fn calls_that_wait_for_no_work_are_work() {
    for wait in [Wait::Child, Wait::Other, Wait::Nothing, sleeps(12 * SECOND), Wait::Sleep { length: None }] {
        check(&sample(&[wait], &[]), &rules(), Verdict::Busy, "thread 100 (worker)");
    }
    let udp = file(3, FileKind::Unconnected { family: "udp".into(), local: None });
    check(&sample(&[waits(&[3])], &[udp]), &rules(), Verdict::Busy, "udp");
}

#[test]
fn what_is_not_known_is_unknown() {
    check(&sample(&[Wait::Unknown("no table".into())], &[]), &rules(), Verdict::Unknown, "no table");
    check(&sample(&[Wait::NotAsked], &[]), &rules(), Verdict::Unknown, "not looked at");
    check(
        &sample(&[Wait::Futex { timed: false }], &[]),
        &rules(),
        Verdict::Unknown,
        "nothing that its threads wait for",
    );
    check(&sample(&[waits(&[3])], &[]), &rules(), Verdict::Unknown, "descriptor 3");
    let mut look = sample(&[waits(&[3])], &[listening(3, 9000)]);
    look.source.as_mut().unwrap().incomplete = Some("too many".into());
    check(&look, &rules(), Verdict::Unknown, "too many");
    look.source = None;
    check(&look, &rules(), Verdict::Unknown, "not looked at");
}

#[test]
fn only_job_threads_are_asked_but_all_must_rest() {
    let mut look = sample(&[waits(&[3]), Wait::Sleep { length: None }], &[listening(3, 9000)]);
    look.threads[1].comm = "ticker".to_owned();
    check(&look, &rules(), Verdict::Busy, "ticker");
    let rules = IdleRules { job_threads: vec![Glob::new("work*").unwrap().compile_matcher()], ..rules() };
    check(&look, &rules, Verdict::Idle, "new connections");
    look.threads[1].state = 'R';
    check(&look, &rules, Verdict::Busy, "is running");
    look.threads.remove(0);
    look.threads[0].state = 'S';
    check(&look, &rules, Verdict::Unknown, "job_threads");
}

#[test]
fn a_child_is_work_unless_it_is_named() {
    let child = Child { key: ProcKey { tgid: 7, start_ns: 7 }, comm: "tracker".into() };
    let scene = Scene { children: vec![child], mates: Vec::new() };
    let look = sample(&[waits(&[3])], &[listening(3, 9000)]);
    assert_eq!(scene.judge(&look, None, &Polls::default(), &rules()).evidence.verdict, Verdict::Busy);
    let rules = IdleRules { children: vec![Glob::new("track*").unwrap().compile_matcher()], ..rules() };
    assert_eq!(scene.judge(&look, None, &Polls::default(), &rules).evidence.verdict, Verdict::Idle);
}

#[test]
fn held_still_by_the_agent_it_is_judged_by_what_it_was_in() {
    let mut look = sample(&[waits(&[3])], &[listening(3, 9000)]);
    look.threads[0].state = 't';
    check(&look, &rules(), Verdict::Busy, "stopped by a tracer");
    look.frozen = true;
    check(&look, &rules(), Verdict::Idle, "new connections");
    look.threads[0].wait = Wait::Nothing;
    check(&look, &rules(), Verdict::Busy, "was running when it was held");
    look.threads[0].wait = Wait::Unknown("no table".into());
    let asleep = IdleRules { proof: Proof::Asleep, ..rules() };
    check(&look, &asleep, Verdict::Unknown, "no table");
    look.threads[0].wait = Wait::Other;
    check(&look, &asleep, Verdict::Idle, "asleep");
}

#[test]
fn titles_decide_where_they_tell_the_truth() {
    let rules = IdleRules { title: Regex::new("Waiting for").ok(), ..rules() };
    let mut look = sample(&[sleeps(5 * SECOND)], &[]);
    look.source.as_mut().unwrap().title = "resque-2.6: Waiting for mails".into();
    check(&look, &rules, Verdict::Idle, "its title says");
    look.threads[0].wait = waits(&[3]);
    look.source.as_mut().unwrap().files = vec![connected(3, 80)];
    check(&look, &rules, Verdict::Busy, "not its source of work");
    look.source.as_mut().unwrap().title = "resque-2.6: Processing mails since 5 [Mail]".into();
    check(&look, &rules, Verdict::Busy, "title");
}

#[test]
fn a_socketpair_of_the_master_brings_work_and_any_other_is_work() {
    let pair = |peer| file(3, FileKind::Pair { peer });
    check(&sample(&[waits(&[3])], &[pair(MASTER)]), &rules(), Verdict::Idle, "was its master");
    check(&sample(&[waits(&[3])], &[pair(999)]), &rules(), Verdict::Busy, "socketpair with process 999");
    check(
        &sample(&[waits(&[3])], &[pair(PID)]),
        &rules(),
        Verdict::Unknown,
        "nothing that its threads wait for",
    );
    check(&sample(&[waits(&[3])], &[held_by(&[8], pair(PID))]), &rules(), Verdict::Busy, "socketpair");
}

#[test]
fn a_siblings_work_may_answer_over_the_masters_socketpair() {
    let look = sample(&[waits(&[3])], &[file(3, FileKind::Pair { peer: MASTER })]);
    let verdict = |standing| {
        let scene = Scene { children: Vec::new(), mates: vec![(7, standing)] };
        scene.judge(&look, None, &Polls::default(), &rules()).evidence.verdict
    };
    assert_eq!(verdict(Standing::WaitsForPool), Verdict::Idle);
    assert_eq!(verdict(Standing::Works), Verdict::Busy);
}

#[test]
fn where_every_thread_takes_jobs_one_in_a_futex_may_have_one() {
    let files = [connected(3, 6379), connected(4, 6379)];
    let futex = Wait::Futex { timed: false };
    check(
        &sample(&[waits(&[3]), waits(&[4]), futex.clone()], &files),
        &rules(),
        Verdict::Unknown,
        "waits for a lock",
    );
    check(&sample(&[waits(&[3]), futex], &files[..1]), &rules(), Verdict::Idle, "its queue");
}

#[test]
fn a_pool_is_idle_when_only_waiting_orphans_can_wake_it() {
    let look = sample(&[waits(&[3])], &[held_by(&[7, 8], file(3, FileKind::Pipe))]);
    let verdict = |mates: &[(u32, Standing)]| {
        let scene = Scene { children: Vec::new(), mates: mates.to_vec() };
        scene.judge(&look, None, &Polls::default(), &rules()).evidence.verdict
    };
    use Standing::{Waits, WaitsForPool, WaitsForTurn, Works};
    assert_eq!(verdict(&[(7, Waits), (8, WaitsForPool)]), Verdict::Idle);
    assert_eq!(verdict(&[(7, Waits), (8, Works)]), Verdict::Busy);
    // Process 8 is no orphan of the group.
    assert_eq!(verdict(&[(7, Waits)]), Verdict::Busy);

    let turn = sample(&[Wait::Futex { timed: false }], &[]);
    let pool = IdleRules { pool: true, ..rules() };
    let verdict = |mates: &[(u32, Standing)], span: Option<&IdleSpan>| {
        let scene = Scene { children: Vec::new(), mates: mates.to_vec() };
        scene.judge(&turn, span, &Polls::default(), &pool).evidence.verdict
    };
    assert_eq!(verdict(&[(7, WaitsForPool), (8, WaitsForTurn)], None), Verdict::Idle);
    assert_eq!(verdict(&[(7, WaitsForPool), (8, Works)], None), Verdict::Busy);
    assert_eq!(verdict(&[(8, WaitsForTurn)], None), Verdict::Unknown);
    // The reader is gone; who has not run since it was idle still is.
    assert_eq!(verdict(&[(8, WaitsForTurn)], Some(&IdleSpan::begin(&turn))), Verdict::Idle);
    let timed = sample(&[Wait::Futex { timed: true }], &[]);
    check(&timed, &pool, Verdict::Unknown, "nothing that its threads wait for");
    // The others are gone: who has not run since it was idle still is, also when it is held for the last look.
    let mut last = sample(&[waits(&[3])], &[file(3, FileKind::Pipe)]);
    let verdict =
        |last: &Sample, span| alone().judge(last, span, &Polls::default(), &rules()).evidence.verdict;
    let span = IdleSpan::begin(&look);
    assert_eq!(verdict(&last, None), Verdict::Unknown);
    assert_eq!(verdict(&last, Some(&span)), Verdict::Idle);
    last.threads[0].switches = last.threads[0].switches.map(|n| n + 1);
    assert_eq!(verdict(&last, Some(&span)), Verdict::Unknown);
    last.frozen = true;
    assert_eq!(verdict(&last, Some(&span)), Verdict::Idle);
    last.threads[0].wait = Wait::Futex { timed: false };
    assert_eq!(verdict(&last, Some(&span)), Verdict::Unknown, "it waits for something else");
}

/// A worker that polls by sleeping, one look in each of its sleeps.
struct Poller {
    rules: IdleRules,
    polls: Polls,
    queue: Traffic,
    other: Traffic,
    switches: u64,
    frozen: bool,
}

impl Poller {
    fn new() -> Self {
        let rules = IdleRules { sleep: Some(3 * SECOND), poll_request: 200, ..rules() };
        let mut poller = Self {
            rules,
            polls: Polls::default(),
            queue: Traffic::default(),
            other: Traffic::default(),
            switches: 1,
            frozen: false,
        };
        poller.look(3 * SECOND, true);
        poller
    }

    /// A poll that sends and receives so much, and the next sleep.
    fn poll(&mut self, sent: u64, received: u64) -> Verdict {
        self.queue.sends += 3;
        self.queue.receives += 3;
        self.queue.sent += sent;
        self.queue.received += received;
        self.rest()
    }

    fn rest(&mut self) -> Verdict {
        self.switches += 4;
        self.look(3 * SECOND, true)
    }

    /// It is held still, or let go again, `extra` switches later than that alone makes.
    fn hold(&mut self, frozen: bool, extra: u64) -> Verdict {
        self.frozen = frozen;
        self.switches += 1 + extra;
        self.look(3 * SECOND, true)
    }

    fn look(&mut self, length: Ns, has_other: bool) -> Verdict {
        let queue = File { traffic: Some(self.queue), ..connected(3, 6379) };
        let other = has_other.then(|| File { traffic: Some(self.other), ..connected(4, 3306) });
        let files: Vec<File> = [queue].into_iter().chain(other).collect();
        let mut look = sample(&[sleeps(length)], &files);
        look.threads[0].switches = Some(self.switches);
        look.threads[0].state = if self.frozen { 't' } else { 'S' };
        look.frozen = self.frozen;
        let judged = alone().judge(&look, None, &self.polls, &self.rules);
        self.polls = judged.polls;
        judged.evidence.verdict
    }
}

#[test]
fn two_polls_that_found_nothing_prove_that_it_only_polls() {
    let mut poller = Poller::new();
    assert_eq!(poller.poll(900, 22), Verdict::Unknown);
    assert_eq!(poller.look(3 * SECOND, true), Verdict::Unknown, "the same sleep is no second poll");
    assert_eq!(poller.poll(900, 22), Verdict::Idle);
    // A job comes, and sleeps as long as the framework does.
    assert_eq!(poller.poll(900, 400), Verdict::Unknown);
    assert_eq!(poller.poll(900, 22), Verdict::Unknown);
    assert_eq!(poller.poll(900, 22), Verdict::Idle);
}

#[test]
fn a_poller_of_a_queue_that_its_group_does_not_name_is_told_of() {
    let rules = IdleRules { sleep: Some(3 * SECOND), ..rules() };
    let because = |files: &[File]| {
        let look = sample(&[sleeps(3 * SECOND)], files);
        alone().judge(&look, None, &Polls::default(), &rules).evidence.because
    };
    let elsewhere = because(&[connected(3, 6380)]);
    assert!(
        elsewhere.ends_with("; it has no connection to a queue of its group, and one to tcp/127.0.0.1:6380"),
        "{elsewhere}"
    );
    let also = because(&[connected(3, 6379), connected(4, 6380)]);
    assert!(also.ends_with("have been seen"), "{also}");
}

#[test]
fn a_job_that_sleeps_as_its_framework_does_is_not_taken_for_it() {
    let idle = || {
        let mut poller = Poller::new();
        poller.poll(900, 22);
        assert_eq!(poller.poll(900, 22), Verdict::Idle);
        poller
    };
    let asleep_again = |mut poller: Poller| poller.rest();
    assert_eq!(asleep_again(idle()), Verdict::Unknown, "nothing was asked between two sleeps");
    let waits_for_a_lock = |mut poller: Poller| poller.poll(40, 5);
    assert_eq!(waits_for_a_lock(idle()), Verdict::Unknown, "a poll asks more than that");
    let asks_somebody_else = |mut poller: Poller| {
        poller.other.sends += 1;
        poller.poll(900, 22)
    };
    assert_eq!(asks_somebody_else(idle()), Verdict::Unknown, "another service was asked");
    let closes = |mut poller: Poller| {
        poller.queue.sends += 3;
        poller.switches += 1;
        poller.look(3 * SECOND, false)
    };
    assert_eq!(closes(idle()), Verdict::Unknown, "a connection was closed");
    let sleeps_longer = |mut poller: Poller| poller.look(12 * SECOND, true);
    assert_eq!(sleeps_longer(idle()), Verdict::Busy);
}

#[test]
fn a_sleep_in_which_it_was_held_still_is_the_same_sleep() {
    let idle = || {
        let mut poller = Poller::new();
        poller.poll(900, 22);
        assert_eq!(poller.poll(900, 22), Verdict::Idle);
        poller
    };
    let mut poller = idle();
    assert_eq!(poller.hold(true, 0), Verdict::Idle);
    assert_eq!(poller.hold(false, 0), Verdict::Idle, "it was let go");
    assert_eq!(poller.hold(true, 0), Verdict::Idle, "held a second time");
    assert_eq!(idle().hold(true, 1), Verdict::Unknown, "it woke by itself and sleeps again");
    assert_eq!(idle().hold(false, 0), Verdict::Unknown, "nobody held it");
    let mut poller = idle();
    poller.queue.received += 400;
    assert_eq!(poller.hold(true, 0), Verdict::Unknown, "it has got a job");
}

#[test]
fn without_the_kernels_word_on_traffic_a_poll_proves_nothing() {
    let rules = IdleRules { sleep: Some(3 * SECOND), ..rules() };
    let mut polls = Polls::default();
    for switches in 1..9 {
        let mut look = sample(&[sleeps(3 * SECOND)], &[File { traffic: None, ..connected(3, 6379) }]);
        look.threads[0].switches = Some(switches);
        let judged = alone().judge(&look, None, &polls, &rules);
        assert_eq!(judged.evidence.verdict, Verdict::Unknown);
        polls = judged.polls;
    }
}

/// Any idle shape of a real worker.
fn idle_sample() -> impl Strategy<Value = Sample> {
    let futexes = prop::collection::vec(any::<bool>(), 0..4);
    let source = prop_oneof![
        Just((waits(&[3]), vec![listening(3, 9000)])),
        Just((waits(&[3]), vec![connected(3, 6379)])),
        Just((waits(&[3, 4]), vec![listening(3, 9000), file(4, FileKind::Pipe)])),
        Just((waits(&[3]), vec![file(3, FileKind::Pair { peer: MASTER })])),
    ];
    (source, futexes).prop_map(|((wait, files), futexes)| {
        let others = futexes.into_iter().map(|timed| Wait::Futex { timed });
        sample(&[wait].into_iter().chain(others).collect::<Vec<_>>(), &files)
    })
}

/// One thing that makes a process busy, or that nobody can know.
fn spoil(look: &mut Sample, how: u8, thread: usize) {
    let thread = thread % look.threads.len();
    let source = look.source.as_mut().unwrap();
    match how {
        0 => look.threads[thread].state = 'R',
        1 => look.threads[thread].state = 'D',
        2 => look.threads[thread].wait = Wait::Other,
        3 => look.threads[thread].wait = Wait::Child,
        4 => look.threads[thread].wait = Wait::Unknown("…".into()),
        5 => look.threads[thread].wait = sleeps(SECOND),
        6 => look.threads[thread].wait = Wait::Nothing,
        7 => source.incomplete = Some("…".into()),
        8 => source.files[0].readable = Some(true),
        9 => {
            source.files.push(connected(70, 80));
            look.threads[thread].wait = waits(&[70]);
        }
        10 => look.threads[0].wait = waits(&[3, 71]),
        11 => {
            source.files.push(file(72, FileKind::Other("/dev/ttyS0".into())));
            look.threads[0].wait = waits(&[3, 72]);
        }
        12 => source.files.push(connected(73, 6379)),
        _ => look.source = None,
    }
}

proptest! {
    #[test]
    fn whatever_is_idle_is_not_when_one_thing_speaks_against_it(look in idle_sample(), how in 0_u8..14, thread in 0_usize..5) {
        let verdict = |look: &Sample| alone().judge(look, None, &Polls::default(), &rules()).evidence.verdict;
        prop_assert_eq!(verdict(&look), Verdict::Idle);
        let mut look = look;
        let serves_no_queue = look.source.as_ref().unwrap().files[0].what == listening(3, 9000).what
            || matches!(look.source.as_ref().unwrap().files[0].what, FileKind::Pair { .. });
        // A connection to the queue that nobody waits for matters to those that wait for the queue.
        prop_assume!(how != 12 || !serves_no_queue);
        spoil(&mut look, how, thread);
        prop_assert_ne!(verdict(&look), Verdict::Idle);
    }
}
