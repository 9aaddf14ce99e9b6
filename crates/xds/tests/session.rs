//! The client against the server, over pipes and a virtual clock.

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use common::{Fake, Line, Novelty, Part, Thing, local, node, synced, until};
use veer_core::Known;
use veer_xds::{SessionOptions, SessionState, client};

fn present<T>(value: T) -> Known<T> {
    Known::Present(Arc::new(value))
}

#[test]
fn a_resource_comes_changes_and_goes() {
    local(async {
        let fake = Fake::ready();
        fake.put("cart", &Thing { size: 1 });
        let client = Line::to(&fake).client(SessionOptions::default());
        let mut cart = client.subscribe::<Thing>("cart");
        let mut ghost = client.subscribe::<Thing>("ghost");
        assert_eq!(cart.borrow(), Known::Unknown);
        assert_eq!(cart.answer().await, present(Thing { size: 1 }));
        assert_eq!(ghost.answer().await, Known::Absent, "a negative answer is an answer");

        fake.put("cart", &Thing { size: 2 });
        fake.put("ghost", &Thing { size: 9 });
        fake.publish();
        cart.borrow_and_update();
        ghost.borrow_and_update();
        until("the change", || cart.borrow() == present(Thing { size: 2 })).await;
        assert_eq!(ghost.changed().await, present(Thing { size: 9 }));

        fake.remove::<Thing>("cart");
        fake.publish();
        until("the removal", || cart.borrow() == Known::Absent).await;
        assert_eq!(client.status().state, SessionState::Synced);
        assert_eq!(client.status().server, "west/1");
        until("acknowledgements", || fake.accepted.get() > 0).await;
        fake.put("nobody-asks", &Thing { size: 1 });
        fake.publish();
        let generation = *fake.generation.borrow();
        until("word that this client is up to date", || fake.caught_up.get() == generation).await;
    });
}

