//! What is more than a request and an answer, within a cluster and through the gateway of another: upgrades, tunnels, large
//! bodies, trailers.

use serde_json::Value;
use veer_testkit::{Fleet, FleetSpec};

use crate::support::{ask, fleet, foreign, listening, output, python, service, serving, workload};

const APP: &str = "app.shop.svc.clusterset.local";
const GREETER: &str = "greeter.shop.svc.clusterset.local:7000";
/// Where callers are: beside the application, and in another cluster.
const CALLERS: [&str; 2] = ["east", "west"];
const LARGE: usize = 8 << 20;

/// Callers in both clusters, copies in one.
fn spec(west: u8, east: u8) -> FleetSpec {
    fleet().cluster("west", west, 1).cluster("east", east, 1).peer("west", "east").visitor("west").visitor("east")
}

async fn app(west: u8) -> Fleet {
    let spec = spec(west, west + 1)
        .manifest("east/app.yaml", &service("app", 80, "http"))
        .manifest("east/app-1.yaml", &workload("app", 1, &format!("127.{}.0.31", west + 1), "http", "app.py"));
    let fleet = spec.start().await.expect("the fleet starts");
    listening(&fleet, "east", 31, 9080).await;
    for caller in CALLERS {
        serving(&fleet, caller, APP, "/").await;
    }
    fleet
}

#[tokio::test]
async fn websockets_pass_both_ways() {
    let fleet = app(79).await;
    for caller in CALLERS {
        let proxy = format!("{}:15001", fleet.address(caller, 10));
        let mut command = fleet.command(caller, python());
        let greeting = output(command.args([&foreign("websocket_client.py"), &proxy, APP, "/ws"]));
        assert_eq!(greeting.trim(), "hello from app-1", "from {caller}");
    }
    // An upgrade that the application refuses is an ordinary answer, and the connection goes on.
    let fields =
        ["-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="];
    for caller in CALLERS {
        let answer = ask(&fleet, caller, APP, "/no-websocket", &fields);
        assert_eq!(answer.status, 200, "from {caller}: {answer:?}");
    }
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard_through_a_tunnel() {
    let spec = spec(81, 82)
        .manifest("east/greeter.yaml", &service("greeter", 7000, "tcp"))
        .manifest("east/greeter-1.yaml", &workload("greeter", 1, "127.82.0.31", "tcp", "tcp_server.py"));
    let fleet = spec.start().await.expect("the fleet starts");
    listening(&fleet, "east", 31, 9080).await;
    for caller in CALLERS {
        let proxy = format!("{}:15001", fleet.address(caller, 10));
        let what = format!("a tunnel from {caller} (logs in {})", fleet.folder().display());
        let greeting = veer_testkit::eventually(&what, crate::support::SOON, || {
            let mut command = fleet.command(caller, python());
            let output =
                command.args([&foreign("tcp_client.py"), GREETER, &proxy]).output().map_err(|e| e.to_string())?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            if output.status.success() { Ok(said) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
        })
        .await;
        assert_eq!(greeting.trim(), "220 greeter-1 ready", "from {caller}");
        let to = [("destination_workload", "greeter-1"), ("destination_cluster", "east")];
        let opened = fleet.metric(caller, 10, "veer_tcp_connections_total", &to).expect("metrics");
        assert!(opened >= 1.0, "from {caller}: {opened} connections counted");
        let bytes = fleet.metric(caller, 10, "veer_tcp_to_source_bytes_total", &to).expect("metrics");
        assert!(bytes > 100_000.0, "from {caller}: {bytes} bytes counted");
    }
    // A tunnel to nothing is refused before it opens.
    let proxy = format!("{}:15001", fleet.address("west", 10));
    let mut command = fleet.command("west", "curl");
    let refused =
        command.args(["-s", "-p", "-x", &proxy, "-w", "%{http_connect}", "http://nosuch.shop:7000/"]).output();
    let refused = String::from_utf8_lossy(&refused.expect("curl runs").stdout).into_owned();
    assert!(refused.ends_with("404"), "{refused}");
}

#[tokio::test]
async fn large_bodies_arrive_whole_up_and_down() {
    let fleet = app(83).await;
    let file = fleet.folder().join("large");
    let body: Vec<u8> = (0..LARGE).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect();
    std::fs::write(&file, &body).expect("written");
    let expected = sha256(&file.display().to_string());
    let data = format!("@{}", file.display());
    for caller in CALLERS {
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let how = format!("from {caller} with {version}");
            // With its length, and in chunks.
            for chunked in [&[][..], &["-H", "Transfer-Encoding: chunked"]] {
                if version != "--http1.1" && !chunked.is_empty() {
                    continue;
                }
                let more =
                    [&[version, "-X", "POST", "-H", "Expect:", "-m", "60", "--data-binary", &data], chunked].concat();
                let answer = ask(&fleet, caller, APP, "/hash", &more);
                assert_eq!(answer.status, 200, "up {how} {chunked:?}: {answer:?}");
                let json: Value = answer.json();
                assert_eq!(json["bytes"], LARGE, "up {how} {chunked:?}");
                assert_eq!(json["sha256"], expected.as_str(), "up {how} {chunked:?}");
            }
            let down = fleet.folder().join("down");
            let down = down.display().to_string();
            let path = format!("/blob?size={LARGE}");
            let (status, head) =
                fleet.curl(caller, APP, &path, &[version, "-m", "60", "-D", "-", "-o", &down]).expect("curl runs");
            assert_eq!(status, 200, "down {how}: {head}");
            let told = head.lines().find_map(|line| line.strip_prefix("x-sha256: ")).expect("x-sha256").trim();
            assert_eq!(sha256(&down), told, "down {how}");
        }
    }
}

fn sha256(file: &str) -> String {
    let text = output(std::process::Command::new("sha256sum").arg(file));
    text.split_whitespace().next().expect("a digest").to_owned()
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let fleet = app(85).await;
    for caller in CALLERS {
        let url = format!("http://{}:15001/trailers", fleet.address(caller, 10));
        // HTTP/2: trailers are what ends the stream.
        let authority = format!(":authority: {APP}");
        let mut command = fleet.command(caller, "nghttp");
        let text = output(command.args(["-v", "-t", "10", "-H", &authority, "-H", "te: trailers", &url]));
        assert!(text.contains("x-checksum: 5d41402a") && text.contains("hello"), "from {caller}: {text}");
        // HTTP/1.1: a caller that says it takes them.
        let answer =
            ask(&fleet, caller, APP, "/trailers", &["--http1.1", "-H", "TE: trailers", "-H", "Connection: TE"]);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.body.starts_with("hello"), "from {caller}: {answer:?}");
        assert!(answer.body.contains("x-checksum: 5d41402a"), "from {caller}: {answer:?}");

        // Of a request: in chunks, by hand.
        let request = format!(
            "POST /hash HTTP/1.1\r\nHost: {APP}\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\nConnection: close\r\n\r\n\
             5\r\nhello\r\n0\r\nx-sum: 5d41402a\r\n\r\n"
        );
        let talk = "import socket,sys\ns=socket.create_connection((sys.argv[1],15001),timeout=10)\n\
                    s.sendall(sys.argv[2].encode())\nwhile b:=s.recv(65536): sys.stdout.write(b.decode())";
        let mut command = fleet.command(caller, "python3");
        let text = output(command.args(["-c", talk, &fleet.address(caller, 10), &request]));
        assert!(text.contains("\"bytes\": 5") && text.contains("5d41402a"), "from {caller}: {text}");
    }
}
