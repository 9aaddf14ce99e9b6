//! Asking a service whether a request may pass (GEP-1494), over HTTP or by Envoy's ext_authz ([`super::ext_authz`]). Whatever goes
//! wrong, the request does not pass.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;
use veer_core::AppProtocol;
use veer_core::route::ExternalAuth;
use veer_http::{Fields, Name, RequestHead};
use veer_route::{NormalPath, Rule};
use veer_telemetry::Flag;

use super::attempt::{Answer, Asked, attempt};
use super::ext_authz;
use super::tries::{Failure, Tries};
use crate::error::RequestError;
use crate::exchange::{Exchange, Hold};
use crate::http::body::{Frame, Incoming, Outgoing, ResponseBody};
use crate::http::interim::Interim;
use crate::http::replay::{REPLAY_LIMIT, Replay};
use crate::http::serve::Response;
use crate::http::{Protocol, fields, reply};
use crate::worker::Worker;

/// Most time for the question and its answer.
const TIME: Duration = Duration::from_secs(10);
/// How often a question that reached nobody is asked elsewhere.
const ASKED_ELSEWHERE: u32 = 3;
/// Most bytes of a refusal that are handed on.
const ANSWER_LIMIT: usize = 64 * 1024;

/// Under way; the answer to give when the request may not pass.
pub type Asking<'a> = Pin<Box<dyn Future<Output = Result<Option<Response>, RequestError>> + 'a>>;

/// Asks the service that the rule names, if it names one, about the request as it came. A yes may add fields to what goes on. In a
/// place of its own: the way of every other request has no room for it. `None`: nobody is to be asked.
pub fn ask<'a>(
    worker: &'a Rc<Worker>,
    rule: &'a Rule,
    original: RequestHead,
    asked: &'a mut Asked,
    exchange: &'a mut Exchange,
) -> Option<Asking<'a>> {
    let auth = rule.auth()?;
    Some(Box::pin(async move {
        let question = tokio::time::timeout(TIME, question(worker, auth, &original, asked));
        match question.await {
            Ok(Ok(None)) => Ok(None),
            Ok(Ok(Some(refusal))) => {
                exchange.flagged(Flag::Denied);
                if exchange.protocol() == Protocol::Grpc {
                    return Err(RequestError::Denied(format!("{} refused it", auth.to.host)));
                }
                Ok(Some(refusal))
            }
            Ok(Err(why)) => Err(RequestError::Denied(format!("{} could not be asked: {why}", auth.to.host))),
            Err(_) => Err(RequestError::Denied(format!("{} did not answer", auth.to.host))),
        }
    }))
}

/// `None`: the request may pass.
async fn question(
    worker: &Rc<Worker>,
    auth: &ExternalAuth,
    original: &RequestHead,
    asked: &mut Asked,
) -> Result<Option<Response>, String> {
    let limit = (auth.body_limit as usize).min(REPLAY_LIMIT);
    let body = match limit {
        0 => Bytes::new(),
        limit => match whole(&asked.body, limit).await? {
            Some(body) => body,
            None => return Ok(Some(reply::plain(413, "veer: RBAC the body is too large to be shown\n".to_owned()))),
        },
    };
    if auth.grpc {
        return over_grpc(worker, auth, original, asked, &body).await;
    }
    let answer = answer(worker, auth, head(auth, original, body.len()), body).await?;
    let Answer { mut response, hold, veer_error, .. } = answer;
    // A refusal by the other proxy is nobody's yes, whatever its status.
    if let Some(error) = veer_error {
        return Err(error.flag.to_string());
    }
    let read = read(&mut response.body, ANSWER_LIMIT).await;
    release(hold, read.is_some());
    if response.head.status == 200 {
        take_fields(&response.head.fields, &auth.response_headers, &mut asked.head.fields);
        return Ok(None);
    }
    let (body, _) = read.ok_or("its answer broke off or is too long")?;
    fields::strip_hop_by_hop(&mut response.head.fields);
    if !(200..=599).contains(&response.head.status) {
        response.head.status = 403;
    }
    response.head.fields.remove(Name::ContentLength);
    Ok(Some(Response::new(response.head, ResponseBody::full(body))))
}

