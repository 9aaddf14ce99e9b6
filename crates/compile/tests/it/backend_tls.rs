//! BackendTLSPolicy: which acts on which port, what its status says, and that one that is broken is never clear text.

use veer_compile::status::Status;
use veer_compile::{Meaning, World, compile};
use veer_core::backend_tls::{Authorities, BackendTls, SubjectName};
use veer_resources::KindName;

use crate::support::*;

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: cart, namespace: shop}\nspec:\n  ports: [{name: web, port: 80}, {name: admin, port: 81}, {name: rest, port: 82}]";
const SLICE: &str = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: cart-1, namespace: shop, labels: {kubernetes.io/service-name: cart}}\naddressType: IPv4\nports: [{name: web, port: 8443}, {name: admin, port: 8444}, {name: rest, port: 8445}]\nendpoints: [{addresses: [127.1.0.77]}]";

fn authorities(name: &str) -> String {
    let pem = "-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----\\n";
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: shop}}\ndata: {{ca.crt: \"{pem}\"}}")
}

/// A policy of `shop` at a target, made in a second of the same minute.
fn policy(name: &str, second: u8, target: &str, validation: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {{name: {name}, namespace: shop, generation: 3, creationTimestamp: \"2026-01-01T00:00:{second:02}Z\"}}\nspec:\n  targetRefs: [{{group: \"\", kind: Service, {target}}}]\n  validation: {{hostname: {name}.example, {validation}}}"
    )
}

const CA: &str = "caCertificateRefs: [{group: \"\", kind: ConfigMap, name: ca}]";

fn tls(meaning: &Meaning) -> Vec<BackendTls> {
    meaning.endpoints["cart.shop.svc.cluster.local"].tls.iter().map(|tls| (**tls).clone()).collect()
}

/// `Type=Reason` of each ancestor, with its name.
fn ancestors(meaning: &Meaning, name: &str) -> Vec<String> {
    let Status::Policy(status) = &*meaning.statuses[&(KindName::BackendTlsPolicy, object(name))] else { panic!() };
    let all = status.ancestors.iter().map(|ancestor| {
        assert!(ancestor.conditions.iter().all(|c| c.observed_generation.is_none_or(|counted| counted == 3)));
        let told = ancestor
            .conditions
            .iter()
            .map(|c| format!("{}{}={}", if c.status == "True" { "" } else { "!" }, c.condition, c.reason));
        let told: Vec<String> = told.collect();
        format!("{} {}: {}", ancestor.ancestor_ref.kind, ancestor.ancestor_ref.name, told.join(" "))
    });
    all.collect()
}

#[test]
fn a_policy_for_a_port_stands_over_one_for_all_and_the_older_over_the_newer() {
    let text = documents(&[
        SERVICE,
        SLICE,
        &authorities("ca"),
        &policy("all", 2, "name: cart", CA),
        &policy("late", 3, "name: cart", CA),
        &policy("admin", 4, "name: cart, sectionName: admin", CA),
        &policy("adminlate", 5, "name: cart, sectionName: admin", CA),
        &policy("nowhere", 1, "name: cart, sectionName: gone", CA),
        &policy("lost", 1, "name: gone", CA),
    ]);
    let meaning = mean(&text, &[]);
    let acting: Vec<String> =
        tls(&meaning).iter().map(|tls| format!("{} {}", tls.service_port, tls.hostname)).collect();
    assert_eq!(acting, ["80 all.example", "81 admin.example", "82 all.example"]);
    for (name, told) in [
        ("all", "Accepted=Accepted ResolvedRefs=ResolvedRefs"),
        ("late", "!Accepted=Conflicted ResolvedRefs=ResolvedRefs"),
        ("admin", "Accepted=Accepted ResolvedRefs=ResolvedRefs"),
        ("adminlate", "!Accepted=Conflicted ResolvedRefs=ResolvedRefs"),
        ("nowhere", "!Accepted=TargetNotFound ResolvedRefs=ResolvedRefs"),
    ] {
        assert_eq!(ancestors(&meaning, &format!("shop/{name}")), [format!("Service cart: {told}")]);
    }
    assert!(ancestors(&meaning, "shop/lost")[0].starts_with("Service gone: !Accepted=TargetNotFound"));
    assert_eq!(codes(&meaning.faults).iter().filter(|code| **code == "V0394").count(), 4);
    // What one says and the other does not is no matter of names: the older goes, the newer acts.
    let without = text.replace(
        &format!("{}\n", policy("all", 2, "name: cart", CA)),
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n",
    );
    assert_eq!(&*tls(&mean(&without, &[]))[0].hostname, "late.example");
}

#[test]
fn authorities_and_names_are_the_policys() {
    let with = |validation: &str| {
        let pem = "-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----\\n";
        let bundle = format!(
            "apiVersion: certificates.k8s.io/v1beta1\nkind: ClusterTrustBundle\nmetadata: {{name: all}}\nspec: {{trustBundle: \"{pem}\"}}"
        );
        let text = documents(&[SERVICE, SLICE, &authorities("ca"), &bundle, &policy("p", 1, "name: cart", validation)]);
        let meaning = mean(&text, &[]);
        let own = tls(&meaning)[0].clone();
        let told = ancestors(&meaning, "shop/p").remove(0);
        (own, told.trim_start_matches("Service cart: ").to_owned())
    };
    let fine = "Accepted=Accepted ResolvedRefs=ResolvedRefs";
    let names = "subjectAltNames: [{type: Hostname, hostname: a.example}, {type: URI, uri: \"spiffe://b/c\"}]";
    let (own, told) = with(&format!("{CA}, {names}"));
    assert_eq!(told, fine);
    assert_eq!(own.names, [SubjectName::Hostname("a.example".into()), SubjectName::Uri("spiffe://b/c".into())]);
    assert!(matches!(own.authorities, Authorities::Pem(pem) if pem.contains("BEGIN CERTIFICATE")));
    let bundle = "caCertificateRefs: [{group: certificates.k8s.io, kind: ClusterTrustBundle, name: all}]";
    let (own, told) = with(bundle);
    assert_eq!(told, fine);
    assert!(matches!(own.authorities, Authorities::Pem(_)));
    let (own, told) = with("wellKnownCACertificates: System");
    assert_eq!((own.authorities, &*told), (Authorities::System, fine));
    let (own, told) =
        with("caCertificateRefs: [{group: \"\", kind: ConfigMap, name: no}, {group: \"\", kind: ConfigMap, name: ca}]");
    assert_eq!(told, "Accepted=Accepted !ResolvedRefs=InvalidCACertificateRef");
    assert!(matches!(own.authorities, Authorities::Pem(_)), "those that are there vouch");

    for (validation, expected) in [
        (
            "caCertificateRefs: [{group: \"\", kind: ConfigMap, name: no}]",
            "!Accepted=NoValidCACertificate !ResolvedRefs=InvalidCACertificateRef",
        ),
        (
            "caCertificateRefs: [{group: \"\", kind: Service, name: ca}]",
            "!Accepted=NoValidCACertificate !ResolvedRefs=InvalidKind",
        ),
        ("wellKnownCACertificates: example.com/mine", "!Accepted=Invalid ResolvedRefs=ResolvedRefs"),
        (
            &format!("{CA}, subjectAltNames: [{{type: Email, hostname: a}}]"),
            "!Accepted=Invalid ResolvedRefs=ResolvedRefs",
        ),
    ] {
        let (own, told) = with(validation);
        assert_eq!(told, expected, "{validation}");
        assert!(matches!(own.authorities, Authorities::Nobody(_)), "never clear text: {validation}");
    }
}

#[test]
fn a_policy_that_cannot_be_read_lets_nobody_vouch() {
    for wrong in ["hostname: [1]", "hostname: p.example", "hostname: p.example, caCertificateRefs: none"] {
        let text = documents(&[SERVICE, SLICE, &policy("p", 1, "name: cart", CA)])
            .replace(&format!("hostname: p.example, {CA}"), wrong);
        let (objects, faults) = veer_resources::parse("west.yaml", &text);
        assert!(faults.iter().any(|fault| fault.is_error()), "{wrong}");
        let world = World { cluster: &west(), objects: &objects, peers: &[], sealer: &PlainSealer { epoch: 1 } };
        let meaning = compile(&world);
        assert!(matches!(tls(&meaning)[0].authorities, Authorities::Nobody(_)), "{wrong}");
        assert!(ancestors(&meaning, "shop/p")[0].contains("!Accepted=Invalid"));
    }
}

#[test]
fn the_ancestors_of_a_policy_are_the_gateways_that_lead_to_its_services() {
    let gateway = |name: &str, place: u8| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  gatewayClassName: veer\n  addresses: [{{value: 127.1.0.{place}}}]\n  listeners: [{{name: http, port: 80, protocol: HTTP}}]"
        )
    };
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r, namespace: shop}\nspec:\n  parentRefs: [{name: web}]\n  rules: [{backendRefs: [{name: cart, port: 80}]}]";
    let text = documents(&[
        SERVICE,
        SLICE,
        &authorities("ca"),
        &gateway("web", 50),
        &gateway("other", 51),
        route,
        &policy("p", 1, "name: cart", CA),
    ]);
    let fine = "Accepted=Accepted ResolvedRefs=ResolvedRefs";
    assert_eq!(ancestors(&mean(&text, &[]), "shop/p"), [format!("Gateway web: {fine}")]);
}

