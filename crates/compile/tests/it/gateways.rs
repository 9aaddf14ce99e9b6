//! Gateways: which listeners are valid, which routes attach, and what the status of every object says, after the behaviours that
//! the Gateway API's conformance suite looks at.

use veer_compile::Meaning;
use veer_compile::status::{Condition, ListenersStatus, Status};
use veer_core::ingress::{PortKind, Serves};
use veer_resources::KindName;

use crate::support::*;

/// A Gateway at 127.1.0.50 with these listeners, one in a line.
fn gateway(name: &str, listeners: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: {namespace}, generation: 7}}\nspec:\n  gatewayClassName: veer\n  addresses: [{{value: 127.1.0.50}}]\n  listeners:\n{listeners}"
    )
}

fn route(kind: &str, name: &str, parent: &str, more: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}, generation: 2}}\nspec:\n  parentRefs: [{{{parent}}}]\n{more}\n  rules: [{{backendRefs: [{{name: cart, port: 80}}]}}]"
    )
}

fn secret(name: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    let pem = |label: &str| format!("-----BEGIN {label}-----\\nAAAA\\n-----END {label}-----\\n");
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\ntype: kubernetes.io/tls\nstringData: {{tls.crt: \"{}\", tls.key: \"{}\"}}",
        pem("CERTIFICATE"),
        pem("PRIVATE KEY")
    )
}

const HTTP: &str = "  - {name: http, port: 80, protocol: HTTP}\n";
const CART: &str = "  - {name: http, port: 80, protocol: HTTP}\n";

/// `Type=Reason` for what is true, `!Type=Reason` for what is not.
fn told(conditions: &[Condition]) -> String {
    let one = |c: &Condition| format!("{}{}={}", if c.status == "True" { "" } else { "!" }, c.condition, c.reason);
    conditions.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn listeners<'a>(meaning: &'a Meaning, kind: KindName, name: &str) -> &'a ListenersStatus {
    match &*meaning.statuses[&(kind, object(name))] {
        Status::Listeners(status) => status,
        other => panic!("{other:?}"),
    }
}

/// The object's conditions, and the listeners' with the routes attached to each.
fn gateway_status(meaning: &Meaning, name: &str) -> (String, Vec<String>) {
    let status = listeners(meaning, KindName::Gateway, name);
    let listener =
        |l: &veer_compile::status::ListenerStatus| format!("{} {}: {}", l.name, l.attached_routes, told(&l.conditions));
    (told(&status.conditions), status.listeners.iter().map(listener).collect())
}

/// What a route's parents say, one each.
fn parents(meaning: &Meaning, kind: KindName, name: &str) -> Vec<String> {
    match meaning.statuses.get(&(kind, object(name))).map(|status| &**status) {
        Some(Status::Route(status)) => status.parents.iter().map(|parent| told(&parent.conditions)).collect(),
        None => Vec::new(),
        other => panic!("{other:?}"),
    }
}

const FINE: &str = "Accepted=Accepted !Conflicted=NoConflicts Programmed=Programmed ResolvedRefs=ResolvedRefs";
const TAKEN: &str = "Accepted=Accepted ResolvedRefs=ResolvedRefs";

#[test]
fn a_gateway_with_a_route_is_accepted_and_served_by_a_proxy_of_its_own() {
    let text =
        documents(&[&service("shop/cart"), &gateway("shop/web", HTTP), &route("HTTPRoute", "shop/r", "name: web", "")]);
    let meaning = mean(&text, &[]);
    assert_eq!(codes(&meaning.faults), [] as [&str; 0]);
    assert_eq!(
        gateway_status(&meaning, "shop/web"),
        ("Accepted=Accepted Programmed=Programmed".to_owned(), vec![format!("http 1: {FINE}")])
    );
    let status = listeners(&meaning, KindName::Gateway, "shop/web");
    assert_eq!((&*status.addresses[0].value, status.attached_listener_sets), ("127.1.0.50", Some(0)));
    assert!(status.conditions.iter().all(|c| c.observed_generation == Some(7)));
    let kinds: Vec<_> = status.listeners[0].supported_kinds.iter().map(|kind| kind.kind).collect();
    assert_eq!(kinds, ["HTTPRoute", "GRPCRoute"]);
    assert_eq!(parents(&meaning, KindName::HttpRoute, "shop/r"), [TAKEN]);

    let proxy = object("shop/web-gateway");
    assert_eq!(meaning.inbound[&proxy].identity.to_string(), "spiffe://west.example/ns/shop/sa/web-gateway");
    let ingress = &meaning.ingress[&proxy];
    let port = &ingress.ports[0];
    assert_eq!((port.port, port.kind, &*port.listeners[0].name), (80, PortKind::Http, "http"));
    let Serves::Http(attached) = &port.listeners[0].serves else { panic!() };
    assert_eq!((attached.len(), ingress.http_routes[attached[0].route].name.to_string()), (1, "shop/r".to_owned()));
}

