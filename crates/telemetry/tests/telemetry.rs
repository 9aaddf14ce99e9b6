//! Metrics and access log as others see them: names, numbers, escaping, drops.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use veer_telemetry::access_log::{AccessLogTarget, Rfc3339};
use veer_telemetry::edge::RequestDone;
use veer_telemetry::family::{counters, gauges};
use veer_telemetry::text::{self, Buckets, Sample};
use veer_telemetry::*;

fn labels(service: &str) -> EdgeLabels {
    EdgeLabels {
        direction: Direction::Outbound,
        source_workload: "web".into(),
        source_namespace: "shop".into(),
        source_cluster: "west".into(),
        destination_service: service.into(),
        destination_workload: "cart-1".into(),
        destination_namespace: "shop".into(),
        destination_cluster: "east".into(),
    }
}

fn done(status: u16, flag: Flag, millis: u64) -> RequestDone {
    RequestDone {
        protocol: Protocol::Http1,
        status,
        flag,
        duration: Duration::from_millis(millis),
        request_bytes: 10,
        response_bytes: 100,
    }
}

fn scrape(metrics: &Metrics) -> Vec<Sample> {
    text::parse(&metrics.render()).expect("our own exposition is of the format")
}

fn find<'a>(samples: &'a [Sample], name: &str, has: &[(&str, &str)]) -> Option<&'a Sample> {
    samples.iter().find(|s| s.name == name && has.iter().all(|(label, value)| s.label(label) == *value))
}

#[test]
fn a_request_is_seen_with_both_ends() {
    let metrics = Metrics::new();
    let edge = metrics.edge(&labels("cart"));
    edge.request(&done(200, Flag::None, 4));
    edge.request(&done(503, Flag::NoHealthyUpstream, 1));
    edge.retry(RetryReason::Timeout);
    edge.reroute();
    let samples = scrape(&metrics);
    let both = [
        ("direction", "outbound"),
        ("source_workload", "web"),
        ("source_namespace", "shop"),
        ("source_cluster", "west"),
        ("destination_service", "cart"),
        ("destination_workload", "cart-1"),
        ("destination_namespace", "shop"),
        ("destination_cluster", "east"),
    ];
    let with = |more: &[(&'static str, &'static str)]| [&both[..], more].concat();
    let value = |name, more: &[(&'static str, &'static str)]| find(&samples, name, &with(more)).map(|s| s.value);
    assert_eq!(value("veer_requests_total", &[("status", "200"), ("flag", "-"), ("protocol", "http1")]), Some(1.0));
    assert_eq!(value("veer_requests_total", &[("status", "503"), ("flag", "UH")]), Some(1.0));
    assert_eq!(value("veer_request_duration_seconds_count", &[]), Some(2.0));
    assert_eq!(value("veer_request_duration_seconds_bucket", &[("le", "0.001")]), Some(1.0));
    assert_eq!(value("veer_request_duration_seconds_bucket", &[("le", "+Inf")]), Some(2.0));
    assert_eq!(value("veer_request_bytes_total", &[]), Some(20.0));
    assert_eq!(value("veer_response_bytes_total", &[]), Some(200.0));
    assert_eq!(value("veer_retries_total", &[("reason", "timeout")]), Some(1.0));
    assert_eq!(value("veer_reroutes_total", &[]), Some(1.0));
}

#[test]
fn tcp_connections_are_open_until_they_are_not() {
    let metrics = Metrics::new();
    let edge = metrics.edge(&labels("db"));
    let open = (edge.tcp_open(), edge.tcp_open());
    edge.tcp_bytes(3, 5);
    let value = |name| find(&scrape(&metrics), name, &[]).map(|s| s.value);
    assert_eq!(value("veer_tcp_connections_open"), Some(2.0));
    drop(open.0);
    assert_eq!(value("veer_tcp_connections_open"), Some(1.0));
    assert_eq!(value("veer_tcp_connections_total"), Some(2.0));
    assert_eq!(value("veer_tcp_from_source_bytes_total"), Some(3.0));
    assert_eq!(value("veer_tcp_to_source_bytes_total"), Some(5.0));
}