/// The same by ext_authz.
async fn over_grpc(
    worker: &Rc<Worker>,
    auth: &ExternalAuth,
    original: &RequestHead,
    asked: &mut Asked,
    body: &Bytes,
) -> Result<Option<Response>, String> {
    let (head, framed) = ext_authz::question(auth, original, body);
    let Answer { mut response, hold, veer_error, .. } = answer(worker, auth, head, framed).await?;
    if let Some(error) = veer_error {
        return Err(error.flag.to_string());
    }
    let read = read(&mut response.body, ANSWER_LIMIT).await;
    release(hold, read.is_some());
    let (read, trailers) = read.ok_or("its answer broke off or is too long")?;
    ext_authz::verdict(&response.head, trailers.as_ref(), &read, &mut asked.head.fields)
}

/// The question: what always is shown, and what the rule names.
fn head(auth: &ExternalAuth, original: &RequestHead, body: usize) -> RequestHead {
    let mut head = RequestHead::default();
    head.set_method(original.method_str().as_bytes());
    head.set_authority(original.authority().unwrap_or_default());
    // In the form that was decided on: the service must not judge another path than the one that is served.
    let normal = NormalPath::parse(original.path()).map(|path| path.forward().to_owned()).unwrap_or_default();
    let mut target = format!("{}{normal}", auth.path.as_deref().unwrap_or_default().trim_end_matches('/'));
    if let Some(query) = original.query() {
        target.push('?');
        target.push_str(query);
    }
    head.set_target(target.as_bytes());
    let always = [&b"authorization"[..]];
    let named = auth.request_headers.iter().map(|name| name.as_bytes());
    for name in always.into_iter().chain(named.filter(|name| *name != b"authorization" && !is_of_message(name))) {
        original.fields.named(name).for_each(|value| head.fields.push_other(name, value));
    }
    head.fields.push(Name::ContentLength, body.to_string().as_bytes());
    head
}

async fn answer(worker: &Rc<Worker>, auth: &ExternalAuth, head: RequestHead, body: Bytes) -> Result<Answer, String> {
    let backend = worker.knowledge.backend(&auth.to.host).await.map_err(|_| "nobody is known to serve".to_owned())?;
    let begun = Instant::now();
    let mut tries = Tries::new(None, backend.balance.policy().try_timeout, head.method(), None, begun);
    tries.deadline = Some(begun + TIME);
    let (protocol, app) = match auth.grpc {
        true => (Protocol::Grpc, AppProtocol::Grpc),
        false => (Protocol::Http1, auth.to.protocol.unwrap_or(AppProtocol::Detect)),
    };
    let mut question = Asked {
        head,
        protocol,
        upgrade: None,
        interim: Interim::Nobody,
        body: Replay::full(body),
        port: auth.to.port,
        app,
    };
    for elsewhere in 0.. {
        match attempt(worker, &backend, &mut question, &tries, Instant::now()).await {
            Ok(answer) => return Ok(answer),
            // Nobody saw it: it can be asked again.
            Err(failed)
                if matches!(failed.failure, Failure::NothingSent | Failure::Stale) && elsewhere < ASKED_ELSEWHERE =>
            {
                tries.exclude.extend(failed.key);
            }
            Err(failed) => return Err(failed.error.to_string()),
        }
    }
    Err("nobody answered".to_owned())
}

/// Fields of a yes take the place of what the client said.
fn take_fields(yes: &Fields, wanted: &[std::sync::Arc<str>], to: &mut Fields) {
    let is_wanted = |name: &[u8]| match wanted {
        [] => !name.starts_with(b"content-") && !matches!(name, b"date" | b"server"),
        wanted => wanted.iter().any(|wanted| wanted.as_bytes() == name),
    };
    let taken = || yes.iter().filter(|(name, _)| is_wanted(name) && !is_of_message(name));
    for (name, _) in taken() {
        to.remove_other(name);
    }
    taken().for_each(|(name, value)| to.push_other(name, value));
}

/// Fields that frame a message or belong to one hop: they are nobody's to hand on.
pub(super) fn is_of_message(name: &[u8]) -> bool {
    matches!(
        name,
        b"host"
            | b"content-length"
            | b"transfer-encoding"
            | b"connection"
            | b"keep-alive"
            | b"proxy-connection"
            | b"te"
            | b"trailer"
            | b"upgrade"
            | b"expect"
    ) || name.starts_with(b"veer-")
}

