//! Whatever happens in whatever order: compiling what changed gives what compiling everything gives, and what did not change
//! is the very same.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use proptest::prelude::*;
use veer_compile::{Compiler, Meaning, PeerView, World, compile};
use veer_core::gateway::Lease;
use veer_resources::Object;

use crate::support::*;

/// One thing that can stand in the manifests: slots are filled with one of several texts, or emptied.
fn slots() -> Vec<Vec<String>> {
    let cart = service("shop/cart");
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s, namespace: shop, labels: {kubernetes.io/service-name: cart}}\naddressType: IPv4\nports: [{name: http, port: 8080}]\nendpoints: [{addresses: [127.1.0.12]}, {addresses: [127.1.0.77]}]";
    let route = |kind: &str, name: &str, group: &str, parent: &str, backend: &str| {
        let spec = format!(
            "  parentRefs: [{{group: \"{group}\", kind: {parent}, namespace: shop, name: cart}}]\n  rules: [{{backendRefs: [{{{backend}, port: 80}}]}}]"
        );
        let (namespace, name) = name.split_once('/').unwrap();
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n{spec}"
        )
    };
    let mcs = "multicluster.x-k8s.io";
    let policy = "apiVersion: veer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: p, namespace: shop}\nspec: {targetRef: {kind: Service, name: cart}, slowStart: 3s}";
    let grant = "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: g, namespace: shop}\nspec:\n  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: bank}]\n  to: [{group: \"\", kind: Service}]";
    let authorization = "apiVersion: veer.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: z, namespace: shop}\nspec: {selector: {matchLabels: {app: cart}}, action: ALLOW}";
    let gateway = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: web, namespace: shop}\nspec:\n  gatewayClassName: veer\n  addresses: [{value: 127.1.0.50}]\n  allowedListeners: {namespaces: {from: Same}}\n  listeners:\n  - {name: a, port: 80, protocol: HTTP}\n  - {name: b, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}";
    let set = "apiVersion: gateway.networking.k8s.io/v1\nkind: ListenerSet\nmetadata: {name: more, namespace: shop}\nspec:\n  parentRef: {name: web}\n  listeners: [{name: a, port: 81, protocol: HTTP}]";
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: cert, namespace: shop}\ntype: kubernetes.io/tls\nstringData: {tls.crt: \"-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----\\n\", tls.key: \"-----BEGIN PRIVATE KEY-----\\nAAAA\\n-----END PRIVATE KEY-----\\n\"}";
    let class = "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: veer}\nspec: {controllerName: veer.dev/gateway}";
    let at = |kind: &str, parent: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: in, namespace: shop}}\nspec:\n  parentRefs: [{{kind: {parent}}}, {{group: \"\", kind: Service, name: cart}}]\n  rules: [{{backendRefs: [{{name: pay, port: 80}}]}}]"
        )
    };
    let outside = "apiVersion: gateway.networking.x-k8s.io/v1alpha1\nkind: XBackend\nmetadata: {name: out, namespace: shop}\nspec: {type: ExternalHostname, externalHostname: {hostname: out.example}, port: {port: 80}, protocol: HTTP}";
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, annotations: {veer.dev/mtls: strict}}";
    vec![
        vec![
            cart.clone(),
            cart.replace("8080", "web"),
            cart.replace("spec:", "spec:\n  clusterIP: 10.0.0.1"),
            cart.replace("app: cart", "app: pay"),
            cart.replace("namespace: shop}", "namespace: shop, annotations: {veer.dev/scope: clusterset}}"),
        ],
        vec![
            service("shop/pay"),
            service("shop/pay").replace("spec:", "spec:\n  clusterIP: 10.0.0.1"),
            service("shop/pay").replace("port: 80", "port: 81"),
        ],
        vec![service("shop/cart-east")],
        vec![
            workload("shop/c1", "cart", 11),
            workload("shop/c1", "pay", 11),
            workload("shop/c1", "cart", 12),
            workload("shop/c1", "cart", 11).replace("name: web", "name: http"),
        ],
        vec![
            workload("shop/c2", "cart", 12),
            workload("shop/c2", "cart", 12).replace("serviceAccount: cart", "ready: false"),
        ],
        vec![workload("shop/p1", "pay", 13)],
        vec![slice.to_owned(), slice.replace("127.1.0.12", "127.1.0.13")],
        vec![export("shop/cart", "*"), export("shop/cart", "east"), export("shop/cart", "edge")],
        vec![export("shop/pay", "*")],
        vec![import("shop/cart", true), import("shop/cart", false)],
        vec![
            link("east", 2, ""),
            link("east", 2, "  network: flat\n  addresses: [127.2.0.0/16]\n"),
            link("east", 2, "").replace("shop/*", "shop/pay"),
        ],
        vec![link("edge", 3, ""), link("edge", 3, "").replace("edge.example", "east.example")],
        vec![
            route("HTTPRoute", "shop/r1", "", "Service", "name: pay"),
            route("HTTPRoute", "shop/r1", mcs, "ServiceImport", "name: cart-east"),
            route("GRPCRoute", "shop/r1", "", "Service", "name: cart"),
        ],
        vec![route("HTTPRoute", "bank/r2", "", "Service", "name: cart, namespace: shop")],
        vec![route("HTTPRoute", "shop/r3", "", "Service", "name: cart-east").replace("name: cart}", "name: pay}")],
        vec![policy.to_owned(), policy.replace("kind: Service", "kind: ServiceImport"), policy.replace("3s", "4s")],
        vec![
            policy.replace("name: p,", "name: q,").replace("kind: Service, name: cart", "kind: Namespace, name: shop"),
            policy.replace("name: p,", "name: q,").replace("kind: Service, name: cart", "kind: HTTPRoute, name: r1"),
            policy
                .replace("name: p,", "name: q,")
                .replace("kind: Service, name: cart", "kind: HTTPRoute, name: r1")
                .replace("slowStart", "tryTimeout"),
        ],
        vec![grant.to_owned()],
        vec![authorization.to_owned()],
        vec![namespace.to_owned()],
        vec![
            gateway.to_owned(),
            gateway.replace("from: Same", "from: None"),
            gateway.replace("127.1.0.50", "127.1.0.13"),
            gateway.replace("port: 443", "port: 80"),
        ],
        vec![set.to_owned(), set.replace("port: 81", "port: 80")],
        vec![secret.to_owned(), secret.replace("type: kubernetes.io/tls", "type: Opaque")],
        vec![class.to_owned(), class.replace("veer.dev/gateway", "example.com/other")],
        vec![
            at("HTTPRoute", "Gateway, name: web"),
            at("HTTPRoute", "ListenerSet, name: more"),
            at("GRPCRoute", "Gateway, name: web, sectionName: a"),
            at("HTTPRoute", "Gateway, name: web")
                .replace("name: pay, port", "group: gateway.networking.x-k8s.io, kind: XBackend, name: out, port"),
        ],
        vec![
            outside.to_owned(),
            outside.replace("out.example", "other.example"),
            outside.replace("protocol: HTTP", "protocol: MCP"),
        ],
        vec![workload("shop/web-gateway", "pay", 14)],
    ]
}

