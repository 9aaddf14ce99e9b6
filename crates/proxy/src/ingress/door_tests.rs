//! Whom a request is for: tables of listeners and routes, told by the route that answers.

use std::cell::RefCell;

use veer_core::ObjectName;
use veer_core::ingress::{AttachedHttp, ClientCertificates, Ingress, IngressListener, IngressPort, Serves};
use veer_core::route::{HttpMatch, HttpRoute, HttpRule, PathMatch};
use veer_route::{NormalPath, RequestView};

use super::*;

/// A route by name that holds for a path.
fn route(name: &str, path: &str) -> HttpRoute {
    let matches = vec![HttpMatch { path: Some(PathMatch::Prefix(path.into())), ..HttpMatch::default() }];
    HttpRoute {
        name: ObjectName::new("shop", name),
        kind: Default::default(),
        created: None,
        consumer_namespace: None,
        owner: None,
        parent_port: None,
        rules: vec![HttpRule { matches, ..HttpRule::default() }],
    }
}

fn listener(hostname: Option<&str>, attached: &[(&[&str], usize)]) -> IngressListener {
    let attached = attached.iter().map(|(hosts, route)| AttachedHttp {
        hostnames: hosts.iter().map(|host| (*host).into()).collect(),
        route: *route,
    });
    IngressListener {
        name: hostname.unwrap_or("any").into(),
        hostname: hostname.map(Into::into),
        certificates: Vec::new(),
        clients: None,
        serves: Serves::Http(attached.collect()),
    }
}

fn serving(kind: PortKind, routes: Vec<HttpRoute>, listeners: Vec<IngressListener>) -> Serving {
    let port = IngressPort { port: 80, kind, proxy_protocol: None, listeners };
    let gateway = ObjectName::new("shop", "web");
    let ingress = Ingress {
        gateway,
        addresses: Vec::new(),
        ports: vec![port.clone()],
        http_routes: routes,
        client_certificate: None,
    };
    Rc::new(RefCell::new(Rc::new(PortTable::new(&ingress, &port))))
}

fn request(host: &str, path: &str) -> RequestHead {
    let mut head = RequestHead::default();
    head.set_method(b"GET");
    head.set_path(path);
    head.set_authority(host.as_bytes());
    head
}

/// The route that answers, or the status with which nobody does.
fn asked(door: &Door, host: &str, path: &str) -> String {
    let mut head = request(host, path);
    let destination = match door.enter(&mut head) {
        Ok(destination) => destination,
        Err(error) => return error.verdict().status.to_string(),
    };
    let path = NormalPath::parse(head.path()).unwrap();
    let view = RequestView { method: "GET", path: &path, query: None, authority: None, headers: &head.fields };
    let port = destination.service.port(destination.port).unwrap();
    port.find(&view).map_or("404".to_owned(), |matched| matched.rule.route.name.to_string())
}

#[test]
fn the_most_specific_host_with_a_rule_answers() {
    let routes = vec![route("exact", "/a"), route("wild", "/b"), route("any", "/")];
    let hosts: &[(&[&str], usize)] = &[(&["a.example.com"], 0), (&["*.example.com"], 1), (&[], 2)];
    let door = Door::plain(serving(PortKind::Http, routes, vec![listener(None, hosts)]), None);
    for (host, path, route) in [
        ("a.example.com", "/a", "exact"),
        ("A.Example.Com:8080", "/a", "exact"),
        ("a.example.com.", "/a", "exact"),
        ("a.example.com", "/b", "wild"),
        ("a.example.com", "/c", "any"),
        ("b.example.com", "/a", "any"),
        ("b.example.com", "/b", "wild"),
        ("example.com", "/b", "any"),
        ("", "/b", "any"),
    ] {
        assert_eq!(asked(&door, host, path), route, "{host}{path}");
    }
}

