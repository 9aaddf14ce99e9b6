//! What became of every request of the demo, and questions about a stretch of time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use veer_load::{Sample, Tally};
use veer_shop::SERVED_BY;

/// One request of a visitor.
#[derive(Debug)]
pub struct Record {
    /// Cluster of the visitor.
    pub from: Arc<str>,
    /// When it was due, from the start of the demo.
    pub due: Duration,
    /// The load generator's own account.
    pub sample: Sample,
    /// Which copy of each service took part: service → (cluster, workload).
    pub served: BTreeMap<String, (String, String)>,
}

/// All requests so far. Cheap to clone; clones share.
#[derive(Clone)]
pub struct Recorder {
    start: Instant,
    records: Arc<Mutex<Vec<Arc<Record>>>>,
}

impl Recorder {
    /// Time counts from now.
    pub fn new() -> Self {
        Self { start: Instant::now(), records: Arc::default() }
    }

    /// Time since the start.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Takes one sample of a load that began at `began`.
    pub fn add(&self, from: &Arc<str>, began: Duration, sample: Sample) {
        let served = match &sample.outcome {
            Ok(answer) => served(answer.headers.get(SERVED_BY).and_then(|by| by.to_str().ok()).unwrap_or("")),
            Err(_) => BTreeMap::new(),
        };
        let record = Record { from: Arc::clone(from), due: began + sample.due, sample, served };
        self.records.lock().unwrap_or_else(|e| e.into_inner()).push(Arc::new(record));
    }

    /// The requests that were due between two moments and have ended.
    pub fn window(&self, from: Duration, to: Duration) -> Window {
        let records = self.records.lock().unwrap_or_else(|e| e.into_inner());
        Window { records: records.iter().filter(|r| r.due >= from && r.due < to).cloned().collect() }
    }
}

fn served(header: &str) -> BTreeMap<String, (String, String)> {
    let part = |part: &str| {
        let (service, copy) = part.split_once('=')?;
        let (cluster, workload) = copy.split_once('/')?;
        Some((service.to_owned(), (cluster.to_owned(), workload.to_owned())))
    };
    header.split(',').filter_map(part).collect()
}

/// Requests of a stretch of time, or some of them.
#[derive(Clone, Default)]
pub struct Window {
    records: Vec<Arc<Record>>,
}

impl Window {
    /// Those of visitors of one cluster.
    pub fn from(&self, cluster: &str) -> Self {
        self.filter(|record| &*record.from == cluster)
    }

    /// Those of one kind.
    pub fn kind(&self, kind: &str) -> Self {
        self.filter(|record| &*record.sample.kind == kind)
    }

    /// Those but of one kind.
    pub fn without(&self, kind: &str) -> Self {
        self.filter(|record| &*record.sample.kind != kind)
    }

    fn filter(&self, keep: impl Fn(&Record) -> bool) -> Self {
        Self { records: self.records.iter().filter(|record| keep(record)).cloned().collect() }
    }

    /// Counts and latencies.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        self.records.iter().for_each(|record| tally.add(&record.sample));
        tally
    }

    /// Requests that were not served.
    pub fn failures(&self) -> usize {
        self.records.iter().filter(|record| !record.sample.ok()).count()
    }

    /// How many requests.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Requests that a service took part in, by cluster of the copy.
    pub fn by_cluster(&self, service: &str) -> BTreeMap<String, usize> {
        self.count(service, |(cluster, _)| cluster.clone())
    }

    /// Requests that a service took part in, by `cluster/workload`.
    pub fn by_workload(&self, service: &str) -> BTreeMap<String, usize> {
        self.count(service, |(cluster, workload)| format!("{cluster}/{workload}"))
    }

    fn count(&self, service: &str, key: impl Fn(&(String, String)) -> String) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for copy in self.records.iter().filter_map(|record| record.served.get(service)) {
            *counts.entry(key(copy)).or_default() += 1;
        }
        counts
    }

    /// The part of a service's requests that a cluster served, 0 to 1; 0 when there were none.
    pub fn share(&self, service: &str, cluster: &str) -> f64 {
        share(&self.by_cluster(service), cluster)
    }

    /// The part of a service's requests that one copy served.
    pub fn workload_share(&self, service: &str, workload: &str) -> f64 {
        share(&self.by_workload(service), workload)
    }
}

fn share(counts: &BTreeMap<String, usize>, key: &str) -> f64 {
    let total: usize = counts.values().sum();
    if total == 0 { 0.0 } else { counts.get(key).copied().unwrap_or(0) as f64 / total as f64 }
}
