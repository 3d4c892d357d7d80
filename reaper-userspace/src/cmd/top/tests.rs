//! Screens of several sizes, and keys.

use expect_test::{Expect, expect};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;

use super::app::{App, Pane, Wish};
use super::draw::draw;
use crate::agent::protocol::{Counters, MasterView, Overview, Status};
use crate::core::GroupStatus;
use crate::core::ids::SECOND;
use crate::core::records::{Evidence, ProcView, SparedBecause, Verdict};
use crate::core::rules::Mode;
use crate::core::view::{Ancestor, Does, Explanation, InGroup, Look, Next, OrphanView, Place, Role};

fn proc(pid: u32, argv: &str) -> ProcView {
    ProcView {
        pid,
        start_ns: u64::from(pid) * SECOND,
        ppid: 1,
        uid: 33,
        comm: "php".into(),
        argv: argv.split(' ').collect(),
        ..ProcView::default()
    }
}

fn evidence(verdict: Verdict, because: &str) -> Evidence {
    Evidence { verdict, because: because.to_owned(), threads: vec![], cpu_us: 0, children: 0, quiet_us: 0 }
}

fn orphan(pid: u32, group: &str, seconds: u64, verdict: Option<Verdict>, says: &str) -> OrphanView {
    OrphanView {
        group: group.to_owned(),
        groups: vec![group.to_owned()],
        proc: proc(pid, "php artisan horizon:work"),
        lineage: vec![1676],
        since_ns: 0,
        age_us: seconds * 1_000_000,
        stray: false,
        draining: false,
        signalled: None,
        evidence: verdict.map(|v| evidence(v, "thread 1680 (php) is running")),
        looked_us: Some(40_000),
        next: Next {
            does: Does::Signal,
            signal: Some("TERM".to_owned()),
            step: Some(0),
            in_us: None,
            spared: None::<SparedBecause>,
            says: says.to_owned(),
            rule: "no signal to a busy process".to_owned(),
        },
    }
}

/// Of a group that only looks on.
fn observed(pid: u32) -> OrphanView {
    let says = "nothing: its group only observes (else: TERM as soon as it has been idle for 200 ms)";
    let mut orphan = orphan(pid, "web", 0, Some(Verdict::Unknown), says);
    orphan.next.does = Does::Rehearse;
    orphan.next.spared = Some(SparedBecause::Observe);
    orphan
}

fn group(name: &str, mode: Mode, masters: usize, orphans: usize) -> GroupStatus {
    GroupStatus {
        name: name.to_owned(),
        mode,
        armed: masters > 0,
        breaker_open: false,
        masters,
        orphans,
        master_source: String::new(),
    }
}

fn overview(events: u64, at: u64) -> Overview {
    let mut asked = orphan(1690, "horizon", 4000, Some(Verdict::Busy), "nothing: process 1 has sent it TERM");
    asked.draining = true;
    Overview {
        status: Status {
            version: "0.1.0".to_owned(),
            pid: 812,
            config: "reaper.toml".to_owned(),
            processes: 412,
            groups: vec![
                group("horizon", Mode::Enforce, 1, 3),
                group("web", Mode::Observe, 0, 1),
                GroupStatus { breaker_open: true, ..group("mails", Mode::Enforce, 1, 0) },
                group("rq", Mode::Observe, 0, 0),
            ],
            counters: Counters { events, lost: 0, signals: 4, complete: true },
            boot_ns: at * SECOND,
        },
        master_list: vec![
            MasterView { group: "horizon".to_owned(), proc: proc(1676, "php artisan horizon") },
            MasterView { group: "mails".to_owned(), proc: proc(1700, "evil\x1b[2J\u{202e} 作業") },
        ],
        orphan_list: vec![
            asked,
            orphan(1680, "horizon", 12, Some(Verdict::Busy), "TERM as soon as it has been idle for 200 ms"),
            orphan(1681, "horizon", 1, Some(Verdict::Idle), "TERM in 120 ms, if it stays idle"),
            observed(1682),
        ],
    }
}

fn app() -> App {
    let mut app = App { color: true, ..App::default() };
    app.take(overview(1_000, 7_300));
    app.take(overview(1_246, 7_302));
    app
}

