//! The one normal form of a request's path.
//!
//! A path reaches three readers: the caller's routes, the callee's authorization and the application. An attack on a proxy
//! is a path that they read differently (`/public/..%2fadmin`). So the path is brought into one form before anybody decides,
//! the request goes on in that form, and what has no single reading is refused (400).
//!
//! | in the path | what happens | why |
//! |---|---|---|
//! | empty | `/` | RFC 9112 §3.2.1 |
//! | `*` (OPTIONS) | kept; only routes for every path hold | RFC 9112 §3.2.4 |
//! | `.` and `..` segments | resolved; `..` above the root is refused | RFC 3986 §5.2.4; climbing out is never honest |
//! | escaped unreserved characters (`%41`, `%7E`) | decoded | RFC 3986 §6.2.2.2 |
//! | other escapes | kept, hex digits upper case | RFC 3986 §6.2.2.1 |
//! | bytes beyond ASCII | escaped | RFC 3986 §2.1: only the escaped form is a URI |
//! | `//` | one slash **for deciding**; sent on as it came | see below |
//! | `\`, `%5C`, `%2F`, `%00`, control characters, space, `#`, `?`, broken escapes | refused | read differently by servers, or no URI at all |
//! | a segment of dots of which one was escaped (`%2e%2e`) | refused | some decode first, some resolve first |
//! | `..;x`, `.;x` | refused | servlet containers strip `;x` and then resolve |
//! | `..` right behind `//` | refused | `/a//../b` is `/a/b` by RFC 3986 and `/b` for those who merge first |
//!
//! Merging slashes: a Gateway API route cannot name a path with `//`, and many servers merge them, so `//admin` must be
//! decided like `/admin`. But to others `/fetch/http://host/` and `/fetch/http:/host/` are different resources, and a mesh
//! that nobody sees must not change which one is asked for. Therefore [`NormalPath::as_str`] (merged) decides and
//! [`NormalPath::forward`] (as it came, in all else normal) is sent. A double escape (`%252F`) is the text `%2F`
//! for everybody who decodes once, and passes.

use std::borrow::Cow;

/// Why a path has no normal form. The request is answered with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not begin with `/`.
    #[error("path does not begin with '/'")]
    NotAbsolute,
    /// A byte that no URI path holds.
    #[error("path holds a byte that is not allowed in a URI path")]
    IllegalByte,
    /// `%` without two hexadecimal digits.
    #[error("path holds a broken percent escape")]
    BrokenEscape,
    /// An escaped slash, backslash, or NUL.
    #[error("path holds an escaped slash, backslash or NUL")]
    AmbiguousEscape,
    /// A dot segment in disguise.
    #[error("path holds a disguised dot segment")]
    AmbiguousDots,
    /// `..` above the root.
    #[error("path climbs above the root")]
    AboveRoot,
}

/// A path in normal form, without query. Borrows when the path already was normal, which nearly all are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NormalPath<'a> {
    /// With slashes merged.
    decided: Cow<'a, str>,
    /// With slashes as they came; `None` when equal to `decided`.
    sent: Option<Cow<'a, str>>,
}

impl<'a> NormalPath<'a> {
    /// Brings a path (without `?` and query) into normal form.
    ///
    /// # Errors
    /// When the path has no single reading.
    pub fn parse(path: &'a str) -> Result<Self, PathError> {
        match path {
            "" => return Ok(Self { decided: Cow::Borrowed("/"), sent: None }),
            "*" => return Ok(Self { decided: Cow::Borrowed("*"), sent: None }),
            _ if !path.starts_with('/') => return Err(PathError::NotAbsolute),
            _ if is_plain(path.as_bytes()) => return Ok(Self { decided: Cow::Borrowed(path), sent: None }),
            _ => {}
        }
        let sent = resolve_dots(&normal_escapes(path)?)?;
        let decided = merge_slashes(&sent);
        Ok(match decided {
            Some(decided) => Self { decided: Cow::Owned(decided), sent: Some(Cow::Owned(sent)) },
            None => Self { decided: Cow::Owned(sent), sent: None },
        })
    }

    /// The form that routes and policies are held against.
    pub fn as_str(&self) -> &str {
        &self.decided
    }

    /// The form that is sent on.
    pub fn forward(&self) -> &str {
        self.sent.as_ref().unwrap_or(&self.decided)
    }

    /// Whether the path that came must be replaced by [`Self::forward`] before the request goes on.
    pub fn changed(&self) -> bool {
        // Borrowed means that nothing had to be done, except for the empty path, which HTTP libraries already write as `/`.
        matches!(self.decided, Cow::Owned(_))
    }

    /// A copy that lives by itself.
    pub fn into_owned(self) -> NormalPath<'static> {
        NormalPath {
            decided: Cow::Owned(self.decided.into_owned()),
            sent: self.sent.map(|sent| Cow::Owned(sent.into_owned())),
        }
    }
}

/// Whether nothing at all is to be done: the case that must be fast.
fn is_plain(path: &[u8]) -> bool {
    let mut after_slash = false;
    for &byte in path {
        match byte {
            // A segment that begins with a dot may be a dot segment, and `//` is to be merged: look closer.
            b'/' | b'.' if after_slash => return false,
            b'/' => after_slash = true,
            b'%' | b'\\' | b'#' | b'?' | 0..=b' ' | 0x7F.. => return false,
            _ => after_slash = false,
        }
    }
    true
}

/// Marks a dot that was escaped, until [`resolve_dots`] has seen whether it matters. Not a byte that a path can hold.
const ESCAPED_DOT: u8 = 0x01;

