//! Two ends that do anything in any order, and bytes of any kind.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, Bytes, BytesMut};
use proptest::prelude::*;

use super::peers::{get, post};
use super::raw::{GET, Raw, headers};
use crate::h2::frame::PREFACE;
use crate::h2::{Code, Config, Connection, Event, StreamId};
use crate::{Fields, Name, ResponseHead};

/// Something that one of both ends does.
#[derive(Debug, Clone)]
enum Step {
    /// The client opens a stream and sends so many bytes; the server answers with so many, maybe with trailers.
    Open { up: usize, down: usize, trailers: bool },
    /// So many bytes go to the server, or to the client.
    Carry { up: bool, most: usize },
    /// What was received is released.
    Release { up: bool },
    /// The server, or the client, gives up one of its streams.
    Cancel { up: bool, which: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![Just(0usize), 1usize..300, 300usize..5000, 5000usize..70_000];
    prop_oneof![
        2 => (size.clone(), size, any::<bool>()).prop_map(|(up, down, trailers)| Step::Open { up, down, trailers }),
        6 => (any::<bool>(), prop_oneof![1usize..50, 50usize..40_000]).prop_map(|(up, most)| Step::Carry { up, most }),
        3 => any::<bool>().prop_map(|up| Step::Release { up }),
        1 => (any::<bool>(), 0usize..20).prop_map(|(up, which)| Step::Cancel { up, which }),
    ]
}

fn config() -> impl Strategy<Value = Config> {
    (prop_oneof![200u32..2000, 2000u32..1_000_000], 0u32..200_000, 1u32..20).prop_map(
        |(stream_window, connection_window, streams)| Config {
            stream_window,
            connection_window,
            streams,
            ..Config::default()
        },
    )
}

/// One end, what it still has to send, and what it has got.
struct End {
    connection: Connection<()>,
    input: BytesMut,
    to_send: BTreeMap<StreamId, Body>,
    got: BTreeMap<StreamId, (usize, bool)>,
    held: Vec<(StreamId, u32)>,
}

struct Body {
    left: Bytes,
    trailers: bool,
}

impl End {
    fn new(connection: Connection<()>) -> Self {
        Self { connection, input: BytesMut::new(), to_send: BTreeMap::new(), got: BTreeMap::new(), held: Vec::new() }
    }

    /// Sends what can be sent of a stream.
    fn pump(&mut self, id: StreamId) {
        let Some(body) = self.to_send.get_mut(&id) else { return };
        if self.connection.data(id, &mut body.left, !body.trailers) {
            if body.trailers {
                let mut fields = Fields::new();
                fields.push(Name::GrpcStatus, b"0");
                self.connection.trailers(id, &fields);
            }
            self.to_send.remove(&id);
        }
    }

    fn pump_all(&mut self) {
        while let Some(id) = self.connection.writable() {
            self.pump(id);
        }
        let over =
            |(id, (_, ended)): (&StreamId, &(usize, bool))| (*ended && !self.to_send.contains_key(id)).then_some(*id);
        let over: Vec<_> = self.got.iter().filter_map(over).collect();
        for id in over {
            self.connection.forget(id);
        }
    }

    /// Gives up a stream that is not over.
    fn cancel(&mut self, which: usize) -> Option<StreamId> {
        let open =
            |(id, (_, ended)): (&StreamId, &(usize, bool))| (!*ended || self.to_send.contains_key(id)).then_some(*id);
        let open: Vec<_> = self.got.iter().filter_map(open).collect();
        let id = *open.get(which % open.len().max(1))?;
        self.drop_stream(id);
        Some(id)
    }

    fn drop_stream(&mut self, id: StreamId) {
        self.connection.forget(id);
        self.to_send.remove(&id);
        self.got.remove(&id);
    }

    fn release(&mut self) {
        for (id, flow) in std::mem::take(&mut self.held) {
            self.connection.release(id, flow);
        }
    }

    /// Checks data against what is sent: byte `n` of a stream is a function of both.
    fn take(&mut self, id: StreamId, data: &[u8], end: bool) {
        let (got, ended) = self.got.entry(id).or_default();
        assert!(!*ended);
        for byte in data {
            assert_eq!(*byte, pattern(id, *got), "stream {id} at {got}");
            *got += 1;
        }
        *ended = end;
    }

