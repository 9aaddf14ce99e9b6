//! The registry: hands out handles, renders the text exposition.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use crate::edge::{Edge, EdgeLabels, Series};
use crate::family::{Counter, Family, Gauge, counters, gauges};

/// Content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// How long the series of an edge are exposed after the last handle is gone: some scrapes, so that the last counts are seen.
const EDGE_LINGERS: Duration = Duration::from_secs(600);

/// Everything that is measured in one process. Clone it freely.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    state: Arc<State>,
    hooks: Mutex<Vec<Box<dyn Fn(&Metrics) + Send + Sync>>>,
}

type Table<H> = Mutex<BTreeMap<&'static str, BTreeMap<Vec<Box<str>>, H>>>;

#[derive(Default)]
struct State {
    edges: Mutex<HashMap<EdgeLabels, Held, foldhash::fast::RandomState>>,
    counters: Table<Counter>,
    gauges: Table<Gauge>,
}

struct Held {
    series: Arc<Series>,
    /// Since when nobody but this table holds it.
    unused: Option<Instant>,
}

impl Metrics {
    /// An empty registry.
    pub fn new() -> Self {
        let state = Arc::<State>::default();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Exposition(state.clone())));
        Self(Arc::new(Inner { registry, state, hooks: Mutex::default() }))
    }

    /// The handle to an edge; the same counters for the same labels. Takes a lock: keep the handle.
    pub fn edge(&self, labels: &EdgeLabels) -> Edge {
        let mut edges = lock(&self.0.state.edges);
        if let Some(held) = edges.get_mut(labels) {
            held.unused = None;
            return Edge(held.series.clone());
        }
        let series = Arc::new(Series::new(labels.clone()));
        edges.insert(labels.clone(), Held { series: series.clone(), unused: None });
        Edge(series)
    }

    /// The counter with these label values, in the order of the family's labels. Takes a lock: keep the handle where it
    /// is used often.
    pub fn counter(&self, family: &'static Family, labels: &[&str]) -> Counter {
        handle(&self.0.state.counters, family, labels)
    }

    /// Shows a counter that counts elsewhere: of a family without labels.
    pub(crate) fn adopt(&self, family: &'static Family, counter: Counter) {
        lock(&self.0.state.counters).entry(family.name).or_default().insert(Vec::new(), counter);
    }

    /// The gauge with these label values, in the order of the family's labels.
    pub fn gauge(&self, family: &'static Family, labels: &[&str]) -> Gauge {
        handle(&self.0.state.gauges, family, labels)
    }

    /// Stops showing the gauges of a family whose first label values are these: of a peer that was unlinked, a service
    /// that is gone.
    pub fn forget_gauges(&self, family: &'static Family, first: &[&str]) {
        if let Some(series) = lock(&self.0.state.gauges).get_mut(family.name) {
            series.retain(|labels, _| !labels.iter().map(|l| &**l).take(first.len()).eq(first.iter().copied()));
        }
    }

    /// Lets `hook` run before every rendering, to set gauges such as ages that nobody else would bring up to date. It must
    /// not render itself.
    pub fn before_render(&self, hook: impl Fn(&Metrics) + Send + Sync + 'static) {
        lock(&self.0.hooks).push(Box::new(hook));
    }

    /// The text exposition (OpenMetrics, which is also what Prometheus' own format reads).
    pub fn render(&self) -> String {
        for hook in lock(&self.0.hooks).iter() {
            hook(self);
        }
        self.0.state.drop_unused(Instant::now());
        let mut text = String::with_capacity(16 * 1024);
        if prometheus_client::encoding::text::encode(&mut text, &self.0.registry).is_err() {
            // Writing into a String does not fail; should a family refuse, what was written so far is still valid.
            tracing::error!("the metrics could not be rendered in full");
        }
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics(..)")
    }
}

fn handle<H: Clone + Default>(table: &Table<H>, family: &'static Family, values: &[&str]) -> H {
    debug_assert_eq!(family.labels.len(), values.len(), "labels of {}", family.name);
    let mut table = lock(table);
    let series = table.entry(family.name).or_default();
    // In a release build a missing value is shown empty rather than taking the process down.
    let key = (0..family.labels.len()).map(|i| Box::from(values.get(i).copied().unwrap_or_default())).collect();
    series.entry(key).or_default().clone()
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn drop_unused(&self, now: Instant) {
        lock(&self.edges).retain(|_, held| {
            // Handles are only made under this lock, so a count of one cannot grow meanwhile.
            if Arc::strong_count(&held.series) > 1 {
                held.unused = None;
                return true;
            }
            now.duration_since(*held.unused.get_or_insert(now)) < EDGE_LINGERS
        });
    }
}

struct Exposition(Arc<State>);

impl fmt::Debug for Exposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exposition(..)")
    }
}

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut edges: Vec<_> = lock(&self.0.edges).values().map(|held| held.series.clone()).collect();
        edges.sort_by(|a, b| a.labels.cmp(&b.labels));
        encode_edges(&mut encoder, &edges)?;
        encode_table(&mut encoder, counters::FAMILIES, &self.0.counters, MetricType::Counter, |mut out, counter| {
            out.encode_counter::<NoLabelSet, u64, f64>(&counter.get(), None)
        })?;
        encode_table(&mut encoder, gauges::FAMILIES, &self.0.gauges, MetricType::Gauge, |mut out, gauge| {
            out.encode_gauge(&gauge.get())
        })
    }
}

