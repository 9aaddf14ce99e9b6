//! The same for clients that speak HTTP/2: nasty and ordinary requests frame by frame. Backends speak HTTP/1.1, as they do for the other table.

use std::collections::BTreeMap;
use std::time::Duration;

use veer_http::hpack::{Decoder, HpackFault};

use super::origin::Answer;
use super::peers::{self, Proxy};
use super::streams::{Case, cases};
use super::{Row, check_table, judge, table};
use crate::harness::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, Frames, GOAWAY, HEADERS, RST_STREAM, SETTINGS, frame, request,
};
use crate::harness::run;

/// When nothing comes for so long, the proxy waits for more.
const STILL: Duration = Duration::from_millis(2500);
const MARKS: (&str, &str) =
    ("<!-- outcomes of HTTP/2: written by the test -->\n", "<!-- end of outcomes of HTTP/2 -->");
/// Stream of the request that follows every case.
const NEXT: u32 = 3;

#[test]
fn every_difference_over_http2_is_explained() {
    run(async {
        let cases = cases();
        let proxies = peers::all().await;
        let ways = proxies.iter().map(async |proxy| {
            let mut cells = Vec::new();
            for case in &cases {
                cells.push(drive(proxy, case).await);
            }
            cells
        });
        let all = futures_util::future::join_all(ways).await;
        let row = |(number, case): (usize, &Case)| Row {
            name: case.name,
            cells: all.iter().map(|cells| cells[number].clone()).collect(),
            why: case.why,
        };
        let rows: Vec<_> = cases.iter().enumerate().map(row).collect();
        check_table(MARKS, &table(proxies.iter().map(|proxy| proxy.name), &rows));
        judge(&rows, "streams.rs");
    });
}

/// What came back on one stream.
#[derive(Default)]
struct Stream {
    answer: Answer,
    reset: Option<u32>,
    ended: bool,
}

/// What became of a case at one proxy, in few words.
async fn drive(proxy: &Proxy, case: &Case) -> String {
    proxy.origin.say("");
    let mut client = Frames::connect(proxy.http2).await;
    // In one go: nobody sees a part of a case.
    client.send(&[frame(SETTINGS, 1, 0, &[]), case.frames(), request(NEXT, "/next")].concat()).await;
    let mut streams: BTreeMap<u32, Stream> = BTreeMap::new();
    let (mut decoder, mut ended, mut waits) = (Decoder::new(4096), false, false);
    let done = |streams: &BTreeMap<u32, Stream>| {
        [1, NEXT].iter().all(|id| streams.get(id).is_some_and(|stream| stream.ended || stream.reset.is_some()))
    };
    while !done(&streams) {
        let frame = match tokio::time::timeout(STILL, client.next()).await {
            Ok(Some(frame)) => frame,
            Ok(None) => {
                ended = true;
                break;
            }
            Err(_) => {
                waits = true;
                break;
            }
        };
        match frame.kind {
            // Whether it is heard before the reset is a matter of chance, and so is its code.
            GOAWAY => ended |= frame.code() != 0,
            _ => streams.entry(frame.id).or_default().take(&frame, &mut decoder),
        }
    }
    let own = streams.remove(&1).unwrap_or_default();
    let next = streams.remove(&NEXT).unwrap_or_default();
    let mut words = Vec::new();
    let seen = proxy.origin.seen();
    let passed: Vec<_> = seen.iter().filter(|seen| seen.path() != "/next").collect();
    let told = own.words();
    match (passed.first(), case.expected()) {
        (None, _) => words.push(match (told, ended) {
            (Some(told), _) => told,
            (None, true) => "connection ended".to_owned(),
            (None, false) => "waits".to_owned(),
        }),
        (Some(came), expected) => {
            words.push("passed".to_owned());
            words.extend(super::changes(&expected, came));
            if !(own.ended && own.reset.is_none() && own.answer.is_plain()) {
                words.push(format!("answer {}", told.unwrap_or_else(|| "none".to_owned())));
            }
        }
    }
    match (next.answer.body == b"next", waits) {
        (true, _) if passed.is_empty() => words.push("goes on".to_owned()),
        (false, false) if !passed.is_empty() => words.push("then closed".to_owned()),
        _ => {}
    }
    words.dedup();
    words.join("; ")
}

impl Stream {
    fn take(&mut self, frame: &Frame, decoder: &mut Decoder) {
        match frame.kind {
            HEADERS | CONTINUATION => {
                let mut fields = Vec::new();
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let decoded = decoder.decode::<HpackFault>(&frame.payload, |name, value, _| {
                    fields.push((text(name), text(value)));
                    Ok(())
                });
                assert!(decoded.is_ok(), "{frame:?}");
                let status =
                    fields.iter().find(|(name, _)| name == ":status").and_then(|(_, status)| status.parse().ok());
                if let Some(status) = status {
                    match status {
                        100..200 => self.answer.interim.push(status),
                        _ => self.answer.status = status,
                    }
                }
                self.ended |= frame.flags & END_STREAM != 0;
            }
            DATA => {
                self.answer.body.extend(&frame.payload);
                self.ended |= frame.flags & END_STREAM != 0;
            }
            RST_STREAM => self.reset = Some(frame.code()),
            _ => {}
        }
    }

    /// Status, or the code of the reset.
    fn words(&self) -> Option<String> {
        let answered = (self.answer.status != 0).then(|| self.answer.words());
        // Whoever has answered may end with NO_ERROR what is still sent (RFC 9113 §8.1).
        let reset = self.reset.filter(|code| answered.is_none() || *code != 0);
        match (answered, reset.map(|code| format!("reset {}", name_of(code)))) {
            (Some(answered), Some(reset)) => Some(format!("{answered}, {reset}")),
            (answered, reset) => answered.or(reset),
        }
    }
}

/// RFC 9113 §7.
fn name_of(code: u32) -> String {
    let names = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
    ];
    names.get(code as usize).map_or_else(|| code.to_string(), |name| (*name).to_owned())
}

/// Frames of a request on stream 1.
pub fn written(head: &[u8], data: Option<&[u8]>, trailers: Option<&[u8]>) -> Vec<u8> {
    let last = |is_last: bool| if is_last { END_STREAM } else { 0 };
    let mut out = frame(HEADERS, END_HEADERS | last(data.is_none() && trailers.is_none()), 1, head);
    if let Some(data) = data {
        out.extend(frame(DATA, last(trailers.is_none()), 1, data));
    }
    if let Some(trailers) = trailers {
        out.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, trailers));
    }
    out
}
