//! Extended `CONNECT` (RFC 8441): a stream that becomes another protocol, for everything behind it an upgrade of HTTP/1.1.

use veer_http::{Name, RequestHead, ResponseHead, Version};

use super::reply;
use super::serve::Response;

/// The alphabet of base64 (RFC 4648 §4).
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Makes the request one that asks for the upgrade; whether it was an extended `CONNECT`.
pub fn take(head: &mut RequestHead) -> bool {
    let Some(protocol) = head.protocol().map(<[u8]>::to_vec) else { return false };
    head.version = Version::Http11;
    head.set_method(b"GET");
    head.fields.push(Name::Connection, b"upgrade");
    head.fields.push(Name::Upgrade, &protocol);
    if protocol.eq_ignore_ascii_case(b"websocket") {
        // RFC 8441 §5.1: HTTP/2 has no use for the key, a server of HTTP/1.1 does not answer without one (RFC 6455 §4.2.1).
        head.fields.set_other(b"sec-websocket-key", &key(fastrand::u128(..)));
    }
    true
}

/// Makes the answer one to an extended `CONNECT`.
pub fn give(mut response: Response) -> Response {
    if response.tunnel.is_some() {
        let fields = std::mem::take(&mut response.head.fields);
        response.head = ResponseHead { fields, ..ResponseHead::new(200) };
        response.head.fields.remove(Name::Upgrade);
        response.head.fields.remove_other(b"sec-websocket-accept");
        return response;
    }
    if (200..300).contains(&response.head.status) {
        // To an upgrade this means that the protocol stays; here it would mean that it changes.
        return reply::plain(501, "veer: UPE the upstream does not change to the protocol\n".to_owned());
    }
    response
}

/// 16 bytes in base64.
fn key(random: u128) -> [u8; 24] {
    let mut text = *b"========================";
    for (at, place) in text[..22].iter_mut().enumerate() {
        let shift = 122 - 6 * at as i32;
        let bits = if shift >= 0 { random >> shift } else { random << -shift };
        *place = BASE64[(bits & 63) as usize];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_base64_of_sixteen_bytes() {
        assert_eq!(&key(0), b"AAAAAAAAAAAAAAAAAAAAAA==");
        assert_eq!(&key(u128::MAX), b"/////////////////////w==");
        assert_eq!(&key(u128::from_be_bytes(*b"the sample nonce")), b"dGhlIHNhbXBsZSBub25jZQ==");
    }

    #[test]
    fn a_stream_asks_for_an_upgrade() {
        let mut head = RequestHead::default();
        head.set_method(b"CONNECT");
        assert!(!take(&mut head));
        head.set_protocol(b"websocket");
        assert!(take(&mut head));
        assert_eq!((head.method_str(), head.fields.get_str(Name::Upgrade)), ("GET", Some("websocket")));
        assert_eq!(super::super::fields::upgrade(&head).as_deref(), Some(&b"websocket"[..]));
    }
}
