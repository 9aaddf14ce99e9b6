//! Copies of requests (GEP-3171): sent beside the request, never in its way. Whatever happens to a copy, the request does not
//! learn of it; whatever the answer, it is dropped. A copy is sent once its whole body is at hand.

use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;
use veer_core::AppProtocol;
use veer_core::route::Backend;
use veer_http::RequestHead;
use veer_route::Rule;
use veer_telemetry::family::counters;

use super::attempt::{Answer, Asked, attempt};
use super::tries::Tries;
use crate::exchange::Hold;
use crate::http::Protocol;
use crate::http::body::Incoming;
use crate::http::interim::Interim;
use crate::http::replay::{BodyCopy, CopyEnd, Replay};
use crate::worker::Worker;

/// Most bytes of a body that are copied; larger ones are not mirrored.
const BODY_LIMIT: usize = 64 * 1024;
/// Most copies of one worker under way; more are dropped.
const MOST: usize = 512;
/// Most time of a copy, from the request's head to the end of the answer.
const TIME: Duration = Duration::from_secs(15);
/// Most bytes of an answer that are read to keep its connection; then the connection is given up.
const ANSWER_LIMIT: usize = 1024 * 1024;

/// Sends what is due of copies of a request that itself goes to the rule's backend at this place. Returns at once.
pub fn send(worker: &Rc<Worker>, rule: &Rule, backend: usize, asked: &Asked) {
    // What becomes another protocol is no request to copy.
    if asked.upgrade.is_some() {
        return;
    }
    let mut body = None;
    for to in rule.mirrors(backend) {
        if worker.copies.get() >= MOST {
            count(worker, to, "overflow");
            continue;
        }
        let body = body.get_or_insert_with(|| asked.body.copy(BODY_LIMIT));
        let copy = Copy {
            to: to.clone(),
            head: asked.head.clone(),
            protocol: asked.protocol,
            app: to.protocol.unwrap_or(asked.app),
            body: Rc::clone(body),
        };
        tokio::task::spawn_local(carry(Rc::clone(worker), copy));
    }
}

struct Copy {
    to: Backend,
    head: RequestHead,
    protocol: Protocol,
    app: AppProtocol,
    body: Rc<BodyCopy>,
}

async fn carry(worker: Rc<Worker>, copy: Copy) {
    let _place = Place::take(&worker);
    let deadline = Instant::now() + TIME;
    let to = copy.to.clone();
    let outcome = tokio::time::timeout_at(deadline, copy.deliver(&worker, deadline)).await.unwrap_or("timeout");
    count(&worker, &to, outcome);
}

impl Copy {
    /// What became of it, as a label.
    async fn deliver(self, worker: &Rc<Worker>, deadline: Instant) -> &'static str {
        let body = match self.body.end().await {
            CopyEnd::Whole => self.body.replay(),
            CopyEnd::TooLarge => return "too_large",
            CopyEnd::Broken => return "incomplete",
        };
        let Ok(backend) = worker.knowledge.backend(&self.to.host).await else { return "failed" };
        let begun = Instant::now();
        let mut tries = Tries::new(None, backend.balance.policy().try_timeout, self.head.method(), None, begun);
        tries.deadline = Some(deadline);
        let mut asked = Asked {
            head: self.head,
            protocol: self.protocol,
            upgrade: None,
            body,
            interim: Interim::Nobody,
            port: self.to.port,
            app: self.app,
        };
        match attempt(worker, &backend, &mut asked, &tries, begun).await {
            Ok(answer) => {
                drop_answer(answer, &asked.body).await;
                "sent"
            }
            Err(_) => "failed",
        }
    }
}

/// Reads the answer to its end, so that its connection can serve others.
async fn drop_answer(answer: Answer, request: &Replay) {
    let Answer { mut response, hold, .. } = answer;
    let read_whole = read(&mut response.body).await;
    let Hold { pick, lease, latency, pending, .. } = hold;
    if let (Some(pick), Some(outcome)) = (&pick, pending) {
        pick.report(outcome, latency, Instant::now());
    }
    if let Some(lease) = lease.filter(|_| read_whole && request.ended()) {
        lease.done();
    }
}

async fn read(body: &mut Incoming) -> bool {
    let mut left = ANSWER_LIMIT;
    loop {
        match poll_fn(|cx| body.poll_frame(cx)).await {
            None => return true,
            Some(Err(_)) => return false,
            Some(Ok(crate::http::body::Frame::Data(data))) => match left.checked_sub(data.len()) {
                Some(rest) => left = rest,
                None => return false,
            },
            Some(Ok(crate::http::body::Frame::Trailers(_))) => {}
        }
    }
}

fn count(worker: &Worker, to: &Backend, outcome: &str) {
    worker.process.telemetry.metrics.counter(&counters::MIRRORED_REQUESTS, &[to.host.as_str(), outcome]).inc();
}

/// A copy's place among those under way.
struct Place(Rc<Worker>);

impl Place {
    fn take(worker: &Rc<Worker>) -> Self {
        worker.copies.set(worker.copies.get() + 1);
        Self(Rc::clone(worker))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.copies.set(self.0.copies.get() - 1);
    }
}
