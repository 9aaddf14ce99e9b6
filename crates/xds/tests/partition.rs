//! A session across a partition, on turmoil's network.

mod common;

use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Fake, Thing, node, somebody};
use tokio::task::spawn_local;
use tokio::time::Instant;
use veer_net::{BindOptions, BoxedIo, Network};
use veer_xds::{Services, SessionState, Source, client, serve_connection};

const PORT: u16 = 15010;

/// Runs the story and returns what happened when.
fn story(seed: u64) -> Vec<String> {
    veer_net::set_seed(seed);
    let log = Arc::new(Mutex::new(Vec::new()));
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .min_message_latency(Duration::from_millis(5))
        .max_message_latency(Duration::from_millis(40))
        .simulation_duration(Duration::from_secs(300))
        .tick_duration(Duration::from_millis(1))
        .build();

    // The test's hand on the control plane's content.
    let fake = Fake::ready();
    fake.put("cart", &Thing { size: 1 });
    let source = Arc::clone(&fake);
    sim.host("control", move || {
        let source: Arc<dyn Source> = source.clone();
        async move {
            let services = Services::new("west/1", source);
            let listener = Network::Sim.bind(([0, 0, 0, 0], PORT).into(), BindOptions::default()).await?;
            loop {
                let (stream, _) = listener.accept().await?;
                spawn_local(serve_connection(stream, Some(somebody()), services.clone()));
            }
        }
    });

    let events = Arc::clone(&log);
    sim.client("proxy", async move {
        let start = Instant::now();
        let note = Rc::new(move |what: String| events.lock().unwrap().push(format!("{:?} {what}", start.elapsed())));
        let (client, session) = client(node(), veer_net::rng());
        spawn_local(session.run(async || {
            let stream = Network::Sim.connect((turmoil::lookup("control"), PORT).into()).await?;
            let io: BoxedIo = Box::new(stream);
            Ok(io)
        }));
        let mut cart = client.subscribe::<Thing>("cart");
        let mut states = client.states();
        let watch = Rc::clone(&note);
        spawn_local(async move {
            while states.changed().await.is_ok() {
                let state = *states.borrow_and_update();
                watch(format!("{state:?}"));
            }
        });

        note(format!("{:?}", cart.answer().await));
        turmoil::partition("proxy", "control");
        note("partition".into());
        fake.put("cart", &Thing { size: 2 });
        fake.publish();
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(client.status().state, SessionState::Stale, "silence was noticed");
        assert_eq!(cart.borrow_and_update().present().map(|thing| thing.size), Some(1), "and deleted nothing");

        turmoil::repair("proxy", "control");
        note("repair".into());
        let healed = Instant::now();
        note(format!("{:?}", cart.changed().await));
        assert_eq!(cart.borrow().present().map(|thing| thing.size), Some(2));
        assert!(healed.elapsed() < Duration::from_secs(10), "back after {:?}", healed.elapsed());
        Ok(())
    });
    sim.run().unwrap();
    log.lock().unwrap().clone()
}

#[test]
fn a_partition_is_noticed_survived_and_healed_the_same_way_every_time() {
    let first = story(11);
    assert!(first.iter().any(|event| event.ends_with("Stale")), "{first:#?}");
    assert_eq!(story(11), first, "the same seed gives the same events at the same times");
    assert_ne!(story(12), first, "another seed gives other times");
}
