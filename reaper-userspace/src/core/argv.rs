//! The arguments of a process, in one piece of memory: they are kept for every process of a host, and made for every exec.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// So much of a command line is told, bytes: a record is no longer because somebody's arguments are. Patterns are matched against
/// what was read, not against this.
const TOLD: usize = 4096;

/// Arguments, each with a NUL after it as in the process's own memory; so there is a difference between no argument and an empty
/// one. Cloning copies nothing. In JSON it is a list of strings.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Argv(Arc<str>);

impl Argv {
    /// Arguments as they lie in memory: a NUL after each, also after the last unless they were cut there. What is not UTF-8 is
    /// replaced, as in [`String::from_utf8_lossy`].
    pub fn from_memory(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok("") => Self::default(),
            Ok(text) if text.ends_with('\0') => Self(text.into()),
            _ => bytes
                .strip_suffix(b"\0")
                .unwrap_or(bytes)
                .split(|&byte| byte == 0)
                .map(String::from_utf8_lossy)
                .collect(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.split_terminator('\0')
    }

    /// Joined with spaces: what `cmdline` patterns are matched against.
    pub fn line(&self) -> String {
        let mut line = String::new();
        self.line_into(&mut line);
        line
    }

    /// The same at the end of a text.
    pub fn line_into(&self, text: &mut String) {
        text.reserve(self.0.len());
        for (n, argument) in self.iter().enumerate() {
            if n > 0 {
                text.push(' ');
            }
            text.push_str(argument);
        }
    }

    /// As records have them: not all if they are very long.
    pub(super) fn told(&self) -> Self {
        if self.0.len() <= TOLD {
            return self.clone();
        }
        let begin = &self.0[..self.0.floor_char_boundary(TOLD)];
        let end = if begin.ends_with('\0') { "" } else { "\0" };
        Self([begin, end].concat().into())
    }
}

impl<S: AsRef<str>> FromIterator<S> for Argv {
    /// No process has an argument with a NUL in it, but JSON may: it is replaced like anything else that is no text.
    fn from_iter<I: IntoIterator<Item = S>>(arguments: I) -> Self {
        let mut text = String::new();
        for argument in arguments {
            let argument = argument.as_ref();
            let begin = text.len();
            text.push_str(argument);
            if argument.contains('\0') {
                text.truncate(begin);
                text.extend(
                    argument.chars().map(|c| if c == '\0' { char::REPLACEMENT_CHARACTER } else { c }),
                );
            }
            text.push('\0');
        }
        Self(text.into())
    }
}

impl fmt::Debug for Argv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Serialize for Argv {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Argv {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<String>::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(argv: &Argv) -> Vec<&str> {
        argv.iter().collect()
    }

    #[test]
    fn no_argument_is_not_an_empty_one() {
        let of = |bytes: &[u8]| Argv::from_memory(bytes).iter().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(of(b""), Vec::<String>::new());
        assert_eq!(of(b"\0"), [""]);
        assert_eq!(of(b"php\0\0art\0"), ["php", "", "art"]);
        assert_eq!(of(b"php\0\0"), ["php", ""]);
        assert_eq!(of(b"php\0arti"), ["php", "arti"]);
        assert!(Argv::default().is_empty() && !Argv::from_memory(b"\0").is_empty());
        assert_eq!((Argv::default().len(), Argv::from_memory(b"\0").len()), (0, 1));
        assert_eq!(Argv::from_iter([""; 0]), Argv::default());
    }

    #[test]
    fn json_is_a_list_of_strings() {
        for json in ["[]", r#"[""]"#, r#"["php","","a b","ö\n"]"#] {
            let argv: Argv = serde_json::from_str(json).expect("a list");
            assert_eq!(serde_json::to_string(&argv).expect("JSON"), json);
        }
        let argv: Argv = serde_json::from_str(r#"["a\u0000b","\u0000",""]"#).expect("a list");
        assert_eq!(list(&argv), ["a\u{fffd}b", "\u{fffd}", ""]);
        assert!(serde_json::from_str::<Argv>("\"php\"").is_err());
    }

    #[test]
    fn long_command_lines_are_told_in_part() {
        let short = Argv::from_iter(["php", "artisan", ""]);
        assert!(Arc::ptr_eq(&short.told().0, &short.0));
        let one = Argv::from_iter(["x".repeat(10_000)]);
        assert_eq!((one.told().len(), one.told().0.len()), (1, TOLD + 1));
        let many: Argv = vec!["ö".repeat(50); 1_000].into_iter().collect();
        let told = many.told();
        assert!(told.len() > 39 && told.0.len() <= TOLD + 1, "{} in {}", told.0.len(), told.len());
        let empty: Argv = vec![""; 100_000].into_iter().collect();
        assert_eq!(empty.told().len(), TOLD);
        // Just as long, and one byte longer: of the last argument nothing is left.
        let fits = Argv::from_iter(["x".repeat(TOLD - 1).as_str()]);
        assert_eq!(fits.told(), fits);
        let longer = Argv::from_iter(["x".repeat(TOLD - 2).as_str(), "ö"]);
        assert_eq!(list(&longer.told()), ["x".repeat(TOLD - 2)]);
    }

    proptest! {
        #[test]
        fn any_memory_is_split_at_its_nuls(bytes in prop::collection::vec(prop_oneof![Just(0), Just(b'a'), any::<u8>()], 0..40)) {
            let words = bytes.strip_suffix(b"\0").unwrap_or(&bytes).split(|&byte| byte == 0);
            let words: Vec<_> = words.map(String::from_utf8_lossy).collect();
            let expected = if bytes.is_empty() { Vec::new() } else { words };
            let argv = Argv::from_memory(&bytes);
            prop_assert_eq!(list(&argv), &*expected);
            prop_assert_eq!(argv.line(), expected.join(" "));
            prop_assert_eq!(&argv, &expected.iter().collect::<Argv>());
        }

        #[test]
        fn any_list_of_texts_is_kept(words in prop::collection::vec("[^\0]{0,5}", 0..6)) {
            let argv: Argv = words.iter().collect();
            prop_assert_eq!(list(&argv), &*words);
            prop_assert_eq!(argv.len(), words.len());
            let json = serde_json::to_string(&argv).expect("JSON");
            prop_assert_eq!(&json, &serde_json::to_string(&words).expect("JSON"));
            prop_assert_eq!(serde_json::from_str::<Argv>(&json).expect("a list"), argv);
        }
    }
}
