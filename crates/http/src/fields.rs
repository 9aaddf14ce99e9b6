//! A section of fields: one buffer of bytes, and a list of where in it names and values are.

mod lines;
mod rooms;

use std::fmt;

use crate::name::{Name, Names};

/// Header or trailer fields in their order. Names are in lower case.
///
/// Removing and adding moves no bytes of other fields: what is removed stays in the buffer until [`Fields::clear`], what is added goes
/// to its end. A section can therefore not hold more than 4 GiB, which every limit on heads is far below.
#[derive(Clone, Default)]
pub struct Fields {
    text: Vec<u8>,
    list: Vec<Field>,
    /// No name is in the list that is not here: most that is asked for is not there, and is not looked for.
    names: Names,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Field {
    name: Span,
    value: Span,
    known: Name,
    /// Must not enter the compression state of any hop (RFC 7541 §6.2.3).
    sensitive: bool,
    /// What lies around it in the buffer is its line as HTTP/1.1 writes it: `name: value`, CR, LF.
    line: bool,
}

/// A range of a section's buffer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    length: u32,
}

/// What is no field name or no field value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FieldsFault {
    /// Not a token (RFC 9110 §5.6.2).
    #[error("a field's name is no token")]
    Name,
    /// Holds CR, LF, NUL or another control character (RFC 9110 §5.5).
    #[error("a field's value holds a control character")]
    Value,
}

impl Fields {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// With room for so many bytes and fields.
    pub fn with_capacity(bytes: usize, fields: usize) -> Self {
        Self { text: Vec::with_capacity(bytes), list: Vec::with_capacity(fields), names: Names::default() }
    }

    /// None, with the room of a section that is gone.
    pub fn roomy() -> Self {
        rooms::take()
    }

    /// Forgets all fields and keeps the room.
    pub fn clear(&mut self) {
        self.text.clear();
        self.list.clear();
        self.names = Names::default();
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Size as HTTP/2 counts it (RFC 9113 §6.5.2): names, values, and 32 for each field.
    pub fn list_size(&self) -> usize {
        self.list.iter().map(|field| (field.name.length + field.value.length) as usize + 32).sum()
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.list.iter().map(|field| (self.bytes(field.name), self.bytes(field.value)))
    }

    /// The same with what codecs need: the name's number, and whether the field may be indexed by compression.
    pub fn entries(&self) -> impl Iterator<Item = (Name, &[u8], &[u8], bool)> {
        self.list.iter().map(|field| (field.known, self.bytes(field.name), self.bytes(field.value), field.sensitive))
    }

    /// The first value of the field.
    #[inline]
    pub fn get(&self, name: Name) -> Option<&[u8]> {
        if !self.names.has(name) {
            return None;
        }
        self.list.iter().find(|field| field.known == name).map(|field| self.bytes(field.value))
    }

    /// The first value of the field, when it is text.
    pub fn get_str(&self, name: Name) -> Option<&str> {
        std::str::from_utf8(self.get(name)?).ok()
    }

    /// Whether any of these may be there: false only when none is.
    #[inline]
    pub fn may_have(&self, names: Names) -> bool {
        self.names.share(names)
    }

    /// Whether the field is there.
    #[inline]
    pub fn has(&self, name: Name) -> bool {
        self.names.has(name) && self.list.iter().any(|field| field.known == name)
    }

    /// All values of the field, in order.
    pub fn all(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        let list = if self.names.has(name) { &self.list[..] } else { &[] };
        list.iter().filter(move |field| field.known == name).map(|field| self.bytes(field.value))
    }

    /// All values of a field of any name (in lower case), in order.
    pub fn named<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.list.iter().filter(move |field| self.bytes(field.name) == name).map(|field| self.bytes(field.value))
    }

    /// The members of a comma-separated field over all its lines, without white space, without empty ones (RFC 9110 §5.6.1).
    pub fn members(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        self.all(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|m| !m.is_empty())
    }

    /// Adds a field of a known name at the end. The value is trusted: it came out of a parser or was made here.
    pub fn push(&mut self, name: Name, value: &[u8]) {
        self.push_as(name, name.as_bytes(), value, false);
    }

    /// Adds a field at the end. Name and value are trusted, the name is in lower case.
    pub fn push_other(&mut self, name: &[u8], value: &[u8]) {
        self.push_as(Name::of(name), name, value, false);
    }

    /// Adds a field that must not enter any compression state.
    pub fn push_sensitive(&mut self, name: &[u8], value: &[u8]) {
        self.push_as(Name::of(name), name, value, true);
    }

