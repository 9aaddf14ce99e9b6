//! Runs into medians, medians into a report.

mod chart;
mod markdown;

use std::path::Path;

use serde::Serialize;

use super::contenders::{Contender, Peer};
use super::figures::{Figure, Run};
use super::goals::{UNDER_LOAD, Verdict};
use super::machine::Machine;
use super::works::{Family, Work};

/// How it was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Settings {
    /// Arguments of this program.
    pub command: String,
    /// Runs per contender.
    pub rounds: usize,
    /// Length of a run, in seconds.
    pub seconds: f64,
    /// Load before it counts, in seconds.
    pub warm_up: f64,
}

/// All runs of one contender at one work.
#[derive(Debug, Clone, Serialize)]
struct Entry {
    work: Work,
    #[serde(flatten)]
    contender: Contender,
    runs: Vec<Run>,
    /// Why there are fewer runs than there should be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<String>,
}

/// Everything.
#[derive(Debug, Clone)]
pub struct Report {
    machine: Machine,
    versions: Vec<String>,
    settings: Settings,
    entries: Vec<Entry>,
}

impl Entry {
    fn sorted(&self, figure: Figure) -> Vec<f64> {
        let mut values: Vec<f64> = self.runs.iter().filter_map(|run| run.get(figure)).collect();
        values.sort_by(f64::total_cmp);
        values
    }

    fn median(&self, figure: Figure) -> Option<f64> {
        let values = self.sorted(figure);
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        Some(if values.len() % 2 == 1 { upper } else { (values[middle - 1] + upper) / 2.0 })
    }

    /// From the least to the most, as a share of the median.
    fn spread(&self, figure: Figure) -> Option<f64> {
        let values = self.sorted(figure);
        let (least, most) = (values.first()?, values.last()?);
        Some((most - least) / self.median(figure)?.abs().max(f64::MIN_POSITIVE))
    }
}

impl Report {
    /// Without a run.
    pub fn new(machine: Machine, versions: Vec<String>, settings: Settings) -> Self {
        Self { machine, versions, settings, entries: Vec::new() }
    }

    /// Adds a run, or why there is none.
    pub fn add(&mut self, work: Work, contender: Contender, run: anyhow::Result<Run>) {
        let at = self.entries.iter().position(|entry| entry.work == work && entry.contender == contender);
        let at = at.unwrap_or_else(|| {
            self.entries.push(Entry { work, contender, runs: Vec::new(), errors: Vec::new() });
            self.entries.len() - 1
        });
        match run {
            Ok(run) => self.entries[at].runs.push(run),
            Err(error) => self.entries[at].errors.push(format!("{error:#}")),
        }
    }

    /// What did not run.
    pub fn errors(&self) -> impl Iterator<Item = String> {
        let of = |entry: &Entry| {
            let who = format!("{}, {}", entry.work.name(), entry.contender.title());
            entry.errors.first().map(|error| format!("{who}: {error}"))
        };
        self.entries.iter().filter_map(of)
    }

    /// A work's table and goals, in Markdown.
    pub fn table(&self, work: Work) -> String {
        markdown::work(self, work)
    }

