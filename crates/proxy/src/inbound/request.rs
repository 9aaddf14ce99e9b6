//! The way of a request at the callee. Read it from top to bottom.
//!
//! ```text
//! caller's proxy ─► which port ─► may it come ─► connection to the application ─► answer ─► caller's proxy
//! ```

use std::pin::Pin;
use std::rc::Rc;

use tokio::time::Instant;
use veer_core::{AppProtocol, InboundPort};
use veer_http::{Method, Name, RequestHead};
use veer_route::NormalPath;
use veer_telemetry::Direction;

use super::app::{self, Asked};
use super::state::Caller;
use super::tcp;
use crate::error::RequestError;
use crate::exchange::{Exchange, Hold};
use crate::http::body::ResponseBody;
use crate::http::replay::Replay;
use crate::http::serve::{Request, Response};
use crate::http::{BYTES, Protocol, fields, reply, upgrade};
use crate::worker::Worker;

/// In a place of its own: requests have no room for it.
type Connecting = Pin<Box<dyn Future<Output = Response>>>;

/// Answers a request to the application: with its answer, or with one of the proxy's own. Counted and logged once.
pub async fn handle(worker: Rc<Worker>, caller: Rc<Caller>, request: Request) -> Response {
    if caller.peer.is_some()
        && request.head.method() == Method::Connect
        && request.head.fields.get(Name::VeerProto) == Some(BYTES)
    {
        let connecting: Connecting = Box::pin(tcp::connect(worker, caller));
        return connecting.await;
    }
    // Between two proxies the hop is always HTTP/2; the field says what the application at the other end spoke.
    let hint = request.head.fields.get(Name::VeerProto).filter(|_| caller.peer.is_some());
    let protocol = hint.and_then(Protocol::from_bytes).unwrap_or_else(|| Protocol::of(&request.head));
    let mut exchange = Exchange::begin(&worker, Direction::Inbound, protocol, &request.head);
    let mut response = match forward(&worker, &caller, request, &mut exchange).await {
        Ok(response) => response,
        Err((error, sent)) => {
            exchange.failed(&error);
            let verdict = error.verdict();
            let mut response = reply::error(protocol, &error, &verdict);
            if let RequestError::RateLimited(_, wait) = &error {
                reply::come_back(&mut response, protocol, *wait);
            }
            if caller.peer.is_some() {
                response.head.fields.set(Name::VeerError, reply::veer_error(&verdict, sent).as_bytes());
            }
            response
        }
    };
    exchange.status(response.head.status);
    response.body = response.body.of_exchange(exchange);
    response
}

/// Errors say whether anything may have reached the application.
async fn forward(
    worker: &Rc<Worker>,
    caller: &Caller,
    request: Request,
    exchange: &mut Exchange,
) -> Result<Response, (RequestError, bool)> {
    let untouched = |error| (error, false);
    let Request { mut head, body, interim } = request;
    let body = Replay::new(body);
    exchange.request_body(body.clone());
    exchange.traced(fields::trace(&mut head.fields, &mut worker.rng.borrow_mut()));

    // Which port of which workload? As the control plane says now: a change acts on the next request of an open connection.
    let view = worker.inbound.view().map_err(untouched)?;
    exchange.edge(worker.inbound.edge(&worker.process, &view, caller));
    if let Some(peer) = &caller.peer {
        exchange.note(|line| line.source_identity = peer.id.to_string().into());
    }
    fields::settle_authority(&mut head).map_err(untouched)?;
    exchange.host(&head);
    let port = view.admit(caller).map_err(untouched)?;

    // May it come? Policies see the path in the one form that also goes on.
    let changed = {
        let path = NormalPath::parse(head.path())
            .map_err(|_| untouched(RequestError::Malformed("the path has no single reading")))?;
        view.authorize(caller, Some((head.method_str(), &path))).map_err(untouched)?;
        path.changed().then(|| path.forward().to_owned())
    };
    changed.iter().for_each(|path| head.set_path(path));
    view.limit(caller).map_err(|(error, limit)| {
        worker.rate_limited(port, limit);
        untouched(error)
    })?;

    // What goes on: without the fields of the hop, with the caller's proven name.
    let wanted = fields::upgrade(&head);
    if wanted.is_some() || head.protocol().is_some() {
        view.may_upgrade(caller).map_err(untouched)?;
    }
    prepare(&mut head, caller);
    let http2 = wanted.is_none() && speaks_http2(port, exchange.protocol());
    let asked = Asked { head, upgrade: wanted, body, interim, http2 };
    let load = view.load(port.port);
    let utilisation = port.capacity.map(|capacity| f64::from(load.count()) / f64::from(capacity.max(1)));

    // The application answers.
    let begun = Instant::now();
    let (mut response, lease) = app::ask(worker, port.app, &asked).await?;
    let latency = begun.elapsed();
    exchange.hold(Hold { pick: None, lease: Some(lease), latency, pending: None, load: Some(load) });
    if response.head.status == 101 {
        let switched = upgrade::switch(response.head, response.upgraded, asked.upgrade.is_some(), exchange);
        return switched.map_err(|error| (error, true));
    }
    fields::strip_hop_by_hop(&mut response.head.fields);
    fields::strip_mesh(&mut response.head.fields);
    if let Some(utilisation) = utilisation.filter(|_| caller.peer.is_some()) {
        let text = format!("TEXT application_utilization={utilisation:.3}");
        response.head.fields.set(Name::EndpointLoadMetrics, text.as_bytes());
    }
    // gRPC that breaks off here breaks off at the caller's proxy too, which speaks to the application there.
    Ok(Response::new(response.head, ResponseBody::upstream(response.body, None, false)))
}

fn prepare(head: &mut RequestHead, caller: &Caller) {
    fields::strip_hop_by_hop(&mut head.fields);
    fields::strip_mesh(&mut head.fields);
    if let Some(id) = &caller.client_id {
        head.fields.push(Name::XVeerClientId, id.as_bytes());
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
