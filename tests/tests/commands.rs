//! Every command as people and scripts meet it: the binary on pipes and on terminals, both ways of printing, with and without
//! colours, on a narrow terminal, with a reader that goes away, without an agent, and about processes with hostile names.
//!
//! The rows are commands, the columns conditions. One agent serves all rows that need one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a broken assumption is a failure")]

use std::fs::{self, File};
use std::io::Read as _;
use std::path::PathBuf;
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

use reaper::kernel::Pins;
use reaper::output::width_of;
use reaper_tests::agent::{Agent, Outcome, binary, run_command, run_to_end};
use reaper_tests::config::Config;
use reaper_tests::process::{PATIENCE, Proc, Signal, comes_true, with_token};
use reaper_tests::scene::Scene;
use reaper_tests::script::{Op, exec, fork, note};
use reaper_tests::terminal::{Session, Shown, on_terminal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;

/// How long a command may take on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// What would clear a screen, name a window, begin a line, turn text around, hide it, and colour it without an escape.
const HOSTILE: &str = "h\u{1b}[2J\u{1b}]0;owned\u{7}\n\u{202e}gnp.\u{200b}\u{9b}31m";
/// The same as a person sees it.
const SHOWN: &str = r"h\x1b[2J\x1b]0;owned\x07\n\u{202e}gnp.\u{200b}\u{9b}31m";
/// A thread's name has 15 bytes.
const HOSTILE_COMM: &str = "\u{1b}[31m\n\u{202e}";
const COMM_SHOWN: &str = r"\x1b[31m\n\u{202e}";

/// What one command does with its surroundings.
#[derive(Clone)]
struct Row {
    /// What is typed after `reaper`.
    args: Vec<String>,
    /// Whether what it prints is about the hostile processes.
    names: Names,
    /// Whether it uses colours.
    colours: bool,
    /// Whether it cuts or wraps its lines to the terminal.
    fits: bool,
    /// The exit status of a run that says all there is.
    code: i32,
}

/// Where text of processes appears.
#[derive(Clone, Copy, PartialEq)]
enum Names {
    /// Nowhere.
    None,
    /// Arguments.
    Args,
    /// Names of threads.
    Comm,
}

impl Row {
    fn new(args: &[&str]) -> Self {
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        Self { args, names: Names::None, colours: false, fits: false, code: 0 }
    }

    fn about(mut self, names: Names) -> Self {
        self.names = names;
        self
    }

    fn coloured(mut self) -> Self {
        self.colours = true;
        self
    }

    fn ending(mut self, code: i32) -> Self {
        self.code = code;
        self
    }

    fn fitted(mut self) -> Self {
        self.fits = true;
        self
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(&self.args).args(more);
        as_a_person(&mut command);
        command
    }
}

/// Without what the surroundings of this test say of colours: those of continuous integration ask for them.
fn as_a_person(command: &mut Command) {
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI", "RUST_LOG"] {
        command.env_remove(name);
    }
}

/// A scene, its agent, which only looks on, and a log of it that stays as it is.
struct Stage {
    scene: Scene,
    agent: Agent,
    config: Config,
    family: Family,
    families: usize,
    log: PathBuf,
}

/// A master and its worker, both with hostile names, and an orphan of another master that was like it.
struct Family {
    master: Proc,
    kept: Proc,
    orphan: Proc,
}

impl Family {
    fn lose_a_master(scene: &Scene, agent: &Agent, number: usize) -> Self {
        let master = format!("{HOSTILE} master");
        let [orphan, kept] = ["orphan", "kept"].map(|name| format!("{name}{number}"));
        let begins = |name: &str| vec![Op::Comm(HOSTILE_COMM.into()), note(name), Op::Forever];
        let family = |name: &str| {
            let worker = fork([exec(&format!("{HOSTILE} worker"), begins(name))]);
            scene.spawn(&master, [Op::Comm(HOSTILE_COMM.into()), worker, Op::Forever])
        };
        let (old, master) = (family(&orphan), family(&kept));
        let (orphan, kept) = (scene.proc(&orphan), scene.proc(&kept));
        agent.knows_master(&old);
        agent.knows_master(&master);
        old.kill();
        agent.wait("orphaned", &orphan);
        agent.wait_for("a rehearsed signal", |r| r.is("signal", &orphan));
        Self { master, kept, orphan }
    }
}

