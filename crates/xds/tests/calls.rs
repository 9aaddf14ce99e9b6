//! The calls beside the stream, and hostile bytes.

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{Fake, Line, Thing, local, node, somebody};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::spawn_local;
use veer_core::Known;
use veer_xds::agent::{Agents, Report};
use veer_xds::enroll::{Enroll, Enrolled, Join, Renew};
use veer_xds::lease::{LeaseAsk, LeaseGrant, Leases};
use veer_xds::{
    Channel, Code, KeepAlive, LocalFuture, Services, SessionOptions, Source, Status, Subscriber, serve_connection,
};

struct Hooks;

impl Enroll for Hooks {
    fn join(&self, request: Join) -> LocalFuture<'_, Result<Enrolled, Status>> {
        Box::pin(async move {
            if request.secret != "sesame" {
                return Err(Status::permission_denied("no such join token"));
            }
            Ok(enrolled(&request.csr_der))
        })
    }

    fn renew<'a>(&'a self, who: &'a Subscriber, request: Renew) -> LocalFuture<'a, Result<Enrolled, Status>> {
        Box::pin(async move {
            assert_eq!(*who, somebody());
            Ok(enrolled(&request.csr_der))
        })
    }
}

fn enrolled(csr: &[u8]) -> Enrolled {
    let bundles =
        vec![veer_core::inbound::TrustBundle { trust_domain: somebody().id.trust_domain, roots_pem: "PEM".into() }];
    Enrolled { chain_der: vec![csr.to_vec(), vec![9]], bundles, id: somebody().id, ttl: Duration::from_secs(60) }
}

impl Leases for Hooks {
    fn lease<'a>(&'a self, _: &'a Subscriber, ask: &'a LeaseAsk) -> LocalFuture<'a, Result<LeaseGrant, Status>> {
        Box::pin(async move { Ok(LeaseGrant { generation: 7, incarnation: format!("for {}", ask.consumer_cluster) }) })
    }
}

impl Agents for Hooks {
    fn report(&self, _: &Subscriber, report: Report) -> Result<(), Status> {
        if report.generation == 3 { Ok(()) } else { Err(Status::failed_precondition("another generation")) }
    }
}

fn services() -> Services {
    let source: Arc<dyn Source> = Fake::ready();
    let hooks = Arc::new(Hooks);
    Services {
        enroll: Some(hooks.clone()),
        leases: Some(hooks.clone()),
        agents: Some(hooks),
        ..Services::new("west/1", source)
    }
}

async fn channel(line: &Line) -> Channel {
    Channel::connect(line.dial().unwrap(), KeepAlive::default()).await.unwrap()
}

fn join(secret: &str) -> Join {
    Join { secret: secret.into(), csr_der: vec![1, 2], workload: "shop/web-1".into(), cluster: "west".into() }
}

#[test]
fn joining_takes_the_secret_and_nothing_else() {
    local(async {
        let line = Line::with(services(), None);
        let channel = channel(&line).await;
        let refused = veer_xds::enroll::join(&channel, join("")).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        let joined = veer_xds::enroll::join(&channel, join("sesame")).await.unwrap();
        assert_eq!(joined, enrolled(&[1, 2]));
        assert!(!format!("{:?}", join("sesame")).contains("sesame"), "secrets stay out of logs");
    });
}

#[test]
fn without_an_identity_one_may_only_join() {
    local(async {
        let line = Line::with(services(), None);
        let channel = channel(&line).await;
        let renew = Renew { csr_der: vec![], workload: String::new() };
        assert_eq!(veer_xds::enroll::renew(&channel, renew).await.unwrap_err().code(), Code::Unauthenticated);
        let ask = LeaseAsk { consumer_cluster: "east".into(), version: "1".into() };
        assert_eq!(veer_xds::lease::ask(&channel, 1, &ask).await.unwrap_err().code(), Code::Unauthenticated);
        assert_eq!(
            veer_xds::agent::report(&channel, &Report::default()).await.unwrap_err().code(),
            Code::Unauthenticated
        );
        assert_eq!(line.services.stats.unauthenticated.load(Ordering::Relaxed), 3);

        let client = line.client(SessionOptions::default());
        let thing = client.subscribe::<Thing>("cart");
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(thing.borrow(), Known::Unknown);
        assert!(client.status().last_error.is_some_and(|error| error.contains("Unauthenticated")));
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert!(channel.is_closed(), "nobody without an identity may stay");
    });
}

#[test]
fn calls_share_the_sessions_connection() {
    local(async {
        let line = Line::with(services(), Some(somebody()));
        let client = line.client(SessionOptions::default());
        common::synced(&client).await;
        let channel = client.channel().unwrap();
        let renew = Renew { csr_der: vec![5], workload: "shop/web-1".into() };
        assert_eq!(veer_xds::enroll::renew(&channel, renew).await.unwrap(), enrolled(&[5]));
        let ask = LeaseAsk { consumer_cluster: "east".into(), version: "1".into() };
        let grant = veer_xds::lease::ask(&channel, u64::MAX, &ask).await.unwrap();
        assert_eq!(grant, LeaseGrant { generation: 7, incarnation: "for east".into() });
        let mut report = Report { generation: 3, node: node().id, ..Report::default() };
        veer_xds::agent::report(&channel, &report).await.unwrap();
        report.generation = 4;
        let refused = veer_xds::agent::report(&channel, &report).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert_eq!(line.open.borrow().len(), 1, "one connection");
    });
}

