//! Requests find their way, unchanged where they must be.

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::app::{App, answer, full};
use crate::harness::{Client, PORT, Pair, host, run, until};

#[test]
fn http1_goes_over_the_mesh_and_back() {
    run(async {
        let pair = Pair::new(App::echo()).await;
        let mut client = Client::http1(pair.client.outbound()).await.unwrap();
        for path in ["/", "/a?b=c"] {
            let answer = client.get("cart", path).await.unwrap();
            assert_eq!(
                (answer.status, answer.text()),
                (StatusCode::OK, format!("GET {} ", &path[..path.len().min(2)]))
            );
        }
        let answer = client.post("cart.shop", "/buy", b"two apples").await.unwrap();
        assert_eq!(answer.text(), "POST /buy two apples");
        for field in ["veer-proto", "veer-error", "endpoint-load-metrics", "connection"] {
            assert_eq!(answer.header(field), "", "{field}");
        }

        let seen = pair.app.seen.take();
        let (first, last) = (&seen[0], &seen[2]);
        assert_eq!(first.version(), http::Version::HTTP_11);
        assert_eq!(
            (&first.headers()["host"], &last.headers()["host"]),
            (&"cart".parse().unwrap(), &"cart.shop".parse().unwrap())
        );
        assert_eq!(first.headers()["x-veer-client-id"], "spiffe://west.example/ns/shop/sa/web");
        assert!(first.headers().contains_key("traceparent") && !first.headers().contains_key("veer-proto"));
        assert_eq!(last.headers()["content-length"], "10");

        let labels =
            ["outbound", "destination_workload=\"cart\"", "protocol=\"http1\"", "status=\"200\"", "flag=\"-\""];
        assert_eq!(pair.client.metric("veer_requests_total", &labels).await, 3.0);
        let labels = ["inbound", "source_workload=\"web\"", "status=\"200\""];
        assert_eq!(pair.server.metric("veer_requests_total", &labels).await, 3.0);
        assert_eq!(pair.client.metric("veer_tls_handshakes_total", &["outbound", "ok"]).await, 1.0);
    });
}

#[test]
fn every_way_to_name_a_service_is_understood() {
    run(async {
        let pair = Pair::new(App::text("here")).await;
        let mut client = Client::http1(pair.client.outbound()).await.unwrap();
        for name in
            ["cart", "CART", "cart:80", "cart.shop", "cart.shop.svc", "cart.shop.svc.cluster.local", "cart.shop."]
        {
            assert_eq!(client.get(name, "/").await.unwrap().text(), "here", "{name}");
        }
        // As a forward proxy's client writes it: the target wins over Host.
        let request = Request::builder().uri("http://cart/x").header("host", "elsewhere").body(full("")).unwrap();
        assert_eq!(client.ask(request).await.unwrap().text(), "here");
        for (name, text) in
            [("nobody", "no such service"), ("www.example.com", "no such service"), ("cart:81", "has no port 81")]
        {
            let answer = client.get(name, "/").await.unwrap();
            assert_eq!(answer.status, StatusCode::NOT_FOUND);
            assert!(answer.text().starts_with("veer: NC") && answer.text().contains(text), "{}", answer.text());
        }
    });
}

#[test]
fn http2_stays_http2_to_an_application_that_speaks_it() {
    run(async {
        let pair = Pair::new(App::echo()).await;
        let mut client = Client::http2(pair.client.outbound()).await.unwrap();
        let answer = client.post("cart", "/buy", b"x").await.unwrap();
        assert_eq!(answer.text(), "POST /buy x");
        let seen = pair.app.seen.borrow();
        assert_eq!(seen[0].version(), http::Version::HTTP_2);
        assert_eq!(seen[0].uri().authority().unwrap(), "cart");
    });
}

