//! Every fault is told at the field that has it: `‸` stands in front of each place, in the order of the codes.

use veer_resources::{Diagnostic, Object, check_set, parse, parse_bytes, parse_fleet, remove_duplicates};

const MARK: char = '‸';

/// Takes the marks out of the text and gives the places they stood at.
fn unmark(marked: &str) -> (String, Vec<(u32, u32)>) {
    let (mut text, mut places) = (String::new(), Vec::new());
    let (mut line, mut column) = (1, 1);
    for c in marked.chars() {
        match c {
            MARK => places.push((line, column)),
            '\n' => {
                text.push(c);
                (line, column) = (line + 1, 1);
            }
            _ => {
                text.push(c);
                column += 1;
            }
        }
    }
    (text, places)
}

fn expect(found: &[Diagnostic], places: &[(u32, u32)], codes: &str, text: &str) {
    let found_text: Vec<String> = found.iter().map(ToString::to_string).collect();
    let got: Vec<_> = found.iter().map(|d| (d.code, (d.line, d.column))).collect();
    let wanted: Vec<_> = codes.split_whitespace().zip(places.iter().copied()).collect();
    assert_eq!(codes.split_whitespace().count(), places.len(), "marks and codes differ in number:\n{text}");
    assert_eq!(got, wanted, "\n{}\nin\n{text}", found_text.join("\n"));
    for fault in found {
        assert!(!fault.mend.is_empty() && !fault.reason.is_empty(), "{fault}");
        assert!(fault.to_string().starts_with(&format!("f.yaml:{}:{}: ", fault.line, fault.column)), "{fault}");
    }
}

#[track_caller]
fn faults(codes: &str, marked: &str) -> Vec<Object> {
    let (text, places) = unmark(marked);
    let (objects, found) = parse("f.yaml", &text);
    expect(&found, &places, codes, &text);
    objects
}

#[track_caller]
fn set_faults(codes: &str, marked: &str) -> Vec<Object> {
    let (text, places) = unmark(marked);
    let (mut objects, found) = parse("f.yaml", &text);
    assert_eq!(found, [], "by itself\n{text}");
    let mut found = remove_duplicates(&mut objects);
    found.extend(check_set(&objects));
    found.sort_by_key(|d| (d.line, d.column));
    expect(&found, &places, codes, &text);
    objects
}

#[track_caller]
fn fleet_faults(codes: &str, marked: &str) {
    let (text, places) = unmark(marked);
    let (fleet, found) = parse_fleet("f.yaml", &text);
    expect(&found, &places, codes, &text);
    assert_eq!(fleet.is_some(), !found.iter().any(Diagnostic::is_error));
}

fn doc(api: &str, kind: &str, spec: &str) -> String {
    format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: a, namespace: shop}}\nspec:\n{spec}\n")
}

fn service(spec: &str) -> String {
    doc("v1", "Service", spec)
}

fn http(rule: &str) -> String {
    let parent = "  parentRefs: [{group: \"\", kind: Service, name: cart}]\n  rules:\n";
    doc("gateway.networking.k8s.io/v1", "HTTPRoute", &format!("{parent}{rule}"))
}

fn own(kind: &str, spec: &str) -> String {
    doc("veer.dev/v1alpha1", kind, spec)
}

#[test]
fn all_faults_of_a_file_at_once_and_no_document_hides_another() {
    let objects = faults(
        "V0010 V0013 V0012 V0007 V0001 V0018",
        "\
apiVersion: v1
kind: Service
metadata:
  name: cart
  namespace: shop
spec:
  ‸selectors: {app: cart}
  ports:
  - port: ‸99999
  - name: ‸8080
    port: 80
---
apiVersion: v1
kind: ‸Servce
metadata: {name: x}
---
a: [1, 2
b‸: c: d
---
apiVersion: v1
kind: Service
metadata: {name: good}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: ‸Bad_Name}
spec: {ports: [{port: 80}]}
",
    );
    let names: Vec<_> = objects.iter().map(|object| object.name().to_string()).collect();
    assert_eq!(names, ["default/good"]);
}