#[test]
fn a_gateway_shows_its_certificate_to_backends_or_says_why_not() {
    let secret = |name: &str| {
        let pem = |label: &str| format!("-----BEGIN {label}-----\\nAAAA\\n-----END {label}-----\\n");
        let (chain, key) = (pem("CERTIFICATE"), pem("PRIVATE KEY"));
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: shop}}\ntype: kubernetes.io/tls\nstringData: {{tls.crt: \"{chain}\", tls.key: \"{key}\"}}"
        )
    };
    let gateway = |reference: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: web, namespace: shop}}\nspec:\n  gatewayClassName: veer\n  addresses: [{{value: 127.1.0.50}}]\n  tls: {{backend: {{clientCertificateRef: {{{reference}}}}}}}\n  listeners: [{{name: http, port: 80, protocol: HTTP}}]"
        )
    };
    for (reference, reason, shown) in [
        ("name: own", "ResolvedRefs", true),
        ("name: gone", "InvalidClientCertificateRef", false),
        ("name: own, kind: ConfigMap", "InvalidClientCertificateRef", false),
        ("name: own, namespace: keys", "RefNotPermitted", false),
    ] {
        let meaning = mean(&documents(&[&secret("own"), &gateway(reference)]), &[]);
        let Status::Listeners(status) = &*meaning.statuses[&(KindName::Gateway, object("shop/web"))] else { panic!() };
        let condition = veer_compile::status::condition(&status.conditions, "ResolvedRefs").expect("it is told");
        assert_eq!((condition.reason, condition.status == "True"), (reason, shown), "{reference}");
        assert_eq!(meaning.ingress[&object("shop/web-gateway")].client_certificate.is_some(), shown);
    }
}
