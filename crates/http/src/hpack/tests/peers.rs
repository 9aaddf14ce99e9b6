//! Two ends that have to stay in step, whatever is sent; and blocks that no encoder makes.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Block(Vec<(Vec<u8>, Vec<u8>, bool)>),
    /// The decoding end's settings, which permit no more than its announcement.
    Size(usize),
}

/// Few names and values, so that they return; and some of any kind.
fn field() -> impl Strategy<Value = (Vec<u8>, Vec<u8>, bool)> {
    static NAMES: [&str; 17] = [
        ":method",
        ":path",
        ":status",
        ":authority",
        ":protocol",
        "accept",
        "accept-encoding",
        "user-agent",
        "etag",
        "traceparent",
        "cookie",
        "authorization",
        "x-one",
        "x-two",
        "x-three",
        "grpc-status",
        "content-length",
    ];
    let name = prop_oneof![
        9 => prop::sample::select(&NAMES[..]).prop_map(|name| name.as_bytes().to_vec()),
        1 => "[a-z-]{1,40}".prop_map(String::into_bytes),
    ];
    static VALUES: [&str; 12] =
        ["", "GET", "/", "/?x", "200", "201", "gzip, deflate", "a", "b", "c", "d", "a value of some length"];
    let value = prop_oneof![
        6 => prop::sample::select(&VALUES[..]).prop_map(|value| value.as_bytes().to_vec()),
        2 => "[ -~]{0,60}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..300),
    ];
    (name, value, prop::bool::weighted(0.1))
}

fn step(largest: usize) -> impl Strategy<Value = Step> {
    prop_oneof![
        9 => prop::collection::vec(field(), 0..12).prop_map(Step::Block),
        2 => (0..=largest).prop_map(Step::Size),
    ]
}

/// Credentials are never indexed even if nobody asked; all else is as it was said.
fn expected(field: &(Vec<u8>, Vec<u8>, bool)) -> (Vec<u8>, Vec<u8>, bool) {
    let (name, value, sensitive) = field.clone();
    let secret = match &name[..] {
        b"authorization" => true,
        b"cookie" => value.len() < 20,
        _ => false,
    };
    // A pseudo-field is never sensitive.
    let sensitive = sensitive && name[0] != b':';
    (name, value, sensitive || secret)
}

fn borrowed(fields: &[(Vec<u8>, Vec<u8>, bool)]) -> Vec<(&[u8], &[u8], bool)> {
    fields.iter().map(|(name, value, sensitive)| (&name[..], &value[..], *sensitive)).collect()
}

proptest! {
    #[test]
    fn both_ends_stay_in_step(
        own in prop::sample::select(vec![0usize, 60, 200, 4096, 10_000]),
        announced in prop::sample::select(vec![4096usize, 8192]),
        steps in prop::collection::vec(step(8192), 1..40),
    ) {
        let (mut encoder, mut decoder) = (Encoder::new(own), Decoder::new(announced));
        for step in steps {
            match step {
                Step::Block(fields) => {
                    let block = encode(&mut encoder, &borrowed(&fields));
                    let sent: Vec<_> = fields.iter().map(expected).collect();
                    prop_assert_eq!(decode(&mut decoder, &block).unwrap(), sent);
                    prop_assert!(decoder.table_size() <= announced);
                }
                Step::Size(size) => encoder.set_peer_table_size(size.min(announced)),
            }
        }
    }

    /// Another implementation understands us, and we it, over whole connections.
    #[test]
    fn another_implementation_agrees(blocks in prop::collection::vec(prop::collection::vec(field(), 0..12), 1..30)) {
        let (mut encoder, mut their_decoder) = (Encoder::new(4096), fluke_hpack::Decoder::new());
        let (mut their_encoder, mut decoder) = (fluke_hpack::Encoder::new(), Decoder::new(4096));
        for fields in &blocks {
            let plain: Vec<_> = fields.iter().map(|(name, value, _)| (name.clone(), value.clone())).collect();
            let block = encode(&mut encoder, &borrowed(fields));
            prop_assert_eq!(&their_decoder.decode(&block).unwrap(), &plain);
            let block = their_encoder.encode(borrowed(fields).into_iter().map(|(name, value, _)| (name, value)));
            let decoded: Vec<_> = decode(&mut decoder, &block).unwrap().into_iter().map(|(n, v, _)| (n, v)).collect();
            prop_assert_eq!(&decoded, &plain);
        }
    }

    /// Whatever comes, it ends with fields or a fault, and the table stays within its bound.
    #[test]
    fn no_block_does_harm(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 1..8)) {
        let mut decoder = Decoder::new(4096);
        for block in blocks {
            let whole = decode(&mut decoder, &block);
            prop_assert!(decoder.table_size() <= 4096);
            for (name, value, _) in whole.unwrap_or_default() {
                prop_assert!(name.len() + value.len() <= 4096 + block.len() * 8 / 5);
            }
        }
    }

    /// A good block with a byte changed or its end cut off.
    #[test]
    fn a_damaged_block_does_no_harm(
        fields in prop::collection::vec(field(), 1..12), at: prop::sample::Index, byte: u8, cut: prop::sample::Index,
    ) {
        let good = encode(&mut Encoder::new(4096), &borrowed(&fields));
        let mut bad = good.clone();
        bad[at.index(good.len())] = byte;
        let _ = decode(&mut Decoder::new(4096), &bad);
        let _ = decode(&mut Decoder::new(4096), &good[..cut.index(good.len())]);
    }
}

