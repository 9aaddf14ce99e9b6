//! HTTP/2 (RFC 9113) as a state machine: bytes in, events out, bytes out. Both roles, extended `CONNECT` (RFC 8441); priorities are
//! read and ignored (RFC 9218 §2.1 permits that), pushes are refused.
//!
//! How to drive a [`Connection`]: read into a buffer and call [`Connection::receive`] until it wants more bytes; act on the events;
//! ask [`Connection::writable`] until it has no stream to name and give each its [`Connection::data`]; write
//! [`Connection::output`]; read again. Everything that many requests caused is then one contiguous write.
//!
//! There is no clock here. Who drives the connection bounds how long a peer may take, and how long `GOAWAY` may wait for streams.

mod blocks;
mod code;
mod control;
mod event;
mod flood;
mod frame;
mod memo;
mod output;
mod receive;
mod section;
mod send;
mod settings;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

pub use code::{Code, Fault};
pub use event::Event;
pub use output::{HIGH_WATER, Output};
pub use send::Refused;
pub use settings::Config;

use crate::hpack::{Decoder, Encoder};
use flood::Flood;
use frame::{PREFACE, WINDOW};
use memo::Memos;
use settings::Peer;
use stream::{Half, Stream, Streams};

/// A stream's number on its connection: odd, since all are opened by the client.
pub type StreamId = u32;

/// One end of an HTTP/2 connection. `S` is what its user keeps for each stream, so that there is one map and one search.
pub struct Connection<S> {
    server: bool,
    config: Config,
    peer: Peer,
    decoder: Decoder,
    encoder: Encoder,
    streams: Streams<S>,
    /// Streams that are not closed in both directions: what limits on streams count.
    active: usize,
    output: Output,
    /// The frame at hand causes more than one event: it stays in the input.
    again: bool,
    /// Blocked streams that only the connection's window or the output's room holds up, in turn.
    ready: VecDeque<StreamId>,
    /// What we may send over all streams.
    send_window: u32,
    /// What the peer may send over all streams.
    receive_window: u32,
    /// Released and not yet told to the peer.
    released: u32,
    /// What the peer must send before anything else.
    opening: Opening,
    /// Whether the peer has acknowledged our settings.
    acknowledged: bool,
    /// A header block whose end has not come.
    block: Option<blocks::Block>,
    /// A server's: the newest stream of the peer.
    newest: StreamId,
    /// A server's: the last ids that the peer has passed over (RFC 9113 §5.1.1), from and up to, exclusive.
    skipped: (StreamId, StreamId),
    /// A client's: the id of the next stream.
    next: StreamId,
    /// Streams that were reset here, the newest last.
    resets: VecDeque<StreamId>,
    memos: Memos,
    flood: Flood,
    fault: Option<Fault>,
    leaving: Leaving,
    /// What the peer's GOAWAY said.
    left: Option<StreamId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opening {
    Preface,
    Settings,
    Over,
}

/// How far we are with going away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    No,
    /// A server has told so, and still takes what is under way until the peer has heard it.
    Told,
    /// Streams above this are not taken.
    Above(StreamId),
}

/// How many streams that were reset here are remembered. Frames of one that is forgotten are answered with RST_STREAM again.
const RESETS: usize = 1024;

impl<S> Connection<S> {
    /// A server's end; its settings are queued.
    pub fn server(config: Config) -> Self {
        Self::new(config.bounded(), true)
    }

    /// A client's end; preface and settings are queued. Streams may be opened at once.
    pub fn client(config: Config) -> Self {
        Self::new(config.bounded(), false)
    }

    fn new(config: Config, server: bool) -> Self {
        let mut output = Output::default();
        if !server {
            output.tail().extend_from_slice(PREFACE);
        }
        config.announce(server, output.tail());
        Self {
            server,
            peer: Peer::default(),
            decoder: Decoder::new(config.table),
            encoder: Encoder::new(4096),
            streams: Streams::default(),
            active: 0,
            output,
            again: false,
            ready: VecDeque::new(),
            send_window: WINDOW,
            receive_window: config.connection_window,
            released: 0,
            opening: if server { Opening::Preface } else { Opening::Settings },
            acknowledged: false,
            block: None,
            newest: 0,
            skipped: (0, 0),
            next: 1,
            resets: VecDeque::new(),
            memos: Memos::default(),
            flood: Flood::default(),
            fault: None,
            leaving: Leaving::No,
            left: None,
            config,
        }
    }

    /// What has to be written.
    pub fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    /// The stream's state; None when the stream is unknown, forgotten, or was given none.
    pub fn state(&mut self, id: StreamId) -> Option<&mut S> {
        self.streams.get(id)?.state.as_mut()
    }

