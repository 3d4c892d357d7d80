//! No text makes the configuration panic, and every error points into the text.

use proptest::prelude::*;

use super::super::{Config, Diagnostic};
use super::CONTRACT;

fn survives(text: &str) {
    let diagnostics: Vec<Diagnostic> = match Config::parse("f", text) {
        Ok(config) => config.warnings,
        Err(errors) => {
            assert!(!errors.diagnostics().is_empty());
            assert!(!errors.to_string().chars().any(|c| c.is_control() && c != '\n'));
            errors.diagnostics().to_vec()
        }
    };
    for Diagnostic { at, message, .. } in diagnostics {
        let at = at.unwrap();
        let line = text.split('\n').nth(at.line - 1);
        assert!(line.is_some_and(|l| at.column <= l.chars().count() + 1), "{at:?} is outside: {message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

/// What configurations are made of, and what they are not.
fn token() -> impl Strategy<Value = String> {
    let lines: Vec<String> = CONTRACT.lines().map(|l| format!("{l}\n")).collect();
    prop_oneof![
        4 => proptest::sample::select(lines),
        1 => proptest::sample::select(vec![
            "[", "]", "[[", "]]", "{", "}", "=", ".", ",", "\"", "'", "\"\"\"", "'''", "\n", "#", "\\", "\r", "\0",
            "group", "agent", "master", "1", "-9223372036854775809", "1e999", "inf", "true", "\u{feff}", "(?i", "{9}",
        ].into_iter().map(str::to_owned).collect::<Vec<_>>()),
        1 => "\\PC{0,12}",
    ]
}

proptest! {
    // Compiling the patterns is slow without optimisation; PROPTEST_CASES asks for more.
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases / 2,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_text(text in any::<String>()) {
        survives(&text);
    }

    #[test]
    fn pieces_of_configurations(tokens in proptest::collection::vec(token(), 0..24)) {
        survives(&tokens.concat());
    }

    #[test]
    fn a_good_one_with_a_piece_replaced(from in 0..CONTRACT.len(), length in 0..40usize, piece in token()) {
        let to = (from + length).min(CONTRACT.len());
        survives(&format!("{}{piece}{}", &CONTRACT[..from], &CONTRACT[to..]));
    }

    #[test]
    fn a_good_one_with_a_value_replaced(line in 0..40usize, value in "'\\PC{0,30}'|\"[ -~]{0,12}\"|-?[0-9]{1,22}|\\[('[ -&(-~]{0,9}',?){0,3}\\]") {
        let replaced: Vec<String> = CONTRACT.lines().enumerate().map(|(i, l)| match l.split_once(" = ") {
            Some((key, _)) if i == line => format!("{key} = {value}"),
            _ => l.to_owned(),
        }).collect();
        survives(&replaced.join("\n"));
    }
}