#[test]
fn what_is_not_yaml_or_not_an_object() {
    faults("V0001", "a: \"unclosed\n\n‸");
    faults("V0004", "apiVersion: v1\nkind: Namespace\n‸kind: Namespace\nmetadata: {name: a}\n");
    faults("V0005", "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {‸[a, b]: c}}\n");
    faults("V0005", "apiVersion: v1\nkind: Namespace\nmetadata: {name: !secret ‸a}\n");
    faults("V0006", "‸- a\n- b\n");
    faults("V0006", "# nothing\n---\n‸just text\n");
    faults("V0011 V0011", "‸‸metadata: {name: a}\n");
    faults("V0012", "apiVersion: v1\nkind: ‸7\n");
    faults("V0007", "apiVersion: apps/v1\nkind: ‸Deployment\nmetadata: {name: a}\n");
    faults("V0007", "apiVersion: serving.knative.dev/v1\nkind: ‸Service\nmetadata: {name: a}\n");
    faults(
        "V0008",
        "apiVersion: ‸gateway.networking.k8s.io/v9\nkind: ReferenceGrant\nmetadata: {name: a}\nspec: {from: [], to: []}\n",
    );
    faults("V0011", "‸apiVersion: v1\nkind: Service\nspec: {ports: [{port: 1}]}\n");
    faults("V0011", "‸apiVersion: v1\nkind: Service\nmetadata: {name: a}\n");
    assert_eq!(faults("", "").len(), 0);
    assert_eq!(faults("", "---\n---\n# only a comment\n---\n").len(), 0);
}

#[test]
fn bytes_that_are_not_text_and_files_that_are_too_large() {
    let (_, found) = parse_bytes("f.yaml", b"a: b\nc: \xc3\xa4\xff\n");
    expect(&found, &[(2, 5)], "V0002", "");
    let (objects, found) = parse("f.yaml", &"#".repeat(veer_resources::MAX_FILE_BYTES + 1));
    assert!(objects.is_empty());
    assert_eq!((found[0].code, found[0].line), ("V0003", 0));
    let (_, found) = parse("f.yaml", &"[".repeat(10_000));
    assert_eq!(found[0].code, "V0003", "{found:?}");
}

#[test]
fn a_bomb_of_aliases_goes_off_in_nobodys_memory() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    let (objects, found) = parse("f.yaml", &text);
    assert!(objects.is_empty());
    assert_eq!(found.first().map(|d| d.code), Some("V0003"), "{found:?}");
    let head = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\ndata:\n";
    let wide: String = head.to_owned() + &(0..5000).map(|n| format!("  k{n}: v\n")).collect::<String>();
    let (_, found) = parse("f.yaml", &wide);
    let found: Vec<_> = found.iter().map(|d| (d.code, d.line)).collect();
    assert_eq!(found, [("V0007", 2), ("V0003", 1029)]);
}

#[test]
fn services() {
    let ports = |port: &str| service(&format!("  ports:\n  - {{name: a, port: 1}}\n{port}"));
    for (codes, text) in [
        ("V0013", service("  ports: [{port: ‸0}]")),
        ("V0013", service("  ports: [{port: ‸-1}]")),
        ("V0013", service("  ports: [{port: ‸80.5}]")),
        ("V0012", service("  ports: [{port: ‸\"80\"}]")),
        ("V0011", service("  ports: [‸{name: http}]")),
        ("V0012", service("  ‸ports:\n    port: 80")),
        ("V0011", "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n‸spec:\n  selector: {a: b}\n".to_owned()),
        ("V0020", ports("  - {name: ‸a, port: 2}")),
        ("V0020", ports("  - {name: b, port: ‸1}")),
        ("V0011", ports("  - ‸{port: 2}")),
        ("V0018", ports("  - {name: ‸A_b, port: 2}")),
        ("V0018", ports("  - {name: b, port: 2, targetPort: ‸Web}")),
        ("V0037", ports("  - {name: b, port: 2, protocol: ‸UDP}")),
        ("V0017", ports("  - {name: b, port: 2, protocol: ‸TPC}")),
        ("V0023", ports("  - {name: b, port: 2, appProtocol: ‸gprc}")),
        ("V0010", ports("  - {name: b, port: 2, ‸targetport: 3}")),
        ("V0012", ports("  - {name: b, port: 2, appProtocol: ‸[a]}")),
        ("V0019", service("  selector: {app: ‸\"a b\"}\n  ports: [{port: 1}]")),
        ("V0012", service("  selector: {version: ‸1.10}\n  ports: [{port: 1}]")),
        ("V0014", service("  clusterIP: ‸10.0.0\n  ports: [{port: 1}]")),
        ("V0038", service("  clusterIP: 10.0.0.1\n  ‸clusterIPs:\n  - 10.0.0.2\n  ports: [{port: 1}]")),
        ("V0037", service("  type: ‸ExternalName\n  externalName: example.com")),
    ] {
        faults(codes, &text);
    }
}

