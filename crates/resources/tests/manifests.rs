//! What is right is read as it is written, and in silence.

use std::time::Duration;

use veer_core::policy::AuthorizationAction;
use veer_resources::*;

fn good(text: &str) -> Vec<Object> {
    let (objects, found) = parse("good.yaml", text);
    assert!(found.is_empty(), "{}", found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    objects
}

#[test]
fn services_and_slices() {
    let objects = good(
        "\
apiVersion: v1
kind: Service
metadata:
  name: cart
  namespace: shop
  uid: ignored
  annotations: {veer.dev/scope: clusterset}
spec:
  selector: {app: cart}
  clusterIP: 10.0.0.1
  clusterIPs: [10.0.0.1, \"fd00::1\"]
  sessionAffinity: None
  ports:
  - {name: http, port: 80, targetPort: web}
  - {name: rpc, port: 81, appProtocol: grpc}
status: {loadBalancer: {}}
---
{\"apiVersion\": \"discovery.k8s.io/v1\", \"kind\": \"EndpointSlice\",
 \"metadata\": {\"name\": \"cart-1\", \"namespace\": \"shop\", \"labels\": {\"kubernetes.io/service-name\": \"cart\"}},
 \"addressType\": \"IPv4\", \"ports\": [{\"name\": \"http\", \"port\": 8080}],
 \"endpoints\": [{\"addresses\": [\"10.1.0.7\"], \"conditions\": {\"ready\": false, \"terminating\": true}, \"zone\": null}]}
",
    );
    let Kind::Service(service) = &objects[0].kind else { panic!() };
    assert!(objects[0].meta.is_clusterset_scoped());
    assert_eq!(service.addresses().len(), 2);
    assert!(!service.is_headless());
    assert_eq!(service.ports[0].target(), PortRef::Name("web".into()));
    assert_eq!(service.ports[0].app(), veer_core::AppProtocol::Http1);
    assert_eq!(
        (service.ports[1].target(), service.ports[1].app()),
        (PortRef::Number(81), veer_core::AppProtocol::Grpc)
    );
    let at = |path: &str| {
        let at = objects[0].locate(path);
        (at.line, at.column)
    };
    assert_eq!(at("spec.ports[1].appProtocol"), (15, 40));
    assert_eq!(at("spec.ports[1].nodePort"), (15, 5), "what is not written is where its mapping stands");
    assert_eq!(at("metadata.annotations[\"veer.dev/scope\"]"), (7, 33));
    assert_eq!(at("spec.ports[7].port"), (13, 3));
    let Kind::EndpointSlice(slice) = &objects[1].kind else { panic!() };
    assert!(!slice.endpoints[0].conditions.is_ready() && !slice.endpoints[0].conditions.is_serving());
    assert_eq!(objects[1].at.line, 18);
}

#[test]
fn routes_with_the_defaults_of_upstream() {
    let objects = good(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: cart, namespace: shop, creationTimestamp: \"2026-01-01T00:00:00Z\"}
spec:
  parentRefs: [{group: \"\", kind: Service, name: cart, port: 80}]
  rules:
  - name: canary
    matches:
    - {path: {}, headers: [{name: x-user, value: ada}], method: GET}
    filters:
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-canary, value: \"1\"}], remove: [x-debug]}}
    - {type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /v2}}}
    backendRefs:
    - {name: cart-v2, port: 80, weight: 90}
    - {group: multicluster.x-k8s.io, kind: ServiceImport, name: cart, port: 80}
    timeouts: {request: 1m30s, backendRequest: 0s}
    retry: {codes: [503], attempts: 3, backoff: 25ms}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: cart, namespace: shop}
spec:
  parentRefs: [{group: \"\", kind: Service, name: cart}]
  rules: [{matches: [{method: {service: shop.v1.Cart}}], backendRefs: [{name: cart, port: 81}]}]
",
    );
    let Kind::HttpRoute(route) = &objects[0].kind else { panic!() };
    let rule = &route.rules[0];
    assert_eq!(
        rule.matches[0].path.as_ref().map(|p| (p.match_type.clone(), &*p.value)),
        Some((PathMatchType::PathPrefix, "/"))
    );
    assert_eq!(rule.backend_refs[1].target(), Some(TargetKind::ServiceImport));
    assert_eq!((rule.backend_refs[0].weight, rule.backend_refs[1].weight), (90, 1));
    assert_eq!(rule.timeouts.request, Some(Duration::from_secs(90)));
    assert_eq!(rule.retry.as_ref().and_then(|r| r.backoff), Some(Duration::from_millis(25)));
    assert_eq!(route.parent_refs[0].target(), Some(TargetKind::Service));
    assert!(matches!(&rule.filters[0], RouteFilter::RequestHeaderModifier(change) if change.set.len() == 1));
}

#[test]
fn what_this_version_does_not_know_is_kept_by_name() {
    let text = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: a}
spec:
  parentRefs: [{group: \"\", kind: Service, name: a}]
  rules:
  - filters: [{type: Teleport, teleport: {to: mars}}, {type: ExtensionRef, extensionRef: {}}]
    matches: [{path: {type: Sounds, value: like}}]
    backendRefs: [{name: a, port: 1}]
";
    let (objects, found) = parse("f.yaml", text);
    assert_eq!(
        found.iter().map(|d| (d.code, d.is_error())).collect::<Vec<_>>(),
        [("V0017", false), ("V0027", false), ("V0017", false)]
    );
    let Kind::HttpRoute(route) = &objects[0].kind else { panic!() };
    let names = route.rules[0].filters.iter().map(|f| match f {
        RouteFilter::Unsupported(name) => &**name,
        _ => "",
    });
    let names: Vec<_> = names.collect();
    assert_eq!(names, ["Teleport", "ExtensionRef"]);
    assert_eq!(route.rules[0].matches[0].path.as_ref().unwrap().match_type, PathMatchType::Unknown("Sounds".into()));
}

#[test]
fn own_kinds() {
    let objects = good(
        "\
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Namespace
  metadata: {name: shop, annotations: {veer.dev/mtls: strict}}
- apiVersion: veer.dev/v1alpha1
  kind: Workload
  metadata: {name: cart-1, namespace: shop, labels: {app: cart}}
  spec:
    address: 127.1.0.2
    serviceAccount: cart
    locality: {region: eu, zone: eu-1}
    ports: [{name: web, port: 8080, appPort: 18080, appProtocol: http}]
    capacity: 10
    replicas: 0
    run: {command: [\"$(VEER_BIN)\", shop], env: [{name: A, value: \"1\"}], restartPolicy: OnFailure}
- apiVersion: veer.dev/v1alpha1
  kind: Link
  metadata: {name: east}
  spec:
    trustDomain: east.example
    bundle: |
      -----BEGIN CERTIFICATE-----
      AAAA
      -----END CERTIFICATE-----
    gateways: [{name: a, address: \"127.2.255.1:15443\"}, {name: b, address: 127.2.255.2, draining: true}]
    provides: [shop/*, \"*/cart\"]
- apiVersion: veer.dev/v1alpha1
  kind: TrafficPolicy
  metadata: {name: cart, namespace: shop}
  spec:
    targetRef: {kind: Service, name: cart}
    slowStart: 0s
    outlier: {consecutiveFailures: 3}
    locality: {localFirst: false, weights: [{cluster: east, weight: 1}]}
- apiVersion: veer.dev/v1alpha1
  kind: AuthorizationPolicy
  metadata: {name: cart, namespace: shop}
  spec:
    selector: {matchLabels: {app: cart}}
    action: DENY
    rules:
    - from: [{principals: [\"spiffe://west.example/ns/shop/*\"]}, {namespaces: [web]}]
      to: [{ports: [8080], methods: [DELETE], paths: [/admin/*]}]
- apiVersion: multicluster.x-k8s.io/v1alpha1
  kind: ServiceExport
  metadata: {name: cart, namespace: shop, annotations: {veer.dev/audience: \"east, edge\"}}
- apiVersion: multicluster.x-k8s.io/v1alpha1
  kind: ServiceImport
  metadata: {name: pay, namespace: shop, annotations: {veer.dev/per-cluster-names: \"true\"}}
  spec: {type: ClusterSetIP, ports: [{port: 80}]}
",
    );
    assert_eq!(objects.len(), 7);
    assert_eq!(objects[0].meta.mtls(), Some(veer_core::inbound::MtlsMode::Strict));
    let Kind::Workload(workload) = &objects[1].kind else { panic!() };
    assert!(!workload.is_up());
    assert_eq!(workload.port(&PortRef::Name("web".into())).map(WorkloadPort::app_port), Some(18080));
    let Kind::Link(link) = &objects[2].kind else { panic!() };
    assert_eq!(&*link.gateways[1].address.0.to_string(), "127.2.255.2:15443");
    assert!(link.provides("shop", "x") && link.provides("y", "cart") && !link.provides("y", "x"));
    assert!(link.allows("127.2.255.1".parse().unwrap()) && !link.allows("127.2.0.1".parse().unwrap()));
    assert_eq!(&*objects[2].meta.namespace, "");
    let Kind::TrafficPolicy(traffic) = &objects[3].kind else { panic!() };
    let policy = traffic.written(&"TrafficPolicy shop/cart".into()).policy();
    assert_eq!((policy.slow_start, policy.outlier.consecutive_failures), (Duration::ZERO, 3));
    assert_eq!(policy.outlier.base_ejection, Duration::from_secs(5));
    assert!(!policy.locality.local_first && policy.locality.weights.len() == 1);
    let Kind::AuthorizationPolicy(authorization) = &objects[4].kind else { panic!() };
    let policy = authorization.policy(&objects[4].name());
    assert_eq!((policy.action, policy.rules[0].from.len()), (AuthorizationAction::Deny, 2));
    let east = veer_core::ClusterName::new("east").unwrap();
    assert!(objects[5].meta.audience().includes(&east));
    assert!(!objects[5].meta.audience().includes(&veer_core::ClusterName::new("north").unwrap()));
    assert!(objects[6].meta.wants_per_cluster_names());
}

#[test]
fn anchors_merges_and_marks_of_order() {
    let objects = good(
        "\u{feff}%YAML 1.2\n---\napiVersion: v1\nkind: Service\nmetadata: &m {name: a, labels: &l {app: x}}\nspec: {selector: *l, ports: [&p {name: one, port: 1}, {<<: *p, name: two, port: 2}]}\n...\n---\n# nothing\n",
    );
    let Kind::Service(service) = &objects[0].kind else { panic!() };
    assert_eq!(service.selector.get("app").map(AsRef::as_ref), Some("x"));
    assert_eq!(service.ports[1].name.as_deref(), Some("two"));
}
