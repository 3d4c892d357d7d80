//! What a benchmark says: tables of figures, each with its spread, and under which conditions they came about.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::conditions::Conditions;
use super::stats::{interval, median};

/// What one benchmark has measured.
#[derive(Debug, Serialize)]
pub struct Report {
    name: &'static str,
    conditions: Conditions,
    tables: Vec<Table>,
    notes: Vec<String>,
}

/// Figures that are compared.
#[derive(Debug, Serialize)]
pub(super) struct Table {
    title: String,
    /// The first names the rows.
    columns: Vec<String>,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    cells: Vec<Cell>,
}

/// A figure, or why there is none.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Cell {
    /// What was measured, once or several times.
    Figure {
        /// The middle.
        median: f64,
        /// Where the median lies with 95 %, or the extremes where there are too few values.
        low: f64,
        /// Likewise.
        high: f64,
        /// Everything that was measured.
        values: Vec<f64>,
    },
    /// Words.
    Text(String),
}

impl Cell {
    /// Of one value for each repetition.
    pub(super) fn of(values: Vec<f64>) -> Self {
        let (low, high) = interval(&values);
        Self::Figure { median: median(&values), low, high, values }
    }

    /// Why there is no figure.
    pub(super) fn none(why: &str) -> Self {
        Self::Text(why.to_owned())
    }

    fn shown(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Figure { median, values, .. } if values.len() < 2 => digits(*median),
            Self::Figure { median, low, high, .. } => {
                format!("{} ({} to {})", digits(*median), digits(*low), digits(*high))
            }
        }
    }
}

/// Three digits that mean something.
fn digits(value: f64) -> String {
    match value.abs() {
        n if n >= 100.0 => grouped(value),
        n if n >= 10.0 => format!("{value:.1}"),
        n if n >= 1.0 || n == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// A whole number with its thousands apart.
fn grouped(value: f64) -> String {
    let whole = format!("{value:.0}");
    let (sign, number) = whole.strip_prefix('-').map_or(("", whole.as_str()), |number| ("-", number));
    let mut text = String::new();
    for (at, digit) in number.chars().enumerate() {
        if at > 0 && (number.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    format!("{sign}{text}")
}

impl Table {
    pub(super) fn new(title: &str, columns: &[&str]) -> Self {
        let columns = columns.iter().map(ToString::to_string).collect();
        Self { title: title.to_owned(), columns, rows: Vec::new() }
    }

    pub(super) fn row(&mut self, name: &str, cells: Vec<Cell>) {
        assert_eq!(cells.len() + 1, self.columns.len(), "{name} in {}", self.title);
        self.rows.push(Row { name: name.to_owned(), cells });
    }

    /// In Markdown.
    fn shown(&self) -> String {
        let mut text = format!("\n{}\n\n| {} |\n", self.title, self.columns.join(" | "));
        let _ = writeln!(text, "|{}", " --- |".repeat(self.columns.len()));
        for row in &self.rows {
            let cells: Vec<String> = row.cells.iter().map(Cell::shown).collect();
            let _ = writeln!(text, "| {} | {} |", row.name, cells.join(" | "));
        }
        text
    }
}

impl Report {
    /// Begins, and looks at the conditions.
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, conditions: Conditions::look(), tables: Vec::new(), notes: Vec::new() }
    }

    pub(super) fn table(&mut self, table: Table) {
        self.tables.push(table);
    }

    pub(super) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Looks at the conditions once more.
    pub(super) fn end(mut self) -> Self {
        self.conditions.end();
        self
    }

    /// In Markdown.
    pub fn shown(&self) -> String {
        let mut text = format!("{}: {}\n", self.name, self.conditions);
        text.extend(self.tables.iter().map(Table::shown));
        if !self.notes.is_empty() {
            text.push('\n');
        }
        for note in &self.notes {
            let _ = writeln!(text, "- {note}");
        }
        text
    }

    /// Writes it as JSON into this folder.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<PathBuf> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join(format!("{}.json", self.name));
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::{Cell, Table, digits};

    #[test]
    fn digits_that_mean_something() {
        assert_eq!(digits(1_234_567.4), "1,234,567");
        assert_eq!(digits(-1_234.0), "-1,234");
        assert_eq!(digits(123.4), "123");
        assert_eq!(digits(12.34), "12.3");
        assert_eq!(digits(0.0), "0.00");
        assert_eq!(digits(0.0123), "0.012");
    }

    #[test]
    fn a_table_shows_each_figure_with_its_spread() {
        let mut table = Table::new("Lives", &["what", "ns"]);
        table.row("fork", vec![Cell::of(vec![3.0, 1.0, 2.0])]);
        table.row("exec", vec![Cell::none("not measured")]);
        let lines: Vec<String> = table.shown().lines().map(str::to_owned).collect();
        assert_eq!(
            lines,
            [
                "",
                "Lives",
                "",
                "| what | ns |",
                "| --- | --- |",
                "| fork | 2.00 (1.00 to 3.00) |",
                "| exec | not measured |",
            ]
        );
    }
}
