use proptest::prelude::*;

use super::*;

fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[0x20 | command, family], &length, block].concat()
}

/// 192.0.2.1:50000 to 198.51.100.7:443.
const IPV4: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 7, 0xc3, 0x50, 0x01, 0xbb];

fn found(bytes: &[u8]) -> Option<SocketAddr> {
    match parse(bytes) {
        Progress::Found(Header { length, client }) if length == bytes.len() => client,
        other => panic!("{}: {other:?}", bytes.escape_ascii()),
    }
}

#[track_caller]
fn refused(bytes: &[u8], fault: Fault) {
    assert_eq!(parse(bytes), Progress::Refused(fault), "{}", bytes.escape_ascii());
}

#[test]
fn lines_say_whose_connection_it_is() {
    assert_eq!(found(b"PROXY TCP4 192.0.2.1 198.51.100.7 50000 443\r\n"), "192.0.2.1:50000".parse().ok());
    assert_eq!(found(b"PROXY TCP6 2001:DB8::1 ::1 0 65535\r\n"), "[2001:db8::1]:0".parse().ok());
    assert_eq!(found(b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n"), "192.0.2.1:1".parse().ok());
    assert_eq!(found(b"PROXY UNKNOWN\r\n"), None);
    let longest =
        "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    assert_eq!((longest.len(), found(longest.as_bytes())), (LONGEST_LINE, None));
}

#[test]
fn lines_that_are_no_headers_are_refused() {
    for line in [
        "PROXY \r\n",
        "PROXY TCP5 192.0.2.1 198.51.100.7 1 2\r\n",
        "PROXY tcp4 192.0.2.1 198.51.100.7 1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.7 1\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.7 1 2 3\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.7 1 2 \r\n",
        "PROXY TCP4  192.0.2.1 198.51.100.7 1 2\r\n",
        "PROXY TCP4 192.0.2.01 198.51.100.7 1 2\r\n",
        "PROXY TCP4 192.0.2.256 198.51.100.7 1 2\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 192.0.2.1 198.51.100.7 1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.7 01 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.7 +1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.7 65536 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.7 1 2\n",
        "PROXY TCP4 192.0.2.1 198.51.100.7 1 2\r\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.7 1 \u{661}\r\n",
    ] {
        refused(line.as_bytes(), Fault::Malformed);
    }
    for bytes in
        [&b"GET / HTTP/1.1\r\n"[..], b"PROXY\r\n", b"proxy TCP4", b"\r\n\r\n\0\r\nQUIT\r", b"\x16\x03\x01", b"\0"]
    {
        refused(bytes, Fault::NoHeader);
    }
    refused(format!("PROXY UNKNOWN {}", "x".repeat(LONGEST_LINE)).as_bytes(), Fault::TooLong);
    refused(format!("PROXY UNKNOWN {}\r\n", "x".repeat(LONGEST_LINE - 15)).as_bytes(), Fault::Malformed);
}

#[test]
fn blocks_say_whose_connection_it_is() {
    assert_eq!(found(&v2(1, 0x11, IPV4)), "192.0.2.1:50000".parse().ok());
    let mut ipv6 = [0; 36];
    ipv6[..16].copy_from_slice(&"2001:db8::9".parse::<Ipv6Addr>().unwrap().octets());
    ipv6[33] = 80;
    assert_eq!(found(&v2(1, 0x21, &ipv6)), "[2001:db8::9]:80".parse().ok());
    // Who has no address, or speaks for himself.
    assert_eq!(found(&v2(1, 0x31, &[b'/'; 216])), None);
    assert_eq!(found(&v2(1, 0x00, b"anything")), None);
    assert_eq!(found(&v2(0, 0x11, IPV4)), None);
    assert_eq!(found(&v2(0, 0xff, b"")), None);
    // What it does not know is skipped, if it is whole.
    let more = [IPV4, &[0xea, 0, 3, 1, 2, 3, 4, 0, 0][..]].concat();
    assert_eq!(found(&v2(1, 0x11, &more)), "192.0.2.1:50000".parse().ok());
}

#[test]
fn blocks_that_are_no_headers_are_refused() {
    for (command, family, block) in [
        (2, 0x11, IPV4),
        (1, 0x13, IPV4),
        (1, 0x41, IPV4),
        (1, 0x11, &IPV4[..11]),
        (1, 0x21, IPV4),
        (1, 0x31, IPV4),
        (1, 0x11, &[IPV4, &[4]].concat()),
        (1, 0x11, &[IPV4, &[4, 0, 2, 0]].concat()),
        (1, 0x11, &[IPV4, &[3, 0, 3, 0, 0, 0]].concat()),
    ] {
        refused(&v2(command, family, block), Fault::Malformed);
    }
    let mut version = v2(1, 0x11, IPV4);
    version[12] = 0x11;
    refused(&version, Fault::Malformed);
    refused(&v2(1, 0x11, &[0; MAX_BYTES - FIXED + 1])[..FIXED], Fault::TooLong);
}

#[test]
fn checksums_are_kept_to() {
    // The check value of CRC-32C, and its own place counts as zeros.
    assert_eq!(crc32c(b"1234567890000", 9), crc32c(b"123456789abcd", 9));
    assert_eq!(crc32c(b"\0\0\0\x00123456789", 0), crc32c(b"wxyz123456789", 0));
    let mut header = v2(1, 0x11, &[IPV4, &[3, 0, 4, 0, 0, 0, 0], &[4, 0, 0]].concat());
    let place = FIXED + 12 + 3;
    let sum = crc32c(&header, place).to_be_bytes();
    header[place..place + 4].copy_from_slice(&sum);
    assert_eq!(found(&header), "192.0.2.1:50000".parse().ok());
    // Without the type of the checksum there is none.
    for at in (FIXED..header.len() - 3).filter(|at| *at != place - 3) {
        let mut changed = header.clone();
        changed[at] ^= 1;
        assert!(matches!(parse(&changed), Progress::Refused(_)), "byte {at}");
    }
    let twice = [IPV4, &header[place - 3..place + 4], &header[place - 3..place + 4]].concat();
    refused(&v2(1, 0x11, &twice), Fault::Malformed);
}

#[test]
fn the_checksum_is_castagnolis() {
    // RFC 3720 B.4: 32 bytes of zeros; and the same with other bytes at the place that is not counted.
    assert_eq!(crc32c(&[0; 32], 0), 0x8a91_36aa);
    assert_eq!(crc32c(&[[0; 28].as_slice(), &[1, 2, 3, 4]].concat(), 28), 0x8a91_36aa);
}

proptest! {
    /// Any header that is written is read, whatever follows it, and in any pieces.
    #[test]
    fn what_is_written_is_read(
        v6 in any::<bool>(), line in any::<bool>(), bits in any::<u128>(), port in any::<u16>(),
        values in proptest::collection::vec((4_u8..255, proptest::collection::vec(any::<u8>(), 0..40)), 0..8),
        behind in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let address: IpAddr = if v6 { Ipv6Addr::from(bits).into() } else { Ipv4Addr::from(bits as u32).into() };
        let header = match (line, address) {
            (true, _) => format!("PROXY TCP{} {address} {address} {port} 1\r\n", if v6 { 6 } else { 4 }).into_bytes(),
            (false, address) => {
                let octets = match address { IpAddr::V4(a) => a.octets().to_vec(), IpAddr::V6(a) => a.octets().to_vec() };
                let mut block = [&octets[..], &octets, &port.to_be_bytes(), &[0, 1]].concat();
                for (kind, value) in &values {
                    block.extend([&[*kind, 0, value.len() as u8][..], value].concat());
                }
                v2(1, if v6 { 0x21 } else { 0x11 }, &block)
            }
        };
        let client = Some(SocketAddr::new(address.to_canonical(), port));
        let whole = [&header[..], &behind].concat();
        prop_assert_eq!(parse(&whole), Progress::Found(Header { length: header.len(), client }));
        for end in 0..header.len() {
            prop_assert_eq!(parse(&header[..end]), Progress::NeedMore, "{} bytes", end);
        }
    }

    #[test]
    fn more_bytes_change_nothing_that_was_said(bytes in proptest::collection::vec(any::<u8>(), 0..80), signed in 0..3) {
        let front: &[u8] = [&b""[..], b"PROXY ", SIGNATURE][signed as usize];
        let bytes = [front, &bytes].concat();
        let whole = parse(&bytes);
        for end in 0..bytes.len() {
            let part = parse(&bytes[..end]);
            prop_assert!(part == Progress::NeedMore || part == whole);
        }
    }
}
