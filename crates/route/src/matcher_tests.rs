use http::HeaderMap;
use proptest::prelude::*;
use veer_core::ServiceHost;
use veer_core::route::{
    Backend, ExternalAuth, Filter, Foreign, HeaderChange, HeaderField, HttpRule, PathChange, ValueMatch,
};
use veer_http::{Fields, RequestHead};

use super::*;
use crate::{Direct, Origin};

fn route(name: &str, rules: Vec<HttpRule>) -> HttpRoute {
    let json = format!(r#"{{"name": "shop/{name}"}}"#);
    let mut route: HttpRoute = serde_json::from_str(&json).unwrap();
    route.rules = rules;
    route
}

fn rule(matches: Vec<HttpMatch>) -> HttpRule {
    HttpRule { matches, ..HttpRule::default() }
}

fn exact(path: &str) -> HttpMatch {
    HttpMatch { path: Some(PathMatch::Exact(path.into())), ..HttpMatch::default() }
}

fn prefix(path: &str) -> HttpMatch {
    HttpMatch { path: Some(PathMatch::Prefix(path.into())), ..HttpMatch::default() }
}

fn grpc(service: Option<&str>, method: Option<&str>) -> HttpMatch {
    let path = PathMatch::Grpc { service: service.map(Into::into), method: method.map(Into::into) };
    HttpMatch { path: Some(path), ..HttpMatch::default() }
}

fn regex(path: &str) -> HttpMatch {
    HttpMatch { path: Some(PathMatch::Regex(path.into())), ..HttpMatch::default() }
}

fn pair(name: &str, value: &str) -> ValueMatch {
    ValueMatch::exact(name, value)
}

fn field(name: &str, value: &str) -> HeaderField {
    HeaderField { name: name.into(), value: value.into() }
}

fn backend(filters: Vec<Filter>) -> Backend {
    Backend {
        host: ServiceHost::new("cart.shop").unwrap(),
        port: 80,
        weight: 1,
        invalid: None,
        filters,
        protocol: None,
    }
}

/// `route/rule` that acts on the request.
fn find(matcher: &Matcher, method: &str, target: &str, fields: &[(&'static str, &'static str)]) -> Option<String> {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, value.parse().unwrap());
    }
    let path = NormalPath::parse(path).unwrap();
    let request = RequestView { method, path: &path, query, authority: None, headers: &headers };
    matcher.find(&request).map(|matched| format!("{}/{}", matched.rule.route.name, matched.rule.index))
}

#[test]
fn exact_wins_over_the_longest_prefix_and_that_over_the_rest() {
    let matches = [prefix("/"), prefix("/a"), prefix("/a/b"), exact("/a/b/c"), HttpMatch::default()];
    let matcher = Matcher::new(&[route("r", matches.into_iter().map(|m| rule(vec![m])).collect())], "shop");
    for (path, expected) in [
        ("/a/b/c", "r/3"),
        ("/a/b/c/", "r/2"),
        ("/a/b/d", "r/2"),
        ("/a/b", "r/2"),
        ("/a/bc", "r/1"),
        ("/a/", "r/1"),
        ("/ab", "r/0"),
        ("/", "r/0"),
        ("*", "r/0"),
        ("//a//b", "r/2"),
    ] {
        assert_eq!(find(&matcher, "GET", path, &[]).as_deref(), Some(expected), "{path}");
    }
}

#[test]
fn a_slash_at_the_end_of_a_prefix_does_not_count() {
    let matcher = Matcher::new(&[route("r", vec![rule(vec![prefix("/a/")])])], "shop");
    assert!(find(&matcher, "GET", "/a", &[]).is_some());
    assert!(find(&matcher, "GET", "/a/b", &[]).is_some());
    assert!(find(&matcher, "GET", "/ab", &[]).is_none());
}

