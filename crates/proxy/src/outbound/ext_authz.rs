//! Envoy's ext_authz (`envoy.service.auth.v3.Authorization/Check`) as far as the Gateway API asks for it (GEP-1494). Whatever is not
//! understood gives no leave.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;
use veer_core::route::ExternalAuth;
use veer_http::{Fields, Name, RequestHead, ResponseHead};
use veer_route::NormalPath;

use super::auth::is_of_message;
use crate::http::body::ResponseBody;
use crate::http::serve::Response;

mod proto;

use self::proto::{AttributeContext, CheckRequest, CheckResponse, HeaderValueOption, HttpRequest};

const METHOD: &[u8] = b"/envoy.service.auth.v3.Authorization/Check";
/// gRPC over HTTP/2, `Length-Prefixed-Message`: a flag and four bytes of length.
const PREFIX: usize = 5;
/// `append_action` of Envoy's `HeaderValueOption`.
const ADD_IF_ABSENT: i32 = 1;
const OVERWRITE_IF_EXISTS: i32 = 3;

/// The question's head and body. The service sees the path in the form that was decided on.
pub(super) fn question(auth: &ExternalAuth, original: &RequestHead, body: &Bytes) -> (RequestHead, Bytes) {
    let mut head = RequestHead::default();
    head.set_method(b"POST");
    head.set_authority(auth.to.host.as_str().as_bytes());
    head.set_target(METHOD);
    head.fields.push(Name::ContentType, b"application/grpc");
    head.fields.push(Name::Te, b"trailers");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let normal = NormalPath::parse(original.path()).map(|path| path.forward().to_owned()).unwrap_or_default();
    let path = match original.query() {
        Some(query) => format!("{normal}?{query}"),
        None => normal,
    };
    let (method, host) = (original.method_str().to_owned(), text(original.authority().unwrap_or_default()));
    let mut http = HttpRequest {
        method: method.clone(),
        path: path.clone(),
        host: host.clone(),
        size: if auth.body_limit > 0 { i64::try_from(body.len()).unwrap_or(i64::MAX) } else { -1 },
        ..HttpRequest::default()
    };
    let is_named = |name: &[u8]| auth.request_headers.iter().any(|named| named.as_bytes() == name);
    for (name, value) in original.fields.iter().filter(|(name, _)| auth.request_headers.is_empty() || is_named(name)) {
        let value = text(value);
        http.headers
            .entry(text(name))
            .and_modify(|all| {
                all.push(',');
                all.push_str(&value);
            })
            .or_insert(value);
    }
    if auth.request_headers.is_empty() {
        let pseudo = [(":method", method), (":path", path), (":authority", host)];
        http.headers.extend(pseudo.map(|(name, value)| (name.to_owned(), value)));
    }
    match std::str::from_utf8(body) {
        Ok(text) => http.body = text.to_owned(),
        Err(_) => http.raw_body = body.clone(),
    }
    let attributes = AttributeContext { request: Some(proto::Request { http: Some(http) }) };
    let message = CheckRequest { attributes: Some(attributes) };
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(PREFIX + length);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    framed.extend_from_slice(&message.encode_to_vec());
    head.fields.push(Name::ContentLength, framed.len().to_string().as_bytes());
    (head, framed.freeze())
}

/// What the answer says of the request, whose fields a yes may change: `None` is leave, else the answer for the client.
///
/// # Errors
/// When it is no answer, or asks for what is not done here: no leave.
pub(super) fn verdict(
    head: &ResponseHead,
    trailers: Option<&Fields>,
    body: &[u8],
    request: &mut Fields,
) -> Result<Option<Response>, String> {
    let status = trailers.and_then(|fields| fields.get(Name::GrpcStatus)).or(head.fields.get(Name::GrpcStatus));
    if head.status != 200 || status != Some(b"0") {
        let status = String::from_utf8_lossy(status.unwrap_or(b"none")).into_owned();
        return Err(format!("it answered {} with the gRPC status {status}", head.status));
    }
    let answer = message(body)?;
    let code = answer.status.as_ref().map_or(0, |status| status.code);
    if code != 0 || answer.denied.is_some() {
        return denied(answer).map(Some);
    }
    let ok = answer.ok.unwrap_or_default();
    if !(ok.response_headers_to_add.is_empty() && ok.query_to_set.is_empty() && ok.query_to_remove.is_empty()) {
        return Err("its yes changes the query or the response, which is not supported".to_owned());
    }
    for name in &ok.headers_to_remove {
        let name = name.to_ascii_lowercase();
        if is_changeable(name.as_bytes()) {
            request.remove_other(name.as_bytes());
        }
    }
    ok.headers.iter().try_for_each(|option| change(request, option))?;
    Ok(None)
}

