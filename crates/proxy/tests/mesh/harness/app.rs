//! Applications: HTTP/1.1 and HTTP/2 on one port, answered by a closure.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use veer_net::Prefixed;
use veer_proxy::detect::{Protocol, detect};
use veer_proxy::exec::LocalExec;

use super::{APP_PORT, Workload};

pub type Body = UnsyncBoxBody<Bytes, Infallible>;
type Answering = Pin<Box<dyn Future<Output = Response<Body>>>>;
type Handler = Rc<dyn Fn(Request<Incoming>) -> Answering>;

/// An application.
pub struct App {
    handler: Handler,
    /// Heads of the requests that came, without bodies.
    pub seen: RefCell<Vec<Request<()>>>,
    /// Cuts connections instead of answering, so many times.
    pub cuts: Cell<u32>,
    tasks: RefCell<JoinSet<()>>,
}

impl App {
    /// Answers with the closure.
    pub fn new<F: Future<Output = Response<Body>> + 'static>(
        handler: impl Fn(Request<Incoming>) -> F + 'static,
    ) -> Self {
        Self {
            handler: Rc::new(move |request| Box::pin(handler(request))),
            seen: RefCell::default(),
            cuts: Cell::new(0),
            tasks: RefCell::default(),
        }
    }

    /// Answers with a text.
    pub fn text(text: &'static str) -> Self {
        Self::new(move |_| async move { answer(text) })
    }

    /// Answers with the request's method, path and body.
    pub fn echo() -> Self {
        Self::new(|request| async move {
            let head = format!("{} {} ", request.method(), request.uri().path());
            let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            answer([head.as_bytes(), &body].concat())
        })
    }

    /// Listens beside the workload's proxy.
    pub async fn listen(self, workload: &Workload) -> Rc<Self> {
        self.listen_at(SocketAddr::new(workload.address, APP_PORT)).await
    }

    pub async fn listen_at(self, address: SocketAddr) -> Rc<Self> {
        let listener = TcpListener::bind(address).await.unwrap();
        let app = Rc::new(self);
        let serving = Rc::clone(&app);
        app.tasks.borrow_mut().spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let app = Rc::clone(&serving);
                serving.tasks.borrow_mut().spawn_local(app.serve(stream));
            }
        });
        app
    }

    /// Ends: the listener and all connections.
    pub fn kill(&self) {
        self.tasks.borrow_mut().abort_all();
    }

    /// How many requests came.
    pub fn count(&self) -> usize {
        self.seen.borrow().len()
    }

    async fn serve(self: Rc<Self>, stream: TcpStream) {
        let mut stream = Prefixed::new(stream);
        let cut = Rc::new(tokio::sync::Notify::new());
        let (app, cutting) = (Rc::clone(&self), Rc::clone(&cut));
        let service = service_fn(move |request: Request<Incoming>| {
            let (app, cutting) = (Rc::clone(&app), Rc::clone(&cutting));
            async move {
                let (head, body) = request.into_parts();
                app.seen.borrow_mut().push(Request::from_parts(head.clone(), ()));
                if let Some(left) = app.cuts.get().checked_sub(1) {
                    app.cuts.set(left);
                    cutting.notify_one();
                    std::future::pending::<()>().await;
                }
                Ok::<_, Infallible>((app.handler)(Request::from_parts(head, body)).await)
            }
        });
        let Ok(protocol) = detect(&mut stream, super::PATIENCE).await else { return };
        let serving: Pin<Box<dyn Future<Output = ()>>> = if protocol == Protocol::Http2 {
            let connection = http2::Builder::new(LocalExec).serve_connection(TokioIo::new(stream), service);
            Box::pin(async move { drop(connection.await) })
        } else {
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
            Box::pin(async move { drop(connection.await) })
        };
        tokio::select! {
            () = serving => {}
            () = cut.notified() => {}
        }
    }
}

/// A whole answer.
pub fn answer(body: impl AsRef<[u8]>) -> Response<Body> {
    Response::new(full(body))
}

pub fn full(body: impl AsRef<[u8]>) -> Body {
    Full::new(Bytes::copy_from_slice(body.as_ref())).boxed_unsync()
}