    /// Adds a field that came from outside: the name is put into lower case, both are looked at.
    ///
    /// # Errors
    /// The name is no token, or the value holds a control character.
    pub fn push_checked(&mut self, name: &[u8], value: &[u8]) -> Result<(), FieldsFault> {
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
            return Err(FieldsFault::Name);
        }
        if !value.iter().all(|byte| is_value(*byte)) {
            return Err(FieldsFault::Value);
        }
        self.push_lowered(name, value);
        Ok(())
    }

    /// Adds a field whose name and value were checked by a parser; puts the name into lower case.
    pub fn push_lowered(&mut self, name: &[u8], value: &[u8]) {
        let start = self.text.len();
        self.text.extend_from_slice(name);
        self.text[start..].make_ascii_lowercase();
        let known = Name::of(&self.text[start..]);
        let name = Span::new(start, name.len());
        let value = self.keep(value);
        self.names.add(known);
        self.list.push(Field { name, value, known, sensitive: false, line: false });
    }

    /// Removes all others of this name and adds this one.
    pub fn set(&mut self, name: Name, value: &[u8]) {
        self.remove(name);
        self.push(name, value);
    }

    /// Removes all others of this name (in lower case) and adds this one.
    pub fn set_other(&mut self, name: &[u8], value: &[u8]) {
        self.remove_other(name);
        self.push_other(name, value);
    }

    /// Removes all of this name; whether there was one.
    #[inline]
    pub fn remove(&mut self, name: Name) -> bool {
        self.remove_all(Names::of(&[name]))
    }

    /// Removes all of these names; whether there was one.
    pub fn remove_all(&mut self, names: Names) -> bool {
        if !self.names.share(names) {
            return false;
        }
        let before = self.list.len();
        self.list.retain(|field| !names.has(field.known));
        self.names.take(names);
        before != self.list.len()
    }

    /// Removes all of this name (in lower case); whether there was one.
    pub fn remove_other(&mut self, name: &[u8]) -> bool {
        let before = self.list.len();
        let text = &self.text;
        self.list.retain(|field| field.name.of(text) != name);
        before != self.list.len()
    }

    /// Adds a field at the end whose name somebody has recognised already: `known` is `Name::of(name)`. Name and value are trusted.
    #[inline]
    pub fn push_as(&mut self, known: Name, name: &[u8], value: &[u8], sensitive: bool) {
        let start = self.text.len();
        self.text.reserve(name.len() + value.len());
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(value);
        let (name, value) = (Span::new(start, name.len()), Span::new(start + name.len(), value.len()));
        self.names.add(known);
        self.list.push(Field { name, value, known, sensitive, line: false });
    }

    /// How many bytes lie in the buffer: about what writing them takes.
    pub(crate) fn text_len(&self) -> usize {
        self.text.len()
    }

    /// A copy that uses the room of `room`.
    pub(crate) fn copy_into(&self, mut room: Fields) -> Fields {
        room.clear();
        room.text.extend_from_slice(&self.text);
        room.list.extend_from_slice(&self.list);
        room.names = self.names;
        room
    }

    /// Whether buffers and places are the same: more than equal. Does not look into the fields, so that it is cheap.
    pub(crate) fn is_identical(&self, other: &Fields) -> bool {
        self.text.len() == other.text.len() && self.text == other.text && self.list == other.list
    }

    /// Bytes that belong to the head but to no field.
    pub(crate) fn keep(&mut self, bytes: &[u8]) -> Span {
        let start = self.text.len();
        self.text.extend_from_slice(bytes);
        Span::new(start, bytes.len())
    }

    pub(crate) fn bytes(&self, span: Span) -> &[u8] {
        span.of(&self.text)
    }

    /// Where the first value of the field is: valid until [`Fields::clear`], also after the field was removed.
    pub(crate) fn span(&self, name: Name) -> Option<Span> {
        if !self.names.has(name) {
            return None;
        }
        self.list.iter().find(|field| field.known == name).map(|field| field.value)
    }
}

impl Drop for Fields {
    fn drop(&mut self) {
        rooms::give(self);
    }
}

impl Span {
    pub(crate) fn new(start: usize, length: usize) -> Self {
        // Bounded by the limits on heads.
        Self { start: start as u32, length: length as u32 }
    }

    pub(crate) fn start(self) -> usize {
        self.start as usize
    }

    pub(crate) fn part(self, from: usize, length: usize) -> Self {
        Self { start: self.start + from as u32, length: length as u32 }
    }