fn message(body: &[u8]) -> Result<CheckResponse, String> {
    let broken = || "its answer is no message of gRPC".to_owned();
    let (prefix, message) = body.split_at_checked(PREFIX).ok_or_else(broken)?;
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    // Nothing compressed was asked for.
    if prefix[0] != 0 || usize::try_from(length) != Ok(message.len()) {
        return Err(broken());
    }
    CheckResponse::decode(message).map_err(|error| format!("its answer cannot be read: {error}"))
}

fn denied(answer: CheckResponse) -> Result<Response, String> {
    let denied = answer.denied.unwrap_or_default();
    let status = denied.status.map_or(403, |status| status.code);
    // A refusal is no yes in disguise.
    let status = u16::try_from(status).ok().filter(|status| (300..=599).contains(status)).unwrap_or(403);
    let mut head = ResponseHead::new(status);
    denied.headers.iter().try_for_each(|option| change(&mut head.fields, option))?;
    Ok(Response::new(head, ResponseBody::full(Bytes::from(denied.body))))
}

/// Fields that frame a message, name its target or are the mesh's own are nobody's to change.
fn is_changeable(name: &[u8]) -> bool {
    !name.starts_with(b":") && !is_of_message(name)
}

/// Changes one field. Without a word of how it takes the place of what is there, as ext_authz says.
fn change(fields: &mut Fields, option: &HeaderValueOption) -> Result<(), String> {
    let Some(header) = &option.header else { return Ok(()) };
    let name = header.key.to_ascii_lowercase();
    if !is_changeable(name.as_bytes()) {
        return Ok(());
    }
    let is_there = fields.named(name.as_bytes()).next().is_some();
    let append = option.append.unwrap_or(false);
    match option.append_action {
        ADD_IF_ABSENT if !append && is_there => return Ok(()),
        OVERWRITE_IF_EXISTS if !append && !is_there => return Ok(()),
        _ if append => {}
        _ => drop(fields.remove_other(name.as_bytes())),
    }
    let value = if header.value.is_empty() { &header.raw_value[..] } else { header.value.as_bytes() };
    fields.push_checked(name.as_bytes(), value).map_err(|_| format!("it names a field that cannot be: {name:?}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use veer_core::ServiceHost;
    use veer_core::route::Backend;

    use super::proto::{DeniedResponse, HeaderValue, HttpStatus, OkResponse, RpcStatus};
    use super::*;

    fn fields(lines: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new();
        lines.iter().for_each(|(name, value)| fields.push_other(name.as_bytes(), value.as_bytes()));
        fields
    }

    fn option(key: &str, value: &str, append: Option<bool>, append_action: i32) -> HeaderValueOption {
        let header = HeaderValue { key: key.into(), value: value.into(), raw_value: Vec::new() };
        HeaderValueOption { header: Some(header), append, append_action }
    }

    fn framed(answer: &CheckResponse) -> Vec<u8> {
        let message = answer.encode_to_vec();
        [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), &message].concat()
    }

    fn told(body: &[u8], request: &mut Fields) -> Result<Option<Response>, String> {
        verdict(&ResponseHead::new(200), Some(&fields(&[("grpc-status", "0")])), body, request)
    }

    fn asked(named: &[&str], body: &[u8]) -> HttpRequest {
        let host = ServiceHost::new("guard.shop").unwrap();
        let auth = ExternalAuth {
            to: Box::new(Backend { host, port: 80, weight: 1, invalid: None, filters: vec![], protocol: None }),
            grpc: true,
            path: None,
            request_headers: named.iter().map(|name| Arc::from(*name)).collect(),
            response_headers: vec![],
            body_limit: 10,
        };
        let mut original = RequestHead::default();
        original.fields = fields(&[("x-user", "ada"), ("x-user", "eve"), ("accept", "*/*")]);
        original.set_method(b"PUT");
        original.set_target(b"/a/./b?q=1");
        original.set_authority(b"cart.shop");
        let (head, framed) = question(&auth, &original, &Bytes::copy_from_slice(body));
        assert_eq!((head.method_str(), head.target()), ("POST", METHOD));
        assert_eq!(framed[1..5], u32::try_from(framed.len() - 5).unwrap().to_be_bytes());
        let request = CheckRequest::decode(&framed[5..]).unwrap();
        request.attributes.unwrap().request.unwrap().http.unwrap()
    }

    #[test]
    fn the_question_is_envoys() {
        let all = asked(&[], b"hello");
        assert_eq!((&*all.method, &*all.path, &*all.host), ("PUT", "/a/b?q=1", "cart.shop"));
        assert_eq!((&*all.headers["x-user"], &*all.headers[":path"], all.headers.len()), ("ada,eve", "/a/b?q=1", 5));
        assert_eq!((&*all.body, all.size), ("hello", 5));
        let some = asked(&["accept"], &[0xff, 0]);
        assert_eq!((some.headers.len(), &*some.headers["accept"]), (1, "*/*"));
        assert_eq!((&*some.body, &some.raw_body[..]), ("", &[0xff, 0][..]));
    }

    #[test]
    fn a_yes_changes_the_fields_that_it_names() {
        let headers = vec![
            option("X-User", "ada", None, 0),
            option("x-more", "2", Some(true), 0),
            option("x-kept", "new", None, ADD_IF_ABSENT),
            option("x-not", "new", None, OVERWRITE_IF_EXISTS),
            option("host", "evil", None, 0),
            option(":path", "/evil", None, 0),
            option("veer-proto", "x", None, 0),
        ];
        let headers_to_remove = vec!["X-Gone".to_owned(), "host".to_owned(), "content-length".to_owned()];
        let ok = OkResponse { headers, headers_to_remove, ..OkResponse::default() };
        let yes = CheckResponse { ok: Some(ok), ..CheckResponse::default() };
        let mut request =
            fields(&[("content-length", "1"), ("x-user", "root"), ("x-more", "1"), ("x-kept", "old"), ("x-gone", "1")]);
        assert!(told(&framed(&yes), &mut request).unwrap().is_none());
        let now = [("content-length", "1"), ("x-more", "1"), ("x-kept", "old"), ("x-user", "ada"), ("x-more", "2")];
        assert_eq!(request, fields(&now));
        assert!(told(&framed(&CheckResponse::default()), &mut request).unwrap().is_none(), "an empty answer is a yes");
    }

    #[test]
    fn a_no_is_handed_on_and_never_looks_like_a_yes() {
        let status = |code| Some(RpcStatus { code, message: String::new() });
        let no = |code| {
            let denied = DeniedResponse {
                status: Some(HttpStatus { code }),
                headers: vec![option("www-authenticate", "Basic", None, 0), option("content-length", "9", None, 0)],
                body: "go away".into(),
            };
            CheckResponse { status: status(16), denied: Some(denied), ok: None }
        };
        let mut request = Fields::new();
        let refusal = told(&framed(&no(401)), &mut request).unwrap().unwrap();
        assert_eq!(refusal.head.status, 401);
        assert_eq!(refusal.head.fields, fields(&[("www-authenticate", "Basic")]));
        assert_eq!(told(&framed(&no(200)), &mut request).unwrap().unwrap().head.status, 403);
        let bare = CheckResponse { status: status(7), ..CheckResponse::default() };
        assert_eq!(told(&framed(&bare), &mut request).unwrap().unwrap().head.status, 403);
        let torn = CheckResponse { status: status(0), ..no(401) };
        assert_eq!(
            told(&framed(&torn), &mut request).unwrap().unwrap().head.status,
            401,
            "a refusal with a yes is one"
        );
    }

    #[test]
    fn what_is_no_answer_gives_no_leave() {
        let mut request = fields(&[("x-user", "root")]);
        let yes = framed(&CheckResponse::default());
        let extra = OkResponse { response_headers_to_add: vec![option("x-a", "1", None, 0)], ..OkResponse::default() };
        let extra = framed(&CheckResponse { ok: Some(extra), ..CheckResponse::default() });
        let smuggled = OkResponse { headers: vec![option("x-a", "1\r\nx-b: 2", None, 0)], ..OkResponse::default() };
        let smuggled = framed(&CheckResponse { ok: Some(smuggled), ..CheckResponse::default() });
        let compressed = [&[1], &yes[1..]].concat();
        for body in [&b""[..], &yes[..4], &[0, 0, 0, 0, 9], &[0, 0, 0, 0, 1, 0xff], &compressed, &extra, &smuggled] {
            assert!(told(body, &mut request).is_err(), "{body:?}");
        }
        for (head, trailers) in [
            (ResponseHead::new(200), None),
            (ResponseHead::new(503), Some(fields(&[("grpc-status", "0")]))),
            (ResponseHead::new(200), Some(fields(&[("grpc-status", "14")]))),
        ] {
            assert!(verdict(&head, trailers.as_ref(), &yes, &mut request).is_err());
        }
    }
}
