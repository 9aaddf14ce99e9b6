//! The example shop.
//!
//! | service | speaks | does |
//! |---|---|---|
//! | `web` | HTTP/1.1 | `GET /` asks `catalog` for the items and `price` for a quote, through the mesh |
//! | `catalog` | HTTP/1.1 | `GET /items` |
//! | `price` | gRPC | `shop.v1.Price/Quote` |
//!
//! Every answer says in `x-served-by` which copies took part. A copy can be made slow or failing while it runs:
//! `PUT /-/fault?delay=200ms&fail=0.5` (HTTP services, on the application's own address), and whole again with
//! `PUT /-/fault`. The services know nothing of the mesh but one address to send requests to.

mod fault;
pub mod price;
mod web;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};

use fault::Fault;
use veer_load::{Client, Protocol};

/// Header that names the copies that took part in an answer: `service=cluster/workload`, comma-separated.
pub const SERVED_BY: &str = "x-served-by";

/// One service of the shop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// The page.
    Web,
    /// The items.
    Catalog,
    /// The prices.
    Price,
}

impl Service {
    fn name(self) -> &'static str {
        match self {
            Service::Web => "web",
            Service::Catalog => "catalog",
            Service::Price => "price",
        }
    }
}

impl FromStr for Service {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Service::Web, Service::Catalog, Service::Price]
            .into_iter()
            .find(|service| service.name() == text)
            .ok_or_else(|| format!("{text:?} is no service of the shop: say web, catalog or price"))
    }
}

/// How one copy runs.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which service it is.
    pub service: Service,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Its own name in answers, `cluster/workload`.
    pub name: String,
    /// Version in answers, for canaries.
    pub version: String,
    /// Where requests to other services are sent, with the service in `Host`: the proxy beside this copy.
    pub outbound: SocketAddr,
}

/// Serves until the future is dropped.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn run(config: Config) -> std::io::Result<()> {
    let listener = TcpListener::bind(config.listen).await?;
    let copy = Arc::new(Replica {
        fault: Fault::default(),
        catalog: Client::new(config.outbound, Protocol::Http1, MOST_REQUESTS_AT_ONCE),
        price: Client::new(config.outbound, Protocol::Http2, 1),
        config,
    });
    loop {
        // Out of descriptors or a connection gone before it was taken: the next one may do better.
        let Ok((stream, _)) = listener.accept().await else { continue };
        tokio::spawn(serve(stream, Arc::clone(&copy)));
    }
}

/// Of one copy to one other service.
const MOST_REQUESTS_AT_ONCE: usize = 256;

pub(crate) struct Replica {
    config: Config,
    fault: Fault,
    catalog: Client,
    price: Client,
}

impl Replica {
    fn served_by(&self) -> String {
        format!("{}={}", self.config.service.name(), self.config.name)
    }
}

async fn serve(stream: TcpStream, copy: Arc<Replica>) {
    // Without TCP_NODELAY small answers wait for acknowledgements; not fatal.
    let _ = stream.set_nodelay(true);
    let io = TokioIo::new(stream);
    // A connection that ends in an error concerns its client, which sees it too.
    let _ = match copy.config.service {
        Service::Price => {
            let service = service_fn(move |request| price::serve(Arc::clone(&copy), request));
            hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await
        }
        Service::Web | Service::Catalog => {
            let service = service_fn(move |request| answer(Arc::clone(&copy), request));
            hyper::server::conn::http1::Builder::new().serve_connection(io, service).await
        }
    };
}

type Answer = Response<Full<Bytes>>;

async fn answer(copy: Arc<Replica>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    if request.uri().path() == "/-/fault" {
        return Ok(match (request.method(), copy.fault.set(request.uri().query().unwrap_or(""))) {
            (&Method::PUT, Ok(())) => text(StatusCode::OK, "ok\n"),
            (&Method::PUT, Err(why)) => text(StatusCode::BAD_REQUEST, &format!("{why}\n")),
            _ => text(StatusCode::METHOD_NOT_ALLOWED, "use PUT\n"),
        });
    }
    if copy.fault.strike().await {
        let mut failed = text(StatusCode::INTERNAL_SERVER_ERROR, "failing, as asked\n");
        failed.headers_mut().insert(SERVED_BY, header(&copy.served_by()));
        return Ok(failed);
    }
    Ok(match (copy.config.service, request.uri().path()) {
        (Service::Web, "/") => web::page(&copy, request.headers()).await,
        (Service::Catalog, "/items") => items(&copy),
        (_, "/health") => text(StatusCode::OK, "ok\n"),
        _ => text(StatusCode::NOT_FOUND, "no such page\n"),
    })
}

fn items(copy: &Replica) -> Answer {
    let body = serde_json::json!({
        "items": ["anchor", "compass", "rope"],
        "version": copy.config.version,
        "served_by": copy.config.name,
    });
    json(&body, &copy.served_by())
}

fn json(body: &serde_json::Value, served_by: &str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    answer.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    answer.headers_mut().insert(SERVED_BY, header(served_by));
    answer
}

fn text(status: StatusCode, text: &str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *answer.status_mut() = status;
    answer
}

/// Names come from manifests and are plain text; anything else becomes a placeholder rather than an error.
fn header(value: &str) -> http::HeaderValue {
    http::HeaderValue::from_str(value).unwrap_or(http::HeaderValue::from_static("unnamed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use veer_load::Request as Ask;

    async fn start(service: Service, outbound: SocketAddr) -> SocketAddr {
        // Port 0 is taken and let go to learn a free one; the listener is up once it answers.
        let listen = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let name = format!("west/{}-1", service.name());
        tokio::spawn(run(Config { service, listen, name, version: "v1".into(), outbound }));
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
        while TcpStream::connect(listen).await.is_err() {
            assert!(tokio::time::Instant::now() < deadline, "the service did not start");
            tokio::task::yield_now().await;
        }
        listen
    }

    #[tokio::test]
    async fn a_quote_is_real_grpc_and_faults_strike() {
        let price = start(Service::Price, ([127, 0, 0, 1], 9).into()).await;
        let client = Client::new(price, Protocol::Http2, 1);
        let ask =
            Ask::grpc("quote", "price", price::QUOTE, &price::QuoteRequest { item: "rope".into() }.encode_to_vec());
        let answer = client.send(&ask).await.unwrap();
        assert!(answer.ok);
        assert_eq!(price::unframe::<price::QuoteReply>(&answer.body).unwrap().cents, 499);
        assert_eq!(answer.headers[SERVED_BY], "price=west/price-1");

        let mut fault = Ask::get("fault", "price", "/-/fault?fail=1");
        fault.method = Method::PUT;
        client.send(&fault).await.unwrap();
        assert!(!client.send(&ask).await.unwrap().ok, "the call must fail once asked to");
    }

    #[tokio::test]
    async fn the_page_fails_plainly_when_a_service_is_missing() {
        let web = start(Service::Web, ([127, 0, 0, 1], 9).into()).await;
        let answer = Client::new(web, Protocol::Http1, 1).send(&Ask::get("page", "web", "/")).await.unwrap();
        assert_eq!(answer.status, 502);
    }
}