impl Stage {
    fn new() -> Self {
        let scene = Scene::new();
        let config = Config::new(&scene).observe().agent("log_level = \"all\"");
        let agent = Agent::start(&scene, &config);
        let family = Family::lose_a_master(&scene, &agent, 0);
        // Whole lines: somebody writes while this reads.
        let text = fs::read_to_string(&config.log).unwrap();
        let log = scene.path("kept.jsonl");
        fs::write(&log, &text[..=text.rfind('\n').unwrap()]).unwrap();
        Self { scene, agent, config, family, families: 1, log }
    }

    /// The same with others: no process of a scene lives for so long that a slow machine gets through every row.
    fn again(&mut self) {
        let Family { master, kept, orphan } = &self.family;
        for proc in [kept, master, orphan] {
            proc.kill();
        }
        self.family = Family::lose_a_master(&self.scene, &self.agent, self.families);
        self.families += 1;
    }

    fn text(path: &std::path::Path) -> &str {
        path.to_str().unwrap()
    }

    /// Every command that asks the agent and comes to its end.
    fn asking(&self) -> Vec<Row> {
        let socket = ["--socket", Self::text(&self.config.socket)];
        let pid = self.family.orphan.pid().to_string();
        let asks = |args: &[&str]| Row::new(&[args, &socket].concat()).about(Names::Args).coloured().fitted();
        vec![asks(&["tree"]), asks(&["tree", "--all"]), asks(&["orphans"]), asks(&["explain", &pid])]
    }

    /// Every other command that comes to its end, but for `demo`.
    fn others(&self) -> Vec<Row> {
        let (config, bad) = (self.scene.path("agent.toml"), self.scene.path("bad.toml"));
        let wrong = r#"[[group]]
            name = "h\u001b[2J\u202e"
            "h\u001b[2J\u202e" = 1
        "#;
        fs::write(&bad, wrong).unwrap();
        let [config, bad, log] = [&config, &bad, &self.log].map(|path| Self::text(path));
        let socket = Self::text(&self.config.socket);
        vec![
            Row::new(&["tail", log]).about(Names::Comm).coloured(),
            Row::new(&["replay", log, "--config", config]).about(Names::Comm).coloured(),
            Row::new(&["check", config]),
            Row::new(&["check", bad]).ending(1),
            Row::new(&["doctor", "--socket", socket]),
            Row::new(&["profiles"]),
            Row::new(&["profiles", "puma"]),
            Row::new(&["completions", "bash"]),
            Row::new(&["man"]),
        ]
    }

    /// Runs it on pipes.
    #[track_caller]
    fn piped(&self, row: &Row, more: &[&str]) -> Outcome {
        let outcome = run_to_end(&self.scene, &mut row.command(more), LONG);
        assert_eq!(outcome.status.code(), Some(row.code), "{:?}: {outcome:#?}", row.args);
        assert!(!outcome.stderr.contains("panicked"), "{outcome:#?}");
        outcome
    }

    #[track_caller]
    fn terminal(&self, row: &Row, columns: u16, environment: &[(&str, &str)]) -> Shown {
        let mut command = row.command(&[]);
        command.envs(environment.iter().copied());
        let shown = on_terminal(&self.scene, command, columns);
        assert_eq!(shown.status.code(), Some(row.code), "{:?}: {shown:#?}", row.args);
        shown
    }
}

/// What was printed would do something to a terminal. Colours are no harm, if they are meant.
fn is_bad(text: &str) -> bool {
    text.chars().any(|c| c != '\n' && (c.is_control() || ['\u{202e}', '\u{200b}'].contains(&c)))
}

/// Without the colours that a command may use: `ESC [ digits ; … m`.
fn uncoloured(text: &str) -> String {
    regex::Regex::new("\x1b\\[[0-9;]*m").unwrap().replace_all(text, "").into_owned()
}

