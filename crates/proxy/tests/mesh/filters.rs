//! What routes say beside where: patterns, filters of single backends, copies, other origins.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use http_body_util::BodyExt;
use veer_core::AppProtocol;
use veer_core::names::ObjectName;
use veer_core::route::{
    Backend, Cors, ExternalAuth, Filter, Foreign, HeaderChange, HeaderField, HttpMatch, HttpRoute, HttpRule, Mirror,
    PathChange, PathMatch, RouteKind, SessionCarrier, SessionPersistence, Timeouts, ValueMatch,
};

use crate::failure::Several;
use crate::harness::app::{App, answer};
use crate::harness::{APP_PORT, Client, Control, PORT, Workload, host, run, until};

pub fn backend(name: &str, filters: Vec<Filter>) -> Backend {
    Backend { host: host(name), port: PORT, weight: 1, invalid: None, filters, protocol: None }
}

fn route(rules: Vec<HttpRule>) -> HttpRoute {
    HttpRoute {
        name: ObjectName::new("shop", "cart"),
        kind: RouteKind::Http,
        created: None,
        rules,
        consumer_namespace: None,
        owner: None,
        parent_port: None,
    }
}

fn tag(value: &str) -> HeaderChange {
    HeaderChange { set: vec![HeaderField { name: "x-tag".into(), value: value.into() }], ..HeaderChange::default() }
}

/// The service `cart` with these rules and one copy, and one more service with one copy.
pub struct Routed {
    pub several: Several,
    pub other: Rc<App>,
    _other: Workload,
}

impl Routed {
    pub async fn new(other: &str, app: App, rules: Vec<HttpRule>) -> Self {
        let several = Several::new([App::echo()]).await;
        let workload = Workload::new(&several.control, other).start(&several.control).await;
        let app = app.listen(&workload).await;
        several.control.service(other).at([&workload]).put();
        several.control.service("cart").at(&several.servers).route(route(rules)).put();
        Self { several, other: app, _other: workload }
    }

    pub async fn client(&self) -> Client {
        Client::http1(self.several.client.outbound()).await.unwrap()
    }
}

#[test]
fn patterns_choose_and_backends_have_filters_of_their_own() {
    run(async {
        let rewrite = Filter::Rewrite { host: Some("own.example".into()), path: Some(PathChange::Full("/new".into())) };
        let redirect = Filter::Redirect { scheme: None, host: None, port: None, path: None, status: 308 };
        let path = |path: PathMatch| vec![HttpMatch { path: Some(path), ..HttpMatch::default() }];
        let routed = Routed::new(
            "canary",
            App::text("canary"),
            vec![
                HttpRule {
                    matches: vec![HttpMatch {
                        path: Some(PathMatch::Regex("/v[0-9]+/.*".into())),
                        headers: vec![ValueMatch::regex("x-user", "a(da|nn)")],
                        query: vec![ValueMatch::regex("n", "[0-9]+")],
                        ..HttpMatch::default()
                    }],
                    backends: vec![backend(
                        "canary",
                        vec![Filter::RequestHeaders(tag("in")), rewrite, Filter::ResponseHeaders(tag("out"))],
                    )],
                    ..HttpRule::default()
                },
                HttpRule {
                    matches: path(PathMatch::Exact("/moved".into())),
                    backends: vec![backend("cart", vec![redirect])],
                    ..HttpRule::default()
                },
                HttpRule {
                    matches: path(PathMatch::Exact("/newer".into())),
                    filters: vec![Filter::Unknown(Foreign)],
                    backends: vec![backend("cart", vec![])],
                    ..HttpRule::default()
                },
                HttpRule { backends: vec![backend("cart", vec![])], ..HttpRule::default() },
            ],
        )
        .await;
        let mut client = routed.client().await;
        let mut ask = async |path: &str, user: &str| {
            let mut request = client.request(Method::GET, "cart", path, b"");
            request.headers_mut().insert("x-user", user.parse().unwrap());
            client.ask(request).await.unwrap()
        };
        let answer = ask("/v12/x?n=7", "ada").await;
        assert_eq!((answer.text().as_str(), answer.header("x-tag")), ("canary", "out"));
        {
            let seen = routed.other.seen.borrow();
            let head = &seen[0];
            assert_eq!(
                (head.headers()["host"].to_str().unwrap(), head.uri().to_string()),
                ("own.example", "/new?n=7".into())
            );
            assert_eq!(head.headers()["x-tag"], "in");
        }
        for (path, user) in
            [("/v/x?n=7", "ada"), ("/v12/x?n=7", "adam"), ("/v12/x?n=x", "ada"), ("/a/v12/x?n=7", "ada")]
        {
            let answer = ask(path, user).await;
            assert!(answer.text().starts_with("GET /") && answer.header("x-tag").is_empty(), "{path} {user}");
        }
        let answer = ask("/moved", "ada").await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (308, "http://cart/moved"));
        let answer = ask("/newer", "ada").await;
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "what is not understood is not skipped");
    });
}

