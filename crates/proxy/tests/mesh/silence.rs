//! Packets that are dropped without a word: no reset, no end of stream.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::Instant;
use veer_core::inbound::MESH_PORT;

use crate::failure::Several;
use crate::harness::app::{App, answer};
use crate::harness::{Client, address, run, until};

/// A wire to a mesh port that can be cut: then bytes are taken and never arrive, and connections are accepted (as by a kernel
/// whose process hangs) but never answered.
struct Wire {
    address: IpAddr,
    cut: Cell<bool>,
    mended: Notify,
}

impl Wire {
    async fn to(server: IpAddr) -> Rc<Self> {
        let wire = Rc::new(Self { address: address(), cut: Cell::new(false), mended: Notify::new() });
        let listener = TcpListener::bind((wire.address, MESH_PORT)).await.unwrap();
        let carrying = Rc::clone(&wire);
        tokio::task::spawn_local(async move {
            while let Ok((near, _)) = listener.accept().await {
                near.set_nodelay(true).unwrap();
                let wire = Rc::clone(&carrying);
                tokio::task::spawn_local(async move {
                    let Ok(far) = TcpStream::connect(SocketAddr::new(server, MESH_PORT)).await else { return };
                    far.set_nodelay(true).unwrap();
                    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
                    tokio::join!(wire.carry(near_read, far_write), wire.carry(far_read, near_write));
                });
            }
        });
        wire
    }

    async fn carry(&self, mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin) {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(count) = from.read(&mut buffer).await {
            while self.cut.get() {
                self.mended.notified().await;
            }
            if count == 0 || to.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    }

    fn mend(&self) {
        self.cut.set(false);
        self.mended.notify_waiters();
    }
}

#[test]
fn silence_is_noticed_and_costs_no_get() {
    run(async {
        let several = Several::new([App::echo(), App::echo()]).await;
        let wire = Wire::to(several.servers[0].address).await;
        let mut endpoint = several.servers[0].endpoint();
        endpoint.address = wire.address;
        several.control.service("cart").endpoint(endpoint).at([&several.servers[1]]).put();

        let mut client = Client::http2(several.client.outbound()).await.unwrap();
        for _ in 0..20 {
            assert_eq!(client.get("cart", "/").await.unwrap().status, StatusCode::OK);
        }
        assert!(several.apps[0].count() > 5);

        wire.cut.set(true);
        let mut worst = Duration::ZERO;
        for number in 0..200 {
            let begun = Instant::now();
            let answer = client.get("cart", "/").await.unwrap();
            assert_eq!(answer.status, StatusCode::OK, "request {number}: {}", answer.text());
            worst = worst.max(begun.elapsed());
        }
        // 500 ms of silence, 500 ms without an answer to PING, and what the machine adds.
        assert!((Duration::from_millis(900)..Duration::from_secs(4)).contains(&worst), "{worst:?}");
        assert_eq!(several.client.metric("veer_endpoints", &["state=\"unreachable\""]).await, 1.0);

        wire.mend();
        let before = several.apps[0].count();
        until("the endpoint is back", async || {
            client.get("cart", "/").await.unwrap();
            several.apps[0].count() > before + 5
        })
        .await;
    });
}

#[test]
fn of_three_copies_a_silent_one_costs_a_handful_of_requests() {
    run(async {
        let silent = Rc::new(Cell::new(false));
        let told = Rc::clone(&silent);
        let hangs = App::new(move |_| {
            let silent = told.get();
            async move {
                if silent {
                    std::future::pending::<()>().await;
                }
                answer("ok")
            }
        });
        let several = Several::new([App::text("ok"), hangs, App::text("ok")]).await;
        let mut client = Client::http2(several.client.outbound()).await.unwrap();
        until("all copies are known", async || {
            client.get("cart", "/").await.unwrap();
            several.apps.iter().all(|app| app.count() > 10)
        })
        .await;

        silent.set(true);
        several.apps[1].seen.borrow_mut().clear();
        // Routes set no time: whoever asks the silent copy waits for as long as this test.
        let (begun, mut asking) = (Instant::now(), tokio::task::JoinSet::new());
        let mut number = 0;
        while begun.elapsed() < Duration::from_secs(3) {
            let outbound = several.client.outbound();
            asking.spawn_local(async move {
                let mut client = Client::http1(outbound).await.unwrap();
                client.get("cart", "/").await.map(|answer| answer.status)
            });
            number += 1;
            tokio::time::sleep_until(begun + Duration::from_millis(10) * number).await;
        }
        let mut served = 0;
        while let Some(done) = asking.try_join_next() {
            assert_eq!(done.unwrap().unwrap(), StatusCode::OK);
            served += 1;
        }
        let lost = several.apps[1].count();
        // A few while nobody can know, then one each time that the silence has doubled.
        assert!(lost <= 20, "{lost} of {number} went to the silent copy");
        assert!(served + lost + 5 >= number as usize, "{served} of {number} were served, {lost} lost");
        assert_eq!(several.client.metric("veer_endpoints", &["state=\"silent\""]).await, 1.0);
        assert_eq!(several.client.metric("veer_endpoint_ejections_total", &["silent"]).await, 1.0);

        // It speaks again, and one who asks now and then finds out.
        silent.set(false);
        let before = several.apps[1].count();
        until("the copy is back", async || {
            client.get("cart", "/").await.unwrap();
            several.apps[1].count() > before + 10
        })
        .await;
        assert_eq!(several.client.metric("veer_endpoints", &["state=\"silent\""]).await, 0.0);
    });
}
