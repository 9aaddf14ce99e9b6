use proptest::prelude::*;

use super::*;

/// A hello built by hand: whatever extensions are given, in that order.
fn handshake(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(32);
    body.extend([9; 32]);
    body.extend([0, 4, 0x13, 1, 0x13, 2]);
    body.extend([1, 0]);
    let mut list = Vec::new();
    for (kind, data) in extensions {
        list.extend(kind.to_be_bytes());
        list.extend((data.len() as u16).to_be_bytes());
        list.extend(data);
    }
    body.extend((list.len() as u16).to_be_bytes());
    body.extend(list);
    let mut message = vec![MESSAGE_CLIENT_HELLO];
    message.extend(&(body.len() as u32).to_be_bytes()[1..]);
    message.extend(body);
    message
}

fn records(message: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for fragment in message.chunks(size.max(1)) {
        out.extend([CONTENT_HANDSHAKE, 3, 1]);
        out.extend((fragment.len() as u16).to_be_bytes());
        out.extend(fragment);
    }
    out
}

fn sni(name: &[u8]) -> (u16, Vec<u8>) {
    let mut data = ((name.len() + 3) as u16).to_be_bytes().to_vec();
    data.push(0);
    data.extend((name.len() as u16).to_be_bytes());
    data.extend(name);
    (EXTENSION_SERVER_NAME, data)
}

fn protocols(names: &[&[u8]]) -> (u16, Vec<u8>) {
    let list: Vec<u8> = names.iter().flat_map(|n| std::iter::once(n.len() as u8).chain(n.iter().copied())).collect();
    let mut data = (list.len() as u16).to_be_bytes().to_vec();
    data.extend(list);
    (EXTENSION_ALPN, data)
}

fn found(name: &str, alpn: &[&[u8]]) -> Progress {
    let (_, data) = protocols(alpn);
    let alpn = if alpn.is_empty() { Alpn::default() } else { Alpn(data[2..].into()) };
    Progress::Found(ClientHello { server_name: Some(name.into()), alpn })
}

