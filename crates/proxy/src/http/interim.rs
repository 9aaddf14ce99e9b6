//! Informational answers (RFC 9110 §15.2): `103 Early Hints` and others go on to the client as they come, `100 Continue` gives it leave
//! to send its body.

use std::task::Context;

use veer_http::{Name, ResponseHead};

use super::fields;
use super::h2::Half;
use super::wire::SharedWire;

/// Most informational answers to one request; an upstream that sends more breaks the protocol.
pub const MOST: usize = 32;

/// Whom informational answers go to. A clone speaks to the same client.
#[derive(Clone, Default)]
pub enum Interim {
    /// Nobody: a client of HTTP/1.0 does not know them, and a request of the proxy's own has no client.
    #[default]
    Nobody,
    /// A client of HTTP/1.1. It hears `100` only while it waits for it.
    Http1(SharedWire),
    /// A client of HTTP/2.
    Http2(Half),
}

impl Interim {
    /// Passes an informational answer on.
    pub fn tell(&self, mut head: ResponseHead, cx: &mut Context<'_>) {
        fields::strip_hop_by_hop(&mut head.fields);
        fields::strip_mesh(&mut head.fields);
        // RFC 9110 §8.6: never with an informational answer.
        head.fields.remove(Name::ContentLength);
        match self {
            Interim::Nobody => {}
            Interim::Http1(wire) => wire.borrow_mut().inform(&head, cx),
            Interim::Http2(half) => half.inform(&head),
        }
    }
}
