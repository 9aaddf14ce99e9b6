//! XBackends: destinations outside of all clusters.

use veer_compile::status::{Status, condition};
use veer_compile::{Meaning, explain_routes};
use veer_core::backend_tls::Authorities;
use veer_core::{AppProtocol, Reach};
use veer_resources::KindName;

use crate::support::*;

const HOST: &str = "pay.shop.xbackend.invalid";
const REF: &str = "group: gateway.networking.x-k8s.io, kind: XBackend, name: pay";

fn xbackend(name: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    format!(
        "apiVersion: gateway.networking.x-k8s.io/v1alpha1\nkind: XBackend\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  type: ExternalHostname\n  externalHostname: {{hostname: pay.example.com}}\n  port: {{port: 443}}\n{spec}"
    )
}

fn route(kind: &str, reference: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: r, namespace: shop}}\nspec:\n  parentRefs: [{{group: \"\", kind: Service, name: cart}}]\n  rules: [{{backendRefs: [{{{reference}}}]}}]"
    )
}

/// `status reason` of the XBackend below each parent.
fn accepted(meaning: &Meaning) -> Vec<String> {
    let Status::Route(status) = &*meaning.statuses[&(KindName::XBackend, object("shop/pay"))] else { panic!() };
    let told = |parent: &veer_compile::status::ParentStatus| {
        let accepted = condition(&parent.conditions, "Accepted").unwrap();
        format!("{} {}: {} {}", parent.parent_ref.kind, parent.parent_ref.name, accepted.status, accepted.reason)
    };
    status.parents.iter().map(told).collect()
}

fn to(meaning: &Meaning) -> String {
    explain_routes(meaning, "cart.shop.svc.cluster.local").unwrap()[0].to.join("; ")
}

fn errors(meaning: &Meaning) -> Vec<&'static str> {
    meaning.faults.iter().filter(|fault| fault.is_error()).map(|fault| fault.code).collect()
}

#[test]
fn a_route_leads_to_a_name_outside() {
    let map =
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: ca, namespace: shop}}\ndata:\n  ca.crt: |\n{PEM}");
    let tls = "  protocol: HTTP2\n  tls:\n    mode: ServerOnly\n    validation: {hostname: pay.example.com, caCertificateRefs: [{group: \"\", kind: ConfigMap, name: ca}]}";
    let meaning =
        mean(&documents(&[&service("shop/cart"), &route("HTTPRoute", REF), &xbackend("shop/pay", tls), &map]), &[]);
    assert!(errors(&meaning).is_empty(), "{:?}", meaning.faults);
    assert_eq!(to(&meaning), format!("{HOST}:443 (weight 1)"));
    let endpoints = &meaning.endpoints[HOST];
    assert_eq!((endpoints.external.as_deref(), endpoints.clusters[0].reach), (Some("pay.example.com"), Reach::Local));
    let endpoint = &endpoints.clusters[0].endpoints[0];
    assert_eq!(
        (endpoint.workload.to_string().as_str(), endpoint.port(443).unwrap().target_port),
        ("shop/pay.example.com", 443)
    );
    assert!(endpoint.identity.is_none() && endpoint.address.to_string().starts_with("100::"), "{}", endpoint.address);
    assert!(matches!(endpoints.tls[0].authorities, Authorities::Pem(_)));
    assert!(!meaning.services.contains_key(HOST), "no application can ask for it by name");
    let backend = &meaning.services["cart.shop.svc.cluster.local"].ports[0].http_routes[0].rules[0].backends[0];
    assert_eq!(backend.protocol, Some(AppProtocol::Http2));
    assert_eq!(accepted(&meaning), ["Service cart: True Accepted"]);
}