fn json_lines(row: &Row, text: &str) -> Vec<Value> {
    assert!(!text.contains('\u{1b}'), "{:?}: {text}", row.args);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{:?}: {e}: {line}", row.args)))
        .collect()
}

/// Any text in it, however deep.
fn says(value: &Value, fits: &dyn Fn(&str) -> bool) -> bool {
    match value {
        Value::String(text) => fits(text),
        Value::Array(all) => all.iter().any(|v| says(v, fits)),
        Value::Object(all) => all.values().any(|v| says(v, fits)),
        _ => false,
    }
}

/// Starts it with a reader that has gone, and waits for its end.
#[track_caller]
fn unread(scene: &Scene, mut command: Command) -> (Option<i32>, String) {
    let stderr = scene.path("unread.stderr");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(&stderr).unwrap())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let held = Proc::of_child(&child).unwrap();
    let ended = held.wait_gone(LONG);
    held.signal(Signal::KILL);
    let status = child.wait().unwrap();
    let said = fs::read_to_string(stderr).unwrap();
    assert!(ended, "does not end: {said}");
    (status.code(), said)
}

#[test]
fn every_command_under_every_condition() {
    let mut stage = Stage::new();
    for n in 0..stage.asking().len() {
        stage.again();
        under_every_condition(&stage, &stage.asking()[n]);
    }
    for row in stage.others() {
        under_every_condition(&stage, &row);
    }
    the_report(&stage);
    stage.again();
    top_draws(&stage);
    stage.again();
    top_as_json(&stage);
    tail_follows(&stage);
    stage.agent.stop();
}

fn under_every_condition(stage: &Stage, row: &Row) {
    on_pipes(stage, row);
    as_json(stage, row);
    on_terminals(stage, row);
    with_a_reader_that_goes_away(stage, row);
}

/// Text on a pipe has no colours, whole lines, and nothing that a terminal would obey.
fn on_pipes(stage: &Stage, row: &Row) {
    let outcome = stage.piped(row, &[]);
    let text = &outcome.stdout;
    assert!(!text.is_empty() && !is_bad(text), "{:?}: {text:?}", row.args);
    assert!(!is_bad(&outcome.stderr), "{:?}: {:?}", row.args, outcome.stderr);
    let shown = match row.names {
        Names::None => return,
        Names::Args => SHOWN,
        Names::Comm => COMM_SHOWN,
    };
    assert!(text.contains(shown), "{:?} does not show the name: {text}", row.args);
}

/// One object per line, which has the names as they are.
fn as_json(stage: &Stage, row: &Row) {
    let rows = json_lines(row, &stage.piped(row, &["--output", "json"]).stdout);
    assert!(!rows.is_empty(), "{:?}", row.args);
    assert!(rows.iter().all(Value::is_object), "{:?}: {rows:#?}", row.args);
    if row.names != Names::None {
        for name in [HOSTILE, HOSTILE_COMM] {
            let told = rows.iter().any(|r| says(r, &|text| text.starts_with(name)));
            assert!(told, "{:?} does not tell {name:?}: {rows:#?}", row.args);
        }
    }
}

/// In colour, unless it is not wanted; never wider than the terminal if it knows how; the same text everywhere.
fn on_terminals(stage: &Stage, row: &Row) {
    let (args, piped) = (&row.args, stage.piped(row, &[]).stdout);
    let wide = stage.terminal(row, 1_000, &[]).written;
    assert_eq!(wide.contains('\u{1b}'), row.colours, "{args:?}: {wide:?}");
    assert!(!is_bad(&uncoloured(&wide)), "{args:?}: {wide:?}");
    for environment in [&[("NO_COLOR", "1")][..], &[("TERM", "dumb")], &[("TERM", "dumb"), ("CI", "true")]] {
        let plain = stage.terminal(row, 1_000, environment).written;
        assert!(!is_bad(&plain), "{args:?} with {environment:?}: {plain:?}");
    }
    for columns in [20, 41] {
        let narrow = stage.terminal(row, columns, &[("NO_COLOR", "1")]).written;
        assert!(!is_bad(&narrow), "{args:?}: {narrow:?}");
        let widest = narrow.lines().map(width_of).max().unwrap();
        if row.fits {
            assert!((11..=columns.into()).contains(&widest), "{args:?}: {widest} of {columns}: {narrow}");
        } else if !row.args.contains(&"doctor".to_owned()) {
            // What is meant to be read line by line is never cut.
            assert_eq!(narrow, piped, "{args:?}");
        }
    }
}

