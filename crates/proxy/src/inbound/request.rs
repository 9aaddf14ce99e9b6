//! The way of a request at the callee. Read it from top to bottom.
//!
//! ```text
//! caller's proxy ─► which port ─► may it come ─► connection to the application ─► answer ─► caller's proxy
//! ```

use std::rc::Rc;

use http::header::HeaderValue;
use http::{Request, Response, StatusCode, request};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;
use veer_core::{AppProtocol, InboundPort};
use veer_route::NormalPath;
use veer_telemetry::Direction;

use super::app::{self, Asked};
use super::state::Caller;
use crate::error::RequestError;
use crate::exchange::{Exchange, Hold};
use crate::http::body::ResponseBody;
use crate::http::replay::Replay;
use crate::http::{Protocol, fields, reply, upgrade};
use crate::worker::Worker;

/// Answers a request to the application: with its answer, or with one of the proxy's own. Counted and logged once.
pub async fn handle(worker: Rc<Worker>, caller: Rc<Caller>, mut request: Request<Incoming>) -> Response<ResponseBody> {
    // Between two proxies the hop is always HTTP/2; the field says what the application at the other end spoke.
    let hint = request.headers_mut().remove(fields::VEER_PROTO).filter(|_| caller.peer.is_some());
    let protocol =
        hint.and_then(|hint| Protocol::from_bytes(hint.as_bytes())).unwrap_or_else(|| Protocol::of(&request));
    let mut exchange = Exchange::begin(&worker, Direction::Inbound, protocol, &request);
    let response = match forward(&worker, &caller, request, &mut exchange).await {
        Ok(response) => response,
        Err((error, sent)) => {
            exchange.failed(&error);
            let verdict = error.verdict();
            let mut response = reply::error(protocol, &error, &verdict);
            if caller.peer.is_some() {
                response.headers_mut().insert(fields::VEER_ERROR, reply::veer_error(&verdict, sent));
            }
            response
        }
    };
    exchange.status(response.status());
    response.map(|body| body.of_exchange(exchange))
}

/// Errors say whether anything may have reached the application.
async fn forward(
    worker: &Rc<Worker>,
    caller: &Caller,
    request: Request<Incoming>,
    exchange: &mut Exchange,
) -> Result<Response<ResponseBody>, (RequestError, bool)> {
    let untouched = |error| (error, false);
    let (mut head, body) = request.into_parts();
    let body = Replay::new(body);
    exchange.request_body(body.clone());
    exchange.traced(fields::trace(&mut head.headers, &mut worker.rng.borrow_mut()));

    // Which port of which workload? As the control plane says now: a change acts on the next request of an open connection.
    let view = worker.inbound.view().map_err(untouched)?;
    exchange.edge(worker.inbound.edge(&worker.process, &view, caller));
    if let Some(peer) = &caller.peer {
        exchange.note(|line| line.source_identity = peer.id.to_string().into());
    }
    let authority = fields::authority(&head).map_err(untouched)?;
    exchange.host(authority.as_str());
    let port = view.admit(caller).map_err(untouched)?;

    // May it come? Policies see the path in the one form that also goes on.
    {
        let target = head.uri.clone();
        let path = NormalPath::parse(target.path())
            .map_err(|_| untouched(RequestError::Malformed("the path has no single reading")))?;
        view.authorize(caller, Some((head.method.as_str(), &path))).map_err(untouched)?;
        fields::set_path(&mut head, &path);
    }

    // What goes on: without the fields of the hop, with the caller's proven name.
    let on_upgrade = head.extensions.remove::<OnUpgrade>();
    let wanted = fields::upgrade(&head);
    prepare(&mut head, caller);
    let asked = Asked { head, authority, upgrade: wanted, body, http2: speaks_http2(port, exchange.protocol()) };
    let load = view.load(port.port);
    let utilisation = port.capacity.map(|capacity| f64::from(load.count()) / f64::from(capacity.max(1)));

    // The application answers.
    let begun = Instant::now();
    let (mut response, lease) = app::ask(worker, port.app, &asked).await?;
    let latency = begun.elapsed();
    exchange.hold(Hold { pick: None, lease: Some(lease), latency, pending: None, load: Some(load) });
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return upgrade::switch(response, on_upgrade, exchange).map_err(|error| (error, true));
    }
    fields::strip_hop_by_hop(response.headers_mut());
    fields::strip_mesh(response.headers_mut());
    if let Some(utilisation) = utilisation.filter(|_| caller.peer.is_some()) {
        let text = format!("TEXT application_utilization={utilisation:.3}");
        if let Ok(value) = HeaderValue::try_from(text) {
            response.headers_mut().insert(fields::ENDPOINT_LOAD, value);
        }
    }
    // gRPC that breaks off here breaks off at the caller's proxy too, which speaks to the application there.
    Ok(response.map(|body| ResponseBody::upstream(body, None, false)))
}

fn prepare(head: &mut request::Parts, caller: &Caller) {
    fields::strip_hop_by_hop(&mut head.headers);
    fields::strip_mesh(&mut head.headers);
    head.headers.remove(http::header::HOST);
    head.extensions.clear();
    if let Some(peer) = &caller.peer
        && let Ok(value) = HeaderValue::try_from(peer.id.to_string())
    {
        head.headers.insert(fields::VEER_CLIENT_ID, value);
    }
}

fn speaks_http2(port: &InboundPort, caller: Protocol) -> bool {
    match port.protocol {
        AppProtocol::Http1 => false,
        AppProtocol::Http2 | AppProtocol::Grpc => true,
        // Nobody declared it: what the caller speaks is what the application is taken to speak.
        AppProtocol::Detect | AppProtocol::Tcp => caller != Protocol::Http1,
    }
}
