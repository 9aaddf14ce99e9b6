//! The application: copies that answer, keep a book of what they executed, and misbehave when told.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Size of an answer to `/big/ID`, without its first line.
pub const BIG: usize = 256 * 1024;

/// How a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Fine,
    Slow(Duration),
    /// Answers 500 before it does anything.
    Failing,
    /// Takes requests and never answers.
    Silent,
    /// Listens no more, and its connections are closed.
    Down,
}

/// How often each write was executed, by its number, over all copies.
#[derive(Default)]
pub struct Book(Mutex<HashMap<u64, u32>>);

impl Book {
    /// Executions of one write.
    pub fn executions(&self, id: u64) -> u32 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied().unwrap_or(0)
    }

    /// Writes that were executed more than once.
    pub fn repeated(&self) -> Vec<u64> {
        let book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        book.iter().filter(|(_, times)| **times > 1).map(|(id, _)| *id).collect()
    }

    fn enter(&self, id: u64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default() += 1;
    }
}

/// One copy of a service.
pub struct Copy {
    pub service: &'static str,
    /// `cluster/workload`
    pub name: String,
    pub address: SocketAddr,
    pub mood: watch::Sender<Mood>,
    pub book: Arc<Book>,
}

impl Copy {
    /// Serves until dropped. Runs within the copy's network.
    pub async fn run(self: Arc<Self>) {
        let mut mood = self.mood.subscribe();
        loop {
            // The sender lives in `self`.
            let _ = mood.wait_for(|mood| *mood != Mood::Down).await;
            let listener = TcpListener::bind(self.address).await.expect("the copy's address is its own");
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        if let Ok((stream, _)) = accepted {
                            connections.spawn(serve(stream, Arc::clone(&self)));
                        }
                    }
                    Some(_) = connections.join_next() => {}
                    _ = mood.wait_for(|mood| *mood == Mood::Down) => break,
                }
            }
        }
    }
}

async fn serve(stream: TcpStream, copy: Arc<Copy>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| answer(Arc::clone(&copy), request));
    // A connection that ends badly is its client's matter.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(copy: Arc<Copy>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mood = *copy.mood.borrow();
    match mood {
        Mood::Failing => return Ok(text(StatusCode::INTERNAL_SERVER_ERROR, "failing as told\n".to_owned())),
        Mood::Silent => std::future::pending().await,
        Mood::Slow(delay) => tokio::time::sleep(delay).await,
        Mood::Fine | Mood::Down => {}
    }
    let Some((kind, id)) = parse(request.uri().path()) else {
        return Ok(text(StatusCode::NOT_FOUND, "no such path\n".to_owned()));
    };
    let (kind, writes) = (kind.to_owned(), request.method() == Method::POST);
    let Ok(body) = request.into_body().collect().await else {
        return Ok(text(StatusCode::BAD_REQUEST, "the body ended early\n".to_owned()));
    };
    if writes {
        copy.book.enter(id);
    }
    let first = format!("{} {} {id} {}\n", copy.service, copy.name, sum(&body.to_bytes()));
    Ok(text(StatusCode::OK, if kind == "big" { first + &filler(id) } else { first }))
}

/// `/KIND/ID`
fn parse(path: &str) -> Option<(&str, u64)> {
    let (kind, id) = path.strip_prefix('/')?.split_once('/')?;
    Some((kind, id.parse().ok()?))
}

/// The rest of a big answer: as many bytes, and no two answers the same.
pub fn filler(id: u64) -> String {
    let piece = format!("{id:016x}");
    piece.repeat(BIG / piece.len())
}

/// Tells bodies apart.
pub fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(bytes.len() as u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)))
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
}
