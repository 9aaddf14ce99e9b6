//! Transparent capture and clusters with the same address ranges, in network namespaces. Needs root.

use std::process::{Child, Output};

use veer_testkit::{Fleet, FleetSpec, Namespace, Wan, eventually};

use crate::support::{SOON, ask, fleet, foreign, listening, output, python, service, workload};

/// Of services, nobody's own: only capture leads anywhere from here.
const VIRTUAL: &str = "10.96.0.0/16";
/// What gateways say to each other does not pass by a workload's proxy.
const GATEWAY_PORT: &str = "15443";

/// A Service with a virtual address.
fn virtual_service(name: &str, address: &str, port: u16, protocol: &str) -> String {
    service(name, port, protocol).replace("spec:\n  selector", &format!("spec:\n  clusterIP: {address}\n  selector"))
}

/// A Service of the other cluster: no copies here, a virtual address all the same.
fn remote_service(name: &str, address: &str, port: u16, protocol: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata:
  name: {name}
  namespace: shop
  annotations: {{ veer.dev/scope: clusterset }}
spec:
  clusterIP: {address}
  ports: [{{ name: main, port: {port}, appProtocol: {protocol} }}]
"
    )
}

/// The caller: a proxy that takes captured connections.
fn caller() -> &'static str {
    "apiVersion: veer.dev/v1alpha1
kind: Workload
metadata:
  name: visitor
  namespace: shop
  annotations: { veer.dev/capture: \"true\" }
spec: { address: 10.0.0.10, serviceAccount: visitor }
"
}

/// Copies of an HTTP application and of a server that speaks first.
fn copies(mut spec: FleetSpec, cluster: &str, web: &str, greeter: &str) -> FleetSpec {
    for (name, last, protocol, program, manifest) in
        [("web", 31, "http", "app.py", web), ("greeter", 41, "tcp", "tcp_server.py", greeter)]
    {
        spec = spec.manifest(&format!("{cluster}/{name}.yaml"), manifest);
        let copy = workload(name, 1, &format!("10.0.0.{last}"), protocol, program);
        spec = spec.manifest(&format!("{cluster}/{name}-1.yaml"), &copy);
    }
    spec
}

/// Applies the rules that `veer capture` makes, in a namespace, and gives virtual addresses a route: without one a connection ends
/// before any rule sees it.
fn capture(namespace: &Namespace) {
    namespace.run("ip", &["route", "add", VIRTUAL, "dev", "lo"]).expect("a route");
    let mut command = namespace.command(env!("CARGO_BIN_EXE_veer"));
    output(command.args(["capture", "--exclude-inbound", GATEWAY_PORT, "--exclude-outbound", GATEWAY_PORT]));
    let rules = namespace.run("nft", &["list", "table", "inet", "veer_capture"]).expect("the rules are there");
    assert!(rules.contains("redirect to :15002") && rules.contains("redirect to :15006"), "{rules}");
}

fn curl(fleet: &Fleet, cluster: &str, url: &str) -> Output {
    fleet.command(cluster, "curl").args(["-s", "-i", "-m", "5", url]).output().expect("curl runs")
}

/// An application sends requests to a virtual address, knowing nothing of Veer.
async fn reaches_web(fleet: &Fleet, from: &str, url: &str, caller: &str) -> String {
    eventually(&format!("{from} reaches {url} (logs in {})", fleet.folder().display()), SOON, || {
        let text = String::from_utf8_lossy(&curl(fleet, from, url).stdout).into_owned();
        let expected = format!("[\"x-veer-client-id\", \"{caller}\"]");
        if text.starts_with("HTTP/1.1 200") && text.contains(&expected) { Ok(text) } else { Err(text) }
    })
    .await
}

