//! What of a rule looks at a request and acts on its answer.

use std::sync::Arc;

use veer_balance::EndpointKey;
use veer_core::route::SessionPersistence;
use veer_http::{Fields, RequestHead};
use veer_route::{Rule, Shared};

use super::faults::FAULT_FIELD;
use super::session::Session;

/// What is to be done to the answer, beside header filters. Most requests have none.
#[derive(Default)]
pub struct Later {
    shared: Option<Shared>,
    session: Option<Session>,
    /// As it came: what a service that gives leave is asked about.
    original: Option<RequestHead>,
    /// It was delayed on purpose.
    delayed: bool,
}

/// What the rule makes of a request at first sight.
pub enum Looked {
    /// It was a browser's question, and this is the answer.
    Preflight(Fields),
    /// It goes on; its answer may be of interest to another origin, or belong to a session.
    On(Option<Box<Later>>),
}

/// Lets the rule's CORS filter, its sessions and its need of leave look at the request. Rules without any cost three looks.
pub fn look(rule: &Rule, head: &RequestHead) -> Looked {
    let (cors, session, auth) = (rule.cors(), rule.spec.session.as_ref(), rule.auth());
    if cors.is_none() && session.is_none() && auth.is_none() {
        return Looked::On(None);
    }
    if let Some(fields) = cors.and_then(|cors| cors.preflight(head)) {
        return Looked::Preflight(fields);
    }
    let shared = cors.and_then(|cors| cors.shared(head));
    let session = session.map(|spec| Session::of(spec, &head.fields));
    let original = auth.map(|_| head.clone());
    let any = shared.is_some() || session.is_some() || original.is_some();
    Looked::On(any.then(|| Box::new(Later { shared, session, original, delayed: false })))
}

impl Later {
    /// The request as it came, when leave is to be asked for.
    pub fn original(&mut self) -> Option<RequestHead> {
        self.original.take()
    }

    /// The session that the request belongs to.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// Takes the sessions of the service, when the rule says nothing of sessions.
    pub fn join(later: &mut Option<Box<Self>>, spec: &Arc<SessionPersistence>, request: &Fields) {
        let later = later.get_or_insert_default();
        later.session.get_or_insert_with(|| Session::of(spec, request));
    }

    /// The request was delayed on purpose, which its answer tells.
    pub fn delayed(later: &mut Option<Box<Self>>) {
        later.get_or_insert_default().delayed = true;
    }

    /// Acts on the answer of this endpoint.
    pub fn apply(&self, rule: Option<&(Arc<Rule>, usize)>, by: &EndpointKey, fields: &mut Fields) {
        if let (Some(shared), Some(cors)) = (&self.shared, rule.and_then(|(rule, _)| rule.cors())) {
            cors.apply(shared, fields);
        }
        if self.delayed {
            fields.set_other(FAULT_FIELD, b"delay");
        }
        if let Some(session) = &self.session {
            session.apply(rule.map(|(rule, index)| &rule.spec.backends[*index]), by, fields);
        }
    }
}
