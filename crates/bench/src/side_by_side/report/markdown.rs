//! Tables.

use std::fmt::Write as _;

use super::{Report, Settings};
use crate::side_by_side::contenders::{Contender, Peer, Variant};
use crate::side_by_side::figures::Figure;
use crate::side_by_side::goals::Verdict;
use crate::side_by_side::machine::Machine;
use crate::side_by_side::works::Work;

const REGENERATE: &str = "benches/peers && scripts/dist && target/dist/veer-bench";

/// The whole report.
pub(super) fn report(report: &Report) -> String {
    let Settings { command, rounds, seconds, warm_up } = &report.settings;
    let mut text = format!(
        "# Veer beside other proxies\n\nWritten by a program; [`benches/README.md`](../../benches/README.md) tells what is measured and how. To measure anew:\n\n\
         ```sh\n{REGENERATE} {command}\n```\n\n\
         Medians of {rounds} runs of {seconds} s each (after {warm_up} s of warm-up), proxies taking turns. *Spread* is from the least run \
         to the most, as a share of the median. *Of the best peer* and *of the floor*: how many times as good the first figure of a row is. CPU time is that \
         of all proxies of a row together, user and kernel. Latencies are those of a saturated closed loop unless a rate is named. *Direct* is load and \
         origin without a proxy. Veer is built as `scripts/dist` builds it, its compiler guided by a profile of such loads; the others as they are packaged.\n\n"
    );
    for (name, value) in machine(report) {
        let _ = writeln!(text, "- {name}: {value}");
    }
    let _ = write!(text, "\n## Goals\n\n{}", goals(report));
    let errors: Vec<String> = report.errors().collect();
    if !errors.is_empty() {
        text += "\nDid not run, or not always:\n\n";
        for error in errors {
            let _ = writeln!(text, "- {}", error.replace('\n', " "));
        }
    }
    for family in report.families() {
        let _ = write!(
            text,
            "\n## {}\n\n![How many times as good as the best other proxy]({})\n",
            family.title(),
            family.picture()
        );
        for one in report.works().filter(|work| work.shape().family == family) {
            let _ = write!(text, "\n{}", work(report, one));
        }
    }
    text
}

fn machine(report: &Report) -> Vec<(&'static str, String)> {
    let Machine { date, cpu, cores, memory_mib, kernel, virtualization, mitigations, settings } = &report.machine;
    vec![
        ("date", date.clone()),
        ("processor", format!("{cpu}, {cores} cores")),
        ("memory", format!("{memory_mib} MiB")),
        ("kernel", kernel.clone()),
        ("virtualization", virtualization.clone()),
        ("mitigations", mitigations.join("; ")),
        ("settings", settings.iter().map(|(name, value)| format!("{name} = {value}")).collect::<Vec<_>>().join("; ")),
        ("programs", report.versions.join("; ")),
    ]
}

/// A work's table, and its goals.
pub(super) fn work(report: &Report, work: Work) -> String {
    let entries = report.of(work);
    let main = work.main_figure();
    let rival = report.best(work, Contender::is_rival);
    let floor = report.best(work, |contender| contender.peer == Peer::Floor && !work.has_hop());
    let columns: Vec<Figure> = work
        .columns()
        .iter()
        .copied()
        .filter(|figure| entries.iter().any(|entry| entry.median(*figure).is_some()))
        .collect();
    let mut head = vec![String::new(), main.title().to_owned(), "spread".to_owned()];
    if rival.is_some() {
        head.push("of the best peer".to_owned());
    }
    if floor.is_some() {
        head.push("of the floor".to_owned());
    }
    head.extend(columns.iter().map(|figure| figure.title().to_owned()));
    head.push("failed".to_owned());
    let mut rows = vec![head];
    for entry in &entries {
        let own = entry.median(main);
        let none = || "–".to_owned();
        let spread = entry.spread(main).filter(|_| entry.runs.len() > 1);
        let mut row = vec![
            entry.contender.title(),
            own.map_or_else(none, |value| main.text(value)),
            spread.map_or_else(none, |spread| format!("{:.0} %", 100.0 * spread)),
        ];
        for (_, other) in [rival, floor].into_iter().flatten() {
            row.push(own.and_then(|own| goodness(main, own, other)).map_or_else(none, |ratio| format!("{ratio:.2}")));
        }
        for figure in &columns {
            row.push(entry.median(*figure).map_or_else(none, |value| figure.text(value)));
        }
        row.push(entry.runs.iter().map(|run| run.failures).sum::<u64>().to_string());
        rows.push(row);
    }
    let mut text = format!("### {}\n\n`{}`\n\n{}", capital(work.shape().title), work.name(), table(&rows));
    for entry in &entries {
        if let Some(note) = entry.runs.iter().rev().find_map(|run| run.note.as_ref()) {
            let _ = write!(text, "\n{}: {note}.", entry.contender.title());
        }
    }
    if entries.iter().any(|entry| entry.runs.iter().any(|run| run.note.is_some())) {
        text.push('\n');
    }
    let verdicts = report.verdicts(work);
    if !verdicts.is_empty() {
        text.push('\n');
    }
    for verdict in verdicts {
        let _ = writeln!(text, "- {}: {}, {}", verdict.goal, verdict.measured, word(&verdict));
    }
    text
}