/// It ends with 0 and without a word.
fn with_a_reader_that_goes_away(stage: &Stage, row: &Row) {
    for format in ["human", "json"] {
        let (code, said) = unread(&stage.scene, row.command(&["--output", format]));
        assert_eq!(code, Some(0), "{:?} {format}: {said}", row.args);
        // What it has to say of its input it says in any case.
        let notes = said.lines().all(|line| line.starts_with("reaper: note: "));
        assert!(notes, "{:?} {format}: {said}", row.args);
    }
}

/// One page, for a browser: what the names say is escaped for a terminal and for HTML.
fn the_report(stage: &Stage) {
    let log = Stage::text(&stage.log);
    let page = Row::new(&["report", log, "-o", "-"]).about(Names::Comm);
    on_pipes(stage, &page);
    with_a_reader_that_goes_away(stage, &page);
    let shown = stage.terminal(&page, 20, &[]);
    assert!(!is_bad(&shown.written) && shown.written.ends_with("</html>\n"), "{}", shown.written);
}

fn top(stage: &Stage) -> Row {
    Row::new(&["top", "--socket", Stage::text(&stage.config.socket)])
}

/// A frame on a terminal of each kind, and then the key that ends it.
fn top_draws(stage: &Stage) {
    let pid = stage.family.orphan.pid().to_string();
    for (columns, no_color) in [(140, false), (140, true), (30, false), (30, true)] {
        let mut command = top(stage).command(&[]);
        if no_color {
            command.env("NO_COLOR", "1");
        }
        let mut session = Session::start(&stage.scene, command, columns);
        session.settles("the orphan", |screen| screen.contents().contains(&pid));
        let screen = session.screen();
        let cells = (0..24).flat_map(|row| (0..columns).filter_map(move |column| screen.cell(row, column)));
        let coloured = cells.filter(|cell| cell.fgcolor() != vt100::Color::Default).count();
        assert_eq!(coloured == 0, no_color, "{}", screen.contents());
        let text = screen.contents();
        assert!(!is_bad(&text), "{text:?}");
        assert!(columns < 140 || text.contains(r"h\x1b[2J\x1b]0;owned"), "{text}");
        assert!(screen.alternate_screen());
        session.type_keys("q");
        let shown = session.end();
        assert_eq!((shown.status.code(), shown.stderr.as_str()), (Some(0), ""), "{shown:#?}");
        assert!(shown.written.contains("\u{1b}[?1049l"), "the screen is given back: {shown:#?}");
    }
}

/// A line for each refresh, until it is told to end or nobody reads.
fn top_as_json(stage: &Stage) {
    let top = top(stage);
    let more = ["--output", "json", "--interval", "100ms"];
    let rows = json_lines(&top, &stage.piped(&top, &[&more[..], &["-n", "2"]].concat()).stdout);
    assert_eq!(rows.len(), 2, "{rows:#?}");
    assert!(says(&rows[1], &|text| text.starts_with(HOSTILE)), "{rows:#?}");
    assert_eq!(unread(&stage.scene, top.command(&more)), (Some(0), String::new()));
    leaves_with_its_reader(stage, top.command(&more), |line| line.contains("orphan_list"));
}

/// What goes on for ever shows what comes, and ends when nobody reads any more.
fn tail_follows(stage: &Stage) {
    for format in ["human", "json"] {
        let log = Stage::text(&stage.config.log);
        let row = Row::new(&["tail", "-f", "--kind", "master_found", log, "--output", format]);
        let mut next = None;
        leaves_with_its_reader(stage, row.command(&[]), |line| {
            // What was before comes first; then what comes as it is written.
            let next = next.get_or_insert_with(|| stage.scene.spawn("master", [Op::Forever]));
            line.contains("master_found") && line.contains(&next.pid().to_string())
        });
        assert_eq!(unread(&stage.scene, row.command(&[])), (Some(0), String::new()));
    }
}