    pub(crate) fn len(self) -> usize {
        self.length as usize
    }

    fn end(self) -> u32 {
        self.start + self.length
    }

    #[inline(always)]
    fn of(self, text: &[u8]) -> &[u8] {
        // Never beyond it. Without a panic, what nobody looks at is not computed.
        text.get(self.start as usize..self.end() as usize).unwrap_or_default()
    }
}

/// RFC 9110 §5.6.2, `tchar`.
#[inline]
pub(crate) const fn is_token(byte: u8) -> bool {
    const TOKEN: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 128 {
            table[byte as usize] = matches!(
                byte,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            ) || byte.is_ascii_alphanumeric();
            byte += 1;
        }
        table
    };
    TOKEN[byte as usize]
}

/// RFC 9110 §5.5: visible characters, space, tab, and bytes above 127.
pub(crate) const fn is_value(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(n, v)| (String::from_utf8_lossy(n), String::from_utf8_lossy(v))))
            .finish()
    }
}

impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_order_and_are_found_by_number_and_by_text() {
        let mut fields = Fields::new();
        fields.push_checked(b"Accept", b"*/*").unwrap();
        fields.push_checked(b"X-Mine", b"1").unwrap();
        fields.push_checked(b"accept", b"text/plain, ,image/png").unwrap();
        assert_eq!(fields.get(Name::Accept), Some(&b"*/*"[..]));
        assert_eq!(fields.all(Name::Accept).count(), 2);
        assert_eq!(fields.named(b"x-mine").collect::<Vec<_>>(), [b"1"]);
        assert_eq!(fields.members(Name::Accept).collect::<Vec<_>>(), [&b"*/*"[..], b"text/plain", b"image/png"]);
        fields.set(Name::Accept, b"a");
        let all: Vec<_> = fields.iter().collect();
        assert_eq!(all, [(&b"x-mine"[..], &b"1"[..]), (b"accept", b"a")]);
        assert!(fields.remove_other(b"x-mine") && !fields.remove_other(b"x-mine"));
        assert_eq!(fields.list_size(), 6 + 1 + 32);
    }

    #[test]
    fn what_could_break_a_line_is_refused() {
        let mut fields = Fields::new();
        for (name, value) in [(&b""[..], &b"x"[..]), (b"a b", b"x"), (b"a:", b"x"), (b"a", b"x\r\ny: z"), (b"a", b"\0")]
        {
            assert!(fields.push_checked(name, value).is_err(), "{name:?} {value:?}");
        }
        assert!(fields.is_empty());
        fields.push_checked(b"a", "\tgr\u{fc}n".as_bytes()).unwrap();
    }

    const SOME: [Name; 5] = [Name::Host, Name::Te, Name::Connection, Name::ContentLength, Name::Traceparent];

    proptest::proptest! {
        /// Against a list that is searched each time.
        #[test]
        fn what_is_there_is_found_and_nothing_else(steps in proptest::collection::vec((0..6, 0..5usize, 0..5usize), 0..40)) {
            let (mut fields, mut list) = (Fields::new(), Vec::<(Name, Vec<u8>)>::new());
            for (number, (kind, at, other)) in steps.into_iter().enumerate() {
                let (name, value) = (SOME[at], number.to_string().into_bytes());
                match kind {
                    0 | 1 => {
                        fields.push(name, &value);
                        list.push((name, value));
                    }
                    2 => {
                        fields.push_checked(&name.as_bytes().to_ascii_uppercase(), &value).unwrap();
                        list.push((name, value));
                    }
                    3 => {
                        fields.set(name, &value);
                        list.retain(|field| field.0 != name);
                        list.push((name, value));
                    }
                    4 => {
                        fields.remove_other(name.as_bytes());
                        list.retain(|field| field.0 != name);
                    }
                    _ => {
                        let names = [name, SOME[other]];
                        let before = list.len();
                        list.retain(|field| !names.contains(&field.0));
                        proptest::prop_assert_eq!(fields.remove_all(Names::of(&names)), list.len() < before);
                    }
                }
                for name in SOME {
                    let there: Vec<_> = list.iter().filter(|field| field.0 == name).map(|field| &field.1[..]).collect();
                    proptest::prop_assert_eq!(fields.all(name).collect::<Vec<_>>(), &there[..]);
                    proptest::prop_assert_eq!((fields.get(name), fields.has(name)), (there.first().copied(), !there.is_empty()));
                }
            }
        }
    }
}
