//! Serving a caller's connection, once it is known who calls and what is spoken.

use std::rc::Rc;

use bytes::BytesMut;
use futures_util::FutureExt as _;

use super::request;
use super::state::Caller;
use crate::http::serve;
use crate::http::transport::Transport;
use crate::http::watch::Watch;
use crate::worker::Worker;

/// HTTP/1.1; `read` was read of the connection already.
pub fn http1(
    worker: Rc<Worker>,
    io: Transport,
    read: BytesMut,
    caller: Rc<Caller>,
    watch: Rc<Watch>,
) -> impl Future<Output = ()> {
    // Not an `async fn`, nor an `async` block around `serving`: those would hold what they are given twice.
    let (connections, counting) = (Rc::clone(&worker.connections), Rc::clone(&worker));
    let handle = move |asked| request::handle(Rc::clone(&worker), Rc::clone(&caller), asked);
    let serving = serve::http1(io, read, handle, connections, watch);
    serving.map(move |end| counting.ended("inbound", end))
}

/// HTTP/2.
pub fn http2(
    worker: Rc<Worker>,
    io: Transport,
    read: BytesMut,
    caller: Rc<Caller>,
    watch: Rc<Watch>,
) -> impl Future<Output = ()> {
    let (connections, counting) = (Rc::clone(&worker.connections), Rc::clone(&worker));
    let handle = move |asked| request::handle(Rc::clone(&worker), Rc::clone(&caller), asked);
    let serving = serve::http2(io, read, handle, connections, watch);
    serving.map(move |end| counting.ended("inbound", end))
}
