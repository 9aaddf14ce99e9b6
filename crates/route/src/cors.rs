//! Sharing with other origins: the CORS protocol of the Fetch standard, as GEP-1767 words it.

use veer_core::route::Cors;
use veer_http::{Fields, Method, Name, RequestHead};

/// Seconds for which an answer to a preflight holds when the manifest does not say (Gateway API).
const DEFAULT_MAX_AGE: u32 = 5;

/// A CORS filter, compiled.
#[derive(Debug)]
pub struct CorsPolicy {
    origins: Origins,
    methods: List,
    headers: List,
    exposed: List,
    credentials: bool,
    max_age: String,
}

#[derive(Debug)]
enum Origins {
    Any,
    Some(Box<[OriginPattern]>),
}

/// `scheme://host[:port]`; the host may begin with `*`.
#[derive(Debug)]
struct OriginPattern {
    is_https: bool,
    host: Box<str>,
    /// Whether the host's head may be anything.
    open: bool,
    port: u16,
}

/// A list of names, or all.
#[derive(Debug)]
enum List {
    Any,
    Some(Box<str>),
}

/// What of a request decides about the fields of its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    origin: Box<[u8]>,
}

impl CorsPolicy {
    pub(crate) fn new(cors: &Cors) -> Self {
        let list = |names: &[std::sync::Arc<str>]| match names.iter().any(|name| &**name == "*") {
            true => List::Any,
            false => List::Some(names.join(", ").into()),
        };
        let origins = if cors.allow_origins.iter().any(|origin| &**origin == "*") {
            Origins::Any
        } else {
            Origins::Some(cors.allow_origins.iter().filter_map(|origin| OriginPattern::new(origin)).collect())
        };
        Self {
            origins,
            methods: list(&cors.allow_methods),
            headers: list(&cors.allow_headers),
            exposed: list(&cors.expose_headers),
            credentials: cors.allow_credentials,
            max_age: cors.max_age.unwrap_or(DEFAULT_MAX_AGE).to_string(),
        }
    }

    /// The fields of the answer, when the request is a preflight: a question of the browser that is not the application's to
    /// answer. For an origin that is not allowed there are none, so that the browser does not go on.
    pub fn preflight(&self, request: &RequestHead) -> Option<Fields> {
        let origin = request.fields.get(Name::Origin)?;
        if request.method() != Method::Options {
            return None;
        }
        let first = |name: &'static [u8]| request.fields.named(name).next();
        let method = first(b"access-control-request-method")?;
        let mut fields = Fields::new();
        // Caches must not give this answer to others.
        fields.push(Name::Vary, b"origin, access-control-request-method, access-control-request-headers");
        if !self.allows(origin) {
            return Some(fields);
        }
        self.put_origin(&mut fields, origin);
        put(&mut fields, b"access-control-allow-methods", self.methods.answer(Some(method), self.credentials));
        let asked = first(b"access-control-request-headers");
        put(&mut fields, b"access-control-allow-headers", self.headers.answer(asked, self.credentials));
        fields.push_other(b"access-control-max-age", self.max_age.as_bytes());
        Some(fields)
    }

    /// What the answer to this request will say of sharing; `None` when the request is not of another origin that is allowed.
    pub fn shared(&self, request: &RequestHead) -> Option<Shared> {
        let origin = request.fields.get(Name::Origin)?;
        self.allows(origin).then(|| Shared { origin: origin.into() })
    }

    /// Puts it into the answer, in place of what the application says of it.
    pub fn apply(&self, shared: &Shared, fields: &mut Fields) {
        for name in
            [&b"access-control-allow-origin"[..], b"access-control-allow-credentials", b"access-control-expose-headers"]
        {
            fields.remove_other(name);
        }
        self.put_origin(fields, &shared.origin);
        // With credentials `*` would be the name of a field.
        put(fields, b"access-control-expose-headers", self.exposed.answer(None, self.credentials));
        if !self.answers_any() {
            fields.push(Name::Vary, b"origin");
        }
    }

    fn allows(&self, origin: &[u8]) -> bool {
        match &self.origins {
            Origins::Any => true,
            Origins::Some(patterns) => std::str::from_utf8(origin)
                .ok()
                .and_then(OriginPattern::new)
                .is_some_and(|origin| patterns.iter().any(|pattern| pattern.holds(&origin))),
        }
    }

    /// Whether the answer is the same for all origins.
    fn answers_any(&self) -> bool {
        matches!(self.origins, Origins::Any) && !self.credentials
    }

    fn put_origin(&self, fields: &mut Fields, origin: &[u8]) {
        fields.push_other(b"access-control-allow-origin", if self.answers_any() { b"*" } else { origin });
        if self.credentials {
            fields.push_other(b"access-control-allow-credentials", b"true");
        }
    }
}

fn put(fields: &mut Fields, name: &[u8], value: Option<&[u8]>) {
    if let Some(value) = value.filter(|value| !value.is_empty()) {
        fields.push_other(name, value);
    }
}

impl List {
    /// With credentials `*` would mean the name `*`, so that what was asked for is named instead.
    fn answer<'a>(&'a self, asked: Option<&'a [u8]>, credentials: bool) -> Option<&'a [u8]> {
        match self {
            List::Any if credentials => asked,
            List::Any => Some(b"*"),
            List::Some(names) => Some(names.as_bytes()),
        }
    }
}

