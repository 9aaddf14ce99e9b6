//! Sessions that stay with one endpoint (GEP-1619).
//!
//! The proxy keeps nothing: what it must know travels in a token, made of the time at which the session began, the backend and the
//! endpoint, each by a number. A token that somebody makes up can choose among the endpoints of the service that it may reach anyway,
//! and no more.

use std::fmt::Write;
use std::sync::Arc;

use veer_balance::EndpointKey;
use veer_core::names::stable_hash;
use veer_core::route::{Backend, SessionCarrier, SessionPersistence};
use veer_http::{Fields, Name};
use veer_identity::clock;

/// A token's first characters: another form gets other ones.
const VERSION: &str = "1-";
/// Seconds that the clocks of two proxies may differ.
const SKEW: u64 = 60;

/// The session of one request.
pub struct Session {
    spec: Arc<SessionPersistence>,
    /// What the request brought, when it is still good.
    token: Option<Token>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token {
    /// Unix seconds.
    begun: u64,
    backend: u32,
    endpoint: u64,
}

impl Session {
    /// Reads the request's token.
    pub fn of(spec: &Arc<SessionPersistence>, request: &Fields) -> Self {
        let found = match spec.carrier {
            SessionCarrier::Header => request.named(spec.name.as_bytes()).find_map(Token::read),
            SessionCarrier::Cookie | SessionCarrier::PermanentCookie => {
                cookies(request, spec.name.as_bytes()).find_map(Token::read)
            }
            SessionCarrier::Unknown => None,
        };
        let now = clock::unix_seconds(clock::now());
        let good = |token: &Token| {
            token.begun <= now + SKEW
                && spec.absolute_timeout.is_none_or(|limit| now.saturating_sub(token.begun) < limit.as_secs().max(1))
        };
        Self { spec: Arc::clone(spec), token: found.filter(good) }
    }

    /// The backend that the session is bound to, by its place. One that weighs nothing takes no new sessions, and keeps those that
    /// it has.
    pub fn backend(&self, backends: &[Backend]) -> Option<usize> {
        let token = self.token?;
        backends.iter().position(|backend| backend.invalid.is_none() && number(backend) == token.backend)
    }

    /// The endpoint that the session is bound to.
    pub fn endpoint(&self) -> Option<u64> {
        self.token.map(|token| token.endpoint)
    }

    /// Tells the client whom its session is bound to now, unless it knows. `backend` is none for a request without a rule.
    pub fn apply(&self, backend: Option<&Backend>, by: &EndpointKey, answer: &mut Fields) {
        // Whoever a gateway picked is not known here, and what only a newer version knows is nobody's token.
        if &*by.workload.name == "*" || self.spec.carrier == SessionCarrier::Unknown {
            return;
        }
        let (backend, endpoint) = (backend.map_or(0, number), by.id());
        if self.token.is_some_and(|token| (token.backend, token.endpoint) == (backend, endpoint)) {
            return;
        }
        let token = Token { begun: clock::unix_seconds(clock::now()), backend, endpoint }.write();
        let name = &self.spec.name;
        match self.spec.carrier {
            SessionCarrier::Header => answer.set_other(name.as_bytes(), token.as_bytes()),
            _ => {
                let mut cookie = format!("{name}={token}; Path=/; HttpOnly; SameSite=Lax");
                if let (SessionCarrier::PermanentCookie, Some(limit)) = (self.spec.carrier, self.spec.absolute_timeout)
                {
                    // Writing to a String cannot fail.
                    let _ = write!(cookie, "; Max-Age={}", limit.as_secs().max(1));
                }
                answer.push(Name::SetCookie, cookie.as_bytes());
            }
        }
    }
}

/// Values of the cookies of this name.
pub(super) fn cookies<'a>(fields: &'a Fields, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    fields
        .all(Name::Cookie)
        .flat_map(|line| line.split(|byte| *byte == b';'))
        .filter_map(move |pair| pair.trim_ascii().strip_prefix(name)?.strip_prefix(b"="))
}

fn number(backend: &Backend) -> u32 {
    stable_hash(&format!("{}:{}", backend.host, backend.port)) as u32
}