fn mirrored(to: Backend, numerator: u32, denominator: u32) -> Vec<HttpRule> {
    let mirror = Filter::Mirror(Mirror { to: Box::new(to), numerator, denominator });
    vec![HttpRule {
        filters: vec![Filter::RequestHeaders(tag("both")), mirror],
        backends: vec![backend("cart", vec![])],
        ..HttpRule::default()
    }]
}

#[test]
fn copies_carry_the_body_and_are_sent_in_their_share() {
    run(async {
        let routed = Routed::new("shadow", App::echo(), mirrored(backend("shadow", vec![]), 1, 4)).await;
        let mut client = routed.client().await;
        for n in 0..40 {
            let answer = client.post("cart", &format!("/{n}"), b"two apples").await.unwrap();
            assert_eq!(answer.text(), format!("POST /{n} two apples"));
        }
        let count = async |outcome: &str| {
            routed.several.client.metric("veer_mirrored_requests_total", &["shadow", outcome]).await
        };
        until("the copies have arrived", async || count("outcome").await >= 7.0).await;
        assert_eq!(count("sent").await, count("outcome").await, "{}", routed.several.client.admin("/metrics").await);
        let seen = routed.other.seen.borrow();
        assert!((7..=13).contains(&seen.len()), "one of four: {}", seen.len());
        let head = &seen[0];
        assert_eq!((head.method().as_str(), &head.headers()["content-length"]), ("POST", &"10".parse().unwrap()));
        assert_eq!(
            (&head.headers()["host"], &head.headers()["x-tag"]),
            (&"cart".parse().unwrap(), &"both".parse().unwrap())
        );
    });
}

#[test]
fn copies_never_delay_nor_fail_the_request() {
    run(async {
        let never = App::new(|_| async {
            std::future::pending::<()>().await;
            answer("never")
        });
        let routed = Routed::new("shadow", never, mirrored(backend("shadow", vec![]), 1, 1)).await;
        let mut client = routed.client().await;
        for _ in 0..20 {
            assert_eq!(client.post("cart", "/a", b"x").await.unwrap().text(), "POST /a x");
        }
        until("copies came", async || routed.other.count() == 20).await;
        // Nobody behind it, and bodies too large to be copied.
        let nowhere = routed.several.control.service("cart").at(&routed.several.servers);
        nowhere.route(route(mirrored(backend("nowhere", vec![]), 1, 1))).put();
        let large = vec![b'x'; 200 * 1024];
        let count = async |outcome: &str| {
            routed.several.client.metric("veer_mirrored_requests_total", &["nowhere", outcome]).await
        };
        until("a copy could not be sent", async || {
            assert_eq!(client.get("cart", "/a").await.unwrap().status, StatusCode::OK);
            let answer = client.post("cart", "/a", &large).await.unwrap();
            assert_eq!(answer.body.len(), large.len() + "POST /a ".len());
            count("failed").await >= 1.0 && count("too_large").await >= 1.0
        })
        .await;
    });
}