fn normal_escapes(path: &str) -> Result<Vec<u8>, PathError> {
    let mut out = Vec::with_capacity(path.len() + 8);
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let (Some(high), Some(low)) = (bytes.next().and_then(hex), bytes.next().and_then(hex)) else {
                    return Err(PathError::BrokenEscape);
                };
                match high << 4 | low {
                    b'/' | b'\\' | 0 => return Err(PathError::AmbiguousEscape),
                    b'.' => out.push(ESCAPED_DOT),
                    plain if is_unreserved(plain) => out.push(plain),
                    other => push_escaped(&mut out, other),
                }
            }
            0..=b' ' | 0x7F | b'\\' | b'#' | b'?' => return Err(PathError::IllegalByte),
            0x80.. => push_escaped(&mut out, byte),
            _ => out.push(byte),
        }
    }
    Ok(out)
}

fn resolve_dots(path: &[u8]) -> Result<String, PathError> {
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut segments = path[1..].split(|&b| b == b'/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match dots(segment)? {
            Dots::None => kept.push(segment),
            Dots::Same if last => kept.push(b""),
            Dots::Same => {}
            Dots::Up => {
                match kept.pop() {
                    None => return Err(PathError::AboveRoot),
                    Some(b"") => return Err(PathError::AmbiguousDots),
                    Some(_) => {}
                }
                if last {
                    kept.push(b"");
                }
            }
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in kept {
        out.push('/');
        // Everything beyond ASCII was escaped above, so every byte is a character.
        out.extend(segment.iter().map(|&b| if b == ESCAPED_DOT { '.' } else { char::from(b) }));
    }
    if out.is_empty() {
        out.push('/');
    }
    Ok(out)
}

enum Dots {
    None,
    Same,
    Up,
}

fn dots(segment: &[u8]) -> Result<Dots, PathError> {
    let is_dot = |b: u8| b == b'.' || b == ESCAPED_DOT;
    let count = segment.iter().take_while(|&&b| is_dot(b)).count();
    let rest = &segment[count..];
    match (count, rest) {
        (1 | 2, []) if segment.contains(&ESCAPED_DOT) => Err(PathError::AmbiguousDots),
        (1, []) => Ok(Dots::Same),
        (2, []) => Ok(Dots::Up),
        (1 | 2, [b';', ..] | [b'%', b'3', b'B', ..]) => Err(PathError::AmbiguousDots),
        _ => Ok(Dots::None),
    }
}

/// `None` when there is nothing to merge.
fn merge_slashes(path: &str) -> Option<String> {
    if !path.contains("//") {
        return None;
    }
    let mut out = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !out.ends_with('/') {
            out.push(character);
        }
    }
    Some(out)
}

fn push_escaped(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~')
}

/// Value of a hexadecimal digit.
pub(crate) fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(path: &str) -> Result<String, PathError> {
        NormalPath::parse(path).map(|p| p.as_str().to_owned())
    }

    #[test]
    fn paths_with_one_reading_have_one_form() {
        for (path, form) in [
            ("", "/"),
            ("*", "*"),
            ("/", "/"),
            ("/a/b.html", "/a/b.html"),
            ("/a/b/", "/a/b/"),
            ("/a//b", "/a/b"),
            ("//admin", "/admin"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/%61%7e%2D", "/a~-"),
            ("/%c3%a9", "/%C3%A9"),
            ("/é", "/%C3%A9"),
            ("/.well-known/x", "/.well-known/x"),
            ("/...", "/..."),
            ("/..a/b", "/..a/b"),
            ("/a%2eb", "/a.b"),
            ("/a;v=1/b", "/a;v=1/b"),
            ("/%252F", "/%252F"),
            ("/a%20b", "/a%20b"),
        ] {
            assert_eq!(normal(path).as_deref(), Ok(form), "{path}");
        }
    }

    #[test]
    fn paths_with_two_readings_are_refused() {
        use PathError::*;
        for (path, error) in [
            ("a", NotAbsolute),
            ("/a\\b", IllegalByte),
            ("/a b", IllegalByte),
            ("/a#b", IllegalByte),
            ("/a\u{7f}", IllegalByte),
            ("/a%2fb", AmbiguousEscape),
            ("/a%5Cb", AmbiguousEscape),
            ("/a%00", AmbiguousEscape),
            ("/a%2", BrokenEscape),
            ("/a%zz", BrokenEscape),
            ("/a/%2e%2e/b", AmbiguousDots),
            ("/a/.%2E/b", AmbiguousDots),
            ("/a/%2e", AmbiguousDots),
            ("/a/..;x/b", AmbiguousDots),
            ("/a/..%3Bx/b", AmbiguousDots),
            ("/a//../b", AmbiguousDots),
            ("/..", AboveRoot),
            ("/a/../../b", AboveRoot),
        ] {
            assert_eq!(normal(path), Err(error), "{path}");
        }
    }

    #[test]
    fn doubled_slashes_are_decided_as_one_and_sent_as_they_came() {
        let path = NormalPath::parse("/fetch/http://host/%7Ex").unwrap();
        assert_eq!(path.as_str(), "/fetch/http:/host/~x");
        assert_eq!(path.forward(), "/fetch/http://host/~x");
        assert!(path.changed());
        assert!(!NormalPath::parse("/plain").unwrap().changed());
    }

    proptest! {
        #[test]
        fn normal_forms_are_fixed_points(path in "/[ab.%2eEfF5cC0;/~é]{0,24}") {
            if let Ok(first) = NormalPath::parse(&path) {
                for form in [first.as_str(), first.forward()] {
                    let again = NormalPath::parse(form);
                    prop_assert_eq!(again.as_ref().map(NormalPath::as_str), Ok(first.as_str()), "{} of {}", form, path);
                }
                prop_assert!(!first.as_str().contains("//"));
                prop_assert!(!first.as_str().split('/').any(|s| s == "." || s == ".."));
            }
        }
    }
}
