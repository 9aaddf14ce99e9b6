//! Bad input: faults in manifests are told all at once and change nothing; hostile bytes harm nobody but their sender.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use veer_testkit::{Fleet, eventually};

use crate::support::{SOON, ask, fleet, listening, serving};

const ITEMS: &str = "/items";

async fn shop(network: u8) -> Fleet {
    let spec = fleet().cluster("west", network, 1).cluster("east", network + 1, 1).peer("west", "east").visitor("west");
    let spec = spec.service("west", "catalog", 1, 21).service("east", "catalog", 1, 21);
    let fleet = spec.start().await.expect("the fleet starts");
    listening(&fleet, "west", 21, 9080).await;
    listening(&fleet, "east", 21, 9080).await;
    serving(&fleet, "west", "catalog.shop", ITEMS).await;
    serving(&fleet, "west", "catalog.shop.svc.clusterset.local", ITEMS).await;
    fleet
}

/// A route with three faults, each in a place of its own.
const FAULTY: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: catalog, namespace: shop }
spec:
  parentRefs: [{ group: \"\", kind: Service, name: catalog }]
  rules:
  - matches: [{ path: { type: PathPrefix, value: items } }]
    backendRefs: [{ name: catalog, port: 80 }]
  - timeouts: { request: 1.5 seconds }
    backendRefs: [{ name: catalog, port: 99999 }]
";

/// The same without faults; answers say that it acts.
const GOOD: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: catalog, namespace: shop }
spec:
  parentRefs: [{ group: \"\", kind: Service, name: catalog }]
  rules:
  - filters: [{ type: ResponseHeaderModifier, responseHeaderModifier: { set: [{ name: x-route, value: good }] } }]
    backendRefs: [{ name: catalog, port: 80 }]
";

#[tokio::test]
async fn every_fault_of_a_manifest_is_told_and_the_last_good_one_stays_in_force() {
    let fleet = shop(71).await;
    fleet.write("west/route.yaml", GOOD).expect("written");
    let route = |wanted: &'static str| {
        let answer = ask(&fleet, "west", "catalog.shop", ITEMS, &[]);
        if answer.status == 200 && answer.field("x-route") == wanted { Ok(()) } else { Err(format!("{answer:?}")) }
    };
    eventually("the route acts", SOON, || route("good")).await;
    let (text, ok) = fleet.tool("west", &["status"]).expect("status");
    assert!(ok, "no faults yet: {text}");

    fleet.write("west/route.yaml", FAULTY).expect("written");
    let faults = eventually("all faults are told", SOON, || {
        let (text, ok) =
            fleet.tool("west", &["status", "--cluster", "west", "-o", "json"]).map_err(|e| e.to_string())?;
        let json: Value = serde_json::from_str(&text).map_err(|e| format!("{e} in {text}"))?;
        let faults = json[0]["answer"]["faults"].as_array().cloned().unwrap_or_default();
        let errors: Vec<_> = faults.into_iter().filter(|fault| fault["severity"] == "error").collect();
        if errors.len() >= 3 && !ok { Ok(errors) } else { Err(text) }
    })
    .await;
    for (what, line, text) in [
        ("a path that does not begin with /", 7, "items"),
        ("a duration that is none", 9, "1.5 seconds"),
        ("a port beyond 65535", 10, "99999"),
    ] {
        let fault = faults.iter().find(|fault| fault["line"] == line);
        let fault = fault.unwrap_or_else(|| panic!("{what} is not told in line {line}: {faults:#?}"));
        let (file, reason, mend) = (&fault["file"], &fault["reason"], &fault["mend"]);
        assert!(file.as_str().is_some_and(|file| file.ends_with("west/route.yaml")), "{what}: {fault:#}");
        // The column is that of the value: where an editor must put its cursor.
        let column = FAULTY.lines().nth(line - 1).and_then(|l| l.find(text)).expect("the fault's place") + 1;
        assert_eq!(fault["column"], column, "{what}: {fault:#}");
        assert!(reason.as_str().is_some_and(|reason| reason.contains(text)), "{what}: {fault:#}");
        assert!(mend.as_str().is_some_and(|mend| mend.len() > 10), "{what}: {fault:#}");
    }
    // People get the same as text, with places to click on; `check` says that something is broken.
    let (text, ok) = fleet.tool("west", &["status", "--cluster", "west"]).expect("status");
    assert!(!ok, "status with faults must fail: {text}");
    for place in ["route.yaml:7:", "route.yaml:9:", "route.yaml:10:", "mend: "] {
        assert!(text.contains(place), "{place} is missing: {text}");
    }
    let (text, ok) = fleet.tool("west", &["check"]).expect("check");
    assert!(!ok && text.contains("FAIL") && text.contains("errors"), "{text}");

    // The last good configuration stays in force.
    for _ in 0..20 {
        route("good").expect("the last good route stays in force");
    }

    fleet.write("west/route.yaml", &GOOD.replace("good", "mended")).expect("written");
    eventually("the mended route acts", SOON, || route("mended")).await;
    let (text, ok) = fleet.tool("west", &["status"]).expect("status");
    assert!(ok, "the fault is mended: {text}");
}

/// What is thrown at every port.
fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    let mut rng = fastrand::Rng::with_seed(20_261_121);
    let mut noise = |length: usize| (0..length).map(|_| rng.u8(..)).collect::<Vec<u8>>();
    let http2 = |frames: &[u8]| [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", frames].concat();
    let long = "a".repeat(1 << 20);
    let fields: String = (0..5000).map(|n| format!("x-{n}: {n}\r\n")).collect();
    // A TLS record with a handshake message of 16 MB that never comes.
    let endless_hello = [&b"\x16\x03\x01\x40\x00\x01\xff\xff\xff\x03\x03"[..], &noise(0x3ff9)].concat();
    vec![
        ("nothing at all", Vec::new()),
        ("one byte", vec![0]),
        ("noise", noise(64 << 10)),
        ("zeros", vec![0; 64 << 10]),
        ("a TLS record cut short", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
        ("a TLS record of noise", [&b"\x16\x03\x01\x04\x00"[..], &noise(1024)].concat()),
        ("an endless ClientHello", endless_hello),
        ("TLS records of one byte", b"\x16\x03\x01\x00\x01\x01".repeat(4000)),
        ("half a request", b"GET /items HTTP/1.1\r\nHost: cata".to_vec()),
        ("a line without an end", format!("GET /{long}").into_bytes()),
        ("too many fields", format!("GET / HTTP/1.1\r\nHost: catalog.shop\r\n{fields}\r\n").into_bytes()),
        ("two lengths", b"POST / HTTP/1.1\r\nHost: catalog.shop\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!".to_vec()),
        (
            "a length and chunks",
            b"POST / HTTP/1.1\r\nHost: catalog.shop\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x".to_vec(),
        ),
        (
            "a chunk of a size beyond all",
            b"POST / HTTP/1.1\r\nHost: catalog.shop\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n".to_vec(),
        ),
        ("a field with a zero byte", b"GET / HTTP/1.1\r\nHost: catalog.shop\r\nx: \0\r\n\r\n".to_vec()),
        ("HTTP/2 and noise", http2(&noise(8 << 10))),
        ("an HTTP/2 frame of 16 MB", http2(b"\xff\xff\xff\0\0\0\0\0\x01")),
        ("HTTP/2 headers of noise", http2(&[&b"\0\0\x40\x01\x05\0\0\0\x01"[..], &noise(64)].concat())),
        ("HTTP/2 continuation without an end", http2(&[&b"\0\0\0\x01\0\0\0\0\x01"[..], &b"\0\0\0\x09\0\0\0\0\x01".repeat(5000)].concat())),
        ("HTTP/2 settings, settings, settings", http2(&b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\x01".repeat(5000))),
        ("HTTP/2 streams opened and reset", http2(&rapid_reset())),
    ]
}

/// Each stream is opened with an indexed head (`GET / http`) and reset at once (CVE-2023-44487).
fn rapid_reset() -> Vec<u8> {
    let mut frames = Vec::new();
    for stream in (1u32..6000).step_by(2) {
        frames.extend(b"\0\0\x03\x01\x05");
        frames.extend(stream.to_be_bytes());
        frames.extend(b"\x82\x84\x86");
        frames.extend(b"\0\0\x04\x03\0");
        frames.extend(stream.to_be_bytes());
        frames.extend(b"\0\0\0\x08");
    }
    frames
}

/// Sends bytes and reads whatever comes, for a moment; what comes is not judged.
fn throw(address: SocketAddr, bytes: &[u8]) {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(5)) else {
        panic!("{address} takes no connections");
    };
    for limit in [
        stream.set_read_timeout(Some(Duration::from_millis(200))),
        stream.set_write_timeout(Some(Duration::from_secs(5))),
    ] {
        limit.expect("a time limit");
    }
    // The other side may be gone before the last byte.
    let _ = stream.write_all(bytes);
    let _ = stream.read(&mut [0; 4096]);
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read(&mut [0; 4096]);
}

/// Process ids by name, of a cluster.
fn processes(fleet: &Fleet, cluster: &str) -> BTreeMap<String, u64> {
    let text = fleet.read(&format!(".veer/clusters/{cluster}/run.json")).expect("run.json");
    let json: Value = serde_json::from_str(&text).expect("JSON");
    let processes = json["processes"].as_object().unwrap_or_else(|| panic!("no processes in {text}"));
    processes.iter().map(|(name, pid)| (name.clone(), pid.as_u64().unwrap_or(0))).collect()
}

#[tokio::test]
async fn hostile_bytes_on_every_port_harm_nobody_else() {
    let fleet = shop(73).await;
    let before = processes(&fleet, "west");
    assert!(before.len() >= 5, "{before:?}");
    let load = fleet.load("west", "catalog.shop.svc.clusterset.local", ITEMS, 20, 30).expect("load");
    let memory = |pid: u64| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
        let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("VmRSS");
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).expect("a number") / 1024
    };

    let ports: Vec<(&str, SocketAddr)> = [
        ("outbound", 10, 15001),
        ("mesh of a caller", 10, 15008),
        ("admin", 10, 15020),
        ("an application's port", 21, 8080),
        ("mesh", 21, 15008),
        ("gateway", 2, 15443),
        ("admin of a gateway", 2, 15020),
        ("control plane", 1, 15010),
        ("API", 1, 15014),
    ]
    .into_iter()
    .map(|(name, last, port)| (name, format!("{}:{port}", fleet.address("west", last)).parse().expect("an address")))
    .collect();
    // All ports at once, one after the other on each.
    let throwing: Vec<_> = ports
        .iter()
        .map(|(name, address)| {
            let (name, address) = (*name, *address);
            let thrower =
                std::thread::spawn(move || hostile().into_iter().for_each(|(_, bytes)| throw(address, &bytes)));
            (name, thrower)
        })
        .collect();
    for (name, thrower) in throwing {
        assert!(thrower.join().is_ok(), "{name}: the port is gone");
    }

    assert_eq!(processes(&fleet, "west"), before, "a process died of it (logs in {})", fleet.folder().display());
    for (name, pid) in &before {
        let megabytes = memory(*pid);
        assert!(megabytes < 200, "{name} holds {megabytes} MB");
    }
    let counted =
        |last, name: &str, labels: &[(&str, &str)]| fleet.metric("west", last, name, labels).expect("metrics");
    for last in [10, 21, 2] {
        let up = counted(last, "veer_process_start_timestamp_seconds", &[]);
        assert!(up > 0.0, "the admin page of {last} is gone");
    }
    for host in ["catalog.shop", "catalog.shop.svc.clusterset.local"] {
        let answer = ask(&fleet, "west", host, ITEMS, &[]);
        assert_eq!(answer.status, 200, "{host}: {answer:?}");
    }
    let (text, ok) = fleet.tool("west", &["check"]).expect("check");
    assert!(ok, "{text}");
    let logs = fleet.folder().join(".veer/clusters/west/logs");
    for log in std::fs::read_dir(logs).expect("logs").flatten() {
        let text = std::fs::read_to_string(log.path()).unwrap_or_default();
        assert!(!text.contains("panicked"), "{}: {text}", log.path().display());
    }
    // Others were served all the while.
    let loaded = load.finish().expect("load");
    assert_eq!(loaded.failures, 0, "{}", loaded.json);

    // It is counted where it struck.
    let reason = [("direction", "outbound"), ("reason", "broken_http")];
    let broken = counted(10, "veer_refused_connections_total", &reason);
    assert!(broken >= 8.0, "{broken} connections that broke HTTP are counted at the outbound listener");
    let shakes = |labels: &[(&str, &str)]| counted(21, "veer_tls_handshakes_total", labels);
    let failed = shakes(&[("direction", "inbound")]) - shakes(&[("direction", "inbound"), ("outcome", "ok")]);
    assert!(failed >= 10.0, "{failed} failed handshakes are counted at the mesh port");
    let refused = counted(2, "veer_refused_connections_total", &[("direction", "gateway")]);
    assert!(refused >= 10.0, "{refused} refused connections are counted at the gateway");
}

#[tokio::test]
async fn broken_http_is_answered_as_the_standard_says() {
    let fleet = shop(75).await;
    let address: SocketAddr = format!("{}:15001", fleet.address("west", 10)).parse().expect("an address");
    let many: String = (0..200).map(|n| format!("x-{n}: {n}\r\n")).collect();
    let long = "a".repeat(100 << 10);
    for (what, request, statuses) in [
        ("no Host", "GET / HTTP/1.1\r\n\r\n".to_owned(), &[400][..]),
        ("two Hosts", "GET / HTTP/1.1\r\nHost: a.shop\r\nHost: b.shop\r\n\r\n".to_owned(), &[400]),
        ("noise", "\u{1}\u{2}\u{3}\r\n\r\n".to_owned(), &[400]),
        ("a space before the colon", "GET / HTTP/1.1\r\nHost : catalog.shop\r\n\r\n".to_owned(), &[400]),
        (
            "two lengths",
            "POST / HTTP/1.1\r\nHost: catalog.shop\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".to_owned(),
            &[400],
        ),
        ("too many fields", format!("GET / HTTP/1.1\r\nHost: catalog.shop\r\n{many}\r\n"), &[431, 400]),
        ("a long target", format!("GET /{long} HTTP/1.1\r\nHost: catalog.shop\r\n\r\n"), &[414, 431, 400]),
        ("a path of two readings", "GET /a%2f..%2fb HTTP/1.1\r\nHost: catalog.shop\r\n\r\n".to_owned(), &[400]),
        ("an unknown version", "GET / HTTP/3.7\r\nHost: catalog.shop\r\n\r\n".to_owned(), &[400, 505]),
    ] {
        let mut stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time limit");
        let _ = stream.write_all(request.as_bytes());
        let mut answer = vec![0; 4096];
        let read = stream.read(&mut answer).unwrap_or_else(|error| panic!("{what}: no answer: {error}"));
        let text = String::from_utf8_lossy(&answer[..read]).into_owned();
        let status = text.split_whitespace().nth(1).and_then(|status| status.parse::<u16>().ok());
        assert!(status.is_some_and(|status| statuses.contains(&status)), "{what}: {text:?}");
    }
    // What is HTTP and yet wrong is counted as the caller's fault; what is none, as a refused connection.
    let counted = |name, labels: &[(&str, &str)]| fleet.metric("west", 10, name, labels).expect("metrics");
    let wrong = counted("veer_requests_total", &[("direction", "outbound"), ("flag", "DPE"), ("status", "400")]);
    assert!(wrong >= 1.0, "{wrong} wrong requests counted");
    let broken = counted("veer_refused_connections_total", &[("direction", "outbound"), ("reason", "broken_http")]);
    assert!(broken >= 7.0, "{broken} broken connections counted");
}
