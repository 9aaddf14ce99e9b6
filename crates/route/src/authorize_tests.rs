use veer_core::policy::AuthorizationAction::{Allow, Deny};

use super::*;

fn policy(name: &str, action: AuthorizationAction, rules: Vec<AuthorizationRule>) -> AuthorizationPolicy {
    AuthorizationPolicy { name: name.into(), action, rules }
}

fn texts(list: &[&str]) -> Vec<Arc<str>> {
    list.iter().map(|&text| text.into()).collect()
}

fn from(principals: &[&str], namespaces: &[&str], trust_domains: &[&str]) -> Vec<CallerMatch> {
    let (principals, namespaces, trust_domains) = (texts(principals), texts(namespaces), texts(trust_domains));
    vec![CallerMatch { principals, namespaces, trust_domains }]
}

fn to(ports: &[u16], methods: &[&str], paths: &[&str]) -> Vec<RequestMatch> {
    vec![RequestMatch { ports: ports.to_vec(), methods: texts(methods), paths: texts(paths) }]
}

fn rule(from: Vec<CallerMatch>, to: Vec<RequestMatch>) -> Vec<AuthorizationRule> {
    vec![AuthorizationRule { from, to }]
}

fn id(text: &str) -> SpiffeId {
    text.parse().unwrap()
}

const WEB: &str = "spiffe://east.example/ns/web/sa/front";
const FAR: &str = "spiffe://west.example/ns/web/sa/front";

/// `+name`, `-name`, `+` or `-`; an empty path stands for a connection whose requests are not seen.
fn check(policies: &[AuthorizationPolicy], caller: Option<&str>, port: u16, method: &str, path: &str) -> String {
    let caller = caller.map(id);
    let path = (!path.is_empty()).then(|| NormalPath::parse(path).unwrap());
    let asked = Asked { port, method: path.is_some().then_some(method), path: path.as_ref() };
    let own = TrustDomain::new("east.example").unwrap();
    let verdict = authorize(policies, caller.as_ref(), &own, &asked);
    format!("{}{}", if verdict.allowed { '+' } else { '-' }, verdict.by.as_deref().unwrap_or_default())
}

#[test]
fn without_policies_everything_passes() {
    assert_eq!(check(&[], None, 80, "GET", "/"), "+");
}

#[test]
fn deny_is_first_and_allow_refuses_what_it_does_not_name() {
    let policies = [
        policy("allow", Allow, rule(from(&[WEB], &[], &[]), vec![])),
        policy("deny", Deny, rule(vec![], to(&[], &[], &["/admin*"]))),
    ];
    assert_eq!(check(&policies, Some(WEB), 80, "GET", "/x"), "+allow");
    assert_eq!(check(&policies, Some(WEB), 80, "GET", "/admin/x"), "-deny");
    assert_eq!(check(&policies, Some(WEB), 80, "GET", "//admin"), "-deny");
    assert_eq!(check(&policies, Some(FAR), 80, "GET", "/x"), "-");
    assert_eq!(check(&policies, None, 80, "GET", "/x"), "-");
}

#[test]
fn policies_without_rules_allow_and_deny_nobody() {
    assert_eq!(check(&[policy("p", Allow, vec![])], Some(WEB), 80, "GET", "/"), "-");
    assert_eq!(check(&[policy("p", Deny, vec![])], Some(WEB), 80, "GET", "/"), "+");
}

#[test]
fn callers_are_told_by_principal_namespace_and_trust_domain() {
    for (from, web, far, plain) in [
        (from(&[WEB], &[], &[]), true, false, false),
        (from(&["spiffe://east.example/ns/web/*"], &[], &[]), true, false, false),
        (from(&["spiffe://east.example/ns/web/sa/fron"], &[], &[]), false, false, false),
        (from(&["spiffe://east.example/ns/web/sa/front/x"], &[], &[]), false, false, false),
        (from(&["spiffe://*"], &[], &[]), true, true, false),
        (from(&["*"], &[], &[]), true, true, false),
        // A namespace is one of this trust domain: others may use the same name for something else.
        (from(&[], &["web"], &[]), true, false, false),
        (from(&[], &[], &["west.example"]), false, true, false),
        (from(&[], &["web"], &["west.example"]), false, false, false),
        (from(&[], &[], &[]), true, true, true),
        (vec![], true, true, true),
    ] {
        let policies = [policy("p", Allow, rule(from.clone(), vec![]))];
        let passes = |caller| check(&policies, caller, 80, "GET", "/") == "+p";
        assert_eq!((passes(Some(WEB)), passes(Some(FAR)), passes(None)), (web, far, plain), "{from:?}");
    }
}

#[test]
fn requests_are_told_by_port_method_and_path() {
    let policies = [policy("p", Allow, rule(vec![], to(&[80, 81], &["GET", "HEAD"], &["/a", "/b/*"])))];
    assert_eq!(check(&policies, None, 80, "GET", "/a"), "+p");
    assert_eq!(check(&policies, None, 81, "HEAD", "/b/c"), "+p");
    for (port, method, path) in [(82, "GET", "/a"), (80, "PUT", "/a"), (80, "GET", "/a/"), (80, "GET", "/b")] {
        assert_eq!(check(&policies, None, port, method, path), "-", "{port} {method} {path}");
    }
}

#[test]
fn unseen_requests_fail_closed() {
    for to_what in [to(&[80], &["GET"], &[]), to(&[80], &[], &["/a"])] {
        let allow = [policy("p", Allow, rule(vec![], to_what.clone()))];
        let deny = [policy("p", Deny, rule(vec![], to_what))];
        assert_eq!(check(&allow, Some(WEB), 80, "", ""), "-");
        assert_eq!(check(&deny, Some(WEB), 80, "", ""), "-p");
        assert_eq!(check(&deny, Some(WEB), 81, "", ""), "+");
    }
    let by_port = [policy("p", Allow, rule(vec![], to(&[80], &[], &[])))];
    assert_eq!(check(&by_port, Some(WEB), 80, "", ""), "+p");
}

#[test]
fn paths_of_policies_take_the_normal_form_of_requests() {
    let denies = |pattern: &str, path: &str| {
        check(&[policy("p", Deny, rule(vec![], to(&[], &[], &[pattern])))], None, 80, "GET", path) == "-p"
    };
    assert!(denies("/a//b", "/a/b"));
    assert!(denies("/%61dmin*", "/admin/x"));
    assert!(denies("/caf\u{e9}", "/caf%c3%a9"));
    assert!(denies("/a/.*", "/a/.git"));
    assert!(!denies("/a/.*", "/a/git"));
    assert!(denies("*", "/anything"));
}