#[test]
fn load_balancers_are_named_for_all_ports_that_take_connections() {
    let listeners = "  - {name: http, port: 80, protocol: HTTP}\n  - {name: tcp, port: 81, protocol: TCP}\n  - {name: udp, port: 82, protocol: UDP}\n";
    for (annotation, trusted) in [
        ("", [None, None, None]),
        (
            ", annotations: {veer.dev/proxy-protocol: \"10.0.0.0/8, ::1\"}",
            [Some("10.0.0.0/8,::1"), Some("10.0.0.0/8,::1"), None],
        ),
    ] {
        let text = gateway("shop/web", listeners).replace("generation: 7", &format!("generation: 7{annotation}"));
        let meaning = mean(&text, &[]);
        let ports = &meaning.ingress[&object("shop/web-gateway")].ports;
        let of = |ranges: &[veer_core::Cidr]| ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let named: Vec<_> = ports.iter().map(|port| port.proxy_protocol.as_deref().map(of)).collect();
        assert_eq!(named, trusted.map(|ranges| ranges.map(str::to_owned)));
    }
}

#[test]
fn classes_of_others_are_theirs() {
    let class = |controller: &str, name: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {{name: {name}}}\nspec: {{controllerName: {controller}}}"
        )
    };
    let web = gateway("shop/web", HTTP).replace("ClassName: veer", "ClassName: edge");
    let base = documents(&[&service("shop/cart"), &web, &route("HTTPRoute", "shop/r", "name: web", "")]);
    for (class, served) in [
        (class("veer.dev/gateway", "edge"), true),
        (class("example.com/other", "edge"), false),
        (class("veer.dev/gateway", "else"), false),
    ] {
        let meaning = mean(&documents(&[&base, &class]), &[]);
        assert_eq!(!meaning.ingress.is_empty(), served, "{class}");
        assert_eq!(meaning.statuses.contains_key(&(KindName::Gateway, object("shop/web"))), served);
        assert_eq!(parents(&meaning, KindName::HttpRoute, "shop/r").len(), usize::from(served));
    }
    let meaning = mean(&class("veer.dev/gateway", "edge"), &[]);
    let (_, status) = meaning.statuses.first_key_value().unwrap();
    let Status::Class(status) = &**status else { panic!() };
    assert_eq!(told(&status.conditions), "Accepted=Accepted SupportedVersion=SupportedVersion");
    let told: Vec<&str> = status.supported_features.iter().map(|feature| feature.name).collect();
    assert!(told.is_sorted() && told.len() <= 64, "as the definition of GatewayClass wants it: {}", told.len());
    let page = include_str!("../../../../docs/features.md");
    let mut proven: Vec<&str> = page
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.strip_prefix("| ")?.split('|').map(str::trim).collect();
            let at_gateways = matches!(cells.get(1), Some(&"yes" | &"ingress only"));
            (at_gateways && !cells[0].starts_with("Mesh")).then_some(cells[0])
        })
        .collect();
    proven.sort_unstable();
    assert_eq!(told, proven, "the page of features and the status say the same");
}

#[test]
fn addresses_are_the_gateways_own() {
    let base = gateway("shop/web", HTTP);
    for (text, accepted, programmed) in [
        (
            base.replace("  addresses: [{value: 127.1.0.50}]\n", ""),
            "Accepted=Accepted",
            "!Programmed=AddressNotAssigned",
        ),
        (
            base.replace("{value: 127.1.0.50}", "{type: Hostname, value: a.example}"),
            "!Accepted=UnsupportedAddress",
            "!Programmed=Invalid",
        ),
        (documents(&[&base, &workload("shop/w", "cart", 50)]), "Accepted=Accepted", "!Programmed=AddressNotUsable"),
        (documents(&[&base, &gateway("a/first", HTTP)]), "Accepted=Accepted", "!Programmed=AddressNotUsable"),
        (
            documents(&[&base, &workload("shop/web-gateway", "cart", 51)]),
            "Accepted=Accepted",
            "!Programmed=NoResources",
        ),
    ] {
        let meaning = mean(&text, &[]);
        assert_eq!(gateway_status(&meaning, "shop/web").0, format!("{accepted} {programmed}"), "{text}");
        assert!(!meaning.ingress.contains_key(&object("shop/web-gateway")), "{text}");
        assert!(codes(&meaning.faults).iter().all(|code| *code == "V0390"), "{text}");
    }
}

