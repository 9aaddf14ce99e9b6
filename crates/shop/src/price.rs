//! `shop.v1.Price/Quote`: unary gRPC in its plainest form, a five-byte prefix before each message.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use prost::Message;

use crate::{Replica, SERVED_BY, header};

/// Path of the method.
pub const QUOTE: &str = "/shop.v1.Price/Quote";

/// Asks for the price of an item.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct QuoteRequest {
    /// Name of the item.
    #[prost(string, tag = "1")]
    pub item: String,
}

/// The price of an item.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct QuoteReply {
    /// Price in cents.
    #[prost(uint64, tag = "1")]
    pub cents: u64,
    /// `cluster/workload` of the copy that answered.
    #[prost(string, tag = "2")]
    pub served_by: String,
}

/// A message with its prefix.
pub(crate) fn frame(message: &impl Message) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.encoded_len());
    frame.put_u8(0);
    // A quote is a few bytes.
    frame.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
    // The buffer grows as needed, so that encoding cannot fail.
    let _ = message.encode(&mut frame);
    frame.freeze()
}

/// The one message of a unary body.
pub(crate) fn unframe<M: Message + Default>(body: &[u8]) -> Option<M> {
    let length = u32::from_be_bytes(body.get(1..5)?.try_into().ok()?) as usize;
    (body[0] == 0).then(|| M::decode(body.get(5..5 + length)?).ok())?
}

pub(crate) async fn serve(
    copy: Arc<Replica>,
    request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    if request.uri().path() == "/-/fault" {
        let outcome = copy.fault.set(request.uri().query().unwrap_or(""));
        let (status, text) = outcome.map_or_else(|why| (400, why), |()| (200, "ok".to_owned()));
        let mut answer = Response::new(Full::new(Bytes::from(text + "\n")).boxed());
        *answer.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
        return Ok(answer);
    }
    let failed = copy.fault.strike().await;
    let known = request.uri().path() == QUOTE;
    let body = request.into_body().collect().await.map(|body| body.to_bytes());
    let asked: Option<QuoteRequest> = body.ok().and_then(|body| unframe(&body));
    let (status, message) = match asked {
        _ if failed => ("2", Bytes::new()),
        _ if !known => ("12", Bytes::new()),
        None => ("3", Bytes::new()),
        Some(asked) => {
            let cents = 100 * asked.item.len() as u64 + 99;
            ("0", frame(&QuoteReply { cents, served_by: copy.config.name.clone() }))
        }
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    let body = Full::new(message).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut answer = Response::new(body.boxed());
    answer.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    answer.headers_mut().insert(SERVED_BY, header(&copy.served_by()));
    Ok(answer)
}
