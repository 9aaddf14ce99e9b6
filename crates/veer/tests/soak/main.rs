//! The soak: random faults, one after the other and sometimes two at a time, under load; then everything must be as before.
//!
//! | invariant | how it is judged |
//! |---|---|
//! | no wrong route, no answer of another request, none cut short | every answer names service, copy, request and the sum of the body it read |
//! | nothing executed twice | copies keep a book of writes |
//! | nothing stuck | every request ends: answered, or refused within its time |
//! | nothing lost for good | after the last fault all callers are served without a miss, and both regions serve |
//! | no leak | descriptors and memory of every process as before |
//! | no crash | no panic in any log, and no process ended but by our hand |
//!
//! `VEER_SOAK_SECONDS` says how long faults come (60), `VEER_SOAK_SEED` which ones (by chance, and told).

mod callers;
mod faults;
mod ledger;
mod vitals;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;
use veer_testkit::eventually_async;

use callers::{By, Missed};
use faults::{Fault, Mend};
use vitals::{leaks, vitals};
use world::{CLUSTERS, OUTSIDE, REGIONS, World};

/// For everything to be found and served again after the last fault; ejections last up to half a minute by then.
const RECOVERY: Duration = Duration::from_secs(60);
/// Part of all requests that may be missed in a storm like this, beside those of a caller whose own proxy is gone: writes that were in
/// flight to what died, and what copies answer that fail or never answer.
const MISSED: f64 = 0.02;

#[tokio::test]
async fn faults_by_chance_leave_nothing_behind() {
    let setting = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let length = Duration::from_secs(setting("VEER_SOAK_SECONDS").unwrap_or(60));
    let seed = setting("VEER_SOAK_SEED").unwrap_or_else(|| veer_net::rng().u64(..1 << 32));
    println!("VEER_SOAK_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut world = World::start().await.expect("the world starts");

    calm(&world, "everything is served at first").await;
    world.outcome.missed.lock().expect("nobody panicked").clear();
    let before = vitals(&world.fleet).expect("what runs is known");
    let begun = Instant::now();
    storm(&world, &mut rng, begun, length).await;
    let over = Instant::now();
    calm(&world, "everything is served again").await;
    println!("{:6.1} s  all is well again, {:.1} s after the last fault", secs(begun), over.elapsed().as_secs_f64());
    let missed = world.outcome.missed();
    world.hush();

    let (sent, served) = (world.outcome.sent.load(Relaxed), world.outcome.served.load(Relaxed));
    println!("{sent} requests, {served} served, {} missed", missed.len());
    // Misses of one second and one kind share their cause.
    let mut misses = BTreeMap::<(u64, &str, &str), (usize, &str)>::new();
    for Missed { from, kind, at, reason, .. } in &missed {
        let second = at.saturating_duration_since(begun).as_secs();
        misses.entry((second, *from, *kind)).or_insert((0, reason)).0 += 1;
    }
    for ((second, from, kind), (count, reason)) in misses {
        println!("  {second:4} s  {count} x {from} {kind}: {reason}");
    }
    let wrong = world.outcome.wrong.lock().expect("nobody panicked").clone();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(world.book.repeated(), Vec::<u64>::new(), "writes that were executed more than once");
    let answered = missed.iter().filter(|missed| missed.by == By::Veer).count();
    assert!((answered as f64) < sent as f64 * MISSED, "{answered} of {sent} missed");
    // Connections that were needed while answers were late end when nobody wants them.
    eventually_async("what was taken is given back", RECOVERY, async || {
        let leaks = leaks(&before, &vitals(&world.fleet).map_err(|error| error.to_string())?);
        if leaks.is_empty() { Ok(()) } else { Err(leaks.join("; ")) }
    })
    .await;
    assert_eq!(crashes(&world), Vec::<String>::new());
}

fn secs(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64()
}

/// Faults until the time is over, the last of them mended.
async fn storm(world: &World, rng: &mut fastrand::Rng, begun: Instant, length: Duration) {
    while begun.elapsed() < length {
        let mut mends = Vec::<(Fault, Mend)>::new();
        for _ in 0..if rng.u8(..3) == 0 { 2 } else { 1 } {
            let fault = Fault::any(world, rng).expect("what runs is known");
            if mends.iter().any(|(other, _)| fault.leaves_nobody(other)) {
                continue;
            }
            match fault.strike(world) {
                Ok(mend) => {
                    println!("{:6.1} s  {fault}", secs(begun));
                    mends.push((fault, mend));
                }
                // The second may have nothing left to act on.
                Err(error) => println!("{:6.1} s  {fault}: not possible now ({error:#})", secs(begun)),
            }
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(1000..6000))).await;
        // The last first: two of a kind were laid one over the other.
        for (fault, mend) in mends.into_iter().rev() {
            mend(world).unwrap_or_else(|error| panic!("{fault} cannot be mended: {error:#}"));
            println!("{:6.1} s  over: {fault}", secs(begun));
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(500..4000))).await;
    }
}

/// Waits until five seconds pass without a miss, in which both regions serve the edge, in the mesh and by its Gateway.
async fn calm(world: &World, what: &str) {
    let what = format!("{what} (logs in {})", world.fleet.folder().display());
    eventually_async(&what, RECOVERY, async || {
        let (begun, missed) = (Instant::now(), world.outcome.missed().len());
        world.outcome.take_served();
        while begun.elapsed() < Duration::from_secs(5) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let all = world.outcome.missed();
            if let Some(last) = all.get(missed..).and_then(<[_]>::last) {
                return Err(format!("{} {}: {}", last.from, last.kind, last.reason));
            }
        }
        let served = world.outcome.take_served();
        for caller in ["edge", OUTSIDE] {
            let own = served.iter().filter(|(from, _)| *from == caller);
            let regions: BTreeSet<&str> = own.filter_map(|(_, copy)| copy.split('/').next()).collect();
            if !REGIONS.iter().all(|region| regions.contains(region)) {
                return Err(format!("{caller} is served by {regions:?}"));
            }
        }
        Ok(())
    })
    .await;
}

/// Processes that ended otherwise than by SIGKILL.
fn crashes(world: &World) -> Vec<String> {
    let log = |cluster: &str| world.fleet.read(&format!(".veer/{cluster}.log")).unwrap_or_default();
    let lines = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let ended = |line: &String| line.contains("starting again") && !line.contains("signal: 9");
    CLUSTERS.iter().flat_map(|cluster| lines(log(cluster))).filter(ended).collect()
}
