//! Chunks out of bytes, over every cut.

use bytes::BytesMut;
use veer_http::h1::{Chunked, Fault, Piece};
use veer_http::{Fields, Name};

/// Content, trailers, and what was left over.
type Verdict = Result<Option<(Vec<u8>, Option<Fields>, Vec<u8>)>, Fault>;

fn decode(parts: &[&[u8]]) -> Verdict {
    let (mut chunked, mut input, mut content, mut end) = (Chunked::default(), BytesMut::new(), Vec::new(), None);
    for part in parts {
        input.extend_from_slice(part);
        while let Some(piece) = chunked.decode(&mut input)? {
            match piece {
                Piece::Data(data) => {
                    assert!(!data.is_empty());
                    content.extend_from_slice(&data);
                }
                Piece::End(trailers) => {
                    assert!(end.is_none());
                    end = Some(trailers);
                }
            }
        }
        assert_eq!(chunked.is_done(), end.is_some());
    }
    Ok(end.map(|trailers| (content, trailers, input.to_vec())))
}

/// The verdict, which no cut into two and no cut into single bytes changes.
fn every_cut(text: &[u8]) -> Verdict {
    let verdict = decode(&[text]);
    for cut in 0..=text.len() {
        assert_eq!(decode(&[&text[..cut], &text[cut..]]), verdict, "{cut} of {}", text.escape_ascii());
        if let (Err(early), late) = (decode(&[&text[..cut]]), &verdict) {
            assert_eq!(late, &Err(early));
        }
    }
    assert_eq!(decode(&text.chunks(1).collect::<Vec<_>>()), verdict, "{}", text.escape_ascii());
    verdict
}

#[test]
fn chunks_are_put_together() {
    let cases = [
        ("0\r\n\r\n", "", ""),
        ("000\r\n\r\nnext", "", "next"),
        ("3\r\nabc\r\n0\r\n\r\nGET /", "abc", "GET /"),
        ("3\r\nabc\r\n00000000000000A\r\n0123456789\r\n0\r\n\r\n", "abc0123456789", ""),
        ("a\r\n0\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", "0\r\n\r\n0\r\n\r\n", ""),
        ("1;a\r\nx\r\n1;a=b\r\ny\r\n1 \t; a=\"c;\t\u{fc}\"; d\r\nz\r\n0;last\r\n\r\n", "xyz", ""),
        ("1;\r\nx\r\n0\r\n\r\n", "x", ""),
    ];
    for (text, content, left) in cases {
        let found = every_cut(text.as_bytes());
        assert_eq!(found, Ok(Some((content.into(), None, left.into()))), "{}", text.escape_debug());
    }
}

#[test]
fn broken_chunks_are_refused() {
    let cases = [
        ("\r\n", Fault::ChunkSize),
        ("g\r\n", Fault::ChunkSize),
        ("-1\r\n", Fault::ChunkSize),
        ("+1\r\n", Fault::ChunkSize),
        ("0x1\r\n", Fault::ChunkSize),
        (" 1\r\n", Fault::ChunkSize),
        ("1\n", Fault::ChunkSize),
        ("1\r\r\n", Fault::ChunkSize),
        ("1 \r\n", Fault::ChunkSize),
        ("1 2\r\n", Fault::ChunkSize),
        ("1_0\r\n", Fault::ChunkSize),
        (";a\r\n", Fault::ChunkSize),
        ("00000000000000001\r\n", Fault::ChunkSize),
        ("fffffffffffffffff\r\n", Fault::ChunkSize),
        ("1;a\nx", Fault::ChunkExtension),
        ("1;a\rx", Fault::ChunkExtension),
        ("1;a\0\r\n", Fault::ChunkExtension),
        ("2;\"\r\n\"\r\n\r\n", Fault::ChunkEnd),
        ("1\r\nxy\r\n", Fault::ChunkEnd),
        ("1\r\nx\n", Fault::ChunkEnd),
        ("1\r\nx\r\r\n", Fault::ChunkEnd),
        ("1\r\nx1\r\n", Fault::ChunkEnd),
        ("0\r\n\n", Fault::LineEnd),
        ("0\r\n\rx", Fault::LineEnd),
        ("0\r\nA: b\n\r\n", Fault::LineEnd),
        ("0\r\nA: b\r\n\n", Fault::LineEnd),
        ("0\r\nA: b\nC: d\r\n\r\n", Fault::LineEnd),
        ("0\r\nA : b\r\n\r\n", Fault::FieldName),
        ("0\r\n A: b\r\n\r\n", Fault::FieldName),
        ("0\r\nA: b\r\n c\r\n\r\n", Fault::FieldName),
        ("0\r\nA: \0\r\n\r\n", Fault::FieldValue),
        ("0\r\nGET / HTTP/1.1\r\n\r\n", Fault::FieldName),
    ];
    for (text, fault) in cases {
        assert_eq!(every_cut(text.as_bytes()), Err(fault), "{}", text.escape_debug());
    }
}