impl Token {
    fn read(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?.strip_prefix(VERSION)?;
        let part = |from: usize, to: usize| u64::from_str_radix(text.get(from..to)?, 16).ok();
        (text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(())?;
        Some(Self { begun: part(0, 8)?, backend: u32::try_from(part(8, 16)?).ok()?, endpoint: part(16, 32)? })
    }

    /// Eight digits of seconds last until 2106.
    fn write(self) -> String {
        format!("{VERSION}{:08x}{:08x}{:016x}", self.begun & u64::from(u32::MAX), self.backend, self.endpoint)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use veer_core::names::{ClusterName, ObjectName, ServiceHost};

    use super::*;

    fn spec(carrier: SessionCarrier) -> Arc<SessionPersistence> {
        let absolute_timeout = Some(Duration::from_secs(3600));
        Arc::new(SessionPersistence { name: "s".into(), carrier, absolute_timeout })
    }

    fn key(workload: &str) -> EndpointKey {
        let cluster = ClusterName::new("west").unwrap();
        EndpointKey { address: [10, 0, 0, 1].into(), workload: ObjectName::new("shop", workload), cluster }
    }

    fn backend(name: &str) -> Backend {
        let host = ServiceHost::new(&format!("{name}.shop")).unwrap();
        Backend { host, port: 80, weight: 1, invalid: None, filters: vec![], protocol: None }
    }

    fn request(name: &str, value: &str) -> Fields {
        let mut fields = Fields::new();
        fields.push_other(name.as_bytes(), value.as_bytes());
        fields
    }

    #[test]
    fn a_cookie_binds_to_backend_and_endpoint() {
        let (spec, backends) = (spec(SessionCarrier::Cookie), [backend("a"), backend("b")]);
        let first = Session::of(&spec, &Fields::new());
        assert_eq!((first.backend(&backends), first.endpoint()), (None, None));
        let mut answer = Fields::new();
        first.apply(Some(&backends[1]), &key("b-0"), &mut answer);
        let cookie = answer.get_str(Name::SetCookie).unwrap().to_owned();
        assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{cookie}");
        let pair = cookie.split(';').next().unwrap();
        for line in [pair.to_owned(), format!("x=1; {pair}"), format!("s=old;{pair} ; y=2")] {
            let again = Session::of(&spec, &request("cookie", &line));
            assert_eq!((again.backend(&backends), again.endpoint()), (Some(1), Some(key("b-0").id())), "{line}");
            // The client knows already; when its endpoint has gone it is told.
            let mut answer = Fields::new();
            again.apply(Some(&backends[1]), &key("b-0"), &mut answer);
            assert!(answer.is_empty());
            again.apply(Some(&backends[1]), &key("b-1"), &mut answer);
            assert!(answer.has(Name::SetCookie));
        }
        for line in ["s=", "s=1-00", "xs=1", &pair.replace("1-", "2-"), &pair.replace("=1-", "=1-zz"), "s=1-é"] {
            assert_eq!(Session::of(&spec, &request("cookie", line)).endpoint(), None, "{line}");
        }
        let gateway = EndpointKey { workload: ObjectName::new("*", "*"), ..key("x") };
        let mut answer = Fields::new();
        first.apply(None, &gateway, &mut answer);
        assert!(answer.is_empty(), "nobody knows whom a gateway picked");
    }

    #[test]
    fn a_header_is_sent_back_and_a_permanent_cookie_says_how_long() {
        let header = spec(SessionCarrier::Header);
        let mut answer = Fields::new();
        Session::of(&header, &Fields::new()).apply(None, &key("a"), &mut answer);
        let token = String::from_utf8(answer.named(b"s").next().unwrap().to_vec()).unwrap();
        assert_eq!(Session::of(&header, &request("s", &token)).endpoint(), Some(key("a").id()));
        let mut answer = Fields::new();
        Session::of(&spec(SessionCarrier::PermanentCookie), &Fields::new()).apply(None, &key("a"), &mut answer);
        assert!(answer.get_str(Name::SetCookie).unwrap().ends_with("; Max-Age=3600"));
    }

    #[test]
    fn old_sessions_are_none() {
        let header = spec(SessionCarrier::Header);
        let now = clock::unix_seconds(clock::now());
        for (begun, good) in
            [(now, true), (now - 3500, true), (now - 3600, false), (now + 30, true), (now + 3600, false)]
        {
            let token = Token { begun, backend: 0, endpoint: 7 }.write();
            assert_eq!(Session::of(&header, &request("s", &token)).endpoint().is_some(), good, "{begun} of {now}");
        }
    }
}
