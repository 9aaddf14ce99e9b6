//! `veer load`: requests at a fixed rate.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use http::{HeaderName, HeaderValue};
use serde::Serialize;
use veer_core::time::parse_duration;
use veer_load::{Plan, Protocol, Request, Tally};

use super::Format;

/// `veer load`
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Where to connect: a proxy's outbound listener, or anything that speaks HTTP
    target: SocketAddr,
    /// Host header
    #[arg(long, default_value = "localhost")]
    host: String,
    /// Path and query
    #[arg(long, default_value = "/")]
    path: String,
    /// More fields, `name: value`
    #[arg(short = 'H', long = "header", value_parser = read_header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Requests per second
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// How long
    #[arg(long, value_parser = parse_duration, default_value = "10s")]
    duration: Duration,
    /// A request that takes longer has failed
    #[arg(long, value_parser = parse_duration, default_value = "10s")]
    timeout: Duration,
    /// Connections, at most
    #[arg(long, default_value_t = 256)]
    connections: usize,
    /// Also tell how many requests were served, and how many failed, of those due in each tenth of a second
    #[arg(long)]
    timeline: bool,
    /// HTTP/2 with prior knowledge
    #[arg(long)]
    http2: bool,
    #[command(flatten)]
    format: Format,
}

#[derive(Serialize)]
struct Outcome {
    requests: u64,
    failures: u64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    reasons: std::collections::BTreeMap<String, u64>,
    /// By the copy that the example shop's `x-served-by` names.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    served_by: std::collections::BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    timeline: Vec<Tenth>,
}

#[derive(Clone, Default, Serialize)]
struct Tenth {
    served: u32,
    failed: u32,
    worst_ms: f64,
}

fn read_header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or_else(|| format!("{text:?}: write name: value"))?;
    let name = name.trim().parse().map_err(|_| format!("{name:?} is no field name"))?;
    Ok((name, value.trim().parse().map_err(|_| format!("{value:?} is no field value"))?))
}

impl LoadArgs {
    /// `Ok(true)` when nothing failed.
    ///
    /// # Errors
    /// When the rate is no rate.
    pub async fn run(self) -> anyhow::Result<bool> {
        anyhow::ensure!(self.rate > 0.0 && self.rate.is_finite(), "--rate must be a number above 0");
        let mut request = Request::get("request", &self.host, &self.path);
        request.headers = self.headers;
        let plan = Plan {
            target: self.target,
            protocol: if self.http2 { Protocol::Http2 } else { Protocol::Http1 },
            connections: self.connections,
            rate: self.rate,
            duration: self.duration,
            timeout: self.timeout,
            requests: vec![request],
        };
        let mut tally = Tally::default();
        let mut served_by = std::collections::BTreeMap::new();
        let mut timeline = Vec::new();
        veer_load::run(plan, |sample| {
            tally.add(&sample);
            if let Ok(answer) = &sample.outcome
                && let Some(by) = answer.headers.get(veer_shop::SERVED_BY).and_then(|by| by.to_str().ok())
            {
                *served_by.entry(by.to_owned()).or_default() += 1;
            }
            if self.timeline {
                let tenth = (sample.due.as_millis() / 100) as usize;
                if timeline.len() <= tenth {
                    timeline.resize(tenth + 1, Tenth::default());
                }
                let Tenth { served, failed, worst_ms } = &mut timeline[tenth];
                *(if sample.ok() { served } else { failed }) += 1;
                *worst_ms = worst_ms.max((sample.latency.as_secs_f64() * 10_000.0).round() / 10.0);
            }
        })
        .await;
        let summary = tally.summary();
        let millis = |time: Duration| (time.as_secs_f64() * 100_000.0).round() / 100.0;
        let outcome = Outcome {
            requests: summary.requests,
            failures: summary.failures,
            p50_ms: millis(summary.p50),
            p99_ms: millis(summary.p99),
            max_ms: millis(summary.max),
            reasons: tally.reasons().clone(),
            served_by,
            timeline,
        };
        self.format.print(&outcome, |o| {
            let reasons: String = o.reasons.iter().map(|(reason, count)| format!("  {count} × {reason}\n")).collect();
            format!(
                "{} requests, {} failed; p50 {} ms, p99 {} ms, worst {} ms\n{reasons}",
                o.requests, o.failures, o.p50_ms, o.p99_ms, o.max_ms
            )
        })?;
        Ok(summary.failures == 0)
    }
}