#[test]
fn grpc_streams_both_ways_with_trailers() {
    run(async {
        let app = App::new(|request| async move {
            let mut body = request.into_body();
            // Answers each message as it comes, then with trailers.
            let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
            tokio::task::spawn_local(async move {
                let mut count: u16 = 0;
                while let Some(Ok(frame)) = body.frame().await {
                    // The end of a stream may come as an empty frame.
                    if let Some(data) = frame.into_data().ok().filter(|data| !data.is_empty()) {
                        count += 1;
                        let _ = sender.send(Frame::data(Bytes::from(format!("{};", data.len()))));
                    }
                }
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                trailers.insert("x-count", count.into());
                let _ = sender.send(Frame::trailers(trailers));
            });
            let frames = stream::unfold(receiver, |mut receiver| async move {
                let frame = receiver.recv().await?;
                Some((Ok::<_, std::convert::Infallible>(frame), receiver))
            });
            let mut response = http::Response::new(StreamBody::new(frames).boxed_unsync());
            response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
            response
        });
        let pair = Pair::new(app).await;
        let mut client = Client::http2(pair.client.outbound()).await.unwrap();
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
        let frames = stream::unfold(receiver, |mut receiver| async move {
            let data = receiver.recv().await?;
            Some((Ok::<_, std::convert::Infallible>(Frame::data(data)), receiver))
        });
        let request = Request::builder()
            .method(Method::POST)
            .uri("http://cart/shop.Cart/Watch")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(StreamBody::new(frames).boxed_unsync())
            .unwrap();
        let mut body = client.send(request).await.unwrap().into_body();
        // One after the other: nothing is held back until the end.
        for size in [5, 70_000, 1] {
            sender.send(Bytes::from(vec![7; size])).unwrap();
            let (mut text, mut got) = (String::new(), 0);
            while got < size {
                let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
                text.push_str(std::str::from_utf8(&frame).unwrap());
                got = text.split_terminator(';').map(|size| size.parse::<usize>().unwrap()).sum();
            }
            assert_eq!(got, size);
        }
        drop(sender);
        let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "0");
        assert_eq!(pair.app.seen.borrow()[0].headers()["te"], "trailers");
        assert!(pair.client.metric("veer_requests_total", &["outbound", "protocol=\"grpc\""]).await >= 1.0);
    });
}

#[test]
fn errors_of_the_proxy_speak_grpc_to_grpc() {
    run(async {
        let pair = Pair::new(App::text("")).await;
        let mut client = Client::http2(pair.client.outbound()).await.unwrap();
        for (name, code) in [("nobody", "12"), ("empty", "14")] {
            pair.control.service("empty").put();
            let mut request = client.request(Method::POST, name, "/a.B/C", b"");
            request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
            let answer = client.ask(request).await.unwrap();
            assert_eq!(answer.status, StatusCode::OK);
            assert_eq!((answer.header("grpc-status"), answer.header("content-type")), (code, "application/grpc"));
            assert!(answer.header("grpc-message").starts_with("veer: "), "{}", answer.header("grpc-message"));
        }
        // The caller's deadline ends the call.
        let slow = App::new(|_| async { std::future::pending().await });
        pair.app.kill();
        let again = crate::harness::Workload::new(&pair.control, "slow").start(&pair.control).await;
        let _slow = slow.listen(&again).await;
        pair.control.service("slow").at([&again]).put();
        let mut request = client.request(Method::POST, "slow", "/a.B/C", b"");
        request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        request.headers_mut().insert("grpc-timeout", "200m".parse().unwrap());
        assert_eq!(client.ask(request).await.unwrap().header("grpc-status"), "4");
    });
}