async fn reaches_greeter(fleet: &Fleet, from: &str, address: &str) {
    let what = format!("{from} hears the server at {address} (logs in {})", fleet.folder().display());
    let greeting = eventually(&what, SOON, || {
        let mut command = fleet.command(from, python());
        let output = command.args([&foreign("tcp_client.py"), address]).output().map_err(|e| e.to_string())?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() { Ok(said) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    })
    .await;
    assert_eq!(greeting.trim(), "220 greeter-1 ready");
}

#[tokio::test]
async fn an_application_that_knows_nothing_of_veer_is_captured() {
    let wan = Wan::new().expect("namespaces can be made: are you root?");
    let namespace = wan.attach("one", "192.0.2.1").expect("a namespace");
    let outside = wan.attach("out", "192.0.2.9").expect("a namespace");
    let spec = fleet()
        .cluster_in("west", namespace, &["192.0.2.1"])
        .expect("addresses")
        .manifest("west/visitor.yaml", caller());
    let web = virtual_service("web", "10.96.0.10", 80, "http");
    let greeter = virtual_service("greeter", "10.96.0.11", 7000, "tcp");
    let fleet = copies(spec, "west", &web, &greeter).start().await.expect("the fleet starts");
    listening(&fleet, "west", 31, 9080).await;
    listening(&fleet, "west", 41, 9080).await;
    let namespace = fleet.cluster("west").namespace.as_ref().expect("a namespace");

    // Without the rules nobody answers at a virtual address; with them the mesh does.
    let refused = curl(&fleet, "west", "http://10.96.0.10/");
    assert!(!refused.status.success(), "something else answers: {refused:?}");
    capture(namespace);
    let text = reaches_web(&fleet, "west", "http://10.96.0.10/x?y=1", "spiffe://west.test/ns/shop/sa/visitor").await;
    assert!(text.contains("\"target\": \"/x?y=1\""), "{text}");
    assert!(text.contains("[\"host\", \"10.96.0.10\"]"), "the application sees the host that was asked for: {text}");
    reaches_greeter(&fleet, "west", "10.96.0.11:7000").await;

    // Through the mesh: counted by the caller's proxy and by the callee's, over mutual TLS.
    let edge = [("direction", "outbound"), ("destination_workload", "web-1"), ("status", "200")];
    assert!(
        fleet.metric("west", 10, "veer_requests_total", &edge).expect("metrics") >= 1.0,
        "the caller counted nothing"
    );
    let edge = [("direction", "inbound"), ("source_workload", "visitor"), ("status", "200")];
    let text = output(fleet.command("west", "curl").args(["-s", "http://10.0.0.31:15020/metrics"]));
    let counted = fleet.metric("west", 31, "veer_requests_total", &edge).expect("metrics");
    assert!(counted >= 1.0, "the callee counted {counted}: {text}");
    let shakes = fleet.metric("west", 31, "veer_tls_handshakes_total", &[("direction", "inbound"), ("outcome", "ok")]);
    assert!(shakes.expect("metrics") >= 1.0, "the callee saw no mutual TLS");
    let edge = [("direction", "outbound"), ("destination_workload", "greeter-1")];
    assert!(
        fleet.metric("west", 10, "veer_tcp_connections_total", &edge).expect("metrics") >= 1.0,
        "no TCP was counted"
    );

    // A port that the service does not have, and destinations that are no service, are not the mesh's: they pass untouched.
    let server = app(&outside, 8000, "outside");
    let url = "http://192.0.2.9:8000/untouched";
    let text = eventually("what is outside answers", SOON, || {
        let text = String::from_utf8_lossy(&curl(&fleet, "west", url).stdout).into_owned();
        if text.contains("200") { Ok(text) } else { Err(text) }
    })
    .await;
    assert!(text.contains("\"/untouched\"") && !text.contains("x-veer") && !text.contains("traceparent"), "{text}");
    drop(server);
    let refused = curl(&fleet, "west", "http://192.0.2.9:8001/");
    assert!(!refused.status.success(), "a refused connection must stay one: {refused:?}");

    // Taken back, everything is as before.
    output(namespace.command(env!("CARGO_BIN_EXE_veer")).args(["capture", "--remove"]));
    let refused = curl(&fleet, "west", "http://10.96.0.10/");
    assert!(!refused.status.success(), "the rules are still there: {refused:?}");
}

/// A process that ends when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `app.py` outside of every supervised cluster.
fn app(namespace: &Namespace, port: u16, name: &str) -> Running {
    let mut command = namespace.command(&python());
    Running(command.args([&foreign("app.py"), &format!("0.0.0.0:{port}"), name]).spawn().expect("python runs"))
}

/// The machine, whose proxy nobody supervises.
fn machine_yaml(mtls: &str) -> String {
    format!(
        "apiVersion: veer.dev/v1alpha1
kind: Workload
metadata:
  name: vm-1
  namespace: shop
  labels: {{ app: vm }}
  annotations: {{ veer.dev/proxy: external, veer.dev/mtls: {mtls} }}
spec:
  address: 192.0.2.50
  serviceAccount: vm
  ports: [{{ name: main, port: 8080, appProtocol: http }}]
"
    )
}

#[tokio::test]
async fn a_machine_joins_with_a_token_and_is_captured_both_ways() {
    let wan = Wan::new().expect("namespaces can be made: are you root?");
    let inside = wan.attach("west", "192.0.2.1").expect("a namespace");
    for last in [2, 10, 31] {
        inside.add_public(&format!("192.0.2.{last}")).expect("an address");
    }
    let (machine, outside) =
        (wan.attach("vm", "192.0.2.50").expect("a namespace"), wan.attach("out", "192.0.2.9").expect("a namespace"));
    let spec = fleet().cluster_on("west", inside, "192.0.2", &["192.0.2.2"]).visitor("west");
    let spec = spec
        .manifest("west/web.yaml", &virtual_service("web", "10.96.0.10", 80, "http"))
        .manifest("west/web-1.yaml", &workload("web", 1, "192.0.2.31", "http", "app.py"))
        .manifest("west/vm.yaml", &virtual_service("vm", "10.96.0.50", 80, "http"));
    let fleet = spec.start().await.expect("the fleet starts");
    listening(&fleet, "west", 31, 9080).await;

    fleet.write("west/vm-1.yaml", &machine_yaml("permissive")).expect("written");
    let token = eventually("a token for the machine", SOON, || {
        let (text, ok) = fleet.tool("west", &["token", "shop/vm-1"]).map_err(|e| e.to_string())?;
        if ok { Ok(text.trim().to_owned()) } else { Err(text) }
    })
    .await;
    capture(&machine);
    let _app = app(&machine, 8080, "vm-1");
    let state = fleet.folder().join("vm");
    let log = std::fs::File::create(fleet.folder().join("vm.log")).expect("a log");
    let mut proxy = machine.command(env!("CARGO_BIN_EXE_veer"));
    proxy.args(["proxy", "--address", "192.0.2.50", "--capture", "--state"]).arg(&state).env("VEER_JOIN_TOKEN", &token);
    let _proxy = Running(proxy.stderr(log).spawn().expect("the proxy runs"));

    // Called by the mesh, with the caller's name.
    let ours = "spiffe://west.test/ns/shop/sa/visitor";
    eventually(&format!("the mesh reaches the machine (log: {}/vm.log)", fleet.folder().display()), SOON, || {
        let answer = ask(&fleet, "west", "vm.shop", "/", &[]);
        if answer.status != 200 {
            return Err(format!("{answer:?}"));
        }
        assert_eq!((answer.field("x-served-by"), answer.seen("x-veer-client-id")), ("vm-1", vec![ours.to_owned()]));
        Ok(())
    })
    .await;
    // An application on it calls the mesh, by a virtual address and under the machine's own identity.
    let text =
        machine.run("curl", &["-s", "-i", "-m", "5", "http://10.96.0.10/"]).expect("the machine reaches the mesh");
    assert!(text.contains("x-served-by: web-1") && text.contains("spiffe://west.test/ns/shop/sa/vm\""), "{text}");

    // A caller outside of the mesh comes in plaintext, is led through the proxy all the same, and cannot claim a name.
    let plain = |more: &[&str]| {
        let all = [&["-s", "-i", "-m", "5", "http://192.0.2.50:8080/plain"], more].concat();
        outside.run("curl", &all).map_err(|e| format!("{e:#}"))
    };
    let text = plain(&["-H", &format!("x-veer-client-id: {ours}")]).expect("plaintext is taken");
    assert!(text.contains("\"/plain\"") && text.contains("traceparent"), "not through the proxy: {text}");
    assert!(!text.contains("x-veer-client-id"), "a stranger's word for its name was believed: {text}");
    let metrics = machine.run("curl", &["-s", "http://192.0.2.50:15020/metrics"]).expect("metrics");
    let inbound =
        metrics.lines().filter(|l| l.starts_with("veer_requests_total") && l.contains("direction=\"inbound\""));
    assert!(inbound.count() >= 2, "the mesh's caller and the stranger are counted apart: {metrics}");

    // Strict: only the mesh.
    fleet.write("west/vm-1.yaml", &machine_yaml("strict")).expect("written");
    eventually("plaintext is refused", SOON, || match plain(&[]) {
        Ok(text) if text.contains(" 200 ") => Err(text),
        _ => Ok(()),
    })
    .await;
    assert_eq!(ask(&fleet, "west", "vm.shop", "/", &[]).status, 200, "the mesh still comes in");
}

#[tokio::test]
async fn clusters_with_the_same_addresses_call_each_other_both_ways() {
    let wan = Wan::new().expect("namespaces can be made: are you root?");
    let mut spec = fleet();
    for (name, public) in [("west", "192.0.2.1"), ("east", "192.0.2.2")] {
        let namespace = wan.attach(name, public).expect("a namespace");
        spec = spec.cluster_in(name, namespace, &[public]).expect("addresses");
        spec = spec.manifest(&format!("{name}/visitor.yaml"), caller());
    }
    spec = spec.peer("west", "east");
    // Each address exists in both clusters: 10.0.0.31 is the web of west and, in east, the web of east.
    for (name, other, own_web, other_web) in [("west", "east", "webw", "webe"), ("east", "west", "webe", "webw")] {
        let _ = other;
        spec = spec
            .manifest(&format!("{name}/own.yaml"), &virtual_service(own_web, "10.96.0.10", 80, "http"))
            .manifest(&format!("{name}/own-1.yaml"), &workload(own_web, 1, "10.0.0.31", "http", "app.py"))
            .manifest(&format!("{name}/remote.yaml"), &remote_service(other_web, "10.96.0.20", 80, "http"));
    }
    spec = spec
        .manifest("east/greeter.yaml", &virtual_service("greeter", "10.96.0.11", 7000, "tcp"))
        .manifest("east/greeter-1.yaml", &workload("greeter", 1, "10.0.0.41", "tcp", "tcp_server.py"))
        .manifest("west/greeter.yaml", &remote_service("greeter", "10.96.0.21", 7000, "tcp"));
    let fleet = spec.start().await.expect("the fleet starts");
    listening(&fleet, "east", 41, 9080).await;
    for cluster in ["west", "east"] {
        listening(&fleet, cluster, 31, 9080).await;
        capture(fleet.cluster(cluster).namespace.as_ref().expect("a namespace"));
    }

    for (from, to, served) in [("west", "east", "webe-1"), ("east", "west", "webw-1")] {
        let caller = format!("spiffe://{from}.test/ns/shop/sa/visitor");
        let text = reaches_web(&fleet, from, "http://10.96.0.20/", &caller).await;
        assert!(text.contains(&format!("x-served-by: {served}")), "{from} was served by another: {text}");
        let edge = [("direction", "outbound"), ("destination_cluster", to), ("destination_workload", served)];
        assert!(
            fleet.metric(from, 10, "veer_requests_total", &edge).expect("metrics") >= 1.0,
            "{from} counted nothing"
        );
        // Through the other's gateway, which saw bytes of this peer.
        let gateway = fleet.cluster(to).gateways[0].clone();
        let url = format!("http://{gateway}:15020/metrics");
        let text = output(fleet.command(to, "curl").args(["-s", "-m", "5", &url]));
        let relayed = text.lines().any(|line| line.starts_with("veer_relay_bytes_total") && line.contains(from));
        assert!(relayed, "{to}'s gateway relayed nothing of {from}: {text}");

        // The same address nearby is another workload.
        let own = String::from_utf8_lossy(&curl(&fleet, from, "http://10.96.0.10/").stdout).into_owned();
        assert!(!own.contains(served) && own.contains("x-served-by: web"), "{own}");
    }
    reaches_greeter(&fleet, "west", "10.96.0.21:7000").await;
}