    /// Acts on what came. The server's answers are in `plan`.
    fn react(&mut self, plan: &BTreeMap<StreamId, Plan>) {
        while let Some(event) = self.connection.receive(&mut self.input).unwrap() {
            match event {
                Event::Request { id, end, .. } => {
                    self.take(id, b"", end);
                    let plan = &plan[&id];
                    self.connection.set_state(id, ());
                    self.connection.respond(id, &ResponseHead::new(200), false);
                    self.to_send.insert(id, Body { left: filled(id, plan.down), trailers: plan.trailers });
                    self.pump(id);
                }
                Event::Response { id, end, .. } => self.take(id, b"", end),
                Event::Data { id, data, flow, end } => {
                    self.take(id, &data, end);
                    self.held.push((id, flow));
                }
                Event::Trailers { id, .. } => self.take(id, b"", true),
                Event::Settings => {}
                Event::Reset { id, code: Code::CANCEL | Code::NO_ERROR, untouched: false } => self.drop_stream(id),
                other => panic!("{other:?}"),
            }
        }
        self.pump_all();
    }
}

struct Plan {
    up: usize,
    down: usize,
    trailers: bool,
}

fn pattern(id: StreamId, at: usize) -> u8 {
    (id as usize * 31 + at + at / 251) as u8
}

fn filled(id: StreamId, length: usize) -> Bytes {
    (0..length).map(|at| pattern(id, at)).collect()
}

fn carry(from: &mut End, to: &mut End, most: usize) -> bool {
    let output = from.connection.output();
    let mut left = most.min(output.remaining());
    let some = left > 0;
    while left > 0 {
        let length = left.min(output.chunk().len());
        to.input.extend_from_slice(&output.chunk()[..length]);
        output.advance(length);
        left -= length;
    }
    some
}

fn run(steps: Vec<Step>, client: Config, server: Config) {
    let mut client = End::new(Connection::client(client));
    let mut server = End::new(Connection::server(server));
    let mut plan = BTreeMap::new();
    let mut cancelled = BTreeSet::new();
    let open = |client: &mut End, plan: &mut BTreeMap<StreamId, Plan>, up: usize, down: usize, trailers: bool| {
        let Ok(id) = client.connection.request(&post("/"), up == 0, ()) else { return };
        plan.insert(id, Plan { up, down, trailers });
        client.got.insert(id, (0, false));
        if up > 0 {
            client.to_send.insert(id, Body { left: filled(id, up), trailers: false });
            client.pump(id);
        }
    };
    // A client that does not know the limits yet could go beyond them.
    for _ in 0..2 {
        carry(&mut client, &mut server, usize::MAX);
        server.react(&plan);
        carry(&mut server, &mut client, usize::MAX);
        client.react(&plan);
    }
    for step in steps {
        match step {
            Step::Open { up, down, trailers } => open(&mut client, &mut plan, up, down, trailers),
            Step::Carry { up: true, most } => {
                carry(&mut client, &mut server, most);
                server.react(&plan);
            }
            Step::Carry { up: false, most } => {
                carry(&mut server, &mut client, most);
                client.react(&plan);
            }
            Step::Release { up: true } => server.release(),
            Step::Release { up: false } => client.release(),
            Step::Cancel { up, which } => cancelled.extend(if up { &mut server } else { &mut client }.cancel(which)),
        }
    }
    // Whatever happened, what is left comes through.
    let mut idle = 0;
    while idle < 2 {
        client.release();
        server.release();
        client.pump_all();
        server.pump_all();
        let up = carry(&mut client, &mut server, usize::MAX);
        server.react(&plan);
        let down = carry(&mut server, &mut client, usize::MAX);
        client.react(&plan);
        idle = if up || down { 0 } else { idle + 1 };
    }
    for (id, plan) in plan.into_iter().filter(|(id, _)| !cancelled.contains(id)) {
        assert_eq!(server.got.get(&id), Some(&(plan.up, true)), "up on {id}");
        assert_eq!(client.got.get(&id), Some(&(plan.down, true)), "down on {id}");
    }
    assert_eq!((client.connection.open_streams(), server.connection.open_streams()), (0, 0));
    assert!(client.connection.output().is_empty() && server.connection.output().is_empty());
}

#[test]
fn a_window_of_one_byte_is_one() {
    let narrow = Config { stream_window: 1, ..Config::default() };
    run(vec![Step::Open { up: 300, down: 200, trailers: true }; 3], narrow.clone(), narrow);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn everything_arrives_in_order_whatever_the_windows(
        steps in proptest::collection::vec(step(), 1..60),
        client in config(),
        server in config(),
    ) {
        run(steps, client, server);
    }
}

proptest! {
    #[test]
    fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..400), server: bool) {
        let mut raw = if server { Raw::server(Config::default()) } else { Raw::client(Config::default()) };
        let _ = raw.feed(&bytes);
    }

    /// Frames that look right, with anything in them.
    #[test]
    fn no_frames_do_harm(
        frames in proptest::collection::vec((0u8..18, any::<u8>(), 0u32..8, proptest::collection::vec(any::<u8>(), 0..40)), 0..30),
        server: bool,
        split in 1usize..60,
    ) {
        let mut raw = if server { Raw::server(Config::default()) } else { Raw::client(Config::default()) };
        if server {
            raw.feed(&headers(1, &GET, true)).unwrap();
        } else {
            raw.connection.request(&get("/"), true, 0).unwrap();
            raw.connection.request(&post("/"), false, 0).unwrap();
        }
        let bytes: Vec<u8> =
            frames.into_iter().flat_map(|(kind, flags, id, payload)| super::raw::frame(kind, flags, id, &payload)).collect();
        for piece in bytes.chunks(split) {
            match raw.feed(piece) {
                Ok(events) => for event in events {
                    if let Event::Reset { id, .. } = event {
                        raw.connection.forget(id);
                    }
                },
                Err(_) => break,
            }
        }
        let _ = raw.connection.output().remaining();
    }

    /// A good conversation with some bytes changed.
    #[test]
    fn no_mutation_does_harm(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut client: Connection<()> = Connection::client(Config::default());
        for up in [0, 100, 5000] {
            let id = client.request(&post("/a/b"), up == 0, ()).unwrap();
            if up > 0 {
                client.data(id, &mut filled(id, up), true);
            }
        }
        let output = client.output();
        let mut bytes = output.copy_to_bytes(output.remaining()).to_vec();
        for (place, value) in changes {
            let at = PREFACE.len() + place.index(bytes.len() - PREFACE.len());
            bytes[at] = value;
        }
        let mut server: Connection<()> = Connection::server(Config::default());
        let mut input = BytesMut::from(&bytes[..]);
        while let Ok(Some(event)) = server.receive(&mut input) {
            if let Event::Request { id, .. } = event {
                server.respond(id, &ResponseHead::new(200), true);
                server.forget(id);
            }
        }
    }
}