#[test]
fn listeners_that_are_not_distinct_are_in_conflict_and_the_others_are_served() {
    let text = gateway(
        "shop/web",
        "  - {name: a, port: 80, protocol: HTTP, hostname: a.example}\n  - {name: same, port: 80, protocol: HTTP, hostname: a.example}\n  - {name: b, port: 80, protocol: HTTP, hostname: b.example}\n  - {name: t, port: 81, protocol: TCP}\n  - {name: h, port: 81, protocol: HTTP}\n  - {name: odd, port: 82, protocol: example.com/QUIC}\n  - {name: udp, port: 83, protocol: UDP}\n",
    );
    let meaning = mean(&text, &[]);
    let (of_gateway, of_listeners) = gateway_status(&meaning, "shop/web");
    assert_eq!(of_gateway, "Accepted=ListenersNotValid Programmed=Programmed");
    let conflict =
        |reason: &str| format!("!Accepted={reason} Conflicted={reason} !Programmed=Invalid ResolvedRefs=ResolvedRefs");
    let unsupported =
        "!Accepted=UnsupportedProtocol !Conflicted=NoConflicts !Programmed=Invalid ResolvedRefs=ResolvedRefs";
    assert_eq!(
        of_listeners,
        [
            format!("a 0: {}", conflict("HostnameConflict")),
            format!("same 0: {}", conflict("HostnameConflict")),
            format!("b 0: {FINE}"),
            format!("t 0: {}", conflict("ProtocolConflict")),
            format!("h 0: {}", conflict("ProtocolConflict")),
            format!("odd 0: {unsupported}"),
            format!("udp 0: {FINE}"),
        ]
    );
    let served: Vec<_> =
        meaning.ingress[&object("shop/web-gateway")].ports.iter().map(|p| (p.port, p.listeners.len())).collect();
    assert_eq!(served, [(80, 1), (83, 1)]);
    assert_eq!(codes(&meaning.faults), ["V0391"; 5]);
    let none = mean(&gateway("shop/web", "  - {name: odd, port: 82, protocol: example.com/QUIC}\n"), &[]);
    assert_eq!(gateway_status(&none, "shop/web").0, "!Accepted=ListenersNotValid !Programmed=Invalid");
}

