//! Header fields: what belongs to one hop only, what a request says about itself.

use std::time::Duration;

use veer_http::{Fields, Name, Names, RequestHead, Version};
use veer_route::NormalPath;
use veer_telemetry::Flag;

use crate::error::RequestError;

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
    pub fn take(fields: &mut Fields) -> Option<Self> {
        let text = fields.get(Name::VeerError)?;
        let text = std::str::from_utf8(text).unwrap_or_default();
        let (flag, rest) = text.split_once(';').unwrap_or((text, ""));
        let error = Self { flag: flag.parse().unwrap_or(Flag::UpstreamConnectionLost), sent: rest.trim() != "sent=0" };
        fields.remove(Name::VeerError);
        Some(error)
    }
}

/// Takes the callee's load out of a response's fields (ORCA, text form: `TEXT application_utilization=0.42, …`).
pub fn take_load(fields: &mut Fields) -> Option<f64> {
    let load = read_load(fields.get_str(Name::EndpointLoadMetrics)?);
    fields.remove(Name::EndpointLoadMetrics);
    load.filter(|load| load.is_finite() && *load >= 0.0)
}

fn read_load(text: &str) -> Option<f64> {
    let mut pairs = text.strip_prefix("TEXT")?.split(',').filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == "application_utilization")?.1.parse().ok()
}

/// Removes what belongs to the connection it came over (RFC 9110 §7.6.1): the fields that `Connection` names, `Connection`
/// itself, and those that are always of one hop. `TE: trailers` is kept when it was there, since trailers do travel on.
pub fn strip_hop_by_hop(fields: &mut Fields) {
    if !fields.may_have(HOP_BY_HOP) {
        return;
    }
    // Before anything goes: whoever sends `TE` names it in `Connection`.
    let trailers = wants_trailers(fields);
    if fields.all(Name::Connection).any(names_fields) {
        // Names are collected first: the list cannot change while it is read.
        let named: Vec<Vec<u8>> = fields
            .members(Name::Connection)
            .map(<[u8]>::to_ascii_lowercase)
            // Naming one of these would let a sender strip what others rely on.
            .filter(|name| name != b"host" && name != b"content-length" && !name.starts_with(b"veer-"))
            .collect();
        for name in named.iter().filter(|name| names_fields(name)) {
            fields.remove_other(name);
        }
    }
    fields.remove_all(HOP_BY_HOP);
    if trailers {
        fields.push(Name::Te, b"trailers");
    }
}

/// Whether the value of a `Connection` field may say more than what becomes of the connection.
fn names_fields(value: &[u8]) -> bool {
    !value.eq_ignore_ascii_case(b"keep-alive") && !value.eq_ignore_ascii_case(b"close")
}

const HOP_BY_HOP: Names = Names::of(&[
    Name::Connection,
    Name::KeepAlive,
    // No standard of today, but sent by many clients of proxies.
    Name::ProxyConnection,
    Name::TransferEncoding,
    Name::Upgrade,
    Name::Te,
    Name::Http2Settings,
]);

/// Removes hop fields of the mesh that came from outside of it.
pub fn strip_mesh(fields: &mut Fields) {
    fields.remove_all(Names::of(&[Name::VeerProto, Name::VeerError, Name::XVeerClientId]));
}

