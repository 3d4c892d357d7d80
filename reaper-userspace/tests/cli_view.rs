//! The commands that show processes, where no agent runs: the binary from outside, on pipes and on a terminal.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::cargo::cargo_bin;
use nix::pty::{Winsize, openpty};
use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with a configuration whose group matches the stage's own processes only.
struct Stage {
    dir: TempDir,
    token: String,
}

/// What a command has said.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let token = format!("token-{}-{}", std::process::id(), dir.path().file_name().unwrap().display());
        let token = token.replace('.', "");
        let config = format!(
            "[agent]\nsocket = \"{0}/reaper.sock\"\nlog = \"{0}/log\"\nstate = \"{0}\"\n\
             [[group]]\nname = \"own\"\nmaster.cmdline = 'master {token}$'\n",
            dir.path().display()
        );
        fs::write(dir.path().join("reaper.toml"), config).unwrap();
        Self { dir, token }
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("reaper.toml")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(cargo_bin("reaper"));
        command
            .args(args)
            .env("NO_COLOR", "1")
            .env_remove("COLUMNS")
            .env_remove("RUST_LOG")
            .stdin(Stdio::null());
        command
    }

    /// `reaper ARGS --config …`
    fn asking(&self, args: &[&str]) -> Command {
        let mut command = self.command(args);
        command.arg("--config").arg(self.config());
        command
    }

    /// A master with a worker below it, until it is dropped.
    fn family(&self) -> Family {
        // What it reads from ends with the test, so both end with it.
        let child = Command::new("sh")
            .args(["-c", "(read line); true", "master", &self.token])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let family = Family(child);
        let children = format!("/proc/{0}/task/{0}/children", family.0.id());
        let begin = Instant::now();
        while fs::read_to_string(&children).unwrap().trim().is_empty() {
            assert!(begin.elapsed() < PATIENCE, "the master has no worker");
            std::thread::yield_now();
        }
        family
    }
}

struct Family(Child);

impl Drop for Family {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        ended(&mut self.0);
    }
}

/// Waits for a child's end. It is killed when that does not come in time.
fn ended(child: &mut Child) -> Option<ExitStatus> {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(3));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    None
}

/// Runs it to its end, with what it prints in files: no pipe that fills up holds it.
fn output(mut command: Command) -> Output {
    let [mut stdout, mut stderr] = [(); 2].map(|()| tempfile::tempfile().unwrap());
    command.stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
    let status = ended(&mut command.spawn().unwrap());
    let read = |file: &mut File| {
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    };
    let (stdout, stderr) = (read(&mut stdout), read(&mut stderr));
    let status = status.unwrap_or_else(|| panic!("no end: {}", String::from_utf8_lossy(&stderr)));
    Output { status, stdout, stderr }
}

fn said(command: Command) -> Said {
    let output = output(command);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let said = Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) };
    assert!(!said.stderr.contains("panicked"), "{said:#?}");
    assert!(!(said.stdout.clone() + &said.stderr).contains('\x1b'), "into a file: {said:#?}");
    said
}

