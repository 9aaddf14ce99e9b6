//! The way of a request at the caller. Read it from top to bottom.
//!
//! ```text
//! app ─► who is asked ─► which rule ─► which backend ─► (endpoint ─► connection ─► answer)* ─► app
//! ```

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use tokio::time::{Instant, Sleep};
use veer_core::ServiceHost;
use veer_http::{Method, Name, RequestHead};
use veer_route::{Direct, NormalPath, Origin, RequestView, Rule};
use veer_telemetry::{Direction, Flag, RetryReason};

use super::Downstream;
use super::attempt::{Answer, Asked, Failed, attempt};
use super::auth;
use super::destination::{self, Destination};
use super::faults;
use super::filters::{self, Later, Looked};
use super::hashing::hash_of;
use super::mirror;
use super::tries::{Failure, Led, Next, Tries};
use super::tunnel;
use crate::error::RequestError;
use crate::exchange::Exchange;
use crate::http::body::ResponseBody;
use crate::http::replay::Replay;
use crate::http::serve::{Request, Response};
use crate::http::{Protocol, fields, reply, upgrade};
use crate::knowledge::{Backend, Missing, PortView};
use crate::worker::Worker;

/// Answers a request of the application: with an endpoint's answer, or with one of the proxy's own. Counted and logged once.
pub async fn handle(worker: Rc<Worker>, from: Rc<Downstream>, request: Request) -> Response {
    let mut exchange = Exchange::begin(&worker, Direction::Outbound, Protocol::of(&request.head), &request.head);
    let mut response = match forward(&worker, &from, request, &mut exchange).await {
        Ok(response) => response,
        Err(error) => {
            exchange.failed(&error);
            reply::error(exchange.protocol(), &error, &error.verdict())
        }
    };
    exchange.status(response.head.status);
    response.body = response.body.of_exchange(exchange);
    response
}

/// In a place of its own: the way of every other request has no room for it.
type Answering<'a> = Pin<Box<dyn Future<Output = Result<Response, RequestError>> + 'a>>;

async fn forward(
    worker: &Rc<Worker>,
    from: &Downstream,
    request: Request,
    exchange: &mut Exchange,
) -> Result<Response, RequestError> {
    let Request { mut head, body, interim } = request;
    exchange.traced(fields::trace(&mut head.fields, &mut worker.rng.borrow_mut()));

    // Who is asked? The address that the connection was going to, else the authority that the request names.
    fields::take_authority(&mut head)?;
    exchange.host(&head);
    let Destination { service, port } = match (&from.destination, &from.door) {
        (Some(destination), _) => {
            fields::check_authority(&head)?;
            destination.clone()
        }
        (None, Some(door)) => {
            fields::check_authority(&head)?;
            door.enter(&mut head)?
        }
        // What leads somewhere is well formed.
        (None, None) => destination::by_authority(&worker.knowledge, &worker.process.namespace, &head).await?,
    };
    exchange.asked(&service);
    let port = service.port(port).ok_or_else(|| RequestError::NoPort(service.host.to_string(), port))?;
    if head.method() == Method::Connect {
        let connecting: Answering<'_> = Box::pin(tunnel::connect(worker, &service, port, exchange));
        return connecting.await;
    }

    // Which rule acts, and which of its backends serves? It may answer by itself.
    let note = |rule: &Arc<Rule>| exchange.note(|line| line.route = format!("{}#{}", rule.route, rule.index).into());
    let (rule, mut later) = match choose(port, &mut head, note, choose_backend)? {
        Chosen::Forward(rule, later) => (rule, later),
        Chosen::Answer(direct) => return direct_answer(direct, exchange),
    };
    let (host, service_port, app) = match &rule {
        Some((rule, index)) => {
            let backend = &rule.spec.backends[*index];
            (&backend.host, backend.port, backend.protocol.unwrap_or(port.protocol))
        }
        None => (&service.host, port.port, port.protocol),
    };
    let backend = worker.knowledge.backend(host).await.map_err(|missing| missing_endpoints(host, missing))?;

    if let Some(spec) = backend.session() {
        Later::join(&mut later, &spec, &head.fields);
    }

    // What goes on: without the fields that belong to the caller's hop, with a body that may be sent again.
    let upgrade = fields::upgrade(&head);
    fields::strip_hop_by_hop(&mut head.fields);
    fields::strip_mesh(&mut head.fields);
    let mut asked = Asked {
        protocol: exchange.protocol(),
        upgrade,
        body: Replay::new(body),
        port: service_port,
        app,
        interim,
        head,
    };
    exchange.request_body(asked.body.clone());
    if let (Some((rule, _)), Some(later)) = (&rule, &mut later) {
        let asking = later.original().and_then(|original| auth::ask(worker, rule, original, &mut asked, exchange));
        if let Some(asking) = asking
            && let Some(refusal) = asking.await?
        {
            return Ok(refusal);
        }
    }
    let acting = rule.as_ref().map(|(rule, _)| &**rule);
    if let Some(injecting) = {
        let of_service = backend.faults();
        // The route's word stands over the service's.
        let faults = acting.and_then(|rule| rule.faults.as_ref()).or(of_service.as_deref());
        faults.and_then(|faults| faults::inject(worker, &backend, faults, acting, &asked, exchange))
    } {
        match injecting.await? {
            Some(response) => return Ok(response),
            None => Later::delayed(&mut later),
        }
    }
    if let Some((rule, index)) = rule.as_ref().filter(|(rule, _)| rule.has_mirrors()) {
        mirror::send(worker, rule, *index, &asked);
    }

    // Tries, until there is an answer to give.
    let bound = later.as_ref().and_then(|later| later.session()?.endpoint());
    let hash = backend.hash().and_then(|policy| hash_of(&policy, &asked.head.fields, &from.source(worker)));
    let answer = tries(worker, &backend, acting, Led { bound, hash }, &mut asked, exchange).await?;

    // The answer goes back; what it holds is held to its last byte.
    let deadline = answer.deadline;
    let by = later.as_ref().and_then(|_| answer.answer.key());
    let Answer { mut response, hold, veer_error, edge } = answer.answer;
    exchange.edge(edge);
    exchange.hold(hold);
    if let Some(error) = veer_error {
        exchange.flagged(error.flag);
    }
    if response.head.status == 101 {
        return upgrade::switch(response.head, response.upgraded, asked.upgrade.is_some(), exchange);
    }
    fields::strip_hop_by_hop(&mut response.head.fields);
    if let Some((rule, index)) = &rule {
        rule.apply_response(*index, &mut response.head.fields);
    }
    if let (Some(later), Some(by)) = (&later, &by) {
        later.apply(rule.as_ref(), by, &mut response.head.fields);
    }
    let grpc = fields::is_grpc(&response.head.fields);
    Ok(Response::new(response.head, ResponseBody::upstream(response.body, deadline, grpc)))
}