fn wants_trailers(fields: &Fields) -> bool {
    fields.members(Name::Te).any(|member| {
        member.split(|byte| *byte == b';').next().is_some_and(|t| t.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    })
}

/// The protocol that an HTTP/1.1 request wants to change to, when it asks for it properly (RFC 9110 §7.8). `h2c` is not
/// offered: prior knowledge serves that purpose, and the upgrade is gone from RFC 9113.
pub fn upgrade(head: &RequestHead) -> Option<Vec<u8>> {
    if head.version != Version::Http11 {
        return None;
    }
    let wanted = head.fields.get(Name::Upgrade)?;
    if wanted.eq_ignore_ascii_case(b"h2c") {
        return None;
    }
    let asks = head.fields.members(Name::Connection).any(|member| member.eq_ignore_ascii_case(b"upgrade"));
    asks.then(|| wanted.to_vec())
}

/// Whether the message is gRPC.
pub fn is_grpc(fields: &Fields) -> bool {
    fields.get(Name::ContentType).is_some_and(|kind| {
        kind.starts_with(b"application/grpc") && matches!(kind.get(16), None | Some(b'+' | b';' | b' '))
    })
}

/// The caller's deadline (gRPC over HTTP/2, `Timeout`: at most 8 digits and a unit).
pub fn grpc_timeout(fields: &Fields) -> Option<Duration> {
    let text = fields.get_str(Name::GrpcTimeout)?;
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

/// Tells the callee how long the caller still waits; never nothing, which no call can be made within.
pub fn set_grpc_timeout(fields: &mut Fields, left: Duration) {
    // At most 8 digits.
    let (amount, unit) = match left.as_micros() {
        micros @ 0..=99_999_999 => (micros.max(1), 'u'),
        micros if micros < 99_999_999_000 => (micros / 1000, 'm'),
        micros => ((micros / 1_000_000).min(99_999_999), 'S'),
    };
    fields.set(Name::GrpcTimeout, format!("{amount}{unit}").as_bytes());
}

/// Makes the authority that a request is for the head's one authority: that of its absolute target or `:authority`, else `Host`
/// (RFC 9112 §3.2.2: the target wins). No `Host` field is left. Whether it is well formed is for [`check_authority`] to say.
///
/// # Errors
/// [`RequestError::Malformed`] when there is none, or more than one.
pub fn take_authority(head: &mut RequestHead) -> Result<(), RequestError> {
    if head.take_host() > 1 {
        return Err(RequestError::Malformed("more than one Host field"));
    }
    match head.authority() {
        Some(_) => Ok(()),
        None => Err(RequestError::Malformed("neither a target with an authority nor a Host field")),
    }
}

/// Whether a head's authority is one.
///
/// # Errors
/// [`RequestError::Malformed`] when it is not.
pub fn check_authority(head: &RequestHead) -> Result<(), RequestError> {
    let authority = head.authority().unwrap_or_default();
    if split_authority(authority).is_some() {
        return Ok(());
    }
    // User information in an authority is a way to disguise a host (RFC 9110 §4.2.4).
    Err(RequestError::Malformed(if authority.contains(&b'@') {
        "the authority holds user information"
    } else {
        "the authority is no host with an optional port"
    }))
}

/// [`take_authority`], then [`check_authority`].
///
/// # Errors
/// As these.
pub fn settle_authority(head: &mut RequestHead) -> Result<(), RequestError> {
    take_authority(head)?;
    check_authority(head)
}

/// Host (an IPv6 address in its brackets) and port of an authority (RFC 3986 §3.2); `None` when it is not well formed.
pub fn split_authority(authority: &[u8]) -> Option<(&str, Option<u16>)> {
    let end = match authority {
        [b'[', address @ ..] => {
            let inner = &address[..address.iter().position(|byte| *byte == b']')?];
            if !inner.iter().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.')) {
                return None;
            }
            inner.len() + 2
        }
        // What ends the name is a colon, or it is no name.
        _ => authority.iter().position(|byte| !REG_NAME[usize::from(*byte)]).unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at_checked(end).filter(|(host, _)| !host.is_empty())?;
    let port = match port {
        [] | [b':'] => None,
        [b':', digits @ ..] if digits.iter().all(u8::is_ascii_digit) => {
            Some(std::str::from_utf8(digits).ok()?.parse().ok()?)
        }
        _ => return None,
    };
    Some((std::str::from_utf8(host).ok()?, port))
}

/// What a registered name is made of (RFC 3986 §3.2.2).
const REG_NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b','
                    | b';'
                    | b'='
                    | b'%'
            );
        byte += 1;
    }
    table
};