#[test]
fn metadata_and_annotations() {
    let annotated = |kind: &str, annotation: &str| {
        let api = if kind == "Namespace" { "v1" } else { "multicluster.x-k8s.io/v1alpha1" };
        format!("apiVersion: {api}\nkind: {kind}\nmetadata:\n  name: a\n  annotations: {{{annotation}}}\n")
    };
    for (codes, text) in [
        ("V0029", annotated("Namespace", "veer.dev/mtls: ‸strickt")),
        ("V0029", annotated("Namespace", "veer.dev/allow-unsafe-methods: ‸\"no\"")),
        ("V0029", annotated("Namespace", "veer.dev/mtsl: ‸strict")),
        ("V0029", annotated("Namespace", "veer.dev/audience: ‸\"*\"")),
        ("V0029", annotated("ServiceExport", "veer.dev/audience: ‸\"east, Edge\"")),
        ("V0029", annotated("Namespace", "veer.dev/proxy-protocol: ‸\"10.0.0.0/8\"")),
        ("V0012", annotated("ServiceImport", "veer.dev/audience: ‸7")),
        ("V0034", annotated("ServiceExport", "owner: me").replace("annotations: {", "annotations: ‸{")),
        ("V0030", "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, namespace: ‸b}\n".to_owned()),
        ("V0019", "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {-x: ‸b}}\n".to_owned()),
        ("V0010", "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, ‸label: {}}\n".to_owned()),
        ("V0010", "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n‸stauts: {}\n".to_owned()),
    ] {
        faults(codes, &text);
    }
}

#[test]
fn slices() {
    let slice = |rest: &str| {
        let labels = "labels: {kubernetes.io/service-name: cart}";
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: a, {labels}}}\naddressType: IPv4\n{rest}"
        )
    };
    for (codes, text) in [
        ("V0014", slice("endpoints: [{addresses: [‸10.0.0.300]}]")),
        ("V0038", slice("endpoints: [{addresses: [‸\"fd00::1\"]}]")),
        ("V0011", slice("endpoints: [{addresses: ‸[]}]")),
        ("V0011", slice("endpoints: [‸{zone: a}]")),
        ("V0012", slice("endpoints: [{addresses: [10.0.0.1], conditions: {ready: ‸yes}}]")),
        ("V0010", slice("endpoints: [{addresses: [10.0.0.1], conditions: {‸redy: true}}]")),
        (
            "V0040",
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: ‸{name: a}\naddressType: IPv4\n"
                .to_owned(),
        ),
    ] {
        faults(codes, &text);
    }
}