#[test]
fn certificates_come_from_secrets_that_may_be_referred_to() {
    let https = |reference: &str| {
        gateway(
            "shop/web",
            &format!("  - {{name: https, port: 443, protocol: HTTPS, tls: {{certificateRefs: [{{{reference}}}]}}}}\n"),
        )
    };
    let grant = |kind: &str, name: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {{name: g, namespace: keys}}\nspec:\n  from: [{{group: gateway.networking.k8s.io, kind: {kind}, namespace: shop}}]\n  to: [{{group: \"\", kind: Secret{name}}}]"
        )
    };
    let fine = "ResolvedRefs=ResolvedRefs";
    let (missing, forbidden) = ("!ResolvedRefs=InvalidCertificateRef", "!ResolvedRefs=RefNotPermitted");
    let elsewhere = "name: cert, namespace: keys";
    for (reference, more, expected) in [
        ("name: cert", secret("shop/cert"), fine),
        ("name: cert", service("shop/cart"), missing),
        ("name: cert", secret("shop/cert").replace("kubernetes.io/tls", "Opaque"), missing),
        ("name: cert", secret("shop/cert").replace("AAAA", "?"), missing),
        ("name: cert, kind: ConfigMap", secret("shop/cert"), missing),
        ("name: cert, group: example.com", secret("shop/cert"), missing),
        (elsewhere, secret("keys/cert"), forbidden),
        (elsewhere, documents(&[&secret("keys/cert"), &grant("Gateway", "")]), fine),
        (elsewhere, documents(&[&secret("keys/cert"), &grant("Gateway", ", name: cert")]), fine),
        (elsewhere, documents(&[&secret("keys/cert"), &grant("Gateway", ", name: other")]), forbidden),
        (elsewhere, documents(&[&secret("keys/cert"), &grant("HTTPRoute", "")]), forbidden),
    ] {
        let meaning = mean(&documents(&[&https(reference), &more]), &[]);
        let (_, of_listeners) = gateway_status(&meaning, "shop/web");
        assert!(of_listeners[0].ends_with(expected), "{reference} {more}: {of_listeners:?}");
        let ingress = &meaning.ingress[&object("shop/web-gateway")];
        assert_eq!(ingress.ports.len(), usize::from(expected == fine), "nothing is served without a certificate");
    }
}

#[test]
fn routes_attach_only_where_listeners_let_them() {
    let at = |listener: &str, kind: &str, parent: &str, more: &str| {
        let labelled = "apiVersion: v1\nkind: Namespace\nmetadata: {name: bank, labels: {team: a}}";
        let grant = "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: g, namespace: shop}\nspec:\n  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: bank}]\n  to: [{group: \"\", kind: Service}]";
        let route = route(kind, "bank/r", &format!("namespace: shop, name: web{parent}"), more)
            .replace("name: cart, port", "name: cart, namespace: shop, port");
        let meaning =
            mean(&documents(&[&service("shop/cart"), labelled, grant, &gateway("shop/web", listener), &route]), &[]);
        let kind = if kind == "HTTPRoute" { KindName::HttpRoute } else { KindName::TcpRoute };
        let attached = listeners(&meaning, KindName::Gateway, "shop/web").listeners[0].attached_routes;
        let told = parents(&meaning, kind, "bank/r").join(";");
        assert_eq!(attached == 1, told.starts_with("Accepted="), "{told}");
        told.split(' ').next().unwrap_or_default().to_owned()
    };
    let from = |namespaces: &str| {
        format!(
            "  - {{name: http, port: 80, protocol: HTTP, hostname: \"*.example.com\", allowedRoutes: {{namespaces: {{{namespaces}}}}}}}\n"
        )
    };
    let all = from("from: All");
    for (listener, kind, parent, more, expected) in [
        (all.clone(), "HTTPRoute", "", "", "Accepted=Accepted"),
        (from("from: Same"), "HTTPRoute", "", "", "!Accepted=NotAllowedByListeners"),
        (from("from: Selector, selector: {matchLabels: {team: a}}"), "HTTPRoute", "", "", "Accepted=Accepted"),
        (
            from("from: Selector, selector: {matchLabels: {team: b}}"),
            "HTTPRoute",
            "",
            "",
            "!Accepted=NotAllowedByListeners",
        ),
        (
            from("from: Selector, selector: {matchLabels: {kubernetes.io/metadata.name: bank}}"),
            "HTTPRoute",
            "",
            "",
            "Accepted=Accepted",
        ),
        (all.clone(), "TCPRoute", "", "", "!Accepted=NotAllowedByListeners"),
        (all.clone(), "HTTPRoute", ", sectionName: http", "", "Accepted=Accepted"),
        (all.clone(), "HTTPRoute", ", sectionName: https", "", "!Accepted=NoMatchingParent"),
        (all.clone(), "HTTPRoute", ", port: 80", "", "Accepted=Accepted"),
        (all.clone(), "HTTPRoute", ", port: 81", "", "!Accepted=NoMatchingParent"),
        (all.clone(), "HTTPRoute", "", "  hostnames: [a.example.com]", "Accepted=Accepted"),
        (all.clone(), "HTTPRoute", "", "  hostnames: [\"*.a.example.com\", b.com]", "Accepted=Accepted"),
        (all.clone(), "HTTPRoute", "", "  hostnames: [example.com, b.com]", "!Accepted=NoMatchingListenerHostname"),
    ] {
        assert_eq!(at(&listener, kind, parent, more), expected, "{listener} {kind} {parent} {more}");
    }
}

#[test]
fn kinds_that_a_listener_cannot_take_are_told_and_the_others_attach() {
    let with = |kinds: &str| {
        let listener = format!("  - {{name: http, port: 80, protocol: HTTP, allowedRoutes: {{kinds: [{kinds}]}}}}\n");
        let text = documents(&[
            &service("shop/cart"),
            &gateway("shop/web", &listener),
            &route("HTTPRoute", "shop/r", "name: web", ""),
        ]);
        let meaning = mean(&text, &[]);
        let listener = listeners(&meaning, KindName::Gateway, "shop/web").listeners[0].clone();
        let kinds: Vec<_> = listener.supported_kinds.iter().map(|kind| kind.kind).collect();
        (
            kinds.join(","),
            listener.attached_routes,
            told(&listener.conditions).split(' ').next_back().unwrap().to_owned(),
        )
    };
    let invalid = "!ResolvedRefs=InvalidRouteKinds".to_owned();
    assert_eq!(with("{kind: GRPCRoute}"), ("GRPCRoute".to_owned(), 0, "ResolvedRefs=ResolvedRefs".to_owned()));
    assert_eq!(with("{kind: TCPRoute}, {kind: HTTPRoute}"), ("HTTPRoute".to_owned(), 1, invalid.clone()));
    assert_eq!(with("{kind: FooRoute}"), (String::new(), 0, invalid));
}

#[test]
fn hosts_of_route_and_listener_intersect() {
    let listeners = "  - {name: wild, port: 80, protocol: HTTP, hostname: \"*.example.com\"}\n  - {name: exact, port: 80, protocol: HTTP, hostname: a.example.com}\n  - {name: any, port: 81, protocol: HTTP}\n";
    let text = documents(&[
        &service("shop/cart"),
        &gateway("shop/web", listeners),
        &route("HTTPRoute", "shop/r", "name: web", "  hostnames: [a.example.com, \"*.b.example.com\", c.com]"),
        &route("HTTPRoute", "shop/none", "name: web", ""),
    ]);
    let meaning = mean(&text, &[]);
    let ingress = &meaning.ingress[&object("shop/web-gateway")];
    let hosts = |port: usize, listener: usize, route: &str| {
        let Serves::Http(attached) = &ingress.ports[port].listeners[listener].serves else { panic!() };
        let here = attached.iter().find(|a| &*ingress.http_routes[a.route].name.name == route).unwrap();
        here.hostnames.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(hosts(0, 0, "r"), "*.b.example.com a.example.com");
    assert_eq!(hosts(0, 1, "r"), "a.example.com");
    assert_eq!(hosts(1, 0, "r"), "a.example.com *.b.example.com c.com");
    assert_eq!((hosts(0, 0, "none"), hosts(1, 0, "none")), ("*.example.com".to_owned(), String::new()));
}

#[test]
fn an_http_route_and_a_grpc_route_do_not_share_a_host() {
    let old = "creationTimestamp: \"2020-01-01T00:00:00Z\", generation";
    let http = route("HTTPRoute", "shop/a", "name: web", "  hostnames: [a.example]");
    let grpc = route("GRPCRoute", "shop/b", "name: web", "  hostnames: [\"*.example\"]");
    let base = documents(&[&service("shop/cart"), &gateway("shop/web", CART)]);
    let meaning = mean(&documents(&[&base, &http, &grpc]), &[]);
    assert_eq!(parents(&meaning, KindName::HttpRoute, "shop/a"), [TAKEN]);
    assert_eq!(
        parents(&meaning, KindName::GrpcRoute, "shop/b"),
        ["!Accepted=HostnameConflict ResolvedRefs=ResolvedRefs"]
    );
    let meaning = mean(&documents(&[&base, &http, &grpc.replace("generation", old)]), &[]);
    assert!(parents(&meaning, KindName::HttpRoute, "shop/a")[0].starts_with("!Accepted"), "the older wins");
    let apart = http.replace("a.example", "a.other");
    let meaning = mean(&documents(&[&base, &apart, &grpc]), &[]);
    assert!(parents(&meaning, KindName::GrpcRoute, "shop/b")[0].starts_with("Accepted"));
}

#[test]
fn references_that_do_not_resolve_are_told_and_the_route_stays_accepted() {
    let base = documents(&[&service("shop/cart"), &service("bank/vault"), &gateway("shop/web", HTTP)]);
    for (backend, expected) in [
        ("name: cart, port: 80", "ResolvedRefs=ResolvedRefs"),
        ("name: none, port: 80", "!ResolvedRefs=BackendNotFound"),
        ("name: vault, namespace: bank, port: 80", "!ResolvedRefs=RefNotPermitted"),
        ("name: cart, kind: Bucket, group: example.com", "!ResolvedRefs=InvalidKind"),
    ] {
        for parent in ["name: web", "group: \"\", kind: Service, name: cart"] {
            let route = route("HTTPRoute", "shop/r", parent, "")
                .replace("name: cart, port: 80}]}]", &format!("{backend}}}]}}]"));
            let meaning = mean(&documents(&[&base, &route]), &[]);
            assert_eq!(
                parents(&meaning, KindName::HttpRoute, "shop/r"),
                [format!("Accepted=Accepted {expected}")],
                "{backend} {parent}"
            );
        }
    }
    let nowhere = route("HTTPRoute", "shop/r", "group: \"\", kind: Service, name: none", "");
    let meaning = mean(&documents(&[&base, &nowhere]), &[]);
    assert_eq!(
        parents(&meaning, KindName::HttpRoute, "shop/r"),
        ["!Accepted=NoMatchingParent ResolvedRefs=ResolvedRefs"]
    );
}

#[test]
fn listener_sets_add_listeners_that_their_gateway_allows() {
    let set = |name: &str, listeners: &str| {
        let (namespace, name) = name.split_once('/').unwrap();
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: ListenerSet\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  parentRef: {{name: web, namespace: shop}}\n  listeners:\n{listeners}"
        )
    };
    let more =
        set("bank/more", "  - {name: http, port: 81, protocol: HTTP}\n  - {name: taken, port: 80, protocol: HTTP}\n");
    let later = set("bank/z", "  - {name: http, port: 81, protocol: HTTP}\n");
    let attached =
        route("HTTPRoute", "bank/r", "kind: ListenerSet, name: more", "").replace("name: cart", "name: vault");
    let base = documents(&[&service("bank/vault"), &gateway("shop/web", HTTP), &more, &later, &attached]);

    let meaning = mean(&base, &[]);
    assert_eq!(
        told(&listeners(&meaning, KindName::ListenerSet, "bank/more").conditions),
        "!Accepted=NotAllowed !Programmed=NotAllowed"
    );
    assert!(parents(&meaning, KindName::HttpRoute, "bank/r")[0].starts_with("!Accepted=NoMatchingParent"));
    assert_eq!(meaning.ingress[&object("shop/web-gateway")].ports.len(), 1);

    let meaning = mean(
        &base.replace(
            "  listeners:\n  - {name: http, port: 80",
            "  allowedListeners: {namespaces: {from: All}}\n  listeners:\n  - {name: http, port: 80",
        ),
        &[],
    );
    let status = listeners(&meaning, KindName::ListenerSet, "bank/more");
    assert_eq!(told(&status.conditions), "Accepted=ListenersNotValid Programmed=Programmed");
    let lines: Vec<_> = status
        .listeners
        .iter()
        .map(|l| format!("{} {} {}", l.name, l.attached_routes, l.conditions[0].reason))
        .collect();
    assert_eq!(lines, ["http 1 Accepted", "taken 1 HostnameConflict"], "attached, whether or not it is served");
    let later = listeners(&meaning, KindName::ListenerSet, "bank/z");
    assert_eq!(
        told(&later.conditions),
        "!Accepted=ListenersNotValid !Programmed=ListenersNotValid",
        "the first by name wins"
    );
    let (of_gateway, of_listeners) = gateway_status(&meaning, "shop/web");
    assert_eq!(of_gateway, "Accepted=Accepted Programmed=Programmed", "the Gateway's own listener wins");
    assert_eq!(of_listeners, [format!("http 0: {FINE}")], "routes of sets are not counted here");
    assert_eq!(
        listeners(&meaning, KindName::Gateway, "shop/web").attached_listener_sets,
        Some(1),
        "only the one that is accepted"
    );
    let ports: Vec<_> = meaning.ingress[&object("shop/web-gateway")]
        .ports
        .iter()
        .map(|p| (p.port, p.listeners[0].name.to_string()))
        .collect();
    assert_eq!(ports, [(80, "http".to_owned()), (81, "bank/more/http".to_owned())]);
}

#[test]
fn bytes_are_led_by_port_or_server_name() {
    let listeners = "  - {name: tcp, port: 9000, protocol: TCP}\n  - {name: pass, port: 443, protocol: TLS, tls: {mode: Passthrough}}\n  - {name: end, port: 443, protocol: TLS, hostname: end.example, tls: {certificateRefs: [{name: cert}]}}\n";
    let text = documents(&[
        &service("shop/cart"),
        &secret("shop/cert"),
        &gateway("shop/web", listeners),
        &route("TCPRoute", "shop/t", "name: web, sectionName: tcp", ""),
        &route("TLSRoute", "shop/p", "name: web, sectionName: pass", "  hostnames: [a.example]"),
        &route("TLSRoute", "shop/p2", "name: web, sectionName: pass", "  hostnames: [a.example]"),
        &route("TLSRoute", "shop/e", "name: web, sectionName: end", "  hostnames: [\"*.example\"]"),
        &route("UDPRoute", "shop/u", "name: web, sectionName: tcp", ""),
    ]);
    let meaning = mean(&text, &[]);
    let ingress = &meaning.ingress[&object("shop/web-gateway")];
    let lines: Vec<String> = ingress
        .ports
        .iter()
        .flat_map(|port| port.listeners.iter().map(move |l| (port, l)))
        .map(|(port, l)| {
            let Serves::Bytes(streams) = &l.serves else { panic!() };
            let routes = streams.iter().map(|s| format!("{} {:?}", s.route.name, s.hostnames)).collect::<Vec<_>>();
            format!("{} {:?} {} {}", port.port, port.kind, l.certificates.len(), routes.join(", "))
        })
        .collect();
    assert_eq!(
        lines,
        ["443 Tls 0 shop/p [\"a.example\"]", "443 Tls 1 shop/e [\"end.example\"]", "9000 Tcp 0 shop/t []"]
    );
    assert!(parents(&meaning, KindName::TlsRoute, "shop/p2")[0].starts_with("!Accepted=HostnameConflict"));
    assert!(parents(&meaning, KindName::UdpRoute, "shop/u")[0].starts_with("!Accepted=NotAllowedByListeners"));
    assert!(!format!("{meaning:?}").contains("AAAA"), "keys are never printed");
}

#[test]
fn listeners_whose_hosts_meet_share_certificates_and_say_so() {
    let listener = |name: &str, host: &str| {
        format!(
            "  - {{name: {name}, port: 443, protocol: HTTPS, hostname: \"{host}\", tls: {{certificateRefs: [{{name: cert}}]}}}}\n"
        )
    };
    let text = gateway(
        "shop/web",
        &format!(
            "{}{}{}",
            listener("wild", "*.example.com"),
            listener("one", "a.example.com"),
            listener("else", "b.org")
        ),
    );
    let meaning = mean(&documents(&[&text, &secret("shop/cert")]), &[]);
    let overlapping: Vec<_> = listeners(&meaning, KindName::Gateway, "shop/web")
        .listeners
        .iter()
        .filter(|l| l.conditions.iter().any(|c| c.condition == "OverlappingTLSConfig" && c.status == "True"))
        .map(|l| &*l.name)
        .collect();
    assert_eq!(overlapping, ["wild", "one"]);
}

/// A Gateway with one listener for HTTPS that asks this of its clients.
fn asking(frontend: &str) -> String {
    let https = "  - {name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}\n";
    gateway("shop/web", https).replace("  listeners:", &format!("  tls: {{frontend: {{{frontend}}}}}\n  listeners:"))
}

fn authorities(kind: &str, name: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    let pem = "-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----\\n";
    match kind {
        "ClusterTrustBundle" => format!(
            "apiVersion: certificates.k8s.io/v1beta1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{trustBundle: \"{pem}\"}}"
        ),
        "Secret" => format!(
            "apiVersion: v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nstringData: {{ca.crt: \"{pem}\", other: hidden}}"
        ),
        _ => format!(
            "apiVersion: v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\ndata: {{ca.crt: \"{pem}\", other: hidden}}"
        ),
    }
}

#[test]
fn clients_are_asked_for_certificates_where_the_gateway_says_so() {
    let validation = |refs: &str, more: &str| format!("{{validation: {{caCertificateRefs: [{refs}]{more}}}}}");
    let map = "{group: \"\", kind: ConfigMap, name: ca}";
    let fine = "Accepted=Accepted !Conflicted=NoConflicts Programmed=Programmed ResolvedRefs=ResolvedRefs";
    let none = |reason: &str| {
        format!("!Accepted=NoValidCACertificate !Conflicted=NoConflicts !Programmed=Invalid !ResolvedRefs={reason}")
    };
    let elsewhere = "{group: \"\", kind: ConfigMap, name: ca, namespace: keys}";
    let grant = "apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {name: g, namespace: keys}\nspec:\n  from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: shop}]\n  to: [{group: \"\", kind: ConfigMap}]";
    for (refs, more, expected) in [
        (map, authorities("ConfigMap", "shop/ca"), fine.to_owned()),
        ("{group: \"\", kind: Secret, name: ca}", authorities("Secret", "shop/ca"), fine.to_owned()),
        (
            "{group: certificates.k8s.io, kind: ClusterTrustBundle, name: ca}",
            authorities("ClusterTrustBundle", "/ca"),
            fine.to_owned(),
        ),
        (map, authorities("ConfigMap", "shop/other"), none("InvalidCACertificateRef")),
        (map, authorities("ConfigMap", "shop/ca").replace("ca.crt", "ca.pem"), none("InvalidCACertificateRef")),
        (map, authorities("ConfigMap", "shop/ca").replace("AAAA", "?"), none("InvalidCACertificateRef")),
        (
            "{group: \"\", kind: Service, name: ca}",
            authorities("ConfigMap", "shop/ca"),
            none("InvalidCACertificateKind"),
        ),
        (elsewhere, authorities("ConfigMap", "keys/ca"), none("RefNotPermitted")),
        (elsewhere, documents(&[&authorities("ConfigMap", "keys/ca"), grant]), fine.to_owned()),
        // One that is there is enough to serve by; the other is told.
        (
            "{group: \"\", kind: ConfigMap, name: gone}, {group: \"\", kind: ConfigMap, name: ca}",
            authorities("ConfigMap", "shop/ca"),
            fine.replace("ResolvedRefs=ResolvedRefs", "!ResolvedRefs=InvalidCACertificateRef"),
        ),
    ] {
        let text = asking(&format!("default: {}", validation(refs, "")));
        let meaning = mean(&documents(&[&text, &secret("shop/cert"), &more]), &[]);
        let (_, of_listeners) = gateway_status(&meaning, "shop/web");
        assert_eq!(of_listeners, [format!("https 0: {expected}")], "{refs} {more}");
        let ports = &meaning.ingress[&object("shop/web-gateway")].ports;
        assert_eq!(ports.is_empty(), expected.starts_with('!'), "never served as if clients need not be known");
        if let Some(port) = ports.first() {
            let clients = port.listeners[0].clients.as_ref().expect("clients are asked");
            assert!(clients.authorities_pem.contains("BEGIN CERTIFICATE") && !clients.optional);
        }
        assert!(!format!("{meaning:?}").contains("hidden"));
    }
}

#[test]
fn a_port_may_ask_something_else_of_clients_than_the_default() {
    let map = "caCertificateRefs: [{group: \"\", kind: ConfigMap, name: ca}]";
    let serve = |frontend: &str| {
        let meaning =
            mean(&documents(&[&asking(frontend), &secret("shop/cert"), &authorities("ConfigMap", "shop/ca")]), &[]);
        let clients =
            meaning.ingress[&object("shop/web-gateway")].ports.first().map(|p| p.listeners[0].clients.clone());
        (clients.map(|clients| clients.map(|clients| clients.optional)), gateway_status(&meaning, "shop/web"))
    };
    let (clients, _) = serve(&format!("default: {{validation: {{{map}}}}}, perPort: [{{port: 443, tls: {{}}}}]"));
    assert_eq!(clients, Some(None), "the port's own word stands over the default");
    let (clients, _) = serve(&format!("default: {{}}, perPort: [{{port: 444, tls: {{validation: {{{map}}}}}}}]"));
    assert_eq!(clients, Some(None), "another port's word is not this one's");
    let fallback = "mode: AllowInsecureFallback";
    let (clients, (conditions, _)) =
        serve(&format!("default: {{}}, perPort: [{{port: 443, tls: {{validation: {{{map}, {fallback}}}}}}}]"));
    assert_eq!(clients, Some(Some(true)));
    assert!(conditions.ends_with(" InsecureFrontendValidationMode=ConfigurationChanged"), "{conditions}");
    let (clients, (_, listeners)) = serve(&format!("default: {{validation: {{{map}, mode: Sometimes}}}}"));
    assert_eq!(clients, None, "a mode that is not known serves nobody");
    assert!(listeners[0].starts_with("https 0: !Accepted=UnsupportedValue"), "{listeners:?}");
}

#[test]
fn datagrams_are_led_to_endpoints_of_udp_ports() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: dns, namespace: shop}\nspec:\n  selector: {app: dns}\n  ports: [{name: dns, port: 53, targetPort: 8053, protocol: UDP}]";
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: dns-1, namespace: shop, labels: {kubernetes.io/service-name: dns}}\naddressType: IPv4\nports: [{name: dns, port: 5353, protocol: UDP}]\nendpoints: [{addresses: [127.1.0.77]}, {addresses: [127.1.0.78], conditions: {ready: false}}]";
    let listeners = "  - {name: dns, port: 53, protocol: UDP}\n  - {name: tcp, port: 53, protocol: TCP}\n";
    let route = |name: &str, backend: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: UDPRoute\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  parentRefs: [{{name: web, sectionName: dns}}]\n  rules: [{{backendRefs: [{{{backend}}}]}}]"
        )
    };
    let all = |routes: &[&str]| {
        let (workload, gateway) = (workload("shop/dns-1", "dns", 40), gateway("shop/web", listeners));
        let parts = [&[service, slice, &workload, &gateway], routes].concat();
        mean(&documents(&parts), &[])
    };
    let meaning = all(&[&route("r", "name: dns, port: 53")]);
    assert_eq!(codes(&meaning.faults), [] as [&str; 0]);
    assert_eq!(parents(&meaning, KindName::UdpRoute, "shop/r"), [TAKEN]);
    let (_, of_listeners) = gateway_status(&meaning, "shop/web");
    assert_eq!(
        of_listeners,
        [format!("dns 1: {FINE}"), format!("tcp 0: {FINE}")],
        "one number for both is no conflict"
    );
    let port = meaning.ingress[&object("shop/web-gateway")].ports.iter().find(|port| port.kind == PortKind::Udp);
    let Serves::Datagrams(routes) = &port.unwrap().listeners[0].serves else { panic!() };
    let endpoints: Vec<String> = routes[0].endpoints.concat().iter().map(ToString::to_string).collect();
    assert_eq!(endpoints, ["127.1.0.40:8053", "127.1.0.77:5353"], "who is not ready takes nothing");

    for (backend, reason) in [
        ("name: dns, port: 54", "BackendNotFound"),
        ("name: gone, port: 53", "BackendNotFound"),
        ("name: dns, port: 53, group: multicluster.x-k8s.io, kind: ServiceImport", "InvalidKind"),
        ("name: dns, port: 53, namespace: bank", "RefNotPermitted"),
    ] {
        let meaning = all(&[&route("r", backend)]);
        assert_eq!(
            parents(&meaning, KindName::UdpRoute, "shop/r"),
            [format!("Accepted=Accepted !ResolvedRefs={reason}")]
        );
    }
    let meaning = all(&[&route("a", "name: dns, port: 53"), &route("b", "name: dns, port: 53")]);
    assert!(parents(&meaning, KindName::UdpRoute, "shop/b")[0].starts_with("!Accepted="), "the first has the port");
}