#[test]
fn what_is_not_offered_is_unimplemented() {
    local(async {
        let line = Line::to(&Fake::ready());
        let channel = channel(&line).await;
        assert_eq!(veer_xds::enroll::join(&channel, join("x")).await.unwrap_err().code(), Code::Unimplemented);
    });
}

const ADS: &str = "http://x/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

type Sender = hyper::client::conn::http2::SendRequest<Full<bytes::Bytes>>;

async fn post(sender: &mut Sender, body: Vec<u8>) -> Option<String> {
    let request = http::Request::post(ADS)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::from(body))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let head = response.headers().get("grpc-status").cloned();
    let trailers = response.into_body().collect().await.unwrap().trailers().cloned().unwrap_or_default();
    head.or_else(|| trailers.get("grpc-status").cloned()).map(|status| status.to_str().unwrap().to_owned())
}

#[derive(Clone)]
struct Exec;
impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for Exec {
    fn execute(&self, task: F) {
        spawn_local(task);
    }
}

#[test]
fn a_malformed_message_ends_its_stream_and_no_other() {
    local(async {
        let line = Line::with(services(), Some(somebody()));
        let io = TokioIo::new(line.dial().unwrap());
        let (mut sender, connection) = hyper::client::conn::http2::handshake(Exec, io).await.unwrap();
        spawn_local(connection);
        // A frame whose message is no protobuf; a length beyond the bound; a flag that does not exist; a cut frame.
        let garbage: [Vec<u8>; 4] = [
            vec![0, 0, 0, 0, 3, 0xff, 0xff, 0xff],
            vec![0, 0xff, 0xff, 0xff, 0xff, 1],
            vec![7, 0, 0, 0, 0],
            vec![0, 0, 0, 0, 9, 1],
        ];
        for bytes in garbage {
            let status = post(&mut sender, bytes.clone()).await;
            assert!(status.as_deref().is_some_and(|status| status != "0"), "{bytes:?} gave {status:?}");
        }
        assert_eq!(line.services.stats.malformed.load(Ordering::Relaxed), 4);
        // The connection lives, and an orderly end is no error.
        assert_eq!(post(&mut sender, vec![]).await.as_deref(), Some("0"));
        assert_eq!(line.services.stats.streams.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn bytes_that_are_not_http2_end_the_connection() {
    local(async {
        let mut rng = fastrand::Rng::with_seed(3);
        for round in 0..64 {
            let (mut client, server) = tokio::io::duplex(1 << 16);
            let serving = spawn_local(serve_connection(server, Some(somebody()), services()));
            let mut bytes: Vec<u8> = (0..rng.usize(1..2000)).map(|_| rng.u8(..)).collect();
            if round % 2 == 0 {
                // Past the preface, so that the frames are read.
                bytes.splice(..0, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".iter().copied());
            }
            // The other end may hang up before it has taken everything.
            let _ = client.write_all(&bytes).await;
            let _ = client.shutdown().await;
            let mut rest = Vec::new();
            let _ = client.read_to_end(&mut rest).await;
            serving.await.expect("no panic");
        }
    });
}

#[test]
fn names_beyond_the_bound_are_refused_and_counted() {
    local(async {
        let fake = Fake::ready();
        fake.put("thing-0", &Thing { size: 0 });
        let mut services = Services::new("west/1", Arc::clone(&fake) as Arc<dyn Source>);
        services.limits.subscriptions = 10;
        let line = Line::with(services, Some(somebody()));
        let client = line.client(SessionOptions::default());
        let all: Vec<_> = (0..100).map(|number| client.subscribe::<Thing>(&format!("thing-{number}"))).collect();
        common::synced(&client).await;
        common::until("the refusal", || line.services.stats.refused_names.load(Ordering::Relaxed) == 90).await;
        assert_eq!(all.iter().filter(|one| one.borrow() != Known::Unknown).count(), 10);
    });
}

#[test]
fn a_silent_server_is_noticed() {
    local(async {
        let (client, session) = veer_xds::client(node(), fastrand::Rng::with_seed(1));
        let ends = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let kept = std::rc::Rc::clone(&ends);
        spawn_local(session.run(async move || {
            // The other end is open and nobody is there.
            let (near, far) = tokio::io::duplex(1 << 16);
            kept.borrow_mut().push(far);
            let io: veer_net::BoxedIo = Box::new(near);
            Ok(io)
        }));
        client.subscribe::<Thing>("cart");
        common::until("a second attempt", || ends.borrow().len() >= 2).await;
        assert!(!client.status().connected);
        assert!(client.status().last_error.is_some());
    });
}
