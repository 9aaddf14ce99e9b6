//! A Gateway between clients and backends that are outside of the mesh: real curl, real sockets.

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use veer_testkit::{Fleet, eventually};

use crate::support::{
    Answer, SOON, answered, ask_gateway, fleet, foreign, output, python, service, tool_json, workload,
};

/// Address of the Gateway within its cluster's network.
const GATEWAY: u8 = 60;
const STRICT: u16 = 10443;
const LAX: u16 = 10444;

/// Keys and certificates of a small world, in a folder.
struct Keys<'a>(&'a Path);

impl Keys<'_> {
    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn openssl(&self, arguments: &[&str]) {
        output(Command::new("openssl").current_dir(self.0).args(arguments));
    }

    /// An authority: `NAME.crt`, `NAME.key`.
    fn authority(&self, name: &str) {
        let (key, chain, subject) = (format!("{name}.key"), format!("{name}.crt"), format!("/CN={name}"));
        let ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
        let all = [&["req", "-x509"], &ec[..], &["-subj", &subject, "-keyout", &key, "-out", &chain]].concat();
        self.openssl(&all);
    }

    /// A certificate of an authority for these names (`DNS:…,URI:…`).
    fn signed(&self, name: &str, by: &str, names: &str) {
        let (key, request, chain) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.crt"));
        let subject = format!("/CN={name}");
        let ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let all = [&["req"], &ec[..], &["-subj", &subject, "-keyout", &key, "-out", &request]].concat();
        self.openssl(&all);
        let extensions = format!("{name}.ext");
        std::fs::write(self.0.join(&extensions), format!("subjectAltName={names}\n")).expect("written");
        let (authority, authority_key) = (format!("{by}.crt"), format!("{by}.key"));
        let signing = ["x509", "-req", "-days", "2", "-in", &request, "-CA", &authority, "-CAkey", &authority_key];
        self.openssl(&[&signing[..], &["-CAcreateserial", "-extfile", &extensions, "-out", &chain]].concat());
    }

    fn indented(&self, file: &str) -> String {
        let text = std::fs::read_to_string(self.0.join(file)).expect("openssl wrote it");
        text.lines().map(|line| format!("    {line}\n")).collect()
    }

    fn secret(&self, name: &str) -> String {
        let (chain, key) = (self.indented(&format!("{name}.crt")), self.indented(&format!("{name}.key")));
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{ name: {name}, namespace: shop }}\ntype: kubernetes.io/tls\nstringData:\n  tls.crt: |\n{chain}  tls.key: |\n{key}"
        )
    }

    fn config_map(&self, name: &str) -> String {
        let chain = self.indented(&format!("{name}.crt"));
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{ name: {name}, namespace: shop }}\ndata:\n  ca.crt: |\n{chain}"
        )
    }
}

/// Asks the Gateway as shop.example.com.
fn ask(fleet: &Fleet, scheme: &str, port: u16, path: &str, more: &[&str]) -> Answer {
    ask_gateway(fleet, GATEWAY, (scheme, "shop.example.com", port, path), more)
}

#[tokio::test]
async fn clients_show_certificates() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = Keys(folder.path());
    keys.authority("site-ca");
    keys.authority("clients");
    keys.authority("foreign");
    keys.signed("site", "site-ca", "DNS:shop.example.com");
    keys.signed("ada", "clients", "DNS:ada.example");
    keys.signed("eve", "foreign", "DNS:ada.example");
    let validation = |more: &str| {
        format!("validation: {{ caCertificateRefs: [{{ group: \"\", kind: ConfigMap, name: clients }}]{more} }}")
    };
    let listener = |name: &str, port: u16| {
        format!(
            "  - {{ name: {name}, port: {port}, protocol: HTTPS, tls: {{ certificateRefs: [{{ name: site }}] }} }}\n"
        )
    };
    let gateway = format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{ name: web, namespace: shop }}
spec:
  gatewayClassName: veer
  addresses: [{{ value: 127.69.0.{GATEWAY} }}]
  tls:
    frontend:
      default: {{ {} }}
      perPort: [{{ port: {LAX}, tls: {{ {} }} }}]
  listeners:
{}{}",
        validation(""),
        validation(", mode: AllowInsecureFallback"),
        listener("strict", STRICT),
        listener("lax", LAX),
    );
    let route = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: page, namespace: shop }