#[test]
fn then_method_then_headers_then_query() {
    let with = |method: Option<&str>, headers: &[(&str, &str)], query: &[(&str, &str)]| HttpMatch {
        path: Some(PathMatch::Prefix("/".into())),
        method: method.map(Into::into),
        headers: headers.iter().map(|(n, v)| pair(n, v)).collect(),
        query: query.iter().map(|(n, v)| pair(n, v)).collect(),
    };
    let rules = vec![
        rule(vec![with(None, &[], &[])]),
        rule(vec![with(None, &[], &[("v", "2")])]),
        rule(vec![with(None, &[("x-a", "1")], &[])]),
        rule(vec![with(None, &[("x-a", "1"), ("x-b", "1")], &[])]),
        rule(vec![with(Some("POST"), &[], &[])]),
    ];
    let matcher = Matcher::new(&[route("r", rules)], "shop");
    let both = [("x-a", "1"), ("x-b", "1")];
    assert_eq!(find(&matcher, "POST", "/?v=2", &both).as_deref(), Some("r/4"));
    assert_eq!(find(&matcher, "GET", "/?v=2", &both).as_deref(), Some("r/3"));
    assert_eq!(find(&matcher, "GET", "/?v=2", &both[..1]).as_deref(), Some("r/2"));
    assert_eq!(find(&matcher, "GET", "/?v=2", &[]).as_deref(), Some("r/1"));
    assert_eq!(find(&matcher, "get", "/?v=3", &[]).as_deref(), Some("r/0"));
}

#[test]
fn ties_go_to_the_older_then_the_smaller_name_then_the_first_rule() {
    let same = || vec![rule(vec![prefix("/")]), rule(vec![prefix("/")])];
    let created = |name: &str, at: Option<&str>| HttpRoute { created: at.map(Into::into), ..route(name, same()) };
    let winner = |routes: &[HttpRoute]| find(&Matcher::new(routes, "shop"), "GET", "/", &[]).unwrap();
    let (old, new) = (Some("2024-01-01T00:00:00Z"), Some("2025-01-01T00:00:00Z"));
    assert_eq!(winner(&[created("a", new), created("b", old)]), "b/0");
    assert_eq!(winner(&[created("b", old), created("a", old)]), "a/0");
    assert_eq!(winner(&[created("b", None), created("a", None)]), "a/0");
    assert_eq!(winner(&[created("a", None), created("b", new)]), "b/0");
}

#[test]
fn grpc_prefers_service_and_method_then_service_then_method() {
    let rules = vec![
        rule(vec![grpc(None, None)]),
        rule(vec![grpc(None, Some("Get"))]),
        rule(vec![grpc(Some("shop.Cart"), None)]),
        rule(vec![grpc(Some("shop.Cart"), Some("Get"))]),
    ];
    let grpc_route = HttpRoute { kind: RouteKind::Grpc, ..route("g", rules) };
    let http_route = route("h", vec![rule(vec![exact("/shop.Cart/Get")])]);
    // Of two kinds only the more specific acts.
    let matcher = Matcher::new(&[http_route, grpc_route], "shop");
    for (path, expected) in
        [("/shop.Cart/Get", "g/3"), ("/shop.Cart/Put", "g/2"), ("/shop.Order/Get", "g/1"), ("/shop.Order/Put", "g/0")]
    {
        assert_eq!(find(&matcher, "POST", path, &[]).as_deref(), Some(expected), "{path}");
    }
}

#[test]
fn consumer_routes_act_for_their_namespace_alone_and_replace_the_producers() {
    let producer = route("producer", vec![rule(vec![])]);
    let consumer =
        HttpRoute { consumer_namespace: Some("web".into()), ..route("consumer", vec![rule(vec![prefix("/a")])]) };
    let routes = [producer, consumer];
    let (web, shop) = (Matcher::new(&routes, "web"), Matcher::new(&routes, "shop"));
    assert_eq!(find(&web, "GET", "/a", &[]).as_deref(), Some("consumer/0"));
    assert_eq!(find(&web, "GET", "/b", &[]), None);
    assert_eq!(find(&shop, "GET", "/a", &[]).as_deref(), Some("producer/0"));
    assert!(!web.is_empty());
    assert!(Matcher::new(&[], "web").is_empty());
}

#[test]
fn the_prefix_that_matched_is_named() {
    let rules = vec![rule(vec![prefix("/a/"), exact("/b")]), rule(vec![])];
    let matcher = Matcher::new(&[route("r", rules)], "shop");
    for (path, named) in [("/a/x", "/a"), ("/b", "/b"), ("/c", "")] {
        let (path, headers) = (NormalPath::parse(path).unwrap(), HeaderMap::new());
        let request = RequestView { method: "GET", path: &path, query: None, authority: None, headers: &headers };
        assert_eq!(matcher.find(&request).unwrap().prefix, named);
    }
}

