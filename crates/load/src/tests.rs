use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// An HTTP/1.1 server that answers each request on a connection after `delay(n)`, n counting from 0.
async fn server(delay: fn(u64) -> Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let count = Arc::new(std::sync::atomic::AtomicU64::new(0));
        while let Ok((mut stream, _)) = listener.accept().await {
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let mut buffer = [0; 1024];
                while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {
                    let n = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    tokio::time::sleep(delay(n)).await;
                    let (status, body) = if n % 10 == 9 { ("503 Busy", "busy\n") } else { ("200 OK", "fine\n") };
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 5\r\n\r\n{body}");
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn plan(target: SocketAddr, connections: usize) -> Plan {
    Plan {
        target,
        protocol: Protocol::Http1,
        connections,
        rate: 500.0,
        duration: Duration::from_millis(400),
        timeout: Duration::from_secs(5),
        requests: vec![Request::get("get", "test", "/")],
    }
}

#[tokio::test]
async fn every_request_is_sent_once_and_failures_are_told() {
    let target = server(|_| Duration::ZERO).await;
    let mut tally = Tally::default();
    run(plan(target, 8), |sample| tally.add(&sample)).await;
    let summary = tally.summary();
    assert_eq!((summary.requests, summary.failures), (200, 20));
    assert_eq!(tally.reasons().get("status 503 (busy)"), Some(&20));
}

#[tokio::test]
async fn a_stall_counts_against_all_that_were_due_during_it() {
    // One connection; the first answer takes 200 ms. A closed loop would report one slow request; 100 were due meanwhile.
    let target = server(|n| if n == 0 { Duration::from_millis(200) } else { Duration::ZERO }).await;
    let mut slow = 0;
    run(plan(target, 1), |sample| slow += u32::from(sample.latency > Duration::from_millis(50))).await;
    assert!(slow > 50, "{slow} slow requests reported");
}

#[tokio::test]
async fn nobody_listening_is_a_failure_not_a_hang() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut tally = Tally::default();
    run(plan(closed, 4), |sample| tally.add(&sample)).await;
    assert_eq!(tally.summary().failures, 200);
}

/// Answers every request of one connection with `status` and 100 bytes.
async fn hyper_server(http2: bool, status: u16) -> SocketAddr {
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(move |_| async move {
                let body = http_body_util::Full::new(Bytes::from_static(&[b'x'; 100]));
                http::Response::builder().status(status).body(body)
            });
            tokio::spawn(async move {
                let io = TokioIo::new(stream);
                if http2 {
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await
                } else {
                    hyper::server::conn::http1::Builder::new().serve_connection(io, service).await
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_closed_loop_is_served_by_another_implementation() {
    let (host, path) = ("test".to_owned(), "/items?n=1".to_owned());
    for (http2, exchange) in [
        (false, Exchange::Http1 { host: host.clone(), path: path.clone(), upload: 0 }),
        (true, Exchange::Http2 { host, path, streams: 8, grpc: None }),
    ] {
        for (status, reconnect) in [(200, false), (404, false), (200, !http2)] {
            let target = hyper_server(http2, status).await;
            let plan = ClosedPlan { target, connections: 3, exchange: exchange.clone(), reconnect };
            let load = ClosedLoad::start(plan).await.unwrap();
            let report = load.measure(Duration::from_millis(200)).await;
            assert!(report.summary.requests > 50, "{exchange:?}: {report:?}");
            let failures = if status == 200 { 0 } else { report.summary.requests };
            assert_eq!(report.summary.failures, failures, "{exchange:?}: {:?}", report.reasons);
        }
    }
}

#[tokio::test]
async fn a_closed_loop_counts_what_breaks_and_goes_on() {
    // Every connection ends after a first byte.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1]).await;
        }
    });
    let plan = ClosedPlan { target, connections: 2, exchange: Exchange::Echo { bytes: 10 }, reconnect: false };
    let load = ClosedLoad::start(plan).await.unwrap();
    let report = load.measure(Duration::from_millis(300)).await;
    assert!(report.summary.requests > 4 && report.summary.failures == report.summary.requests, "{report:?}");
    assert_eq!(report.rate(), 0.0);
}
