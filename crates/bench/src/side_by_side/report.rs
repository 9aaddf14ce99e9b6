//! Runs into medians, medians into tables.

use std::fmt::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use veer_load::ClosedReport;

use super::machine::Machine;
use super::peers::Peer;
use super::works::Work;

const REGENERATE: &str = "benches/peers && cargo build --release && cargo run --release -p veer-bench --";

/// How it was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Settings {
    /// Arguments of this program.
    pub command: String,
    /// Runs per peer and work.
    pub rounds: usize,
    /// Length of a run.
    pub seconds: f64,
    /// Load before it counts.
    pub warm_up: f64,
}

/// One run of one peer at one work.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// Served requests per second.
    pub rate: f64,
    /// Requests that were not served.
    pub failures: u64,
    /// The first reasons.
    pub reasons: Vec<String>,
    /// CPU time of the proxies, in seconds.
    pub cpu_seconds: f64,
    /// Served requests per second of the proxies' CPU time; 0 without a proxy.
    pub per_cpu_second: f64,
    /// Share of its core that the proxies used.
    pub proxy_busy: f64,
    /// Share of their core that load and origin used.
    pub load_busy: f64,
    /// Median latency in microseconds, of a saturated server.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// Peak memory of the proxies in MiB.
    pub peak_mib: f64,
}

/// All runs of one peer at one work.
#[derive(Debug, Clone, Serialize)]
struct Entry {
    work: Work,
    peer: Peer,
    runs: Vec<Run>,
}

/// Everything.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    machine: Machine,
    versions: Vec<String>,
    settings: Settings,
    entries: Vec<Entry>,
}

impl Run {
    /// From what the load saw and the kernel counted.
    pub fn new(measured: &ClosedReport, proxies: Duration, own: Duration, peak_memory: u64) -> Self {
        let served = (measured.summary.requests - measured.summary.failures) as f64;
        let (elapsed, cpu_seconds) = (measured.elapsed.as_secs_f64(), proxies.as_secs_f64());
        Self {
            rate: measured.rate(),
            failures: measured.summary.failures,
            reasons: measured.reasons.keys().take(3).cloned().collect(),
            cpu_seconds,
            per_cpu_second: if cpu_seconds > 0.0 { served / cpu_seconds } else { 0.0 },
            proxy_busy: cpu_seconds / elapsed,
            load_busy: own.as_secs_f64() / elapsed,
            p50_us: measured.summary.p50.as_secs_f64() * 1e6,
            p99_us: measured.summary.p99.as_secs_f64() * 1e6,
            peak_mib: peak_memory as f64 / f64::from(1 << 20),
        }
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rate, per_cpu_second, failures, .. } = self;
        write!(f, "{rate:.0}/s, {per_cpu_second:.0} per CPU-second")?;
        if *failures > 0 {
            write!(f, ", {failures} FAILED: {}", self.reasons.join("; "))?;
        }
        Ok(())
    }
}

impl Entry {
    fn sorted(&self, figure: impl Fn(&Run) -> f64) -> Vec<f64> {
        let mut values: Vec<f64> = self.runs.iter().map(figure).collect();
        values.sort_by(f64::total_cmp);
        values
    }

    fn median(&self, figure: impl Fn(&Run) -> f64) -> f64 {
        let values = self.sorted(figure);
        let middle = values.len() / 2;
        if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
    }

    /// From the least to the most, as a share of the median.
    fn spread(&self, figure: impl Fn(&Run) -> f64 + Copy) -> f64 {
        let values = self.sorted(figure);
        (values[values.len() - 1] - values[0]) / self.median(figure).max(f64::MIN_POSITIVE)
    }
}

impl Report {
    /// Without a run.
    pub fn new(machine: Machine, versions: Vec<String>, settings: Settings) -> Self {
        Self { machine, versions, settings, entries: Vec::new() }
    }

    /// Adds a run.
    pub fn add(&mut self, work: Work, peer: Peer, run: Run) {
        match self.entries.iter_mut().find(|entry| entry.work == work && entry.peer == peer) {
            Some(entry) => entry.runs.push(run),
            None => self.entries.push(Entry { work, peer, runs: vec![run] }),
        }
    }

