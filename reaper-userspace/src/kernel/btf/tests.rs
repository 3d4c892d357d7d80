//! Hand-made type information, and the running kernel's.

use proptest::prelude::*;

use super::*;

/// Writes BTF by hand.
#[derive(Default)]
struct Writer {
    types: Vec<u32>,
    strings: Vec<u8>,
}

impl Writer {
    fn name(&mut self, name: &str) -> u32 {
        if self.strings.is_empty() {
            self.strings.push(0);
        }
        if name.is_empty() {
            return 0;
        }
        let at = u32::try_from(self.strings.len()).unwrap();
        self.strings.extend_from_slice(name.as_bytes());
        self.strings.push(0);
        at
    }

    fn add(&mut self, name: &str, kind: u32, kind_flag: bool, vlen: u32, size_or_type: u32, body: &[u32]) {
        let name = self.name(name);
        self.types.extend([name, u32::from(kind_flag) << 31 | kind << 24 | vlen, size_or_type]);
        self.types.extend(body);
    }

    fn finish(self) -> Vec<u8> {
        let types: Vec<u8> = self.types.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut out = Vec::new();
        out.extend(MAGIC.to_ne_bytes());
        out.extend([1, 0]);
        let lengths = [24, 0, types.len(), types.len(), self.strings.len()];
        out.extend(lengths.iter().flat_map(|&n| u32::try_from(n).unwrap().to_ne_bytes()));
        out.extend(types);
        out.extend(self.strings);
        out
    }
}

/// `struct task { int pid; union { struct { int a; int deep; }; int b; }; unsigned x:3, sub:1; };`, an enum, and the type of
/// a tracepoint with two parameters.
fn sample() -> Vec<u8> {
    let mut w = Writer::default();
    w.add("int", kind::INT, false, 0, 4, &[32]); // 1
    let (a, deep) = (w.name("a"), w.name("deep"));
    w.add("", kind::STRUCT, false, 2, 8, &[a, 1, 0, deep, 1, 32]); // 2
    let b = w.name("b");
    w.add("", kind::UNION, false, 2, 8, &[0, 2, 0, b, 1, 0]); // 3
    w.add("", kind::CONST, false, 0, 3, &[]); // 4
    let (pid, x, sub) = (w.name("pid"), w.name("x"), w.name("sub"));
    w.add(
        "task",
        kind::STRUCT,
        true,
        4,
        16,
        &[pid, 1, 0, 0, 4, 32, x, 1, 3 << 24 | 96, sub, 1, 1 << 24 | 99],
    ); // 5
    let (tgid, sid) = (w.name("TGID"), w.name("SID"));
    w.add("pid_type", kind::ENUM, false, 2, 4, &[tgid, 1, sid, 3]); // 6
    w.add("", kind::FUNC_PROTO, false, 2, 0, &[0, 1, 0, 1]); // 7
    w.add("", kind::PTR, false, 0, 7, &[]); // 8
    w.add("btf_trace_x", kind::TYPEDEF, false, 0, 8, &[]); // 9
    w.add("", kind::INT, false, 0, 4, &[5 << 16 | 1]); // 10: an old bitfield's type
    let old = w.name("old");
    w.add("older", kind::STRUCT, false, 1, 4, &[old, 10, 8]); // 11
    w.finish()
}

#[test]
fn finds_members_in_anonymous_ones() {
    let data = sample();
    let btf = Btf::parse(&data).unwrap();
    let byte = |name| btf.member("task", name).unwrap().and_then(Member::byte_offset);
    assert_eq!(byte("pid"), Some(0));
    assert_eq!(byte("deep"), Some(8));
    assert_eq!(byte("b"), Some(4));
    assert_eq!(byte("nothing"), None);
    assert_eq!(btf.member("nobody", "pid"), Ok(None));
    assert_eq!(btf.size("task"), Ok(Some(16)));
}

#[test]
fn reads_bitfields_of_both_encodings() {
    let data = sample();
    let btf = Btf::parse(&data).unwrap();
    let sub = btf.member("task", "sub").unwrap().unwrap();
    assert_eq!(sub, Member { bit_offset: 99, bitfield_bits: 1 });
    assert_eq!(sub.byte_offset(), None);
    let old = btf.member("older", "old").unwrap().unwrap();
    assert_eq!(old, Member { bit_offset: 13, bitfield_bits: 1 });
}

#[test]
fn reads_enumerators_and_parameters() {
    let data = sample();
    let btf = Btf::parse(&data).unwrap();
    assert_eq!(btf.enumerator("pid_type", "SID"), Ok(Some(3)));
    assert_eq!(btf.enumerator("pid_type", "PGID"), Ok(None));
    assert_eq!(btf.parameters("btf_trace_x"), Ok(Some(2)));
    assert_eq!(btf.parameters("btf_trace_y"), Ok(None));
}

#[test]
fn refuses_a_struct_that_contains_itself() {
    let mut w = Writer::default();
    w.add("loop", kind::STRUCT, false, 1, 4, &[0, 1, 0]);
    let data = w.finish();
    let btf = Btf::parse(&data).unwrap();
    assert!(matches!(btf.member("loop", "x"), Err(BtfError::TooDeep(_))));
}

#[test]
fn refuses_what_it_does_not_know() {
    assert_eq!(Btf::parse(b"").unwrap_err(), BtfError::Truncated(0));
    assert_eq!(Btf::parse(&[0; 64]).unwrap_err(), BtfError::Magic);
    let mut w = Writer::default();
    w.add("", 31, false, 0, 0, &[]);
    assert_eq!(Btf::parse(&w.finish()).unwrap_err(), BtfError::UnknownKind { id: 1, kind: 31 });
    let whole = sample();
    for len in 0..whole.len() {
        assert!(Btf::parse(&whole[..len]).is_err(), "{len} bytes");
    }
}

proptest! {
    #[test]
    fn never_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut data = sample();
        for (at, byte) in changes {
            let at = at.index(data.len());
            data[at] = byte;
        }
        if let Ok(btf) = Btf::parse(&data) {
            for tag in ["task", "older", "pid_type"] {
                let _ = (btf.member(tag, "nothing"), btf.size(tag), btf.enumerator(tag, "nothing"));
            }
            let _ = btf.parameters("btf_trace_x");
        }
    }
}
