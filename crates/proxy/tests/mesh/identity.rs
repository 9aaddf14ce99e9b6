//! Nobody answers but who is expected; certificates change under load; a restart needs no control plane.

use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use crate::harness::app::App;
use crate::harness::{Client, Control, Pair, Workload, run, until};

#[test]
fn somebody_else_gets_nothing() {
    run(async {
        let pair = Pair::new(App::text("secret")).await;
        let mut endpoint = pair.server.endpoint();
        endpoint.identity = Some(pair.control.id("shop", "somebody-else"));
        pair.control.service("cart").endpoint(endpoint).put();
        let mut client = Client::http1(pair.client.outbound()).await.unwrap();
        let answer = client.post("cart", "/", b"private").await.unwrap();
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer.text().starts_with("veer: UF"), "{}", answer.text());
        assert_eq!(pair.app.count(), 0);
        assert!(pair.client.metric("veer_tls_handshakes_total", &["outbound", "wrong_identity"]).await >= 1.0);
    });
}

#[test]
fn certificates_rotate_under_load_without_a_failure() {
    run(async {
        let mut pair = Pair::new(App::text("ok")).await;
        let outbound = pair.client.outbound();
        let load = tokio::task::spawn_local(async move {
            let mut client = Client::http2(outbound).await.unwrap();
            let until = Instant::now() + Duration::from_secs(7);
            let mut count = 0;
            while Instant::now() < until {
                let answer = client.post("cart", "/", b"x").await.unwrap();
                assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
                count += 1;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            count
        });
        for round in 1..=2 {
            for workload in [&mut pair.client, &mut pair.server] {
                workload.inbound.rotate = round;
                pair.control.state(workload);
            }
            for workload in [&pair.client, &pair.server] {
                until("the certificate was renewed", async || {
                    workload.metric("veer_certificate_rotations_total", &["ok"]).await == round as f64
                })
                .await;
            }
        }
        let count = load.await.unwrap();
        assert!(count > 100, "{count}");
        // The connection of the first certificate has been replaced.
        assert!(pair.client.metric("veer_tls_handshakes_total", &["outbound", "ok"]).await >= 2.0);
    });
}

#[test]
fn a_restart_needs_no_control_plane() {
    run(async {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let control = Control::start().await;
        let mut workloads = Vec::new();
        for (name, dir) in ["web", "cart"].into_iter().zip(&dirs) {
            let mut workload = Workload::new(&control, name);
            workload.config.state_dir = Some(dir.path().to_owned());
            workloads.push(workload.start(&control).await);
        }
        let _app = App::text("still here").listen(&workloads[1]).await;
        control.service("cart").at([&workloads[1]]).put();
        let mut client = Client::http1(workloads[0].outbound()).await.unwrap();
        assert_eq!(client.get("cart", "/").await.unwrap().text(), "still here");

        control.kill().await;
        for workload in &mut workloads {
            workload.stop().await;
            // A token is good once.
            workload.config.join = None;
            workload.launch();
            workload.ready().await;
        }
        let mut client = Client::http1(workloads[0].outbound()).await.unwrap();
        assert_eq!(client.get("cart", "/").await.unwrap().text(), "still here");
        assert_eq!(workloads[0].metric("veer_control_connected", &[]).await, 0.0);
        // What it never asked for, it cannot know, and says so.
        let answer = client.get("other", "/").await.unwrap();
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer.text().contains("control plane has not answered"), "{}", answer.text());

        control.resume().await;
        until("the control plane is back", async || workloads[0].metric("veer_control_connected", &[]).await == 1.0)
            .await;
    });
}