#[test]
fn listeners_do_not_share_their_routes() {
    let routes = vec![route("wild", "/"), route("exact", "/a")];
    let wild = listener(Some("*.example.com"), &[(&["*.example.com"], 0)]);
    let exact = listener(Some("a.example.com"), &[(&["a.example.com"], 1)]);
    let bare = listener(Some("bare.org"), &[]);
    let plain =
        Door::plain(serving(PortKind::Http, routes.clone(), vec![wild.clone(), exact.clone(), bare.clone()]), None);
    assert_eq!(asked(&plain, "b.example.com", "/x"), "wild");
    assert_eq!(asked(&plain, "a.example.com", "/x"), "404", "the wildcard listener's routes are not this listener's");
    assert_eq!((asked(&plain, "bare.org", "/"), asked(&plain, "else.org", "/")), ("404".to_owned(), "404".to_owned()));

    // Behind TLS the connection's listener is the only one that is served.
    let serving = serving(PortKind::Tls, routes, vec![wild, exact, bare]);
    let by = |name: &str| Door::sealed(Rc::clone(&serving), Some(name.into()), 0, None);
    assert_eq!(asked(&by("a.example.com"), "a.example.com", "/a"), "exact");
    assert_eq!(asked(&by("b.example.com"), "c.example.com", "/a"), "wild", "the same listener's other host");
    assert_eq!(asked(&by("b.example.com"), "a.example.com", "/a"), "421");
    assert_eq!(asked(&by("a.example.com"), "b.example.com", "/a"), "421");
    assert_eq!(asked(&by("a.example.com"), "else.org", "/a"), "404");
    assert_eq!(asked(&Door::plain(Rc::clone(&serving), None), "a.example.com", "/a"), "421", "the port became another");
    serving.replace(Rc::new(PortTable::empty()));
    assert_eq!(asked(&by("a.example.com"), "a.example.com", "/a"), "404", "the listener is gone");
}

#[test]
fn who_asked_and_for_what_is_told_and_not_believed() {
    let serving = serving(PortKind::Http, vec![route("any", "/")], vec![listener(None, &[(&[], 0)])]);
    let door = Door::plain(serving, Some("203.0.113.7".parse().unwrap()));
    let mut head = request("a.example.com:80", "/");
    head.fields.push(Name::XForwardedFor, b"10.0.0.1");
    head.fields.push(Name::XForwardedProto, b"https");
    head.fields.push(Name::XForwardedHost, b"evil");
    assert!(door.enter(&mut head).is_ok());
    let all =
        |name| head.fields.members(name).map(|value| String::from_utf8_lossy(value).into_owned()).collect::<Vec<_>>();
    assert_eq!(all(Name::XForwardedFor), ["10.0.0.1", "203.0.113.7"]);
    assert_eq!(all(Name::XForwardedProto), ["http"]);
    assert_eq!(all(Name::XForwardedHost), ["a.example.com:80"]);

    let mut head = request("a.example.com:443", "");
    head.set_method(b"CONNECT");
    assert!(door.enter(&mut head).is_err_and(|error| error.verdict().status == 400), "a Gateway opens no tunnels");
}

#[test]
fn who_was_let_in_by_other_terms_is_to_come_again() {
    let clients = |optional| Some(ClientCertificates { authorities_pem: "".into(), optional });
    let asking = |clients: Option<ClientCertificates>| {
        let mut one = listener(None, &[(&[], 0)]);
        one.clients = clients;
        serving(PortKind::Tls, vec![route("any", "/")], vec![one])
    };
    let asks = |serving: &Serving| serving.borrow().listeners.find("a.org").unwrap().asks;
    let (open, lax) = (asking(None), asking(clients(true)));
    assert_eq!(asks(&open), 0);
    assert!(asks(&lax) != 0 && asks(&lax) == asks(&asking(clients(true))), "the same terms, the same mark");
    let door = |serving: &Serving, asked| Door::sealed(Rc::clone(serving), Some("a.org".into()), asked, None);
    assert_eq!(asked(&door(&lax, asks(&lax)), "a.org", "/"), "any");
    assert_eq!(asked(&door(&lax, 0), "a.org", "/"), "421", "nothing was asked when it came");
    assert_eq!(asked(&door(&open, asks(&lax)), "a.org", "/"), "any", "nothing is asked any more");
}