/// The whole body, when it is not larger; it stays at hand for the request itself.
async fn whole(body: &Replay, limit: usize) -> Result<Option<Bytes>, String> {
    let mut reading = body.next_try();
    let mut all = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| reading.poll_frame(cx)).await {
        if let Frame::Data(data) = frame.map_err(|error| error.to_string())? {
            if all.len() + data.len() > limit {
                return Ok(None);
            }
            all.extend_from_slice(&data);
        }
    }
    Ok(Some(all.freeze()))
}

/// The body and what follows it. `None` when it breaks off or is longer.
async fn read(body: &mut Incoming, limit: usize) -> Option<(Bytes, Option<Fields>)> {
    let (mut all, mut trailers) = (BytesMut::new(), None);
    while let Some(frame) = poll_fn(|cx| body.poll_frame(cx)).await {
        match frame.ok()? {
            Frame::Data(data) if all.len() + data.len() > limit => return None,
            Frame::Data(data) => all.extend_from_slice(&data),
            Frame::Trailers(fields) => trailers = Some(fields),
        }
    }
    Some((all.freeze(), trailers))
}

fn release(hold: Hold, whole: bool) {
    let Hold { pick, lease, latency, pending, .. } = hold;
    if let (Some(pick), Some(outcome)) = (&pick, pending) {
        pick.report(outcome, latency, Instant::now());
    }
    if let Some(lease) = lease.filter(|_| whole) {
        lease.done();
    }
}

#[cfg(test)]
mod tests {
    use veer_core::ServiceHost;
    use veer_core::route::Backend;

    use super::*;

    fn fields(lines: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new();
        lines.iter().for_each(|(name, value)| fields.push_other(name.as_bytes(), value.as_bytes()));
        fields
    }

    fn auth(path: Option<&str>, shown: &[&str]) -> ExternalAuth {
        let host = ServiceHost::new("guard.shop").unwrap();
        ExternalAuth {
            to: Box::new(Backend { host, port: 80, weight: 1, invalid: None, filters: vec![], protocol: None }),
            grpc: false,
            path: path.map(Into::into),
            request_headers: shown.iter().map(|name| (*name).into()).collect(),
            response_headers: vec![],
            body_limit: 0,
        }
    }

    #[test]
    fn the_question_shows_what_it_must_and_what_is_named() {
        let mut original = RequestHead::default();
        original.set_method(b"POST");
        original.set_target(b"/a/./b?q=1");
        original.set_authority(b"cart.shop");
        original.fields = fields(&[
            ("authorization", "x"),
            ("x-user", "ada"),
            ("x-other", "1"),
            ("content-length", "7"),
            ("te", "trailers"),
        ]);
        original.set_method(b"POST");
        original.set_target(b"/a/./b?q=1");
        original.set_authority(b"cart.shop");
        let question = head(&auth(Some("/check/"), &["x-user", "content-length", "te"]), &original, 0);
        assert_eq!((question.method_str(), question.target()), ("POST", &b"/check/a/b?q=1"[..]));
        assert_eq!(question.authority(), Some(&b"cart.shop"[..]));
        assert_eq!(question.fields, fields(&[("authorization", "x"), ("x-user", "ada"), ("content-length", "0")]));
        assert_eq!(head(&auth(None, &[]), &original, 7).target(), b"/a/b?q=1");
    }

    #[test]
    fn a_yes_speaks_over_the_client_and_frames_nothing() {
        let yes = fields(&[
            ("x-user", "ada"),
            ("x-user", "eve"),
            ("x-more", "1"),
            ("content-length", "3"),
            ("content-type", "text/plain"),
            ("host", "guard"),
            ("veer-error", "x"),
        ]);
        let mut request = fields(&[("x-user", "root"), ("content-length", "9")]);
        take_fields(&yes, &[], &mut request);
        assert_eq!(request, fields(&[("content-length", "9"), ("x-user", "ada"), ("x-user", "eve"), ("x-more", "1")]));
        let mut request = fields(&[("x-user", "root"), ("content-length", "9")]);
        take_fields(&yes, &["x-more".into(), "content-length".into()], &mut request);
        assert_eq!(request, fields(&[("x-user", "root"), ("content-length", "9"), ("x-more", "1")]));
    }
}
