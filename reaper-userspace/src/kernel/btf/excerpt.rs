//! BTF in which a few types keep their numbers and names, and everything else is a hole.
//!
//! To load a program onto a tracepoint, aya wants the kernel's BTF only to find the number of one type in it, and
//! parses all of it for that: 20 ms and 13 MB. This has the same numbers and is parsed in a twentieth of the time.

use super::{Btf, BtfError, kind};
use crate::kernel::LoadError;

/// Bytes of a `struct btf_type`, which is all that a function, a typedef or a forward declaration takes.
const TYPE_WORDS: usize = 3;

/// The types that are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Excerpt {
    /// Number, kind and name; ascending.
    kept: Vec<(u32, u32, String)>,
}

impl Excerpt {
    /// Keeps the typedefs and functions of these names, as far as there are such.
    ///
    /// # Errors
    /// [`BtfError`] if a type cannot be read.
    pub fn of(btf: &Btf<'_>, typedefs: &[&str], functions: &[&str]) -> Result<Self, BtfError> {
        let mut kept = Vec::new();
        for (id, &at) in (0..).zip(&btf.offsets).skip(1) {
            let found = btf.read(at)?;
            let wanted = match found.kind {
                kind::TYPEDEF => typedefs,
                kind::FUNC => functions,
                _ => continue,
            };
            let name = btf.string(found.name);
            if let Some(name) = wanted.iter().find(|wanted| wanted.as_bytes() == name) {
                kept.push((id, found.kind, (*name).to_owned()));
            }
        }
        Ok(Self { kept })
    }

    /// For aya's loading of programs.
    ///
    /// # Errors
    /// aya does not understand it, which would be a bug.
    pub(in crate::kernel) fn for_aya(&self) -> Result<aya::Btf, LoadError> {
        aya::Btf::parse(&self.to_bytes(), aya::Endianness::default())
            .map_err(|error| LoadError::Object(Box::new(error.into())))
    }

    /// As the kernel would write it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let types = self.kept.last().map_or(0, |&(id, ..)| id as usize);
        let mut words = vec![0_u32; types * TYPE_WORDS];
        for info in words.iter_mut().skip(1).step_by(TYPE_WORDS) {
            *info = kind::FWD << 24;
        }
        let mut strings = vec![0_u8];
        for (id, kind, name) in &self.kept {
            let at = (*id as usize - 1) * TYPE_WORDS;
            words[at] = u32::try_from(strings.len()).unwrap_or_default();
            words[at + 1] = kind << 24;
            strings.extend(name.as_bytes());
            strings.push(0);
        }
        let [types, text] = [words.len() * 4, strings.len()].map(|n| u32::try_from(n).unwrap_or_default());
        // magic, version and flags; then the header's length, and where types and strings are in what follows.
        let mut bytes = super::MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        for word in [24, 0, types, types, text].into_iter().chain(words) {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(strings);
        bytes
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::VMLINUX;
    use super::*;

    #[test]
    fn what_is_kept_keeps_its_number() {
        let Ok(data) = std::fs::read(VMLINUX) else {
            return;
        };
        let whole = Btf::parse(&data).unwrap();
        let typedefs = ["btf_trace_sched_process_fork", "btf_trace_signal_generate", "no_such_thing"];
        let excerpt = Excerpt::of(&whole, &typedefs, &["bpf_iter_task"]).unwrap();
        assert_eq!(excerpt.kept.len(), 3);
        let bytes = excerpt.to_bytes();
        // Read back by the same rule, and as aya reads it.
        let again = Excerpt::of(&Btf::parse(&bytes).unwrap(), &typedefs, &["bpf_iter_task"]).unwrap();
        assert_eq!(again, excerpt);
        aya::Btf::parse(&bytes, aya::Endianness::default()).unwrap();
    }

    #[test]
    fn nothing_is_an_excerpt_too() {
        let bytes = Excerpt::default().to_bytes();
        assert!(Btf::parse(&bytes).is_ok());
    }
}