#[test]
fn filters_change_the_request_and_the_response() {
    let filters = vec![
        Filter::RequestHeaders(HeaderChange { set: vec![field("x-v", "1")], ..HeaderChange::default() }),
        Filter::Rewrite { host: Some("other.example".into()), path: Some(PathChange::Prefix("/new".into())) },
        Filter::ResponseHeaders(HeaderChange { add: vec![field("x-r", "1")], ..HeaderChange::default() }),
    ];
    let rules = vec![HttpRule { filters, ..rule(vec![prefix("/old")]) }];
    let matcher = Matcher::new(&[route("r", rules)], "shop");
    let rule = &matcher.rules()[0];
    let mut request = RequestHead::default();
    request.set_authority(b"cart.shop");
    request.set_target(b"/old/x?q=1");
    assert_eq!(rule.direct(&Origin { scheme: "http", host: "cart.shop", port: 80 }, "/old/x", None, "/old"), None);
    rule.apply_request(0, &mut request, "/old/x", "/old");
    assert_eq!(request.target(), b"/new/x?q=1");
    assert_eq!(request.authority(), Some(&b"other.example"[..]));
    assert_eq!(request.fields.named(b"x-v").collect::<Vec<_>>(), [b"1"]);
    let mut fields = Fields::new();
    rule.apply_response(0, &mut fields);
    assert_eq!(fields.named(b"x-r").collect::<Vec<_>>(), [b"1"]);
}

#[test]
fn rules_answer_by_themselves() {
    let redirect = |scheme: Option<&str>, port, path| Filter::Redirect {
        scheme: scheme.map(Into::into),
        host: None,
        port,
        path,
        status: 301,
    };
    let fail = Filter::Fail { status: 500, reason: "unknown filter".into() };
    let direct = |filters: Vec<Filter>| {
        let rules = vec![HttpRule { filters, ..rule(vec![prefix("/a")]) }];
        let matcher = Matcher::new(&[route("r", rules)], "shop");
        let origin = Origin { scheme: "http", host: "cart.shop", port: 8080 };
        match matcher.rules()[0].direct(&origin, "/a/b", Some("q=1"), "/a").unwrap() {
            Direct::Redirect { status, location } => format!("{} {}", status.as_u16(), location.to_str().unwrap()),
            Direct::Fail { status, reason } => format!("{} {reason}", status.as_u16()),
            Direct::Preflight(_) => "preflight".to_owned(),
        }
    };
    assert_eq!(direct(vec![redirect(None, None, None)]), "301 http://cart.shop:8080/a/b?q=1");
    assert_eq!(direct(vec![redirect(Some("https"), None, None)]), "301 https://cart.shop/a/b?q=1");
    let full = Some(PathChange::Full("/z".into()));
    assert_eq!(direct(vec![redirect(None, Some(80), full)]), "301 http://cart.shop/z?q=1");
    let shorter = Some(PathChange::Prefix("/".into()));
    assert_eq!(direct(vec![redirect(None, Some(80), shorter)]), "301 http://cart.shop/b?q=1");
    assert_eq!(direct(vec![redirect(None, None, None), fail]), "500 unknown filter");
}

#[test]
fn patterns_come_behind_exact_paths_and_before_prefixes_the_longest_first() {
    let matches = [prefix("/"), prefix("/a/b"), regex("/a/.*"), regex("/a/[b]/.*"), exact("/a/b/c")];
    let matcher = Matcher::new(&[route("r", matches.into_iter().map(|m| rule(vec![m])).collect())], "shop");
    for (path, expected) in
        [("/a/b/c", "r/4"), ("/a/b/d", "r/3"), ("/a/b", "r/2"), ("/a/x", "r/2"), ("/a", "r/0"), ("/x/a/b/c", "r/0")]
    {
        assert_eq!(find(&matcher, "GET", path, &[]).as_deref(), Some(expected), "{path}");
    }
    let with = |method: Option<&str>| HttpMatch { method: method.map(Into::into), ..regex("/a") };
    let rules = vec![rule(vec![with(None)]), rule(vec![with(Some("PUT"))])];
    let matcher = Matcher::new(&[route("r", rules)], "shop");
    assert_eq!(find(&matcher, "PUT", "/a", &[]).as_deref(), Some("r/1"));
    assert_eq!(find(&matcher, "GET", "/a", &[]).as_deref(), Some("r/0"));
}

