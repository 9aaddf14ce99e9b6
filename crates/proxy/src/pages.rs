//! What a process shows of itself: `/metrics`, `/ready`, `/live`, `/dump`, over plain HTTP on an address of the
//! operator's choice.
//!
//! The same for proxies and gateways; [`Pages`] is what differs. It answers reads only and holds no secret.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use veer_identity::{Identity, clock};
use veer_net::{Drain, Listener, Stream};

/// Connections at once; a scraper needs one.
const MAX_CONNECTIONS: usize = 64;
/// How long a head may take.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long a connection may live: scrapers connect again.
const CONNECTION_TIME: Duration = Duration::from_secs(600);

/// What is shown.
pub trait Pages: 'static {
    /// Whether traffic should come here, else why not.
    ///
    /// # Errors
    /// The reason, for people.
    fn ready(&self) -> Result<(), String>;

    /// The exposition of all metrics ([`veer_telemetry::CONTENT_TYPE`]).
    fn metrics(&self) -> String;

    /// What the process knows, for people. Secrets stay out of it.
    fn dump(&self) -> Pin<Box<dyn Future<Output = serde_json::Value> + '_>>;

    /// What would become of the request that the query describes. `None`: this process sends no requests, or the query describes
    /// none.
    fn explain(&self, _query: &str) -> Pin<Box<dyn Future<Output = Option<serde_json::Value>> + '_>> {
        Box::pin(std::future::ready(None))
    }
}

/// Serves until the drain's deadline: a process that drains still says so. Connections are tasks of the surrounding
/// [`tokio::task::LocalSet`].
pub async fn serve(listener: Listener, pages: Rc<dyn Pages>, drain: Drain) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let accepting = async {
        while let Ok((stream, _)) = listener.accept().await {
            // Over the limit the connection is closed: a flood of idle ones must not keep the scraper waiting.
            if let Ok(permit) = Arc::clone(&connections).try_acquire_owned() {
                let pages = Rc::clone(&pages);
                tokio::task::spawn_local(async move {
                    let _ = timeout(CONNECTION_TIME, connection(stream, pages)).await;
                    drop(permit);
                });
            }
        }
    };
    let over = async { tokio::time::sleep_until(drain.started().await).await };
    tokio::select! {
        biased;
        () = accepting => tracing::error!("the admin listener broke"),
        () = over => {}
    }
}

/// The certificate in use, for `/dump`: who, which, and until when (seconds since 1970).
pub fn identity_json(identity: &Identity) -> serde_json::Value {
    let svid = identity.svid();
    serde_json::json!({
        "id": svid.id,
        "serial": svid.chain.first().and_then(|leaf| serial(leaf)),
        "not_after": clock::unix_seconds(svid.not_after),
    })
}

async fn connection(stream: Stream, pages: Rc<dyn Pages>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let pages = Rc::clone(&pages);
        async move { Ok::<_, Infallible>(answer(&request, &*pages).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "an admin connection ended badly");
    }
}

async fn answer(request: &Request<Incoming>, pages: &dyn Pages) -> Response<Full<Bytes>> {
    let text = |status, text: String| reply(status, "text/plain; charset=utf-8", text);
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
    }
    match request.uri().path() {
        "/live" => text(StatusCode::OK, "live\n".to_owned()),
        "/ready" => match pages.ready() {
            Ok(()) => text(StatusCode::OK, "ready\n".to_owned()),
            Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
        },
        "/metrics" => reply(StatusCode::OK, veer_telemetry::CONTENT_TYPE, pages.metrics()),
        "/dump" => {
            let json = serde_json::to_string_pretty(&pages.dump().await).unwrap_or_default();
            reply(StatusCode::OK, "application/json", json + "\n")
        }
        "/explain" => match pages.explain(request.uri().query().unwrap_or_default()).await {
            Some(told) => {
                let json = serde_json::to_string_pretty(&told).unwrap_or_default();
                reply(StatusCode::OK, "application/json", json + "\n")
            }
            None => text(
                StatusCode::BAD_REQUEST,
                "ask with authority=host&target=%2Fpath&method=GET&field=name%3Avalue\n".to_owned(),
            ),
        },
        _ => text(StatusCode::NOT_FOUND, "there are /metrics, /ready, /live, /dump and /explain\n".to_owned()),
    }
}

