//! The applications: one that answers, one that asks.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};
use veer_net::{BindOptions, Network};

use crate::hosts::Switches;
use crate::journal::{Journal, What};
use crate::manifests::{APP_PORT, NAMESPACE};

/// Who answered.
const SERVED_BY: &str = "x-served-by";
/// Who asked, as the callee's application was told by its proxy.
const CALLER: &str = "x-caller";
/// What a proxy tells the application about its caller.
const VERIFIED: &str = "x-veer-client-id";
/// What an application needs for an answer.
const WORK: Duration = Duration::from_millis(5);
/// The longest that a caller waits.
const PATIENCE: Duration = Duration::from_secs(15);

/// Answers every request with the name of the host.
pub(crate) async fn serve(host: Rc<str>, switches: Rc<Switches>) -> std::io::Result<()> {
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, APP_PORT));
    let listener = Network::Sim.bind(any, BindOptions::default()).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (host, switches) = (Rc::clone(&host), Rc::clone(&switches));
        let service = service_fn(move |request: Request<Incoming>| {
            let (host, switches) = (Rc::clone(&host), Rc::clone(&switches));
            async move {
                sleep(WORK).await;
                let mut response = Response::new(Full::<Bytes>::default());
                if switches.failing.get() {
                    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                }
                let caller = request.headers().get(VERIFIED).cloned();
                response.headers_mut().extend(caller.map(|caller| (header::HeaderName::from_static(CALLER), caller)));
                response.headers_mut().insert(SERVED_BY, host.parse().expect("names are ASCII"));
                Ok::<_, Infallible>(response)
            }
        });
        spawn_local(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// Sends requests at the rate that the switches say, each on time, whatever became of those before it.
pub(crate) async fn call(host: Rc<str>, switches: Rc<Switches>, service: String, journal: Journal) -> Infallible {
    let authority: Rc<str> = format!("{service}.{NAMESPACE}.svc.clusterset.local").into();
    let mut number = 0;
    loop {
        let Some(pause) = switches.every.get() else {
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        number += 1;
        let (host, authority, journal) = (Rc::clone(&host), Rc::clone(&authority), journal.clone());
        spawn_local(async move {
            let begun = Instant::now();
            let outcome = timeout(PATIENCE, ask(veer_proxy::config::OUTBOUND_PORT, &authority, "/")).await;
            let took = begun.elapsed();
            let outcome = outcome.unwrap_or_else(|_| Err("no answer at all".to_owned()));
            let what = match outcome {
                Ok((parts, _)) if parts.status.is_success() => {
                    let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
                    let text = |name| header(name).unwrap_or("nobody").to_owned();
                    What::Served { number, by: text(SERVED_BY), caller: text(CALLER), took }
                }
                Ok((parts, body)) => {
                    let by = parts.headers.get(SERVED_BY).and_then(|by| by.to_str().ok()).unwrap_or("the proxy");
                    let reason = format!("{} from {by}: {}", parts.status, String::from_utf8_lossy(&body));
                    What::Failed { number, reason, took }
                }
                Err(reason) => What::Failed { number, reason, took },
            };
            journal.note(&host, what);
        });
        sleep(pause).await;
    }
}

/// One `GET` to a port of this host.
pub(crate) async fn ask(port: u16, authority: &str, path: &str) -> Result<(http::response::Parts, Bytes), String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let stream = Network::Sim.connect((Ipv4Addr::LOCALHOST, port).into()).await.map_err(|error| text(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| text(&error))?;
    spawn_local(connection);
    let request = Request::get(path).header(header::HOST, authority).body(Empty::<Bytes>::new());
    let request = request.map_err(|error| text(&error))?;
    let (parts, body) = sender.send_request(request).await.map_err(|error| text(&error))?.into_parts();
    Ok((parts, body.collect().await.map_err(|error| text(&error))?.to_bytes()))
}