/// Reads until a line fits, and goes.
#[track_caller]
fn leaves_with_its_reader(stage: &Stage, mut command: Command, mut fits: impl FnMut(&str) -> bool) {
    let stderr = stage.scene.path("leaves.stderr");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(&stderr).unwrap())
        .spawn()
        .unwrap();
    let held = Proc::of_child(&child).unwrap();
    let mut lines = Lines::of(child.stdout.take().unwrap());
    let found = comes_true(LONG, || lines.next().is_some_and(|line| fits(&line)));
    drop(lines);
    let ended = held.wait_gone(LONG);
    held.signal(Signal::KILL);
    let status = child.wait().unwrap();
    let said = fs::read_to_string(stderr).unwrap();
    assert!(found && ended, "found: {found}, ended: {ended}: {said}");
    assert_eq!((status.code(), said.as_str()), (Some(0), ""));
}

/// What comes from a pipe, line by line. Dropping it closes this end at once: nobody else has it.
struct Lines {
    pipe: ChildStdout,
    buffer: Vec<u8>,
}

impl Lines {
    fn of(pipe: ChildStdout) -> Self {
        Self { pipe, buffer: Vec::new() }
    }

    /// The next line, if one comes within a moment.
    fn next(&mut self) -> Option<String> {
        let moment = Timespec::try_from(Duration::from_millis(50)).unwrap();
        if !self.buffer.contains(&b'\n')
            && poll(&mut [PollFd::new(&self.pipe, PollFlags::IN)], Some(&moment)).unwrap() > 0
        {
            let mut chunk = [0; 1 << 16];
            let n = self.pipe.read(&mut chunk).unwrap();
            self.buffer.extend_from_slice(&chunk[..n]);
        }
        let end = self.buffer.iter().position(|&b| b == b'\n')?;
        let line: Vec<u8> = self.buffer.drain(..=end).collect();
        Some(String::from_utf8(line).unwrap())
    }
}

