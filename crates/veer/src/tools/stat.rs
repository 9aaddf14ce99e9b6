//! `veer stat`: what flows now, from the callers' proxies.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::time::Instant;
use veer_core::time::parse_duration;
use veer_telemetry::text::{Buckets, Sample};

use super::{Format, Target};
use crate::api;
use crate::table::Table;

/// `veer stat`
#[derive(Debug, Args)]
pub struct Stat {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    format: Format,
    /// One line per pair of workloads instead of one per service and cluster
    #[arg(long)]
    edges: bool,
    /// How long to watch for one set of figures
    #[arg(long, value_parser = parse_duration, default_value = "2s")]
    interval: Duration,
    /// Go on until interrupted
    #[arg(long)]
    watch: bool,
}

/// One line.
#[derive(Debug, Serialize)]
struct Row {
    from: String,
    service: String,
    to: String,
    requests_per_second: f64,
    success: f64,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
}

#[derive(Default)]
struct Counts {
    requests: f64,
    failures: f64,
    latency: Buckets,
}

/// What a line is about: caller, service, callee.
type Key = (String, String, String);

/// Everything the proxies have counted so far, each proxy for itself, since any of them may begin anew.
type Reading = BTreeMap<SocketAddr, BTreeMap<Key, Counts>>;

impl Stat {
    /// Prints the figures; `Ok(false)` when no proxy answered.
    ///
    /// # Errors
    /// When the fleet was never started.
    pub async fn run(self) -> anyhow::Result<bool> {
        let mut before = (Instant::now(), self.read().await?);
        loop {
            tokio::time::sleep(self.interval).await;
            let now = (Instant::now(), self.read().await?);
            if now.1.is_empty() {
                anyhow::bail!("no proxy answers; `veer status` tells why");
            }
            let rows = rows(&before.1, &now.1, (now.0 - before.0).as_secs_f64());
            self.format.print(&rows, |rows| text(rows))?;
            if !self.watch {
                return Ok(true);
            }
            anstream::println!();
            before = now;
        }
    }

    async fn read(&self) -> anyhow::Result<Reading> {
        let mut reading = Reading::new();
        for asked in self.target.asked()? {
            for (_, admin) in api::admin_addresses(asked.api).await.unwrap_or_default() {
                // A proxy that does not answer is missing from the figures, as it is from the traffic.
                if let Ok(samples) = api::metrics(admin).await {
                    reading.insert(admin, self.count(&samples));
                }
            }
        }
        Ok(reading)
    }

    fn count(&self, samples: &[Sample]) -> BTreeMap<Key, Counts> {
        let mut counts: BTreeMap<Key, Counts> = BTreeMap::new();
        let mut buckets: BTreeMap<Key, Vec<&Sample>> = BTreeMap::new();
        for sample in samples.iter().filter(|sample| sample.label("direction") == "outbound") {
            match sample.name.as_str() {
                "veer_requests_total" => {
                    let counts = counts.entry(self.key(sample)).or_default();
                    counts.requests += sample.value;
                    let failed = sample.label("status").parse::<u16>().is_ok_and(|status| status >= 500)
                        || !matches!(sample.label("flag"), "" | "-");
                    counts.failures += if failed { sample.value } else { 0.0 };
                }
                "veer_request_duration_seconds_bucket" => buckets.entry(self.key(sample)).or_default().push(sample),
                _ => {}
            }
        }
        for (key, samples) in buckets {
            counts.entry(key).or_default().latency = Buckets::of(samples);
        }
        counts
    }

    fn key(&self, sample: &Sample) -> Key {
        let label = |name: &str| sample.label(name).to_owned();
        let service = label("destination_service");
        if self.edges {
            let place = |side: &str| {
                let part = |name: &str| label(&format!("{side}_{name}"));
                format!("{}/{}@{}", part("namespace"), part("workload"), part("cluster"))
            };
            (place("source"), service, place("destination"))
        } else {
            (label("source_cluster"), service, label("destination_cluster"))
        }
    }
}

fn rows(before: &Reading, now: &Reading, seconds: f64) -> Vec<Row> {
    let mut sums: BTreeMap<&Key, Counts> = BTreeMap::new();
    for (proxy, counts) in now {
        let empty = BTreeMap::new();
        let earlier = before.get(proxy).unwrap_or(&empty);
        for (key, counts) in counts {
            let sum = sums.entry(key).or_default();
            let none = Counts::default();
            let earlier = earlier.get(key).unwrap_or(&none);
            // A count that fell means that the proxy began anew.
            let anew = counts.requests < earlier.requests;
            let since = |now: f64, earlier: f64| if anew { now } else { now - earlier };
            sum.requests += since(counts.requests, earlier.requests);
            sum.failures += since(counts.failures, earlier.failures);
            sum.latency.merge(&counts.latency.since(&earlier.latency));
        }
    }
    let row = |((from, service, to), counts): (&Key, Counts)| Row {
        from: from.clone(),
        service: service.clone(),
        to: to.clone(),
        requests_per_second: counts.requests / seconds,
        success: 1.0 - counts.failures / counts.requests,
        p50_ms: counts.latency.quantile(0.5).map(|s| s * 1000.0),
        p99_ms: counts.latency.quantile(0.99).map(|s| s * 1000.0),
    };
    sums.into_iter().filter(|(_, counts)| counts.requests > 0.0).map(row).collect()
}

fn text(rows: &[Row]) -> String {
    let mut table = Table::new(&["from", "service", "to", "rate", "success", "p50", "p99"]);
    for row in rows {
        let millis = |value: Option<f64>| value.map_or("-".to_owned(), |ms| format!("{ms:.1} ms"));
        table.row([
            row.from.clone(),
            row.service.clone(),
            row.to.clone(),
            format!("{:.1}/s", row.requests_per_second),
            format!("{:.2} %", row.success * 100.0),
            millis(row.p50_ms),
            millis(row.p99_ms),
        ]);
    }
    if table.is_empty() { "nothing flows\n".to_owned() } else { table.to_string() }
}
