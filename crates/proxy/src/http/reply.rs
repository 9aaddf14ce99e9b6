//! Answers that the proxy makes itself.

use std::fmt::Write as _;

use bytes::Bytes;
use veer_http::{Fields, Name, ResponseHead};

use super::Protocol;
use super::body::ResponseBody;
use super::serve::Response;
use crate::error::{RequestError, Verdict};

/// Tells the downstream what went wrong, in its own protocol: gRPC callers get a head that is all there is
/// (*trailers-only*), others a status and one line of text.
pub fn error(protocol: Protocol, error: &RequestError, verdict: &Verdict) -> Response {
    let text = error.to_string();
    if protocol == Protocol::Grpc {
        return grpc(verdict.grpc, &format!("veer: {} {text}", verdict.flag));
    }
    plain(verdict.status, format!("veer: {} {text}\n", verdict.flag))
}

/// A text answer.
pub fn plain(status: u16, text: String) -> Response {
    let mut head = ResponseHead::new(status);
    head.fields.push(Name::ContentType, b"text/plain; charset=utf-8");
    Response::new(head, ResponseBody::full(Bytes::from(text)))
}

/// Says when to come back: `Retry-After` in whole seconds (RFC 9110 §10.2.3), to gRPC callers also the pushback that their retry policies
/// heed (gRFC A6).
pub fn come_back(response: &mut Response, protocol: Protocol, milliseconds: u32) {
    let seconds = milliseconds.div_ceil(1000).max(1);
    response.head.fields.set_other(b"retry-after", seconds.to_string().as_bytes());
    if protocol == Protocol::Grpc {
        response.head.fields.set_other(b"grpc-retry-pushback-ms", milliseconds.to_string().as_bytes());
    }
}

/// An answer without a body.
pub fn empty(status: u16) -> Response {
    Response::new(ResponseHead::new(status), ResponseBody::empty())
}

/// A gRPC status without a message before it.
pub fn grpc(code: u8, message: &str) -> Response {
    let mut head = ResponseHead::new(200);
    head.fields.push(Name::ContentType, b"application/grpc");
    put_grpc_status(&mut head.fields, code, message);
    Response::new(head, ResponseBody::empty())
}

/// The trailers of a gRPC stream that the proxy ends.
pub fn grpc_trailers(code: u8, message: &str) -> Fields {
    let mut fields = Fields::new();
    put_grpc_status(&mut fields, code, message);
    fields
}

fn put_grpc_status(fields: &mut Fields, code: u8, message: &str) {
    fields.push(Name::GrpcStatus, code.to_string().as_bytes());
    fields.push(Name::GrpcMessage, percent_encoded(message).as_bytes());
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
pub fn veer_error(verdict: &Verdict, sent: bool) -> String {
    format!("{};sent={}", verdict.flag, u8::from(sent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::Outgoing;

    #[test]
    fn grpc_errors_are_trailers_only() {
        let cause = RequestError::NoRoute;
        let response = error(Protocol::Grpc, &cause, &cause.verdict());
        assert_eq!(response.head.status, 200);
        assert_eq!(response.head.fields.get_str(Name::GrpcStatus), Some("12"));
        assert_eq!(response.head.fields.get_str(Name::GrpcMessage), Some("veer: NR no route matches"));
        assert!(response.body.is_end());
    }

    #[test]
    fn messages_are_escaped() {
        assert_eq!(percent_encoded("50% ü\n"), "50%25 %C3%BC%0A");
    }
}