/// Puts the path into the form that was decided on.
pub fn set_path(head: &mut RequestHead, path: &NormalPath<'_>) {
    if path.changed() {
        head.set_path(path.forward());
    }
}

/// The trace id of the request. When there is no well-formed trace context, one is begun (not sampled), so that access logs
/// of all hops can be joined.
pub fn trace(fields: &mut Fields, rng: &mut fastrand::Rng) -> TraceId {
    if let Some(id) = fields.get(Name::Traceparent).and_then(TraceId::read) {
        return id;
    }
    let (id, span) = (rng.u128(..).max(1), rng.u64(..).max(1));
    // 00-<32 hex>-<16 hex>-00
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    put_hex(&mut text[3..35], &id.to_be_bytes());
    put_hex(&mut text[36..52], &span.to_be_bytes());
    fields.set(Name::Traceparent, &text);
    TraceId(id)
}

fn put_hex(out: &mut [u8], bytes: &[u8]) {
    for (places, byte) in out.chunks_exact_mut(2).zip(bytes) {
        places.copy_from_slice(&HEX[usize::from(*byte)]);
    }
}

/// Every byte in two digits.
const HEX: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    table
};

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

    fn fields(lines: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new();
        for (name, value) in lines {
            fields.push_checked(name.as_bytes(), value.as_bytes()).unwrap();
        }
        fields
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
        assert_eq!(map, fields(&[("host", "cart"), ("accept", "*/*"), ("te", "trailers")]));
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
    fn what_is_left_of_a_deadline_is_told() {
        for (left, text) in [
            (Duration::ZERO, "1u"),
            (Duration::from_millis(1500), "1500000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(100_000), "100000S"),
            (Duration::MAX, "99999999S"),
        ] {
            let mut map = fields(&[("grpc-timeout", "9H")]);
            set_grpc_timeout(&mut map, left);
            assert_eq!(map, fields(&[("grpc-timeout", text)]));
            assert!(grpc_timeout(&map).is_some());
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
        let settled = |target: Option<&str>, hosts: &[&str]| {
            let mut head = RequestHead::default();
            if let Some(target) = target {
                head.set_authority(target.as_bytes());
            }
            hosts.iter().for_each(|host| head.fields.push(Name::Host, host.as_bytes()));
            settle_authority(&mut head).ok().map(|()| String::from_utf8_lossy(head.authority().unwrap()).into_owned())
        };
        assert_eq!(settled(None, &["cart:80"]).as_deref(), Some("cart:80"));
        assert_eq!(settled(Some("cart.shop"), &["other"]).as_deref(), Some("cart.shop"));
        for (target, hosts) in [
            (None, &[][..]),
            (None, &["a", "a"]),
            (None, &["user@cart"]),
            (None, &["a b"]),
            (None, &["a:x"]),
            (None, &["a:99999"]),
            (None, &[":80"]),
            (None, &["[::1"]),
            (None, &["[::1]x"]),
            (None, &["a/b"]),
        ] {
            assert_eq!(settled(target, hosts), None, "{hosts:?}");
        }
        assert_eq!(split_authority(b"[::1]:80"), Some(("[::1]", Some(80))));
        assert_eq!(split_authority(b"a:"), Some(("a", None)));
    }

    #[test]
    fn a_trace_is_passed_on_or_begun() {
        let mut rng = fastrand::Rng::with_seed(7);
        let given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let mut map = fields(&[("traceparent", given)]);
        assert_eq!(trace(&mut map, &mut rng).to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(map.get_str(Name::Traceparent), Some(given));
        let mut map = fields(&[("traceparent", "00-00000000000000000000000000000000-b7ad6b7169203331-01")]);
        let id = trace(&mut map, &mut rng);
        let begun = map.get(Name::Traceparent).unwrap();
        assert_eq!(map.len(), 1);
        assert_eq!(TraceId::read(begun), Some(id));
    }
}