fn objects(command: Command) -> Vec<Value> {
    let said = said(command);
    assert_eq!(said.code, Some(0), "{said:#?}");
    said.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_tree_from_proc_says_so_and_knows_the_groups() {
    let stage = Stage::new();
    let family = stage.family();
    let rows = objects(stage.asking(&["tree", "--output", "json"]));
    assert!(rows.iter().all(|r| r["source"] == "proc"), "{rows:#?}");
    let master = rows.iter().find(|r| r["pid"] == family.0.id()).unwrap();
    assert_eq!(master["roles"], serde_json::json!([{ "group": "own", "role": "master" }]));
    let worker = rows.iter().find(|r| r["ppid"] == family.0.id()).unwrap();
    assert_eq!(worker["roles"], serde_json::json!([{ "group": "own", "role": "worker" }]));
    assert!(rows.iter().any(|r| r["pid"] == std::process::id()), "whoever is above is there");

    let said = said(stage.asking(&["tree", "--group", "own"]));
    assert_eq!(said.code, Some(0), "{said:#?}");
    assert!(said.stderr.starts_with("-- from /proc, not from an agent: no agent answers on "), "{said:#?}");
    let line = format!("{} [master of own] sh -c (read line); true master {}", family.0.id(), stage.token);
    assert!(said.stdout.lines().any(|l| l.ends_with(&line)), "{said:#?}");
}

/// Arguments that would do something to a terminal, or are no text at all: escapes, new lines, bytes, reordering, nothing, and
/// twice as wide.
#[test]
fn hostile_arguments_are_shown_escaped() {
    let stage = Stage::new();
    let hostile: [&[u8]; 5] = [
        b"\x1b[2J\x1b]0;owned\x07",
        b"two\nlines\r",
        b"\xff\xfe",
        "\u{202e}gnp.\u{200b}".as_bytes(),
        "作業".as_bytes(),
    ];
    let mut child = Command::new("sh")
        .args(["-c", "read line; true", &format!("master {}", stage.token)])
        .args(hostile.map(OsStr::from_bytes))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let tree = said(stage.asking(&["tree", "--all"]));
    let explained = said(stage.asking(&["explain", &pid.to_string()]));
    let rows = objects(stage.asking(&["tree", "--all", "--output", "json"]));
    let narrow = on_terminal(stage.asking(&["tree", "--all"]), 30, false);
    drop(child.stdin.take());
    ended(&mut child).unwrap();

    let shown = r"\x1b[2J\x1b]0;owned\x07 two\nlines\r \u{fffd}\u{fffd} \u{202e}gnp.\u{200b} 作業";
    let shown = shown.replace(r"\u{fffd}", "\u{fffd}");
    assert!(tree.stdout.lines().any(|l| l.contains(&format!("{pid} ")) && l.ends_with(&shown)), "{tree:#?}");
    assert!(explained.stdout.contains(&shown), "{explained:#?}");
    for text in [&tree.stdout, &explained.stdout, &narrow] {
        let bad = |c: char| c != '\n' && (c.is_control() || ['\u{202e}', '\u{200b}'].contains(&c));
        assert!(!text.contains(bad), "{text:?}");
    }
    let row = rows.iter().find(|r| r["pid"] == pid).unwrap();
    assert_eq!(row["argv"][5], "two\nlines\r", "JSON has the text as it is: {row:#}");
}

#[test]
fn every_process_of_the_host() {
    let stage = Stage::new();
    let rows = objects(stage.asking(&["tree", "--all", "--output", "json"]));
    let own = rows.iter().find(|r| r["pid"] == std::process::id()).unwrap();
    assert_eq!(own["ppid"], std::os::unix::process::parent_id());
    assert_eq!(own["roles"], serde_json::json!([]));
    let both = said(stage.asking(&["tree", "--all", "--group", "own"]));
    assert_eq!(both.code, Some(2), "{both:#?}");
}

#[test]
fn a_group_that_is_not_there() {
    let stage = Stage::new();
    for format in ["human", "json"] {
        let said = said(stage.asking(&["tree", "--group", "owm\u{1b}[m", "--output", format]));
        assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""), "{said:#?}");
        assert!(said.stderr.ends_with("there is no group \"owm\\u{1b}[m\"; there are own\n"), "{said:#?}");
    }
    let said = said(stage.asking(&["tree"]));
    assert_eq!((said.code, said.stdout.as_str()), (Some(0), ""), "{said:#?}");
    assert!(
        said.stderr.ends_with("-- no process belongs to a group; --all shows every process\n"),
        "{said:#?}"
    );
}

