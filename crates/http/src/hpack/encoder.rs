//! Fields into blocks.

use super::index::{Index, Key, hash};
use super::statics::{self, index_of, index_of_known, index_of_pseudo};
use super::table::{NameFrom, Table, TableState};
use super::{DEFAULT_TABLE, Pseudo, huffman, integer};
use crate::name::Name;

/// Encodes the header blocks of one connection, in the order in which they are sent.
///
/// For each block: [`Encoder::begin`], the pseudo-fields, the fields.
pub struct Encoder {
    table: Table<Sent>,
    /// The most that we are willing to use.
    own: usize,
    /// Sizes that the peer has to be told at the next block: the least since the last block, and the one from now on.
    resize: Option<(usize, usize)>,
    /// Made together with the first entry.
    index: Option<Box<Index>>,
}

/// What is known of an entry.
#[derive(Clone, Copy, Default)]
struct Sent {
    key: Key,
    /// Was referred to since it is in the table.
    used: bool,
    /// Other values of the same name since then that were not put into the table.
    others: u8,
}

/// How a field's values behave from one message to the next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Habit {
    /// They return, or it shows that they do not.
    Returns,
    /// Each message has another one: in the table they would displace those that return.
    Differs,
    /// They let somebody in. Not in the table, where another client of the same connection could find them by trying
    /// (RFC 7541 §7.1).
    Secret,
}

/// For how many other values of a name whose last entry was of no use none of them is put into the table.
const PATIENCE: u8 = 8;

/// Paths that are longer are taken to differ.
const PATH: usize = 64;

/// Secrets that are shorter could be guessed whole: no hop may index them (RFC 7541 §7.1.3).
const GUESSED: usize = 20;

impl Encoder {
    /// `max_table`: bytes that we are willing to use, however large the peer's table is. As long as the peer does not say how large that
    /// is ([`Encoder::set_peer_table_size`]), it is [`DEFAULT_TABLE`].
    pub fn new(max_table: usize) -> Self {
        let resize = (max_table < DEFAULT_TABLE).then_some((max_table, max_table));
        Self { table: Table::new(DEFAULT_TABLE), own: max_table, resize, index: None }
    }

    /// The peer's `SETTINGS_HEADER_TABLE_SIZE`; call it before the settings are acknowledged. The next block tells what we make of it.
    pub fn set_peer_table_size(&mut self, size: usize) {
        let size = size.min(self.own);
        self.resize = match self.resize {
            Some((least, _)) => Some((least.min(size), size)),
            None if size == self.table.max() => None,
            None => Some((size, size)),
        };
    }

    /// What the references of the next block mean, when that does not have to begin with a change of the size. The same fields become the
    /// same block as long as it is the same.
    pub(crate) fn state(&self) -> Option<TableState> {
        self.resize.is_none().then(|| self.table.state())
    }