fn encode_table<H: Clone>(
    encoder: &mut DescriptorEncoder<'_>,
    families: &[&'static Family],
    table: &Table<H>,
    kind: MetricType,
    write: impl Fn(MetricEncoder<'_>, &H) -> fmt::Result,
) -> fmt::Result {
    let table: Vec<_> = {
        let table = lock(table);
        families.iter().filter_map(|family| Some((*family, table.get(family.name)?.clone()))).collect()
    };
    for (family, series) in table {
        let mut out = encoder.encode_descriptor(family.name, family.help, None, kind)?;
        for (values, handle) in &series {
            let labels: Vec<_> = family.labels.iter().copied().zip(values.iter().map(|v| &**v)).collect();
            write(out.encode_family(&Labels(&labels, &[]))?, handle)?;
        }
    }
    Ok(())
}

/// Families of the edges: name and help. The contract with dashboards and `veer stat`.
pub(crate) mod edge_families {
    pub(crate) const REQUESTS: (&str, &str) = ("veer_requests", "Requests");
    pub(crate) const DURATION: (&str, &str) = ("veer_request_duration_seconds", "Time of requests, first to last byte");
    pub(crate) const REQUEST_BYTES: (&str, &str) = ("veer_request_bytes", "Bytes of request bodies");
    pub(crate) const RESPONSE_BYTES: (&str, &str) = ("veer_response_bytes", "Bytes of response bodies");
    pub(crate) const RETRIES: (&str, &str) = ("veer_retries", "Tries after a failed one");
    pub(crate) const REROUTES: (&str, &str) = ("veer_reroutes", "Requests led elsewhere because nothing had been sent");
    pub(crate) const TCP: (&str, &str) = ("veer_tcp_connections", "TCP connections opened");
    pub(crate) const TCP_OPEN: (&str, &str) = ("veer_tcp_connections_open", "TCP connections open now");
    pub(crate) const TCP_FROM: (&str, &str) =
        ("veer_tcp_from_source_bytes", "Bytes of TCP connections, from the source");
    pub(crate) const TCP_TO: (&str, &str) = ("veer_tcp_to_source_bytes", "Bytes of TCP connections, to the source");
}

fn encode_edges(encoder: &mut DescriptorEncoder<'_>, edges: &[Arc<Series>]) -> fmt::Result {
    use edge_families as f;

    let mut out = encoder.encode_descriptor(f::REQUESTS.0, f::REQUESTS.1, None, MetricType::Counter)?;
    for edge in edges {
        for (protocol, status, flag, count) in edge.statuses.snapshot() {
            let status = status.to_string();
            let extra = [("protocol", protocol.as_str()), ("status", &*status), ("flag", flag.as_str())];
            out.encode_family(&Labels(&edge.labels.pairs(), &extra))?
                .encode_counter::<NoLabelSet, u64, f64>(&count, None)?;
        }
    }
    let mut out = encoder.encode_descriptor(f::DURATION.0, f::DURATION.1, None, MetricType::Histogram)?;
    for edge in edges {
        let snapshot = edge.duration.snapshot();
        if snapshot.count > 0 {
            out.encode_family(&Labels(&edge.labels.pairs(), &[]))?.encode_histogram::<NoLabelSet>(
                snapshot.sum,
                snapshot.count,
                &snapshot.buckets,
                None,
            )?;
        }
    }
    let mut out = encoder.encode_descriptor(f::RETRIES.0, f::RETRIES.1, None, MetricType::Counter)?;
    for edge in edges {
        for (reason, count) in edge.retries().filter(|(_, count)| *count > 0) {
            out.encode_family(&Labels(&edge.labels.pairs(), &[("reason", reason.as_str())]))?
                .encode_counter::<NoLabelSet, u64, f64>(&count, None)?;
        }
    }
    encode_counts(encoder, f::REQUEST_BYTES, edges, |edge| edge.request_bytes.load(Relaxed))?;
    encode_counts(encoder, f::RESPONSE_BYTES, edges, |edge| edge.response_bytes.load(Relaxed))?;
    encode_counts(encoder, f::REROUTES, edges, |edge| edge.reroutes.load(Relaxed))?;
    encode_counts(encoder, f::TCP, edges, |edge| edge.tcp_total.load(Relaxed))?;
    encode_counts(encoder, f::TCP_FROM, edges, |edge| edge.tcp_from_source.load(Relaxed))?;
    encode_counts(encoder, f::TCP_TO, edges, |edge| edge.tcp_to_source.load(Relaxed))?;
    let mut out = encoder.encode_descriptor(f::TCP_OPEN.0, f::TCP_OPEN.1, None, MetricType::Gauge)?;
    for edge in edges.iter().filter(|edge| edge.tcp_total.load(Relaxed) > 0) {
        out.encode_family(&Labels(&edge.labels.pairs(), &[]))?.encode_gauge(&edge.tcp_open.load(Relaxed))?;
    }
    Ok(())
}

/// Series that are zero are left out: an edge of HTTP has no bytes of TCP.
fn encode_counts(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    edges: &[Arc<Series>],
    count: impl Fn(&Series) -> u64,
) -> fmt::Result {
    let mut out = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (edge, count) in edges.iter().map(|edge| (edge, count(edge))).filter(|(_, count)| *count > 0) {
        out.encode_family(&Labels(&edge.labels.pairs(), &[]))?.encode_counter::<NoLabelSet, u64, f64>(&count, None)?;
    }
    Ok(())
}

struct Labels<'a>(&'a [(&'a str, &'a str)], &'a [(&'a str, &'a str)]);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)?;
        self.1.encode(encoder)
    }
}