#[test]
fn routes() {
    let to = "backendRefs: [{name: cart, port: 80}]";
    let matching = |condition: &str| http(&format!("  - matches: [{{{condition}}}]\n    {to}"));
    let filtered = |filter: &str| http(&format!("  - filters: [{filter}]\n    {to}"));
    let backend = |refs: &str| http(&format!("  - backendRefs: [{refs}]"));
    for (codes, text) in [
        ("V0022", matching("path: {value: ‸cart}")),
        ("V0022", matching("path: {type: Exact, value: ‸/a//b}")),
        ("V0022", matching("path: {value: ‸/a/../b}")),
        ("V0022", matching("path: {value: ‸/a%2Fb}")),
        ("V0041", matching("path: {type: RegularExpression, value: ‸/a(}")),
        ("V0041", matching("headers: [{type: RegularExpression, name: x, value: ‸\"*\"}]")),
        ("V0017", matching("path: {type: ‸PathPrefx, value: /a}")),
        ("V0021", matching("headers: [{name: ‸\"x user\", value: a}]")),
        ("V0021", matching("headers: [{name: x, value: ‸\"a\\nb\"}]")),
        ("V0012", matching("headers: [{name: x, value: ‸7}]")),
        ("V0020", matching("headers: [{name: x, value: a}, {name: ‸X, value: b}]")),
        ("V0011", matching("headers: [‸{name: x}]")),
        ("V0025", matching("method: ‸get")),
        ("V0010", matching("‸header: []")),
        ("V0027", filtered("{type: ‸ExtensionRef, extensionRef: {}}")),
        (
            "V0027",
            filtered("{type: ExternalAuth, externalAuth: {protocol: HTTP, backendRef: {name: a, port: 1}, grpc: ‸{}}}"),
        ),
        (
            "V0022",
            filtered(
                "{type: ExternalAuth, externalAuth: {protocol: HTTP, backendRef: {name: a, port: 1}, http: {path: ‸/a/../b}}}",
            ),
        ),
        ("V0011", filtered("{type: RequestMirror, requestMirror: {backendRef: ‸{name: a}}}")),
        (
            "V0027",
            filtered(
                "{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 1}, percent: 1, fraction: ‸{numerator: 1}}}",
            ),
        ),
        ("V0013", filtered("{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 1}, percent: ‸101}}")),
        (
            "V0013",
            filtered(
                "{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 1}, fraction: {numerator: ‸3, denominator: 2}}}",
            ),
        ),
        ("V0026", filtered("{type: CORS, cors: {allowOrigins: [‸a.example]}}")),
        ("V0025", filtered("{type: CORS, cors: {allowMethods: [‸get]}}")),
        ("V0038", filtered("{type: CORS, cors: {allowHeaders: ‸[\"*\", x]}}")),
        ("V0013", filtered("{type: CORS, cors: {maxAge: ‸0}}")),
        ("V0017", filtered("{type: ‸RequestHeaderModifer, requestHeaderModifier: {}}")),
        ("V0011", filtered("‸{type: RequestHeaderModifier}")),
        ("V0027", filtered("{type: RequestHeaderModifier, requestHeaderModifier: {}, ‸urlRewrite: {}}")),
        ("V0021", filtered("{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: ‸a b, value: c}]}}")),
        ("V0021", filtered("{type: ResponseHeaderModifier, responseHeaderModifier: {remove: [‸Transfer-Encoding]}}")),
        ("V0028", filtered("{type: RequestRedirect, requestRedirect: {statusCode: ‸200}}")),
        ("V0017", filtered("{type: RequestRedirect, requestRedirect: {scheme: ‸ftp}}")),
        ("V0026", filtered("{type: URLRewrite, urlRewrite: {hostname: ‸10.0.0.1}}")),
        ("V0011", filtered("{type: URLRewrite, urlRewrite: {path: ‸{type: ReplaceFullPath}}}")),
        (
            "V0022",
            http(&format!(
                "  - matches: [{{path: {{type: Exact, value: /a}}}}]\n    filters: [{{type: URLRewrite, urlRewrite: {{path: {{type: ‸ReplacePrefixMatch, replacePrefixMatch: /b}}}}}}]\n    {to}"
            )),
        ),
        ("V0024", backend("{name: a, port: 1, weight: ‸1000001}")),
        ("V0013", backend("{name: a, port: 1, weight: ‸-1}")),
        ("V0024", backend("{name: a, port: 1, weight: 0}").replace("backendRefs: [", "backendRefs: ‸[")),
        ("V0011", backend("‸{name: a}")),
        ("V0042", backend("{kind: ‸Bucket, name: a, port: 1}")),
        ("V0018", backend("{name: a, port: 1, namespace: ‸A}")),
        ("V0024", http("  - ‸matches: []")),
        ("V0015", http(&format!("  - timeouts: {{request: ‸10}}\n    {to}"))),
        ("V0015", http(&format!("  - timeouts: {{request: ‸1.5s}}\n    {to}"))),
        ("V0038", http(&format!("  - timeouts: {{request: 1s, backendRequest: ‸2s}}\n    {to}"))),
        ("V0028", http(&format!("  - retry: {{codes: [503, ‸200]}}\n    {to}"))),
        ("V0013", http(&format!("  - retry: {{attempts: ‸0}}\n    {to}"))),
        ("V0017", http(&format!("  - sessionPersistence: {{type: ‸Dice}}\n    {to}"))),
        ("V0021", http(&format!("  - sessionPersistence: {{sessionName: ‸a b}}\n    {to}"))),
        ("V0038", http(&format!("  - sessionPersistence: {{type: Header, cookieConfig: ‸{{}}}}\n    {to}"))),
        ("V0038", http(&format!("  - sessionPersistence: {{cookieConfig: {{lifetimeType: ‸Permanent}}}}\n    {to}"))),
        ("V0037", http(&format!("  - {to}")).replace("  rules", "  hostnames: ‸[a.example]\n  rules")),
        ("V0042", http(&format!("  - {to}")).replace("[{group: \"\", kind", "[‸{kind")),
        (
            "V0043",
            doc(
                "gateway.networking.k8s.io/v1",
                "GRPCRoute",
                &format!(
                    "  parentRefs: [{{group: \"\", kind: Service, name: a}}]\n  rules:\n  - matches: [{{method: {{service: ‸a..b}}}}]\n    {to}"
                ),
            ),
        ),
        (
            "V0036",
            doc(
                "gateway.networking.k8s.io/v1alpha2",
                "TCPRoute",
                &format!("  parentRefs: [{{group: \"\", kind: Service, name: a}}]\n  ‸rules:\n  - {to}\n  - {to}"),
            ),
        ),
        (
            "V0011 V0018",
            doc(
                "gateway.networking.k8s.io/v1beta1",
                "ReferenceGrant",
                "  from: [‸{group: \"\", namespace: a}, {group: g, kind: k, namespace: ‸B}]\n  to: [{group: \"\", kind: Service}]",
            ),
        ),
    ] {
        faults(codes, &text);
    }
}

