//! `[[group]]` and the built-in profiles: read into a draft in which every key may be absent, lay the group's draft over
//! the profile's, fill in the defaults.

use std::collections::HashMap;

use globset::GlobMatcher;
use toml::Spanned;
use toml::de::DeTable;

use super::ConfigErrors;
use super::overlap;
use super::patterns::{comm_glob, path_glob, regex, unit_globs};
use super::reader::{At, Cx, Node, Table};
use super::schema::{GROUP, IDLE, MASTER, PROFILE, STOP, Schema, WORKER};
use super::values::{
    boolean, bytes, choice, duration, endpoint, list, number, signal, some_duration, some_list, string, user,
};
use crate::core::ids::{Ns, SECOND};
use crate::core::rules::{
    AlarmRule, Endpoint, Group, IdleRules, Matcher, Mode, Proof, Signal, StopRules, When,
};
use crate::profiles::{self, Profile};

/// What a group and a profile have in common.
#[derive(Clone, Default)]
struct Draft {
    master: Option<At<Matcher>>,
    worker: Option<At<Matcher>>,
    idle: IdleDraft,
    stop: StopDraft,
}

#[derive(Clone, Default)]
struct IdleDraft {
    proof: Option<Proof>,
    quiet: Option<Ns>,
    queue: Option<Vec<Endpoint>>,
    sleep: Option<Ns>,
    poll_request: Option<u64>,
    poll_reply: Option<u64>,
    alarm: Option<bool>,
    no_alarm: Option<regex::Regex>,
    title: Option<regex::Regex>,
    job_in_child: Option<bool>,
    job_by_pipe: Option<bool>,
    pool: Option<bool>,
    job_threads: Option<Vec<GlobMatcher>>,
    children: Option<Vec<GlobMatcher>>,
}

#[derive(Clone, Default)]
struct StopDraft {
    when: Option<When>,
    signals: Option<Vec<Signal>>,
    grace: Option<Ns>,
    kill: Option<bool>,
    deadline: Option<Ns>,
    max_kills: Option<u32>,
    window: Option<Ns>,
    job_children: Option<Vec<regex::Regex>>,
}

/// A built-in profile, read.
struct Base {
    draft: Draft,
    /// It has not been run against its framework yet.
    observe_only: bool,
    /// The framework's processes must not be signalled at all.
    never_enforce: bool,
}

/// The groups of a file, in its order. Names are unique.
pub(super) fn read_all(cx: &mut Cx<'_>, node: &Node<'_>) -> Vec<Group> {
    let Some(array) = node.get_ref().as_array() else {
        cx.error(
            node.span().start,
            "groups are a list: write [[group]] and below it [group.master] and so on",
        );
        return Vec::new();
    };
    let mut lines = HashMap::new();
    array.iter().filter_map(|node| read(cx, node, &mut lines)).collect()
}

/// A group of the name of a profile that takes everything from it and observes.
pub(super) fn from_profile(profile: &Profile) -> Result<Group, ConfigErrors> {
    let base = base(profile)?;
    let mut cx = Cx::new(profile.name, profile.toml);
    resolve(&mut cx, 0, profile.name.to_owned(), Some(profile.name.to_owned()), Mode::Observe, base.draft)
        .ok_or_else(|| ConfigErrors::invalid(cx.finish().0))
}

