//! What a connection tells its user.

use bytes::Bytes;

use super::{Code, StreamId};
use crate::{Fields, RequestHead, ResponseHead};

/// What happened on a connection.
#[derive(Debug)]
pub enum Event {
    /// A server's: a new stream. Give it its state with [`super::Connection::set_state`].
    Request {
        /// The stream.
        id: StreamId,
        /// Its head, checked. A `Host` field is left in the fields.
        head: RequestHead,
        /// Nothing follows.
        end: bool,
    },
    /// A client's: a head, also an informational one, which others follow.
    Response {
        /// The stream.
        id: StreamId,
        /// Its head, checked.
        head: ResponseHead,
        /// Nothing follows.
        end: bool,
    },
    /// A part of a body; empty only at the end.
    Data {
        /// The stream.
        id: StreamId,
        /// The part; it may keep the buffer alive that it was received into.
        data: Bytes,
        /// Bytes to [`super::Connection::release`] once the part is used: the data and their padding.
        flow: u32,
        /// Nothing follows.
        end: bool,
    },
    /// The end of a body.
    Trailers {
        /// The stream.
        id: StreamId,
        /// The section, checked.
        fields: Fields,
    },
    /// The stream is over, before its end in at least one direction. Nothing can be sent on it any more.
    Reset {
        /// The stream.
        id: StreamId,
        /// What the peer said; or what the peer is told, when the error was found here; `REFUSED_STREAM` when the peer's `GOAWAY` cut
        /// the stream off.
        code: Code,
        /// The peer says that it has done nothing with the request: it can be sent again elsewhere (RFC 9113 §8.7).
        untouched: bool,
    },
    /// The peer wants no more streams. A client got an [`Event::Reset`] for each stream above `last` before this.
    GoAway {
        /// The last stream that the peer may have looked at.
        last: StreamId,
        /// Why.
        code: Code,
    },
    /// The answer to [`super::Connection::ping`].
    Pong(u64),
    /// The peer's settings came or changed: [`super::Connection::can_open`] may have changed.
    Settings,
}
