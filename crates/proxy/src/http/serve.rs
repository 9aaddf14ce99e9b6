//! One downstream connection: HTTP/1 or HTTP/2, with the bounds that a proxy needs.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use veer_http::h2::{Code, Connection};
use veer_http::{Method, Name, RequestHead, ResponseHead, Version, h1, h2};

use super::body::{Incoming, Outgoing, ResponseBody};
use super::extended;
use super::h2::{Half, Link, LinkEnd, Ping, StreamPump, Tunnel, drive};
use super::interim::Interim;
use super::send::Pump;
use super::transport::Transport;
use super::watch::{Connections, Phase, Watch};
use super::wire::{Reading, SharedWire, Wire};

pub use super::h2::Close;

/// Most bytes of requests that are read ahead of their turn (pipelining).
const READ_AHEAD: usize = 16 * 1024;
/// A downstream that has streams open but is silent is asked whether it lives.
const PING: Ping = Ping { after: Duration::from_secs(15), time: Duration::from_secs(10) };
/// How long a connection that is closed after a fault still takes what the peer was sending, so that the answer is not lost to a
/// reset (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(1);

/// A request as the handler gets it.
pub struct Request {
    /// Method, target, fields.
    pub head: RequestHead,
    /// Its body.
    pub body: Incoming,
    /// Whom informational answers go to.
    pub interim: Interim,
}

/// An answer as the handler gives it.
pub struct Response {
    /// Status and fields.
    pub head: ResponseHead,
    /// Its body.
    pub body: ResponseBody,
    /// What the connection becomes after this answer: 101, or 200 to `CONNECT`.
    pub tunnel: Option<TunnelTask>,
}

/// Takes over what a connection has become.
pub type TunnelTask = Box<dyn FnOnce(Upgraded) -> Pin<Box<dyn Future<Output = ()>>>>;

/// A connection that speaks HTTP no more.
pub enum Upgraded {
    /// The whole connection, and what was read of it.
    Connection(Transport, BytesMut),
    /// A stream.
    Stream(Tunnel),
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By either side's will, or with the network.
    InOrder,
    /// What came broke the rules of HTTP; it was answered as the standard says (400, GOAWAY).
    Broken,
    /// A head did not become whole in time.
    SlowHead,
}

impl End {
    /// For metrics, when the connection was refused.
    pub fn reason(self) -> Option<&'static str> {
        match self {
            End::InOrder => None,
            End::Broken => Some("broken_http"),
            End::SlowHead => Some("slow_head"),
        }
    }
}

impl Response {
    /// With nothing behind it.
    pub fn new(head: ResponseHead, body: ResponseBody) -> Self {
        Self { head, body, tunnel: None }
    }
}

/// Serves HTTP/1.1 (and 1.0) until the connection ends or `watch` says so. `input` was read of it already.
pub fn http1<H, F>(
    io: Transport,
    input: BytesMut,
    handle: H,
    connections: Rc<Connections>,
    watch: Rc<Watch>,
) -> impl Future<Output = End>
where
    H: Fn(Request) -> F,
    F: Future<Output = Response>,
{
    // Not an `async fn`: that would hold its arguments twice.
    let wire: SharedWire = Rc::new(std::cell::RefCell::new(Wire::new(io, input)));
    async move {
        loop {
            // In places of their own, so that an idle connection does not hold room for a request, nor for what was read of one.
            let answering: Answering<'_> = {
                let next = next_request(&wire, &connections, &watch).await;
                watch.phase(Phase::Busy, &connections);
                match next {
                    Next::Request(head, parsed) => Box::pin(turn(&wire, &handle, head, parsed, &watch)),
                    Next::Nothing => return End::InOrder,
                    Next::Fault(status, reason) => Box::pin(refuse(&wire, status, reason)),
                }
            };
            match answering.await {
                Turn::GoesOn => watch.phase(Phase::Idle, &connections),
                Turn::Gone => return End::InOrder,
                Turn::Refused(end) => return end,
                Turn::Closes => {
                    let closing: Pin<Box<dyn Future<Output = ()>>> = Box::pin(close(&wire));
                    closing.await;
                    return End::InOrder;
                }
                Turn::Tunnel(tunnel) => {
                    let (io, input) = wire.borrow_mut().take();
                    let tunnelling = tunnel(Upgraded::Connection(io, input));
                    tunnelling.await;
                    return End::InOrder;
                }
            }
        }
    }
}

type Answering<'a> = Pin<Box<dyn Future<Output = Turn> + 'a>>;

/// What becomes of a connection after a request.
enum Turn {
    GoesOn,
    /// The other side is gone, must not take what it got for whole, or has all that it wanted.
    Gone,
    Closes,
    Tunnel(TunnelTask),
    /// What came was no request.
    Refused(End),
}

