//! The cases, over one connection.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codec::CompressionEncoding;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, IntoStreamingRequest as _, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::messages::{
    EchoStatus, Empty, Payload, ResponseParameters, SimpleRequest, SimpleResponse, StreamingInputCallRequest,
    StreamingInputCallResponse, StreamingOutputCallRequest, StreamingOutputCallResponse, size,
};
use crate::{INITIAL, TRAILING};

/// For calls that are to succeed.
const LONG: Duration = Duration::from_secs(20);
const REQUESTS: [i32; 4] = [27182, 8, 1828, 45904];
const ANSWERS: [i32; 4] = [31415, 9, 2653, 58979];
const VALUE: &str = "test_initial_metadata_value";
const BINARY: &[u8] = &[0xab, 0xab, 0xab];

type Ended = anyhow::Result<()>;

/// Runs all cases and prints what came of each.
pub async fn run(address: SocketAddr, authority: &str) -> Ended {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (send, connection) = builder.handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let client = Client { channel: Channel(send), origin: format!("http://{authority}").parse()? };
    told("empty_unary", client.empty_unary().await);
    told("large_unary", client.large_unary(false).await);
    told("compressed_unary", client.large_unary(true).await);
    told("client_streaming", client.client_streaming().await);
    told("server_streaming", client.server_streaming().await);
    told("ping_pong", client.ping_pong().await);
    told("empty_stream", client.empty_stream().await);
    told("timeout_on_sleeping_server", client.timeout_on_sleeping_server().await);
    told("cancel_after_begin", client.cancel_after_begin().await);
    told("cancel_after_first_response", client.cancel_after_first_response().await);
    told("custom_metadata", client.custom_metadata().await);
    told("status_code_and_message", client.echoed_status("test status message").await);
    let special = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n";
    told("special_status_message", client.echoed_status(special).await);
    told("unimplemented_method", client.unimplemented("/grpc.testing.TestService/UnimplementedCall").await);
    told("unimplemented_service", client.unimplemented("/grpc.testing.UnimplementedService/UnimplementedCall").await);
    Ok(())
}

fn told(case: &str, outcome: Ended) {
    match outcome {
        Ok(()) => println!("{case} pass"),
        Err(why) => println!("{case} FAIL {}", format!("{why:#}").replace('\n', " ")),
    }
}

/// One connection.
#[derive(Clone)]
struct Channel(SendRequest<Body>);

impl tonic::codegen::Service<http::Request<Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

struct Client {
    channel: Channel,
    origin: http::Uri,
}

/// `FullDuplexCall`, a message at a time.
struct Duplex {
    requests: mpsc::Sender<StreamingOutputCallRequest>,
    answers: Streaming<StreamingOutputCallResponse>,
    metadata: MetadataMap,
}

impl Duplex {
    async fn send(&self, request: StreamingOutputCallRequest) -> Ended {
        self.requests.send(request).await.context("the call has ended")
    }

    async fn size(&mut self) -> anyhow::Result<i32> {
        let answer = self.answers.message().await?.context("no more answers")?;
        Ok(size(answer.payload.as_ref()))
    }

    /// Ends the requests; there must be no more answers. All metadata of the call.
    async fn end(mut self) -> anyhow::Result<MetadataMap> {
        drop(self.requests);
        ensure!(self.answers.message().await?.is_none(), "one answer too many");
        let trailers = self.answers.trailers().await?.unwrap_or_default();
        let mut all = self.metadata.into_headers();
        all.extend(trailers.into_headers());
        Ok(MetadataMap::from_headers(all))
    }
}

impl Client {
    async fn grpc(&self) -> anyhow::Result<Grpc<Channel>> {
        let mut grpc = Grpc::with_origin(self.channel.clone(), self.origin.clone());
        grpc.ready().await?;
        Ok(grpc)
    }