spec:
  parentRefs: [{ name: web }]
  rules: [{ backendRefs: [{ name: page, port: 80 }] }]
";
    let fleet = fleet()
        .cluster("west", 69, 1)
        .manifest("west/page.yaml", &service("page", 80, "http"))
        .manifest("west/page-1.yaml", &workload("page", 1, "127.69.0.31", "http", "app.py"))
        .manifest("west/site.yaml", &keys.secret("site"))
        .manifest("west/clients.yaml", &keys.config_map("clients"))
        .manifest("west/gateway.yaml", &gateway)
        .manifest("west/route.yaml", route)
        .start()
        .await
        .expect("the fleet starts");

    let trusted = keys.path("site-ca.crt");
    let shows = |name: &str| {
        let (chain, key) = (keys.path(&format!("{name}.crt")), keys.path(&format!("{name}.key")));
        ["--cacert".to_owned(), trusted.clone(), "--cert".to_owned(), chain, "--key".to_owned(), key]
    };
    let asked = |port: u16, who: Option<&str>| {
        let more = who.map_or(vec!["--cacert".to_owned(), trusted.clone()], |who| shows(who).to_vec());
        ask(&fleet, "https", port, "/", &more.iter().map(String::as_str).collect::<Vec<_>>())
    };
    answered(&fleet, "a client of the authority is served", 200, || asked(STRICT, Some("ada"))).await;
    assert_eq!(asked(STRICT, Some("eve")).status, 0, "another authority's client");
    assert_eq!(asked(STRICT, None).status, 0, "no certificate");
    for who in [Some("ada"), Some("eve"), None] {
        assert_eq!(asked(LAX, who).status, 200, "the fallback lets in {who:?}");
    }

    // The authority is replaced, then lost: who was let in before is not let in any more, then nobody is.
    let other = keys.config_map("foreign").replace("name: foreign", "name: clients");
    fleet.write("west/clients.yaml", &other).expect("written");
    answered(&fleet, "clients of the new authority are served", 200, || asked(STRICT, Some("eve"))).await;
    assert_eq!(asked(STRICT, Some("ada")).status, 0);
    fleet.write("west/clients.yaml", &other.replace("ca.crt:", "other:")).expect("written");
    answered(&fleet, "nobody is served", 0, || asked(STRICT, Some("eve"))).await;
    answered(&fleet, "nobody is served by the fallback either", 0, || asked(LAX, None)).await;
}

/// An HTTPS server outside of the mesh, for as long as it is held.
struct Backend(std::process::Child);

impl Backend {
    fn start(address: &str, keys: &Keys<'_>, name: &str, clients: Option<&str>) -> Self {
        let mut command = Command::new(python());
        command.arg(foreign("sealed.py")).arg(address);
        command.arg(keys.path(&format!("{name}.crt"))).arg(keys.path(&format!("{name}.key")));
        command.args(clients.map(|name| keys.path(&format!("{name}.crt"))));
        Self(command.spawn().expect("python runs"))
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn backends_outside_of_the_mesh_are_spoken_to_by_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = Keys(folder.path());
    keys.authority("backends");
    keys.authority("gateways");
    keys.authority("foreign");
    keys.signed("backend", "backends", "DNS:backend.example.com,URI:spiffe://elsewhere.example/backend");
    keys.signed("own", "gateways", "DNS:gateway.example.com");
    let gateway = format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{ name: web, namespace: shop }}
spec:
  gatewayClassName: veer
  addresses: [{{ value: 127.70.0.{GATEWAY} }}]
  tls: {{ backend: {{ clientCertificateRef: {{ name: own }} }} }}
  listeners: [{{ name: http, port: 10080, protocol: HTTP }}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{ name: old, namespace: shop }}
spec:
  parentRefs: [{{ name: web }}]
  rules: [{{ backendRefs: [{{ name: old, port: 443 }}] }}]
---
apiVersion: v1
kind: Service
metadata: {{ name: old, namespace: shop }}
spec:
  ports: [{{ name: https, port: 443 }}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: old-1, namespace: shop, labels: {{ kubernetes.io/service-name: old }} }}
addressType: IPv4
ports: [{{ name: https, port: 9443 }}]
endpoints: [{{ addresses: [127.70.0.77] }}]
"
    );
    let policy = |validation: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {{ name: old, namespace: shop }}