#[test]
fn what_is_not_supported_leads_nowhere_and_is_told() {
    let with = |reference: &str, spec: &str| {
        mean(&documents(&[&service("shop/cart"), &route("HTTPRoute", reference), &xbackend("shop/pay", spec)]), &[])
    };
    let validation = "validation: {hostname: pay.example.com, wellKnownCACertificates: System}";
    for (spec, reason, why) in [
        ("  protocol: MCP", "UnsupportedProtocol", "protocol MCP is not supported"),
        ("  protocol: Pigeon", "UnsupportedProtocol", "protocol Pigeon is not supported"),
        (
            &format!("  tls: {{mode: ClientAndServer, clientCertificateRef: {{name: c}}, {validation}}}"),
            "Invalid",
            "mode ClientAndServer",
        ),
        (&format!("  tls: {{mode: Both, {validation}}}"), "Invalid", "TLS mode Both is not supported"),
        (&format!("  protocol: H2C\n  tls: {{mode: ServerOnly, {validation}}}"), "Invalid", "HTTP/2 without TLS"),
    ] {
        let meaning = with(REF, spec);
        assert!(to(&meaning).starts_with("500: ") && to(&meaning).contains(why), "{spec}: {}", to(&meaning));
        assert!(!meaning.endpoints.contains_key(HOST), "{spec}");
        assert_eq!(accepted(&meaning), [format!("Service cart: False {reason}")], "{spec}");
        let mut codes = errors(&meaning);
        codes.sort_unstable();
        assert_eq!(codes, ["V0352", "V0395"], "{spec}");
    }
    let missing = with(&REF.replace("pay", "none"), "");
    assert!(to(&missing).contains("XBackend shop/none does not exist"), "{}", to(&missing));
    assert_eq!(accepted(&missing), [] as [&str; 0], "no route leads there");
    assert!(to(&with(&format!("{REF}, port: 80"), "")).contains("has port 443, and no port 80"));
    let bytes = with(REF, "  protocol: TCP");
    assert!(to(&bytes).contains("takes bytes, and a HTTPRoute leads requests"), "{}", to(&bytes));
    assert_eq!(accepted(&bytes), ["Service cart: True Accepted"], "the fault is the route's");
}

#[test]
fn where_nobody_can_vouch_nothing_goes_out_in_clear_text() {
    let tls = "  tls:\n    mode: ServerOnly\n    validation: {hostname: pay.example.com, caCertificateRefs: [{group: \"\", kind: ConfigMap, name: none}]}";
    let meaning = mean(&documents(&[&service("shop/cart"), &route("HTTPRoute", REF), &xbackend("shop/pay", tls)]), &[]);
    let [tls] = &meaning.endpoints[HOST].tls[..] else { panic!() };
    assert!(matches!(&tls.authorities, Authorities::Nobody(reason) if reason.contains("nobody may vouch")));
    assert_eq!(
        (tls.service_port, accepted(&meaning)),
        (443, vec!["Service cart: False NoValidCACertificate".to_owned()])
    );
    assert_eq!(errors(&meaning), ["V0395"]);
}

#[test]
fn another_namespaces_needs_a_grant() {
    let reference = format!("{REF}, namespace: bank");
    let base = documents(&[&service("shop/cart"), &route("HTTPRoute", &reference), &xbackend("bank/pay", "")]);
    let meaning = mean(&base, &[]);
    assert!(to(&meaning).contains("no ReferenceGrant in namespace bank"), "{}", to(&meaning));
    let grant = |kind: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {{name: g, namespace: bank}}\nspec:\n  from: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}}]\n  to: [{kind}]"
        )
    };
    let meaning = mean(&documents(&[&base, &grant("{group: \"\", kind: Service}")]), &[]);
    assert!(to(&meaning).starts_with("500: "));
    let meaning = mean(&documents(&[&base, &grant("{group: gateway.networking.x-k8s.io, kind: XBackend}")]), &[]);
    assert_eq!(to(&meaning), "pay.bank.xbackend.invalid:443 (weight 1)");
}

#[test]
fn bytes_go_out_and_datagrams_do_not() {
    let cart = service("shop/cart").replace("name: http, port: 80", "name: db, port: 80, appProtocol: tcp");
    let meaning = mean(&documents(&[&cart, &route("TCPRoute", REF), &xbackend("shop/pay", "  protocol: TCP")]), &[]);
    assert_eq!(to(&meaning), format!("{HOST}:443 (weight 1)"));
    let gateway = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: web, namespace: shop}\nspec:\n  gatewayClassName: veer\n  addresses: [{value: 127.1.0.50}]\n  listeners: [{name: u, port: 53, protocol: UDP}]";
    let datagrams = route("UDPRoute", REF).replace("{group: \"\", kind: Service, name: cart}", "{name: web}");
    let meaning = mean(&documents(&[gateway, &datagrams, &xbackend("shop/pay", "")]), &[]);
    assert!(errors(&meaning).contains(&"V0352"), "{:?}", meaning.faults);
    assert_eq!(accepted(&meaning), ["Gateway web: True Accepted"]);
}
