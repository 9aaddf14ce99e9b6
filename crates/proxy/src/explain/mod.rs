//! What would become of a request that nobody sends: the request path's own steps ([`crate::outbound::request`]), taken without
//! sending anything. Rules, backends, limits and shares come of the same functions and the same compiled configuration.

mod callee;
mod shown;

use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;
use veer_balance::{ClusterSnapshot, EndpointSnapshot, EndpointState, ServiceBalance, Standing};
use veer_core::route::HttpRule;
use veer_core::{Endpoints, ObjectName, ServiceHost};
use veer_http::RequestHead;
use veer_route::{Direct, Faults, Rule};

pub use self::callee::admission;
pub use self::shown::*;
use crate::error::RequestError;
use crate::http::{Protocol, fields};
use crate::knowledge::{Missing, ServiceView};
use crate::outbound::destination;
use crate::outbound::hashing::{Source, hash_of};
use crate::outbound::request::{Chosen, choose, choose_backend, missing_endpoints, usable};
use crate::outbound::tries::Tries;

/// What the calling proxy knows.
pub trait Knows {
    /// The calling workload.
    fn workload(&self) -> &ObjectName;

    /// The service of this name (a host or a virtual address).
    fn service(&self, name: &str) -> impl Future<Output = Result<Rc<ServiceView>, Missing>>;

    /// Who can serve behind a host, and how they are balanced now.
    fn endpoints(
        &self,
        host: &ServiceHost,
    ) -> impl Future<Output = Result<(Arc<Endpoints>, Arc<ServiceBalance>), Missing>>;
}

/// Takes the steps of the request.
pub async fn explain(knows: &impl Knows, question: &Question) -> Explanation {
    let mut told = Explanation::default();
    if let Err(error) = follow(knows, question, &mut told).await {
        told.answer = Some(own_answer(&error));
    }
    told
}

async fn follow(knows: &impl Knows, question: &Question, told: &mut Explanation) -> Result<(), RequestError> {
    // Who is asked?
    let mut head = question.head()?;
    fields::settle_authority(&mut head)?;
    let (name, number) = destination::named(&head, &knows.workload().namespace)?;
    let missing = |missing| destination::missing(missing, &head);
    let service = knows.service(&name).await.map_err(missing)?;
    let port = service.port(number).ok_or_else(|| RequestError::NoPort(service.host.to_string(), number))?;
    told.service = Some(AskedService { host: service.host.to_string(), port: port.port, protocol: port.protocol });

    // Which rule acts? It may answer by itself.
    let mut acting = None;
    let chosen = choose(port, &mut head.clone(), |rule| acting = Some(Arc::clone(rule)), choose_backend);
    told.rule = acting.as_ref().map(|rule| acting_rule(rule));
    let error = match chosen {
        Ok(Chosen::Answer(direct)) => {
            told.answer = Some(direct_answer(&direct));
            return Ok(());
        }
        Ok(Chosen::Forward(..)) => None,
        Err(error) => Some(error),
    };

    // Each of its backends, as if its turn had come.
    let Some(rule) = acting else {
        if let Some(error) = error {
            return Err(error);
        }
        let mut backend =
            ActingBackend { host: service.host.to_string(), port: port.port, share: 100.0, ..ActingBackend::default() };
        sent(knows, &service.host, None, &head, &head, &mut backend).await;
        told.backends.push(backend);
        return Ok(());
    };
    let total: u64 = rule.spec.backends.iter().map(|backend| u64::from(backend.weight)).sum();
    for (index, to) in rule.spec.backends.iter().enumerate() {
        let mut backend = ActingBackend {
            host: to.host.to_string(),
            port: to.port,
            share: f64::from(to.weight) * 100.0 / (total.max(1) as f64),
            ..ActingBackend::default()
        };
        let mut going = head.clone();
        match choose(port, &mut going, |_| {}, |rule| usable(rule, index)) {
            Ok(Chosen::Forward(..)) => sent(knows, &to.host, Some(&rule.spec), &head, &going, &mut backend).await,
            Ok(Chosen::Answer(direct)) => backend.answer = Some(direct_answer(&direct)),
            Err(error) => backend.answer = Some(own_answer(&error)),
        }
        told.backends.push(backend);
    }
    match error {
        // What a share of the requests meets is told with that share.
        Some(error) if total == 0 => Err(error),
        _ => Ok(()),
    }
}