#[test]
fn orphans_and_top_need_an_agent() {
    let stage = Stage::new();
    for format in ["human", "json"] {
        for command in ["orphans", "top"] {
            let said = said(stage.asking(&[command, "--output", format]));
            assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""), "{said:#?}");
            if command == "orphans" || format == "json" {
                let words = ["no agent answers on ", "reaper.sock", "reaper run", "--socket"];
                assert!(words.iter().all(|w| said.stderr.contains(w)), "{said:#?}");
            } else {
                assert!(said.stderr.contains("top needs a terminal"), "{said:#?}");
            }
            assert_eq!(said.stderr.lines().count(), 1, "{said:#?}");
        }
    }
}

#[test]
fn a_process_explained_from_proc() {
    let stage = Stage::new();
    let family = stage.family();
    let pid = family.0.id().to_string();
    let text = said(stage.asking(&["explain", &pid]));
    assert_eq!(text.code, Some(0), "{text:#?}");
    assert!(text.stderr.starts_with("-- from /proc, not from an agent: "), "{text:#?}");
    for words in ["No agent is running: nothing happens to it.", "master of own, which only observes"] {
        assert!(text.stdout.contains(words), "{words:?}: {text:#?}");
    }
    let known = objects(stage.asking(&["explain", &pid, "--output", "json"]));
    assert_eq!((known.len(), &known[0]["source"]), (1, &"proc".into()), "{known:#?}");
    assert_eq!(known[0]["groups"][0]["role"], "master", "{known:#?}");
    for format in ["human", "json"] {
        let unknown = said(stage.asking(&["explain", "4194305", "--output", format]));
        assert_eq!((unknown.code, unknown.stdout.as_str()), (Some(1), ""), "{unknown:#?}");
        assert!(unknown.stderr.contains("there is no process 4194305"), "{unknown:#?}");
    }
    for bad in ["0", "-1", "x", "4294967296", ""] {
        let said = said(stage.asking(&["explain", bad]));
        assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""), "{bad:?}: {said:#?}");
    }
}

/// Where an agent listens, and logs, a file says also if its groups are wrong. What the groups are, it does not say.
#[test]
fn a_configuration_that_is_broken_is_named() {
    let stage = Stage::new();
    let agent = fs::read_to_string(stage.config()).unwrap().split("[[group]]").next().unwrap().to_owned();
    fs::write(stage.config(), format!("{agent}[[group]]\nmaster.comm = 'x'\nname = 1\n")).unwrap();
    for args in [&["tree"][..], &["orphans"], &["explain", "1"], &["top", "--output", "json"]] {
        let said = said(stage.asking(args));
        assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""), "{said:#?}");
        let warning = said.stderr.lines().next().unwrap();
        assert!(
            warning.starts_with("reaper: warning: ") && warning.contains("reaper.toml:7:8: "),
            "{said:#?}"
        );
        let asked = stage.dir.path().join("reaper.sock").display().to_string();
        assert!(said.stderr.contains(&asked) || args[0] == "tree", "its [agent] says where: {said:#?}");
    }
    fs::write(stage.dir.path().join("log"), "").unwrap();
    let tail = said(stage.asking(&["tail"]));
    assert_eq!((tail.code, tail.stderr.lines().count()), (Some(0), 1), "{tail:#?}");
    assert!(tail.stderr.contains("reaper.toml:7:8: "), "{tail:#?}");

    for wrong in ["[agent]\nlog = 1\nsocket = 1\n", "[agent\n"] {
        fs::write(stage.config(), wrong).unwrap();
        for args in [&["tree"][..], &["orphans"], &["explain", "1"], &["tail"]] {
            let said = said(stage.asking(args));
            assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""), "{said:#?}");
            assert!(said.stderr.starts_with("reaper: the configuration does not say where "), "{said:#?}");
        }
    }
}

