//! `grpc.testing.TestService`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use http::HeaderValue;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::server::{ClientStreamingService, Grpc, ServerStreamingService, StreamingService, UnaryService};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::messages::{
    EchoStatus, Empty, Payload, SimpleRequest, SimpleResponse, StreamingInputCallRequest, StreamingInputCallResponse,
    StreamingOutputCallRequest, StreamingOutputCallResponse, size,
};
use crate::{INITIAL, TRAILING, gzip};

/// Serves until it is killed.
pub async fn serve(address: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = hyper::service::service_fn(|request| async { Ok::<_, Infallible>(echoing(request).await) });
        // How a connection ends is its client's matter.
        tokio::spawn(
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service),
        );
    }
}

/// The answer, with the metadata that is to be echoed: trailers of an answer that succeeds are not tonic's to set.
async fn echoing(request: http::Request<Incoming>) -> http::Response<Body> {
    let (initial, trailing) = (request.headers().get(INITIAL).cloned(), request.headers().get(TRAILING).cloned());
    let mut response = answer(request).await;
    if let Some(value) = initial {
        response.headers_mut().insert(INITIAL, value);
    }
    match trailing {
        Some(value) => response.map(|body| with_trailer(body, value)),
        None => response,
    }
}

fn with_trailer(body: Body, value: HeaderValue) -> Body {
    Body::new(body.map_frame(move |frame| match frame.into_trailers() {
        Ok(mut trailers) => {
            trailers.insert(TRAILING, value.clone());
            hyper::body::Frame::trailers(trailers)
        }
        Err(data) => data,
    }))
}

async fn answer(request: http::Request<Incoming>) -> http::Response<Body> {
    match request.uri().path() {
        "/grpc.testing.TestService/EmptyCall" => grpc().unary(Call(empty), request).await,
        "/grpc.testing.TestService/UnaryCall" => grpc().unary(Call(unary), request).await,
        "/grpc.testing.TestService/StreamingOutputCall" => grpc().server_streaming(Call(output), request).await,
        "/grpc.testing.TestService/StreamingInputCall" => grpc().client_streaming(Call(input), request).await,
        "/grpc.testing.TestService/FullDuplexCall" => grpc().streaming(Call(duplex), request).await,
        _ => Status::unimplemented("no such method").into_http(),
    }
}

fn grpc<In, Out>() -> Grpc<ProstCodec<Out, In>>
where
    In: prost::Message + Default + 'static,
    Out: prost::Message + 'static,
{
    Grpc::new(ProstCodec::default()).apply_compression_config(gzip(), gzip())
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A method, as a function.
struct Call<F>(F);

impl<M1, M2, F: FnMut(Request<M1>) -> Answer<M2>> UnaryService<M1> for Call<F> {
    type Response = M2;
    type Future = Answer<M2>;

    fn call(&mut self, request: Request<M1>) -> Self::Future {
        (self.0)(request)
    }
}

impl<M1, M2, F: FnMut(Request<M1>) -> Answer<Answers<M2>>> ServerStreamingService<M1> for Call<F> {
    type Response = M2;
    type ResponseStream = Answers<M2>;
    type Future = Answer<Answers<M2>>;

    fn call(&mut self, request: Request<M1>) -> Self::Future {
        (self.0)(request)
    }
}

impl<M1, M2, F: FnMut(Request<Streaming<M1>>) -> Answer<M2>> ClientStreamingService<M1> for Call<F> {
    type Response = M2;
    type Future = Answer<M2>;

    fn call(&mut self, request: Request<Streaming<M1>>) -> Self::Future {
        (self.0)(request)
    }
}

impl<M1, M2, F: FnMut(Request<Streaming<M1>>) -> Answer<Answers<M2>>> StreamingService<M1> for Call<F> {
    type Response = M2;
    type ResponseStream = Answers<M2>;
    type Future = Answer<Answers<M2>>;

    fn call(&mut self, request: Request<Streaming<M1>>) -> Self::Future {
        (self.0)(request)
    }
}

fn asked_status(asked: Option<&EchoStatus>) -> Result<(), Status> {
    match asked {
        Some(EchoStatus { code, message }) if *code != 0 => Err(Status::new(Code::from_i32(*code), message.clone())),
        _ => Ok(()),
    }
}

fn empty(_: Request<Empty>) -> Answer<Empty> {
    Box::pin(async { Ok(Response::new(Empty {})) })
}

fn unary(request: Request<SimpleRequest>) -> Answer<SimpleResponse> {
    Box::pin(async {
        let request = request.into_inner();
        asked_status(request.response_status.as_ref())?;
        Ok(Response::new(SimpleResponse { payload: Payload::of(request.response_size) }))
    })
}

fn input(request: Request<Streaming<StreamingInputCallRequest>>) -> Answer<StreamingInputCallResponse> {
    Box::pin(async {
        let mut requests = request.into_inner();
        let mut aggregated_payload_size = 0;
        while let Some(request) = requests.message().await? {
            aggregated_payload_size += size(request.payload.as_ref());
        }
        Ok(Response::new(StreamingInputCallResponse { aggregated_payload_size }))
    })
}

type Output = Answers<StreamingOutputCallResponse>;
type Sender = mpsc::Sender<Result<StreamingOutputCallResponse, Status>>;

fn output(request: Request<StreamingOutputCallRequest>) -> Answer<Output> {
    let (answers, stream) = mpsc::channel(4);
    tokio::spawn(async move { send(&request.into_inner(), &answers).await });
    Box::pin(async { Ok(Response::new(Box::pin(ReceiverStream::new(stream)) as Output)) })
}

fn duplex(request: Request<Streaming<StreamingOutputCallRequest>>) -> Answer<Output> {
    let (answers, stream) = mpsc::channel(4);
    tokio::spawn(async move {
        let mut requests = request.into_inner();
        // A client that is gone needs no answer.
        while let Ok(Some(request)) = requests.message().await {
            if let Err(status) = asked_status(request.response_status.as_ref()) {
                let _ = answers.send(Err(status)).await;
                return;
            }
            send(&request, &answers).await;
        }
    });
    Box::pin(async { Ok(Response::new(Box::pin(ReceiverStream::new(stream)) as Output)) })
}

async fn send(request: &StreamingOutputCallRequest, answers: &Sender) {
    for wanted in &request.response_parameters {
        tokio::time::sleep(Duration::from_micros(u64::try_from(wanted.interval_us).unwrap_or(0))).await;
        if answers.send(Ok(StreamingOutputCallResponse { payload: Payload::of(wanted.size) })).await.is_err() {
            return;
        }
    }
}
