//! A walker of BTF, the type information that a kernel carries about itself.
//!
//! It answers four questions: at which offset is a member, how large is a struct, what is the value of an enumerator, how
//! many parameters has a function type. The format is in the kernel's Documentation/bpf/btf.rst. The data is outside
//! input here, whoever wrote it: every read is bounds-checked, nesting is bounded, and nothing panics.
//!
//! Not here: names of what to look up (see `offsets`), BTF of modules, and byte orders other than the machine's own.

use rustc_hash::FxHashMap;
use thiserror::Error;

mod excerpt;

pub use excerpt::Excerpt;

/// Where the kernel shows its own BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// `BTF_MAGIC` of include/uapi/linux/btf.h.
const MAGIC: u16 = 0xeb9f;

/// Bytes of a `struct btf_type`.
const TYPE_BYTES: usize = 12;

/// Bytes of a `struct btf_member`.
const MEMBER_BYTES: usize = 12;

/// How deep anonymous structs may lie in each other, and how long a chain of typedefs and qualifiers may be. The kernel's
/// own limit for nesting is 32 (`MAX_RESOLVE_DEPTH`).
const DEPTH_MAX: usize = 32;

/// `BTF_KIND_*` of include/uapi/linux/btf.h.
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const FWD: u32 = 7;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const FLOAT: u32 = 16;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// Why BTF could not be understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BtfError {
    /// It does not begin with the magic number in this machine's byte order.
    #[error("not BTF in this machine's byte order")]
    Magic,
    /// It ends before something that it announced, at this byte.
    #[error("cut short at byte {0}")]
    Truncated(usize),
    /// A type of a kind that is not known, whose length therefore is not known either.
    #[error("type {id} is of unknown kind {kind}")]
    UnknownKind {
        /// The type.
        id: u32,
        /// Its kind.
        kind: u32,
    },
    /// A reference to a type that does not exist.
    #[error("there is no type {0}")]
    NoType(u32),
    /// Types that contain each other, or nest deeper than the kernel allows.
    #[error("type {0} nests too deep")]
    TooDeep(u32),
}

/// A member of a struct or union.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Bits from the start of the outermost struct.
    pub bit_offset: u32,
    /// Bits of a bitfield; 0 for every other member.
    pub bitfield_bits: u32,
}

impl Member {
    /// Bytes from the start of the outermost struct, if the member begins at a byte.
    pub fn byte_offset(self) -> Option<u32> {
        (self.bitfield_bits == 0 && self.bit_offset.is_multiple_of(8)).then_some(self.bit_offset / 8)
    }
}

/// What a `struct btf_type` says about itself.
#[derive(Clone, Copy)]
struct Type {
    kind: u32,
    /// Members, enumerators or parameters.
    vlen: usize,
    /// Whether the offsets of members carry the bits of a bitfield.
    kind_flag: bool,
    name: u32,
    /// A size in bytes or another type, by kind.
    size_or_type: u32,
    /// Where what follows the struct begins.
    body: usize,
}

/// Parsed BTF: an index over the bytes it borrows.
#[derive(Debug)]
pub struct Btf<'a> {
    data: &'a [u8],
    /// The string section.
    strings: &'a [u8],
    /// Where each type begins; type 0 is `void` and has no place.
    offsets: Vec<usize>,
    /// The first definition of each named struct, enum and typedef. C keeps typedefs apart from tags.
    tags: FxHashMap<&'a [u8], u32>,
    typedefs: FxHashMap<&'a [u8], u32>,
}

impl<'a> Btf<'a> {
    /// Indexes BTF as read from [`VMLINUX`].
    ///
    /// # Errors
    /// Every [`BtfError`].
    pub fn parse(data: &'a [u8]) -> Result<Self, BtfError> {
        if u16::from_ne_bytes(bytes(data, 0)?) != MAGIC {
            return Err(BtfError::Magic);
        }
        let header = word(data, 4)?;
        let section = |at: usize| -> Result<(usize, usize), BtfError> {
            let start = add(header, word(data, at)?)?;
            let end = add(start, word(data, at + 4)?)?;
            if end > data.len() { Err(BtfError::Truncated(data.len())) } else { Ok((start, end)) }
        };
        let (types, types_end) = section(8)?;
        let (strings, strings_end) = section(16)?;
        let strings = data.get(strings..strings_end).ok_or(BtfError::Truncated(data.len()))?;
        let data = data.get(..types_end).ok_or(BtfError::Truncated(data.len()))?;

        let mut btf = Self {
            data,
            strings,
            offsets: vec![0],
            tags: FxHashMap::default(),
            typedefs: FxHashMap::default(),
        };
        btf.index(types)?;
        Ok(btf)
    }

