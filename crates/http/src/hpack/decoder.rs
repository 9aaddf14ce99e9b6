//! Blocks into fields.

use super::statics::{self, TABLE};
use super::table::{NameFrom, Table, TableState};
use super::{DEFAULT_TABLE, HpackFault, Known, huffman, integer};
use crate::fields::{is_token, is_value};
use crate::name::Name;

/// Decodes the header blocks of one connection, in their order.
pub struct Decoder {
    table: Table<Kept>,
    /// What we announced, and what the peer may use now.
    announced: usize,
    permitted: usize,
    /// The next block has to begin with a change of the table's size.
    due: bool,
    /// Strings of the field at hand that were Huffman-coded.
    scratch: Vec<u8>,
}

/// A field of a block. Name and value are valid for the time of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Which field it is.
    pub known: Known,
    /// Its name.
    pub name: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
    /// Has to stay out of the tables of further hops: to be encoded as never indexed again (RFC 7541 §6.2.3).
    pub sensitive: bool,
    /// The name is a token in lower case or a defined pseudo-field, and the value has no control character but tab and no white space
    /// around it. Otherwise the message is malformed (RFC 9113 §8.2.1). Looked at once per field of the table, not for each use of it.
    pub fit: bool,
}

/// What is known of an entry from when it was inserted.
#[derive(Clone, Copy)]
struct Kept {
    known: Known,
    name_fit: bool,
    value_fit: bool,
}

impl Default for Kept {
    fn default() -> Self {
        Self { known: Known::Field(Name::Other), name_fit: false, value_fit: false }
    }
}

/// More scratch than this is not kept for the next block.
const SCRATCH_KEPT: usize = 16 * 1024;

impl Decoder {
    /// `max_table`: the bytes that we announce with `SETTINGS_HEADER_TABLE_SIZE` ([`DEFAULT_TABLE`] when we do not). Until
    /// [`Decoder::acknowledged`], no less than the default is permitted, since the peer need not know better.
    pub fn new(max_table: usize) -> Self {
        Self {
            table: Table::new(DEFAULT_TABLE),
            announced: max_table,
            permitted: max_table.max(DEFAULT_TABLE),
            due: false,
            scratch: Vec::new(),
        }
    }

    /// The peer has acknowledged our settings: what we announced is all it may use, and if that is less than it uses, its next block has
    /// to say so (RFC 7541 §4.2). Need not be called when no less than [`DEFAULT_TABLE`] was announced.
    pub fn acknowledged(&mut self) {
        self.permitted = self.announced;
        self.due = self.table.max() > self.announced;
    }

    /// What the next block's references mean. A block that leaves it as it was can be taken for known when it comes again; but not the
    /// first after [`Decoder::acknowledged`] that must begin with a change of the size.
    pub(crate) fn state(&self) -> Option<TableState> {
        (!self.due).then(|| self.table.state())
    }

    /// Decodes one whole header block: hands name, value, and whether the field is never to be indexed to `field`, one after another.
    /// [`Decoder::decode_lines`] tells more.
    ///
    /// # Errors
    /// A [`HpackFault`], or the first error of `field`. In both cases the rest of the block is not decoded, the table is therefore not
    /// the peer's any more, and the connection has to be closed.
    pub fn decode<E: From<HpackFault>>(
        &mut self,
        block: &[u8],
        mut field: impl FnMut(&[u8], &[u8], bool) -> Result<(), E>,
    ) -> Result<(), E> {
        self.decode_lines(block, |line| field(line.name, line.value, line.sensitive))
    }