#[test]
fn headers_parameters_and_calls_are_matched_by_pattern() {
    let user = HttpMatch { headers: vec![ValueMatch::regex("x-user", "a(da|nn)")], ..HttpMatch::default() };
    let version = HttpMatch { query: vec![ValueMatch::regex("v", "[0-9]+")], ..HttpMatch::default() };
    let matcher = Matcher::new(&[route("r", vec![rule(vec![user]), rule(vec![version])])], "shop");
    assert_eq!(find(&matcher, "GET", "/", &[("x-user", "ada")]).as_deref(), Some("r/0"));
    assert_eq!(find(&matcher, "GET", "/?v=12", &[("x-user", "adam")]).as_deref(), Some("r/1"));
    assert_eq!(find(&matcher, "GET", "/?v=x", &[]), None);

    let call = |service: Option<&str>, method: Option<&str>| HttpMatch {
        path: Some(PathMatch::GrpcRegex { service: service.map(Into::into), method: method.map(Into::into) }),
        ..HttpMatch::default()
    };
    let rules = vec![
        rule(vec![call(Some(r"shop\..*"), None)]),
        rule(vec![call(None, Some("Get.*"))]),
        rule(vec![call(Some(r"shop\..*"), Some("Get.*"))]),
    ];
    let matcher = Matcher::new(&[HttpRoute { kind: RouteKind::Grpc, ..route("g", rules) }], "shop");
    for (path, expected) in [
        ("/shop.Cart/GetAll", Some("g/2")),
        ("/shop.Cart/Put", Some("g/0")),
        ("/bank.Vault/Get", Some("g/1")),
        ("/bank.Vault/Put", None),
        ("/shop.Cart/Get/All", None),
    ] {
        assert_eq!(find(&matcher, "POST", path, &[]).as_deref(), expected, "{path}");
    }
}

#[test]
fn what_is_not_understood_fails_every_request_that_may_be_meant() {
    let unknown = |by| veer_core::route::ValueMatch { by, ..ValueMatch::exact("x-user", "ada") };
    let foreign = Filter::Unknown(Foreign);
    let rules = vec![
        rule(vec![regex("/a(")]),
        rule(vec![HttpMatch { path: Some(PathMatch::Unknown(Foreign)), ..HttpMatch::default() }]),
        rule(vec![HttpMatch { headers: vec![unknown(Comparison::Unknown)], ..prefix("/b") }]),
        rule(vec![HttpMatch { headers: vec![ValueMatch::regex("x-user", "(")], ..prefix("/b") }]),
        HttpRule { filters: vec![foreign], ..rule(vec![prefix("/b")]) },
    ];
    for wrong in rules {
        let matcher = Matcher::new(&[route("r", vec![wrong.clone()])], "shop");
        assert_eq!(find(&matcher, "GET", "/b", &[]).as_deref(), Some("r/0"), "{wrong:?}");
        let origin = Origin { scheme: "http", host: "cart.shop", port: 80 };
        let direct = matcher.rules()[0].direct(&origin, "/b", None, "");
        assert!(matches!(direct, Some(Direct::Fail { status, .. }) if status.as_u16() == 500), "{wrong:?}");
    }
}

#[test]
fn a_backend_has_filters_of_its_own() {
    let set = |value: &str| HeaderChange { set: vec![field("x-v", value)], ..HeaderChange::default() };
    let rewrite = |host: &str| Filter::Rewrite { host: Some(host.into()), path: Some(PathChange::Prefix("/n".into())) };
    let redirect = Filter::Redirect { scheme: None, host: None, port: None, path: None, status: 307 };
    let spec = HttpRule {
        filters: vec![Filter::RequestHeaders(set("rule")), Filter::ResponseHeaders(set("rule"))],
        backends: vec![
            backend(vec![]),
            backend(vec![
                Filter::RequestHeaders(set("own")),
                rewrite("own.example"),
                Filter::ResponseHeaders(set("own")),
            ]),
            backend(vec![redirect]),
        ],
        ..rule(vec![prefix("/o")])
    };
    let matcher = Matcher::new(&[route("r", vec![spec])], "shop");
    let rule = &matcher.rules()[0];
    let sent = |backend| {
        let mut request = RequestHead::default();
        request.set_authority(b"cart.shop");
        request.set_target(b"/o/x?q=1");
        rule.apply_request(backend, &mut request, "/o/x", "/o");
        let mut response = Fields::new();
        rule.apply_response(backend, &mut response);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let value = |fields: &Fields| fields.named(b"x-v").map(text).collect::<Vec<_>>().join("+");
        (text(request.authority().unwrap()), text(request.target()), value(&request.fields), value(&response))
    };
    let owned = |a: &str, b: &str, c: &str, d: &str| (a.to_owned(), b.to_owned(), c.to_owned(), d.to_owned());
    assert_eq!(sent(0), owned("cart.shop", "/o/x?q=1", "rule", "rule"));
    assert_eq!(sent(1), owned("own.example", "/n/x?q=1", "own", "rule"));
    let origin = Origin { scheme: "http", host: "cart.shop", port: 80 };
    assert_eq!(rule.direct_of_backend(0, &origin, "/o/x", None, "/o"), None);
    assert!(matches!(rule.direct_of_backend(2, &origin, "/o/x", None, "/o"), Some(Direct::Redirect { .. })));
}