spec:
  targetRefs: [{{ group: \"\", kind: Service, name: old }}]
  validation: {{ {validation} }}
"
        )
    };
    let by = |map: &str, more: &str| {
        policy(&format!("caCertificateRefs: [{{ group: \"\", kind: ConfigMap, name: {map} }}], {more}"))
    };
    let named = "hostname: backend.example.com";
    let _backend = Backend::start("127.70.0.77:9443", &keys, "backend", Some("gateways"));
    let fleet = fleet()
        .cluster("west", 70, 1)
        .manifest("west/gateway.yaml", &gateway)
        .manifest("west/own.yaml", &keys.secret("own"))
        .manifest("west/backends.yaml", &keys.config_map("backends"))
        .manifest("west/foreign.yaml", &keys.config_map("foreign"))
        .manifest("west/policy.yaml", &by("backends", named))
        .start()
        .await
        .expect("the fleet starts");

    let asked = || ask(&fleet, "http", 10080, "/a", &[]);
    answered(&fleet, "the backend answers over TLS", 200, asked).await;
    let seen = asked().json();
    assert_eq!((&seen["path"], &seen["sni"]), (&"/a".into(), &"backend.example.com".into()), "{seen}");
    assert_eq!(seen["client"][0], "own", "the Gateway's certificate was shown: {seen}");
    let objects =
        tool_json(&fleet, "west", &["get", "backendtlspolicy", "shop/old", "--cluster", "west"]).expect("get");
    let ancestor = &objects[0]["status"]["ancestors"][0];
    assert_eq!(
        (&ancestor["ancestorRef"]["name"], &ancestor["conditions"][0]["status"]),
        (&"web".into(), &"True".into())
    );

    // Another name, another authority, an authority that is missing: each closed, never in clear text.
    for (closed, what) in [
        (by("backends", "hostname: other.example.com"), "another name"),
        (by("foreign", named), "another authority"),
        (by("gone", named), "no authority"),
    ] {
        fleet.write("west/policy.yaml", &closed).expect("written");
        answered(&fleet, what, 503, asked).await;
        let by_uri = by(
            "backends",
            "hostname: any.example.com, subjectAltNames: [{ type: URI, uri: \"spiffe://elsewhere.example/backend\" }]",
        );
        fleet.write("west/policy.yaml", &by_uri).expect("written");
        answered(&fleet, "the backend has the URI", 200, asked).await;
    }
}

#[tokio::test]
async fn a_gateway_leads_to_a_name_outside() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = Keys(folder.path());
    keys.authority("backends");
    keys.signed("backend", "backends", "DNS:backend.example.com");
    let manifests = format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{ name: web, namespace: shop }}
spec:
  gatewayClassName: veer
  addresses: [{{ value: 127.68.0.{GATEWAY} }}]
  listeners: [{{ name: http, port: 10080, protocol: HTTP }}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{ name: out, namespace: shop }}
spec:
  parentRefs: [{{ name: web }}]
  rules: [{{ backendRefs: [{{ group: gateway.networking.x-k8s.io, kind: XBackend, name: out }}] }}]
"
    );
    let outside = |host: &str, name: &str| {
        format!(
            "apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackend
metadata: {{ name: out, namespace: shop }}
spec:
  type: ExternalHostname
  externalHostname: {{ hostname: {host} }}
  port: {{ port: 19443 }}
  tls:
    mode: ServerOnly
    validation: {{ hostname: {name}, caCertificateRefs: [{{ group: \"\", kind: ConfigMap, name: backends }}] }}
"
        )
    };
    let _backend = Backend::start("127.0.0.1:19443", &keys, "backend", None);
    let fleet = fleet()
        .cluster("west", 68, 1)
        .manifest("west/gateway.yaml", &manifests)
        .manifest("west/backends.yaml", &keys.config_map("backends"))
        .manifest("west/out.yaml", &outside("localhost", "backend.example.com"))
        .start()
        .await
        .expect("the fleet starts");
    let asked = || ask(&fleet, "http", 10080, "/a", &[]);
    answered(&fleet, "the name is resolved, and its TLS is judged", 200, asked).await;
    let seen = asked().json();
    assert_eq!((&seen["path"], &seen["sni"]), (&"/a".into(), &"backend.example.com".into()), "{seen}");
    let objects = tool_json(&fleet, "west", &["get", "xbackend", "shop/out", "--cluster", "west"]).expect("get");
    let parent = &objects[0]["status"]["parents"][0];
    assert_eq!(
        (&parent["parentRef"]["name"], &parent["conditions"][0]["status"]),
        (&"web".into(), &"True".into()),
        "{objects}"
    );
    for (closed, what) in [
        (outside("localhost", "other.example.com"), "another name in the certificate"),
        (outside("nobody.invalid", "backend.example.com"), "a name that nobody has"),
    ] {
        fleet.write("west/out.yaml", &closed).expect("written");
        answered(&fleet, what, 503, asked).await;
        fleet.write("west/out.yaml", &outside("localhost", "backend.example.com")).expect("written");
        answered(&fleet, "the name is right again", 200, asked).await;
    }
}

/// Answers datagrams with its name and what was said, until the test ends.
fn answer_datagrams(address: &str, name: &'static str) {
    let socket = UdpSocket::bind(address).expect("a free port");
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&[name.as_bytes(), b" ", &buffer[..length]].concat(), from);
        }
    });
}

