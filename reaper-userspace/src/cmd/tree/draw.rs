//! The tree as lines of text.
//!
//! Whose child somebody is now is what the kernel says. Between a process and its parent stand the dead through whom it
//! descends: so an orphan is found below its master's tombstone, and that below whoever adopted the orphan.

use std::collections::{BTreeMap, BTreeSet};

use anstyle::{AnsiColor, Style};

use crate::core::ids::{Ns, ProcKey};
use crate::core::view::{Ancestor, Role, Row};
use crate::output::{Text, escape, fit};

const DIM: Style = Style::new().dimmed();

/// Who belongs to no group is there for orientation: so much of its command line is shown, columns, also where no terminal sets a
/// limit. A shell's may be a whole script; JSON has all of it, and so has `reaper explain`.
const STRANGER: usize = 200;

/// Branches are drawn to this depth; who is deeper has its depth in words.
const DEEPEST: usize = 40;

/// A place in the drawing: the process, and below whom a tombstone stands, since it may stand below several.
type Place = (ProcKey, Option<ProcKey>);

/// A line for each process. A tombstone is drawn once below each adopter of those that descend from it.
pub(super) fn lines(rows: &[Row]) -> Vec<Text> {
    let drawing = Drawing::of(rows);
    let mut lines = Vec::with_capacity(rows.len());
    let mut next: Vec<(Place, String, usize, bool)> = Vec::new();
    let roots = drawing.below(None);
    next.extend(roots.iter().rev().map(|&place| (place, String::new(), 0, true)));
    while let Some((place, prefix, depth, last)) = next.pop() {
        let Some(row) = drawing.rows.get(&place.0) else { continue };
        let mut line = Text::default();
        if depth > DEEPEST {
            line.add(DIM, &format!("{prefix}… {depth} deep: "));
        } else if depth > 0 {
            line.add(DIM, &format!("{prefix}{}", if last { "└─" } else { "├─" }));
        }
        label(&mut line, row);
        lines.push(line);
        let below = match depth {
            0 => String::new(),
            d if d >= DEEPEST => prefix,
            _ => format!("{prefix}{}", if last { "  " } else { "│ " }),
        };
        let children = drawing.below(Some(place));
        let many = children.len();
        let child = |(n, &child): (usize, &Place)| (child, below.clone(), depth + 1, n + 1 == many);
        next.extend(children.iter().enumerate().map(child).rev());
    }
    lines
}

struct Drawing<'a> {
    rows: BTreeMap<ProcKey, &'a Row>,
    children: BTreeMap<Option<Place>, Vec<Place>>,
}

impl<'a> Drawing<'a> {
    fn of(rows: &'a [Row]) -> Self {
        let by_key: BTreeMap<ProcKey, &Row> = rows.iter().map(|row| (key(row), row)).collect();
        let by_pid: BTreeMap<u32, ProcKey> =
            rows.iter().filter(|r| r.alive).map(|row| (row.proc.pid, key(row))).collect();
        let mut children: BTreeMap<Option<Place>, Vec<Place>> = BTreeMap::new();
        let mut tombstones = BTreeSet::new();
        for row in rows.iter().filter(|row| row.alive) {
            let parent = by_pid.get(&row.proc.ppid).copied().filter(|&parent| parent != key(row));
            let mut above = parent.map(|parent| (parent, None));
            let dead = row.lineage.iter().take_while(|up| !up.alive && by_key.contains_key(&key_of(up)));
            let mut chain: Vec<Place> = dead.map(|up| (key_of(up), parent)).collect();
            chain.reverse();
            chain.push((key(row), None));
            for place in chain {
                // Who lives comes once; a tombstone, with each of those that descend from it.
                if place.0 == key(row) || tombstones.insert(place) {
                    children.entry(above).or_default().push(place);
                }
                above = Some(place);
            }
        }
        for siblings in children.values_mut() {
            siblings.sort_unstable_by_key(|(ProcKey { tgid, start_ns }, _)| (*start_ns, *tgid));
        }
        Self { rows: by_key, children }
    }

    fn below(&self, place: Option<Place>) -> &[Place] {
        self.children.get(&place).map(Vec::as_slice).unwrap_or_default()
    }
}

fn key(row: &Row) -> ProcKey {
    ProcKey { tgid: row.proc.pid, start_ns: row.proc.start_ns }
}

fn key_of(up: &Ancestor) -> ProcKey {
    let Ancestor { pid, start_ns, .. } = up;
    let start_ns: Ns = *start_ns;
    ProcKey { tgid: *pid, start_ns }
}

fn label(line: &mut Text, row: &Row) {
    let plain = if row.alive { Style::new() } else { DIM };
    line.add(plain, &if row.alive { format!("{} ", row.proc.pid) } else { format!("† {} ", row.proc.pid) });
    if !row.roles.is_empty() {
        line.add(plain, "[");
        let was = if row.alive { "" } else { "was " };
        for (n, place) in row.roles.iter().enumerate() {
            let gap = if n == 0 { "" } else { ", " };
            let style = if row.alive { style(place.role) } else { DIM };
            line.add(plain, gap).add(style, &format!("{was}{} of {}", place.role, place.group));
        }
        line.add(plain, "] ");
    }
    let command = command(row);
    if row.roles.is_empty() {
        line.add(plain, &fit(&escape(&command), STRANGER));
    } else {
        line.add(plain, &command);
    }
}

/// Its command line, or its name in brackets where it has none.
fn command(row: &Row) -> String {
    match row.proc.argv.line() {
        line if line.trim().is_empty() && row.kernel_thread => format!("[{}]", row.proc.comm),
        line if line.trim().is_empty() => format!("({})", row.proc.comm),
        line => line,
    }
}