/// What became of a request at its rule.
pub enum Chosen {
    /// To the rule's backend at this place; without a rule to the service itself.
    Forward(Option<(Arc<Rule>, usize)>, Option<Box<Later>>),
    /// The rule answers by itself.
    Answer(Direct),
}

/// Nothing is there behind a backend.
pub fn missing_endpoints(host: &ServiceHost, missing: Missing) -> RequestError {
    match missing {
        Missing::Absent => RequestError::NoEndpoint(format!("{host} has none")),
        Missing::Unknown => RequestError::Unknown(host.to_string()),
    }
}

/// Finds the rule and its backend, and lets their filters act on the head. The path goes on in the one form that was decided on.
/// `found` hears of the rule, `deal` says which of its backends serves.
///
/// # Errors
/// What the caller is told in place of an answer.
pub fn choose(
    port: &PortView,
    head: &mut RequestHead,
    found: impl FnOnce(&Arc<Rule>),
    deal: impl FnOnce(&Rule) -> Result<usize, RequestError>,
) -> Result<Chosen, RequestError> {
    let path = NormalPath::parse(head.path()).map_err(|_| RequestError::Malformed("the path has no single reading"))?;
    if port.matcher.is_empty() && port.less_specific.is_none() {
        let changed = path.changed().then(|| path.forward().to_string());
        changed.iter().for_each(|path| head.set_path(path));
        return Ok(Chosen::Forward(None, None));
    }
    let authority = head.authority().unwrap_or_default();
    let view = RequestView {
        method: head.method_str(),
        path: &path,
        query: head.query(),
        authority: std::str::from_utf8(authority).ok(),
        headers: &head.fields,
    };
    let matched = port.find(&view).ok_or(RequestError::NoRoute)?;
    let (rule, prefix) = (Arc::clone(matched.rule), matched.prefix);
    found(&rule);
    let host = fields::split_authority(authority).map_or("", |(host, _)| host);
    let origin = Origin { scheme: port.scheme, host, port: port.port };
    let later = match filters::look(&rule, head) {
        Looked::Preflight(fields) => return Ok(Chosen::Answer(Direct::Preflight(fields))),
        Looked::On(later) => later,
    };
    if let Some(direct) = rule.direct(&origin, path.as_str(), head.query(), prefix) {
        return Ok(Chosen::Answer(direct));
    }
    let bound = later.as_ref().and_then(|later| later.session()?.backend(&rule.spec.backends));
    let index = bound.map_or_else(|| deal(&rule), Ok)?;
    if let Some(direct) = rule.direct_of_backend(index, &origin, path.as_str(), head.query(), prefix) {
        return Ok(Chosen::Answer(direct));
    }
    let path = path.into_owned();
    fields::set_path(head, &path);
    rule.apply_request(index, head, path.as_str(), prefix);
    // A rule may have named another authority.
    fields::settle_authority(head)?;
    Ok(Chosen::Forward(Some((rule, index)), later))
}