    async fn unary<In, Out>(&self, path: &'static str, request: Request<In>) -> anyhow::Result<Response<Out>>
    where
        In: prost::Message + 'static,
        Out: prost::Message + Default + 'static,
    {
        let path = PathAndQuery::from_static(path);
        Ok(self.grpc().await?.unary(request, path, ProstCodec::default()).await?)
    }

    async fn empty_unary(&self) -> Ended {
        let answer: Response<Empty> = self.unary("/grpc.testing.TestService/EmptyCall", long(Empty {})).await?;
        ensure!(answer.into_inner() == Empty {}, "not empty");
        Ok(())
    }

    async fn large(&self, compressed: bool, metadata: MetadataMap) -> anyhow::Result<MetadataMap> {
        let mut request =
            long(SimpleRequest { response_size: 314159, payload: Payload::of(271828), response_status: None });
        request.metadata_mut().clone_from(&with_timeout(metadata));
        let mut grpc = self.grpc().await?;
        if compressed {
            grpc = grpc.send_compressed(CompressionEncoding::Gzip).accept_compressed(CompressionEncoding::Gzip);
        }
        let path = PathAndQuery::from_static("/grpc.testing.TestService/UnaryCall");
        let codec = ProstCodec::<SimpleRequest, SimpleResponse>::default();
        let (metadata, answer, _) = grpc.unary(request, path, codec).await?.into_parts();
        ensure!(size(answer.payload.as_ref()) == 314159, "{} bytes", size(answer.payload.as_ref()));
        Ok(metadata)
    }

    async fn large_unary(&self, compressed: bool) -> Ended {
        self.large(compressed, MetadataMap::new()).await.map(drop)
    }

    async fn client_streaming(&self) -> Ended {
        let requests = REQUESTS.map(|size| StreamingInputCallRequest { payload: Payload::of(size) });
        let request = tokio_stream::iter(requests).into_streaming_request();
        let path = PathAndQuery::from_static("/grpc.testing.TestService/StreamingInputCall");
        let codec = ProstCodec::<_, StreamingInputCallResponse>::default();
        let answer = self.grpc().await?.client_streaming(request, path, codec).await?.into_inner();
        ensure!(answer.aggregated_payload_size == REQUESTS.iter().sum::<i32>(), "{answer:?}");
        Ok(())
    }

    async fn server_streaming(&self) -> Ended {
        let path = PathAndQuery::from_static("/grpc.testing.TestService/StreamingOutputCall");
        let codec = ProstCodec::<_, StreamingOutputCallResponse>::default();
        let request = long(streamed(&ANSWERS, 0));
        let mut answers = self.grpc().await?.server_streaming(request, path, codec).await?.into_inner();
        let mut sizes = Vec::new();
        while let Some(answer) = answers.message().await? {
            sizes.push(size(answer.payload.as_ref()));
        }
        ensure!(sizes == ANSWERS, "{sizes:?}");
        Ok(())
    }

    async fn ping_pong(&self) -> Ended {
        let mut duplex = None;
        for (request, answer) in REQUESTS.into_iter().zip(ANSWERS) {
            let message = streamed(&[answer], request);
            // The head of the answer may wait for the first request.
            let duplex = match &mut duplex {
                Some(duplex) => duplex,
                None => duplex.insert(self.duplex_with(message.clone(), MetadataMap::new()).await?),
            };
            if answer != ANSWERS[0] {
                duplex.send(message).await?;
            }
            let size = duplex.size().await?;
            ensure!(size == answer, "{size} bytes");
        }
        duplex.context("no call")?.end().await.map(drop)
    }

    /// A duplex call with its first request under way.
    async fn duplex_with(&self, first: StreamingOutputCallRequest, metadata: MetadataMap) -> anyhow::Result<Duplex> {
        let (requests, stream) = mpsc::channel(1);
        requests.send(first).await?;
        let mut request = ReceiverStream::new(stream).into_streaming_request();
        *request.metadata_mut() = metadata;
        let path = PathAndQuery::from_static("/grpc.testing.TestService/FullDuplexCall");
        let response = self.grpc().await?.streaming(request, path, ProstCodec::default()).await?;
        let (metadata, answers, _) = response.into_parts();
        Ok(Duplex { requests, answers, metadata })
    }

    async fn empty_stream(&self) -> Ended {
        let path = PathAndQuery::from_static("/grpc.testing.TestService/FullDuplexCall");
        let codec = ProstCodec::<StreamingOutputCallRequest, StreamingOutputCallResponse>::default();
        let request = tokio_stream::empty().into_streaming_request();
        let mut answers = self.grpc().await?.streaming(request, path, codec).await?.into_inner();
        ensure!(answers.message().await?.is_none(), "an answer to nothing");
        Ok(())
    }

    async fn timeout_on_sleeping_server(&self) -> Ended {
        let deadline = Duration::from_millis(1);
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", MetadataValue::from_static("1m"));
        let call = async {
            let mut duplex = self.duplex_with(streamed(&[], 27182), metadata).await?;
            duplex.size().await
        };
        match tokio::time::timeout(deadline, call).await {
            // As tonic's own transport says it.
            Err(_) => Ok(()),
            Ok(outcome) => failed_with(outcome, Code::DeadlineExceeded, None),
        }
    }

    async fn cancel_after_begin(&self) -> Ended {
        let (requests, stream) = mpsc::channel::<StreamingInputCallRequest>(1);
        let request = ReceiverStream::new(stream).into_streaming_request();
        let path = PathAndQuery::from_static("/grpc.testing.TestService/StreamingInputCall");
        let codec = ProstCodec::<_, StreamingInputCallResponse>::default();
        let mut grpc = self.grpc().await?;
        let call = grpc.client_streaming(request, path, codec);
        // In tonic a call is cancelled by letting it go.
        let cancelled = tokio::time::timeout(Duration::from_millis(20), call).await;
        ensure!(cancelled.is_err(), "it ended by itself");
        drop(requests);
        self.empty_unary().await.context("the connection goes on")
    }

    async fn cancel_after_first_response(&self) -> Ended {
        let mut duplex = self.duplex_with(streamed(&[31415], 27182), MetadataMap::new()).await?;
        let size = duplex.size().await?;
        ensure!(size == 31415, "{size} bytes");
        drop(duplex);
        self.empty_unary().await.context("the connection goes on")
    }

    async fn custom_metadata(&self) -> Ended {
        let mut metadata = MetadataMap::new();
        metadata.insert(INITIAL, MetadataValue::from_static(VALUE));
        metadata.insert_bin(TRAILING, MetadataValue::from_bytes(BINARY));
        let unary = self.large(false, metadata.clone()).await?;
        let mut duplex = self.duplex_with(streamed(&[314159], 271828), metadata).await?;
        ensure!(duplex.size().await? == 314159, "another size");
        for answered in [unary, duplex.end().await?] {
            let initial = answered.get(INITIAL).and_then(|value| value.to_str().ok());
            let trailing = answered.get_bin(TRAILING).and_then(|value| value.to_bytes().ok());
            ensure!(initial == Some(VALUE), "initial {initial:?}");
            ensure!(trailing.as_deref() == Some(BINARY), "trailing {trailing:?}");
        }
        Ok(())
    }

    async fn echoed_status(&self, message: &str) -> Ended {
        let status = Some(EchoStatus { code: Code::Unknown as i32, message: message.to_owned() });
        let request = long(SimpleRequest { response_status: status.clone(), ..SimpleRequest::default() });
        let unary = self.unary::<_, SimpleResponse>("/grpc.testing.TestService/UnaryCall", request).await;
        failed_with(unary, Code::Unknown, Some(message))?;
        let asking = StreamingOutputCallRequest { response_status: status, ..StreamingOutputCallRequest::default() };
        let call = async { self.duplex_with(asking, MetadataMap::new()).await?.size().await };
        failed_with(call.await, Code::Unknown, Some(message))
    }

    async fn unimplemented(&self, path: &'static str) -> Ended {
        failed_with(self.unary::<_, Empty>(path, long(Empty {})).await, Code::Unimplemented, None)
    }
}

fn long<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(LONG);
    request
}

fn with_timeout(metadata: MetadataMap) -> MetadataMap {
    let mut request = Request::new(());
    *request.metadata_mut() = metadata;
    request.set_timeout(LONG);
    request.metadata().clone()
}

fn streamed(sizes: &[i32], request_size: i32) -> StreamingOutputCallRequest {
    let wanted = sizes.iter().map(|size| ResponseParameters { size: *size, interval_us: 0 });
    StreamingOutputCallRequest {
        response_parameters: wanted.collect(),
        payload: Payload::of(request_size),
        response_status: None,
    }
}

fn failed_with<T>(outcome: anyhow::Result<T>, code: Code, message: Option<&str>) -> Ended {
    let Err(error) = outcome else { anyhow::bail!("no failure") };
    let status = error.downcast::<Status>()?;
    ensure!(status.code() == code, "{status:?}");
    ensure!(message.is_none_or(|message| status.message() == message), "{:?}", status.message());
    Ok(())
}