    /// The member `name` of the struct or union `tag`, wherever in anonymous members it lies. `None` if there is no such
    /// type or member.
    ///
    /// # Errors
    /// [`BtfError`] if the types around it cannot be followed.
    pub fn member(&self, tag: &str, name: &str) -> Result<Option<Member>, BtfError> {
        match self.tags.get(tag.as_bytes()) {
            Some(&id) => self.member_of(id, name.as_bytes(), 0, DEPTH_MAX),
            None => Ok(None),
        }
    }

    /// Bytes of the struct or union `tag`.
    ///
    /// # Errors
    /// [`BtfError`] if the type cannot be read.
    pub fn size(&self, tag: &str) -> Result<Option<u32>, BtfError> {
        let Some(&id) = self.tags.get(tag.as_bytes()) else {
            return Ok(None);
        };
        let found = self.type_at(id)?;
        Ok(matches!(found.kind, kind::STRUCT | kind::UNION).then_some(found.size_or_type))
    }

    /// The value of the enumerator `name` of the enum `tag`.
    ///
    /// # Errors
    /// [`BtfError`] if the type cannot be read.
    pub fn enumerator(&self, tag: &str, name: &str) -> Result<Option<i64>, BtfError> {
        let Some(&id) = self.tags.get(tag.as_bytes()) else {
            return Ok(None);
        };
        let found = self.type_at(id)?;
        let step = match found.kind {
            kind::ENUM => 8,
            kind::ENUM64 => 12,
            _ => return Ok(None),
        };
        for at in (found.body..).step_by(step).take(found.vlen) {
            if self.string(self.word(at)?) == name.as_bytes() {
                let low = self.word(at + 4)?;
                return Ok(Some(if step == 8 {
                    i64::from(low.cast_signed())
                } else {
                    (i64::from(self.word(at + 8)?) << 32) | i64::from(low)
                }));
            }
        }
        Ok(None)
    }

    /// The number of parameters of the function type that the typedef `name` points to. For `btf_trace_NAME` that is one
    /// more than the tracepoint's arguments.
    ///
    /// # Errors
    /// [`BtfError`] if the chain of types cannot be followed.
    pub fn parameters(&self, name: &str) -> Result<Option<usize>, BtfError> {
        let Some(&typedef) = self.typedefs.get(name.as_bytes()) else {
            return Ok(None);
        };
        let pointer = self.type_at(self.plain(typedef)?)?;
        if pointer.kind != kind::PTR {
            return Ok(None);
        }
        let function = self.type_at(self.plain(pointer.size_or_type)?)?;
        Ok((function.kind == kind::FUNC_PROTO).then_some(function.vlen))
    }

    /// Walks all types once.
    fn index(&mut self, start: usize) -> Result<(), BtfError> {
        let mut at = start;
        while at < self.data.len() {
            let id = u32::try_from(self.offsets.len()).map_err(|_| BtfError::Truncated(at))?;
            self.offsets.push(at);
            let found = self.read(at)?;
            let name = self.string(found.name);
            if !name.is_empty() {
                match found.kind {
                    kind::STRUCT | kind::UNION | kind::ENUM | kind::ENUM64 => {
                        self.tags.entry(name).or_insert(id);
                    }
                    kind::TYPEDEF => {
                        self.typedefs.entry(name).or_insert(id);
                    }
                    _ => {}
                }
            }
            at = add(found.body, body_bytes(id, found)?)?;
            if at > self.data.len() {
                return Err(BtfError::Truncated(self.data.len()));
            }
        }
        Ok(())
    }