#[test]
fn name_and_protocols_are_read() {
    let message = handshake(&[(43, vec![2, 3, 4]), sni(b"Tok.P80.West"), protocols(&[b"veer-h2/1", b"h2"])]);
    let Progress::Found(hello) = parse(&records(&message, 1 << 14)) else { panic!("not found") };
    assert_eq!(hello.server_name.as_deref(), Some("tok.p80.west"));
    assert_eq!(hello.alpn.iter().collect::<Vec<_>>(), [&b"veer-h2/1"[..], b"h2"]);
    assert!(hello.alpn.contains(b"h2") && !hello.alpn.contains(b"h"));
    assert_eq!(format!("{:?}", hello.alpn), r#"["veer-h2/1", "h2"]"#);
}

#[test]
fn a_hello_without_a_name_is_a_hello() {
    let bytes = records(&handshake(&[]), 1 << 14);
    assert!(matches!(parse(&bytes), Progress::Found(ClientHello { server_name: None, .. })));
}

#[test]
fn other_protocols_show_at_once() {
    for bytes in
        [&b"G"[..], b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0", b"\x80\x2e\x01", b"\x16\x02", b"\x16\x03\x09", b"\0"]
    {
        assert_eq!(parse(bytes), Progress::NotTls, "{bytes:?}");
    }
    assert_eq!(parse(b""), Progress::NeedMore);
}

#[test]
fn faults_are_told_apart() {
    let whole = |extensions: &[_]| parse(&records(&handshake(extensions), 1 << 14));
    let long = [b'a'; 256];
    for name in [&b""[..], b"a b", b"a.", b"a\0b", "é".as_bytes(), &long] {
        assert_eq!(whole(&[sni(name)]), Progress::Malformed(Fault::ServerName), "{name:?}");
    }
    assert_eq!(whole(&[sni(b"a"), sni(b"b")]), Progress::Malformed(Fault::ServerName));
    assert_eq!(whole(&[(0, vec![0, 4, 7, 0, 1, b'a'])]), Progress::Malformed(Fault::ServerName));
    assert_eq!(whole(&[(0, vec![])]), Progress::Malformed(Fault::ServerName));
    assert_eq!(whole(&[(16, vec![0, 0])]), Progress::Malformed(Fault::Alpn));
    assert_eq!(whole(&[(16, vec![0, 2, 0, 0])]), Progress::Malformed(Fault::Alpn));
    assert_eq!(whole(&[protocols(&[b"a"]), protocols(&[b"b"])]), Progress::Malformed(Fault::Alpn));

    let mut message = handshake(&[]);
    message[0] = 2;
    assert_eq!(parse(&records(&message, 100)), Progress::Malformed(Fault::NotHello));
    let mut message = handshake(&[sni(b"a")]);
    message.push(0);
    assert_eq!(parse(&records(&message, 1 << 14)), Progress::Malformed(Fault::Length), "bytes after the message");
    assert_eq!(parse(&[22, 3, 1, 0, 0]), Progress::Malformed(Fault::Record), "empty fragment");
    assert_eq!(parse(&[22, 3, 1, 0x40, 1]), Progress::Malformed(Fault::Record), "record too long");
    assert_eq!(parse(&[22, 3, 1, 0, 4, 1, 0, 0x40, 0]), Progress::Malformed(Fault::TooLong), "announced too long");
    let mut interrupted = records(&handshake(&[sni(b"a")]), 20);
    interrupted[25] = 23;
    assert_eq!(parse(&interrupted), Progress::Malformed(Fault::Record), "another type of record between fragments");
}

#[test]
fn tiny_fragments_end_at_the_limit() {
    // 3,000 announced bytes in fragments of one: six bytes each, so the limit on bytes read comes first.
    let mut message = handshake(&[(21, vec![0; 3000]), sni(b"west")]);
    message.truncate(3010);
    let mut bytes = records(&message, 1);
    assert!(bytes.len() > MAX_BYTES);
    bytes.truncate(MAX_BYTES);
    assert_eq!(parse(&bytes), Progress::Malformed(Fault::TooLong));
    assert_eq!(parse(&bytes[..MAX_BYTES - 1]), Progress::NeedMore);
}

#[test]
fn alerts_are_single_records() {
    assert_eq!(Alert::UnrecognizedName.record(), [21, 3, 3, 0, 2, 2, 112]);
    assert_eq!(Fault::NotHello.alert(), Alert::UnexpectedMessage);
}

proptest! {
    #[test]
    fn arbitrary_bytes_get_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = parse(&bytes);
        let mut framed = vec![22, 3, 1];
        framed.extend((bytes.len() as u16).to_be_bytes());
        framed.extend(&bytes);
        let _ = parse(&framed);
        let mut hello = vec![1, 0];
        hello.extend((bytes.len() as u16).to_be_bytes());
        hello.extend(&bytes);
        let _ = parse(&records(&hello, 90));
    }

    #[test]
    fn every_split_gives_the_same_answer(name in "[a-z0-9]{1,20}(\\.[a-z0-9]{1,10}){0,3}", size in 1usize..400, pad in 0usize..900) {
        let message = handshake(&[(21, vec![0; pad]), sni(name.as_bytes()), protocols(&[b"veer-tcp/1"])]);
        let bytes = records(&message, size);
        prop_assume!(bytes.len() < MAX_BYTES);
        for end in 0..bytes.len() {
            prop_assert_eq!(parse(&bytes[..end]), Progress::NeedMore, "at {}", end);
        }
        prop_assert_eq!(parse(&bytes), found(&name, &[b"veer-tcp/1"]));
    }

    #[test]
    fn a_damaged_hello_never_panics(at in 0usize..200, value in any::<u8>(), size in 1usize..300) {
        let mut bytes = records(&handshake(&[sni(b"abc.p80.west"), protocols(&[b"h2", b"http/1.1"])]), size);
        let at = at % bytes.len();
        bytes[at] = value;
        for end in 0..=bytes.len() {
            let _ = parse(&bytes[..end]);
        }
    }

    #[test]
    fn a_full_buffer_always_gets_a_verdict(seed in proptest::collection::vec(any::<u8>(), 1..64), size in 1usize..2000) {
        let filler: Vec<u8> = seed.iter().copied().cycle().take(MAX_BYTES).collect();
        let mut bytes = records(&filler, size);
        bytes.truncate(MAX_BYTES);
        prop_assert_ne!(parse(&bytes), Progress::NeedMore);
    }
}