/// What goes on to a backend, and who can serve it there.
async fn sent(
    knows: &impl Knows,
    host: &ServiceHost,
    rule: Option<&HttpRule>,
    head: &RequestHead,
    going: &RequestHead,
    backend: &mut ActingBackend,
) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    backend.sent = Some(Question {
        method: going.method_str().to_owned(),
        authority: text(going.authority().unwrap_or_default()),
        target: text(going.target()),
        headers: Vec::new(),
    });
    backend.changes = changes(head, going);
    let (endpoints, balance) = match knows.endpoints(host).await {
        Ok(known) => known,
        Err(missing) => return backend.answer = Some(own_answer(&missing_endpoints(host, missing))),
    };
    let policy = &endpoints.policy;
    let caller = if Protocol::of(head) == Protocol::Grpc { fields::grpc_timeout(&head.fields) } else { None };
    let now = Instant::now();
    let snapshot = balance.snapshot(now);
    backend.limits = Tries::new(rule, policy.try_timeout, going.method(), caller, now).words(now);
    backend.policy_by = policy.by.iter().map(ToString::to_string).collect();
    backend.policy = policy.words();
    let hash = policy.hash.as_ref().and_then(|hash| hash_of(hash, &going.fields, &Source::Workload(knows.workload())));
    backend.led_to = hash.and_then(|hash| balance.endpoint_of(hash)).map(|key| key.workload);
    let of_route = rule.and_then(|rule| rule.policy.as_ref());
    backend.policy_by.extend(of_route.map(|policy| policy.by.to_string()));
    let faults = of_route.map(|policy| &policy.faults).filter(|faults| !faults.is_empty()).unwrap_or(&policy.faults);
    if let Some(faults) = Faults::new(faults) {
        let authority = going.authority().and_then(|authority| std::str::from_utf8(authority).ok());
        backend.policy.extend(faults.possible(authority, &going.fields).map(ToString::to_string));
    }
    backend.clusters = snapshot.clusters.iter().map(|cluster| serving(&endpoints, cluster, backend.port)).collect();
    if !snapshot.clusters.iter().any(|cluster| !cluster.endpoints.is_empty()) {
        backend.answer = Some(own_answer(&missing_endpoints(host, Missing::Absent)));
    }
}

fn serving(endpoints: &Endpoints, cluster: &ClusterSnapshot, port: u16) -> ServingCluster {
    let locality = &endpoints.policy.locality;
    let written = locality.weights.iter().find(|weight| weight.cluster == cluster.cluster);
    let own = endpoints.clusters.iter().find(|stated| stated.cluster == cluster.cluster);
    let is_local = own.is_some_and(|stated| stated.reach == veer_core::Reach::Local);
    let why = match (cluster.standing, written) {
        (Standing::Expired, _) => "its lease has ended: a last resort".to_owned(),
        _ if cluster.endpoints.is_empty() => "no copies".to_owned(),
        (_, Some(weight)) => format!("weight {} in the policy", weight.weight),
        (_, None) if !locality.weights.is_empty() => "not named among the policy's weights".to_owned(),
        _ if !locality.local_first => "clusters share by their number of copies".to_owned(),
        _ if is_local => "local first: what its healthy copies can bear".to_owned(),
        _ if cluster.share > 0.0 => "spill-over: what this cluster cannot bear, in proportion".to_owned(),
        _ => "spill-over: nothing while the local copies bear everything".to_owned(),
    };
    let total: f32 = cluster.endpoints.iter().map(|endpoint| endpoint.weight).sum();
    let copies = cluster.endpoints.iter().map(|copy| {
        let stated = own.and_then(|own| {
            own.endpoints.iter().find(|e| e.workload == copy.key.workload && e.address == copy.key.address)
        });
        ServingEndpoint {
            workload: copy.key.workload.clone(),
            address: copy.key.address.to_string(),
            port: stated.and_then(|stated| stated.port(port)).map(|port| port.target_port),
            zone: stated.map_or_else(String::new, |stated| stated.locality.zone.to_string()),
            share: if total > 0.0 { cluster.share * 100.0 * f64::from(copy.weight / total) } else { 0.0 },
            why: why_of(copy),
            admits: None,
        }
    });
    ServingCluster { cluster: cluster.cluster.clone(), share: cluster.share * 100.0, why, endpoints: copies.collect() }
}

fn why_of(copy: &EndpointSnapshot) -> String {
    let seconds = copy.for_time.map_or(0, |time| time.as_secs());
    let mut why = match copy.state {
        EndpointState::Healthy => "healthy".to_owned(),
        EndpointState::SlowStart => "slow start: a growing part of its share".to_owned(),
        EndpointState::Ejected => format!("ejected for failures, back in {seconds} s"),
        EndpointState::Silent => format!("has answered nothing for {seconds} s"),
        EndpointState::Unreachable => format!("cannot be reached for {seconds} s"),
        EndpointState::NotReady => "not ready, its cluster says".to_owned(),
    };
    if copy.gateway_picks {
        why += ", the gateway picks one";
    }
    if copy.in_flight > 0 {
        why += &format!(", {} in flight", copy.in_flight);
    }
    why
}