#[derive(Debug, Clone)]
enum Edit {
    Fill(usize, usize),
    Empty(usize),
    Offer(usize, usize),
    Lease(usize, bool),
    Epoch(u64),
    Rotate(u64),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let slots = slots().len();
    let edit = prop_oneof![
        8 => (0..slots, 0..5usize).prop_map(|(slot, text)| Edit::Fill(slot, text)),
        3 => (0..slots).prop_map(Edit::Empty),
        3 => (0..2usize, 0..4usize).prop_map(|(peer, what)| Edit::Offer(peer, what)),
        1 => (0..2usize, any::<bool>()).prop_map(|(peer, fresh)| Edit::Lease(peer, fresh)),
        1 => (0..2u64).prop_map(Edit::Epoch),
        1 => (0..2u64).prop_map(Edit::Rotate),
    ];
    prop::collection::vec(edit, 1..40)
}

/// What a peer offers, by number; with the routes of its own when it has two services.
fn offered(name: &str, net: u8, what: usize) -> PeerView {
    let mut view = match what {
        0 => peer(name),
        1 => offering(name, net, &["shop/cart"]),
        2 => offering(name, net, &["shop/cart", "shop/pay"]),
        _ => offering(name, net, &["shop/pay", "bank/vault"]),
    };
    if what == 2 {
        let text = documents(&[
            &service("shop/cart"),
            &service("shop/pay"),
            &export("shop/cart", "*"),
            &export("shop/pay", "*"),
            &link("east", 2, ""),
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: theirs, namespace: shop}\nspec:\n  parentRefs: [{group: \"\", kind: Service, name: cart}]\n  rules: [{backendRefs: [{name: pay, port: 80}]}]",
        ]);
        let routes = mean(&text, &[]).offers[&cluster("east")][0].http_routes.clone();
        assert_eq!(routes.len(), 1);
        let mut cart = (*view.offers[0]).clone();
        cart.http_routes = routes;
        view.offers[0] = Arc::new(cart);
    }
    view
}

/// Equal values must be the same value.
fn same<K: Ord + Debug, V: PartialEq>(
    last: &BTreeMap<K, Arc<V>>,
    now: &BTreeMap<K, Arc<V>>,
) -> Result<(), TestCaseError> {
    for (key, value) in now {
        if let Some(old) = last.get(key) {
            prop_assert!(**old != **value || Arc::ptr_eq(old, value), "{key:?} was made anew and is equal");
        }
    }
    Ok(())
}

fn all_same(last: &Meaning, now: &Meaning) -> Result<(), TestCaseError> {
    same(&last.services, &now.services)?;
    same(&last.endpoints, &now.endpoints)?;
    same(&last.inbound, &now.inbound)?;
    same(&last.ingress, &now.ingress)?;
    same(&last.paths, &now.paths)?;
    same(&last.bundles, &now.bundles)?;
    for (peer, offers) in &now.offers {
        let by_name =
            |offers: &[Arc<veer_core::Offer>]| offers.iter().map(|o| (o.service.clone(), Arc::clone(o))).collect();
        let old: BTreeMap<_, _> = last.offers.get(peer).map(|offers| by_name(offers)).unwrap_or_default();
        same(&old, &by_name(offers))?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn compiling_what_changed_is_compiling_everything(edits in edits()) {
        // Each slot is a file of its own, so that an edit moves nothing else.
        let texts: Vec<Vec<Vec<Object>>> = slots().iter().enumerate().map(|(slot, texts)| {
            texts.iter().map(|text| veer_resources::parse(&format!("{slot}.yaml"), text).0).inspect(|objects: &Vec<Object>| assert_eq!(objects.len(), 1)).collect()
        }).collect();
        let mut filled: Vec<Option<usize>> = vec![Some(0); texts.len()];
        let mut peers = vec![offered("east", 2, 1), offered("edge", 3, 0)];
        let (mut config, mut epoch) = (west(), 0);
        let mut compiler = Compiler::new();
        let mut last: Option<Meaning> = None;
        for edit in edits {
            match edit {
                Edit::Fill(slot, text) => filled[slot] = Some(text % texts[slot].len()),
                Edit::Empty(slot) => filled[slot] = None,
                Edit::Offer(peer, what) => peers[peer] = offered(["east", "edge"][peer], [2, 3][peer], what),
                Edit::Lease(peer, fresh) => peers[peer].lease = if fresh { Lease::Fresh } else { Lease::Silent },
                Edit::Epoch(now) => epoch = now,
                Edit::Rotate(now) => config.rotate = now,
            }
            let objects: Vec<Object> = filled.iter().enumerate()
                .filter_map(|(slot, text)| text.map(|text| texts[slot][text].clone())).flatten().collect();
            let sealer = PlainSealer { epoch };
            let world = World { cluster: &config, objects: &objects, peers: &peers, sealer: &sealer };
            let now = compiler.compile(&world);
            prop_assert_eq!(&now, &compile(&world));
            if let Some(last) = &last {
                all_same(last, &now)?;
            }
            last = Some(now);
        }
    }
}

#[test]
fn the_order_of_objects_does_not_matter() {
    let mut objects: Vec<Object> = slots().iter().flat_map(|texts| read(&texts[0])).collect();
    let peers = [offered("east", 2, 2), offered("edge", 3, 1)];
    let sealer = PlainSealer { epoch: 0 };
    let forth = compile(&World { cluster: &west(), objects: &objects, peers: &peers, sealer: &sealer });
    objects.reverse();
    let back = compile(&World { cluster: &west(), objects: &objects, peers: &peers, sealer: &sealer });
    assert!(forth == back);
}