    /// Decodes one whole header block: hands each field to `line` together with what the table knows of it.
    ///
    /// No allocation but for the table's growth and for coded strings longer than any before: 8/5 of the block's length at most.
    ///
    /// # Errors
    /// As for [`Decoder::decode`].
    pub fn decode_lines<E: From<HpackFault>>(
        &mut self,
        block: &[u8],
        mut line: impl FnMut(Line<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rest = self.updates(block)?;
        while let Some(first) = rest.first().copied() {
            if first & 0x80 != 0 {
                let index = integer::decode(&mut rest, 7)?;
                line(self.indexed(index)?)?;
            } else if first & 0x40 != 0 {
                self.literal(&mut rest, 6, Indexing::Incremental, &mut line)?;
            } else if first & 0x20 != 0 {
                return Err(HpackFault::UpdateLate.into());
            } else {
                let sensitive = first & 0x10 != 0;
                self.literal(&mut rest, 4, Indexing::None { sensitive }, &mut line)?;
            }
        }
        if self.scratch.len() > SCRATCH_KEPT {
            self.scratch = Vec::new();
        }
        Ok(())
    }

    /// Changes of the table's size, which stand before all fields (RFC 7541 §4.2, §6.3).
    fn updates<'b>(&mut self, mut block: &'b [u8]) -> Result<&'b [u8], HpackFault> {
        while let Some(0x20..=0x3f) = block.first() {
            let size = integer::decode(&mut block, 5)?;
            if size > self.permitted {
                return Err(HpackFault::TableSize);
            }
            self.table.set_max(size);
            self.due = false;
        }
        if self.due { Err(HpackFault::UpdateMissing) } else { Ok(block) }
    }

    /// A field that is in a table (RFC 7541 §6.1).
    #[inline]
    fn indexed(&self, index: usize) -> Result<Line<'_>, HpackFault> {
        if let 1..=statics::COUNT = index {
            let field = &TABLE[index];
            return Ok(Line { known: field.known, name: field.name, value: field.value, sensitive: false, fit: true });
        }
        let (name, value, kept) = self.table.line(self.number(index)?);
        Ok(Line { known: kept.known, name, value, sensitive: false, fit: kept.name_fit && kept.value_fit })
    }

    /// A field whose value, and maybe name, is written here (RFC 7541 §6.2).
    fn literal<E: From<HpackFault>>(
        &mut self,
        rest: &mut &[u8],
        prefix: u32,
        indexing: Indexing,
        line: &mut impl FnMut(Line<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let index = integer::decode(rest, prefix)?;
        let from = match index {
            0 => NameIs::Here(self.string(rest, 0)?),
            1..=statics::COUNT => NameIs::Static(index),
            _ => NameIs::Entry(self.number(index)?),
        };
        let written = if let NameIs::Here(Text::Scratch { end, .. }) = from { end } else { 0 };
        let text = self.string(rest, written)?;
        let value = text.of(&self.scratch);
        let (name, known, name_fit) = match from {
            NameIs::Here(name) => {
                let name = name.of(&self.scratch);
                let known = Known::of(name);
                (name, known, known != Known::Field(Name::Other) || is_lower_token(name))
            }
            NameIs::Static(index) => (TABLE[index].name, TABLE[index].known, true),
            NameIs::Entry(number) => {
                let (name, _, kept) = self.table.line(number);
                (name, kept.known, kept.name_fit)
            }
        };
        let value_fit = is_trimmed(value) && (matches!(text, Text::Scratch { plain: true, .. }) || is_plain(value));
        let sensitive = matches!(indexing, Indexing::None { sensitive: true });
        line(Line { known, name, value, sensitive, fit: name_fit && value_fit })?;
        if let Indexing::Incremental = indexing {
            let kept = Kept { known, name_fit, value_fit };
            let name = match from {
                NameIs::Here(name) => NameFrom::Text(name.of(&self.scratch)),
                NameIs::Static(index) => NameFrom::Text(TABLE[index].name),
                NameIs::Entry(number) => NameFrom::Entry(number),
            };
            self.table.insert(name, value, kept);
        }
        Ok(())
    }

    /// A string (RFC 7541 §5.2); a coded one goes to the scratch from `at` on.
    #[inline]
    fn string<'b>(&mut self, rest: &mut &'b [u8], at: usize) -> Result<Text<'b>, HpackFault> {
        let coded = rest.first().is_some_and(|first| first & 0x80 != 0);
        let length = integer::decode(rest, 7)?;
        let (text, after) = rest.split_at_checked(length).ok_or(HpackFault::Truncated)?;
        *rest = after;
        if !coded {
            return Ok(Text::Block(text));
        }
        let room = at + huffman::most(length);
        if self.scratch.len() < room {
            self.scratch.resize(room.max(256), 0);
        }
        let huffman::Decoded { length, plain } = huffman::decode(text, &mut self.scratch[at..])?;
        Ok(Text::Scratch { start: at, end: at + length, plain })
    }

    /// The number of the entry at an index beyond the static table.
    #[inline]
    fn number(&self, index: usize) -> Result<u32, HpackFault> {
        index.checked_sub(statics::COUNT + 1).and_then(|index| self.table.number(index)).ok_or(HpackFault::Index)
    }

    #[cfg(test)]
    pub(super) fn entries(&self) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let line = |index| self.table.line(self.table.number(index).unwrap());
        (0..self.table.len()).map(line).map(|(name, value, _)| (text(name), text(value))).collect()
    }

    #[cfg(test)]
    pub(super) fn table_size(&self) -> usize {
        self.table.size()
    }
}

enum Indexing {
    Incremental,
    None { sensitive: bool },
}

/// Where a literal's name is.
#[derive(Clone, Copy)]
enum NameIs<'b> {
    Here(Text<'b>),
    Static(usize),
    Entry(u32),
}

/// Where a string is.
#[derive(Clone, Copy)]
enum Text<'b> {
    Block(&'b [u8]),
    /// `plain`: the code told that it has no control characters.
    Scratch {
        start: usize,
        end: usize,
        plain: bool,
    },
}

impl<'b> Text<'b> {
    #[inline]
    fn of<'s: 'r, 'r>(self, scratch: &'s [u8]) -> &'r [u8]
    where
        'b: 'r,
    {
        match self {
            Text::Block(text) => text,
            Text::Scratch { start, end, .. } => &scratch[start..end],
        }
    }
}

/// RFC 9113 §8.2.1: a field's name.
fn is_lower_token(name: &[u8]) -> bool {
    static LOWER: [bool; 256] = {
        let mut lower = [false; 256];
        let mut byte = 0;
        while byte < 256 {
            lower[byte] = is_token(byte as u8) && !(byte as u8).is_ascii_uppercase();
            byte += 1;
        }
        lower
    };
    !name.is_empty() && name.iter().all(|byte| LOWER[*byte as usize])
}

/// RFC 9113 §8.2.1: no white space around a field's value.
#[inline]
fn is_trimmed(value: &[u8]) -> bool {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    !blank(value.first()) && !blank(value.last())
}

/// RFC 9110 §5.5: no control character but tab.
fn is_plain(value: &[u8]) -> bool {
    let mut suspect = 0;
    let mut rest = value;
    while let Some((eight, after)) = rest.split_first_chunk::<8>() {
        suspect |= controls(u64::from_le_bytes(*eight));
        rest = after;
    }
    let all = || value.iter().all(|byte| is_value(*byte));
    match value.last_chunk::<8>() {
        // The last eight again are cheaper than one byte after another.
        Some(last) => suspect | controls(u64::from_le_bytes(*last)) == 0 || all(),
        None => all(),
    }
}

/// Not zero if a byte of the eight is below 32 or is 127.
#[inline]
fn controls(eight: u64) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let low = eight.wrapping_sub(ONES * 0x20) & !eight;
    let delete = eight ^ (ONES * 0x7f);
    (low | delete.wrapping_sub(ONES) & !delete) & (ONES * 0x80)
}