#[test]
fn nobody_passes_without_leave() {
    run(async {
        let guard = App::new(|request| async move {
            let path = request.uri().path().to_owned();
            let user = request.headers().get("x-token").map_or("", |token| token.to_str().unwrap()).to_owned();
            let shown = request.into_body().collect().await.unwrap().to_bytes().len();
            let mut response = answer(format!("{path} refused"));
            *response.status_mut() = if path.ends_with("/in") { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
            response.headers_mut().insert("x-user", user.parse().unwrap());
            response.headers_mut().insert("x-shown", shown.into());
            response
        });
        let auth = |to: &str, body_limit| {
            Filter::ExternalAuth(ExternalAuth {
                to: Box::new(backend(to, vec![])),
                grpc: false,
                path: Some("/check".into()),
                request_headers: vec!["x-token".into()],
                response_headers: vec!["x-user".into(), "x-shown".into()],
                body_limit,
            })
        };
        let guarded = |prefix: &str, to: &str, limit| HttpRule {
            matches: vec![HttpMatch { path: Some(PathMatch::Prefix(prefix.into())), ..HttpMatch::default() }],
            filters: vec![
                auth(to, limit),
                Filter::Rewrite { host: None, path: Some(PathChange::Prefix("/app".into())) },
                Filter::Mirror(Mirror { to: Box::new(backend("cart", vec![])), numerator: 0, denominator: 1 }),
            ],
            backends: vec![backend("cart", vec![])],
            ..HttpRule::default()
        };
        let rules = vec![guarded("/a", "guard", 0), guarded("/b", "guard", 10), guarded("/c", "nobody", 0)];
        let routed = Routed::new("guard", guard, rules).await;
        let mut client = routed.client().await;
        let mut ask = async |path: &str, body: &[u8]| {
            let mut request = client.request(Method::POST, "cart", path, body);
            request.headers_mut().insert("x-token", "ada".parse().unwrap());
            request.headers_mut().insert("x-user", "root".parse().unwrap());
            client.ask(request).await.unwrap()
        };
        let reached = || {
            let head = routed.several.apps[0].seen.borrow_mut().pop().unwrap();
            let value = |name: &str| {
                head.headers().get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>().join("+")
            };
            (head.uri().path().to_owned(), value("x-user"), value("x-shown"))
        };
        assert_eq!(ask("/a/in", b"0123456789").await.text(), "POST /app/in 0123456789");
        assert_eq!(reached(), ("/app/in".into(), "ada".into(), "0".into()), "the client's own word is replaced");
        assert_eq!(ask("/b/in", b"0123456789").await.text(), "POST /app/in 0123456789");
        assert_eq!(reached(), ("/app/in".into(), "ada".into(), "10".into()), "the body is shown");
        assert_eq!(routed.other.seen.borrow()[0].uri().path(), "/check/a/in", "as it came");

        let answer = ask("/a/out", b"").await;
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::UNAUTHORIZED, "/check/a/out refused"));
        assert_eq!(answer.header("x-user"), "ada");
        assert_eq!(ask("/b/in", b"0123456789x").await.status, StatusCode::PAYLOAD_TOO_LARGE);
        let mut client = routed.client().await;
        let answer = client.get("cart", "/c/in").await.unwrap();
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "who cannot be asked gives no leave: {}", answer.text());
        assert_eq!(routed.several.apps[0].count(), 0);
    });
}

#[test]
fn copies_go_to_several_places() {
    run(async {
        let mirror =
            |name| Filter::Mirror(Mirror { to: Box::new(backend(name, vec![])), numerator: 1, denominator: 1 });
        let rule = HttpRule {
            filters: vec![mirror("shadow"), mirror("second")],
            backends: vec![backend("cart", vec![])],
            ..HttpRule::default()
        };
        let routed = Routed::new("shadow", App::echo(), vec![rule]).await;
        let second = Workload::new(&routed.several.control, "second").start(&routed.several.control).await;
        let app = App::echo().listen(&second).await;
        routed.several.control.service("second").at([&second]).put();
        let mut client = routed.client().await;
        for _ in 0..3 {
            assert_eq!(client.post("cart", "/a", b"x").await.unwrap().text(), "POST /a x");
        }
        until("both have their copies", async || routed.other.count() == 3 && app.count() == 3).await;
    });
}

