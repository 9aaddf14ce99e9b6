//! Header fields: what belongs to one hop only, what a request says about itself.

use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::Authority;
use http::{Uri, Version, request};

use veer_route::NormalPath;
use veer_telemetry::Flag;

use crate::error::RequestError;

/// Hop field: what the caller's application spoke ([`super::Protocol`]).
pub const VEER_PROTO: HeaderName = HeaderName::from_static("veer-proto");
/// Hop field of a response that the callee's proxy made itself: `<flag>;sent=0|1`.
pub const VEER_ERROR: HeaderName = HeaderName::from_static("veer-error");
/// Who calls, as verified in the handshake; set by the callee's proxy for the application.
pub const VEER_CLIENT_ID: HeaderName = HeaderName::from_static("x-veer-client-id");
/// Load of the callee (ORCA, text form), consumed by the caller's proxy.
pub const ENDPOINT_LOAD: HeaderName = HeaderName::from_static("endpoint-load-metrics");
/// What a callee's proxy says of an answer that it made itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VeerError {
    /// Why.
    pub flag: Flag,
    /// Whether anything may have reached the application.
    pub sent: bool,
}

impl VeerError {
    /// Takes it out of a response's fields. What cannot be read is taken as the worst: sent, and lost.
    pub fn take(fields: &mut HeaderMap) -> Option<Self> {
        let value = fields.remove(VEER_ERROR)?;
        let text = value.to_str().unwrap_or_default();
        let (flag, rest) = text.split_once(';').unwrap_or((text, ""));
        let flag = flag.parse().unwrap_or(Flag::UpstreamConnectionLost);
        Some(Self { flag, sent: rest.trim() != "sent=0" })
    }
}

/// Takes the callee's load out of a response's fields (ORCA, text form: `TEXT application_utilization=0.42, …`).
pub fn take_load(fields: &mut HeaderMap) -> Option<f64> {
    let value = fields.remove(ENDPOINT_LOAD)?;
    let pairs = value.to_str().ok()?.strip_prefix("TEXT")?.split(',');
    let load: f64 = pairs
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == "application_utilization")?
        .1
        .parse()
        .ok()?;
    (load.is_finite() && load >= 0.0).then_some(load)
}

/// W3C trace context.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Names no standard of today, but sent by many clients of proxies.
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// Outcome of a call, in trailers or in a head without body.
pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Removes what belongs to the connection it came over (RFC 9110 §7.6.1): the fields that `Connection` names, `Connection`
/// itself, and those that are always of one hop. `TE: trailers` is kept when it was there, since trailers do travel on.
pub fn strip_hop_by_hop(fields: &mut HeaderMap) {
    let wants_trailers = wants_trailers(fields);
    if fields.contains_key(header::CONNECTION) {
        // Names are collected first: the map cannot change while it is read. Connection fields are rare and short.
        let named: Vec<HeaderName> = list(fields, &header::CONNECTION)
            .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
            // Naming one of these would let a sender strip what others rely on.
            .filter(|name| {
                *name != header::HOST && *name != header::CONTENT_LENGTH && !name.as_str().starts_with("veer-")
            })
            .collect();
        for name in named {
            fields.remove(name);
        }
        fields.remove(header::CONNECTION);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, header::TE] {
        fields.remove(name);
    }
    if wants_trailers {
        fields.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Removes hop fields of the mesh that came from outside of it.
pub fn strip_mesh(fields: &mut HeaderMap) {
    for name in [VEER_PROTO, VEER_ERROR, VEER_CLIENT_ID] {
        fields.remove(name);
    }
}

/// The members of a comma-separated field, over all its lines.
fn list<'a>(fields: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    fields
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|member| !member.is_empty())
}

fn wants_trailers(fields: &HeaderMap) -> bool {
    list(fields, &header::TE)
        .any(|member| member.split(';').next().is_some_and(|t| t.trim().eq_ignore_ascii_case("trailers")))
}

/// The protocol that an HTTP/1.1 request wants to change to, when it asks for it properly (RFC 9110 §7.8). `h2c` is not
/// offered: prior knowledge serves that purpose, and the upgrade is gone from RFC 9113.
pub fn upgrade(head: &request::Parts) -> Option<HeaderValue> {
    if head.version != Version::HTTP_11 {
        return None;
    }
    let wanted = head.headers.get(header::UPGRADE)?;
    if wanted.as_bytes().eq_ignore_ascii_case(b"h2c") {
        return None;
    }
    list(&head.headers, &header::CONNECTION)
        .any(|member| member.eq_ignore_ascii_case("upgrade"))
        .then(|| wanted.clone())
}

/// Whether the message is gRPC.
pub fn is_grpc(fields: &HeaderMap) -> bool {
    fields.get(header::CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.as_bytes();
        kind.starts_with(b"application/grpc") && matches!(kind.get(16), None | Some(b'+' | b';' | b' '))
    })
}

/// The caller's deadline (gRPC over HTTP/2, `Timeout`: at most 8 digits and a unit).
pub fn grpc_timeout(fields: &HeaderMap) -> Option<Duration> {
    let text = fields.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// The authority a request is for: its absolute target or `:authority`, else `Host` (RFC 9112 §3.2.2: the target wins).
///
/// # Errors
/// [`RequestError::Malformed`] when there is none, more than one, or none that is well formed.
pub fn authority(head: &request::Parts) -> Result<Authority, RequestError> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(RequestError::Malformed("more than one Host field"));
    }
    let authority = match (head.uri.authority(), host) {
        (Some(authority), _) => authority.clone(),
        (None, Some(host)) => Authority::try_from(host.as_bytes())
            .map_err(|_| RequestError::Malformed("the Host field is not an authority"))?,
        (None, None) => return Err(RequestError::Malformed("neither a target with an authority nor a Host field")),
    };
    // User information in an authority is a way to disguise a host (RFC 9110 §4.2.4).
    if authority.as_str().contains('@') {
        return Err(RequestError::Malformed("the authority holds user information"));
    }
    if authority.host().is_empty() {
        return Err(RequestError::Malformed("the authority is empty"));
    }
    Ok(authority)
}