/// An agent that logs to a pipe has the names as they are, in JSON, and ends with whoever reads it.
#[test]
fn an_agent_ends_with_the_reader_of_its_log() {
    let scene = Scene::new();
    let config = Config::new(&scene).observe();
    let stderr = scene.path("run.stderr");
    let mut command = run_command(&scene, &config, &["--log", "-"]);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(&stderr).unwrap())
        .spawn()
        .unwrap();
    let held = Proc::of_child(&child).unwrap();
    let mut lines = Lines::of(child.stdout.take().unwrap());
    let mut wait_for = |words: &str| {
        let mut found = None;
        comes_true(LONG, || {
            found = lines.next().filter(|line| line.contains(words));
            found.is_some() || !held.is_alive()
        });
        let said = fs::read_to_string(&stderr).unwrap();
        found.unwrap_or_else(|| panic!("no {words}: {said}"))
    };
    wait_for(r#""kind":"snapshot""#);
    let master = format!("{HOSTILE} master");
    scene.spawn(&master, [Op::Comm(HOSTILE_COMM.into()), note("up"), Op::Forever]);
    let line = wait_for(r#""kind":"master_found""#);
    assert!(!is_bad(&line.trim_end().replace(['\u{202e}', '\u{200b}', '\u{9b}'], "")), "{line:?}");
    let record: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(record["proc"]["argv"][1], master.as_str());
    scene.entry("up");
    assert!(held.is_alive());
    drop(lines);
    let ended = held.wait_gone(PATIENCE);
    held.signal(Signal::KILL);
    let status = child.wait().unwrap();
    Pins::of(&config.state).and_then(|pins| pins.remove()).unwrap();
    let said = fs::read_to_string(&stderr).unwrap();
    assert!(ended, "it stays: {said}");
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(!said.contains("cannot be written") && !is_bad(&said), "{said}");
}

/// What an agent says of itself on a terminal.
#[test]
fn an_agent_on_a_terminal() {
    let scene = Scene::new();
    let config = Config::new(&scene).observe();
    for (columns, no_color) in [(200, false), (30, true)] {
        let mut command = run_command(&scene, &config, &[]);
        as_a_person(&mut command);
        if no_color {
            command.env("NO_COLOR", "1");
        }
        let session = Session::start_with_stderr(command, columns);
        let ready = comes_true(LONG, || {
            let log = fs::read_to_string(&config.log).unwrap_or_default();
            log.contains(r#""kind":"snapshot""#) || !session.process().is_alive()
        });
        session.process().signal(Signal::TERM);
        let shown = session.end();
        Pins::of(&config.state).and_then(|pins| pins.remove()).unwrap();
        fs::remove_file(&config.log).unwrap();
        assert!(ready && shown.status.code() == Some(0), "{shown:#?}");
        assert!(shown.written.contains("INFO"), "{shown:#?}");
        assert_eq!(shown.written.contains('\u{1b}'), !no_color, "{shown:#?}");
        assert!(!is_bad(&uncoloured(&shown.written)), "{shown:#?}");
    }
}

/// On a terminal the demo tells in words what it shows elsewhere as records.
#[test]
fn the_demo_on_a_terminal() {
    let scene = Scene::new();
    let demo = Row::new(&["demo"]);
    for (columns, no_color) in [(1_000, false), (30, true)] {
        let mut command = demo.command(&[]);
        if no_color {
            command.env("NO_COLOR", "1");
        }
        let shown = on_terminal(&scene, command, columns);
        assert_eq!(shown.status.code(), Some(0), "{shown:#?}");
        assert_eq!(shown.written.contains('\u{1b}'), !no_color, "{shown:#?}");
        let text = uncoloured(&shown.written);
        assert!(!is_bad(&text), "{text:?}");
        for words in ["-- killing master-a", " reaped ", "-- ok      nothing else was touched"] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(!text.contains("{\"v\":"), "{text}");
    }
}

#[test]
fn the_demo_of_whom_nobody_reads() {
    let scene = Scene::new();
    for format in ["human", "json"] {
        let mut command = Row::new(&["demo", "--output", format]).command(&[]);
        command.env("REAPER_TESTS_DEMO", scene.token());
        let (code, said) = unread(&scene, command);
        assert_eq!(code, Some(0), "{format}: {said}");
        assert!(!said.contains("FAILED") && !said.contains("pipe"), "{format}: {said}");
        assert!(comes_true(LONG, || with_token(scene.token()).is_empty()), "somebody of it is left");
    }
}

/// What is not there is an error of one line, in words, on stderr; so is what has nothing to tell where that is no answer. The
/// name of the file does nothing to a terminal.
#[test]
fn a_file_that_is_missing_or_empty() {
    let scene = Scene::new();
    let (missing, empty) = (scene.path("\u{1b}[2J\u{202e}missing"), scene.path("\u{1b}[2J\u{202e}empty"));
    fs::write(&empty, "").unwrap();
    let (config, page) = (scene.path("reaper.toml"), scene.path("page.html"));
    fs::write(&config, Config::new(&scene).text()).unwrap();
    let [missing, empty, config, page_] = [&missing, &empty, &config, &page].map(|path| Stage::text(path));
    for (args, code, words) in [
        (&["tail", missing][..], 2, "No such file"),
        (&["replay", missing, "--config", config], 2, "No such file"),
        (&["replay", empty, "--config", missing], 2, "No such file"),
        (&["report", missing, "-o", page_], 2, "No such file"),
        (&["check", missing], 2, "No such file"),
        (&["run", "--config", missing, "--log", "-"], 2, "No such file"),
        (&["tail", empty], 0, ""),
        (&["replay", empty, "--config", config], 2, "no records"),
        (&["report", empty, "-o", page_], 2, "no records"),
        (&["check", empty], 0, ""),
    ] {
        for format in ["human", "json"] {
            let row = Row::new(&[args, &["--output", format]].concat());
            let outcome = run_to_end(&scene, &mut row.command(&[]), LONG);
            assert_eq!(outcome.status.code(), Some(code), "{args:?}: {outcome:#?}");
            assert!(outcome.stderr.contains(words) && !is_bad(&outcome.stderr), "{args:?}: {outcome:#?}");
            assert_eq!(outcome.stderr.lines().count(), usize::from(code == 2), "{args:?}: {outcome:#?}");
            if format == "json" {
                json_lines(&row, &outcome.stdout);
            } else {
                assert!(!is_bad(&outcome.stdout), "{args:?}: {outcome:#?}");
            }
        }
    }
    assert!(!page.exists(), "no page about nothing");
}

/// A configuration that was broken while its agent runs still says where that one is.
#[test]
fn a_configuration_that_was_broken_since() {
    let scene = Scene::new();
    let config = Config::new(&scene).observe();
    let agent = Agent::start(&scene, &config);
    let master = scene.spawn("master", [note("up"), Op::Forever]);
    agent.knows_master(&master);
    let broken = scene.path("broken.toml");
    fs::write(&broken, config.text() + "[[group]]\nname = 1\n").unwrap();
    let pid = master.pid().to_string();
    for args in [&["tree"][..], &["orphans"], &["explain", &pid], &["tail"], &["top", "-n", "1"]] {
        let row = Row::new(&[args, &["--output", "json", "--config", Stage::text(&broken)]].concat());
        let outcome = run_to_end(&scene, &mut row.command(&[]), LONG);
        assert_eq!(outcome.status.code(), Some(0), "{args:?}: {outcome:#?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{args:?}: {outcome:#?}");
        assert!(outcome.stderr.contains("broken.toml:"), "{args:?}: {outcome:#?}");
        json_lines(&row, &outcome.stdout);
    }
    agent.stop();
}

/// Where no agent runs, some commands look themselves, and some say so. A terminal is not taken for that.
#[test]
fn where_no_agent_runs() {
    let scene = Scene::new();
    let socket = scene.path("\u{1b}[2Jnobody.sock");
    let hostile =
        scene.spawn(&format!("{HOSTILE} other"), [Op::Comm(HOSTILE_COMM.into()), note("up"), Op::Forever]);
    scene.entry("up");
    let pid = hostile.pid().to_string();
    for (args, code, words) in [
        (&["tree", "--all"][..], Some(0), "no agent answers on"),
        (&["explain", &pid], Some(0), "no agent answers on"),
        (&["orphans"], Some(2), "no agent answers on"),
        (&["doctor"], None, ""),
    ] {
        for format in ["human", "json"] {
            let row = Row::new(&[args, &["--socket", Stage::text(&socket), "--output", format]].concat());
            let outcome = run_to_end(&scene, &mut row.command(&[]), LONG);
            assert!(code.is_none_or(|code| outcome.status.code() == Some(code)), "{args:?}: {outcome:#?}");
            // A row says itself where it is from.
            let words = if (args[0], format) == ("tree", "json") { "" } else { words };
            assert!(outcome.stderr.contains(words) && !is_bad(&outcome.stderr), "{args:?}: {outcome:#?}");
            if format == "json" {
                let rows = json_lines(&row, &outcome.stdout);
                assert!(
                    code != Some(0) || rows.iter().any(|r| says(r, &|t| t.starts_with(HOSTILE))),
                    "{rows:#?}"
                );
                assert!(
                    args[0] != "doctor" || rows.iter().any(|r| says(r, &|t| t.contains("no agent"))),
                    "{rows:#?}"
                );
            } else {
                assert!(!is_bad(&outcome.stdout), "{args:?}: {outcome:#?}");
                assert!(code != Some(0) || outcome.stdout.contains(SHOWN), "{args:?}: {outcome:#?}");
                assert!(args[0] != "doctor" || outcome.stdout.contains("no agent"), "{outcome:#?}");
            }
        }
    }
    let top = Row::new(&["top", "--socket", Stage::text(&socket)]);
    let shown = on_terminal(&scene, top.command(&[]), 80);
    assert_eq!((shown.status.code(), shown.written.as_str()), (Some(2), ""), "{shown:#?}");
    assert!(shown.stderr.contains("no agent answers on") && !is_bad(&shown.stderr), "{shown:#?}");
}
