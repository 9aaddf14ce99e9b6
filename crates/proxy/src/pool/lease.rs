//! A request's place on a connection, and what comes of it.

use std::sync::Arc;

use veer_http::{RequestHead, ResponseHead};

use super::{H1Lease, H2Lease};
use crate::http::body::{BodyError, Incoming};
use crate::http::h2::{Reset, Tunnel};
use crate::http::replay::TryBody;
use crate::http::serve::Upgraded;

/// Said of an upstream that sends more informational answers than [`crate::http::interim::MOST`].
pub(super) const TOO_TALKATIVE: &str = "too many informational answers to one request";

/// One request's place on a connection. Dropping it gives the place back.
pub enum Lease {
    /// A stream.
    H2(H2Lease),
    /// A whole connection.
    H1(H1Lease),
}

/// An upstream's answer: its head, and what follows.
pub struct Answer {
    /// Status and fields, as they came.
    pub head: ResponseHead,
    /// The body.
    pub body: Incoming,
    /// The connection, when it changed its protocol (101).
    pub upgraded: Option<Box<Upgraded>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The connection was closing when the request came to it.
    #[error("the connection is closing")]
    Unsent,
    /// The connection was lost.
    #[error("{error}")]
    Lost {
        /// Not a byte of an answer had come.
        silent: bool,
        /// How.
        error: BodyError,
    },
    /// The stream was ended.
    #[error("the stream was reset ({:?})", .0.code)]
    Reset(Reset),
    /// What came is no HTTP.
    #[error("{0}")]
    Protocol(String),
    /// The request's own body broke off.
    #[error("the request's body broke off: {0}")]
    Request(BodyError),
}

impl SendError {
    /// Whether nothing of the request was acted upon.
    pub fn nothing_sent(&self) -> bool {
        match self {
            SendError::Unsent => true,
            SendError::Reset(reset) => reset.untouched,
            SendError::Lost { .. } | SendError::Protocol(_) | SendError::Request(_) => false,
        }
    }

    /// Whether a connection that was used before was simply closed, as servers do with idle ones.
    pub fn closed_idle(&self) -> bool {
        matches!(self, SendError::Lost { silent: true, .. })
    }
}

impl Lease {
    /// Sends a request and waits for the answer's head. `upgrade` names the protocol that an HTTP/1.1 request wants to change to.
    ///
    /// # Errors
    /// [`SendError`], which says whether the request may have been acted upon. Dropping the future ends the exchange, and with it
    /// the stream or the HTTP/1.1 connection.
    pub async fn send(
        &mut self,
        head: &RequestHead,
        upgrade: Option<&[u8]>,
        body: TryBody,
    ) -> Result<Answer, SendError> {
        match self {
            Lease::H2(lease) => lease.send(head, body).await,
            Lease::H1(lease) => lease.send(head, upgrade, body).await,
        }
    }

    /// Asks for a stream as a pipe of bytes (RFC 9113 §8.5). It is one when the answer says 200.
    ///
    /// # Errors
    /// [`SendError`]; of an HTTP/1.1 connection always [`SendError::Unsent`]. Dropping the future ends the stream.
    pub async fn connect(&mut self, head: &RequestHead) -> Result<(ResponseHead, Tunnel), SendError> {
        match self {
            Lease::H2(lease) => lease.connect(head).await,
            Lease::H1(_) => Err(SendError::Unsent),
        }
    }

    /// The exchange is over in order: the connection may serve another.
    pub fn done(self) {
        match self {
            Lease::H2(_) => {}
            Lease::H1(lease) => lease.put_back(),
        }
    }

    /// Whether the connection had served before: what fails on it at once may only have been stale.
    pub fn reused(&self) -> bool {
        match self {
            Lease::H2(lease) => lease.reused(),
            Lease::H1(lease) => lease.reused(),
        }
    }

    /// The gateway replica in between.
    pub fn gateway(&self) -> Option<&Arc<str>> {
        match self {
            Lease::H2(lease) => lease.gateway(),
            Lease::H1(lease) => lease.gateway(),
        }
    }

    /// Round-trip time as the connection's beginning measured it.
    pub fn rtt(&self) -> std::time::Duration {
        match self {
            Lease::H2(lease) => lease.rtt(),
            Lease::H1(lease) => lease.rtt(),
        }
    }
}