    /// A work's table, in Markdown.
    pub fn table(&self, work: Work) -> String {
        let entries: Vec<&Entry> = self.entries.iter().filter(|entry| entry.work == work).collect();
        let cost = |entry: &Entry| entry.median(|run| run.per_cpu_second);
        let best = entries.iter().filter(|entry| entry.peer.is_foreign()).map(|entry| cost(entry)).fold(0.0, f64::max);
        let floor = entries.iter().find(|entry| entry.peer == Peer::Floor).map_or(0.0, |entry| cost(entry));
        let ratio = |own: f64, other: f64| {
            if own > 0.0 && other > 0.0 { format!("{:.2}", own / other) } else { "–".to_owned() }
        };
        let head = [
            "",
            "requests per CPU-second",
            "spread",
            "of the best peer",
            "of the floor",
            "requests/s",
            "CPU µs per request",
            "p50 µs",
            "p99 µs",
            "proxy core",
            "load core",
            "peak RSS MiB",
            "failed",
        ];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for entry in entries {
            let (cost, direct) = (cost(entry), entry.peer == Peer::Direct);
            let unless_direct = |text: String| if direct { "–".to_owned() } else { text };
            rows.push(vec![
                entry.peer.title().to_owned(),
                unless_direct(thousands(cost)),
                unless_direct(format!("{:.0} %", 100.0 * entry.spread(|run| run.per_cpu_second))),
                ratio(cost, best),
                ratio(cost, floor),
                thousands(entry.median(|run| run.rate)),
                unless_direct(format!("{:.1}", 1e6 / cost)),
                format!("{:.0}", entry.median(|run| run.p50_us)),
                format!("{:.0}", entry.median(|run| run.p99_us)),
                unless_direct(format!("{:.0} %", 100.0 * entry.median(|run| run.proxy_busy))),
                format!("{:.0} %", 100.0 * entry.median(|run| run.load_busy)),
                unless_direct(format!("{:.1}", entry.median(|run| run.peak_mib))),
                entry.runs.iter().map(|run| run.failures).sum::<u64>().to_string(),
            ]);
        }
        format!("## {}\n\n{}", capital(work.title()), markdown(&rows))
    }

    /// Writes `side-by-side.md` and `side-by-side.json`.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join("side-by-side.json"), serde_json::to_string_pretty(self)? + "\n")?;
        std::fs::write(folder.join("side-by-side.md"), self.text()?)?;
        Ok(())
    }

    fn text(&self) -> Result<String, fmt::Error> {
        let Machine { date, cpu, cores, memory_mib, kernel, virtualization, mitigations } = &self.machine;
        let Settings { command, rounds, seconds, warm_up } = &self.settings;
        let mut text = format!(
            "# Veer beside other proxies\n\nWritten by a program; `benches/README.md` tells what is measured and how. To measure anew:\n\n\
             ```sh\n{REGENERATE} {command}\n```\n\n\
             Medians of {rounds} runs of {seconds} s each (after {warm_up} s of warm-up), proxies taking turns. *Spread* is from the least run \
             to the most, as a share of the median. *Of the best peer* and *of the floor* compare requests per CPU-second of the proxy (of both \
             proxies of a pair). Latencies are those of a saturated closed loop. *Direct* is load and origin without a proxy.\n\n"
        );
        for (name, value) in [
            ("date", date.clone()),
            ("processor", format!("{cpu}, {cores} cores")),
            ("memory", format!("{memory_mib} MiB")),
            ("kernel", kernel.clone()),
            ("virtualization", virtualization.clone()),
            ("mitigations", mitigations.join("; ")),
            ("programs", self.versions.join("; ")),
        ] {
            writeln!(text, "- {name}: {value}")?;
        }
        for work in Work::ALL {
            if self.entries.iter().any(|entry| entry.work == work) {
                write!(text, "\n{}", self.table(work))?;
            }
        }
        Ok(text)
    }
}

/// The first row is the head; columns are aligned, so that the source is readable too.
fn markdown(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |n: usize| rows.iter().filter_map(|row| row.get(n)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (n, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text += &format!("| {} |\n", cells.join(" | "));
        if n == 0 {
            let rule: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
            text += &format!("|{}|\n", rule.join("|"));
        }
    }
    text
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(per_cpu_second: f64) -> Run {
        Run {
            rate: 10_000.0,
            failures: 0,
            reasons: Vec::new(),
            cpu_seconds: 1.0,
            per_cpu_second,
            proxy_busy: 1.0,
            load_busy: 0.5,
            p50_us: 10.0,
            p99_us: 20.0,
            peak_mib: 5.0,
        }
    }

    #[test]
    fn ratios_are_of_medians_and_to_the_best_foreign_proxy() {
        let settings = Settings { command: "side-by-side".to_owned(), rounds: 3, seconds: 1.0, warm_up: 0.0 };
        let mut report = Report::new(Machine::describe(), Vec::new(), settings);
        for (peer, figures) in [
            (Peer::Floor, [200_000.0, 200_000.0, 200_000.0]),
            (Peer::Veer, [100_000.0, 150_000.0, 90_000.0]),
            (Peer::Haproxy, [50_000.0, 40_000.0, 60_000.0]),
            (Peer::Nginx, [30_000.0, 30_000.0, 900_000.0]),
        ] {
            for figure in figures {
                report.add(Work::Http1, peer, run(figure));
            }
        }
        let table = report.table(Work::Http1);
        let veer = table.lines().find(|line| line.starts_with("| Veer")).unwrap();
        let cells: Vec<&str> = veer.split('|').map(str::trim).collect();
        assert_eq!(&cells[2..6], ["100,000", "60 %", "2.00", "0.50"]);
    }
}
