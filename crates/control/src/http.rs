//! HTTP for the API: small answers to small requests, on connections that cannot hold anything up.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::api::ApiError;

/// Longest request body.
const MAX_BODY: usize = 64 * 1024;
/// Time for a request's head and for its body.
const READ_LIMIT: Duration = Duration::from_secs(10);

/// A request, as far as the API looks at it.
#[derive(Debug, Clone)]
pub struct ApiRequest {
    /// Method.
    pub method: Method,
    /// Path, without query.
    pub path: String,
    /// Query, without `?`.
    pub query: String,
    /// Body.
    pub body: Bytes,
}

impl ApiRequest {
    /// A `GET` of path and query.
    pub fn get(target: &str) -> Self {
        Self::new(Method::GET, target, Bytes::new())
    }

    /// A `POST` with a JSON body.
    pub fn post(target: &str, body: &impl Serialize) -> Self {
        Self::new(Method::POST, target, serde_json::to_vec(body).unwrap_or_default().into())
    }

    fn new(method: Method, target: &str, body: Bytes) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Self { method, path: path.to_owned(), query: query.to_owned(), body }
    }

    /// The value of a query parameter. Hosts and names need no escaping; what is escaped is not found.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct ApiResponse {
    /// Status.
    pub status: StatusCode,
    /// Media type.
    pub content_type: &'static str,
    /// Body.
    pub body: Bytes,
}

impl ApiResponse {
    /// 200 with JSON.
    pub fn json(value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self { status: StatusCode::OK, content_type: "application/json", body: body.into() },
            Err(error) => Self::error(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    /// Text with a status.
    pub fn text(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: text.into().into() }
    }

    /// An error with what would be accepted.
    pub fn error(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, ..Self::json(&ApiError { error: error.into() }) }
    }
}

/// Serves one connection until it closes.
pub(crate) async fn serve_connection(
    io: impl AsyncRead + AsyncWrite + Unpin,
    answer: impl Fn(ApiRequest) -> ApiResponse,
) -> Result<(), hyper::Error> {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = &answer;
        async move { Ok::<_, std::convert::Infallible>(one(request, answer).await) }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ_LIMIT)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(io), service)
        .await
}

async fn one(request: Request<Incoming>, answer: &impl Fn(ApiRequest) -> ApiResponse) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let response = match tokio::time::timeout(READ_LIMIT, read(body)).await {
        Ok(Ok(body)) => answer(ApiRequest {
            method: head.method,
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            body: body.into(),
        }),
        Ok(Err(refused)) => refused,
        Err(_) => ApiResponse::error(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"),
    };
    let mut built = Response::new(Full::new(response.body));
    *built.status_mut() = response.status;
    built.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(response.content_type));
    built
}

/// Reads a body. One that is too large is read to its end within reason: an answer to a client that is still sending would be lost
/// with the connection's reset.
async fn read(mut body: Incoming) -> Result<Vec<u8>, ApiResponse> {
    const PATIENCE: usize = 16 * MAX_BODY;
    let (mut kept, mut total) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| ApiResponse::error(StatusCode::BAD_REQUEST, "the body ended early"))?;
        let Ok(data) = frame.into_data() else { continue };
        total += data.len();
        if total <= MAX_BODY {
            kept.extend_from_slice(&data);
        } else if total > PATIENCE {
            break;
        }
    }
    if total > MAX_BODY {
        return Err(ApiResponse::error(StatusCode::PAYLOAD_TOO_LARGE, format!("a body has at most {MAX_BODY} bytes")));
    }
    Ok(kept)
}
