//! RFC 7541, Appendix C, as it is written there.

use super::*;

struct Step {
    hex: &'static str,
    fields: &'static [(&'static str, &'static str)],
    table: &'static [(&'static str, &'static str)],
    size: usize,
}

fn owned(fields: &[(&str, &str)]) -> Vec<Text> {
    fields.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn decodes(decoder: &mut Decoder, steps: &[Step]) {
    for step in steps {
        let fields = decode(decoder, &unhex(step.hex)).unwrap();
        assert_eq!(text(&fields), owned(step.fields));
        assert_eq!(decoder.entries(), owned(step.table));
        assert_eq!(decoder.table_size(), step.size);
    }
}

/// A decoder whose peer uses a table of 256 bytes, as in C.5 and C.6.
fn small() -> Decoder {
    let mut decoder = Decoder::new(256);
    decode(&mut decoder, &unhex("3fe101")).unwrap();
    decoder.acknowledged();
    decoder
}

#[test]
fn c2_one_field_each() {
    for (hex, name, value, sensitive, size) in [
        ("400a637573746f6d2d6b65790d637573746f6d2d686561646572", "custom-key", "custom-header", false, 55),
        ("040c2f73616d706c652f70617468", ":path", "/sample/path", false, 0),
        ("100870617373776f726406736563726574", "password", "secret", true, 0),
        ("82", ":method", "GET", false, 0),
    ] {
        let mut decoder = Decoder::new(4096);
        let fields = decode(&mut decoder, &unhex(hex)).unwrap();
        assert_eq!(fields, [(name.as_bytes().to_vec(), value.as_bytes().to_vec(), sensitive)]);
        assert_eq!(decoder.table_size(), size);
        assert_eq!(decoder.entries().len(), usize::from(size > 0));
    }
}

const REQUESTS: [&[(&str, &str)]; 3] = [
    &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")],
    &[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "www.example.com"),
        ("cache-control", "no-cache"),
    ],
    &[
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/index.html"),
        (":authority", "www.example.com"),
        ("custom-key", "custom-value"),
    ],
];

const REQUEST_TABLES: [&[(&str, &str)]; 3] = [
    &[(":authority", "www.example.com")],
    &[("cache-control", "no-cache"), (":authority", "www.example.com")],
    &[("custom-key", "custom-value"), ("cache-control", "no-cache"), (":authority", "www.example.com")],
];

const REQUEST_SIZES: [usize; 3] = [57, 110, 164];

fn requests(hex: [&'static str; 3]) -> [Step; 3] {
    std::array::from_fn(|at| Step {
        hex: hex[at],
        fields: REQUESTS[at],
        table: REQUEST_TABLES[at],
        size: REQUEST_SIZES[at],
    })
}

#[test]
fn c3_requests_in_plain_text() {
    let hex = [
        "828684410f7777772e6578616d706c652e636f6d",
        "828684be58086e6f2d6361636865",
        "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
    ];
    decodes(&mut Decoder::new(4096), &requests(hex));
}

const CODED_REQUESTS: [&str; 3] = [
    "828684418cf1e3c2e5f23a6ba0ab90f4ff",
    "828684be5886a8eb10649cbf",
    "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
];

#[test]
fn c4_requests_in_code() {
    decodes(&mut Decoder::new(4096), &requests(CODED_REQUESTS));
}

#[test]
fn c4_requests_are_encoded_like_that() {
    let mut encoder = Encoder::new(4096);
    for (fields, hex) in REQUESTS.iter().zip(CODED_REQUESTS) {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes(), false)).collect();
        assert_eq!(encode(&mut encoder, &fields), unhex(hex));
    }
}

const COOKIE: &str = "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";

const RESPONSES: [&[(&str, &str)]; 3] = [
    &[
        (":status", "302"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
        ("location", "https://www.example.com"),
    ],
    &[
        (":status", "307"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
        ("location", "https://www.example.com"),
    ],
    &[
        (":status", "200"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
        ("location", "https://www.example.com"),
        ("content-encoding", "gzip"),
        ("set-cookie", COOKIE),
    ],
];

const RESPONSE_TABLES: [&[(&str, &str)]; 3] = [
    &[
        ("location", "https://www.example.com"),
        ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
        ("cache-control", "private"),
        (":status", "302"),
    ],
    &[
        (":status", "307"),
        ("location", "https://www.example.com"),
        ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
        ("cache-control", "private"),
    ],
    &[("set-cookie", COOKIE), ("content-encoding", "gzip"), ("date", "Mon, 21 Oct 2013 20:13:22 GMT")],
];

const RESPONSE_SIZES: [usize; 3] = [222, 222, 215];

fn responses(hex: [&'static str; 3]) -> [Step; 3] {
    std::array::from_fn(|at| Step {
        hex: hex[at],
        fields: RESPONSES[at],
        table: RESPONSE_TABLES[at],
        size: RESPONSE_SIZES[at],
    })
}

#[test]
fn c5_responses_in_plain_text_with_eviction() {
    let hex = [
        "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d54
         6e1768747470733a2f2f7777772e6578616d706c652e636f6d",
        "4803333037c1c0bf",
        "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a6970
         7738666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31",
    ];
    decodes(&mut small(), &responses(hex));
}

#[test]
fn c6_responses_in_code_with_eviction() {
    let hex = [
        "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff
         6e919d29ad171863c78f0b97c8e9ae82ae43d3",
        "4883640effc1c0bf",
        "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab
         77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
    ];
    decodes(&mut small(), &responses(hex));
}