    /// Writes `side-by-side.md` with pictures, `side-by-side.json` and `summary.md`.
    ///
    /// # Errors
    /// When the folder cannot be written to.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join("side-by-side.json"), self.json()?)?;
        std::fs::write(folder.join("side-by-side.md"), markdown::report(self))?;
        std::fs::write(folder.join("summary.md"), markdown::summary(self))?;
        for family in self.families() {
            std::fs::write(folder.join(family.picture()), chart::of_family(self, family))?;
        }
        Ok(())
    }

    /// An entry a line.
    fn json(&self) -> anyhow::Result<String> {
        let entries: Vec<String> = self.entries.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        Ok(format!(
            "{{\"machine\": {},\n\"versions\": {},\n\"settings\": {},\n\"entries\": [\n{}\n]}}\n",
            serde_json::to_string(&self.machine)?,
            serde_json::to_string(&self.versions)?,
            serde_json::to_string(&self.settings)?,
            entries.join(",\n")
        ))
    }

    fn works(&self) -> impl Iterator<Item = Work> {
        Work::ALL.into_iter().filter(|work| self.entries.iter().any(|entry| entry.work == *work))
    }

    fn families(&self) -> Vec<Family> {
        let mut families: Vec<Family> = self.works().map(|work| work.shape().family).collect();
        families.sort_unstable();
        families.dedup();
        families
    }

    fn of(&self, work: Work) -> Vec<&Entry> {
        self.entries.iter().filter(|entry| entry.work == work).collect()
    }

    fn median(&self, work: Work, contender: Contender, figure: Figure) -> Option<f64> {
        self.entries.iter().find(|entry| entry.work == work && entry.contender == contender)?.median(figure)
    }

    /// The best median among some contenders, and whose it is.
    fn best(&self, work: Work, is_meant: impl Fn(Contender) -> bool) -> Option<(Contender, f64)> {
        let figure = work.main_figure();
        let values = self.of(work).into_iter().filter(|entry| is_meant(entry.contender));
        let values = values.filter_map(|entry| Some((entry.contender, entry.median(figure)?)));
        values.reduce(|a, b| if (b.1 < a.1) == figure.is_cost() { b } else { a })
    }

    /// Veer beside its goals.
    fn verdicts(&self, work: Work) -> Vec<Verdict> {
        let all: Vec<Contender> = self.of(work).into_iter().map(|entry| entry.contender).collect();
        let median = |contender, figure| self.median(work, contender, figure);
        work.goals().into_iter().filter_map(|goal| goal.judge(work, &all, &median)).collect()
    }

    /// Most memory of one of Veer's processes under any load.
    fn under_load(&self) -> Option<Verdict> {
        let own = self.entries.iter().filter(|entry| entry.contender.peer == Peer::Veer && entry.work.is_load());
        let peak = own.filter_map(|entry| Some((entry.work, *entry.sorted(Figure::LargestPeakMib).last()?)));
        let (work, most) = peak.reduce(|a, b| if b.1 > a.1 { b } else { a })?;
        Some(Verdict {
            goal: format!("≤ {UNDER_LOAD:.0} MiB a process"),
            measured: format!("{most:.1} MiB ({})", work.name()),
            met: Some(most <= UNDER_LOAD),
        })
    }
}

impl Family {
    fn title(self) -> &'static str {
        match self {
            Self::Single => "One proxy",
            Self::Pair => "A pair with mutual TLS between",
            Self::Bodies => "Large bodies and messages",
            Self::Connections => "New connections and handshakes",
            Self::Gateway => "A gateway between a pair",
            Self::Latency => "Latency at a fixed rate",
            Self::Memory => "Memory and what it grows with",
        }
    }

    fn picture(self) -> &'static str {
        match self {
            Self::Single => "single.svg",
            Self::Pair => "pair.svg",
            Self::Bodies => "bodies.svg",
            Self::Connections => "connections.svg",
            Self::Gateway => "gateway.svg",
            Self::Latency => "latency.svg",
            Self::Memory => "memory.svg",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::side_by_side::contenders::Variant;

    #[test]
    fn ratios_are_of_medians_and_to_the_best_rival() {
        let settings = Settings { command: "side-by-side".to_owned(), rounds: 3, seconds: 1.0, warm_up: 0.0 };
        let mut report = Report::new(Machine::describe(), Vec::new(), settings);
        for (peer, figures) in [
            (Peer::Floor, [200_000.0, 200_000.0, 200_000.0]),
            (Peer::Veer, [100_000.0, 150_000.0, 90_000.0]),
            (Peer::Haproxy, [50_000.0, 40_000.0, 60_000.0]),
            (Peer::Nginx, [30_000.0, 30_000.0, 900_000.0]),
        ] {
            for figure in figures {
                let contender = Contender { peer, variant: Variant::Plain };
                report.add(Work::Http1, contender, Ok(Run::of([(Figure::PerCpuSecond, figure)])));
            }
        }
        let json: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();
        assert_eq!(json["entries"][1]["runs"][1]["figures"]["per-cpu-second"], 150_000.0);
        let table = report.table(Work::Http1);
        let veer = table.lines().find(|line| line.starts_with("| Veer")).unwrap();
        let cells: Vec<&str> = veer.split('|').map(str::trim).collect();
        assert_eq!(&cells[2..6], ["100,000", "60 %", "2.00", "0.50"], "{table}");
        assert!(table.contains("≥ 1.2 × HAProxy: 2.00 ×, met"), "{table}");
        assert!(table.contains("≥ 0.87 × floor: 0.50 ×, **not met**"), "{table}");
        let picture = chart::of_family(&report, Family::Single);
        assert!(picture.starts_with("<svg") && picture.contains("nginx") && picture.contains("2.00"), "{picture}");
    }
}