/// How many times as good a figure is. `None`: one of them is nothing that could be compared.
pub(super) fn goodness(figure: Figure, own: f64, other: f64) -> Option<f64> {
    let (more, less) = if figure.is_cost() { (other, own) } else { (own, other) };
    (more > 0.0 && less > 0.0).then(|| more / less)
}

/// Every goal in one table.
fn goals(report: &Report) -> String {
    let mut rows = vec![["work", "goal", "measured", ""].map(str::to_owned).to_vec()];
    let mut met = 0;
    let mut add = |title: String, verdict: Verdict| {
        met += usize::from(verdict.met == Some(true));
        let word = word(&verdict).to_owned();
        rows.push(vec![title, verdict.goal, verdict.measured, word]);
    };
    for work in report.works() {
        for verdict in report.verdicts(work) {
            add(capital(work.shape().title), verdict);
        }
    }
    if let Some(verdict) = report.under_load() {
        add("Memory under the loads above".to_owned(), verdict);
    }
    format!("{}\n{met} of {} met.\n", table(&rows), rows.len() - 1)
}

fn word(verdict: &Verdict) -> &'static str {
    match verdict.met {
        Some(true) => "met",
        Some(false) => "**not met**",
        None => "not compared",
    }
}

/// For the README: Veer, the best other proxy and the floor.
pub(super) fn summary(report: &Report) -> String {
    let mut rows = vec![["", "unit", "Veer", "best peer", "", "floor", "goals"].map(str::to_owned).to_vec()];
    let none = || "–".to_owned();
    for work in report.works() {
        let main = work.main_figure();
        let of = |peer| report.median(work, Contender { peer, variant: Variant::Plain }, main);
        let verdicts = report.verdicts(work);
        let met = verdicts.iter().filter(|verdict| verdict.met == Some(true)).count();
        let rival = report.best(work, Contender::is_rival);
        rows.push(vec![
            capital(work.shape().title),
            main.title().to_owned(),
            of(Peer::Veer).map_or_else(none, |value| main.text(value)),
            rival.map_or_else(none, |(_, value)| main.text(value)),
            rival.map_or_else(String::new, |(contender, _)| contender.title()),
            of(Peer::Floor).map_or_else(none, |value| main.text(value)),
            format!("{met} of {} met", verdicts.len()),
        ]);
    }
    let Machine { date, cpu, cores, .. } = &report.machine;
    format!(
        "{}\nMedians of {} runs on {cpu}, {cores} cores, {date}; {}.\n",
        table(&rows),
        report.settings.rounds,
        report.versions.join("; ")
    )
}

/// The first row is the head; columns are aligned, so that the source is readable too.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |n: usize| rows.iter().filter_map(|row| row.get(n)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (n, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
        if n == 0 {
            let rule: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
            let _ = writeln!(text, "|{}|", rule.join("|"));
        }
    }
    text
}

fn capital(text: &str) -> String {
    // A name like gRPC stays as it is.
    if text.chars().nth(1).is_some_and(char::is_uppercase) {
        return text.to_owned();
    }
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
