//! HTTP's rules (RFC 9110, 9112, 9113) over a pair of proxies, in all four combinations of what client and application speak.

use std::time::Duration;

use bytes::Bytes;
use h2::ext::Protocol;
use http::{Method, Request, StatusCode};
use tokio::net::TcpStream;
use tokio::time::Instant;
use veer_core::AppProtocol;

use crate::harness::raw::{Ask, Ends, Log, Seen, Speaks, Text, WAYS};
use crate::harness::run;

#[test]
fn informational_answers_go_to_the_client() {
    run(async {
        for (client, app) in WAYS {
            let ends = Ends::new(app).await;
            let told = Ask::get("/hints").over(ends.client.outbound(), client).await;
            assert_eq!(told.interim, [103, 102, 103], "{client:?} to {app:?}");
            assert_eq!((told.status, told.text().as_str()), (200, "hello"), "{client:?} to {app:?}");
        }
    });
}

#[test]
fn clients_of_http_1_0_hear_no_informational_answers() {
    run(async {
        let ends = Ends::new(Speaks::Http1).await;
        let mut text = Text::connect(ends.client.outbound()).await;
        text.send("GET /hints HTTP/1.0\r\nhost: cart\r\n\r\n").await;
        let answer = text.rest().await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
    });
}

#[test]
fn an_upstream_that_only_talks_breaks_the_protocol() {
    run(async {
        for app in [Speaks::Http1, Speaks::Http2] {
            let ends = Ends::new(app).await;
            let told = Ask::get("/talkative").over(ends.client.outbound(), Speaks::Http1).await;
            assert_eq!(told.status, 502, "{app:?}: {told:?}");
            // 32 and the one too many, at each of three tries.
            assert!(told.interim.len() <= 99 && told.text().contains("too many informational answers"), "{told:?}");
            let labels = ["inbound", "flag=\"UPE\""];
            assert!(ends.server.metric("veer_requests_total", &labels).await >= 1.0);
        }
    });
}

#[test]
fn leave_to_send_a_body_comes_from_the_application() {
    run(async {
        for (client, app) in WAYS {
            let ends = Ends::new(app).await;
            let begun = Instant::now();
            let ask = Ask { method: "POST", path: "/continue", body: Some("apples"), ..Ask::default() };
            let told = ask.field("expect", "100-continue").over(ends.client.outbound(), client).await;
            // The application's hint comes first: the leave behind it is its own. A machine that is so slow that the proxy has
            // given leave by then proves nothing.
            if begun.elapsed() < Duration::from_millis(900) {
                assert_eq!(told.interim, [103, 100], "{client:?} to {app:?}");
            }
            assert_eq!((told.status, ends.last().body.as_slice()), (200, &b"apples"[..]), "{client:?} to {app:?}");
        }
    });
}

#[test]
fn a_client_that_waits_for_leave_in_vain_gets_it_from_the_proxy() {
    run(async {
        let ends = Ends::new(Speaks::Http1).await;
        let ask = Ask { method: "POST", path: "/silent", body: Some("apples"), ..Ask::default() };
        let told = ask.field("expect", "100-continue").over(ends.client.outbound(), Speaks::Http1).await;
        assert_eq!((told.interim.as_slice(), told.status), (&[100][..], 200));
        assert_eq!(ends.last().body, b"apples");
    });
}

#[test]
fn a_body_that_nobody_wants_is_not_sent() {
    run(async {
        for app in [Speaks::Http1, Speaks::Http2] {
            let ends = Ends::new(app).await;
            let ask = Ask { method: "POST", path: "/refuse", body: Some("apples"), ..Ask::default() };
            let told = ask.field("expect", "100-continue").over(ends.client.outbound(), Speaks::Http1).await;
            assert_eq!((told.interim.as_slice(), told.status), (&[][..], 401), "{app:?}");
            // What follows on the connection could be the body or the next request.
            assert_eq!(told.seen.field("connection"), Some("close"), "{app:?}");
            assert!(ends.last().body.is_empty());
        }
    });
}

#[test]
fn a_client_that_has_ended_its_side_gets_its_answers() {
    run(async {
        for app in [Speaks::Http1, Speaks::Http2] {
            let ends = Ends::new(app).await;
            let mut text = Text::connect(ends.client.outbound()).await;
            // Two requests in one go, of which the first takes longer than a client that is gone is waited for.
            text.send("GET /slow HTTP/1.1\r\nhost: cart\r\n\r\nGET /next HTTP/1.1\r\nhost: cart\r\n\r\n").await;
            text.end().await;
            assert_eq!(text.answer("GET").await.text(), "hello", "{app:?}");
            assert_eq!(text.answer("GET").await.text(), "hello", "{app:?}");
            assert_eq!(text.rest().await, "", "the connection ends behind the last answer");
            let labels = ["outbound", "status=\"200\"", "flag=\"-\""];
            assert_eq!(ends.client.metric("veer_requests_total", &labels).await, 2.0);
        }
    });
}

