//! Requests find their way: by every form of a service's name, in every form of HTTP.

use veer_testkit::Fleet;

use crate::support::{ask, fleet, output, serving};

const ITEMS: &str = "/items";

async fn shop(network: u8) -> Fleet {
    let spec = fleet().cluster("west", network, 1).visitor("west").service("west", "catalog", 2, 21);
    let fleet = spec.start().await.expect("the fleet starts");
    serving(&fleet, "west", "catalog.shop", ITEMS).await;
    fleet
}

#[tokio::test]
async fn a_service_is_found_by_every_form_of_its_name() {
    let fleet = shop(71).await;
    let hosts = [
        "catalog",
        "catalog.shop",
        "CATALOG.shop",
        "catalog.shop:80",
        "catalog.shop.svc",
        "catalog.shop.svc.cluster.local",
        "catalog.shop.svc.cluster.local.",
        "catalog.shop.svc.cluster.local:80",
        "catalog.shop.svc.clusterset.local",
    ];
    for host in hosts {
        // By Host, by :authority, and as an HTTP proxy (absolute target).
        for (how, more) in [("HTTP/1.1", "--http1.1"), ("HTTP/1.0", "--http1.0"), ("HTTP/2", "--http2-prior-knowledge")]
        {
            let answer = ask(&fleet, "west", host, ITEMS, &[more]);
            assert_eq!(answer.status, 200, "{host} by {how}: {answer:?}");
            assert!(answer.field("x-served-by").starts_with("catalog=west/catalog-"), "{host} by {how}: {answer:?}");
        }
        let proxy = format!("http://{}:15001", fleet.address("west", 10));
        let url = format!("http://{host}{ITEMS}");
        let text = output(fleet.command("west", "curl").args(["-sf", "-m", "10", "--noproxy", "", "-x", &proxy, &url]));
        assert!(text.contains("anchor"), "{host} as an HTTP proxy: {text}");
    }
}

#[tokio::test]
async fn http2_clients_are_served_without_an_error() {
    let fleet = shop(72).await;
    let url = format!("http://{}:15001{ITEMS}", fleet.address("west", 10));

    let text = output(fleet.command("west", "nghttp").args(["-v", "-t", "10", "-H", ":authority: catalog.shop", &url]));
    assert!(text.contains(":status: 200") && text.contains("anchor"), "{text}");

    for (how, flags) in [
        ("one HTTP/2 connection", &["-c", "1", "-m", "20"][..]),
        ("four HTTP/2 connections", &["-c", "4", "-m", "5"]),
        ("four HTTP/1.1 connections", &["-c", "4", "--h1"]),
    ] {
        let mut command = fleet.command("west", "h2load");
        let text = output(command.args(["-n", "500", "-H", ":authority: catalog.shop"]).args(flags).arg(&url));
        assert!(text.contains("500 done, 500 succeeded, 0 failed, 0 errored, 0 timeout"), "{how}: {text}");
        assert!(text.contains("status codes: 500 2xx"), "{how}: {text}");
    }

    // Both copies served, and every request was counted with who asked whom.
    for copy in ["catalog-1", "catalog-2"] {
        let labels = [
            ("direction", "outbound"),
            ("source_workload", "visitor"),
            ("source_cluster", "west"),
            ("destination_service", "catalog.shop.svc.cluster.local"),
            ("destination_workload", copy),
            ("destination_cluster", "west"),
            ("status", "200"),
        ];
        let served = fleet.metric("west", 10, "veer_requests_total", &labels).expect("metrics");
        assert!(served > 500.0, "{copy} served {served} of about 1500");
    }
}

#[tokio::test]
async fn what_does_not_exist_is_answered_at_once_and_clearly() {
    let fleet = shop(73).await;
    for (host, words) in [
        ("nosuch.shop", &["veer: NC", "nosuch.shop"][..]),
        ("www.example.com", &["veer: NC", "www.example.com"]),
        ("catalog.shop:81", &["veer: NC", "no port 81"]),
        // Of another namespace.
        ("catalog.bank", &["veer: NC", "catalog.bank"]),
    ] {
        let begun = tokio::time::Instant::now();
        let answer = ask(&fleet, "west", host, "/", &[]);
        assert_eq!(answer.status, 404, "{host}: {answer:?}");
        assert!(words.iter().all(|word| answer.body.contains(word)), "{host}: {answer:?}");
        assert!(begun.elapsed().as_secs() < 5, "{host}: took {:?}", begun.elapsed());
    }
    // A gRPC caller hears it in gRPC's own words.
    let grpc = ["--http2-prior-knowledge", "-H", "content-type: application/grpc", "-H", "te: trailers", "-d", ""];
    let answer = ask(&fleet, "west", "nosuch.shop", "/a.B/C", &grpc);
    assert_eq!((answer.status, answer.field("grpc-status")), (200, "12"), "{answer:?}");
    assert!(answer.field("grpc-message").contains("nosuch.shop"), "{answer:?}");

    let counted = fleet.metric("west", 10, "veer_requests_total", &[("flag", "NC")]).expect("metrics");
    assert!((counted - 5.0).abs() < 0.1, "{counted} requests counted with flag NC, 5 were made");

    // The caller's own faults are told as such.
    let url = format!("http://{}:15001/", fleet.address("west", 10));
    for (fault, more) in
        [("no host", &["-H", "Host:", "--http1.1"][..]), ("user information", &["-H", "Host: catalog.shop@other.shop"])]
    {
        let mut command = fleet.command("west", "curl");
        let status =
            output(command.args(["-s", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}"]).args(more).arg(&url));
        assert_eq!(status, "400", "{fault}");
    }
}
