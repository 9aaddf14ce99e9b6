//! Pictures: bars in SVG, readable on light and dark ground.

use std::fmt::Write as _;

use super::Report;
use super::markdown::goodness;
use crate::side_by_side::contenders::{Contender, Peer};
use crate::side_by_side::works::{Family, Work};

const WIDTH: f64 = 860.0;
/// Where bars begin, and how much room is left for figures behind them.
const LEFT: f64 = 180.0;
const RIGHT: f64 = 70.0;
const BAR: f64 = 15.0;
const GAP: f64 = 3.0;
/// Head of a group.
const HEAD: f64 = 30.0;
/// No bar is longer: beyond that, only the figure tells.
const MOST: f64 = 4.0;

const STYLE: &str = "
  text { font: 12px system-ui, sans-serif; fill: #1f2328 }
  .head { font-weight: 600 }
  .faint { fill: #59636e }
  .line { stroke: #59636e; stroke-dasharray: 3 3 }
  .veer { fill: #1a7f64 } .haproxy { fill: #8c8c94 } .nginx { fill: #a9a9b0 } .envoy { fill: #bcbcc4 } .floor { fill: #d9b44a }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .faint { fill: #9198a1 } .line { stroke: #9198a1 }
    .veer { fill: #3fb992 } .haproxy { fill: #8a8a93 } .nginx { fill: #73737c } .envoy { fill: #5f5f68 } .floor { fill: #c79b2c }
  }
";

/// Every work of a family: how many times as good as the best other proxy.
pub(super) fn of_family(report: &Report, family: Family) -> String {
    let works: Vec<Work> = report.works().filter(|work| work.shape().family == family).collect();
    let groups: Vec<(Work, Vec<(Contender, f64)>)> =
        works.into_iter().map(|work| (work, ratios(report, work))).filter(|(_, bars)| !bars.is_empty()).collect();
    let most = groups.iter().flat_map(|(_, bars)| bars).map(|(_, ratio)| *ratio).fold(1.0, f64::max).min(MOST);
    let scale = (WIDTH - LEFT - RIGHT) / most;
    let (mut body, mut y) = (String::new(), 8.0);
    for (work, bars) in &groups {
        y += HEAD;
        let title = escaped(work.shape().title);
        let _ = writeln!(body, "  <text class=\"head\" x=\"8\" y=\"{:.0}\">{title}</text>", y - 10.0);
        let (one, end) = (LEFT + scale, y + bars.len() as f64 * (BAR + GAP));
        let _ = writeln!(
            body,
            "  <line class=\"line\" x1=\"{one:.1}\" y1=\"{:.0}\" x2=\"{one:.1}\" y2=\"{:.0}\"/>",
            y - 4.0,
            end + 1.0
        );
        for (contender, ratio) in bars {
            let (length, middle) = (ratio.min(MOST) * scale, y + BAR - 3.5);
            let (class, name) = (class(contender.peer), escaped(&contender.title()));
            let _ = writeln!(
                body,
                "  <text x=\"{:.0}\" y=\"{middle:.1}\" text-anchor=\"end\">{name}</text>\
                 <rect class=\"{class}\" x=\"{LEFT}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{BAR}\" rx=\"2\"/>\
                 <text x=\"{:.1}\" y=\"{middle:.1}\">{}{ratio:.2}</text>",
                LEFT - 8.0,
                LEFT + length + 6.0,
                if *ratio > MOST { "… " } else { "" },
            );
            y += BAR + GAP;
        }
    }
    y += 22.0;
    let _ = writeln!(
        body,
        "  <text class=\"faint\" x=\"8\" y=\"{:.0}\">1 = the best other proxy; longer is better</text>",
        y - 6.0
    );
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y:.0}\" width=\"{WIDTH}\" height=\"{y:.0}\" role=\"img\">\n\
         <style>{STYLE}</style>\n{body}</svg>\n"
    )
}

/// Contenders that have something to compare, in the order of the report.
fn ratios(report: &Report, work: Work) -> Vec<(Contender, f64)> {
    let figure = work.main_figure();
    let Some((_, best)) = report.best(work, Contender::is_rival) else { return Vec::new() };
    let of = |entry: &super::Entry| Some((entry.contender, goodness(figure, entry.median(figure)?, best)?));
    report.of(work).into_iter().filter(|entry| entry.contender.peer != Peer::Direct).filter_map(of).collect()
}

fn class(peer: Peer) -> &'static str {
    match peer {
        Peer::Veer => "veer",
        Peer::Haproxy => "haproxy",
        Peer::Nginx => "nginx",
        Peer::Envoy => "envoy",
        Peer::Direct | Peer::Floor => "floor",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