#[tokio::test]
async fn datagrams_find_their_endpoints() {
    let member = |name: &str, last: u8| {
        format!(
            "apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: shop }}
spec:
  ports: [{{ name: dns, port: 53, protocol: UDP }}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: {name}-1, namespace: shop, labels: {{ kubernetes.io/service-name: {name} }} }}
addressType: IPv4
ports: [{{ name: dns, port: 5353, protocol: UDP }}]
endpoints: [{{ addresses: [127.67.0.{last}] }}]
"
        )
    };
    let gateway = format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{ name: web, namespace: shop }}
spec:
  gatewayClassName: veer
  addresses: [{{ value: 127.67.0.{GATEWAY} }}]
  listeners: [{{ name: dns, port: 10053, protocol: UDP }}]
"
    );
    let route = |first: u8, second: u8| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1
kind: UDPRoute
metadata: {{ name: dns, namespace: shop }}
spec:
  parentRefs: [{{ name: web }}]
  rules: [{{ backendRefs: [{{ name: one, port: 53, weight: {first} }}, {{ name: two, port: 53, weight: {second} }}] }}]
"
        )
    };
    answer_datagrams("127.67.0.77:5353", "one");
    answer_datagrams("127.67.0.78:5353", "two");
    let fleet = fleet()
        .cluster("west", 67, 1)
        .manifest("west/one.yaml", &member("one", 77))
        .manifest("west/two.yaml", &member("two", 78))
        .manifest("west/gateway.yaml", &gateway)
        .manifest("west/route.yaml", &route(1, 1))
        .start()
        .await
        .expect("the fleet starts");

    let to = format!("{}:10053", fleet.address("west", GATEWAY));
    let client = || {
        let client = UdpSocket::bind("127.67.0.9:0").expect("a socket");
        client.set_read_timeout(Some(Duration::from_millis(500))).expect("a time-out");
        client.connect(&to).expect("an address");
        client
    };
    let ask = |client: &UdpSocket| {
        client.send(b"hello").map_err(|error| error.to_string())?;
        let mut buffer = [0; 2048];
        let length = client.recv(&mut buffer).map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        text.strip_suffix(" hello").map(ToOwned::to_owned).ok_or(text)
    };
    eventually(&format!("datagrams come back (logs in {})", fleet.folder().display()), SOON, || {
        ask(&client()).map(drop)
    })
    .await;
    let mut seen = Vec::new();
    for _ in 0..20 {
        let client = client();
        let first = ask(&client).expect("an answer");
        assert_eq!(ask(&client).expect("an answer"), first, "a client stays where it is");
        seen.push(first);
    }
    assert!(seen.iter().any(|name| name == "one") && seen.iter().any(|name| name == "two"), "{seen:?}");
    fleet.write("west/route.yaml", &route(0, 1)).expect("written");
    eventually("new clients go to the second", SOON, || {
        let all: Result<Vec<String>, String> = (0..10).map(|_| ask(&client())).collect();
        if all.as_ref().is_ok_and(|all| all.iter().all(|name| name == "two")) {
            Ok(())
        } else {
            Err(format!("{all:?}"))
        }
    })
    .await;
}