    /// Looks for a member of type `id`, which lies `base` bits into the outermost struct.
    fn member_of(&self, id: u32, name: &[u8], base: u32, depth: usize) -> Result<Option<Member>, BtfError> {
        if depth == 0 {
            return Err(BtfError::TooDeep(id));
        }
        let outer = self.type_at(id)?;
        if !matches!(outer.kind, kind::STRUCT | kind::UNION) {
            return Ok(None);
        }
        for at in (outer.body..).step_by(MEMBER_BYTES).take(outer.vlen) {
            let member_name = self.string(self.word(at)?);
            let member_type = self.word(at + 4)?;
            let raw = self.word(at + 8)?;
            let (offset, bits) = if outer.kind_flag { (raw & 0x00ff_ffff, raw >> 24) } else { (raw, 0) };
            let bit_offset = base.checked_add(offset).ok_or(BtfError::Truncated(at))?;
            if member_name == name {
                return self.bitfield(member_type, bit_offset, bits).map(Some);
            }
            if member_name.is_empty() {
                let inner = self.plain(member_type)?;
                if inner != 0
                    && let Some(found) = self.member_of(inner, name, bit_offset, depth - 1)?
                {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// A member, with the bits of the older encoding of bitfields: there the integer's type holds them.
    fn bitfield(&self, member_type: u32, bit_offset: u32, bits: u32) -> Result<Member, BtfError> {
        let id = self.plain(member_type)?;
        if bits == 0 && id != 0 {
            let found = self.type_at(id)?;
            if found.kind == kind::INT {
                let encoding = self.word(found.body)?;
                let (int_bits, int_offset) = (encoding & 0xff, (encoding >> 16) & 0xff);
                if u64::from(int_bits) != u64::from(found.size_or_type) * 8 {
                    let bit_offset =
                        bit_offset.checked_add(int_offset).ok_or(BtfError::Truncated(found.body))?;
                    return Ok(Member { bit_offset, bitfield_bits: int_bits });
                }
            }
        }
        Ok(Member { bit_offset, bitfield_bits: bits })
    }

    /// The type behind typedefs, qualifiers and tags.
    fn plain(&self, id: u32) -> Result<u32, BtfError> {
        let mut at = id;
        for _ in 0..DEPTH_MAX {
            if at == 0 {
                return Ok(0);
            }
            let found = self.type_at(at)?;
            match found.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    at = found.size_or_type;
                }
                _ => return Ok(at),
            }
        }
        Err(BtfError::TooDeep(id))
    }

    fn type_at(&self, id: u32) -> Result<Type, BtfError> {
        match self.offsets.get(id as usize) {
            Some(&at) if id != 0 => self.read(at),
            _ => Err(BtfError::NoType(id)),
        }
    }

    fn read(&self, at: usize) -> Result<Type, BtfError> {
        let info = self.word(at + 4)?;
        Ok(Type {
            kind: (info >> 24) & 0x1f,
            vlen: (info & 0xffff) as usize,
            kind_flag: info >> 31 == 1,
            name: self.word(at)?,
            size_or_type: self.word(at + 8)?,
            body: at + TYPE_BYTES,
        })
    }

    /// The string at an offset of the string section, without its NUL; empty if there is none.
    fn string(&self, offset: u32) -> &'a [u8] {
        let rest = self.strings.get(offset as usize..).unwrap_or_default();
        rest.split(|&byte| byte == 0).next().unwrap_or_default()
    }

    fn word(&self, at: usize) -> Result<u32, BtfError> {
        word(self.data, at)
    }
}

/// Bytes that follow the `struct btf_type`.
fn body_bytes(id: u32, found: Type) -> Result<usize, BtfError> {
    Ok(match found.kind {
        kind::INT | kind::VAR | kind::DECL_TAG => 4,
        kind::ARRAY => 12,
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => found.vlen * 12,
        kind::ENUM | kind::FUNC_PROTO => found.vlen * 8,
        kind::PTR
        | kind::FWD
        | kind::TYPEDEF
        | kind::VOLATILE
        | kind::CONST
        | kind::RESTRICT
        | kind::FUNC
        | kind::FLOAT
        | kind::TYPE_TAG => 0,
        kind => return Err(BtfError::UnknownKind { id, kind }),
    })
}

fn word(data: &[u8], at: usize) -> Result<u32, BtfError> {
    bytes(data, at).map(u32::from_ne_bytes)
}

fn bytes<const N: usize>(data: &[u8], at: usize) -> Result<[u8; N], BtfError> {
    data.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or(BtfError::Truncated(data.len()))
}

fn add(a: impl TryInto<usize>, b: impl TryInto<usize>) -> Result<usize, BtfError> {
    let sum = a.try_into().ok().zip(b.try_into().ok()).and_then(|(a, b)| a.checked_add(b));
    sum.ok_or(BtfError::Truncated(usize::MAX))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::too_many_arguments, reason = "tests")]
mod tests;