#[test]
fn own_kinds() {
    let workload = |rest: &str| own("Workload", &format!("  address: 127.1.0.2\n{rest}"));
    let pem = "  bundle: |\n    -----BEGIN CERTIFICATE-----\n    -----END CERTIFICATE-----\n";
    let link = |rest: &str| {
        let text = own("Link", &format!("  trustDomain: east.example\n{pem}{rest}")).replace(", namespace: shop", "");
        if rest.contains("provides") { text } else { text + "  provides: [\"*/*\"]\n" }
    };
    let gateways = "  gateways: [{name: a, address: 10.0.0.1}]\n";
    let traffic = |rest: &str| own("TrafficPolicy", &format!("  targetRef: {{kind: Service, name: cart}}\n{rest}"));
    for (codes, text) in [
        ("V0042", traffic("").replace("kind: Service,", "kind: ‸Gateway,")),
        ("V0042", traffic("").replace("kind: Service, name: cart", "kind: Namespace, name: ‸bank")),
        ("V0015", traffic("  circuitBreaker: {adaptive: {latency: ‸0s}}")),
        ("V0038", traffic("  circuitBreaker: {maxRequests: 2, adaptive: {latency: 1s, minRequests: ‸3}}")),
        ("V0011", traffic("  rateLimits: [‸{per: Caller}]")),
        ("V0015", traffic("  rateLimits: [{requests: 5, interval: ‸0s}]")),
        ("V0013", traffic("  rateLimits: [{requests: 5, burst: ‸0}]")),
        ("V0037", traffic("  rateLimits: ‸[{requests: 5}]").replace("kind: Service,", "kind: ServiceImport,")),
        ("V0011", traffic("  consistentHash: ‸{algorithm: Maglev}")),
        ("V0038", traffic("  consistentHash: ‸{header: a, cookie: b}")),
        ("V0021", traffic("  consistentHash: {header: ‸a b}")),
        ("V0017", traffic("  consistentHash: {algorithm: ‸Jump, header: a}")),
        ("V0011", traffic("  faults: [‸{percent: 5}]")),
        ("V0013", traffic("  faults: [{percent: ‸101, delay: 1s}]")),
        ("V0027", traffic("  faults: [{percent: 1, fraction: ‸{numerator: 1}, delay: 1s}]")),
        ("V0015", traffic("  faults: [{delay: ‸0s}]")),
        ("V0028", traffic("  faults: [{abort: {status: ‸200}}]")),
        ("V0028", traffic("  faults: [{abort: {grpcStatus: ‸unavailable}}]")),
        ("V0011", traffic("  faults: [{abort: ‸{}}]")),
        ("V0021", traffic("  faults: [{headers: [{name: ‸a b, value: c}], delay: 1s}]")),
        ("V0041", traffic("  faults: [{headers: [{type: RegularExpression, name: a, value: ‸(}], delay: 1s}]")),
        ("V0014", own("Workload", "  address: ‸localhost")),
        ("V0014", own("Workload", "  address: ‸0.0.0.0")),
        ("V0013", workload("  replicas: ‸3")),
        ("V0039", workload("  ports: [{port: ‸15008}]")),
        ("V0020", workload("  ports: [{port: 80}, {port: ‸80}]")),
        ("V0012", workload("  run: {command: ‸./cart}")),
        ("V0011", workload("  run: {command: ‸[]}")),
        ("V0011", workload("  run: ‸{env: []}")),
        ("V0018", workload("  run: {command: [a], env: [{name: ‸A=B, value: c}]}")),
        ("V0018", workload("  serviceAccount: ‸Cart")),
        ("V0010", workload("  locality: {‸regoin: a}")),
        ("V0039", workload("").replace("namespace: shop", "namespace: ‸veer-system")),
        (
            "V0033",
            link(gateways).replace(
                "  bundle: |\n    -----BEGIN CERTIFICATE-----\n    -----END CERTIFICATE-----",
                "  bundle: ‸none",
            ),
        ),
        ("V0018", link(gateways).replace("east.example", "‸East")),
        ("V0014", link("  gateways: [{name: a, address: ‸gateway.example}]\n")),
        ("V0016", link(&format!("{gateways}  addresses: [10.0.0.1, ‸10.0.0.0/33]\n"))),
        ("V0044", link("  gateways: [{name: a, address: ‸10.0.0.1}]\n  addresses: [10.1.0.0/16]\n")),
        ("V0031", link(&format!("{gateways}  provides: [‸shop]\n"))),
        ("V0034", link(&format!("{gateways}  provides: []\n")).replace("spec:", "‸spec:")),
        ("V0044", link(&format!("{gateways}  network: ‸flat\n"))),
        ("V0015", link(&format!("{gateways}  lease: ‸10\n"))),
        ("V0015", link(&format!("{gateways}  lease: ‸0s\n"))),
        ("V0042", traffic("").replace("kind: Service", "kind: ‸Pod")),
        ("V0035", traffic("  outlier: {failureRatio: ‸50}")),
        ("V0012", traffic("  outlier: {failureRatio: ‸-1}")),
        ("V0010", traffic("  ‸slowstart: 10s")),
        ("V0038", traffic("  outlier: {baseEjection: ‸2m}")),
        ("V0020", traffic("  locality: {weights: [{cluster: a, weight: 1}, {cluster: ‸a, weight: 2}]}")),
        ("V0011", traffic("  locality: {weights: [‸{cluster: a}]}")),
    ] {
        faults(codes, &text);
    }
}