/// The target for an HTTP/2 hop: scheme, authority as the caller wrote it, path and query.
pub fn absolute_target(authority: &Authority, target: &Uri) -> Uri {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(http::uri::Scheme::HTTP);
    parts.authority = Some(authority.clone());
    parts.path_and_query =
        Some(target.path_and_query().cloned().unwrap_or_else(|| http::uri::PathAndQuery::from_static("/")));
    // All three parts are there, which is all that can be wrong.
    Uri::from_parts(parts).unwrap_or_default()
}

/// The target for an HTTP/1.1 server: path and query only. `Host` must be set beside it.
pub fn origin_target(target: &Uri) -> Uri {
    let path = target.path_and_query().cloned().unwrap_or_else(|| http::uri::PathAndQuery::from_static("/"));
    Uri::from(path)
}

/// Puts the path into the form that was decided on.
pub fn set_path(head: &mut request::Parts, path: &NormalPath<'_>) {
    if !path.changed() {
        return;
    }
    let query = head.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let Ok(changed) = http::uri::PathAndQuery::try_from(format!("{}{query}", path.forward())) else { return };
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    parts.path_and_query = Some(changed);
    // The other parts came from a URI, and stay what they were.
    head.uri = Uri::from_parts(parts).unwrap_or_default();
}

/// The trace id of the request. When there is no well-formed trace context, one is begun (not sampled), so that access logs
/// of all hops can be joined.
pub fn trace(fields: &mut HeaderMap, rng: &mut fastrand::Rng) -> TraceId {
    if let Some(id) = fields.get(TRACEPARENT).and_then(|value| TraceId::read(value.as_bytes())) {
        return id;
    }
    let (id, span) = (rng.u128(1..), rng.u64(1..));
    if let Ok(value) = HeaderValue::try_from(format!("00-{id:032x}-{span:016x}-00")) {
        fields.insert(TRACEPARENT, value);
    }
    TraceId(id)
}

/// A W3C trace id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TraceId(pub u128);

impl TraceId {
    fn read(value: &[u8]) -> Option<Self> {
        // version "-" 32 hex "-" 16 hex "-" flags; later versions may be longer (W3C Trace Context §3.2.2).
        let text = std::str::from_utf8(value).ok()?;
        let mut parts = text.split('-');
        let (version, id, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |text: &str, length| {
            text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
        };
        if !hex(version, 2) || version == "ff" || !hex(id, 32) || !hex(span, 16) || !hex(flags, 2) {
            return None;
        }
        u128::from_str_radix(id, 16).ok().filter(|id| *id != 0).map(TraceId)
    }
}

impl std::fmt::Display for TraceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn fields_of_one_hop_stay_there() {
        let mut map = fields(&[
            ("connection", "close, X-Mine"),
            ("connection", "te, host"),
            ("x-mine", "1"),
            ("te", "gzip, trailers;q=0.5"),
            ("keep-alive", "5"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("host", "cart"),
            ("accept", "*/*"),
        ]);
        strip_hop_by_hop(&mut map);
        let mut left: Vec<_> = map.iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
        left.sort_unstable();
        assert_eq!(left, [("accept", "*/*"), ("host", "cart"), ("te", "trailers")]);
    }

    #[test]
    fn grpc_deadlines() {
        for (text, wanted) in [
            ("100m", Some(Duration::from_millis(100))),
            ("2S", Some(Duration::from_secs(2))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("S", None),
            ("1", None),
            ("", None),
            ("123456789S", None),
            ("+1S", None),
        ] {
            assert_eq!(grpc_timeout(&fields(&[("grpc-timeout", text)])), wanted, "{text}");
        }
    }

    #[test]
    fn grpc_is_told_by_its_content_type() {
        for (kind, wanted) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc-web", false),
            ("text/plain", false),
        ] {
            assert_eq!(is_grpc(&fields(&[("content-type", kind)])), wanted, "{kind}");
        }
    }

    #[test]
    fn the_authority_is_one_and_plain() {
        let request = |uri: &str, hosts: &[&str]| {
            let mut builder = http::Request::builder().uri(uri);
            for host in hosts {
                builder = builder.header(header::HOST, *host);
            }
            authority(&builder.body(()).unwrap().into_parts().0).map(|a| a.to_string()).ok()
        };
        assert_eq!(request("/", &["cart:80"]).as_deref(), Some("cart:80"));
        assert_eq!(request("http://cart.shop/x", &["other"]).as_deref(), Some("cart.shop"));
        assert_eq!(request("/", &[]), None);
        assert_eq!(request("/", &["a", "a"]), None);
        assert_eq!(request("/", &["user@cart"]), None);
        assert_eq!(request("/", &["a b"]), None);
    }

    #[test]
    fn a_trace_is_passed_on_or_begun() {
        let mut rng = fastrand::Rng::with_seed(7);
        let given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let mut map = fields(&[("traceparent", given)]);
        assert_eq!(trace(&mut map, &mut rng).to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(map[TRACEPARENT], given);
        let mut map = fields(&[("traceparent", "00-00000000000000000000000000000000-b7ad6b7169203331-01")]);
        let id = trace(&mut map, &mut rng);
        assert!(map[TRACEPARENT].to_str().unwrap().contains(&id.to_string()));
    }
}