    /// Begins a block.
    #[inline]
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some((least, last)) = self.resize.take() {
            for size in [Some(least), (least != last).then_some(last)].into_iter().flatten() {
                self.table.set_max(size);
                integer::encode(size, 5, 0x20, out);
            }
        }
    }

    /// A pseudo-field.
    #[inline]
    pub fn pseudo(&mut self, pseudo: Pseudo, value: &[u8], out: &mut Vec<u8>) {
        let whole = match (pseudo, value) {
            (Pseudo::Method, b"GET") => 2,
            (Pseudo::Method, b"POST") => 3,
            (Pseudo::Path, b"/") => 4,
            (Pseudo::Path, b"/index.html") => 5,
            (Pseudo::Scheme, b"http") => 6,
            (Pseudo::Scheme, b"https") => 7,
            (Pseudo::Status, b"200") => 8,
            (Pseudo::Status, b"204") => 9,
            (Pseudo::Status, b"206") => 10,
            (Pseudo::Status, b"304") => 11,
            (Pseudo::Status, b"400") => 12,
            (Pseudo::Status, b"404") => 13,
            (Pseudo::Status, b"500") => 14,
            _ => 0,
        };
        if whole != 0 {
            out.push(0x80 | whole);
            return;
        }
        let key = Key::pseudo(pseudo);
        if self.repeat(key, value, out) {
            return;
        }
        let habit = match pseudo {
            Pseudo::Path if value.len() > PATH || value.contains(&b'?') => Habit::Differs,
            _ => Habit::Returns,
        };
        self.line(key, index_of_pseudo(pseudo), pseudo.as_bytes(), value, habit, out);
    }

    /// A field. `name` is in lower case and `known` is its number. A `sensitive` field is encoded as never indexed (RFC 7541 §6.2.3), and
    /// so are credentials, whether it is said or not.
    #[inline]
    pub fn field(&mut self, known: Name, name: &[u8], value: &[u8], sensitive: bool, out: &mut Vec<u8>) {
        let key = Key::field(known);
        match habit(known) {
            _ if sensitive => passing(0x10, index_of(known, name) as usize, name, value, out),
            Habit::Secret => {
                let guessed = !matches!(known, Name::Cookie | Name::SetCookie) || value.len() < GUESSED;
                passing(if guessed { 0x10 } else { 0 }, index_of_known(known) as usize, name, value, out);
            }
            Habit::Returns if known != Name::Other && self.repeat(key, value, out) => {}
            habit => self.line(key, index_of_known(known), name, value, habit, out),
        }
    }

    /// The most frequent case, for little: the last entry of a known name has this very value.
    #[inline]
    fn repeat(&mut self, key: Key, value: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(index) = &self.index else { return false };
        let number = index.newest(key);
        let Some(at) = self.table.index(number) else { return false };
        let (own_value, sent) = self.table.value_of(number);
        if sent.key != key || own_value != value {
            return false;
        }
        sent.used = true;
        integer::encode(statics::COUNT + 1 + at, 7, 0x80, out);
        true
    }

    /// A field that is no secret. `statics`: the name's index in the static table; for names without a number it may be 0.
    fn line(&mut self, key: Key, statics: u8, name: &[u8], value: &[u8], habit: Habit, out: &mut Vec<u8>) {
        let name_hash = if key == Key::OTHER { hash(0, name) } else { key.hash() };
        let newest = self.newest(key, name_hash, name);
        let value_hash = || hash(name_hash, value);
        if habit == Habit::Returns
            && let Some(newest) = newest
        {
            if self.table.line(newest).1 == value {
                return self.refer(newest, out);
            }
            if let Some(number) = self.find(value_hash(), key, name, value) {
                self.table.meta(newest).used = true;
                return self.refer(number, out);
            }
        }
        let statics = if statics == 0 && key == Key::OTHER { index_of(Name::Other, name) } else { statics };
        let in_statics = &statics::TABLE[statics as usize];
        if statics != 0 && in_statics.value == value && habit == Habit::Returns {
            out.push(0x80 | statics);
            return;
        }
        let name_index = match newest.and_then(|newest| self.table.index(newest)) {
            _ if statics != 0 => statics as usize,
            Some(index) => statics::COUNT + 1 + index,
            None => 0,
        };
        let cost = Table::<Sent>::cost(name.len(), value.len());
        let insert = cost <= self.table.max() / 2
            && match habit {
                _ if name_index == 0 => true, // for the name's sake
                Habit::Returns if differs_by_nature(statics) => false,
                Habit::Returns => newest.is_none_or(|newest| self.is_worth(newest)),
                Habit::Differs | Habit::Secret => false,
            };
        if !insert {
            return passing(0, name_index, name, value, out);
        }
        entering(name_index, name, value, out);
        let sent = Sent { key, used: false, others: 0 };
        let Some(number) = self.table.insert(NameFrom::Text(name), value, sent) else { return };
        let own = self.own;
        let index = self.index.get_or_insert_with(|| Box::new(Index::new(own)));
        if key == Key::OTHER {
            index.put(name_hash, number, newest);
        } else {
            index.set_newest(key, number);
        }
        if habit == Habit::Returns {
            index.put(value_hash(), number, None);
        }
    }

    /// The newest entry of a name.
    #[inline]
    fn newest(&mut self, key: Key, name_hash: u64, name: &[u8]) -> Option<u32> {
        let index = self.index.as_ref()?;
        if key == Key::OTHER {
            return index
                .find(name_hash, |number| self.table.index(number).is_some() && self.table.line(number).0 == name);
        }
        let number = index.newest(key);
        (self.table.index(number).is_some() && self.table.meta(number).key == key).then_some(number)
    }

    /// An entry with this value.
    #[inline]
    fn find(&self, value_hash: u64, key: Key, name: &[u8], value: &[u8]) -> Option<u32> {
        self.index.as_ref()?.find(value_hash, |number| {
            self.table.index(number).is_some() && {
                let (own_name, own_value, sent) = self.table.line(number);
                sent.key == key && (key != Key::OTHER || own_name == name) && own_value == value
            }
        })
    }

    /// A field that is in the table.
    #[inline]
    fn refer(&mut self, number: u32, out: &mut Vec<u8>) {
        self.table.meta(number).used = true;
        let index = self.table.index(number).unwrap_or_default();
        integer::encode(statics::COUNT + 1 + index, 7, 0x80, out);
    }

    /// Whether another value of a name should be put into the table: its last one there was of use, or it is time to try again.
    fn is_worth(&mut self, newest: u32) -> bool {
        let sent = self.table.meta(newest);
        sent.others += 1;
        sent.used || sent.others > PATIENCE
    }
}

