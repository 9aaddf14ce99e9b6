//! Fairness: one HTTP/2 connection of a caller, ten endpoints behind one gateway of another cluster, in three zones.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use veer_testkit::fleet::workload_yaml;
use veer_testkit::{Fleet, FleetSpec};

use crate::print_table;

const HOST: &str = "catalog.shop.svc.clusterset.local";
const ENDPOINTS: u8 = 10;
const REQUESTS: u32 = 10_000;
const RATE: u32 = 1_000;

/// Measures equal endpoints, then one that is slow, and prints each one's share.
pub async fn run(veer: &Path) -> anyhow::Result<()> {
    let mut spec =
        FleetSpec::new(veer)?.cluster("west", 61, 1).cluster("east", 62, 1).peer("west", "east").visitor("west");
    spec = spec.service("east", "catalog", 0, 20);
    for n in 1..=ENDPOINTS {
        let zone = format!("spec:\n  locality: {{ region: east, zone: zone-{} }}\n", n % 3);
        let text = workload_yaml("catalog", n, &format!("127.62.0.{}", 19 + n)).replace("spec:\n", &zone);
        spec = spec.manifest(&format!("east/catalog-{n}.yaml"), &text);
    }
    let fleet = spec.start().await?;
    veer_testkit::eventually("west reaches all ten", Duration::from_secs(20), || {
        let seen = spread(&fleet, 100, 1).map_err(|e| format!("{e:#}"))?;
        if seen.len() == usize::from(ENDPOINTS) { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    let equal = spread(&fleet, RATE, REQUESTS / RATE)?;
    let (most, least) = (equal.values().max().context("none")?, equal.values().min().context("none")?);
    let ratio = *most as f64 / *least as f64;

    let fault = ["-s", "-f", "-X", "PUT", "http://127.62.0.20:9080/-/fault?delay=50ms"];
    ensure!(fleet.command("east", "curl").args(fault).status()?.success(), "cannot make catalog-1 slow");
    spread(&fleet, RATE, 3)?;
    let slow = spread(&fleet, RATE, REQUESTS / RATE)?;
    let rows: Vec<Vec<String>> = equal
        .iter()
        .map(|(copy, count)| vec![copy.clone(), count.to_string(), slow.get(copy).unwrap_or(&0).to_string()])
        .collect();
    print_table(&["endpoint", "all equal", "catalog-1 50 ms slower"], &rows);
    println!("equal: max/min = {ratio:.3} over {} requests", equal.values().sum::<u64>());
    ensure!(ratio <= 1.1, "shares of equal endpoints differ by {ratio:.3}");
    let share = slow.get("catalog=east/catalog-1").copied().unwrap_or(0);
    let fair = slow.values().sum::<u64>() / u64::from(ENDPOINTS);
    println!("slow: catalog-1 got {share}, a fair share would be {fair}");
    ensure!(share > 0 && share < fair, "the slow endpoint got {share} of a fair {fair}");
    Ok(())
}

fn spread(fleet: &Fleet, rate: u32, seconds: u32) -> anyhow::Result<BTreeMap<String, u64>> {
    let loaded =
        fleet.load_with("west", HOST, "/items", rate, seconds, &["--http2", "--connections", "1"])?.finish()?;
    ensure!(loaded.failures == 0, "{} requests failed: {}", loaded.failures, loaded.json["reasons"]);
    let by = loaded.json["served_by"].as_object().context("no answer names its server")?;
    Ok(by.iter().map(|(copy, count)| (copy.clone(), count.as_u64().unwrap_or(0))).collect())
}