/// One request and its answer.
async fn turn<H, F>(wire: &SharedWire, handle: &H, head: RequestHead, parsed: h1::Parsed, watch: &Watch) -> Turn
where
    H: Fn(Request) -> F,
    F: Future<Output = Response>,
{
    let (method, version) = (head.method(), head.version);
    let body = {
        let mut connection = wire.borrow_mut();
        connection.reading = Reading::of(parsed.body);
        if parsed.expect_continue {
            connection.await_leave();
        }
        if matches!(connection.reading, Reading::Head) { Incoming::Empty } else { Incoming::Http1(Rc::clone(wire)) }
    };
    let answered = {
        let interim = if version == Version::Http10 { Interim::Nobody } else { Interim::Http1(Rc::clone(wire)) };
        let mut handling = std::pin::pin!(handle(Request { head, body, interim }));
        poll_fn(|cx| match handling.as_mut().poll(cx) {
            Poll::Ready(response) => Poll::Ready(Some(response)),
            Poll::Pending => poll_gone(wire, version, cx).map(|()| None),
        })
        .await
    };
    let Some(mut response) = answered else { return Turn::Gone };
    let tunnel = response.tunnel.take();
    let keep = parsed.keep_alive && watch.closing().is_none();
    match (answer(wire, method, version, response, keep, tunnel.is_some()).await, tunnel) {
        (None, _) => Turn::Gone,
        (Some(_), Some(tunnel)) => Turn::Tunnel(tunnel),
        // What of the request's body nobody wanted is not read: the connection ends instead.
        (Some(keep), None) if keep && matches!(wire.borrow().reading, Reading::Head) => Turn::GoesOn,
        (Some(_), None) if !parsed.keep_alive && is_over(&wire.borrow()) => Turn::Gone,
        (Some(_), None) => Turn::Closes,
    }
}

/// Whether a connection on which its client wanted one answer only can be closed at once: the kernel delivers what was written, unless
/// something that came was not read. TLS has a farewell of its own.
fn is_over(wire: &Wire) -> bool {
    matches!(wire.reading, Reading::Head) && wire.input.is_empty() && wire.is_plain()
}

/// Ready when the client has gone away, not when it has only ended its side. Only once its request was read whole: before, whoever reads it sees it.
fn poll_gone(wire: &SharedWire, version: Version, cx: &mut Context<'_>) -> Poll<()> {
    let mut wire = wire.borrow_mut();
    if matches!(wire.reading, Reading::Head) { wire.poll_gone(version, READ_AHEAD, cx) } else { Poll::Pending }
}

enum Next {
    Request(RequestHead, h1::Parsed),
    Nothing,
    Fault(u16, String),
}

async fn next_request(wire: &SharedWire, connections: &Connections, watch: &Watch) -> Next {
    let limits = h1::Limits::default();
    poll_fn(|cx| {
        let mut wire = wire.borrow_mut();
        loop {
            if !wire.input.is_empty() {
                let mut head = RequestHead::roomy();
                match h1::request(&wire.input, &limits, &mut head) {
                    Ok(Some(parsed)) => {
                        let consumed = parsed.consumed;
                        bytes::Buf::advance(&mut wire.input, consumed);
                        return Poll::Ready(Next::Request(head, parsed));
                    }
                    Ok(None) => watch.phase(Phase::Head, connections),
                    Err(fault) => return Poll::Ready(Next::Fault(fault.status(), fault.to_string())),
                }
            }
            match watch.closing() {
                Some(_) if watch.is_slow() => {
                    return Poll::Ready(Next::Fault(408, "the request's head took too long".to_owned()));
                }
                Some(Close::Now) => return Poll::Ready(Next::Nothing),
                Some(Close::Gracefully) if wire.input.is_empty() => return Poll::Ready(Next::Nothing),
                Some(Close::Gracefully) | None => {}
            }
            match wire.poll_fill(cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::Nothing),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => {
                    watch.wait(cx);
                    return Poll::Pending;
                }
            }
        }
    })
    .await
}

/// Sends the answer; whether the connection can go on, or `None` when it is of no more use.
async fn answer(
    wire: &SharedWire,
    method: Method,
    version: Version,
    response: Response,
    keep: bool,
    tunnel: bool,
) -> Option<bool> {
    let Response { head, mut body, .. } = response;
    let framing = framing(&head, method, version, &body);
    // A body that was announced and not asked for may still come: nothing behind it can be told from it.
    let unasked = wire.borrow_mut().refuse_leave();
    let keep = keep && !unasked && framing != h1::Body::UntilClose;
    {
        let mut wire = wire.borrow_mut();
        let upgrade = head.fields.get(Name::Upgrade).filter(|_| head.status == 101);
        let persist = match upgrade {
            Some(protocol) => h1::Persist::Upgrade(protocol),
            None if keep || tunnel => h1::Persist::Keep,
            None => h1::Persist::Close,
        };
        h1::write_response(&head, framing, persist, version, wire.output());
    }
    let bodiless = framing == h1::Body::None;
    let mut pump = Pump::new(framing);
    let sent = poll_fn(|cx| pump.poll(cx, wire, &mut body)).await;
    // What a body that is not sent would have told of its end is told by dropping it.
    if bodiless && !body.is_end() {
        drop(body);
    }
    sent.is_ok().then_some(keep)
}