fn reply(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The serial number of a certificate, hexadecimal: `Certificate > TBSCertificate > [0] version, serialNumber` (RFC
/// 5280 §4.1).
fn serial(certificate: &[u8]) -> Option<String> {
    const SEQUENCE: u8 = 0x30;
    const INTEGER: u8 = 0x02;
    const VERSION: u8 = 0xa0;
    let (kind, certificate, _) = element(certificate)?;
    let (inner_kind, to_be_signed, _) = element(certificate)?;
    let (mut tag, mut value, rest) = element(to_be_signed)?;
    if tag == VERSION {
        (tag, value, _) = element(rest)?;
    }
    let well_formed = (kind, inner_kind, tag) == (SEQUENCE, SEQUENCE, INTEGER);
    // A leading zero only keeps the number positive.
    let value = value.strip_prefix(&[0]).filter(|rest| !rest.is_empty()).unwrap_or(value);
    well_formed.then(|| value.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// One DER element: tag, content, what follows.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (length.iter().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use veer_core::{SpiffeId, TrustDomain};
    use veer_identity::{Ca, KeyRequest, Svid};
    use veer_net::{BindOptions, Network, drain};

    use super::*;

    struct Fixed(Rc<Cell<bool>>);

    impl Pages for Fixed {
        fn ready(&self) -> Result<(), String> {
            if self.0.get() { Ok(()) } else { Err("no configuration yet".to_owned()) }
        }
        fn metrics(&self) -> String {
            "veer_build 1\n# EOF\n".to_owned()
        }
        fn dump(&self) -> Pin<Box<dyn Future<Output = serde_json::Value> + '_>> {
            Box::pin(async { serde_json::json!({ "a": 1 }) })
        }
    }

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = Network::Tcp.connect(address).await.unwrap();
        let head = format!("{request} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[test]
    fn pages_are_served_until_the_deadline() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let listener = Network::Tcp.bind(any, BindOptions::default()).await.unwrap();
            let address = listener.local_addr().unwrap();
            let (trigger, watch) = drain();
            let ready = Rc::new(Cell::new(false));
            let pages = Rc::new(Fixed(Rc::clone(&ready)));
            let serving = tokio::task::spawn_local(serve(listener, pages, watch));

            let answer = ask(address, "GET /ready").await;
            assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("no configuration yet\n"), "{answer}");
            ready.set(true);
            assert!(ask(address, "GET /ready").await.starts_with("HTTP/1.1 200"));
            assert!(ask(address, "GET /live").await.starts_with("HTTP/1.1 200"));
            assert!(ask(address, "GET /metrics").await.contains("veer_build 1"));
            assert!(ask(address, "GET /dump").await.contains("\"a\": 1"));
            assert!(ask(address, "GET /").await.starts_with("HTTP/1.1 404"));
            assert!(ask(address, "POST /dump").await.starts_with("HTTP/1.1 405"));

            trigger.start(Duration::from_millis(50));
            timeout(Duration::from_secs(10), serving).await.unwrap().unwrap();
        });
    }

    #[test]
    fn the_serial_number_is_read_from_the_certificate() {
        let now = clock::now();
        let domain = TrustDomain::new("west.example").unwrap();
        let ca = Ca::create(&domain, now).unwrap();
        let request = KeyRequest::new().unwrap();
        let id = SpiffeId::new(domain, "shop", "web");
        let chain = ca.sign(&request.csr_der, &id, Duration::from_secs(60), now).unwrap();
        let svid = Svid::from_chain(request.key, chain).unwrap();
        let shown = identity_json(&Identity::new(svid, [ca.bundle()]).unwrap());
        let number = shown["serial"].as_str().unwrap();
        assert!(number.len() >= 8 && number.bytes().all(|b| b.is_ascii_hexdigit()), "{shown}");
        for cut in 0..5 {
            assert_eq!(serial(&[0x30, 0x82, 1, 2, 0x30][..cut]), None);
        }
    }
}