#[test]
fn concurrent_counts_are_exact() {
    let metrics = Metrics::new();
    const THREADS: u16 = 4;
    const EACH: u64 = 20_000;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let metrics = &metrics;
            scope.spawn(move || {
                let edge = metrics.edge(&labels("cart"));
                for n in 0..EACH {
                    // More combinations than the quick list holds, met in different orders.
                    let status = 200 + ((n as u16 + thread * 7) % 30);
                    edge.request(&done(status, Flag::ALL[n as usize % 3], n % 12));
                }
            });
        }
    });
    let samples = scrape(&metrics);
    let sum = |name: &str| samples.iter().filter(|s| s.name == name).map(|s| s.value).sum::<f64>();
    let all = f64::from(THREADS) * EACH as f64;
    assert_eq!(sum("veer_requests_total"), all);
    assert_eq!(sum("veer_request_duration_seconds_count"), all);
    assert_eq!(sum("veer_request_bytes_total"), all * 10.0);
    let combinations = samples.iter().filter(|s| s.name == "veer_requests_total").count();
    assert_eq!(combinations, 30 * 3, "every combination of status and flag once");
}

#[test]
fn the_same_labels_are_the_same_series() {
    let metrics = Metrics::new();
    metrics.edge(&labels("cart")).request(&done(200, Flag::None, 1));
    metrics.edge(&labels("cart")).request(&done(200, Flag::None, 1));
    let samples = scrape(&metrics);
    assert_eq!(find(&samples, "veer_requests_total", &[]).unwrap().value, 2.0);
}

#[tokio::test(start_paused = true)]
async fn edges_that_nobody_uses_disappear_after_a_while() {
    let metrics = Metrics::new();
    let kept = metrics.edge(&labels("kept"));
    kept.request(&done(200, Flag::None, 1));
    metrics.edge(&labels("gone")).request(&done(200, Flag::None, 1));
    let seen =
        |service: &str| find(&scrape(&metrics), "veer_requests_total", &[("destination_service", service)]).is_some();
    assert!(seen("kept") && seen("gone"));
    tokio::time::advance(Duration::from_secs(599)).await;
    assert!(seen("gone"), "the last counts are scraped");
    tokio::time::advance(Duration::from_secs(2)).await;
    assert!(seen("kept") && !seen("gone"));
}

/// Everything at once, so that every family shows.
fn everything() -> Metrics {
    let metrics = Metrics::new();
    let edge = metrics.edge(&labels("cart"));
    edge.request(&done(200, Flag::None, 1));
    edge.retry(RetryReason::Code);
    edge.reroute();
    std::mem::forget(edge.tcp_open());
    edge.tcp_bytes(1, 1);
    for family in counters::FAMILIES {
        metrics.counter(family, &vec!["x"; family.labels.len()]).inc();
    }
    for family in gauges::FAMILIES {
        metrics.gauge(family, &vec!["x"; family.labels.len()]).set(1.5);
    }
    metrics
}