fn acting_rule(rule: &Rule) -> ActingRule {
    ActingRule {
        kind: rule.kind,
        route: rule.route.clone(),
        index: rule.index,
        name: rule.spec.name.as_ref().map(ToString::to_string),
        matches: rule.spec.matches.iter().map(ToString::to_string).collect(),
        filters: rule.spec.filters.iter().map(ToString::to_string).collect(),
        owner: rule.owner.clone(),
        callers: rule.callers.as_ref().map(ToString::to_string),
    }
}

fn direct_answer(direct: &Direct) -> OwnAnswer {
    let (status, flag, why) = match direct {
        Direct::Redirect { status, location } => {
            (status.as_u16(), "DI", format!("redirect to {}", String::from_utf8_lossy(location.as_bytes())))
        }
        Direct::Preflight(_) => (204, "DI", "a browser's preflight, answered for CORS".to_owned()),
        Direct::Fail { status, reason } => (status.as_u16(), "CF", reason.to_string()),
    };
    OwnAnswer { status, flag: flag.to_owned(), why }
}

fn own_answer(error: &RequestError) -> OwnAnswer {
    let verdict = error.verdict();
    OwnAnswer { status: verdict.status, flag: verdict.flag.to_string(), why: error.to_string() }
}

/// Fields that differ.
fn changes(before: &RequestHead, after: &RequestHead) -> Vec<String> {
    let text = |(name, value): (&[u8], &[u8])| {
        format!("{}: {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
    };
    let had: Vec<String> = before.fields.iter().map(text).collect();
    let mut all: Vec<String> = after.fields.iter().map(text).filter(|field| !had.contains(field)).collect();
    let gone = before.fields.iter().map(|(name, _)| name).filter(|name| after.fields.named(name).next().is_none());
    all.extend(gone.map(|name| format!("-{}", String::from_utf8_lossy(name))));
    all
}

impl Question {
    /// As the query of the proxy's `/explain` page: `method`, `authority`, `target`, and `field` for each header field.
    pub fn to_query(&self) -> String {
        let field = |(name, value): &(String, String)| ("field", format!("{name}: {value}"));
        let named = [("method", &self.method), ("authority", &self.authority), ("target", &self.target)];
        let named = named.into_iter().map(|(name, value)| (name, value.clone()));
        let pairs = named.chain(self.headers.iter().map(field));
        pairs.map(|(name, value)| format!("{name}={}", escaped(&value))).collect::<Vec<_>>().join("&")
    }

    /// From such a query; `None` when it is none.
    pub fn from_query(query: &str) -> Option<Self> {
        let mut question = Self { method: "GET".into(), target: "/".into(), ..Self::default() };
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=')?;
            let value = unescaped(value)?;
            match name {
                "method" => question.method = value,
                "authority" => question.authority = value,
                "target" => question.target = value,
                "field" => {
                    let (name, value) = value.split_once(':')?;
                    question.headers.push((name.trim().to_owned(), value.trim().to_owned()));
                }
                _ => return None,
            }
        }
        (!question.authority.is_empty()).then_some(question)
    }

    /// The head that such a request has when it comes.
    fn head(&self) -> Result<RequestHead, RequestError> {
        let mut head = RequestHead::roomy();
        head.set_method(self.method.as_bytes());
        head.set_authority(self.authority.as_bytes());
        head.set_target(self.target.as_bytes());
        for (name, value) in &self.headers {
            let name = name.to_ascii_lowercase();
            head.fields
                .push_checked(name.as_bytes(), value.as_bytes())
                .map_err(|_| RequestError::Malformed("a header field that no request can have"))?;
        }
        Ok(head)
    }
}

/// Everything but unreserved characters as escapes (RFC 3986 §2.1).
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(byte as char);
        } else {
            out += &format!("%{byte:02X}");
        }
    }
    out
}

fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        (rest, _) = match (byte, after) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |byte: &u8| (*byte as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                (after, bytes.push(digit(high)? << 4 | digit(low)?))
            }
            _ => (after, bytes.push(*byte)),
        };
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_comes_back_from_its_query() {
        let question = Question {
            method: "POST".into(),
            authority: "cart.shop:8080".into(),
            target: "/a%20b?x=1&y=ü".into(),
            headers: vec![("x-user".into(), "ada & co: 1".into())],
        };
        assert_eq!(Question::from_query(&question.to_query()), Some(question));
        assert_eq!(Question::from_query("method=GET"), None, "it asks nobody");
        assert_eq!(Question::from_query("authority=a&other=b"), None);
        assert_eq!(Question::from_query("authority=%zz"), None);
    }
}
