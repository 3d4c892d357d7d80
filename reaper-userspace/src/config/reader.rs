//! Reads TOML tables key by key and remembers every error instead of stopping at the first.
//!
//! A value that could not be read is `None`, like one that is absent: the caller goes on with the default, and the
//! result is thrown away in the end because there are errors.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Position, nearest};
use super::schema::{Schema, TABLES};

/// A value and where it stands.
pub(super) type Node<'i> = Spanned<DeValue<'i>>;

/// Something read, and the byte offset at which it stands.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) at: usize,
    pub(super) value: T,
}

/// The file that is read and what has been found in it.
pub(super) struct Cx<'t> {
    file: &'t str,
    text: &'t str,
    /// The key whose value is read: errors about values begin with it.
    key: &'static str,
    pub(super) errors: Vec<Diagnostic>,
    pub(super) warnings: Vec<Diagnostic>,
}

impl<'t> Cx<'t> {
    pub(super) fn new(file: &'t str, text: &'t str) -> Self {
        Self { file, text, key: "", errors: Vec::new(), warnings: Vec::new() }
    }

    pub(super) fn line(&self, at: usize) -> usize {
        Position::of(self.text, at).line
    }

    pub(super) fn error(&mut self, at: usize, message: &str) {
        let diagnostic = self.diagnostic(at, message);
        self.errors.push(diagnostic);
    }

    pub(super) fn warn(&mut self, at: usize, message: &str) {
        let diagnostic = self.diagnostic(at, message);
        self.warnings.push(diagnostic);
    }

    /// An error about the value of the key that is read.
    pub(super) fn bad<T>(&mut self, value: &Spanned<T>, message: &str) {
        let message = format!("{}: {message}", self.key);
        self.error(value.span().start, &message);
    }

    /// A warning about the value of the key that is read.
    pub(super) fn odd<T>(&mut self, value: &Spanned<T>, message: &str) {
        let message = format!("{}: {message}", self.key);
        self.warn(value.span().start, &message);
    }

    fn diagnostic(&self, at: usize, message: &str) -> Diagnostic {
        Diagnostic::new(self.file, Some(Position::of(self.text, at)), message)
    }

    /// Errors and warnings, each in the order of the file: the tree is sorted by key.
    pub(super) fn finish(self) -> (Vec<Diagnostic>, Vec<Diagnostic>) {
        let Self { mut errors, mut warnings, .. } = self;
        errors.sort_by_key(|d| d.at);
        warnings.sort_by_key(|d| d.at);
        (errors, warnings)
    }
}

/// A table whose unknown keys have been reported.
pub(super) struct Table<'a, 'i> {
    /// Its header.
    pub(super) at: usize,
    entries: &'a DeTable<'i>,
}

impl<'a, 'i> Table<'a, 'i> {
    pub(super) fn open(cx: &mut Cx<'_>, node: &'a Node<'i>, schema: &Schema) -> Option<Self> {
        match node.get_ref() {
            DeValue::Table(entries) => Some(Self::of(cx, node.span().start, entries, schema)),
            other => {
                let message = format!("expected the table {}, found {}", schema.title, describe(other));
                cx.error(node.span().start, &message);
                None
            }
        }
    }

    pub(super) fn of(cx: &mut Cx<'_>, at: usize, entries: &'a DeTable<'i>, schema: &Schema) -> Self {
        for key in entries.keys().filter(|k| !schema.has(k.get_ref())) {
            cx.error(key.span().start, &unknown(key.get_ref(), schema));
        }
        Self { at, entries }
    }

    /// The value of a key; `None` if it is absent or `parse` has reported it.
    pub(super) fn get<T>(
        &self,
        cx: &mut Cx<'_>,
        key: &'static str,
        parse: impl FnOnce(&mut Cx<'_>, &'a Node<'i>) -> Option<T>,
    ) -> Option<T> {
        let node = self.entries.get(key)?;
        cx.key = key;
        parse(cx, node)
    }

    /// The same with its position.
    pub(super) fn get_at<T>(
        &self,
        cx: &mut Cx<'_>,
        key: &'static str,
        parse: impl FnOnce(&mut Cx<'_>, &'a Node<'i>) -> Option<T>,
    ) -> Option<At<T>> {
        self.get(cx, key, |cx, node| Some(At { at: node.span().start, value: parse(cx, node)? }))
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn unknown(key: &str, schema: &Schema) -> String {
    let what = format!("unknown key {key:?} in {}", schema.title);
    if let Some(home) = TABLES.iter().find(|t| t.has(key)) {
        return format!("{what}: it belongs in {}", home.title);
    }
    match nearest(key, schema.names()) {
        Some(meant) => format!("{what}: did you mean {meant:?}?"),
        None => format!("{what}: known are {}", schema.known()),
    }
}

/// What a value is, in words.
pub(super) fn describe(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
