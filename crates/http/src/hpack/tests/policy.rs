//! What enters the encoder's table, and what does not.

use super::*;

/// The number of fields in the table of a peer that decoded the block.
fn after(encoder: &mut Encoder, decoder: &mut Decoder, fields: &[(&[u8], &[u8], bool)]) -> (usize, usize) {
    let block = encode(encoder, fields);
    decode(decoder, &block).unwrap();
    (block.len(), decoder.entries().len())
}

#[test]
fn a_call_that_repeats_is_one_byte_per_field() {
    let (mut encoder, mut decoder) = (Encoder::new(4096), Decoder::new(4096));
    let call: [(&[u8], &[u8], bool); 8] = [
        (b":method", b"POST", false),
        (b":scheme", b"http", false),
        (b":path", b"/shop.Cart/Add", false),
        (b":authority", b"cart.shop:8080", false),
        (b"content-type", b"application/grpc", false),
        (b"te", b"trailers", false),
        (b"user-agent", b"grpc-go/1.64.0", false),
        (b"x-tenant", b"blue", false),
    ];
    let (first, entries) = after(&mut encoder, &mut decoder, &call);
    assert!(first > 60 && entries == 6);
    assert_eq!(after(&mut encoder, &mut decoder, &call), (8, 6));
}

#[test]
fn values_of_one_message_leave_no_more_than_their_name() {
    let (mut encoder, mut decoder) = (Encoder::new(4096), Decoder::new(4096));
    for turn in 0..50 {
        let trace = format!("00-{turn:032x}-{turn:016x}-01");
        let fields: [(&[u8], &[u8], bool); 5] = [
            (b"traceparent", trace.as_bytes(), false),
            (b"etag", trace.as_bytes(), false),
            (b"content-length", trace.as_bytes(), false),
            (b":path", &[b"/?", trace.as_bytes()].concat(), false),
            (b"authorization", trace.as_bytes(), false),
        ];
        after(&mut encoder, &mut decoder, &fields);
        assert_eq!(decoder.entries(), [("traceparent".to_owned(), format!("00-{:032x}-{:016x}-01", 0, 0))]);
    }
}

#[test]
fn an_unknown_name_whose_values_differ_is_found_out() {
    let (mut encoder, mut decoder) = (Encoder::new(4096), Decoder::new(4096));
    for turn in 0..90 {
        let value = format!("v{turn}");
        after(&mut encoder, &mut decoder, &[(b"x-differs", value.as_bytes(), false), (b"x-returns", b"same", false)]);
    }
    assert_eq!(decoder.entries().len(), 11, "one in nine, and the one that returns");
}

#[test]
fn values_that_take_turns_are_all_learnt() {
    let (mut encoder, mut decoder) = (Encoder::new(4096), Decoder::new(4096));
    for turn in 0..40 {
        let value = [b'a' + turn % 4];
        after(&mut encoder, &mut decoder, &[(b"user-agent", &value, false)]);
    }
    for value in [b"a", b"b", b"c", b"d"] {
        assert_eq!(after(&mut encoder, &mut decoder, &[(b"user-agent", value, false)]).0, 1);
    }
}

#[test]
fn secrets_are_never_indexed_and_say_so() {
    let mut encoder = Encoder::new(4096);
    let bits = |encoder: &mut Encoder, name: &[u8], value: &[u8], sensitive| {
        encode(encoder, &[(name, value, sensitive)])[0] & 0xf0
    };
    for _ in 0..3 {
        assert_eq!(bits(&mut encoder, b"authorization", b"Bearer of something that is rather long", false), 0x10);
        assert_eq!(bits(&mut encoder, b"cookie", b"a=1", false), 0x10);
        assert_eq!(bits(&mut encoder, b"cookie", b"session=0123456789abcdef", false), 0x00);
        assert_eq!(bits(&mut encoder, b"cookie", b"session=0123456789abcdef", true), 0x10);
        assert_eq!(bits(&mut encoder, b"x-mine", b"secret", true), 0x10);
        assert_eq!(bits(&mut encoder, b"accept", b"text/plain", true), 0x10);
    }
}

#[test]
fn sizes_are_told_at_the_next_block() {
    let begin = |encoder: &mut Encoder| encode(encoder, &[]);
    assert_eq!(begin(&mut Encoder::new(4096)), []);
    assert_eq!(begin(&mut Encoder::new(0)), [0x20]);
    assert_eq!(begin(&mut Encoder::new(65536)), []);
    let mut encoder = Encoder::new(8192);
    encoder.set_peer_table_size(4096);
    assert_eq!(begin(&mut encoder), []);
    encoder.set_peer_table_size(0);
    encoder.set_peer_table_size(10);
    encoder.set_peer_table_size(1 << 20);
    assert_eq!(begin(&mut encoder), [&[0x20][..], &unhex("3fe13f")].concat());
    assert_eq!(begin(&mut encoder), []);
}