fn read(cx: &mut Cx<'_>, node: &Node<'_>, lines: &mut HashMap<String, usize>) -> Option<Group> {
    let table = Table::open(cx, node, &GROUP)?;
    let name = table.get_at(cx, "name", group_name);
    if !table.has("name") {
        cx.error(table.at, "this [[group]] has no name: write name = \"…\"");
    }
    if let Some(At { at, value }) = &name {
        let line = cx.line(*at);
        if let Some(first) = lines.get(value) {
            cx.error(*at, &format!("two groups are named {value:?}: the first is in line {first}"));
        } else {
            lines.insert(value.clone(), line);
        }
    }

    let profile = table.get_at(cx, "profile", profile);
    let modes = [("observe", Mode::Observe), ("enforce", Mode::Enforce)];
    let mode = table.get_at(cx, "mode", |cx, n| choice(cx, n, &modes));
    let written = read_draft(cx, &table, &MASTER, &WORKER);

    if !table.has("master") && !table.has("profile") {
        cx.error(
            table.at,
            "this [[group]] has no [group.master] and no profile: one of them says what a master is",
        );
    }
    let mut profile_name = None;
    let mut draft = written;
    let mut observe_only = false;
    if let Some(At { at, value: profile }) = profile {
        let base = match base(profile) {
            Ok(base) => base,
            Err(errors) => {
                cx.error(at, &format!("the built-in profile {:?} is broken: {errors}", profile.name));
                return None;
            }
        };
        if let Some(At { at, value: Mode::Enforce }) = mode {
            observe_only = must_observe(cx, at, profile, &base, draft.master.is_some());
        }
        profile_name = Some(profile.name.to_owned());
        draft = draft.over(base.draft);
    }
    let name = name.map(|n| n.value).unwrap_or_default();
    let mode = mode.map(|m| m.value).filter(|_| !observe_only).unwrap_or_default();
    resolve(cx, table.at, name, profile_name, mode, draft)
}

/// Whether a group that is written to enforce observes all the same, which it is told.
fn must_observe(cx: &mut Cx<'_>, at: usize, profile: &Profile, base: &Base, own_master: bool) -> bool {
    let name = profile.name;
    if base.never_enforce {
        cx.warn(
            at,
            &format!("the profile {name:?} only observes, whatever a group says: so does this group"),
        );
        return true;
    }
    // Whoever writes down the masters has looked at them, and may enforce.
    if !base.observe_only || own_master {
        return false;
    }
    cx.warn(
        at,
        &format!(
            "the profile {name:?} has not been run against the real framework yet, so this group observes: to enforce, \
             write down its [group.master] (`reaper profiles {name}` prints the profile's)"
        ),
    );
    true
}

fn base(profile: &Profile) -> Result<Base, ConfigErrors> {
    let document = super::parse_toml(profile.name, profile.toml)?;
    let mut cx = Cx::new(profile.name, profile.toml);
    let base = read_base(&mut cx, &document);
    let (errors, _) = cx.finish();
    if errors.is_empty() { Ok(base) } else { Err(ConfigErrors::invalid(errors)) }
}

fn read_base(cx: &mut Cx<'_>, document: &Spanned<DeTable<'_>>) -> Base {
    let table = Table::of(cx, 0, document.get_ref(), &PROFILE);
    let observe_only = table.get(cx, "observe_only", boolean).unwrap_or_default();
    let never_enforce = table.get(cx, "never_enforce", boolean).unwrap_or_default();
    let draft = read_draft(cx, &table, &MASTER, &WORKER);
    if draft.master.is_none() {
        cx.error(0, "this profile has no [master]");
    }
    Base { draft, observe_only, never_enforce }
}

fn read_draft(cx: &mut Cx<'_>, table: &Table<'_, '_>, master: &Schema, worker: &Schema) -> Draft {
    Draft {
        master: table.get_at(cx, "master", |cx, n| matcher(cx, n, master)),
        worker: table.get_at(cx, "worker", |cx, n| matcher(cx, n, worker)),
        idle: table.get(cx, "idle", idle).unwrap_or_default(),
        stop: table.get(cx, "stop", stop).unwrap_or_default(),
    }
}

