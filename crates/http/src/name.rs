//! Names of fields that a proxy looks for, as numbers.

/// Declares the names once: variant, text, recognition.
macro_rules! names {
    ($($variant:ident $text:literal)*) => {
        /// A field's name, when it is one of those that somebody on the path of a request asks for. Comparing two is comparing two
        /// numbers.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "each says what it is")]
        pub enum Name {
            /// Any other name.
            Other,
            $($variant,)*
        }

        impl Name {
            /// All but [`Name::Other`]; numbers follow this order, from 1.
            pub(crate) const ALL: &'static [Name] = &[$(Name::$variant,)*];

            /// The name in lower case; empty for [`Name::Other`].
            pub const fn as_bytes(self) -> &'static [u8] {
                match self {
                    Name::Other => b"",
                    $(Name::$variant => $text,)*
                }
            }
        }
    };
}

names! {
    Te b"te"
    Via b"via"
    Date b"date"
    Host b"host"
    Vary b"vary"
    Accept b"accept"
    Cookie b"cookie"
    Expect b"expect"
    Origin b"origin"
    Server b"server"
    Trailer b"trailer"
    Upgrade b"upgrade"
    Location b"location"
    Forwarded b"forwarded"
    Connection b"connection"
    KeepAlive b"keep-alive"
    SetCookie b"set-cookie"
    UserAgent b"user-agent"
    VeerError b"veer-error"
    VeerProto b"veer-proto"
    RetryAfter b"retry-after"
    Tracestate b"tracestate"
    GrpcStatus b"grpc-status"
    Traceparent b"traceparent"
    XRequestId b"x-request-id"
    GrpcMessage b"grpc-message"
    GrpcTimeout b"grpc-timeout"
    ContentType b"content-type"
    CacheControl b"cache-control"
    Authorization b"authorization"
    ContentLength b"content-length"
    Http2Settings b"http2-settings"
    XForwardedFor b"x-forwarded-for"
    ContentEncoding b"content-encoding"
    ProxyConnection b"proxy-connection"
    XVeerClientId b"x-veer-client-id"
    XForwardedHost b"x-forwarded-host"
    AcceptEncoding b"accept-encoding"
    XForwardedProto b"x-forwarded-proto"
    TransferEncoding b"transfer-encoding"
    ProxyAuthorization b"proxy-authorization"
    ProxyAuthenticate b"proxy-authenticate"
    EndpointLoadMetrics b"endpoint-load-metrics"
}

/// A set of names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Names(u64);

const _: () = assert!(Name::ALL.len() < 64, "a name is a bit");

impl Names {
    /// These.
    pub const fn of(names: &[Name]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < names.len() {
            bits |= 1 << names[at] as u8;
            at += 1;
        }
        Self(bits)
    }

    /// Whether it is one of them.
    #[inline]
    pub const fn has(self, name: Name) -> bool {
        self.0 >> name as u8 & 1 == 1
    }

    #[inline]
    pub(crate) const fn share(self, others: Names) -> bool {
        self.0 & others.0 != 0
    }

    #[inline]
    pub(crate) fn add(&mut self, name: Name) {
        self.0 |= 1 << name as u8;
    }

    #[inline]
    pub(crate) fn take(&mut self, others: Names) {
        self.0 &= !others.0;
    }
}

impl Name {
    /// Which name this is. `text` is in lower case.
    #[inline]
    pub fn of(text: &[u8]) -> Self {
        let (first, last) = ends(text);
        Self::with_ends(first, last, text)
    }

    /// Puts a name that is ASCII into lower case, and says which it is.
    #[inline(always)]
    pub(crate) fn lower(text: &mut [u8]) -> Self {
        if text.len() < 8 {
            text.iter_mut().for_each(|byte| byte.make_ascii_lowercase());
            return Self::of(text);
        }
        // All is read before it is written, and recognised by what was read: reading what was just written would wait for it.
        let (first, last) = ends(text);
        let (first, last) = (lower_word(first), lower_word(last));
        let mut at = 8;
        while at < text.len() - 8 {
            if let Some(word) = text[at..].first_chunk_mut() {
                *word = lower_word(u64::from_le_bytes(*word)).to_le_bytes();
            }
            at += 8;
        }
        if let Some(word) = text.first_chunk_mut() {
            *word = first.to_le_bytes();
        }
        if let Some(word) = text.last_chunk_mut() {
            *word = last.to_le_bytes();
        }
        Self::with_ends(first, last, text)
    }

