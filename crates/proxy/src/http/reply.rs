//! Answers that the proxy makes itself.

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::Protocol;
use super::body::ResponseBody;
use super::fields;
use crate::error::{RequestError, Verdict};

const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Tells the downstream what went wrong, in its own protocol: gRPC callers get a head that is all there is
/// (*trailers-only*), others a status and one line of text.
pub fn error(protocol: Protocol, error: &RequestError, verdict: &Verdict) -> Response<ResponseBody> {
    let text = error.to_string();
    if protocol == Protocol::Grpc {
        return grpc(verdict.grpc, &format!("veer: {} {text}", verdict.flag));
    }
    plain(verdict.status, format!("veer: {} {text}\n", verdict.flag))
}

/// A text answer.
pub fn plain(status: StatusCode, text: String) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::full(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// An answer without a body.
pub fn empty(status: StatusCode) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = status;
    response
}

/// A gRPC status without a message before it.
pub fn grpc(code: u8, message: &str) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    put_grpc_status(fields, code, message);
    response
}

/// The trailers of a gRPC stream that the proxy ends.
pub fn grpc_trailers(code: u8, message: &str) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(2);
    put_grpc_status(&mut fields, code, message);
    fields
}

fn put_grpc_status(fields: &mut HeaderMap, code: u8, message: &str) {
    fields.insert(fields::GRPC_STATUS, HeaderValue::from(u16::from(code)));
    if let Ok(value) = HeaderValue::try_from(percent_encoded(message)) {
        fields.insert(GRPC_MESSAGE, value);
    }
}

/// gRPC over HTTP/2, `Percent-Encoded`: space to `~` without `%`, everything else as escapes.
fn percent_encoded(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    for byte in message.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            out.push(byte as char);
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// The hop field by which the callee's proxy tells the caller's that it answered itself, and whether anything reached the
/// application.
pub fn veer_error(verdict: &Verdict, sent: bool) -> HeaderValue {
    let text = format!("{};sent={}", verdict.flag, u8::from(sent));
    // Flags are letters.
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("UC;sent=1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_errors_are_trailers_only() {
        let cause = RequestError::NoRoute;
        let response = error(Protocol::Grpc, &cause, &cause.verdict());
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["grpc-status"], "12");
        assert_eq!(response.headers()["grpc-message"], "veer: NR no route matches");
        assert!(http_body::Body::is_end_stream(response.body()));
    }

    #[test]
    fn messages_are_escaped() {
        assert_eq!(percent_encoded("50% ü\n"), "50%25 %C3%BC%0A");
    }
}