/// Draws it on a screen of this size.
fn drawn(app: &App, width: u16, height: u16) -> TestBackend {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(app, frame)).unwrap();
    terminal.backend().clone()
}

/// The characters on it, a line each, without what is blank at the end.
fn screen(app: &App, width: u16, height: u16) -> String {
    let backend = drawn(app, width, height);
    let buffer = backend.buffer();
    let mut text = String::new();
    for y in 0..height {
        let mut line = String::new();
        let mut x = 0;
        while x < width {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            x += u16::try_from(crate::output::width_of(symbol)).unwrap().max(1);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn check(app: &App, width: u16, height: u16, expected: &Expect) {
    expected.assert_eq(&screen(app, width, height));
}

fn press(app: &mut App, code: KeyCode) -> Wish {
    app.key(KeyEvent::new(code, KeyModifiers::NONE))
}

fn typed(app: &mut App, text: &str) {
    for c in text.chars() {
        assert_eq!(press(app, KeyCode::Char(c)), Wish::Nothing);
    }
}

fn explanation() -> Explanation {
    Explanation {
        proc: proc(1680, "php artisan horizon:work"),
        alive: true,
        age_us: 3_600_000_000,
        lineage: vec![Ancestor { pid: 1676, start_ns: 1, comm: "php".into(), alive: false }],
        ancestry: vec![Ancestor { pid: 1, start_ns: 1, comm: "systemd".into(), alive: true }],
        roles: vec![Place { group: "horizon".to_owned(), role: Role::Orphan }],
        groups: vec![InGroup {
            group: "horizon".to_owned(),
            mode: Mode::Enforce,
            role: Role::Orphan,
            says: vec![
                "It has been an orphan for 12 s: it descends from master 1676 (php, dead).".to_owned(),
            ],
        }],
        look: Some(Look {
            ago_us: 40_000,
            evidence: evidence(Verdict::Busy, "thread 1680 (php\x1b[m) is running"),
        }),
        next: Some(overview(0, 1).orphan_list[1].next.clone()),
        says: vec![],
    }
}

#[test]
fn the_list() {
    check(
        &app(),
        80,
        24,
        &expect![[r#"
            0 events lost, 123 events/s, 4 signals, 412 processes: reaper 0.1.0, pid 812
            GROUP                MODE     MASTERS ORPHANS  STATE
            horizon              enforce        1       3
            web                  observe        0       1  not armed: never had a master
            mails                enforce        1       0  STOPPED: too many signals
            1 other group has nobody
                PID GROUP   STATE    AGE         WHAT COMES NEXT, OR COMMAND
               1690 horizon draining 1 h 6 min   nothing: process 1 has sent it TERM
               1680 horizon busy     12 s        TERM as soon as it has been idle for 200 ms
               1681 horizon idle     1 s         TERM in 120 ms, if it stays idle
               1682 web     unknown  0 s         [observes] TERM when idle
               1676 horizon master   1 h 33 min  php artisan horizon
               1700 mails   master   1 h 33 min  evil\x1b[2J\u{202e} 作業










            q quit   enter explain   / filter   g group   ? help
        "#]],
    );
}

#[test]
fn a_narrow_and_low_one() {
    check(
        &app(),
        46,
        12,
        &expect![[r#"
            0 events lost, 123 events/s, 4 signals, 412 pr
            GROUP                MODE     MASTERS ORPHANS…
            horizon              enforce        1       3
            web                  observe        0       1
            mails                enforce        1       0
            1 other group has nobody
                PID GROUP STATE    AGE    WHAT COMES NEXT…
               1690 hori… draining 1 h    TERM when idle
               1680 hori… busy     12 s   TERM when idle
               1681 hori… idle     1 s    TERM when idle
               1682 web   unknown  0 s    [observes] TERM…
            q quit   enter explain   / filter   g group  …
        "#]],
    );
}

/// What comes next is readable in a terminal of the usual size, whatever the group is called; where there is room it is a sentence.
#[test]
fn what_comes_next_fits() {
    let mut app = app();
    let mut overview = overview(2_000, 7_303);
    let long = "a-group-with-a-very-long-name";
    for orphan in &mut overview.orphan_list {
        orphan.group = long.to_owned();
    }
    overview.orphan_list[0].next.does = Does::Nothing;
    overview.orphan_list[0].next.says =
        "nothing: process 1 has sent it TERM, and it is left to finish".to_owned();
    overview.orphan_list[2].next.in_us = Some(120_000);
    overview.orphan_list[2].next.says = "TERM in 120 ms, if it stays idle; in 10 min even if busy".to_owned();
    app.take(overview);
    let shown = screen(&app, 80, 24);
    for words in [
        " draining 1 h 6 min   nothing: it is left to finish\n",
        " busy     12 s        TERM when idle\n",
        " idle     1 s         TERM in 120 ms, if idle\n",
        " unknown  0 s         [observes] TERM when idle\n",
    ] {
        assert!(shown.contains(words), "{words:?}: {shown}");
    }
    let wide = screen(&app, 200, 24);
    assert!(wide.contains("(else: TERM as soon as it has been idle for 200 ms)\n"), "{wide}");
}

/// Nothing is too small to be drawn on.
#[test]
fn any_size() {
    let mut app = app();
    for pane in [
        Pane::List,
        Pane::Help,
        Pane::Explanation { pid: 1, known: Some(Ok(Box::new(explanation()))), scroll: 99 },
    ] {
        app.pane = pane;
        for (width, height) in [(1, 1), (1, 24), (80, 1), (3, 3), (20, 5), (41, 2), (300, 100)] {
            drawn(&app, width, height);
        }
    }
}

#[test]
fn before_and_without_an_answer() {
    let mut silent = App::default();
    assert!(screen(&silent, 60, 3).starts_with("asking the agent\n"));
    silent.trouble = Some("no agent\u{1b}[2J".to_owned());
    assert!(screen(&silent, 60, 3).starts_with("no agent\\x1b[2J\n"));
    let mut late = app();
    late.trouble = Some("it said nothing for 5 s".to_owned());
    assert!(screen(&late, 60, 24).contains("\nnot up to date: it said nothing for 5 s\n"));
    late.take(overview(1, 7_303));
    assert!(!screen(&late, 60, 24).contains("not up to date"));
    assert_eq!(late.rate, None, "an agent that has begun anew has no rate yet");
    let mut lossy = overview(2, 7_304);
    lossy.status.counters = Counters { lost: 9, complete: false, ..lossy.status.counters };
    late.take(lossy);
    let shown = screen(&late, 80, 24);
    assert!(
        shown.contains("9 events lost")
            && shown.contains("\nthe tree is being rebuilt: nobody is signalled\n"),
        "{shown}"
    );
}

#[test]
fn colours_only_where_they_may_be() {
    let colours = |app: &App| {
        let backend = drawn(app, 80, 24);
        let cells = backend.buffer().content().iter();
        cells.filter(|c| c.fg != Color::Reset || c.bg != Color::Reset).count()
    };
    assert!(colours(&app()) > 0);
    assert_eq!(colours(&App { color: false, ..app() }), 0);
}

#[test]
fn a_filter_is_typed_and_taken_back() {
    let mut app = app();
    press(&mut app, KeyCode::Char('/'));
    typed(&mut app, "WEB!");
    press(&mut app, KeyCode::Backspace);
    let pids = |app: &App| app.entries().iter().map(|e| e.pid).collect::<Vec<_>>();
    assert_eq!(pids(&app), [1682]);
    assert!(screen(&app, 80, 24).ends_with("show only: WEB_   (enter: done, escape: everything)\n"));
    press(&mut app, KeyCode::Enter);
    assert!(screen(&app, 80, 24).contains("only \"WEB\"   q quit"));
    assert_eq!(press(&mut app, KeyCode::Enter), Wish::Explain(1682));
    press(&mut app, KeyCode::Esc);
    press(&mut app, KeyCode::Esc);
    assert_eq!(pids(&app).len(), 6);
    press(&mut app, KeyCode::Char('/'));
    typed(&mut app, "nobody is called that");
    press(&mut app, KeyCode::Enter);
    assert!(screen(&app, 80, 24).contains("nothing passes the filter"));
    assert_eq!(press(&mut app, KeyCode::Enter), Wish::Nothing);
}

#[test]
fn groups_one_after_the_other() {
    let mut app = app();
    let mut seen = Vec::new();
    for _ in 0..4 {
        press(&mut app, KeyCode::Char('g'));
        seen.push((app.group.clone(), app.entries().len()));
    }
    let named = |name: &str, n| (Some(name.to_owned()), n);
    assert_eq!(seen, [named("horizon", 4), named("web", 1), named("mails", 1), (None, 6)]);
    // A group that a reload has removed is let go of.
    app.group = Some("gone".to_owned());
    app.take(overview(2_000, 7_304));
    assert_eq!(app.group, None);
}

/// The same process stays chosen when others come and go.
#[test]
fn the_choice_follows_its_process() {
    let mut app = app();
    press(&mut app, KeyCode::Down);
    press(&mut app, KeyCode::Char('j'));
    let mut fewer = overview(2_000, 7_304);
    fewer.orphan_list.remove(0);
    app.take(fewer);
    assert_eq!(press(&mut app, KeyCode::Enter), Wish::Explain(1681));
    press(&mut app, KeyCode::Esc);
    for (code, pid) in
        [(KeyCode::End, 1700), (KeyCode::PageUp, 1680), (KeyCode::PageDown, 1700), (KeyCode::Home, 1680)]
    {
        press(&mut app, code);
        assert_eq!(press(&mut app, KeyCode::Enter), Wish::Explain(pid), "{code:?}");
        press(&mut app, KeyCode::Esc);
    }
}

#[test]
fn an_explanation() {
    let mut app = app();
    press(&mut app, KeyCode::Down);
    assert_eq!(press(&mut app, KeyCode::Enter), Wish::Explain(1680));
    assert!(screen(&app, 60, 10).contains("asking the agent"));
    app.take_explanation(7, Err("about another one".to_owned()));
    app.take_explanation(1680, Ok(Some(Box::new(explanation()))));
    check(
        &app,
        60,
        24,
        &expect![[r#"
            0 events lost, 123 events/s, 4 signals, 412 processes: reape
            PROCESS 1680
            1680      php artisan horizon:work
            process   php, user 33, born 1 h ago
            parents   1 (systemd)
            lineage   1676 (php, dead)
            group     orphan of horizon, which enforces
                      It has been an orphan for 12 s: it descends from
                      master 1676 (php, dead).
            seen      40 ms ago, busy: thread 1680 (php\x1b[m) is
                      running
            next      TERM as soon as it has been idle for 200 ms
            rule      no signal to a busy process










            up, down scroll   escape back   q quit
        "#]],
    );
    // Scrolled further than there is: the end stays in sight.
    typed(&mut app, "jjjjjjjjjjjjjjjjjjjjjjjjjjjjjjj");
    check(
        &app,
        60,
        6,
        &expect![[r#"
            0 events lost, 123 events/s, 4 signals, 412 processes: reape
            PROCESS 1680
                      running
            next      TERM as soon as it has been idle for 200 ms
            rule      no signal to a busy process
            up, down scroll   escape back   q quit
        "#]],
    );
    app.take_explanation(1680, Ok(None));
    assert!(screen(&app, 80, 10).contains("process 1680 is gone"));
    app.take_explanation(1680, Err("no answer".to_owned()));
    assert!(screen(&app, 80, 10).contains("no answer"));
}

#[test]
fn help_and_the_end() {
    let mut app = app();
    press(&mut app, KeyCode::Char('?'));
    let help = screen(&app, 80, 24);
    for words in ["explain it", "only what contains", "one group", "quit"] {
        assert!(help.contains(words), "{words:?}: {help}");
    }
    press(&mut app, KeyCode::Char('x'));
    assert!(matches!(app.pane, Pane::List));
    assert_eq!(press(&mut app, KeyCode::Char('q')), Wish::Quit);
    press(&mut app, KeyCode::Char('/'));
    assert_eq!(press(&mut app, KeyCode::Char('q')), Wish::Nothing, "it is typed");
    assert_eq!(app.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Wish::Quit);
}