/// A field that enters the tables of both ends (RFC 7541 §6.2.1). A `name_index` of 0: the name is written too.
fn entering(name_index: usize, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    integer::encode(name_index, 6, 0x40, out);
    if name_index == 0 {
        coded(name, out);
    }
    coded(value, out);
}

/// A field that does not (RFC 7541 §6.2.2), or must not at any hop (§6.2.3), as `flags` say. It is written out for each message, and so
/// never in code: the code would save a quarter of its bytes, and costs both ends several times what copying and sending these costs.
fn passing(flags: u8, name_index: usize, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    integer::encode(name_index, 4, flags, out);
    if name_index == 0 {
        plain(name, out);
    }
    plain(value, out);
}

/// Names that are not in here are observed.
fn habit(name: Name) -> Habit {
    match name {
        Name::Authorization | Name::ProxyAuthorization | Name::Cookie | Name::SetCookie => Habit::Secret,
        Name::Traceparent
        | Name::Tracestate
        | Name::XRequestId
        | Name::Date
        | Name::ContentLength
        | Name::GrpcTimeout
        | Name::GrpcMessage
        | Name::Location
        | Name::EndpointLoadMetrics => Habit::Differs,
        _ => Habit::Returns,
    }
}

/// The same for names that have no number here but one in the static table: age, content-range, etag, expires, if-match,
/// if-modified-since, if-none-match, if-range, if-unmodified-since, last-modified, range.
fn differs_by_nature(statics: u8) -> bool {
    matches!(statics, 21 | 30 | 34 | 36 | 39..=44 | 50)
}

/// A string (RFC 7541 §5.2) in code if that is shorter.
fn coded(text: &[u8], out: &mut Vec<u8>) {
    let length = huffman::length(text);
    if length < text.len() {
        integer::encode(length, 7, 0x80, out);
        huffman::encode(text, length, out);
    } else {
        plain(text, out);
    }
}

/// A string as it is.
#[inline]
fn plain(text: &[u8], out: &mut Vec<u8>) {
    integer::encode(text.len(), 7, 0, out);
    out.extend_from_slice(text);
}