#[test]
fn names_follow_the_custom() {
    let text = everything().render();
    let mut kinds = std::collections::BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(kinds.insert(name.to_owned(), kind.to_owned()), None, "{name} is there twice");
        }
    }
    assert!(kinds.len() >= 10 + counters::FAMILIES.len() + gauges::FAMILIES.len());
    for (name, kind) in &kinds {
        assert!(name.starts_with("veer_") && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        assert!(!name.ends_with("_total"), "{name}: the exposition adds it");
        for part in name.split('_') {
            let not_base = ["ms", "millis", "milliseconds", "minutes", "hours", "kb", "kilobytes", "mb", "percent"];
            assert!(!not_base.contains(&part), "{name}: base units only");
        }
        if kind == "histogram" {
            assert!(name.ends_with("_seconds") || name.ends_with("_bytes"), "{name}: a unit");
        }
        if name.contains("age") || name.contains("round_trip") || name.contains("timestamp") {
            assert!(name.ends_with("_seconds"), "{name}: a unit");
        }
    }
    for family in counters::FAMILIES.iter().chain(gauges::FAMILIES) {
        assert!(family.help.len() > 8 && !family.help.contains(['\n', '\\']), "{}", family.name);
    }
    for sample in text::parse(&text).unwrap() {
        let family =
            kinds.iter().find(|(name, _)| sample.name.starts_with(name.as_str())).map(|(_, kind)| kind.as_str());
        assert!(family.is_some(), "{} has no TYPE", sample.name);
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn values_of_labels_cannot_break_the_format() {
    let metrics = Metrics::new();
    let nasty = "a\"b\\c\nd{},=#é";
    metrics.edge(&labels(nasty)).request(&done(200, Flag::None, 1));
    let samples = scrape(&metrics);
    assert!(find(&samples, "veer_requests_total", &[("destination_service", nasty)]).is_some());
}

#[test]
fn gauges_are_brought_up_to_date_and_forgotten() {
    let metrics = Metrics::new();
    metrics.before_render(|metrics| metrics.gauge(&gauges::PEER_AGE, &["east"]).set(2.5));
    metrics.gauge(&gauges::ENDPOINTS, &["cart", "east", "ready"]).set(3.0);
    metrics.gauge(&gauges::ENDPOINTS, &["pay", "east", "ready"]).add(1.0);
    assert_eq!(find(&scrape(&metrics), "veer_peer_age_seconds", &[("cluster", "east")]).unwrap().value, 2.5);
    metrics.forget_gauges(&gauges::ENDPOINTS, &["cart"]);
    let samples = scrape(&metrics);
    assert!(find(&samples, "veer_endpoints", &[("destination_service", "cart")]).is_none());
    assert_eq!(find(&samples, "veer_endpoints", &[("destination_service", "pay")]).unwrap().value, 1.0);
}

#[test]
fn latency_is_estimated_from_the_difference_of_two_scrapes() {
    let metrics = Metrics::new();
    let edge = metrics.edge(&labels("cart"));
    let buckets = || {
        let samples = scrape(&metrics);
        Buckets::of(samples.iter().filter(|s| s.name == "veer_request_duration_seconds_bucket"))
    };
    (0..100).for_each(|_| edge.request(&done(200, Flag::None, 900)));
    let before = buckets();
    (0..98).for_each(|_| edge.request(&done(200, Flag::None, 4)));
    (0..2).for_each(|_| edge.request(&done(200, Flag::None, 90)));
    let since = buckets().since(&before);
    assert_eq!(since.count(), 100.0);
    let (p50, p99) = (since.quantile(0.5).unwrap(), since.quantile(0.99).unwrap());
    assert!((0.003..=0.005).contains(&p50), "{p50}");
    assert!((0.075..=0.1).contains(&p99), "{p99}");
}

/// A target that takes a write only when it is told to.
struct Gate {
    open: Receiver<()>,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.open.recv();
        self.written.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn gated(config: &AccessLogConfig, metrics: &Metrics) -> (AccessLog, AccessLogGuard, Sender<()>, Arc<Mutex<Vec<u8>>>) {
    let (sender, open) = channel();
    let written = Arc::<Mutex<Vec<u8>>>::default();
    let gate = Gate { open, written: written.clone() };
    let (log, guard) = AccessLog::start_with(Box::new(gate), config, metrics).unwrap();
    (log, guard, sender, written)
}

fn entry(status: u16) -> AccessEntry {
    AccessEntry { status, ..AccessEntry::new(UNIX_EPOCH, Direction::Outbound, Protocol::Http2) }
}

fn lines(written: &Mutex<Vec<u8>>) -> Vec<serde_json::Value> {
    let bytes = written.lock().unwrap();
    std::str::from_utf8(&bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_does_not_fit_is_dropped_and_counted() {
    let metrics = Metrics::new();
    let config = AccessLogConfig { capacity: 8, ..AccessLogConfig::default() };
    let (log, guard, open, written) = gated(&config, &metrics);
    const ALL: usize = 1000;
    // The writer hangs at its first flush: this returns at once all the same.
    (0..ALL).for_each(|_| log.log(entry(200)));
    drop(open);
    drop(guard);
    let dropped = metrics.counter(&counters::ACCESS_LOG_DROPPED, &[]).get() as usize;
    let lines = lines(&written).len();
    assert!(dropped > 0 && lines >= 8, "{dropped} dropped, {lines} written");
    assert_eq!(lines + dropped, ALL, "nothing is lost without being counted");
    log.log(entry(200));
    let after = metrics.counter(&counters::ACCESS_LOG_DROPPED, &[]).get() as usize;
    assert_eq!(after, dropped + 1, "after the end as well");
}

#[test]
fn a_line_has_the_keys_of_the_contract() {
    let metrics = Metrics::new();
    let (log, guard, open, written) = gated(&AccessLogConfig::default(), &metrics);
    drop(open);
    let mut entry =
        AccessEntry::new(UNIX_EPOCH + Duration::from_millis(1_767_225_599_007), Direction::Inbound, Protocol::Grpc);
    entry.method = "POST".into();
    entry.host = "cart".into();
    entry.path = "/a\"b".into();
    entry.status = 503;
    entry.flag = Flag::UpstreamConnectionLost;
    entry.blame = entry.flag.blame();
    entry.duration = Duration::from_micros(1_500);
    entry.source_workload = "web".into();
    entry.destination_cluster = "east".into();
    entry.attempts = 2;
    entry.trace_id = "0af7651916cd43dd8448eb211c80319c".into();
    log.log(entry);
    drop(guard);
    let line = &lines(&written)[0];
    let expected = serde_json::json!({
        "time": "2025-12-31T23:59:59.007Z", "direction": "inbound", "protocol": "grpc", "method": "POST", "host": "cart",
        "path": "/a\"b", "status": 503, "flag": "UC", "blame": "upstream", "duration_ms": 1.5, "request_bytes": 0,
        "response_bytes": 0, "source_workload": "web", "destination_cluster": "east", "attempts": 2,
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
    });
    assert_eq!(*line, expected);
}

#[test]
fn failures_are_logged_whatever_the_sample() {
    let metrics = Metrics::new();
    let config = AccessLogConfig { sample: 0.1, ..AccessLogConfig::default() };
    let (log, guard, open, written) = gated(&config, &metrics);
    drop(open);
    (0..100).for_each(|n| log.log(entry(if n % 20 == 0 { 500 } else { 200 })));
    drop(guard);
    let lines = lines(&written);
    let failures = lines.iter().filter(|line| line["status"] == 500).count();
    assert_eq!(failures, 5);
    assert!((9..=10).contains(&(lines.len() - failures)), "{} successes of 95", lines.len() - failures);
}

#[test]
fn a_file_is_appended_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let config = AccessLogConfig { target: AccessLogTarget::File(path.clone()), ..AccessLogConfig::default() };
    for _ in 0..2 {
        let (log, guard) = AccessLog::start(&config, &Metrics::new()).unwrap();
        log.log(entry(200));
        drop(guard);
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
    let nowhere = AccessLogConfig { target: AccessLogTarget::File(dir.path().join("no/access.log")), ..config };
    assert!(AccessLog::start(&nowhere, &Metrics::new()).unwrap_err().to_string().contains("no/access.log"));
    let (off, _guard) = AccessLog::start(&AccessLogConfig::default(), &Metrics::new()).unwrap();
    assert!(!off.is_on());
    off.log(entry(200));
}

#[test]
fn dates_are_right() {
    for (seconds, text) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_400, "2000-02-29T00:00:00.000Z"),
        (951_868_799, "2000-02-29T23:59:59.000Z"),
        (951_868_800, "2000-03-01T00:00:00.000Z"),
        (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        (1_795_219_200, "2026-11-21T00:00:00.000Z"),
    ] {
        assert_eq!(Rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)).to_string(), text);
    }
}