/// What the agent of a configuration would meet, not that of the installed one.
#[test]
fn the_doctor_looks_at_a_configuration() {
    let stage = Stage::new();
    let dir = stage.dir.path().display().to_string();
    let found = |name: &str| {
        let said = said(stage.asking(&["doctor", "--output", "json"]));
        let rows = said.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let row = rows.into_iter().find(|row| row["name"] == name);
        let row = row.unwrap_or_else(|| panic!("no {name}: {said:#?}"));
        (row["outcome"].as_str().unwrap().to_owned(), row["found"].as_str().unwrap().to_owned())
    };
    assert_eq!(found("configuration"), ("ok".to_owned(), format!("{dir}/reaper.toml: 1 group")));
    assert_eq!(found("log"), ("ok".to_owned(), format!("{dir}/log")));
    assert_eq!(found("state"), ("ok".to_owned(), dir.clone()));
    assert_eq!(found("socket"), ("ok".to_owned(), format!("{dir}/reaper.sock")));
    // What others may write is refused at the start, so it is said before.
    fs::write(stage.dir.path().join("log"), "").unwrap();
    fs::set_permissions(stage.dir.path().join("log"), fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(found("log").0, "missing");
    fs::write(stage.config(), format!("[agent]\nlog = \"{dir}/other\"\n[[group]]\nname = 1\n")).unwrap();
    assert_eq!(found("configuration").0, "missing");
    assert_eq!(found("log").1, format!("{dir}/other"), "its [agent] is right");
}

/// What is missing is said together with what to type.
#[test]
fn a_command_without_its_file() {
    let stage = Stage::new();
    let report = said(stage.command(&["report"]));
    assert_eq!((report.code, report.stdout.as_str()), (Some(2), ""), "{report:#?}");
    assert!(report.stderr.contains("] -o FILE.html\n"), "{report:#?}");
    if !std::path::Path::new("/etc/reaper/reaper.toml").exists() {
        let check = said(stage.command(&["check"]));
        assert_eq!((check.code, check.stderr.lines().count()), (Some(2), 1), "{check:#?}");
        assert!(check.stderr.contains("`reaper check FILE`"), "{check:#?}");
    }
    let profile = said(stage.command(&["profiles", "cellery"]));
    assert_eq!((profile.code, profile.stdout.as_str()), (Some(2), ""), "{profile:#?}");
    assert!(profile.stderr.contains("'celery'"), "{profile:#?}");
}

/// Whatever is not a socket, or nobody's.
#[test]
fn a_socket_that_is_none() {
    let stage = Stage::new();
    let file = stage.dir.path().join("file");
    fs::write(&file, "").unwrap();
    let mut command = stage.command(&["orphans", "--socket"]);
    command.arg(&file);
    let said = said(command);
    assert_eq!(said.code, Some(2), "{said:#?}");
    assert!(said.stderr.contains("no agent answers on"), "{said:#?}");
}

/// Runs it on a terminal of this size, and gives what it wrote there.
fn on_terminal(mut command: Command, columns: u16, color: bool) -> String {
    let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(Some(&size), None).unwrap();
    command.stdout(pty.slave).stderr(Stdio::null()).env("TERM", "xterm");
    if color {
        command.env_remove("NO_COLOR");
    }
    let mut child = command.spawn().unwrap();
    drop(command);
    // In a thread of its own: who is killed for taking too long lets go of the terminal, too.
    let reading = std::thread::spawn(move || read_all(pty.master));
    let status = ended(&mut child);
    let written = reading.join().unwrap();
    assert_eq!(status.and_then(|status| status.code()), Some(0), "{written}");
    written
}

/// Until the last one that has the terminal open is gone: then reading fails with EIO.
fn read_all(master: OwnedFd) -> String {
    let (mut master, mut bytes, mut chunk) = (File::from(master), Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = master.read(&mut chunk) {
        bytes.extend_from_slice(&chunk[..n]);
    }
    String::from_utf8(bytes).unwrap().replace("\r\n", "\n")
}

#[test]
fn lines_fit_the_terminal_and_only_that() {
    let stage = Stage::new();
    let family = stage.family();
    let pid = family.0.id().to_string();
    let whole = said(stage.asking(&["tree"])).stdout;
    assert!(whole.contains(&stage.token), "nothing is cut on a pipe: {whole}");
    for args in [&["tree"][..], &["tree", "--all"], &["explain", &pid]] {
        for columns in [20, 41] {
            let text = on_terminal(stage.asking(args), columns, false);
            let widest = text.lines().map(reaper::output::width_of).max().unwrap();
            assert!(widest <= columns.into() && widest > 10, "{widest} of {columns}: {text}");
        }
    }
    let mut wide = stage.asking(&["tree"]);
    wide.env("COLUMNS", "500");
    assert!(on_terminal(wide, 20, false).contains(&stage.token), "COLUMNS says otherwise");
}

#[test]
fn colours_on_a_terminal_unless_they_are_not_wanted() {
    let stage = Stage::new();
    let _family = stage.family();
    let tree = |more: &[&str], color| on_terminal(stage.asking(&[&["tree"], more].concat()), 80, color);
    assert!(tree(&[], true).contains("\x1b[32mmaster of own\x1b[0m"));
    assert!(!tree(&[], false).contains('\x1b'), "NO_COLOR");
    assert!(!tree(&["--color", "never"], true).contains('\x1b'));
    assert!(tree(&["--color", "always"], false).contains('\x1b'), "what was typed wins");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let stage = Stage::new();
    for args in
        [&["tree", "--all"][..], &["tree", "--all", "--output", "json"], &["completions", "bash"], &["man"]]
    {
        let mut command = if args[0] == "tree" { stage.asking(args) } else { stage.command(args) };
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        drop(child.stdout.take());
        assert_eq!(ended(&mut child).and_then(|status| status.code()), Some(0), "{args:?}");
    }
}

#[test]
fn completions_are_understood_by_their_shell() {
    let stage = Stage::new();
    let script = said(stage.command(&["completions", "bash"]));
    assert_eq!(script.code, Some(0), "{script:#?}");
    let file = stage.dir.path().join("reaper.bash");
    fs::write(&file, &script.stdout).unwrap();
    let bash = Command::new("bash")
        .arg("-c")
        .arg(
            "set -e; . \"$1\"; COMP_WORDS=(reaper or); COMP_CWORD=1; _reaper reaper or reaper; echo \"${COMPREPLY[@]}\"; \
             COMP_WORDS=(reaper tree --g); COMP_CWORD=2; _reaper reaper --g tree; echo \"${COMPREPLY[@]}\"",
        )
        .args(["bash", file.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&bash.stdout), "orphans\n--group\n", "{bash:?}");
    let json = objects(stage.command(&["completions", "zsh", "--output", "json"]));
    assert!(json[0]["script"].as_str().unwrap().starts_with("#compdef reaper"), "{json:#?}");
    let unknown = said(stage.command(&["completions", "cmd.exe"]));
    assert_eq!((unknown.code, unknown.stdout.as_str()), (Some(2), ""), "{unknown:#?}");
}

#[test]
fn manual_pages() {
    let stage = Stage::new();
    let page = said(stage.command(&["man"]));
    assert_eq!(page.code, Some(0), "{page:#?}");
    assert!(page.stdout.contains(".TH reaper 1") && page.stdout.contains("reaper\\-orphans(1)"), "{page:#?}");
    let json = objects(stage.command(&["man", "explain", "--output", "json"]));
    assert_eq!(json[0]["page"], "reaper-explain", "{json:#?}");
    let unknown = said(stage.command(&["man", "demo-actor"]));
    assert_eq!((unknown.code, unknown.stdout.as_str()), (Some(2), ""), "{unknown:#?}");
    assert!(unknown.stderr.contains("there is no command \"demo-actor\"; there are run, "), "{unknown:#?}");
}
