//! A client's and a server's end, wired together.

use bytes::{Buf, Bytes, BytesMut};

use crate::h2::{Code, Config, Connection, Event, Fault};
use crate::{Name, RequestHead, ResponseHead};

/// Both ends, and what is under way between them.
pub(super) struct Pair {
    pub client: Connection<u32>,
    pub server: Connection<u32>,
    pub to_client: BytesMut,
    pub to_server: BytesMut,
}

impl Pair {
    pub(super) fn new(client: Config, server: Config) -> Self {
        Self {
            client: Connection::client(client),
            server: Connection::server(server),
            to_client: BytesMut::new(),
            to_server: BytesMut::new(),
        }
    }

    /// Carries what the client has written; the server's events.
    pub(super) fn carry_to_server(&mut self) -> Result<Vec<Event>, Fault> {
        carry(&mut self.client, &mut self.to_server);
        events(&mut self.server, &mut self.to_server)
    }

    /// Carries what the server has written; the client's events.
    pub(super) fn carry_to_client(&mut self) -> Result<Vec<Event>, Fault> {
        carry(&mut self.server, &mut self.to_client);
        events(&mut self.client, &mut self.to_client)
    }
}

fn carry(from: &mut Connection<u32>, to: &mut BytesMut) {
    let output = from.output();
    while output.has_remaining() {
        let chunk = output.chunk();
        to.extend_from_slice(chunk);
        let length = chunk.len();
        output.advance(length);
    }
}

pub(super) fn events(connection: &mut Connection<u32>, input: &mut BytesMut) -> Result<Vec<Event>, Fault> {
    let mut events = Vec::new();
    while let Some(event) = connection.receive(input)? {
        events.push(event);
    }
    Ok(events)
}

pub(super) fn get(path: &str) -> RequestHead {
    let mut head = RequestHead::default();
    head.set_method(b"GET");
    head.set_authority(b"shop.test");
    head.set_target(path.as_bytes());
    head.fields.push(Name::UserAgent, b"test");
    head
}

pub(super) fn post(path: &str) -> RequestHead {
    let mut head = get(path);
    head.set_method(b"POST");
    head
}

#[test]
fn a_request_is_answered() {
    let mut pair = Pair::new(Config { stream_window: 65_535, ..Config::default() }, Config::default());
    let id = pair.client.request(&post("/a"), false, 7).unwrap();
    let mut body = Bytes::from_static(b"hello");
    assert!(pair.client.data(id, &mut body, true));
    let events = pair.carry_to_server().unwrap();
    let [Event::Settings, Event::Request { id: 1, head, end: false }, Event::Data { data, flow: 5, end: true, .. }] =
        &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!((head.target(), head.authority(), &data[..]), (&b"/a"[..], Some(&b"shop.test"[..]), &b"hello"[..]));
    pair.server.set_state(1, 9);
    pair.server.release(1, 5);
    let mut answer = ResponseHead::new(200);
    answer.fields.push(Name::ContentLength, b"100000");
    pair.server.respond(1, &answer, false);
    let mut body = Bytes::from(vec![1; 100_000]);
    assert!(!pair.server.data(1, &mut body, true));
    assert_eq!(body.len(), 100_000 - 65_535);
    assert_eq!(pair.server.writable(), None);
    let mut got = 0;
    for _ in 0..10 {
        for event in pair.carry_to_client().unwrap() {
            match event {
                Event::Data { id, data, flow, end } => {
                    got += data.len();
                    pair.client.release(id, flow);
                    assert_eq!(end, got == 100_000);
                }
                Event::Response { head, .. } => assert_eq!(head.status, 200),
                other => assert!(matches!(other, Event::Settings), "{other:?}"),
            }
        }
        pair.carry_to_server().unwrap();
        while let Some(id) = pair.server.writable() {
            pair.server.data(id, &mut body, true);
        }
    }
    assert_eq!(got, 100_000);
    assert_eq!((pair.server.forget(1), pair.client.forget(1)), (Some(9), Some(7)));
    assert_eq!((pair.server.open_streams(), pair.client.open_streams()), (0, 0));
    assert!(pair.server.output().is_empty() && pair.client.can_open());
    pair.server.shut_down();
    assert!(!pair.server.is_shut() && pair.server.going_away());
    assert!(matches!(pair.carry_to_client().unwrap()[..], [Event::GoAway { last: 0x7fff_ffff, code: Code::NO_ERROR }]));
    pair.carry_to_server().unwrap();
    assert!(matches!(pair.carry_to_client().unwrap()[..], [Event::GoAway { last: 1, code: Code::NO_ERROR }]));
    assert!(pair.server.is_shut() && pair.client.is_shut());
}