#[test]
fn one_bad_resource_is_refused_by_name_and_the_rest_applied() {
    local(async {
        let fake = Fake::ready();
        fake.put("bad", &Thing { size: 1 });
        fake.put("good", &Thing { size: 1 });
        let line = Line::to(&fake);
        let client = line.client(SessionOptions::default());
        let (mut bad, mut good) = (client.subscribe::<Thing>("bad"), client.subscribe::<Thing>("good"));
        bad.answer().await;
        good.answer().await;

        fake.put_raw::<Thing>("bad", "{\"size\": \"large\"}");
        fake.put("good", &Thing { size: 2 });
        fake.publish();
        until("the good one", || good.borrow() == present(Thing { size: 2 })).await;
        assert_eq!(bad.borrow(), present(Thing { size: 1 }), "the last good one stays");
        until("the refusal", || fake.rejections.borrow().len() == 1).await;
        assert!(fake.rejections.borrow()[0].contains("bad: "), "{:?}", fake.rejections.borrow());
        assert_eq!(client.status().nacks, 1);

        // The refused version is not sent again; its successor is.
        let sent = line.services.stats.resources.load(Ordering::Relaxed);
        fake.put("good", &Thing { size: 3 });
        fake.publish();
        until("the next change", || good.borrow() == present(Thing { size: 3 })).await;
        assert_eq!(line.services.stats.resources.load(Ordering::Relaxed), sent + 1);
        fake.put("bad", &Thing { size: 4 });
        fake.publish();
        until("the mended one", || bad.borrow() == present(Thing { size: 4 })).await;
        assert_eq!(line.services.stats.nacks.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn silence_deletes_nothing_and_a_return_resends_nothing() {
    local(async {
        let fake = Fake::ready();
        for size in 0..50 {
            fake.put(&format!("thing-{size}"), &Thing { size });
        }
        let line = Line::to(&fake);
        let client = line.client(SessionOptions::default());
        let all: Vec<_> = (0..50).map(|size| client.subscribe::<Thing>(&format!("thing-{size}"))).collect();
        until("all", || all.iter().all(|one| matches!(one.borrow(), Known::Present(_)))).await;
        let stats = Arc::clone(&line.services.stats);
        assert_eq!(stats.resources.load(Ordering::Relaxed), 50);

        line.down.set(true);
        line.cut();
        let mut states = client.states();
        states.wait_for(|state| *state == SessionState::Stale).await.unwrap();
        assert!(client.status().stale_since.is_some() && !client.status().connected);
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert!(all.iter().all(|one| matches!(one.borrow(), Known::Present(_))), "kept for as long as it lasts");

        // One changes and one goes meanwhile; only that is told.
        fake.put("thing-7", &Thing { size: 70 });
        fake.remove::<Thing>("thing-8");
        fake.publish();
        line.down.set(false);
        synced(&client).await;
        assert_eq!(all[7].borrow(), present(Thing { size: 70 }));
        assert_eq!(all[8].borrow(), Known::Absent);
        assert_eq!(stats.resources.load(Ordering::Relaxed), 51);
        assert_eq!(client.status().connections, 2);
        assert!(client.status().stale_since.is_none());
    });
}

#[test]
fn a_control_plane_that_is_not_ready_says_nothing() {
    local(async {
        let fake = Fake::ready();
        fake.put("cart", &Thing { size: 1 });
        let line = Line::to(&fake);
        let client = line.client(SessionOptions::default());
        let mut cart = client.subscribe::<Thing>("cart");
        cart.answer().await;
        line.cut();

        // Its successor begins with nothing.
        let fresh = Fake::unready();
        let other = Line::to(&fresh);
        let (second, session) = client_like(&client);
        other.run(session);
        let restored = second.subscribe::<Thing>("cart");
        assert_eq!(restored.borrow(), present(Thing { size: 1 }));
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(second.status().state, SessionState::AwaitFirst);
        assert_eq!(restored.borrow(), present(Thing { size: 1 }), "nothing was said, nothing was lost");
        assert_eq!(other.services.stats.responses.load(Ordering::Relaxed), 0);

        // Ready, but not sure about this one yet.
        fresh.unknown.borrow_mut().push("cart".into());
        fresh.publish();
        synced(&second).await;
        assert_eq!(restored.borrow(), present(Thing { size: 1 }));
        fresh.unknown.borrow_mut().clear();
        fresh.publish();
        until("the statement", || restored.borrow() == Known::Absent).await;
    });
}

/// A new process with the cache of another.
fn client_like(old: &veer_xds::Client) -> (veer_xds::Client, veer_xds::Session) {
    let cache = serde_json::to_string(&old.export_cache(SystemTime::UNIX_EPOCH + Duration::from_secs(1000))).unwrap();
    let (new, session) = client(node(), fastrand::Rng::with_seed(2));
    new.import_cache(serde_json::from_str(&cache).unwrap(), SystemTime::UNIX_EPOCH + Duration::from_secs(4600));
    (new, session)
}

#[test]
fn a_cache_carries_a_restart_without_control_plane() {
    local(async {
        let fake = Fake::ready();
        fake.put("cart", &Thing { size: 1 });
        fake.put("part-1", &Part { size: 1 });
        let line = Line::to(&fake);
        let old = line.client(SessionOptions::default());
        let (mut cart, mut ghost) = (old.subscribe::<Thing>("cart"), old.subscribe::<Thing>("ghost"));
        let mut parts = old.subscribe_all::<Part>();
        cart.answer().await;
        ghost.answer().await;
        parts.answer().await;

        let (new, session) = client_like(&old);
        let (cart, ghost) = (new.subscribe::<Thing>("cart"), new.subscribe::<Thing>("ghost"));
        assert_eq!(cart.borrow(), present(Thing { size: 1 }));
        assert_eq!(ghost.borrow(), Known::Absent);
        assert!(
            new.unconfirmed_for().is_some_and(|age| age >= Duration::from_secs(3600)),
            "the restart does not hide age"
        );
        // What was not asked for yet is not lost by another restart.
        let (third, _) = client_like(&new);
        assert_eq!(third.subscribe_all::<Part>().borrow().present().map(|all| all.len()), Some(1));
        drop(third);

        let sent = line.services.stats.resources.load(Ordering::Relaxed);
        line.run(session);
        synced(&new).await;
        assert_eq!(line.services.stats.resources.load(Ordering::Relaxed), sent, "nothing unchanged is sent");
        assert_eq!(new.unconfirmed_for(), None);
    });
}

#[test]
fn a_cache_of_another_version_is_believed_but_asked_for_again() {
    local(async {
        let fake = Fake::ready();
        fake.put("cart", &Thing { size: 1 });
        let line = Line::to(&fake);
        let old = line.client(SessionOptions::default());
        old.subscribe::<Thing>("cart").answer().await;
        let mut cache = old.export_cache(SystemTime::UNIX_EPOCH);
        cache.writer = "0.0.1".into();
        let (new, session) = client(node(), fastrand::Rng::with_seed(2));
        new.import_cache(cache, SystemTime::UNIX_EPOCH);
        let cart = new.subscribe::<Thing>("cart");
        assert_eq!(cart.borrow(), present(Thing { size: 1 }));
        let sent = line.services.stats.resources.load(Ordering::Relaxed);
        line.run(session);
        synced(&new).await;
        assert_eq!(line.services.stats.resources.load(Ordering::Relaxed), sent + 1);
    });
}

#[test]
fn what_nobody_uses_is_given_back_after_a_while_but_never_in_silence() {
    local(async {
        let fake = Fake::ready();
        fake.put("cart", &Thing { size: 1 });
        let line = Line::to(&fake);
        let client = line.client(SessionOptions::default());
        let mut keep = client.subscribe::<Thing>("keep");
        keep.answer().await;
        client.subscribe::<Thing>("cart").answer().await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(client.subscribe::<Thing>("cart").borrow(), present(Thing { size: 1 }), "back within the grace");

        line.down.set(true);
        line.cut();
        tokio::time::sleep(Duration::from_secs(200)).await;
        assert_eq!(
            client.subscribe::<Thing>("cart").borrow(),
            present(Thing { size: 1 }),
            "nobody could give it again"
        );

        line.down.set(false);
        synced(&client).await;
        until("the end of the grace", || client.status().subscriptions == 1).await;
        fake.put("cart", &Thing { size: 2 });
        fake.publish();
        let sent = line.services.stats.resources.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(line.services.stats.resources.load(Ordering::Relaxed), sent, "the server has forgotten it too");
        assert_eq!(client.subscribe::<Thing>("cart").answer().await, present(Thing { size: 2 }));
    });
}

#[test]
fn ten_thousand_subscriptions_cost_what_changes() {
    local(async {
        let fake = Fake::ready();
        for size in 0..10_000 {
            fake.put(&format!("thing-{size}"), &Thing { size });
        }
        let line = Line::to(&fake);
        let client = line.client(SessionOptions::default());
        let all: Vec<_> = (0..10_000).map(|size| client.subscribe::<Thing>(&format!("thing-{size}"))).collect();
        synced(&client).await;
        until("all", || all.iter().all(|one| matches!(one.borrow(), Known::Present(_)))).await;
        let stats = &line.services.stats;
        assert!(stats.responses.load(Ordering::Relaxed) <= 12, "batched: {stats:?}");

        let (responses, resources) = (stats.responses.load(Ordering::Relaxed), stats.resources.load(Ordering::Relaxed));
        fake.put("thing-5000", &Thing { size: 1 });
        fake.publish();
        until("the change", || all[5000].borrow() == present(Thing { size: 1 })).await;
        assert_eq!(stats.responses.load(Ordering::Relaxed), responses + 1);
        assert_eq!(stats.resources.load(Ordering::Relaxed), resources + 1);
    });
}

#[test]
fn a_collection_is_seen_whole_or_not_at_all() {
    local(async {
        let fake = Fake::ready();
        // Three responses' worth.
        for number in 0..30 {
            fake.put_raw::<Part>(
                &format!("part-{number}"),
                format!("{{\"size\":{number},\"pad\":\"{}\"}}", "x".repeat(100_000)),
            );
        }
        let line = Line::to(&fake);
        let client = line.client(SessionOptions::default());
        let mut parts = client.subscribe_all::<Part>();
        let first = parts.answer().await;
        assert_eq!(first.present().map(|all| all.len()), Some(30));
        assert!(line.services.stats.responses.load(Ordering::Relaxed) >= 3);

        fake.remove::<Part>("part-3");
        fake.publish();
        until("the removal", || parts.borrow().present().is_some_and(|all| all.len() == 29)).await;

        // Across a reconnection: what went is told, what stayed is not.
        line.cut();
        fake.remove::<Part>("part-4");
        fake.publish();
        let sent = line.services.stats.resources.load(Ordering::Relaxed);
        until("the second removal", || parts.borrow().present().is_some_and(|all| all.len() == 28)).await;
        assert_eq!(line.services.stats.resources.load(Ordering::Relaxed), sent);
    });
}

#[test]
fn a_server_cannot_fill_the_memory_of_its_clients() {
    local(async {
        let fake = Fake::ready();
        for number in 0..20_500 {
            fake.put_raw::<Part>(&format!("part-{number}"), format!("{{\"size\":{number}}}"));
        }
        fake.put("thing", &Thing { size: 1 });
        let line = Line::to(&fake);
        let client = line.client(SessionOptions::default());
        let mut parts = client.subscribe_all::<Part>();
        // What is too much is refused, and told; the rest is known, and other types are not harmed.
        assert_eq!(parts.answer().await.present().map(|all| all.len()), Some(20_000));
        until("the refusal is told", || {
            fake.rejections.borrow().iter().any(|reason| reason.contains("more than 20000 resources"))
        })
        .await;
        assert!(fake.rejections.borrow().iter().all(|reason| reason.len() < 4096));
        let mut thing = client.subscribe::<Thing>("thing");
        assert_eq!(thing.answer().await, present(Thing { size: 1 }));
        // Room that is given back is used.
        for number in 0..1000 {
            fake.remove::<Part>(&format!("part-{number}"));
        }
        fake.publish();
        until("the rest", || parts.borrow().present().is_some_and(|all| all.len() < 20_000)).await;
    });
}

#[test]
fn an_empty_collection_is_an_answer() {
    local(async {
        let client = Line::to(&Fake::ready()).client(SessionOptions::default());
        let all = client.subscribe_all::<Part>().answer().await;
        assert_eq!(all.present().map(|all| all.len()), Some(0));
    });
}

#[test]
fn what_things_refer_to_comes_first() {
    local(async {
        let fake = Fake::ready();
        let line = Line::to(&fake);
        let client = line.client(SessionOptions::default());
        let (mut thing, mut part) = (client.subscribe::<Thing>("x"), client.subscribe::<Part>("x"));
        thing.answer().await;
        part.answer().await;
        for round in 1..20 {
            fake.put("x", &Thing { size: round });
            fake.put("x", &Part { size: round });
            fake.publish();
            thing.borrow_and_update();
            thing.changed().await;
            assert_eq!(part.borrow(), present(Part { size: round }), "the part was there when the thing came");
        }
    });
}

#[test]
fn a_type_that_is_not_served_stays_unknown_and_harms_nothing() {
    local(async {
        let fake = Fake::ready();
        fake.put("cart", &Thing { size: 1 });
        let line = Line::to(&fake);
        let client = line.client(SessionOptions::default());
        let novelty = client.subscribe::<Novelty>("x");
        assert_eq!(client.subscribe::<Thing>("cart").answer().await, present(Thing { size: 1 }));
        synced(&client).await;
        assert_eq!(novelty.borrow(), Known::Unknown);
        assert_eq!(line.services.stats.unknown_types.load(Ordering::Relaxed), 1);
        assert!(client.status().last_error.is_some_and(|error| error.contains("Novelty")));
    });
}

#[test]
fn a_client_of_an_incompatible_version_is_told_so() {
    local(async {
        let line = Line::to(&Fake::ready());
        let versions = veer_xds::VersionRange { least: 90, most: 99 };
        let (client, session) = client(veer_xds::NodeInfo { versions, ..node() }, fastrand::Rng::with_seed(1));
        line.run(session);
        let thing = client.subscribe::<Thing>("cart");
        let told = || client.status().last_error.is_some_and(|error| error.contains("90 to 99"));
        until("the reason", told).await;
        assert_eq!(thing.borrow(), Known::Unknown);
    });
}

#[test]
fn unknown_fields_of_a_newer_version_are_ignored() {
    local(async {
        let fake = Fake::ready();
        fake.put_raw::<Thing>("cart", "{\"size\":1,\"colour\":\"red\"}");
        let client = Line::to(&fake).client(SessionOptions::default());
        assert_eq!(client.subscribe::<Thing>("cart").answer().await, present(Thing { size: 1 }));
    });
}

#[test]
fn threads_subscribe_while_the_session_runs_elsewhere() {
    local(async {
        let fake = Fake::ready();
        fake.put("cart", &Thing { size: 1 });
        let client = Line::to(&fake).client(SessionOptions::default());
        let worker = {
            let client = client.clone();
            std::thread::spawn(move || client.subscribe::<Thing>("cart"))
        };
        let mut cart = worker.join().unwrap();
        assert_eq!(cart.answer().await, present(Thing { size: 1 }));
        let dump = client.dump();
        assert_eq!(dump["resources"]["veer.dev/v1.Service"]["cart"]["value"]["size"], 1, "{dump}");
    });
}