impl OriginPattern {
    /// `None` when it is no origin of `http` or `https`.
    fn new(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let is_https = match scheme {
            _ if scheme.eq_ignore_ascii_case("https") => true,
            _ if scheme.eq_ignore_ascii_case("http") => false,
            _ => return None,
        };
        // An IPv6 address ends in `]`; what follows the last colon behind it is a port.
        let (host, port) = match rest.rsplit_once(':').filter(|(_, port)| !port.contains(']')) {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (rest, if is_https { 443 } else { 80 }),
        };
        let (host, open) = host.strip_prefix('*').map_or((host, false), |rest| (rest, true));
        (open || !host.is_empty()).then(|| Self { is_https, host: host.to_ascii_lowercase().into(), open, port })
    }

    fn holds(&self, origin: &OriginPattern) -> bool {
        let host = if self.open {
            origin.host.len() > self.host.len() && origin.host.ends_with(&*self.host)
        } else {
            origin.host == self.host
        };
        host && !origin.open && (origin.is_https, origin.port) == (self.is_https, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, fields: &[(&str, &str)]) -> RequestHead {
        let mut head = RequestHead::default();
        head.set_method(method.as_bytes());
        fields.iter().for_each(|(name, value)| head.fields.push_other(name.as_bytes(), value.as_bytes()));
        head
    }

    fn text(fields: &Fields) -> Vec<String> {
        let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        fields.iter().map(|(name, value)| format!("{}: {}", show(name), show(value))).collect()
    }

    fn all(list: &[&str]) -> Vec<std::sync::Arc<str>> {
        list.iter().map(|text| (*text).into()).collect()
    }

    const VARY: &str = "vary: origin, access-control-request-method, access-control-request-headers";

    #[test]
    fn origins_are_allowed_as_the_gateway_api_says() {
        for (pattern, origin, allowed) in [
            ("*", "https://a.example", true),
            ("*", "null", true),
            ("https://a.example", "https://a.example", true),
            ("https://a.example", "https://A.example", true),
            ("https://a.example", "http://a.example", false),
            ("https://a.example", "https://a.example:8443", false),
            ("https://a.example", "https://a.example:443", true),
            ("https://a.example", "https://a.example.evil", false),
            ("https://a.example", "null", false),
            ("https://*.example", "https://b.a.example", true),
            ("https://*.example", "https://example", false),
            ("https://*.example", "https://*.example", false),
            ("https://*", "https://anything", true),
            ("https://*", "http://anything", false),
            ("http://*:8080", "http://a:8080", true),
            ("http://*:8080", "http://a", false),
            ("http://[::1]:80", "http://[::1]", true),
        ] {
            let policy = CorsPolicy::new(&Cors { allow_origins: all(&[pattern]), ..Cors::default() });
            let head = request("GET", &[("origin", origin)]);
            assert_eq!(policy.shared(&head).is_some(), allowed, "{pattern} {origin}");
        }
    }

    #[test]
    fn a_preflight_is_answered_and_only_a_preflight() {
        let cors = Cors {
            allow_origins: all(&["https://a.example"]),
            allow_methods: all(&["GET", "PUT"]),
            allow_headers: all(&["X-A", "x-b"]),
            allow_credentials: true,
            ..Cors::default()
        };
        let policy = CorsPolicy::new(&cors);
        let (origin, method) = (("origin", "https://a.example"), ("access-control-request-method", "PUT"));
        assert_eq!(policy.preflight(&request("GET", &[origin, method])), None);
        assert_eq!(policy.preflight(&request("OPTIONS", &[origin])), None);
        assert_eq!(policy.preflight(&request("OPTIONS", &[method])), None);
        assert_eq!(
            text(&policy.preflight(&request("OPTIONS", &[origin, method])).unwrap()),
            [
                VARY,
                "access-control-allow-origin: https://a.example",
                "access-control-allow-credentials: true",
                "access-control-allow-methods: GET, PUT",
                "access-control-allow-headers: X-A, x-b",
                "access-control-max-age: 5",
            ]
        );
        let other = request("OPTIONS", &[("origin", "https://b.example"), method]);
        assert_eq!(text(&policy.preflight(&other).unwrap()), [VARY]);
    }

    #[test]
    fn wildcards_are_named_only_without_credentials() {
        let any = |allow_credentials| {
            CorsPolicy::new(&Cors {
                allow_origins: all(&["*"]),
                allow_methods: all(&["*"]),
                allow_headers: all(&["*"]),
                expose_headers: all(&["*"]),
                allow_credentials,
                max_age: Some(60),
            })
        };
        let asking = request(
            "OPTIONS",
            &[
                ("origin", "https://a.example"),
                ("access-control-request-method", "PATCH"),
                ("access-control-request-headers", "x-a,x-b"),
            ],
        );
        assert_eq!(
            text(&any(false).preflight(&asking).unwrap())[1..],
            [
                "access-control-allow-origin: *",
                "access-control-allow-methods: *",
                "access-control-allow-headers: *",
                "access-control-max-age: 60",
            ]
        );
        assert_eq!(
            text(&any(true).preflight(&asking).unwrap())[1..],
            [
                "access-control-allow-origin: https://a.example",
                "access-control-allow-credentials: true",
                "access-control-allow-methods: PATCH",
                "access-control-allow-headers: x-a,x-b",
                "access-control-max-age: 60",
            ]
        );
        let answered = |policy: &CorsPolicy| {
            let mut fields = Fields::new();
            fields.push_other(b"access-control-allow-origin", b"https://application.example");
            policy.apply(&policy.shared(&request("GET", &[("origin", "https://a.example")])).unwrap(), &mut fields);
            text(&fields)
        };
        assert_eq!(answered(&any(false)), ["access-control-allow-origin: *", "access-control-expose-headers: *"]);
        assert_eq!(
            answered(&any(true)),
            [
                "access-control-allow-origin: https://a.example",
                "access-control-allow-credentials: true",
                "vary: origin"
            ]
        );
    }
}
