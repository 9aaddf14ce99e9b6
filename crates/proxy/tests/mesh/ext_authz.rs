//! Envoy's ext_authz: a guard that answers by hand-made messages, called through the mesh.

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use veer_core::route::{ExternalAuth, Filter, HttpMatch, HttpRule, PathMatch};

use crate::filters::{Routed, backend};
use crate::harness::app::App;
use crate::harness::run;

/// A field of a message that holds bytes (Protocol Buffers, `LEN`); all of ours are short.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(value.len()).unwrap()], value].concat()
}

fn header(name: &str, value: &str) -> Vec<u8> {
    field(1, &[field(1, name.as_bytes()), field(2, value.as_bytes())].concat())
}

/// `CheckResponse`: a yes with a field to add and one to remove, or a no with 401.
fn verdict(yes: bool) -> Vec<u8> {
    if yes {
        return field(3, &[field(2, &header("x-user", "ada")), field(5, b"x-secret")].concat());
    }
    let status = field(1, &[0x08, 16]);
    let denied = [field(1, &[0x08, 0x91, 0x03]), field(2, &header("www-authenticate", "Basic")), field(3, b"go away")];
    [status, field(2, &denied.concat())].concat()
}

fn framed(message: &[u8]) -> Bytes {
    [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat().into()
}

/// Says yes to what has `/in` in its path, breaks off at `/odd`, and no to everything else.
fn guard() -> App {
    App::new(|request| async move {
        assert_eq!(request.headers()["content-type"], "application/grpc");
        assert_eq!(request.uri().path(), "/envoy.service.auth.v3.Authorization/Check");
        let asked = request.into_body().collect().await.unwrap().to_bytes();
        let has = |text: &str| asked.windows(text.len()).any(|part| part == text.as_bytes());
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", if has("/odd") { "13" } else { "0" }.parse().unwrap());
        // Whether the body was shown is told by the verdict.
        let yes = has("/in") && (!has("/b/") || has("the body"));
        let frames = [Frame::data(framed(&verdict(yes))), Frame::trailers(trailers)].map(Ok);
        let mut response = http::Response::new(StreamBody::new(stream::iter(frames)).boxed_unsync());
        response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        response
    })
}

#[test]
fn nobody_passes_without_leave_over_grpc() {
    run(async {
        let guarded = |prefix: &str, to: &str, body_limit| HttpRule {
            matches: vec![HttpMatch { path: Some(PathMatch::Prefix(prefix.into())), ..HttpMatch::default() }],
            filters: vec![Filter::ExternalAuth(ExternalAuth {
                to: Box::new(backend(to, vec![])),
                grpc: true,
                path: None,
                request_headers: vec![],
                response_headers: vec![],
                body_limit,
            })],
            backends: vec![backend("cart", vec![])],
            ..HttpRule::default()
        };
        let rules = vec![guarded("/a", "guard", 0), guarded("/b", "guard", 20), guarded("/c", "nobody", 0)];
        let routed = Routed::new("guard", guard(), rules).await;
        let mut client = routed.client().await;
        let mut ask = async |path: &str, body: &[u8]| {
            let mut request = client.request(Method::POST, "cart", path, body);
            request.headers_mut().insert("x-user", "root".parse().unwrap());
            request.headers_mut().insert("x-secret", "1".parse().unwrap());
            client.ask(request).await.unwrap()
        };
        assert_eq!(ask("/a/in?q=1", b"the body").await.text(), "POST /a/in the body");
        let seen = routed.several.apps[0].seen.borrow_mut().pop().unwrap();
        assert_eq!(seen.headers()["x-user"], "ada", "the client's own word is replaced");
        assert!(!seen.headers().contains_key("x-secret"));
        assert_eq!(ask("/b/in", b"the body").await.text(), "POST /b/in the body", "the guard saw it");
        assert_eq!(ask("/b/in", &[b'x'; 21]).await.status, StatusCode::PAYLOAD_TOO_LARGE);

        let refused = ask("/a/out", b"").await;
        assert_eq!((refused.status, refused.text().as_str()), (StatusCode::UNAUTHORIZED, "go away"));
        assert_eq!(refused.header("www-authenticate"), "Basic");
        let reached = routed.several.apps[0].count();
        assert_eq!(ask("/a/odd/in", b"").await.status, StatusCode::FORBIDDEN, "a failed call gives no leave");
        assert_eq!(ask("/c/in", b"").await.status, StatusCode::FORBIDDEN, "nor does who cannot be asked");
        assert_eq!(routed.several.apps[0].count(), reached);
    });
}