fn framing(head: &ResponseHead, method: Method, version: Version, body: &ResponseBody) -> h1::Body {
    let bodiless = method == Method::Head
        || matches!(head.status, 100..=199 | 204 | 304)
        || (method == Method::Connect && (200..300).contains(&head.status));
    if bodiless {
        return h1::Body::None;
    }
    let told = || head.fields.get_str(Name::ContentLength)?.parse().ok();
    match body.length().or_else(told) {
        Some(length) => h1::Body::Length(length),
        None if version == Version::Http10 => h1::Body::UntilClose,
        None => h1::Body::Chunked,
    }
}

async fn refuse(wire: &SharedWire, status: u16, reason: String) -> Turn {
    let text = format!("veer: DPE {reason}\n");
    let mut head = ResponseHead::new(status);
    head.fields.push(Name::ContentType, b"text/plain; charset=utf-8");
    let response = Response::new(head, ResponseBody::full(Bytes::from(text)));
    let _ = answer(wire, Method::Get, Version::Http11, response, false, false).await;
    close(wire).await;
    Turn::Refused(if status == 408 { End::SlowHead } else { End::Broken })
}

/// Ends the connection so that what was sent arrives.
async fn close(wire: &SharedWire) {
    let mut said = false;
    let closing = poll_fn(|cx| {
        let mut wire = wire.borrow_mut();
        if !said {
            std::task::ready!(wire.poll_shutdown(cx)).ok();
            said = true;
        }
        loop {
            wire.input.clear();
            match std::task::ready!(wire.poll_fill(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
    });
    let _ = tokio::time::timeout(LINGER, closing).await;
}

/// Serves HTTP/2 until the connection ends or `watch` says so. `input` was read of it already.
pub fn http2<H, F>(
    io: Transport,
    input: BytesMut,
    handle: H,
    connections: Rc<Connections>,
    watch: Rc<Watch>,
) -> impl Future<Output = End>
where
    H: Fn(Request) -> F + 'static,
    F: Future<Output = Response> + 'static,
{
    let config = h2::Config { connect_protocol: true, ..h2::Config::default() };
    let link = Link::new(Connection::server(config));
    watch.attach(&link);
    let handle = Rc::new(handle);
    let control = move |cx: &mut Context<'_>, busy: bool| {
        watch.phase(if busy { Phase::Busy } else { Phase::Idle }, &connections);
        watch.wait(cx);
        watch.closing()
    };
    let request = move |half: Half, head: RequestHead, end: bool| {
        // Boxed: the runtime moves what it is given several times, at the beginning and at the end.
        tokio::task::spawn_local(Box::pin(stream(half, head, end, Rc::clone(&handle))));
    };
    // An `async` block around it would hold it twice.
    drive(link, io, input, PING, control, request).map(|end| match end {
        LinkEnd::InOrder | LinkEnd::Lost => End::InOrder,
        LinkEnd::Broken(_) => End::Broken,
    })
}

/// One request and its answer.
async fn stream<H, F>(half: Half, mut head: RequestHead, end: bool, handle: Rc<H>)
where
    H: Fn(Request) -> F,
    F: Future<Output = Response>,
{
    let extended = head.protocol().is_some() && extended::take(&mut head);
    let method = head.method();
    // What follows an extended CONNECT is of the other protocol.
    let body = if end || extended { Incoming::Empty } else { Incoming::Http2(Rc::clone(&half)) };
    let response = {
        let interim = Interim::Http2(Rc::clone(&half));
        let mut handling = std::pin::pin!(handle(Request { head, body, interim }));
        poll_fn(|cx| match handling.as_mut().poll(cx) {
            Poll::Ready(response) => Poll::Ready(Some(response)),
            Poll::Pending => half.poll_reset(cx).map(|()| None),
        })
        .await
    };
    let Some(response) = response else { return };
    let response = if extended { extended::give(response) } else { response };
    let Response { head, mut body, tunnel } = response;
    if let Some(tunnel) = tunnel {
        half.respond(&head, false);
        return tunnel(Upgraded::Stream(Tunnel::new(half))).await;
    }
    let bodiless = method == Method::Head || matches!(head.status, 204 | 304);
    let end = bodiless || body.is_end();
    half.respond(&head, end);
    drop(head);
    let mut pump = if end { StreamPump::done() } else { StreamPump::default() };
    if poll_fn(|cx| pump.poll(cx, &half, &mut body)).await.is_err() {
        half.reset(Code::INTERNAL_ERROR);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recent::Recent;

    /// There are thousands, and most wait: what is needed only while something happens has places of its own.
    #[test]
    fn a_connection_that_waits_has_no_room_for_a_request() {
        let connections = Rc::new(Connections::new(Recent::default()));
        let handle = |_| async { Response::new(ResponseHead::new(200), ResponseBody::full(Bytes::new())) };
        let of = |size: usize, most: usize| assert!(size <= most, "{size} bytes");
        let (every, watch) = (|| Rc::clone(&connections), || connections.watch(None, None));
        of(size_of_val(&http1(Transport::Gone, BytesMut::new(), handle, every(), watch())), 160);
        // With its socket, which is larger where sockets may be simulated ones.
        of(size_of_val(&http2(Transport::Gone, BytesMut::new(), handle, every(), watch())), 400);
    }
}