/// The colour of a role: green leads, yellow may be stopped, cyan is about to end.
fn style(role: Role) -> Style {
    match role {
        Role::Master | Role::Heir => AnsiColor::Green.on_default(),
        Role::Orphan | Role::Stray | Role::Undecided => AnsiColor::Yellow.on_default(),
        Role::Draining => AnsiColor::Cyan.on_default(),
        Role::Worker => Style::new().bold(),
        Role::Member | Role::JobChild | Role::Detached => DIM,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::core::records::ProcView;
    use crate::core::view;

    fn row(pid: u32, ppid: u32, argv: &str, role: Option<Role>) -> Row {
        Row {
            proc: ProcView {
                pid,
                start_ns: u64::from(pid) * 1_000,
                ppid,
                comm: "comm".into(),
                argv: argv.split(' ').filter(|a| !a.is_empty()).collect(),
                ..ProcView::default()
            },
            alive: true,
            kernel_thread: false,
            roles: role.map(|role| view::Place { group: "g".to_owned(), role }).into_iter().collect(),
            lineage: vec![],
        }
    }

    fn dead(row: Row) -> Row {
        Row { alive: false, ..row }
    }

    fn born_of(row: Row, line: &[(u32, bool)]) -> Row {
        let up = |&(pid, alive): &(u32, bool)| Ancestor {
            pid,
            start_ns: u64::from(pid) * 1_000,
            comm: "comm".into(),
            alive,
        };
        Row { lineage: line.iter().map(up).collect(), ..row }
    }

    fn check(rows: &[Row], width: Option<usize>, expected: &Expect) {
        let shown: String = lines(rows).iter().map(|line| line.render(false, width) + "\n").collect();
        expected.assert_eq(&shown);
    }

    /// An orphan is below its dead master, below whoever adopted it; the tombstones of one adopter are drawn once.
    #[test]
    fn orphans_below_tombstones() {
        let rows = [
            row(1, 0, "init", None),
            dead(row(10, 0, "php artisan horizon", Some(Role::Master))),
            dead(born_of(
                row(11, 0, "php artisan horizon:supervisor", Some(Role::Worker)),
                &[(10, false), (1, true)],
            )),
            born_of(row(12, 1, "php work a", Some(Role::Orphan)), &[(11, false), (10, false), (1, true)]),
            born_of(row(13, 1, "php work b", Some(Role::Draining)), &[(11, false), (10, false), (1, true)]),
            born_of(row(14, 12, "convert", Some(Role::JobChild)), &[(12, true), (11, false), (10, false)]),
            row(20, 1, "php artisan horizon", Some(Role::Master)),
            born_of(row(21, 20, "php work a", Some(Role::Worker)), &[(20, true), (1, true)]),
        ];
        check(
            &rows,
            None,
            &expect![[r#"
                1 init
                ├─† 10 [was master of g] php artisan horizon
                │ └─† 11 [was worker of g] php artisan horizon:supervisor
                │   ├─12 [orphan of g] php work a
                │   │ └─14 [job child of g] convert
                │   └─13 [draining of g] php work b
                └─20 [master of g] php artisan horizon
                  └─21 [worker of g] php work a
            "#]],
        );
        check(
            &rows,
            Some(30),
            &expect![[r#"
            1 init
            ├─† 10 [was master of g] php…
            │ └─† 11 [was worker of g] ph…
            │   ├─12 [orphan of g] php wo…
            │   │ └─14 [job child of g] c…
            │   └─13 [draining of g] php…
            └─20 [master of g] php artisa…
              └─21 [worker of g] php work…
        "#]],
        );
    }

    #[test]
    fn names_of_any_kind() {
        let rows = [
            Row { kernel_thread: true, ..row(2, 0, "", None) },
            row(3, 0, "", None),
            row(4, 0, "evil\x1b[2J\n\u{202e}x \u{fffd}", None),
            row(5, 99, "作業作業 🐘", Some(Role::Master)),
            // Who says to be its own parent.
            row(6, 6, "x", None),
        ];
        check(
            &rows,
            None,
            &expect![[r#"
            2 [comm]
            3 (comm)
            4 evil\x1b[2J\n\u{202e}x �
            5 [master of g] 作業作業 🐘
            6 x
        "#]],
        );
        check(
            &rows,
            Some(19),
            &expect![[r#"
            2 [comm]
            3 (comm)
            4 evil\x1b[2J\n\u{…
            5 [master of g] 作…
            6 x
        "#]],
        );
    }

    /// Of whom no group knows; whoever belongs to one is shown whole.
    #[test]
    fn a_script_in_a_command_line_is_cut() {
        let script = format!("bash -c {}", "x\n".repeat(1_000));
        let rows = [row(2, 0, &script, None), row(3, 2, &script, Some(Role::Worker))];
        let shown: Vec<String> = lines(&rows).iter().map(|l| l.render(false, None)).collect();
        assert!(shown[0].chars().count() == "2 ".len() + STRANGER && shown[0].ends_with('…'), "{}", shown[0]);
        assert!(shown[1].ends_with(r"x\n"), "{}", shown[1]);
    }

    #[test]
    fn a_deep_chain_does_not_grow_without_bound() {
        let chain: Vec<Row> = (1..=5000).map(|pid| row(pid, pid - 1, "x", None)).collect();
        let shown: Vec<String> = lines(&chain).iter().map(|l| l.render(false, None)).collect();
        assert_eq!(shown.len(), 5000);
        assert!(shown.iter().all(|l| l.chars().count() < 3 * DEEPEST), "{:?}", shown.last());
        assert!(shown[4999].ends_with("… 4999 deep: 5000 x"), "{}", shown[4999]);
    }
}
