//! The static table (RFC 7541, Appendix A), and the ways into it, all made when compiling.

use super::{Known, Pseudo};
use crate::name::Name;

/// How many fields the table has. Indices start at 1; the dynamic table's follow.
pub(super) const COUNT: usize = 61;

/// A field of the table.
#[derive(Clone, Copy)]
pub(super) struct Static {
    pub name: &'static [u8],
    pub value: &'static [u8],
    pub known: Known,
}

/// By index; that of zero is empty and stands for nothing.
pub(super) static TABLE: [Static; COUNT + 1] = {
    let mut table = [Static { name: b"", value: b"", known: Known::Field(Name::Other) }; COUNT + 1];
    let mut at = 0;
    while at < COUNT {
        let name = TEXT[at].0.as_bytes();
        table[at + 1] = Static { name, value: TEXT[at].1.as_bytes(), known: known(name) };
        at += 1;
    }
    table
};

/// The first index of a field's name, or 0.
#[inline]
pub(super) fn index_of(name: Name, text: &[u8]) -> u8 {
    match name {
        Name::Other => index_of_other(text),
        known => index_of_known(known),
    }
}

/// The same; 0 for [`Name::Other`].
#[inline]
pub(super) fn index_of_known(name: Name) -> u8 {
    BY_NAME[name as usize]
}

/// The first index of a pseudo-field, or 0.
#[inline]
pub(super) fn index_of_pseudo(pseudo: Pseudo) -> u8 {
    match pseudo {
        Pseudo::Authority => 1,
        Pseudo::Method => 2,
        Pseudo::Path => 4,
        Pseudo::Scheme => 6,
        Pseudo::Status => 8,
        Pseudo::Protocol => 0,
    }
}

/// Names without a number, looked for among those of the same length.
fn index_of_other(text: &[u8]) -> u8 {
    let Some([from, to]) = BY_LENGTH.starts.get(text.len()..text.len() + 2) else { return 0 };
    let candidates = &BY_LENGTH.indices[*from as usize..*to as usize];
    candidates.iter().copied().find(|index| TABLE[*index as usize].name == text).unwrap_or(0)
}

static BY_NAME: [u8; Name::ALL.len() + 1] = {
    let mut by_name = [0; Name::ALL.len() + 1];
    let mut index = COUNT;
    while index > 0 {
        if let Known::Field(name) = TABLE[index].known {
            by_name[name as usize] = index as u8;
        }
        index -= 1;
    }
    by_name[Name::Other as usize] = 0;
    by_name
};

struct ByLength {
    indices: [u8; COUNT],
    /// Where in `indices` the names of a length start.
    starts: [u8; LONGEST + 2],
}

const LONGEST: usize = 27;

static BY_LENGTH: ByLength = {
    let mut by = ByLength { indices: [0; COUNT], starts: [0; LONGEST + 2] };
    let (mut length, mut filled) = (0, 0);
    while length <= LONGEST {
        by.starts[length] = filled as u8;
        let mut index = 1;
        while index <= COUNT {
            if TABLE[index].name.len() == length {
                by.indices[filled] = index as u8;
                filled += 1;
            }
            index += 1;
        }
        length += 1;
    }
    by.starts[LONGEST + 1] = filled as u8;
    assert!(filled == COUNT);
    by
};

/// [`Known::of`] while compiling.
const fn known(name: &[u8]) -> Known {
    let mut at = 0;
    while at < Pseudo::ALL.len() {
        if same(Pseudo::ALL[at].as_bytes(), name) {
            return Known::Pseudo(Pseudo::ALL[at]);
        }
        at += 1;
    }
    let mut at = 0;
    while at < Name::ALL.len() {
        if same(Name::ALL[at].as_bytes(), name) {
            return Known::Field(Name::ALL[at]);
        }
        at += 1;
    }
    Known::Field(Name::Other)
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}

const TEXT: [(&str, &str); COUNT] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_found_by_its_name() {
        for (index, Static { name, known, .. }) in TABLE.iter().copied().enumerate().skip(1) {
            assert_eq!(known, Known::of(name));
            let found = match known {
                Known::Pseudo(pseudo) => index_of_pseudo(pseudo),
                Known::Field(known) => index_of(known, name),
            };
            assert_eq!(TABLE[found as usize].name, name);
            assert!(found as usize <= index);
        }
        for name in [&b""[..], b"x", b"x-mine", b"a-name-that-is-longer-than-all-of-them"] {
            assert_eq!(index_of(Name::of(name), name), 0);
        }
        assert_eq!(index_of(Name::GrpcStatus, b"grpc-status"), 0);
    }
}
