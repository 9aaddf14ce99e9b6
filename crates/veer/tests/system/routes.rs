//! HTTPRoutes with a Service as parent, through the outbound listener, against a Python application.

use tokio::time::Instant;
use veer_testkit::Fleet;

use crate::support::{ask, fleet, listening, service, serving, workload};

/// A Service without copies of its own, and an HTTPRoute that acts on it.
fn front(name: &str, rules: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: shop }}
spec:
  ports: [{{ name: http, port: 80, appProtocol: http }}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{ name: {name}, namespace: shop }}
spec:
  parentRefs: [{{ group: \"\", kind: Service, name: {name}, port: 80 }}]
  rules:
{rules}"
    )
}

/// Services `stable` and `canary` of one copy each, and one with routes.
async fn routed(network: u8, name: &str, rules: &str) -> Fleet {
    let mut spec = fleet().cluster("west", network, 1).visitor("west").manifest("west/front.yaml", &front(name, rules));
    for (n, backend) in (31..).zip(["stable", "canary"]) {
        spec = spec.manifest(&format!("west/{backend}.yaml"), &service(backend, 80, "http"));
        let copy = workload(backend, 1, &format!("127.{network}.0.{n}"), "http", "app.py");
        spec = spec.manifest(&format!("west/{backend}-1.yaml"), &copy);
    }
    let fleet = spec.start().await.expect("the fleet starts");
    listening(&fleet, "west", 31, 9080).await;
    listening(&fleet, "west", 32, 9080).await;
    serving(&fleet, "west", "stable", "/").await;
    serving(&fleet, "west", "canary", "/").await;
    fleet
}

#[tokio::test]
async fn a_canary_for_one_user_is_one_route_with_a_header_match() {
    let rules = "
  - matches: [{ headers: [{ name: user, value: ada }] }]
    backendRefs: [{ name: canary, port: 80 }]
  - backendRefs: [{ name: stable, port: 80 }]
";
    let fleet = routed(74, "page", rules).await;
    for (user, served) in
        [(Some("ada"), "canary-1"), (Some("Ada"), "stable-1"), (Some("bob"), "stable-1"), (None, "stable-1")]
    {
        let field = format!("user: {}", user.unwrap_or("nobody"));
        let more = if user.is_some() { &["-H", field.as_str()][..] } else { &[] };
        for _ in 0..5 {
            let answer = ask(&fleet, "west", "page.shop", "/", more);
            assert_eq!((answer.status, answer.field("x-served-by")), (200, served), "{user:?}: {answer:?}");
        }
    }

    // Edited while it runs: the canary goes to another user, in under a second of being written (polled, on a busy machine).
    fleet.write("west/front.yaml", &front("page", &rules.replace("ada", "bob"))).expect("written");
    let begun = Instant::now();
    veer_testkit::eventually("the edited route acts", crate::support::SOON, || {
        let answer = ask(&fleet, "west", "page.shop", "/", &["-H", "user: bob"]);
        if answer.field("x-served-by") == "canary-1" { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    eprintln!("an edited route acted after {:?}", begun.elapsed());
    assert!(begun.elapsed().as_secs_f64() < 2.0, "an edited route took {:?}", begun.elapsed());
    assert_eq!(ask(&fleet, "west", "page.shop", "/", &["-H", "user: ada"]).field("x-served-by"), "stable-1");
}

#[tokio::test]
async fn the_most_specific_match_wins_as_the_gateway_api_says() {
    // Written from the least specific to the most, so that the order of the file never helps.
    let mut rules = String::new();
    for (name, condition) in [
        ("prefix", "path: { type: PathPrefix, value: /a }"),
        ("query", "path: { type: PathPrefix, value: /a }, queryParams: [{ name: q, value: \"1\" }]"),
        ("header", "path: { type: PathPrefix, value: /a }, headers: [{ name: x-one, value: \"1\" }]"),
        (
            "headers",
            "path: { type: PathPrefix, value: /a }, headers: [{ name: x-one, value: \"1\" }, { name: x-two, value: \"2\" }]",
        ),
        ("method", "path: { type: PathPrefix, value: /a }, method: POST"),
        ("longer", "path: { type: PathPrefix, value: /a/b }"),
        ("exact", "path: { type: Exact, value: /a/b/c }"),
    ] {
        rules += &format!(
            "
  - matches: [{{ {condition} }}]
    filters: [{{ type: ResponseHeaderModifier, responseHeaderModifier: {{ set: [{{ name: x-rule, value: {name} }}] }} }}]
    backendRefs: [{{ name: stable, port: 80 }}]
"
        );
    }
    let fleet = routed(75, "order", &rules).await;
    let (one, two) = (["-H", "x-one: 1"], ["-H", "x-two: 2"]);
    let both = [one, two].concat();
    let post = ["-X", "POST"];
    let post_one = [&post[..], &one].concat();
    for (path, more, rule) in [
        ("/a", &[][..], "prefix"),
        ("/a/", &[], "prefix"),
        ("/a/x/../y", &["--path-as-is"], "prefix"),
        ("/a?q=1", &[], "query"),
        ("/a?q=2", &[], "prefix"),
        ("/a", &one, "header"),
        ("/a?q=1", &one, "header"),
        ("/a", &both, "headers"),
        ("/a", &post, "method"),
        ("/a", &post_one, "method"),
        ("/a/b", &[], "longer"),
        ("/a/b", &post, "longer"),
        ("/a/b/c", &[], "exact"),
        ("/a/b/c", &post, "exact"),
        ("/a/b/c/d", &[], "longer"),
    ] {
        let answer = ask(&fleet, "west", "order.shop", path, more);
        assert_eq!((answer.status, answer.field("x-rule")), (200, rule), "{path} {more:?}: {answer:?}");
    }
    // A prefix ends at a path segment; what no rule matches is not found, and says why.
    for path in ["/ab", "/", "/A"] {
        let answer = ask(&fleet, "west", "order.shop", path, &[]);
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
        assert!(answer.body.contains("veer: NR"), "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn backends_share_by_weight() {
    let rules = "
  - backendRefs:
    - { name: stable, port: 80, weight: 90 }
    - { name: canary, port: 80, weight: 10 }
";
    let fleet = routed(76, "split", rules).await;
    let loaded = fleet.load("west", "split.shop", "/", 200, 5).expect("load").finish().expect("load");
    assert_eq!(loaded.failures, 0, "{}", loaded.json);
    let count = |name: &str| loaded.json["served_by"][name].as_f64().unwrap_or(0.0);
    let share = count("canary-1") / (count("canary-1") + count("stable-1"));
    // Of 1,000 requests 100 ± 9.5 (one sigma): 0.06 is more than six.
    assert!((share - 0.1).abs() < 0.06, "the canary got {share} of the requests: {}", loaded.json["served_by"]);
}

#[tokio::test]
async fn filters_change_what_they_say_and_nothing_else() {
    let rules = "
  - matches: [{ path: { type: PathPrefix, value: /fields } }]
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier:
        set: [{ name: x-set, value: new }]
        add: [{ name: x-add, value: more }]
        remove: [x-gone]
    - type: ResponseHeaderModifier
      responseHeaderModifier:
        set: [{ name: x-set, value: answer }]
        add: [{ name: x-served-by, value: route }]
        remove: [x-app]
    backendRefs: [{ name: stable, port: 80 }]
  - matches: [{ path: { type: PathPrefix, value: /old } }]
    filters:
    - type: RequestRedirect
      requestRedirect: { hostname: new.example, path: { type: ReplacePrefixMatch, replacePrefixMatch: /new }, statusCode: 301 }
  - matches: [{ path: { type: PathPrefix, value: /rewrite } }]
    filters:
    - type: URLRewrite
      urlRewrite: { hostname: inner.example, path: { type: ReplacePrefixMatch, replacePrefixMatch: /inner } }
    backendRefs: [{ name: stable, port: 80 }]
  - matches: [{ path: { type: RegularExpression, value: \"/v[0-9]+/.*\" }, headers: [{ type: RegularExpression, name: x-user, value: \"a(da|nn)\" }] }]
    filters:
    - { type: RequestMirror, requestMirror: { backendRef: { name: canary, port: 80 } } }
    - { type: CORS, cors: { allowOrigins: [\"https://*.shop.example\"], allowMethods: [PUT] } }
    backendRefs:
    - name: stable
      port: 80
      filters: [{ type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: x-own, value: stable }] } }]
    sessionPersistence: { sessionName: cart }
  - matches: [{ path: { type: PathPrefix, value: /unknown } }]
    filters:
    - { type: ExtensionRef, extensionRef: { group: shop.example, kind: Quota, name: some } }
    backendRefs: [{ name: stable, port: 80 }]
";
    let fleet = routed(77, "filters", rules).await;

    let sent = ["-H", "x-set: old", "-H", "x-add: some", "-H", "x-gone: here", "-H", "x-kept: here"];
    let answer = ask(&fleet, "west", "filters.shop", "/fields/1?q=%2F&q=2", &sent);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.seen("x-set"), ["new"], "{answer:?}");
    assert_eq!(answer.seen("x-add").join(","), "some,more", "{answer:?}");
    assert_eq!(answer.seen("x-gone"), [""; 0], "{answer:?}");
    assert_eq!(answer.seen("x-kept"), ["here"], "{answer:?}");
    assert_eq!(answer.seen("host"), ["filters.shop"], "{answer:?}");
    assert_eq!(answer.json()["target"], "/fields/1?q=%2F&q=2", "{answer:?}");
    assert_eq!(answer.field("x-set"), "answer", "{answer:?}");
    assert_eq!(answer.fields("x-served-by").collect::<Vec<_>>(), ["stable-1", "route"], "{answer:?}");
    assert_eq!(answer.field("x-app"), "", "{answer:?}");

    let answer = ask(&fleet, "west", "filters.shop", "/old/path?q=1", &[]);
    assert_eq!((answer.status, answer.field("location")), (301, "http://new.example/new/path?q=1"), "{answer:?}");

    let answer = ask(&fleet, "west", "filters.shop", "/rewrite/path?q=1", &[]);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["target"], "/inner/path?q=1", "{answer:?}");
    assert_eq!(answer.seen("host"), ["inner.example"], "{answer:?}");

    let (ada, eve) = (["-H", "x-user: ada", "-H", "origin: https://web.shop.example"], ["-H", "x-user: eve"]);
    let answer = ask(&fleet, "west", "filters.shop", "/v7/cart", &ada);
    assert_eq!((answer.status, answer.seen("x-own")), (200, vec!["stable".to_owned()]), "{answer:?}");
    assert_eq!(answer.field("access-control-allow-origin"), "https://web.shop.example", "{answer:?}");
    assert!(answer.field("set-cookie").starts_with("cart="), "{answer:?}");
    let asks = [&ada[..], &["-X", "OPTIONS", "-H", "access-control-request-method: PUT"]].concat();
    let answer = ask(&fleet, "west", "filters.shop", "/v7/cart", &asks);
    assert_eq!((answer.status, answer.field("access-control-allow-methods")), (204, "PUT"), "{answer:?}");
    assert_eq!(ask(&fleet, "west", "filters.shop", "/v7/cart", &eve).status, 404);

    // A filter that this version does not know must not be skipped (Gateway API): the rule fails instead.
    let answer = ask(&fleet, "west", "filters.shop", "/unknown", &[]);
    assert_eq!(answer.status, 500, "{answer:?}");
}

#[tokio::test]
async fn time_limits_and_retries_do_what_the_rule_says() {
    let rules = "
  - matches: [{ path: { type: PathPrefix, value: /sleep } }]
    timeouts: { request: 400ms }
    backendRefs: [{ name: stable, port: 80 }]
  - matches: [{ path: { type: PathPrefix, value: /flaky } }]
    retry: { codes: [503], attempts: 2, backoff: 10ms }
    backendRefs: [{ name: stable, port: 80 }]
  - matches: [{ path: { type: PathPrefix, value: /nowhere } }]
    backendRefs: [{ name: missing, port: 80 }]
";
    let fleet = routed(78, "limits", rules).await;

    let begun = Instant::now();
    let answer = ask(&fleet, "west", "limits.shop", "/sleep?ms=5000", &[]);
    assert_eq!(answer.status, 504, "{answer:?}");
    assert!(answer.body.contains("veer: UT"), "{answer:?}");
    assert!(
        (0.4..3.0).contains(&begun.elapsed().as_secs_f64()),
        "the limit of 400 ms struck after {:?}",
        begun.elapsed()
    );
    assert_eq!(ask(&fleet, "west", "limits.shop", "/sleep?ms=10", &[]).status, 200);

    let flaky = |host: &str, key: &str, fail: u32, status: u16, more: &[&str]| {
        let answer = ask(&fleet, "west", host, &format!("/flaky?key={key}&fail={fail}&status={status}"), more);
        let asked = ask(&fleet, "west", "stable.shop", &format!("/count?key={key}"), &[]).json()["asked"].clone();
        (answer.status, asked.as_u64().expect("a number"))
    };
    assert_eq!(flaky("limits.shop", "twice", 2, 503, &[]), (200, 3), "a listed code is retried");
    assert_eq!(flaky("limits.shop", "post", 2, 503, &["-d", "body"]), (200, 3), "the rule speaks for its methods");
    assert_eq!(flaky("limits.shop", "thrice", 3, 503, &[]), (503, 3), "two attempts after the first, no more");
    assert_eq!(flaky("limits.shop", "other", 1, 500, &[]), (500, 1), "a code that is not listed is an answer");
    assert_eq!(
        flaky("stable.shop", "none", 1, 503, &[]),
        (503, 1),
        "without a rule the application's 503 is an answer"
    );
    let retried = fleet.metric("west", 10, "veer_retries_total", &[("reason", "code")]).expect("metrics");
    assert!((retried - 6.0).abs() < 0.1, "{retried} retries counted, 6 were made");

    // A reference to nothing: its share of requests fails, and the manifests' fault is told.
    let answer = ask(&fleet, "west", "limits.shop", "/nowhere", &[]);
    assert_eq!(answer.status, 500, "{answer:?}");
    let (text, _) = fleet.tool("west", &["status"]).expect("status");
    assert!(text.contains("front.yaml") && text.contains("missing"), "{text}");
}
