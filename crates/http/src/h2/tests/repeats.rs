//! Heads that come again mean the same, whatever the compression tables do between.

use proptest::prelude::*;

use super::peers::Pair;
use super::raw::settings;
use crate::h2::{Config, Event};
use crate::{Fields, RequestHead, ResponseHead};

/// One of few heads, so that they repeat: fields of few names and values, some of which enter the tables.
fn fields() -> impl Strategy<Value = Vec<(usize, usize)>> {
    proptest::collection::vec((0usize..6, 0usize..3), 0..4)
}

const NAMES: [&str; 6] = ["x-a", "content-type", "traceparent", "x-b", "authorization", "accept"];
const VALUES: [&str; 3] = ["1", "application/grpc", "a value that is somewhat longer than the others"];

fn put(picks: &[(usize, usize)], fields: &mut Fields) {
    for (name, value) in picks {
        fields.push_other(NAMES[*name].as_bytes(), VALUES[*value].as_bytes());
    }
}

proptest! {
    #[test]
    fn what_is_received_is_what_was_sent(
        rounds in proptest::collection::vec(
            (0usize..3, fields(), 200u16..203, fields(), fields(), prop_oneof![9 => Just(None), 1 => (0u32..300).prop_map(Some)]),
            1..120,
        ),
        table in prop_oneof![Just(4096usize), 0usize..400],
    ) {
        let config = Config { table, ..Config::default() };
        let mut pair = Pair::new(config.clone(), config);
        pair.carry_to_server().unwrap();
        for (path, request, status, response, trailers, resize) in rounds {
            let mut asked = RequestHead::default();
            asked.set_method(b"GET");
            asked.set_authority(b"shop.test");
            asked.set_target(["/", "/a", "/a/longer/path?x=1"][path].as_bytes());
            put(&request, &mut asked.fields);
            let id = pair.client.request(&asked, true, 0).unwrap();
            let mut answered = ResponseHead::new(status);
            put(&response, &mut answered.fields);
            let mut ended = Fields::new();
            put(&trailers, &mut ended);
            let events = pair.carry_to_server().unwrap();
            let Some(Event::Request { head, .. }) = events.into_iter().find(|event| matches!(event, Event::Request { .. })) else {
                panic!("no request");
            };
            prop_assert_eq!((&head.fields, head.target(), head.authority()), (&asked.fields, asked.target(), asked.authority()));
            pair.server.respond(id, &answered, false);
            pair.server.trailers(id, &ended);
            pair.server.forget(id);
            let (mut head, mut end) = (None, None);
            for event in pair.carry_to_client().unwrap() {
                match event {
                    Event::Response { head: came, .. } => head = Some(came),
                    Event::Trailers { fields, .. } => end = Some(fields),
                    _ => {}
                }
            }
            let (head, end) = (head.unwrap(), end.unwrap());
            prop_assert_eq!((&head.fields, head.status, &end), (&answered.fields, status, &ended));
            pair.client.forget(id);
            if let Some(size) = resize {
                // Another table from now on, in both directions.
                let bytes = settings(&[(1, size.min(table as u32))]);
                pair.to_server.extend_from_slice(&bytes);
                pair.to_client.extend_from_slice(&bytes);
                pair.carry_to_server().unwrap();
                pair.carry_to_client().unwrap();
            }
        }
    }
}