#[test]
fn leave_is_asked_for_by_rules_alone_and_of_nobody_wrong() {
    let auth = |invalid: Option<&str>| {
        let to = Box::new(Backend { invalid: invalid.map(Into::into), ..backend(vec![]) });
        let (request_headers, response_headers) = (vec![], vec![]);
        Filter::ExternalAuth(ExternalAuth {
            to,
            grpc: false,
            path: None,
            request_headers,
            response_headers,
            body_limit: 0,
        })
    };
    let origin = Origin { scheme: "http", host: "cart.shop", port: 80 };
    let of = |filters, backends| {
        let spec = HttpRule { filters, backends, ..rule(vec![]) };
        Arc::clone(&Matcher::new(&[route("r", vec![spec])], "shop").rules()[0])
    };
    let good = of(vec![auth(None)], vec![backend(vec![])]);
    assert!(good.auth().is_some() && good.direct(&origin, "/", None, "").is_none());
    let wrong = of(vec![auth(Some("no such service"))], vec![backend(vec![])]);
    assert!(matches!(wrong.direct(&origin, "/", None, ""), Some(Direct::Fail { .. })));
    let misplaced = of(vec![], vec![backend(vec![auth(None)])]);
    assert!(matches!(misplaced.direct_of_backend(0, &origin, "/", None, ""), Some(Direct::Fail { .. })));
}

/// The order of the specification, said once more and plainly: every match is tried, the best by the whole key wins.
fn find_slowly(routes: &[HttpRoute], method: &str, path: &str) -> Option<String> {
    let mut best: Option<((bool, usize, bool, usize), (String, usize))> = None;
    for route in routes {
        for (index, rule) in route.rules.iter().enumerate() {
            for condition in &rule.matches {
                let (exact, length) = match condition.path.as_ref().unwrap() {
                    PathMatch::Exact(text) if **text == *path => (true, 0),
                    PathMatch::Prefix(text) => {
                        let text = text.trim_end_matches('/');
                        match path.strip_prefix(text) {
                            Some(rest) if rest.is_empty() || rest.starts_with('/') => (false, text.len()),
                            _ => continue,
                        }
                    }
                    _ => continue,
                };
                if condition.method.as_deref().is_some_and(|m| m != method) {
                    continue;
                }
                let key = (exact, length, condition.method.is_some(), 0);
                let name = (route.name.to_string(), index);
                let better = best.as_ref().is_none_or(|(k, n)| key > *k || (key == *k && name < *n));
                if better {
                    best = Some((key, name));
                }
            }
        }
    }
    best.map(|(_, (name, index))| format!("{}/{index}", name.split_once('/').unwrap().1))
}

fn any_match() -> impl Strategy<Value = HttpMatch> {
    ("(/[ab]){0,3}/?", any::<bool>(), proptest::option::of("GET|PUT")).prop_map(|(path, is_exact, method)| {
        let path = if path.is_empty() { "/".to_owned() } else { path };
        HttpMatch { method: method.map(Into::into), ..if is_exact { exact(&path) } else { prefix(&path) } }
    })
}

proptest! {
    #[test]
    fn the_index_finds_what_a_plain_search_finds(
        rules in proptest::collection::vec(proptest::collection::vec(any_match(), 1..4), 1..6),
        path in "(/[ab]){1,4}/?",
        method in "GET|PUT",
    ) {
        let (first, second) = rules.split_at(rules.len() / 2);
        let of = |name: &str, rules: &[Vec<HttpMatch>]| route(name, rules.iter().cloned().map(rule).collect());
        let routes = [of("b", first), of("a", second)];
        let found = find(&Matcher::new(&routes, "shop"), &method, &path, &[]);
        prop_assert_eq!(found, find_slowly(&routes, &method, &path));
    }
}