#[test]
fn trailers_travel_both_ways() {
    run(async {
        for (client, app) in WAYS {
            let ends = Ends::new(app).await;
            let mut ask = Ask { method: "POST", path: "/trailers", body: Some("apples"), ..Ask::default() };
            ask.trailers = vec![("x-count", "6"), ("host", "elsewhere"), ("content-length", "99")];
            if client == Speaks::Http2 {
                // A foreign stack refuses to write these.
                ask.trailers.truncate(1);
            }
            let told = ask.field("te", "trailers").over(ends.client.outbound(), client).await;
            let one = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
            assert_eq!(told.seen.trailers, one("x-sum", "5"), "{client:?} to {app:?}");
            assert_eq!(ends.last().trailers, one("x-count", "6"), "{client:?} to {app:?}");
            assert_eq!(ends.last().body, b"apples");
        }
    });
}

#[test]
fn some_answers_have_no_body() {
    run(async {
        for (client, app) in WAYS {
            let ends = Ends::new(app).await;
            let address = ends.client.outbound();
            for (method, path, status) in [("HEAD", "/", 200), ("GET", "/204", 204), ("GET", "/304", 304)] {
                let ask = Ask { method, path, ..Ask::default() };
                let told = ask.over(address, client).await;
                assert_eq!((told.status, told.text().as_str()), (status, ""), "{method} {path}, {client:?} to {app:?}");
                let length = told.seen.field("content-length");
                assert_eq!(length, (method == "HEAD").then_some("5"), "{method} {path}, {client:?} to {app:?}");
                assert_eq!(told.seen.field("transfer-encoding"), None);
            }
        }
        // What follows on the connection is the next answer.
        let ends = Ends::new(Speaks::Http1).await;
        let mut text = Text::connect(ends.client.outbound()).await;
        for (method, path) in [("HEAD", "/"), ("GET", "/204"), ("GET", "/304"), ("GET", "/")] {
            text.send(format!("{method} {path} HTTP/1.1\r\nhost: cart\r\n\r\n")).await;
            text.answer(method).await;
        }
        assert!(text.unread.is_empty());
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    run(async {
        for app in [Speaks::Http1, Speaks::Http2] {
            let ends = Ends::new(app).await;
            let mut text = Text::connect(ends.client.outbound()).await;
            text.send(
                "GET /slow HTTP/1.1\r\nhost: cart\r\n\r\nHEAD /b HTTP/1.1\r\nhost: cart\r\n\r\n\
                 POST /c HTTP/1.1\r\nhost: cart\r\ncontent-length: 3\r\n\r\nabcGET /204 HTTP/1.1\r\nhost: cart\r\n\r\n",
            )
            .await;
            for (method, status) in [("GET", 200), ("HEAD", 200), ("POST", 200), ("GET", 204)] {
                assert_eq!(text.answer(method).await.status, status, "{app:?} {method}");
            }
            let paths: Vec<_> = ends.seen.borrow().iter().map(|seen| seen.path().to_owned()).collect();
            assert_eq!(paths, ["/slow", "/b", "/c", "/204"], "{app:?}");
        }
    });
}

#[test]
fn chunk_extensions_end_here() {
    run(async {
        for app in [Speaks::Http1, Speaks::Http2] {
            let ends = Ends::new(app).await;
            let mut text = Text::connect(ends.client.outbound()).await;
            text.send(
                "POST / HTTP/1.1\r\nhost: cart\r\ntransfer-encoding: chunked\r\n\r\n\
                 3;name=value;\"x\"\r\nabc\r\n2 ; y\r\nde\r\n0;last\r\n\r\n",
            )
            .await;
            assert_eq!(text.answer("POST").await.status, 200);
            assert_eq!(ends.last().body, b"abcde", "{app:?}");
        }
    });
}

#[test]
fn targets_come_in_every_form() {
    run(async {
        let ends = Ends::new(Speaks::Http1).await;
        for (request, line, host) in [
            ("GET http://cart/a?b HTTP/1.1\r\nhost: elsewhere", "GET /a?b HTTP/1.1", "cart"),
            ("GET http://cart HTTP/1.1\r\nhost: cart", "GET / HTTP/1.1", "cart"),
            ("GET HTTP://cart:80?q HTTP/1.1\r\nhost: cart", "GET /?q HTTP/1.1", "cart:80"),
            ("OPTIONS * HTTP/1.1\r\nhost: cart", "OPTIONS * HTTP/1.1", "cart"),
            ("OPTIONS http://cart HTTP/1.1\r\nhost: cart", "OPTIONS * HTTP/1.1", "cart"),
        ] {
            let mut text = Text::connect(ends.client.outbound()).await;
            text.send(format!("{request}\r\n\r\n")).await;
            assert_eq!(text.answer("GET").await.status, 200, "{request}");
            let seen = ends.last();
            assert_eq!((seen.line.as_str(), seen.field("host")), (line, Some(host)), "{request}");
        }
        for request in [
            "GET cart:80 HTTP/1.1\r\nhost: cart",
            "GET * HTTP/1.1\r\nhost: cart",
            "CONNECT cart HTTP/1.1\r\nhost: cart",
            "CONNECT /a HTTP/1.1\r\nhost: cart",
            "GET ftp://cart/ HTTP/1.1\r\nhost: cart",
            "GET http://user@cart/ HTTP/1.1\r\nhost: cart",
        ] {
            let mut text = Text::connect(ends.client.outbound()).await;
            text.send(format!("{request}\r\n\r\n")).await;
            assert_eq!(text.answer("GET").await.status, 400, "{request}");
        }
    });
}

#[test]
fn fields_about_the_way_are_neither_made_nor_changed() {
    run(async {
        const KEPT: [(&str, &str); 4] = [
            ("via", "1.1 edge"),
            ("forwarded", "for=192.0.2.1;proto=https"),
            ("x-forwarded-for", "192.0.2.1, 192.0.2.2"),
            ("x-forwarded-proto", "https"),
        ];
        for (client, app) in WAYS {
            let ends = Ends::new(app).await;
            let plain = Ask::get("/").over(ends.client.outbound(), client).await;
            assert_eq!(plain.status, 200);
            let names = |seen: &Seen| KEPT.iter().filter(|(name, _)| seen.field(name).is_some()).count();
            assert_eq!((names(&ends.last()), names(&plain.seen)), (0, 0), "{client:?} to {app:?}");
            let mut ask = Ask::get("/");
            ask.fields = KEPT.to_vec();
            ask.over(ends.client.outbound(), client).await;
            for (name, value) in KEPT {
                assert_eq!(ends.last().field(name), Some(value), "{client:?} to {app:?}");
            }
        }
    });
}

#[test]
fn fields_of_one_connection_end_with_it() {
    run(async {
        for app in [Speaks::Http1, Speaks::Http2] {
            let ends = Ends::new(app).await;
            let mut text = Text::connect(ends.client.outbound()).await;
            text.send(
                "GET / HTTP/1.1\r\nhost: cart\r\nconnection: x-mine, host, veer-proto, x-veer-client-id, te\r\nx-mine: 1\r\n\
                 x-other: 2\r\nkeep-alive: 5\r\nproxy-connection: keep-alive\r\nte: trailers, deflate\r\n\
                 veer-proto: grpc\r\nx-veer-client-id: spiffe://west.example/ns/shop/sa/boss\r\n\r\n",
            )
            .await;
            assert_eq!(text.answer("GET").await.status, 200);
            let seen = ends.last();
            for gone in ["x-mine", "keep-alive", "proxy-connection", "veer-proto", "connection"] {
                assert_eq!(seen.field(gone), None, "{gone} to {app:?}");
            }
            assert_eq!((seen.field("x-other"), seen.field("te")), (Some("2"), Some("trailers")), "{app:?}");
            assert_eq!(seen.field("x-veer-client-id"), Some("spiffe://west.example/ns/shop/sa/web"), "{app:?}");
        }
    });
}

/// An application that changes to WebSocket on `/chat`, and then gives capitals back.
async fn chat(stream: TcpStream, log: Log) {
    let mut text = Text { io: stream, unread: Vec::new() };
    let Some(seen) = text.head().await else { return };
    let path = seen.path().to_owned();
    log.borrow_mut().push(seen);
    match path.as_str() {
        "/chat" => text.send("HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: x\r\n\r\n").await,
        "/no" => return text.send("HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n").await,
        _ => return text.send("HTTP/1.1 200 Fine\r\ncontent-length: 0\r\n\r\n").await,
    }
    loop {
        let word = text.until(".").await;
        text.send(word.to_ascii_uppercase()).await;
        if word == "end." {
            return;
        }
    }
}

#[test]
fn a_stream_becomes_a_websocket() {
    run(async {
        let seen = Log::default();
        let log = Log::clone(&seen);
        let ends = Ends::with(AppProtocol::Detect, seen, move |stream| chat(stream, Log::clone(&log))).await;
        let stream = TcpStream::connect(ends.client.outbound()).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::task::spawn_local(connection);
        let mut sender = sender.ready().await.unwrap();
        let mut asked = Vec::new();
        for (path, status) in
            [("/chat", StatusCode::OK), ("/no", StatusCode::FORBIDDEN), ("/plain", StatusCode::NOT_IMPLEMENTED)]
        {
            let request = Request::builder()
                .method(Method::CONNECT)
                .uri(format!("http://cart{path}"))
                .extension(Protocol::from_static("websocket"))
                .header("sec-websocket-version", "13")
                .body(())
                .unwrap();
            let (answer, sending) = sender.send_request(request, false).unwrap();
            let answer = answer.await.unwrap();
            assert_eq!(answer.status(), status, "{path}");
            for gone in ["upgrade", "connection", "sec-websocket-accept"] {
                assert!(!answer.headers().contains_key(gone), "{gone}");
            }
            asked.push((answer, sending));
        }
        assert!(sender.is_extended_connect_protocol_enabled());
        let first = ends.seen.borrow()[0].clone();
        assert_eq!((first.line.as_str(), first.field("upgrade")), ("GET /chat HTTP/1.1", Some("websocket")));
        assert_eq!(first.field("sec-websocket-key").map(str::len), Some(24));
        assert_eq!(first.field("sec-websocket-version"), Some("13"));

        let (answer, mut sending) = asked.swap_remove(0);
        let mut body = answer.into_body();
        for word in ["one.", "end."] {
            sending.send_data(Bytes::from(word), false).unwrap();
            let mut got = Vec::new();
            while got.len() < word.len() {
                got.extend(body.data().await.unwrap().unwrap());
            }
            assert_eq!(got, word.to_ascii_uppercase().as_bytes());
        }
        // The stream ends with the application's connection, perhaps in a frame of its own.
        while let Some(data) = body.data().await {
            assert!(data.unwrap().is_empty());
        }
    });
}

#[test]
fn what_is_left_of_a_grpc_deadline_is_carried() {
    run(async {
        let ends = Ends::new(Speaks::Http2).await;
        let ask = Ask { method: "POST", path: "/shop.Cart/Get", body: Some("\0\0\0\0\0"), ..Ask::default() };
        let ask = ask.field("content-type", "application/grpc").field("te", "trailers");
        let told = ask.clone().field("grpc-timeout", "20S").over(ends.client.outbound(), Speaks::Http2).await;
        assert_eq!(told.status, 200);
        let seen = ends.last();
        let left =
            seen.field("grpc-timeout").and_then(|text| text.strip_suffix('u')).and_then(|text| text.parse().ok());
        assert!(left.is_some_and(|micros: u64| micros < 20_000_000 && micros > 10_000_000), "{seen:?}");
        // Nobody told one: none is made up.
        ask.over(ends.client.outbound(), Speaks::Http2).await;
        assert_eq!(ends.last().field("grpc-timeout"), None);
        // One that cannot be kept ends the call, in gRPC's own words.
        let ask = Ask { path: "/slow", ..ask }.field("grpc-timeout", "100m");
        let told = ask.over(ends.client.outbound(), Speaks::Http2).await;
        assert_eq!((told.status, told.seen.field("grpc-status")), (200, Some("4")), "{told:?}");
    });
}

#[test]
fn errors_of_the_proxy_are_in_the_words_of_the_caller() {
    run(async {
        let ends = Ends::new(Speaks::Http1).await;
        for speaks in [Speaks::Http1, Speaks::Http2] {
            let mut ask = Ask { method: "POST", path: "/%2e%2e/a", body: Some(""), ..Ask::default() };
            let plain = ask.over(ends.client.outbound(), speaks).await;
            assert_eq!((plain.status, plain.seen.field("grpc-status")), (400, None), "{speaks:?}");
            assert!(plain.text().starts_with("veer: DPE "), "{speaks:?}: {}", plain.text());
            ask = ask.field("content-type", "application/grpc+proto");
            let grpc = ask.over(ends.client.outbound(), speaks).await;
            assert_eq!((grpc.status, grpc.seen.field("grpc-status")), (200, Some("13")), "{speaks:?}");
        }
    });
}