#[test]
fn redirects_say_what_is_written() {
    run(async {
        let redirect = |status, scheme: Option<&str>, port, path| Filter::Redirect {
            scheme: scheme.map(Into::into),
            host: None,
            port,
            path,
            status,
        };
        let to = |path: &str| Some(PathChange::Prefix(path.into()));
        let wanted = [
            (redirect(301, None, None, None), 301, "http://cart/0/x?q=1"),
            (redirect(302, Some("https"), None, None), 302, "https://cart/1/x?q=1"),
            (redirect(303, None, Some(8443), None), 303, "http://cart:8443/2/x?q=1"),
            (redirect(307, Some("https"), Some(443), to("/new")), 307, "https://cart/new/x?q=1"),
            (redirect(308, Some("https"), Some(80), to("/")), 308, "https://cart:80/x?q=1"),
        ];
        let rules = wanted.iter().enumerate().map(|(index, (filter, ..))| HttpRule {
            matches: vec![HttpMatch {
                path: Some(PathMatch::Prefix(format!("/{index}").into())),
                ..HttpMatch::default()
            }],
            filters: vec![filter.clone()],
            ..HttpRule::default()
        });
        let routed = Routed::new("other", App::echo(), rules.collect()).await;
        let mut client = routed.client().await;
        for (index, (_, status, location)) in wanted.iter().enumerate() {
            let answer = client.get("cart", &format!("/{index}/x?q=1")).await.unwrap();
            assert_eq!((answer.status.as_u16(), answer.header("location")), (*status, *location));
        }
    });
}

#[test]
fn a_backend_is_spoken_to_as_its_own_port_says() {
    run(async {
        let several = Several::new([App::echo()]).await;
        // Outside of the mesh: there is no proxy that would translate.
        let mut endpoint = several.servers[0].endpoint();
        (endpoint.identity, endpoint.mesh_port, endpoint.ports[0].target_port) = (None, 0, APP_PORT);
        several.control.service("plain").endpoint(endpoint).put();
        let speaking = |path: &str, protocol| HttpRule {
            matches: vec![HttpMatch { path: Some(PathMatch::Exact(path.into())), ..HttpMatch::default() }],
            backends: vec![Backend { protocol, ..backend("plain", vec![]) }],
            ..HttpRule::default()
        };
        let rules = vec![
            speaking("/h2c", Some(AppProtocol::Http2)),
            speaking("/http", Some(AppProtocol::Http1)),
            speaking("/same", None),
        ];
        several.control.service("cart").at(&several.servers).route(route(rules)).put();
        let mut http1 = Client::http1(several.client.outbound()).await.unwrap();
        let mut http2 = Client::http2(several.client.outbound()).await.unwrap();
        for (is_http2, path, version) in [
            (false, "/h2c", http::Version::HTTP_2),
            (true, "/http", http::Version::HTTP_11),
            (true, "/same", http::Version::HTTP_2),
        ] {
            let client = if is_http2 { &mut http2 } else { &mut http1 };
            assert_eq!(client.get("cart", path).await.unwrap().text(), format!("GET {path} "));
            let seen = several.apps[0].seen.borrow_mut().pop().unwrap();
            assert_eq!(seen.version(), version, "{path}");
        }
    });
}

#[test]
fn browsers_are_answered_for_other_origins() {
    run(async {
        let cors = Cors {
            allow_origins: vec!["https://*.shop.example".into()],
            allow_methods: vec!["PUT".into()],
            allow_headers: vec!["x-user".into()],
            allow_credentials: true,
            ..Cors::default()
        };
        let rule = HttpRule {
            filters: vec![Filter::Cors(cors)],
            backends: vec![backend("cart", vec![])],
            ..HttpRule::default()
        };
        let routed = Routed::new("other", App::echo(), vec![rule]).await;
        let mut client = routed.client().await;
        let mut ask = async |method: Method, origin: Option<&str>, asks: bool| {
            let mut request = client.request(method, "cart", "/", b"");
            if let Some(origin) = origin {
                request.headers_mut().insert("origin", origin.parse().unwrap());
            }
            if asks {
                request.headers_mut().insert("access-control-request-method", "PUT".parse().unwrap());
            }
            client.ask(request).await.unwrap()
        };
        let (good, bad) = (Some("https://web.shop.example"), Some("https://evil.example"));
        let answer = ask(Method::OPTIONS, good, true).await;
        assert_eq!(
            (answer.status, answer.header("access-control-allow-origin")),
            (StatusCode::NO_CONTENT, good.unwrap())
        );
        assert_eq!(
            (answer.header("access-control-allow-methods"), answer.header("access-control-max-age")),
            ("PUT", "5")
        );
        let answer = ask(Method::OPTIONS, bad, true).await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (StatusCode::NO_CONTENT, ""));
        assert_eq!(routed.several.apps[0].count(), 0, "a browser's question is not the application's");
        let answer = ask(Method::PUT, good, false).await;
        assert_eq!(answer.text(), "PUT / ");
        assert_eq!(
            (answer.header("access-control-allow-origin"), answer.header("access-control-allow-credentials")),
            (good.unwrap(), "true")
        );
        for origin in [bad, None] {
            let answer = ask(Method::PUT, origin, false).await;
            assert_eq!((answer.text().as_str(), answer.header("access-control-allow-origin")), ("PUT / ", ""));
        }
        // OPTIONS that asks nothing of CORS is the application's.
        assert_eq!(ask(Method::OPTIONS, None, true).await.text(), "OPTIONS / ");
    });
}