#[test]
fn the_largest_chunk_is_what_64_bits_hold() {
    let mut input = BytesMut::from(&b"ffffffffffffffff\r\nabc"[..]);
    let mut chunked = Chunked::default();
    assert_eq!(chunked.decode(&mut input), Ok(Some(Piece::Data("abc".into()))));
    assert_eq!(chunked.decode(&mut input), Ok(None));
    input.extend_from_slice(b"\r\n0\r\n");
    assert_eq!(chunked.decode(&mut input), Ok(Some(Piece::Data("\r\n0\r\n".into()))));
}

#[test]
fn trailers_are_kept_without_those_that_steer() {
    let text = "0\r\nGrpc-Status: 0\r\nContent-Length: 5\r\nTRANSFER-ENCODING: chunked\r\nHost: a\r\nx-mine:\r\n\
                Content-Range: bytes 0-1/2\r\nX-Mine: b\r\n\r\nnext";
    let Ok(Some((content, Some(trailers), left))) = every_cut(text.as_bytes()) else { panic!() };
    assert_eq!((&content[..], &left[..]), (&b""[..], &b"next"[..]));
    let fields: Vec<_> = trailers.iter().collect();
    assert_eq!(fields, [(&b"grpc-status"[..], &b"0"[..]), (b"x-mine", b""), (b"x-mine", b"b")]);
    assert_eq!(trailers.get(Name::GrpcStatus), Some(&b"0"[..]));
    let dropped = every_cut(b"0\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(dropped, Ok(Some((vec![], None, vec![]))));
}

#[test]
fn trailers_are_bounded() {
    let many = format!("0\r\n{}\r\n", "a: b\r\n".repeat(101));
    assert_eq!(decode(&[many.as_bytes()]), Err(Fault::TooManyFields));
    let large = format!("0\r\na: {}", "b".repeat(70_000));
    assert_eq!(decode(&[large.as_bytes()]), Err(Fault::HeadTooLarge));
    assert_eq!(decode(&[&large.as_bytes()[..60_000]]), Ok(None));
}

#[test]
fn extensions_are_bounded() {
    let long = format!("1;{}", "a".repeat(4096));
    assert_eq!(decode(&[long.as_bytes()]), Err(Fault::ChunkExtension));
    // Many that are not paid for by content.
    let extension = format!(";{}", "a".repeat(100));
    let poor = format!("1{extension}\r\nx\r\n").repeat(200);
    assert_eq!(decode(&[poor.as_bytes()]), Err(Fault::ChunkExtension));
    let rich = format!("65{extension}\r\n{}\r\n", "x".repeat(101)).repeat(2000) + "0\r\n\r\n";
    let Ok(Some((content, None, _))) = decode(&[rich.as_bytes()]) else { panic!() };
    assert_eq!(content.len(), 202_000);
}
