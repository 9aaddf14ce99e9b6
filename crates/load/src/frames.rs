//! Just enough of HTTP/2 (RFC 9113) and HPACK (RFC 7541) for generators and origins that must cost next to nothing: frame
//! heads, and header blocks that are written once and sent many times.

/// Sent by a client first (RFC 9113, 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length of a frame's head.
pub const HEAD: usize = 9;
/// Largest window (RFC 9113, 6.9.1).
pub const MAX_WINDOW: u32 = (1 << 31) - 1;
/// Window of a connection, and of a stream unless SETTINGS say otherwise.
pub const DEFAULT_WINDOW: u32 = 65_535;

/// Frame types.
pub mod kind {
    #![allow(missing_docs)]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
}

/// Frame flags.
pub mod flag {
    #![allow(missing_docs)]
    pub const END_STREAM: u8 = 1;
    pub const ACK: u8 = 1;
    pub const END_HEADERS: u8 = 4;
    pub const PADDED: u8 = 8;
    pub const PRIORITY: u8 = 0x20;
}

/// Settings.
pub mod setting {
    #![allow(missing_docs)]
    pub const HEADER_TABLE_SIZE: u16 = 1;
    pub const ENABLE_PUSH: u16 = 2;
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
}

/// One frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// See [`kind`].
    pub kind: u8,
    /// See [`flag`].
    pub flags: u8,
    /// Stream, 0 for the connection.
    pub stream: u32,
    /// What follows the head.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Takes the first frame off the bytes. `None`: it is not whole yet.
    pub fn take(bytes: &mut &'a [u8]) -> Option<Self> {
        let head: &[u8; HEAD] = bytes.first_chunk()?;
        let [a, b, c, kind, flags, stream @ ..] = *head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let payload = bytes.get(HEAD..HEAD + length)?;
        *bytes = &bytes[HEAD + length..];
        Some(Self { kind, flags, stream: u32::from_be_bytes(stream) & MAX_WINDOW, payload })
    }

    /// Whether a flag is set.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The header block of HEADERS, without padding and priority. `None`: malformed.
    pub fn block(&self) -> Option<&'a [u8]> {
        let mut block = self.payload;
        if self.has(flag::PADDED) {
            let (padding, rest) = block.split_first()?;
            block = rest.get(..rest.len().checked_sub(usize::from(*padding))?)?;
        }
        if self.has(flag::PRIORITY) { block.get(5..) } else { Some(block) }
    }

    /// The pairs of SETTINGS.
    pub fn settings(&self) -> impl Iterator<Item = (u16, u32)> + use<'a> {
        self.payload
            .as_chunks::<6>()
            .0
            .iter()
            .map(|&[a, b, value @ ..]| (u16::from_be_bytes([a, b]), u32::from_be_bytes(value)))
    }

    /// The payload's first four bytes as a number: the increment of WINDOW_UPDATE, the code of RST_STREAM.
    pub fn number(&self) -> Option<u32> {
        self.payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
    }
}

/// Appends a frame.
pub fn put(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    out.extend_from_slice(&[length[1], length[2], length[3], kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Appends SETTINGS.
pub fn put_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    let mut payload = Vec::with_capacity(6 * settings.len());
    for (name, value) in settings {
        payload.extend_from_slice(&name.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    put(out, kind::SETTINGS, 0, 0, &payload);
}

/// Appends WINDOW_UPDATE.
pub fn put_window(out: &mut Vec<u8>, stream: u32, increment: u32) {
    put(out, kind::WINDOW_UPDATE, 0, stream, &increment.to_be_bytes());
}

/// How a literal field treats the receiver's dynamic table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Indexing {
    /// Entered, so that it can be named by index from then on (RFC 7541, 6.2.1).
    Incremental,
    /// Not entered (6.2.2).
    Without,
}

/// How a field's name is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// Its index in the static table.
    Index(u8),
    /// In full.
    Text(&'static str),
}

/// Appends a literal field; nothing is compressed.
///
/// # Panics
/// When name or value are longer than 126 bytes: this is for constants.
pub fn put_literal(block: &mut Vec<u8>, indexing: Indexing, name: Name, value: &str) {
    match (indexing, name) {
        (Indexing::Incremental, Name::Index(name)) => block.push(0x40 | name),
        (Indexing::Without, Name::Index(name)) if name < 15 => block.push(name),
        (Indexing::Without, Name::Index(name)) => block.extend_from_slice(&[15, name - 15]),
        (Indexing::Incremental, Name::Text(name)) => {
            block.push(0x40);
            put_text(block, name);
        }
        (Indexing::Without, Name::Text(name)) => {
            block.push(0);
            put_text(block, name);
        }
    }
    put_text(block, value);
}

fn put_text(block: &mut Vec<u8>, text: &str) {
    block.push(u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("a short text"));
    block.extend_from_slice(text.as_bytes());
}

/// Whether a response's header block says `:status: 200` as all peers write it: first, by its index in the static table,
/// maybe after updates of the table's size.
pub fn is_ok(block: &[u8]) -> bool {
    let mut rest = block;
    while let Some((first, after)) = rest.split_first()
        && first & 0xe0 == 0x20
    {
        // An update's number goes on while its prefix is full and further bytes have the high bit.
        let more =
            if first & 0x1f == 0x1f { after.iter().take_while(|byte| **byte & 0x80 != 0).count() + 1 } else { 0 };
        rest = after.get(more..).unwrap_or_default();
    }
    rest.first() == Some(&0x88)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_as_put_and_parts_of_frames_wait() {
        let mut bytes = Vec::new();
        put(&mut bytes, kind::HEADERS, flag::END_HEADERS | flag::PADDED, 5, &[2, 0x88, 7, 0, 0]);
        put_settings(&mut bytes, &[(setting::HEADER_TABLE_SIZE, 0), (setting::INITIAL_WINDOW_SIZE, 70_000)]);
        let mut rest = &bytes[..];
        let headers = Frame::take(&mut rest).unwrap();
        assert_eq!((headers.kind, headers.stream, headers.block()), (kind::HEADERS, 5, Some(&[0x88, 7][..])));
        let mut part = &rest[..rest.len() - 1];
        assert_eq!(Frame::take(&mut part), None);
        let settings: Vec<_> = Frame::take(&mut rest).unwrap().settings().collect();
        assert_eq!(settings, [(1, 0), (4, 70_000)]);
        assert!(rest.is_empty());
    }

    #[test]
    fn malformed_padding_is_no_block() {
        let frame = Frame { kind: kind::HEADERS, flags: flag::PADDED, stream: 1, payload: &[9, 0x88] };
        assert_eq!(frame.block(), None);
    }

    #[test]
    fn status_200_is_seen_behind_size_updates() {
        assert!(is_ok(&[0x88]));
        assert!(is_ok(&[0x20, 0x3f, 0xe1, 0x1f, 0x88]));
        for other in [&[0x8d][..], &[], &[0x3f], &[0x3f, 0xff], &[0x48, 3, b'2', b'0', b'1']] {
            assert!(!is_ok(other), "{other:?}");
        }
    }
}