    /// Gives a stream its state. Of a stream that is not there, it is dropped.
    pub fn set_state(&mut self, id: StreamId, state: S) {
        if let Some(stream) = self.streams.get(id) {
            stream.state = Some(state);
        }
    }

    /// Every state there is, in no order.
    pub fn states(&mut self) -> impl Iterator<Item = &mut S> {
        self.streams.iter_mut().filter_map(|stream| stream.state.as_mut())
    }

    /// Streams that are not forgotten.
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// Whether a client may open a stream now: the peer takes another one, ids are left, nobody is going away.
    pub fn can_open(&self) -> bool {
        self.refusal().is_none()
    }

    /// Whether one of both ends is going away, or the connection has failed.
    pub fn going_away(&self) -> bool {
        self.leaving != Leaving::No || self.left.is_some() || self.fault.is_some()
    }

    /// Whether the window over all streams is nearly used up: by bodies that nobody reads here, or that nobody reads there. Other
    /// streams would wait for those.
    pub fn is_starved(&self) -> bool {
        self.receive_window < self.config.connection_window / 4 || self.send_window == 0
    }

    /// Whether the connection can be closed once the output is written: it has failed, or one end is going away (ours has told its
    /// last stream), and no stream is left.
    pub fn is_shut(&self) -> bool {
        let leaving = matches!(self.leaving, Leaving::Above(_)) || self.left.is_some();
        self.fault.is_some() || (leaving && self.streams.len() == 0)
    }

    /// Takes all streams with their states: for when the connection is lost.
    pub fn take_streams(&mut self) -> Vec<(StreamId, S)> {
        self.active = 0;
        let mut streams = std::mem::take(&mut self.streams);
        streams.iter_mut().filter_map(|stream| Some((stream.id, stream.state.take()?))).collect()
    }

    /// Gives memory back: for when no stream has been open for a while. Costs allocations when the next one opens.
    pub fn rest(&mut self) {
        self.streams.shrink();
        self.output.shrink();
        self.memos = Memos::default();
        if self.ready.is_empty() {
            self.ready = VecDeque::new();
        }
        if self.streams.len() == 0 {
            self.ready = VecDeque::new();
            // What was under way when these were reset has long come.
            self.resets = VecDeque::new();
        }
    }

    /// Bytes of the buffers that [`Self::rest`] gives back.
    #[cfg(test)]
    fn buffers(&self) -> usize {
        self.streams.room() + self.output.room() + self.ready.capacity() + self.resets.capacity()
    }

    /// Whether the peer has not opened the stream yet, or cannot.
    fn is_idle(&self, id: StreamId) -> bool {
        id.is_multiple_of(2) || if self.server { id > self.newest } else { id >= self.next }
    }

    /// Whether frames of this stream are to be ignored: they may still be under way since the peer does not know yet that we have reset
    /// it, or that we have left (RFC 9113 §5.1, §6.8).
    fn is_ignored(&self, id: StreamId) -> bool {
        self.is_beyond(id) || self.resets.contains(&id)
    }

    /// Whether the stream is one that we have told the peer not to look at.
    fn is_beyond(&self, id: StreamId) -> bool {
        matches!(self.leaving, Leaving::Above(last) if self.server && id > last)
    }

    /// Queues RST_STREAM and remembers it.
    fn put_reset(&mut self, id: StreamId, code: Code) {
        frame::put_reset(self.output.tail(), id, code);
        if self.resets.len() == RESETS {
            self.resets.pop_front();
        }
        self.resets.push_back(id);
    }

    /// Closes both directions; whether one was open.
    fn close(&mut self, id: StreamId) -> bool {
        let Some(stream) = self.streams.get(id) else { return false };
        stream.blocked = false;
        let was_open = !stream.is_closed();
        (stream.local, stream.remote) = (Half::Closed, Half::Closed);
        self.active -= usize::from(was_open);
        was_open
    }

    /// Gives the peer back what it may send over all streams.
    fn release_connection(&mut self, bytes: u32) {
        self.released += bytes;
        if self.released > 0 && self.released >= self.config.connection_window / 2 {
            frame::put_window_update(self.output.tail(), 0, self.released);
            self.receive_window += self.released;
            self.released = 0;
        }
    }

    fn open(&mut self, id: StreamId) -> &mut Stream<S> {
        self.active += 1;
        let receive_window = if self.acknowledged { self.config.stream_window } else { self.early_window() };
        self.streams.insert(Stream::new(id, self.peer.stream_window, receive_window))
    }

    /// What a peer that has not seen our settings may send on a stream.
    fn early_window(&self) -> u32 {
        self.config.stream_window.max(WINDOW)
    }
}

impl<S> std::fmt::Debug for Connection<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("server", &self.server)
            .field("streams", &self.streams.len())
            .field("output", &bytes::Buf::remaining(&self.output))
            .field("leaving", &self.leaving)
            .field("left", &self.left)
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}
