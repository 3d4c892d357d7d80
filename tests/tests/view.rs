//! The commands that show the running agent: `tree`, `orphans`, `explain`, both ways of printing, against a real agent.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a broken assumption is a failure")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use reaper_tests::agent::{Agent, Outcome, binary, run_to_end};
use reaper_tests::config::Config;
use reaper_tests::process::{PATIENCE, Proc, TICK_NS, wait_until};
use reaper_tests::scene::Scene;
use reaper_tests::script::{Op, exec, fork, note, worker, worker_doing};
use serde_json::Value;

/// How long a command may take on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// An agent and its scene.
struct Stage {
    scene: Scene,
    agent: Agent,
    config: Config,
}

impl Stage {
    fn new(config: impl FnOnce(Config) -> Config) -> Self {
        let scene = Scene::new();
        let config = config(Config::new(&scene));
        let agent = Agent::start(&scene, &config);
        Self { scene, agent, config }
    }

    /// `reaper ARGS --socket …`
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(args).arg("--socket").arg(&self.config.socket);
        command
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> Outcome {
        run_to_end(&self.scene, &mut self.command(args), LONG)
    }

    /// What it prints; it must succeed.
    #[track_caller]
    fn shows(&self, args: &[&str]) -> String {
        let outcome = self.run(args);
        assert_eq!(outcome.status.code(), Some(0), "{outcome:#?}");
        assert!(!outcome.stdout.contains('\u{1b}'), "into a file: {outcome:#?}");
        outcome.stdout
    }