#[test]
fn a_policy_that_cannot_be_read_allows_nobody() {
    let policy = |rest: &str| own("AuthorizationPolicy", rest);
    for (codes, text) in [
        ("V0010", policy("  selector: {matchLabels: {app: cart}}\n  rules: [{from: [{‸namespace: [web]}]}]")),
        ("V0017", policy("  selector: {matchLabels: {app: cart}}\n  action: ‸PERMIT")),
        (
            "V0031",
            policy("  selector: {matchLabels: {app: cart}}\n  rules: [{from: [{principals: [‸\"spiffe://west*\"]}]}]"),
        ),
        ("V0031", policy("  selector: {matchLabels: {app: cart}}\n  rules: [{from: [{principals: [‸cart]}]}]")),
        ("V0032", policy("  selector: {matchLabels: {app: cart}}\n  rules: [{from: ‸[]}]")),
        ("V0022", policy("  selector: {matchLabels: {app: cart}}\n  rules: [{to: [{paths: [‸\"/a*b\"]}]}]")),
        ("V0025", policy("  selector: {matchLabels: {app: cart}}\n  rules: [{to: [{methods: [‸get]}]}]")),
        ("V0001", policy("  selector: {matchLabels: {app: cart}}\n  rules: [{to: ‸[{ports: [1]}\n")),
    ] {
        let objects = faults(codes, &text);
        let [object] = &objects[..] else { panic!("nothing stands in:\n{text}") };
        let veer_resources::Kind::AuthorizationPolicy(spec) = &object.kind else { panic!() };
        assert!(object.failed_closed);
        assert_eq!((object.name().to_string().as_str(), spec.rules.len()), ("shop/a", 0));
        assert_eq!(spec.action, veer_core::policy::AuthorizationAction::Allow);
        assert_eq!(spec.selector.as_ref().map(|s| s.match_labels.len()), Some(1), "{text}");
    }
    // A selector that is not understood selects everything.
    let objects = faults("V0010", &policy("  selector: {‸labels: {app: cart}}"));
    let veer_resources::Kind::AuthorizationPolicy(spec) = &objects[0].kind else { panic!() };
    assert_eq!(spec.selector, None);
    let objects = faults(
        "V0029",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, annotations: {veer.dev/mtls: ‸strictly}}\n",
    );
    assert_eq!(objects[0].meta.mtls(), Some(veer_core::inbound::MtlsMode::Strict));
}

