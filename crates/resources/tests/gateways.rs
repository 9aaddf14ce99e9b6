//! Gateways, their listeners and their certificates, as they are written.

use veer_resources::*;

const GATEWAY: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: shop, generation: 3}
spec:
  gatewayClassName: veer
  addresses: [{value: 127.0.0.9}]
  listeners:
  - {name: http, port: 80, protocol: HTTP}
  - name: https
    hostname: \"*.example.com\"
    port: 443
    protocol: HTTPS
    tls: {certificateRefs: [{name: cert}]}
    allowedRoutes: {namespaces: {from: Selector, selector: {matchExpressions: [{key: team, operator: In, values: [a]}]}}, kinds: [{kind: HTTPRoute}]}
";

fn codes(text: &str) -> Vec<(&'static str, bool)> {
    parse("g.yaml", text).1.iter().map(|fault| (fault.code, fault.is_error())).collect()
}

#[test]
fn a_gateway_is_read_with_the_defaults_of_upstream() {
    let (objects, faults) = parse("g.yaml", GATEWAY);
    assert!(faults.is_empty(), "{faults:?}");
    let Kind::Gateway(spec) = &objects[0].kind else { panic!() };
    assert_eq!(objects[0].meta.generation, Some(3));
    assert_eq!(&*spec.addresses[0].address_type, "IPAddress");
    let [http, https] = &spec.listeners[..] else { panic!() };
    assert_eq!(http.allowed_routes.namespaces.from, FromNamespaces::Same);
    assert_eq!(https.protocol, ListenerProtocol::Https);
    let tls = https.tls.as_ref().unwrap();
    assert_eq!((&tls.mode, &*tls.certificate_refs[0].kind), (&TlsMode::Terminate, "Secret"));
    let selector = &https.allowed_routes.namespaces.selector;
    let labels = |value: &str| Labels::from([("team".into(), value.into())]);
    assert!(selector.selects(&labels("a")) && !selector.selects(&labels("b")) && !selector.selects(&Labels::new()));
    assert!(spec.allowed_listeners.namespaces.from.is_none());
}

#[test]
fn what_is_written_is_what_is_shown() {
    let text =
        GATEWAY.replace("  gatewayClassName", "  fromTheFuture: [1, 0.5, true, null, \"a\\\"b\"]\n  gatewayClassName");
    let (objects, faults) = parse("g.yaml", &text);
    assert_eq!(faults.iter().map(|f| (f.code, f.is_error())).collect::<Vec<_>>(), [("V0010", false)]);
    let json = objects[0].written_json().unwrap();
    assert!(
        json.starts_with("{\"metadata\":{\"name\":\"web\",\"namespace\":\"shop\",\"generation\":3},\"spec\":{"),
        "{json}"
    );
    assert!(json.contains("\"fromTheFuture\":[1,0.5,true,null,\"a\\\"b\"]"), "{json}");
}

#[test]
fn unknown_values_are_kept_and_reported() {
    let text =
        GATEWAY.replace("protocol: HTTP}", "protocol: example.com/QUIC}").replace("from: Selector", "from: Friends");
    let (objects, faults) = parse("g.yaml", &text);
    assert!(faults.iter().all(|fault| fault.code == "V0017" && !fault.is_error()), "{faults:?}");
    let Kind::Gateway(spec) = &objects[0].kind else { panic!() };
    assert_eq!(spec.listeners[0].protocol, ListenerProtocol::Unknown("example.com/QUIC".into()));
    assert_eq!(spec.listeners[1].allowed_routes.namespaces.from, FromNamespaces::Unknown("Friends".into()));
}

#[test]
fn what_kubernetes_would_refuse_is_an_error() {
    for (from, to, code) in [
        ("name: https", "name: http", "V0020"),
        ("protocol: HTTP}", "protocol: TLS}", "V0011"),
        ("protocol: HTTP}", "protocol: TCP, hostname: a.example}", "V0026"),
        ("protocol: HTTP}", "protocol: HTTP, tls: {}}", "V0011"),
        ("tls: {certificateRefs", "tls: {mode: Passthrough, certificateRefs", "V0011"),
        ("value: 127.0.0.9", "value: here", "V0014"),
        ("port: 443", "port: 70000", "V0013"),
    ] {
        assert_eq!(codes(&GATEWAY.replace(from, to)), [(code, true)], "{from} → {to}");
    }
    let without = GATEWAY.replace("    tls: {certificateRefs: [{name: cert}]}\n", "");
    assert_eq!(codes(&without), [("V0011", false)], "the status says that a certificate is missing");
}

#[test]
fn classes_sets_and_routes_of_streams() {
    let text = "\
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: edge}
spec: {controllerName: veer.dev/gateway, description: ours}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: more, namespace: shop}
spec: {parentRef: {name: web}, listeners: [{name: a, port: 81, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: t, namespace: shop}
spec: {parentRefs: [{name: web}], hostnames: [a.example], rules: [{backendRefs: [{name: cart, port: 443}]}]}
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: UDPRoute
metadata: {name: u, namespace: shop}
spec: {parentRefs: [{name: more, kind: ListenerSet}], rules: [{backendRefs: [{name: cart, port: 53}]}]}
";
    let (objects, faults) = parse("g.yaml", text);
    assert!(faults.is_empty(), "{faults:?}");
    assert_eq!(&*objects[0].meta.namespace, "");
    let parents: Vec<_> = objects
        .iter()
        .filter_map(|object| match &object.kind {
            Kind::TlsRoute(spec) => spec.parent_refs[0].listeners(),
            Kind::UdpRoute(spec) => spec.parent_refs[0].listeners(),
            _ => None,
        })
        .collect();
    assert_eq!(parents, [ListenerParent::Gateway, ListenerParent::ListenerSet]);
}

#[test]
fn certificates_are_read_and_never_printed() {
    let pem = |label: &str| format!("-----BEGIN {label}-----\\nAAAA\\n-----END {label}-----\\n");
    let secret = |key: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: cert, namespace: shop}}\ntype: kubernetes.io/tls\nstringData: {{tls.crt: \"{}\", tls.key: \"{key}\"}}\n",
            pem("CERTIFICATE")
        )
    };
    let (objects, faults) = parse("s.yaml", &secret(&pem("EC PRIVATE KEY")));
    assert!(faults.is_empty(), "{faults:?}");
    let Kind::Secret(read) = &objects[0].kind else { panic!() };
    assert!(read.certificate().unwrap().starts_with("-----BEGIN CERTIFICATE-----\nAAAA"));
    assert!(!format!("{:?}", objects[0]).contains("AAAA") && objects[0].written_json().is_none());
    assert_eq!(codes(&secret("hello")), [("V0045", false)]);
    let base64 = "apiVersion: v1\nkind: Secret\nmetadata: {name: cert, namespace: shop}\ntype: kubernetes.io/tls\ndata: {tls.crt: aGVsbG8=, tls.key: \"?\"}\n";
    assert!(codes(base64).contains(&("V0045", true)), "{:?}", codes(base64));
    let other = "apiVersion: v1\nkind: Secret\nmetadata: {name: other, namespace: shop}\ntype: Opaque\ndata: {password: \"?\"}\n";
    let (objects, faults) = parse("s.yaml", other);
    assert!(faults.is_empty(), "{faults:?}");
    assert!(
        matches!(&objects[0].kind, Kind::Secret(secret) if secret.data.is_empty()),
        "nobody else's values are kept"
    );
}