    #[inline(always)]
    fn with_ends(first: u64, last: u64, text: &[u8]) -> Self {
        let number = KEYS.numbers[slot(first, last, text.len(), KEYS.seed)] as usize;
        let key = &KEYS.keys[number];
        // Up to 16 bytes the two ends are the whole text.
        if key.first == first
            && key.last == last
            && key.name.len() == text.len()
            && (text.len() <= 16 || key.name == text)
        {
            key.known
        } else {
            Name::Other
        }
    }
}

/// The first and the last eight bytes; of shorter texts what tells them from all others of the same length.
#[inline(always)]
const fn ends(text: &[u8]) -> (u64, u64) {
    if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
        return (u64::from_le_bytes(*first), u64::from_le_bytes(*last));
    }
    if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
        return (u32::from_le_bytes(*first) as u64, u32::from_le_bytes(*last) as u64);
    }
    match *text {
        [a] => (a as u64, 0),
        [a, b] => (a as u64, b as u64),
        [a, b, c] => (a as u64 | (b as u64) << 8, c as u64),
        _ => (0, 0),
    }
}

/// ASCII letters in lower case. All bytes are below 128.
#[inline(always)]
const fn lower_word(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    let upper = (word + ONES * (0x80 - b'A' as u64)) & !(word + ONES * (0x7f - b'Z' as u64)) & (ONES << 7);
    word | (upper >> 2)
}

/// A perfect hash of all names.
struct Keys {
    seed: u64,
    /// The number of the one name that may be here.
    numbers: [u8; SLOTS],
    keys: [Key; Name::ALL.len() + 1],
}

#[derive(Clone, Copy)]
struct Key {
    first: u64,
    last: u64,
    name: &'static [u8],
    known: Name,
}

const SLOTS: usize = 512;

static KEYS: Keys = {
    let mut keys = [Key { first: 0, last: 0, name: b"", known: Name::Other }; Name::ALL.len() + 1];
    let mut at = 0;
    while at < Name::ALL.len() {
        let known = Name::ALL[at];
        let name = known.as_bytes();
        let (first, last) = ends(name);
        at += 1;
        keys[at] = Key { first, last, name, known };
    }
    let mut seed = 0x9e37_79b9_7f4a_7c15;
    'seeds: loop {
        let mut numbers = [0; SLOTS];
        let mut at = 1;
        while at < keys.len() {
            let slot = slot(keys[at].first, keys[at].last, keys[at].name.len(), seed);
            if numbers[slot] != 0 {
                seed = seed.wrapping_mul(0xd129_42a1_7d2c_2695).wrapping_add(2);
                continue 'seeds;
            }
            numbers[slot] = at as u8;
            at += 1;
        }
        break Keys { seed, numbers, keys };
    }
};

#[inline(always)]
const fn slot(first: u64, last: u64, length: usize, seed: u64) -> usize {
    let mixed = (first ^ last.rotate_left(29)).wrapping_add(length as u64).wrapping_mul(seed);
    (mixed >> (64 - SLOTS.trailing_zeros())) as usize
}

#[cfg(test)]
mod tests {
    use super::Name;

    #[test]
    fn every_name_is_recognised_in_any_case_and_nothing_else_is() {
        for name in Name::ALL {
            let text = name.as_bytes();
            assert_eq!(Name::of(text), *name);
            let mut upper = text.to_ascii_uppercase();
            assert_eq!(Name::lower(&mut upper), *name);
            assert_eq!(upper, text);
            for at in 0..text.len() {
                let mut other = text.to_vec();
                other[at] = if other[at] == b'z' { b'-' } else { other[at] + 1 };
                assert_eq!(
                    Name::of(&other),
                    Name::ALL.iter().copied().find(|n| n.as_bytes() == other).unwrap_or(Name::Other)
                );
                let cut = [&text[..at], &text[at + 1..]].concat();
                assert_eq!(
                    Name::of(&cut),
                    Name::ALL.iter().copied().find(|n| n.as_bytes() == cut).unwrap_or(Name::Other)
                );
            }
        }
    }

    #[test]
    fn any_token_is_put_into_lower_case() {
        let all: Vec<u8> = (0..128).collect();
        for length in 0..40 {
            for start in 0..all.len() - length {
                let mut text = all[start..start + length].to_vec();
                Name::lower(&mut text);
                assert_eq!(text, all[start..start + length].to_ascii_lowercase());
            }
        }
    }

    #[test]
    fn a_name_is_recognised_by_its_text() {
        assert_eq!(Name::of(b"host"), Name::Host);
        assert_eq!(Name::of(Name::GrpcStatus.as_bytes()), Name::GrpcStatus);
        assert_eq!(Name::of(b"x-mine"), Name::Other);
        assert_eq!(Name::of(b""), Name::Other);
    }
}