#[test]
fn a_connection_changes_its_protocol() {
    run(async {
        let app = App::new(|mut request| async move {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::task::spawn_local(async move {
                let mut io = TokioIo::new(upgrade.await.unwrap());
                let mut buffer = [0; 64];
                loop {
                    let count = io.read(&mut buffer).await.unwrap();
                    if count == 0 {
                        return;
                    }
                    buffer[..count].make_ascii_uppercase();
                    io.write_all(&buffer[..count]).await.unwrap();
                }
            });
            let mut response = answer("");
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert("connection", "upgrade".parse().unwrap());
            response.headers_mut().insert("upgrade", "websocket".parse().unwrap());
            response.headers_mut().insert("sec-websocket-accept", "yes".parse().unwrap());
            response
        });
        let pair = Pair::new(app).await;
        let mut client = Client::http1(pair.client.outbound()).await.unwrap();
        let mut request = client.request(Method::GET, "cart", "/chat", b"");
        request.headers_mut().insert("connection", "keep-alive, Upgrade".parse().unwrap());
        request.headers_mut().insert("upgrade", "websocket".parse().unwrap());
        let mut response = client.send(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(response.headers()["upgrade"], "websocket");
        assert_eq!(response.headers()["sec-websocket-accept"], "yes");
        let mut io = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
        for word in ["one", "two"] {
            io.write_all(word.as_bytes()).await.unwrap();
            let mut echo = [0; 3];
            io.read_exact(&mut echo).await.unwrap();
            assert_eq!(echo, word.to_ascii_uppercase().as_bytes());
        }
    });
}

#[test]
fn connect_makes_a_tunnel_over_the_mesh() {
    run(async {
        let pair = Pair::new(App::echo()).await;
        let (mut stream, head) = tunnel(&pair).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        stream.write_all(b"GET /inside HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.ends_with("GET /inside "), "{text}");
        assert_eq!(pair.client.metric("veer_tcp_connections_total", &["outbound"]).await, 1.0);
    });
}

#[test]
fn tunnels_share_one_connection_until_much_goes_through_one() {
    run(async {
        let pair = Pair::new(App::echo()).await;
        let open = async || tunnel(&pair).await;
        let handshakes = async || pair.client.metric("veer_tls_handshakes_total", &["outbound", "ok"]).await;
        for _ in 0..3 {
            let (mut stream, head) = open().await;
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            stream.write_all(b"GET /inside HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            assert!(text.ends_with("GET /inside "), "{text}");
        }
        assert_eq!(handshakes().await, 1.0);

        let (mut stream, _) = open().await;
        let size = 33 << 20;
        stream
            .write_all(format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..size >> 20 {
            stream.write_all(&piece).await.unwrap();
        }
        assert_eq!(handshakes().await, 1.0);
        until("a tunnel has a connection of its own", async || {
            drop(open().await);
            handshakes().await >= 2.0
        })
        .await;
    });
}

#[test]
fn a_tunnel_to_an_application_that_is_gone_is_refused_before_anything_is_sent() {
    run(async {
        let pair = Pair::new(App::echo()).await;
        assert!(tunnel(&pair).await.1.starts_with("HTTP/1.1 200"));
        pair.app.kill();
        until("a refusal", async || tunnel(&pair).await.1.starts_with("HTTP/1.1 503")).await;
    });
}

/// Asks for a tunnel to the application: the connection, and the answer's head.
async fn tunnel(pair: &Pair) -> (tokio::net::TcpStream, String) {
    let target = format!("{}:{PORT}", host("cart"));
    let mut stream = tokio::net::TcpStream::connect(pair.client.outbound()).await.unwrap();
    stream.write_all(format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n\r\n").as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    (stream, String::from_utf8(head).unwrap())
}

#[test]
fn plaintext_finds_an_endpoint_outside_of_the_mesh() {
    run(async {
        let pair = Pair::new(App::text("meshed")).await;
        let address = crate::harness::address();
        let app = App::echo().listen_at((address, crate::harness::TARGET_PORT).into()).await;
        let mut endpoint = pair.server.endpoint();
        (endpoint.identity, endpoint.mesh_port, endpoint.address) = (None, 0, address);
        pair.control.service("old").endpoint(endpoint).put();
        let mut client = Client::http1(pair.client.outbound()).await.unwrap();
        for _ in 0..3 {
            assert_eq!(client.get("old", "/x").await.unwrap().text(), "GET /x ");
        }
        let mut client = Client::http2(pair.client.outbound()).await.unwrap();
        assert_eq!(client.post("old", "/y", b"z").await.unwrap().text(), "POST /y z");
        let versions: Vec<_> = app.seen.borrow().iter().map(|seen| seen.version()).collect();
        assert_eq!(versions[2..], [http::Version::HTTP_11, http::Version::HTTP_2]);
        assert!(!app.seen.borrow()[0].headers().contains_key("veer-proto"));
    });
}

#[test]
fn what_breaks_the_rules_is_refused() {
    run(async {
        let pair = Pair::new(App::text("")).await;
        for (request, status) in [
            ("GET / HTTP/1.1\r\nhost: cart\r\nhost: cart\r\n\r\n", "400"),
            ("GET / HTTP/1.1\r\nhost: a@cart\r\n\r\n", "400"),
            ("GET /%2e%2e/x HTTP/1.1\r\nhost: cart\r\n\r\n", "400"),
            ("GET /a%2fb HTTP/1.1\r\nhost: cart\r\n\r\n", "400"),
            ("GET / HTTP/1.1\r\n\r\n", "400"),
        ] {
            let mut stream = tokio::net::TcpStream::connect(pair.client.outbound()).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut line = [0; 12];
            stream.read_exact(&mut line).await.unwrap();
            assert_eq!(&line[9..], status.as_bytes(), "{request}");
        }
        assert_eq!(pair.app.count(), 0);
    });
}