    /// The objects it prints.
    #[track_caller]
    fn objects(&self, args: &[&str]) -> Vec<Value> {
        let args = [args, &["--output", "json"]].concat();
        self.shows(&args).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The row of a live process in `reaper tree`.
    #[track_caller]
    fn row(&self, who: &Proc) -> Value {
        let rows = self.objects(&["tree"]);
        let row = rows.iter().find(|r| r["alive"] == true && r["pid"] == who.pid());
        row.unwrap_or_else(|| panic!("{} is not in the tree: {rows:#?}", who.pid())).clone()
    }

    /// Its only role.
    #[track_caller]
    fn role(&self, who: &Proc) -> String {
        let row = self.row(who);
        assert_eq!(row["roles"].as_array().unwrap().len(), 1, "{row:#}");
        assert_eq!(row["roles"][0]["group"], "g", "{row:#}");
        row["roles"][0]["role"].as_str().unwrap().to_owned()
    }
}

/// A master with an idle worker and a busy one, in a group that only observes: they stay.
fn family(stage: &Stage) -> (Proc, Proc, Proc) {
    let busy = worker_doing("busy", [Op::Busy(40_000)]);
    let master = stage.scene.spawn("master", [worker("idle"), busy, Op::Forever]);
    let (idle, busy) = (stage.scene.proc("idle"), stage.scene.proc("busy"));
    stage.agent.knows_master(&master);
    (master, idle, busy)
}

#[test]
fn the_whole_tree_is_that_of_proc() {
    let stage = Stage::new(|config| config);
    let (master, ..) = family(&stage);
    let rows = stage.objects(&["tree", "--all"]);
    assert!(rows.iter().all(|r| r["source"] == "agent"), "{rows:#?}");
    let live: BTreeMap<u64, &Value> =
        rows.iter().filter(|r| r["alive"] == true).map(|r| (r["pid"].as_u64().unwrap(), r)).collect();
    let mut compared = 0;
    for process in procfs::process::all_processes().unwrap().flatten() {
        let Ok(stat) = process.stat() else { continue };
        let Some(row) = live.get(&u64::try_from(stat.pid).unwrap()) else { continue };
        // The same process, and neither a zombie nor born since.
        if row["start_ns"].as_u64().unwrap() / TICK_NS != stat.starttime || stat.state == 'Z' {
            continue;
        }
        compared += 1;
        assert_eq!(row["ppid"], stat.ppid, "{row:#}");
        for field in ["uid", "comm", "exe", "argv", "kernel_thread", "roles", "lineage"] {
            assert!(row.get(field).is_some(), "no {field}: {row:#}");
        }
    }
    assert!(compared > 3, "{compared} of {}", rows.len());
    assert!(live.contains_key(&u64::try_from(master.pid()).unwrap()));
    // For people there is a line for each, whatever the width would be.
    let text = stage.shows(&["tree", "--all"]);
    assert!(text.lines().any(|l| l.contains(&format!("{} [master of g] ", master.pid()))), "{text}");
    stage.agent.stop();
}

#[test]
fn roles_and_tombstones() {
    let stage = Stage::new(Config::observe);
    let (master, idle, busy) = family(&stage);
    assert_eq!(stage.role(&master), "master");
    assert_eq!((stage.role(&idle).as_str(), stage.role(&busy).as_str()), ("worker", "worker"));
    assert_eq!(stage.row(&idle)["lineage"][0]["pid"], master.pid());
    master.kill();
    stage.agent.wait("orphaned", &idle);
    stage.agent.wait("orphaned", &busy);
    assert_eq!((stage.role(&idle).as_str(), stage.role(&busy).as_str()), ("orphan", "orphan"));
    let rows = stage.objects(&["tree", "--group", "g"]);
    let dead: Vec<_> = rows.iter().filter(|r| r["alive"] == false).collect();
    assert_eq!(dead.len(), 1, "{dead:#?}");
    assert_eq!((&dead[0]["pid"], &dead[0]["roles"][0]["role"]), (&master.pid().into(), &"master".into()));
    let text = stage.shows(&["tree"]);
    let lines: Vec<_> = text.lines().collect();
    let tombstone = format!("† {} [was master of g] ", master.pid());
    let at = lines.iter().position(|l| l.contains(&tombstone)).unwrap_or_else(|| panic!("{text}"));
    let below =
        |who: &Proc| lines[at + 1..].iter().any(|l| l.contains(&format!("─{} [orphan of g] ", who.pid())));
    assert!(below(&idle) && below(&busy), "{text}");
    stage.agent.stop();
}

#[test]
fn no_such_group() {
    let stage = Stage::new(|config| config);
    let outcome = stage.run(&["tree", "--group", "h\u{1b}[2J"]);
    assert_eq!(outcome.status.code(), Some(2), "{outcome:#?}");
    assert!(outcome.stderr.contains("there are g") && !outcome.stderr.contains('\u{1b}'), "{outcome:#?}");
    let none = stage.run(&["tree"]);
    assert_eq!((none.status.code(), none.stdout.as_str()), (Some(0), ""), "{none:#?}");
    assert!(none.stderr.contains("no process belongs to a group"), "{none:#?}");
    stage.agent.stop();
}

#[test]
fn orphans_are_listed_with_what_comes_next() {
    let stage = Stage::new(|config| config.observe().stop("signals = [\"INT\"]"));
    let none = stage.run(&["orphans"]);
    assert_eq!((none.status.code(), none.stdout.as_str()), (Some(0), ""), "{none:#?}");
    assert!(none.stderr.contains("no orphans"), "{none:#?}");
    assert!(stage.objects(&["orphans"]).is_empty());
    let (master, idle, busy) = family(&stage);
    master.kill();
    stage.agent.wait("idle", &idle);
    stage.agent.wait("busy", &busy);
    let orphans = stage.objects(&["orphans"]);
    let of = |who: &Proc| orphans.iter().find(|o| o["proc"]["pid"] == who.pid()).unwrap();
    assert_eq!(orphans.len(), 2, "{orphans:#?}");
    for (who, verdict) in [(&idle, "idle"), (&busy, "busy")] {
        let orphan = of(who);
        assert_eq!((&orphan["group"], &orphan["stray"]), (&"g".into(), &false.into()), "{orphan:#}");
        assert_eq!(orphan["evidence"]["verdict"], verdict, "{orphan:#}");
        assert_eq!(
            (&orphan["next"]["does"], &orphan["next"]["spared"]),
            (&"rehearse".into(), &"observe".into())
        );
        assert_eq!(orphan["next"]["signal"], "INT", "{orphan:#}");
        assert_eq!(orphan["lineage"], serde_json::json!([master.pid()]), "{orphan:#}");
        assert!(orphan["age_us"].as_u64().unwrap() > 0, "{orphan:#}");
    }
    let text = stage.shows(&["orphans"]);
    assert!(text.contains("next: nothing: its group only observes (else: INT"), "{text}");
    assert!(text.contains(" is running"), "{text}");
    stage.agent.stop();
}

#[test]
fn a_process_explained() {
    let stage = Stage::new(|config| config.observe().worker_matcher());
    let (master, idle, _) = family(&stage);
    let pid = idle.pid().to_string();
    let text = stage.shows(&["explain", &pid]);
    assert!(text.contains("worker of g, which only observes"), "{text}");
    assert!(
        text.contains(&format!("It is a worker of master {} (actor), which lives.", master.pid())),
        "{text}"
    );
    master.kill();
    stage.agent.wait("idle", &idle);
    let text = stage.shows(&["explain", &pid]);
    let lineage = format!("lineage   {} (actor, dead) < ", master.pid());
    let says = [
        "orphan of g, which only observes",
        &lineage,
        "seen ",
        " idle: ",
        "next ",
        "rule      mode = \"observe\"",
    ];
    for words in says {
        assert!(text.contains(words), "does not say {words:?}: {text}");
    }
    let known = stage.objects(&["explain", &pid]);
    assert_eq!(known.len(), 1, "{known:#?}");
    assert_eq!(
        (&known[0]["source"], &known[0]["look"]["evidence"]["verdict"]),
        (&"agent".into(), &"idle".into())
    );
    let tombstone = stage.shows(&["explain", &master.pid().to_string()]);
    assert!(
        tombstone.contains("It is dead, and remembered because 2 live processes descend from it."),
        "{tombstone}"
    );
    let init = stage.shows(&["explain", "1"]);
    assert!(init.contains("It belongs to no group") && init.contains("It is protected"), "{init}");
    for args in [["explain", "4194304"], ["explain", "4000000000"]] {
        let outcome = stage.run(&args);
        assert_eq!((outcome.status.code(), outcome.stdout.as_str()), (Some(1), ""), "{outcome:#?}");
        assert!(outcome.stderr.contains(&format!("there is no process {}", args[1])), "{outcome:#?}");
    }
    stage.agent.stop();
}

/// Names and arguments that would do something to a terminal, or are no text at all.
#[test]
fn hostile_names_are_shown_escaped() {
    let stage = Stage::new(Config::observe);
    let role = "other \u{1b}[2J\u{1b}]0;owned\u{7}\n\u{202e}gnp.\u{200b}\u{9b}31m";
    let hostile = [Op::Comm("\u{1b}[31m\n\u{202e}".into()), note("hostile"), Op::Forever];
    let hostile = fork([exec("worker \u{1b}[2J\u{202e}", hostile)]);
    let master = stage.scene.spawn("master", [hostile, Op::Forever]);
    let w = stage.scene.proc("hostile");
    stage.agent.knows_master(&master);
    let other = stage.scene.spawn(role, [note("other"), Op::Forever]);
    stage.scene.entry("other");
    let told = stage.shows(&["explain", &w.pid().to_string()]);
    let (mut text, pid) = (String::new(), format!("{} ", other.pid()));
    wait_until("it has exec'd", || {
        text = stage.shows(&["tree", "--all"]);
        let words = r"other \x1b[2J\x1b]0;owned\x07\n\u{202e}gnp.\u{200b}\u{9b}31m";
        text.lines().any(|l| l.contains(&pid) && l.contains(words))
    });
    // Its worker's own words, as soon as it is an orphan.
    master.kill();
    stage.agent.wait("orphaned", &w);
    let orphans = stage.shows(&["orphans"]);
    assert!(
        orphans.contains(&w.pid().to_string()) && orphans.contains(r"worker \x1b[2J\u{202e}"),
        "{orphans}"
    );
    for shown in [&text, &told, &orphans] {
        let bad = |c: char| c != '\n' && (c.is_control() || ['\u{202e}', '\u{200b}'].contains(&c));
        assert!(!shown.contains(bad), "{shown:?}");
    }
    stage.agent.stop();
}

/// Nobody who is connected to the socket keeps the agent from its work, or others from theirs.
#[test]
fn a_client_that_does_nothing_holds_nobody_up() {
    let stage = Stage::new(|config| config);
    let silent: Vec<_> = (0..4).map(|_| UnixStream::connect(&stage.config.socket).unwrap()).collect();
    let mut deaf = UnixStream::connect(&stage.config.socket).unwrap();
    deaf.write_all(b"{\"ask\":\"tree\",\"all\":true}\n").unwrap();
    deaf.set_read_timeout(Some(PATIENCE)).unwrap();
    deaf.read_exact(&mut [0; 1]).unwrap();
    let master = stage.scene.spawn("master", [worker("w"), Op::Forever]);
    let w = stage.scene.proc("w");
    stage.agent.knows_master(&master);
    assert!(!stage.shows(&["tree"]).is_empty());
    master.kill();
    stage.agent.wait_reaped(&w);
    drop((silent, deaf));
    stage.agent.stop();
}

/// A reader that goes away is no error, whatever was still to be said.
#[test]
fn a_broken_pipe_ends_quietly() {
    let stage = Stage::new(Config::observe);
    family(&stage);
    for args in [&["tree", "--all"][..], &["tree", "--all", "--output", "json"], &["explain", "1"]] {
        let mut command = stage.command(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let outcome = child.wait_with_output().unwrap();
        assert_eq!((outcome.status.code(), outcome.stderr), (Some(0), vec![]), "{args:?}");
    }
    stage.agent.stop();
}

#[test]
fn who_may_not_ask_is_told_so() {
    let stage = Stage::new(|config| config);
    for args in [&["tree"][..], &["orphans"], &["explain", "1"]] {
        let mut command = stage.command(args);
        std::os::unix::process::CommandExt::uid(&mut command, 65_534);
        let outcome = run_to_end(&stage.scene, &mut command, LONG);
        assert_eq!((outcome.status.code(), outcome.stdout.as_str()), (Some(2), ""), "{outcome:#?}");
        assert!(
            outcome.stderr.contains("permission denied") && outcome.stderr.contains("root"),
            "{outcome:#?}"
        );
    }
    stage.agent.stop();
}