#[test]
fn ranges_of_load_balancers_are_read_or_the_gateway_is_not() {
    let gateway = |ranges: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: a, annotations: {{veer.dev/proxy-protocol: {ranges}}}}}\nspec: {{gatewayClassName: veer, listeners: [{{name: a, port: 80, protocol: HTTP}}]}}\n"
        )
    };
    for ranges in ["‸\"10.0.0.0/33, 192.0.2.7\"", "‸\"\"", "‸\"10.0.0.1/8\"", "‸everybody"] {
        assert!(faults("V0029", &gateway(ranges)).is_empty(), "{ranges}");
    }
    let (objects, faults) = veer_resources::parse("a.yaml", &gateway("\"10.0.0.0/8, 2001:db8::/32,192.0.2.7\""));
    assert!(faults.is_empty(), "{faults:?}");
    let balancers = objects[0].meta.proxy_protocol().expect("it is on");
    let text: Vec<_> = balancers.iter().map(ToString::to_string).collect();
    assert_eq!(text, ["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"]);
}

const SHOP: &str = "\
apiVersion: v1
kind: Service
metadata: {name: cart}
spec: {selector: {app: cart}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: veer.dev/v1alpha1
kind: Workload
metadata: {name: cart-1, labels: {app: cart}}
spec: {address: 127.1.0.2, ports: [{port: 8080}]}
---
";

#[test]
fn references_that_lead_nowhere() {
    let route = |parent: &str, backend: &str| {
        format!(
            "{SHOP}apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r}}\nspec:\n  parentRefs: [{{group: \"\", kind: Service, {parent}}}]\n  rules: [{{backendRefs: [{{{backend}}}]}}]\n"
        )
    };
    let with = |text: &str| format!("{SHOP}{text}");
    for (codes, text) in [
        ("", SHOP.to_owned()),
        ("", route("name: cart", "name: cart, port: 80")),
        (
            "V0101",
            with(
                "apiVersion: v1\nkind: Service\nmetadata: {name: ‸cart}\nspec: {selector: {app: cart}, ports: [{port: 8080}]}\n",
            ),
        ),
        ("V0102", SHOP.replacen("selector: {app: cart}", "selector: ‸{app: crat}", 1)),
        ("V0102", SHOP.replacen("spec: {selector: {app: cart}, ", "spec: ‸{", 1)),
        ("V0103", SHOP.replacen("targetPort: 8080", "targetPort: ‸8081", 1)),
        ("V0105", route("name: ‸crat", "name: cart, port: 80")),
        ("V0105", route("name: cart, port: ‸81", "name: cart, port: 80")),
        ("V0105", route("name: cart, sectionName: ‸grpc", "name: cart, port: 80")),
        ("V0104", route("name: cart", "name: ‸crat, port: 80")),
        ("V0104", route("name: cart", "name: cart, port: ‸8080")),
        ("V0104", route("name: cart", "group: multicluster.x-k8s.io, kind: ServiceImport, name: ‸crat, port: 80")),
        ("V0104 V0109", route("name: cart", "name: ‸cart, namespace: ‸other, port: 80")),
        (
            "V0106",
            with(
                "apiVersion: multicluster.x-k8s.io/v1alpha1\nkind: ServiceExport\nmetadata: {name: ‸crat, annotations: {veer.dev/audience: \"*\"}}\n",
            ),
        ),
        ("V0107", with(&own("TrafficPolicy", "  targetRef: {name: ‸crat}").replace(", namespace: shop", ""))),
        (
            "V0107",
            with(&own("TrafficPolicy", "  targetRef: {kind: HTTPRoute, name: ‸none}").replace(", namespace: shop", "")),
        ),
        (
            "V0107 V0114",
            with(
                &own("TrafficPolicy", "  targetRef: {kind: HTTPRoute, name: ‸none}\n  slowStart: ‸1s")
                    .replace(", namespace: shop", ""),
            ),
        ),
        (
            "V0108",
            with(
                &own("AuthorizationPolicy", "  selector: ‸{matchLabels: {app: crat}}").replace(", namespace: shop", ""),
            ),
        ),
        ("V0111", with(&own("Workload", "  address: ‸127.1.0.2").replace(", namespace: shop", ""))),
    ] {
        set_faults(codes, &text);
    }
}

#[test]
fn the_first_of_two_links_with_one_trust_domain_is_used() {
    let link = |name: &str, mark: &str| {
        format!(
            "apiVersion: veer.dev/v1alpha1\nkind: Link\nmetadata: {{name: {name}}}\nspec:\n  trustDomain: {mark}east.example\n  bundle: |\n    -----BEGIN CERTIFICATE-----\n    -----END CERTIFICATE-----\n  gateways: [{{name: a, address: 10.0.0.1}}]\n  provides: [\"*/*\"]\n"
        )
    };
    let objects = set_faults("V0112", &format!("{}---\n{}", link("east", ""), link("evil", "‸")));
    assert_eq!(objects.len(), 1);
    assert_eq!(&*objects[0].meta.name, "east");
}

#[test]
fn fleets() {
    let fleet = |rest: &str| {
        format!(
            "apiVersion: veer.dev/v1alpha1\nkind: Fleet\nspec:\n  clusters:\n  - name: west\n    trustDomain: west.example\n    manifests: west\n    control: {{address: 127.1.0.1}}\n    gateways: [{{name: gw, address: 127.1.255.1}}]\n{rest}"
        )
    };
    let east = |name: &str, domain: &str, dir: &str, control: &str| {
        format!("  - {{name: {name}, trustDomain: {domain}, manifests: {dir}, control: {{address: {control}}}}}\n")
    };
    let two = fleet(&east("east", "east.example", "east", "127.2.0.1"));
    fleet_faults("", &format!("{two}  peering: [{{between: [west, east]}}]\n"));
    fleet_faults("V0050", &format!("{two}  peering: [{{between: [west, ‸est]}}]\n"));
    fleet_faults("V0050", &format!("{two}  peering: [{{between: ‸[west]}}]\n"));
    fleet_faults("V0050", &format!("{two}  peering: [{{between: ‸[west, west]}}]\n"));
    fleet_faults("V0020", &format!("{two}  peering: [{{between: [west, east]}}, {{between: ‸[east, west]}}]\n"));
    fleet_faults("V0020", &fleet(&east("‸west", "east.example", "east", "127.2.0.1")));
    fleet_faults("V0020", &fleet(&east("east", "‸west.example", "east", "127.2.0.1")));
    fleet_faults("V0020", &fleet(&east("east", "east.example", "east", "‸127.1.255.1")));
    fleet_faults("V0018", &fleet(&east("‸West_1", "east.example", "east", "127.2.0.1")));
    fleet_faults("V0010", &fleet("    ‸certificateTTL: 24h\n"));
    fleet_faults("V0015", &fleet("    certificateTtl: ‸1d\n"));
    fleet_faults("V0006", "apiVersion: veer.dev/v1alpha1\nkind: ‸Fleat\nspec: {}\n");
    fleet_faults("V0006", "‸");
    fleet_faults("V0007", &format!("{two}---\n‸apiVersion: v1\nkind: Namespace\n"));
}
