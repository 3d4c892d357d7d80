//! A whole configuration: a `Config` or errors, each with its place, and nothing that a terminal would act on.

use reaper::config::{Config, Diagnostic};

/// Takes the bytes for a file.
pub fn run(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let diagnostics: Vec<Diagnostic> = match Config::parse("f", text) {
        Ok(config) => config.warnings,
        Err(errors) => {
            assert!(!errors.diagnostics().is_empty());
            assert!(!errors.is_unreadable());
            errors.diagnostics().to_vec()
        }
    };
    for diagnostic in diagnostics {
        let at = diagnostic.at.expect("a place");
        let line = text.split('\n').nth(at.line - 1).expect("a line of the text");
        assert!((1..=line.chars().count() + 1).contains(&at.column), "{diagnostic}");
        let shown = diagnostic.to_string();
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
    }
}