#[test]
fn a_session_stays_with_one_endpoint_over_backends_and_connections() {
    run(async {
        let several = Several::new([App::text("a"), App::text("b"), App::text("c")]).await;
        let canary = Workload::new(&several.control, "canary").start(&several.control).await;
        let _app = App::text("canary").listen(&canary).await;
        several.control.service("canary").at([&canary]).put();
        let session = |carrier| {
            Some(Arc::new(SessionPersistence { name: "cart-session".into(), carrier, absolute_timeout: None }))
        };
        let exact = |path: &str| vec![HttpMatch { path: Some(PathMatch::Exact(path.into())), ..HttpMatch::default() }];
        let rules = vec![
            HttpRule {
                matches: exact("/cookie"),
                backends: vec![backend("cart", vec![]), backend("canary", vec![])],
                session: session(SessionCarrier::Cookie),
                ..HttpRule::default()
            },
            HttpRule {
                matches: exact("/header"),
                backends: vec![backend("cart", vec![])],
                session: session(SessionCarrier::Header),
                ..HttpRule::default()
            },
        ];
        several.control.service("cart").at(&several.servers).route(route(rules)).put();
        let mut seen = std::collections::BTreeSet::new();
        for (path, sends, says) in [("/cookie", "cookie", "set-cookie"), ("/header", "cart-session", "cart-session")] {
            for _ in 0..6 {
                let mut client = Client::http1(several.client.outbound()).await.unwrap();
                let first = client.get("cart", path).await.unwrap();
                let token = first.header(says).split(';').next().unwrap().to_owned();
                assert!(!token.is_empty(), "{:?}", first.headers);
                seen.insert((path, first.text()));
                // Over another connection and another version.
                let mut client = Client::http2(several.client.outbound()).await.unwrap();
                for _ in 0..8 {
                    let mut request = client.request(Method::GET, "cart", path, b"");
                    request.headers_mut().insert(sends, token.parse().unwrap());
                    let again = client.ask(request).await.unwrap();
                    assert_eq!((again.text(), again.header(says)), (first.text(), ""), "{path}");
                }
            }
        }
        assert!(seen.len() >= 4, "sessions are spread: {seen:?}");
    });
}

#[test]
fn a_try_that_takes_too_long_is_a_504_and_so_is_a_request() {
    run(async {
        let slow = App::new(|_| async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            answer("late")
        });
        let control = Control::start().await;
        let client = Workload::new(&control, "web").start(&control).await;
        let server = Workload::new(&control, "cart").start(&control).await;
        let _app = slow.listen(&server).await;
        let limits = [
            ("/request", Timeouts { request: Some(Duration::from_millis(300)), backend_request: None }),
            ("/try", Timeouts { request: None, backend_request: Some(Duration::from_millis(300)) }),
        ];
        let rules = limits.map(|(path, timeouts)| HttpRule {
            matches: vec![HttpMatch { path: Some(PathMatch::Exact(path.into())), ..HttpMatch::default() }],
            backends: vec![backend("cart", vec![])],
            timeouts,
            ..HttpRule::default()
        });
        control.service("cart").at([&server]).route(route(rules.to_vec())).put();
        let mut asking = Client::http2(client.outbound()).await.unwrap();
        for (path, _) in limits {
            let answer = asking.post("cart", path, b"x").await.unwrap();
            assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT, "{path}: {}", answer.text());
        }
    });
}