fn direct_answer(direct: Direct, exchange: &mut Exchange) -> Result<Response, RequestError> {
    match direct {
        Direct::Redirect { status, location } => {
            exchange.flagged(Flag::Direct);
            let mut response = reply::empty(status.as_u16());
            response.head.fields.push(Name::Location, location.as_bytes());
            Ok(response)
        }
        Direct::Preflight(fields) => {
            exchange.flagged(Flag::Direct);
            let mut response = reply::empty(204);
            response.head.fields = fields;
            Ok(response)
        }
        Direct::Fail { status, reason } => Err(RequestError::RouteFails(status.as_u16(), reason.to_string())),
    }
}

/// The backend whose turn it is.
///
/// # Errors
/// None has a weight, or the one whose turn it is cannot be used.
pub fn choose_backend(rule: &Rule) -> Result<usize, RequestError> {
    let index = rule.pick_backend().ok_or_else(|| no_backend(rule, "none has a weight"))?;
    usable(rule, index)
}

/// This backend, if it can be used.
///
/// # Errors
/// Why not.
pub fn usable(rule: &Rule, index: usize) -> Result<usize, RequestError> {
    match &rule.spec.backends[index].invalid {
        Some(reason) => Err(no_backend(rule, reason)),
        None => Ok(index),
    }
}

fn no_backend(rule: &Rule, reason: &str) -> RequestError {
    RequestError::NoBackend(format!("{}#{}: {reason}", rule.route, rule.index))
}

/// An answer, and when its body must have ended.
struct Final {
    answer: Answer,
    deadline: Option<Instant>,
}

async fn tries(
    worker: &Rc<Worker>,
    backend: &Rc<Backend>,
    rule: Option<&Rule>,
    led: Led,
    asked: &mut Asked,
    exchange: &mut Exchange,
) -> Result<Final, RequestError> {
    let policy = backend.balance.policy();
    let caller = if asked.protocol == Protocol::Grpc { fields::grpc_timeout(&asked.head.fields) } else { None };
    let mut tries =
        Tries::new(rule.map(|rule| &rule.spec), policy.try_timeout, asked.head.method(), caller, exchange.begun());
    tries.led = led;
    let budget = backend.balance.retry_budget();
    budget.request(exchange.begun());
    for number in 1.. {
        exchange.attempt(number);
        let begun = if number == 1 { exchange.begun() } else { Instant::now() };
        let (failure, outcome, edge, key) = match attempt(worker, backend, asked, &tries, begun).await {
            Ok(answer) => match answer.failure(&tries) {
                None => {
                    asked.body.commit();
                    return Ok(Final { answer, deadline: tries.answer_deadline(begun) });
                }
                Some(failure) => {
                    let (edge, key) = (Some(answer.edge.clone()), answer.key());
                    (failure, Ok(answer), edge, key)
                }
            },
            Err(Failed { failure, error, key, edge }) => (failure, Err(error), edge, key),
        };
        let next = {
            let mut rng = worker.rng.borrow_mut();
            tries.next(failure, asked.body.can_repeat(), budget, &mut rng, Instant::now())
        };
        if matches!(next, Next::GiveUp | Next::Spent) {
            if let Some(edge) = edge {
                exchange.edge(edge);
            }
            asked.body.commit();
            if next == Next::Spent {
                return Err(RequestError::BudgetSpent(backend.host.to_string()));
            }
            return outcome.map(|answer| Final { answer, deadline: tries.answer_deadline(begun) });
        }
        // The failed answer's places are free before the next try looks for some.
        drop(outcome);
        tries.exclude.extend(key);
        match next {
            Next::Retry(wait) => {
                if let Some(edge) = edge {
                    edge.retry(reason(failure));
                }
                let pause: Pin<Box<Sleep>> = Box::pin(tokio::time::sleep(wait));
                pause.await;
            }
            Next::Reroute | Next::GiveUp | Next::Spent => {
                if let Some(edge) = edge {
                    edge.reroute();
                }
            }
        }
    }
    Err(RequestError::Timeout)
}

fn reason(failure: Failure) -> RetryReason {
    match failure {
        Failure::Timeout => RetryReason::Timeout,
        Failure::Status(_) => RetryReason::Code,
        Failure::NothingSent | Failure::Lost | Failure::Stale | Failure::NoEndpoint => RetryReason::ConnectionLost,
    }
}