#[test]
fn what_the_standard_forbids_is_a_fault() {
    for (hex, fault) in [
        ("80", HpackFault::Index),             // §6.1: an index of zero
        ("be", HpackFault::Index),             // beyond both tables
        ("7e0161", HpackFault::Index),         // a name beyond both tables
        ("0f2f0161", HpackFault::Index),       // the same, not indexed
        ("ffffffffffff", HpackFault::Integer), // an integer without end
        ("40", HpackFault::Truncated),         // no name
        ("4003616263", HpackFault::Truncated), // no value
        ("40036162", HpackFault::Truncated),   // half a name
        ("4001610a62", HpackFault::Truncated), // half a value
        ("7f", HpackFault::Truncated),         // half an integer
        ("3fe21f", HpackFault::TableSize),     // 4097 bytes
        ("823f00", HpackFault::UpdateLate),    // after a field
        ("40816100", HpackFault::Huffman),     // 0x61 is no whole code
        ("4081070261", HpackFault::Truncated), // a name in code, half a value
    ] {
        assert_eq!(decode(&mut Decoder::new(4096), &unhex(hex)), Err(fault), "{hex}");
    }
}

#[test]
fn a_smaller_table_has_to_be_confirmed_once_the_settings_are_acknowledged() {
    let get = unhex("82");
    let mut decoder = Decoder::new(100);
    assert!(decode(&mut decoder, &get).is_ok());
    decoder.acknowledged();
    assert_eq!(decode(&mut decoder, &get), Err(HpackFault::UpdateMissing));
    assert_eq!(decode(&mut decoder, &unhex("3f4682")), Err(HpackFault::TableSize)); // 101
    assert!(decode(&mut decoder, &unhex("3f4582")).is_ok()); // 100
    assert!(decode(&mut decoder, &get).is_ok());
}

#[test]
fn the_sinks_error_ends_it() {
    #[derive(Debug, PartialEq)]
    enum Stop {
        Here,
        Fault,
    }
    impl From<HpackFault> for Stop {
        fn from(_: HpackFault) -> Self {
            Stop::Fault
        }
    }
    let mut seen = 0;
    let result = Decoder::new(4096).decode(&unhex("828684"), |_, _, _| {
        seen += 1;
        if seen == 2 { Err(Stop::Here) } else { Ok(()) }
    });
    assert_eq!((result, seen), (Err(Stop::Here), 2));
}

#[test]
fn a_line_tells_what_it_is_and_whether_it_may_be_forwarded() {
    let mut out = Vec::new();
    let mut encoder = Encoder::new(4096);
    let lines: [(&[u8], &[u8], Known, bool); 9] = [
        (b":path", b"/a", Known::Pseudo(Pseudo::Path), true),
        (b":protocol", b"websocket", Known::Pseudo(Pseudo::Protocol), true),
        (b":mine", b"a", Known::Field(Name::Other), false),
        (b"accept", b"*/*", Known::Field(Name::Accept), true),
        (b"x-mine", b"a\tb", Known::Field(Name::Other), true),
        (b"X-Mine", b"a", Known::Field(Name::Other), false),
        (b"x-line", b"a\r\nb: c", Known::Field(Name::Other), false),
        (b"x-blank", b" a", Known::Field(Name::Other), false),
        (b"x-tab", b"a\t", Known::Field(Name::Other), false),
    ];
    // Twice: from the block, and from the table.
    for _ in 0..2 {
        for (name, value, known, _) in lines {
            match known {
                Known::Pseudo(pseudo) => encoder.pseudo(pseudo, value, &mut out),
                Known::Field(known) => encoder.field(known, name, value, false, &mut out),
            }
        }
    }
    let mut seen = Vec::new();
    let mut decoder = Decoder::new(4096);
    decoder
        .decode_lines(&out, |line| {
            seen.push((line.name.to_vec(), line.value.to_vec(), line.known, line.fit));
            Ok::<_, HpackFault>(())
        })
        .unwrap();
    let expected: Vec<_> =
        lines.iter().map(|(name, value, known, fit)| (name.to_vec(), value.to_vec(), *known, *fit)).collect();
    assert_eq!(seen[..9], expected[..]);
    assert_eq!(seen[9..], expected[..]);
}

/// Each byte at each place, in plain text and in code.
#[test]
fn a_value_is_fit_if_it_has_no_control_character_but_tab() {
    for byte in 0..=255u8 {
        for (length, at) in (1..20).flat_map(|length| (0..length).map(move |at| (length, at))) {
            let mut value = vec![b'x'; length];
            value[at] = byte;
            let inside = at > 0 && at + 1 < length;
            let fit = match byte {
                b'\t' | b' ' => inside,
                _ => !byte.is_ascii_control(),
            };
            let coded = huffman::length(&value);
            let mut in_code = vec![0x04, 0x80 | coded as u8];
            huffman::encode(&value, coded, &mut in_code);
            for block in [[&[0x04, length as u8][..], &value].concat(), in_code] {
                let line = |line: Line<'_>| {
                    assert_eq!((line.value, line.fit), (&value[..], fit), "{byte} at {at}");
                    Ok::<_, HpackFault>(())
                };
                Decoder::new(4096).decode_lines(&block, line).unwrap();
            }
        }
    }
}