fn group_name(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<String> {
    const EXPECTED: &str = "a name of letters, digits, \"_\", \".\" and \"-\"";
    let name = string(cx, node, EXPECTED)?;
    let valid = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if !valid {
        cx.bad(node, &format!("expected {EXPECTED}, found {name:?}"));
        return None;
    }
    Some(name.to_owned())
}

fn profile(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<&'static Profile> {
    let name = string(cx, node, "the name of a built-in profile")?;
    let found = profiles::find(name);
    if found.is_none() {
        let names = || profiles::all().iter().map(|p| p.name);
        let known = names().collect::<Vec<_>>().join(", ");
        let hint = super::diagnostic::nearest(name, names())
            .map(|meant| format!("; did you mean {meant:?}?"))
            .unwrap_or_default();
        cx.bad(node, &format!("no built-in profile {name:?}: there are {known}{hint}"));
    }
    found
}

fn matcher(cx: &mut Cx<'_>, node: &Node<'_>, schema: &Schema) -> Option<Matcher> {
    let table = Table::open(cx, node, schema)?;
    let matcher = Matcher {
        cmdline: table.get(cx, "cmdline", regex),
        exe: table.get(cx, "exe", path_glob),
        comm: table.get(cx, "comm", comm_glob),
        uid: table.get(cx, "user", user),
        cgroup: table.get(cx, "cgroup", path_glob).map(|glob| vec![glob]),
        unit: table.get(cx, "unit", unit_globs),
    };
    if table.is_empty() {
        let known = schema.known();
        cx.error(table.at, &format!("this {} is empty: give at least one of {known}", schema.title));
    }
    Some(matcher)
}

fn idle(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<IdleDraft> {
    let table = Table::open(cx, node, &IDLE)?;
    let proofs = [("source", Proof::Source), ("asleep", Proof::Asleep)];
    Some(IdleDraft {
        proof: table.get(cx, "proof", |cx, n| choice(cx, n, &proofs)),
        quiet: table.get(cx, "quiet", duration),
        queue: table.get(cx, "queue", |cx, n| list(cx, n, "endpoints, as [\"tcp/6379\"]", endpoint)),
        sleep: table.get(cx, "sleep", some_duration),
        poll_request: table.get(cx, "poll_request", bytes),
        poll_reply: table.get(cx, "poll_reply", bytes),
        alarm: table.get(cx, "alarm", boolean),
        no_alarm: table.get(cx, "no_alarm", regex),
        title: table.get(cx, "title", regex),
        job_in_child: table.get(cx, "job_in_child", boolean),
        job_by_pipe: table.get(cx, "job_by_pipe", boolean),
        pool: table.get(cx, "pool", boolean),
        // With none, nothing would be judged and everything would be idle.
        job_threads: table.get(cx, "job_threads", |cx, n| some_list(cx, n, "globs", comm_glob)),
        children: table.get(cx, "children", |cx, n| list(cx, n, "globs", comm_glob)),
    })
}

fn stop(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<StopDraft> {
    let table = Table::open(cx, node, &STOP)?;
    let whens = [("always", When::Always), ("replaced", When::Replaced)];
    Some(StopDraft {
        when: table.get(cx, "when", |cx, n| choice(cx, n, &whens)),
        signals: table.get(cx, "signals", |cx, n| some_list(cx, n, "signals", signal)),
        grace: table.get(cx, "grace", duration),
        kill: table.get(cx, "kill", boolean),
        deadline: table.get(cx, "deadline", duration),
        max_kills: table.get(cx, "max_kills", |cx, n| number(cx, n, 1..=u32::MAX)),
        window: table.get(cx, "window", some_duration),
        job_children: table.get(cx, "job_children", |cx, n| list(cx, n, "regular expressions", regex)),
    })
}

/// Fills in the defaults of the contract. `at` is the header of the group.
fn resolve(
    cx: &mut Cx<'_>,
    at: usize,
    name: String,
    profile: Option<String>,
    mode: Mode,
    draft: Draft,
) -> Option<Group> {
    let Draft { master, worker, idle, stop } = draft;
    // Without one an error has been reported.
    let master = master?.value;
    if let Some(worker) = &worker {
        // A matcher that comes from the profile has a position in another file.
        let at = if profile.is_some() { at } else { worker.at };
        overlap::check(cx, at, &name, &master, &worker.value);
    }
    Some(Group {
        name,
        profile,
        mode,
        master,
        worker: worker.map(|w| w.value),
        idle: idle.resolve(),
        stop: stop.resolve(),
    })
}

impl Draft {
    /// Key by key: what is written here wins.
    fn over(self, base: Self) -> Self {
        Self {
            master: matcher_over(self.master, base.master),
            worker: matcher_over(self.worker, base.worker),
            idle: self.idle.over(base.idle),
            stop: self.stop.over(base.stop),
        }
    }
}

fn matcher_over(over: Option<At<Matcher>>, base: Option<At<Matcher>>) -> Option<At<Matcher>> {
    let (over, base) = match (over, base) {
        (Some(over), Some(base)) => (over, base),
        (over, base) => return over.or(base),
    };
    let Matcher { cmdline, exe, comm, uid, cgroup, unit } = over.value;
    let value = Matcher {
        cmdline: cmdline.or(base.value.cmdline),
        exe: exe.or(base.value.exe),
        comm: comm.or(base.value.comm),
        uid: uid.or(base.value.uid),
        cgroup: cgroup.or(base.value.cgroup),
        unit: unit.or(base.value.unit),
    };
    Some(At { at: over.at, value })
}

impl IdleDraft {
    fn over(self, base: Self) -> Self {
        Self {
            proof: self.proof.or(base.proof),
            quiet: self.quiet.or(base.quiet),
            queue: self.queue.or(base.queue),
            sleep: self.sleep.or(base.sleep),
            poll_request: self.poll_request.or(base.poll_request),
            poll_reply: self.poll_reply.or(base.poll_reply),
            alarm: self.alarm.or(base.alarm),
            no_alarm: self.no_alarm.or(base.no_alarm),
            title: self.title.or(base.title),
            job_in_child: self.job_in_child.or(base.job_in_child),
            job_by_pipe: self.job_by_pipe.or(base.job_by_pipe),
            pool: self.pool.or(base.pool),
            job_threads: self.job_threads.or(base.job_threads),
            children: self.children.or(base.children),
        }
    }

    fn resolve(self) -> IdleRules {
        let default = IdleRules::default();
        IdleRules {
            proof: self.proof.unwrap_or(default.proof),
            quiet: self.quiet.unwrap_or(default.quiet),
            queue: self.queue.unwrap_or(default.queue),
            sleep: self.sleep,
            poll_request: self.poll_request.unwrap_or(default.poll_request),
            poll_reply: self.poll_reply.unwrap_or(default.poll_reply),
            alarm: self.alarm.unwrap_or_default().then_some(AlarmRule { except: self.no_alarm }),
            title: self.title,
            job_in_child: self.job_in_child.unwrap_or_default(),
            job_by_pipe: self.job_by_pipe.unwrap_or_default(),
            pool: self.pool.unwrap_or_default(),
            job_threads: self.job_threads.unwrap_or(default.job_threads),
            children: self.children.unwrap_or(default.children),
        }
    }
}

impl StopDraft {
    fn over(self, base: Self) -> Self {
        Self {
            when: self.when.or(base.when),
            signals: self.signals.or(base.signals),
            grace: self.grace.or(base.grace),
            kill: self.kill.or(base.kill),
            deadline: self.deadline.or(base.deadline),
            max_kills: self.max_kills.or(base.max_kills),
            window: self.window.or(base.window),
            job_children: self.job_children.or(base.job_children),
        }
    }

    fn resolve(self) -> StopRules {
        StopRules {
            when: self.when.unwrap_or_default(),
            signals: self.signals.unwrap_or_else(|| Signal::from_name("TERM").into_iter().collect()),
            grace: self.grace.unwrap_or(30 * SECOND),
            kill: self.kill.unwrap_or(true),
            deadline: self.deadline.unwrap_or(0),
            max_kills: self.max_kills.unwrap_or(50),
            window: self.window.unwrap_or(60 * SECOND),
            job_children: self.job_children.unwrap_or_default(),
        }
    }
}
