//! What the audience sees: on a terminal a block that is redrawn in place, elsewhere plain lines.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use tokio::time::Instant;

use super::record::{Recorder, Window};
use super::story::{Promise, shares};

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const TITLE: Style = Style::new().bold();
const FAINT: Style = Style::new().dimmed();

/// How often figures are shown: redrawn on a terminal, a new line elsewhere.
const REDRAW: Duration = Duration::from_millis(500);
const LINE: Duration = Duration::from_secs(2);

/// Where the story is told.
pub struct Show {
    terminal: bool,
    silent: bool,
    last: Instant,
    drawn: usize,
}

impl Show {
    /// `silent`: nothing but the result is wanted.
    pub fn new(silent: bool) -> Self {
        Self { terminal: std::io::stdout().is_terminal() && !silent, silent, last: Instant::now(), drawn: 0 }
    }

    /// A new step begins.
    pub fn step(&mut self, number: usize, title: &str, text: &str) {
        self.drawn = 0;
        self.print(&format!("\n{TITLE}{number}. {title}{TITLE:#}\n   {text}\n"));
    }

    /// Something was done.
    pub fn note(&mut self, what: &str) {
        self.erase();
        self.print(&format!("   {FAINT}→ {what}{FAINT:#}\n"));
    }

    /// A sentence outside the steps.
    pub fn say(&mut self, text: &str) {
        self.erase();
        self.print(&format!("{text}\n"));
    }

    /// The outcome of a step.
    pub fn promises(&mut self, promises: &[Promise]) {
        self.drawn = 0;
        for Promise { promise, held, measured } in promises {
            let (style, mark) = if *held { (GOOD, "kept  ") } else { (BAD, "BROKEN") };
            self.print(&format!("   {style}{mark}{style:#} {promise} {FAINT}({measured}){FAINT:#}\n"));
        }
    }

    /// Shows the figures of the last second when it is time to.
    pub fn tick(&mut self, recorder: &Recorder) {
        let due = if self.terminal { REDRAW } else { LINE };
        if self.silent || self.last.elapsed() < due {
            return;
        }
        self.last = Instant::now();
        let now = recorder.now();
        let seen = recorder.window(now.saturating_sub(Duration::from_secs(1)), now);
        let lines: Vec<String> = super::VISITORS
            .iter()
            .map(|(cluster, _)| (cluster, seen.from(cluster)))
            .filter(|(_, seen)| seen.len() > 0)
            .map(|(cluster, seen)| line(cluster, &seen))
            .collect();
        self.erase();
        if self.terminal {
            self.drawn = lines.len();
        }
        for text in lines {
            self.print(&format!("   {:>4.0} s  {text}\n", now.as_secs_f64()));
        }
    }

    /// Takes the block back, so that what comes next stands in its place.
    fn erase(&mut self) {
        if self.drawn > 0 {
            let up = format!("\x1b[{}A\x1b[J", self.drawn);
            self.print(&up);
            self.drawn = 0;
        }
    }

    fn print(&self, text: &str) {
        if !self.silent {
            // A closed pipe takes nothing from the story.
            let _ = write!(anstream::stdout(), "{text}").and_then(|()| anstream::stdout().flush());
        }
    }
}

fn line(cluster: &str, seen: &Window) -> String {
    let summary = seen.tally().summary();
    let millis = |time: Duration| time.as_secs_f64() * 1000.0;
    let mut text = format!(
        "{cluster:<5} {:>3}/s  p50 {:>5.1} ms  p99 {:>6.1} ms  ",
        seen.len(),
        millis(summary.p50),
        millis(summary.p99)
    );
    let style = if summary.failures == 0 { GOOD } else { BAD };
    let _ = write!(text, "{style}{} failed{style:#}", summary.failures);
    for service in ["catalog", "price"] {
        let counts = seen.by_cluster(service);
        if !counts.is_empty() {
            let _ = write!(text, "  {FAINT}{service}:{FAINT:#} {}", shares(&counts));
        }
    }
    text
}
