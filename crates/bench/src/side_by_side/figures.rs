//! What a run yields.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::works::{Kind, Work};

/// A figure of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Figure {
    /// Requests that were served, per second of CPU time of all proxies.
    PerCpuSecond,
    /// MiB that were carried, per second of CPU time of all proxies.
    MibPerCpuSecond,
    /// CPU time of all proxies per request, in µs.
    CpuUs,
    /// CPU time of the relay between a pair per request, in µs.
    HopCpuUs,
    /// Requests that were served, per second.
    Rate,
    /// Median latency in µs.
    P50Us,
    /// 99th percentile in µs.
    P99Us,
    /// Median latency without that of load and origin alone, in µs.
    P50AddedUs,
    /// 99th percentile without that of load and origin alone, in µs.
    P99AddedUs,
    /// Share of its core that the proxies used, in %.
    ProxyBusy,
    /// Share of its core that load and origin used, in %.
    LoadBusy,
    /// Share of the proxies' core that others used, in %: what disturbed the run.
    OthersBusy,
    /// Share of the handshakes that resumed a session, in %.
    Resumed,
    /// Most memory of all proxies at once, in MiB.
    PeakMib,
    /// The same of the largest proxy.
    LargestPeakMib,
    /// `VmRSS` in MiB.
    ResidentMib,
    /// `Pss` in MiB.
    ProportionalMib,
    /// Private pages in MiB.
    PrivateMib,
    /// Private pages per connection in KiB.
    KibPerConnection,
    /// Resident memory per connection in KiB.
    ResidentKibPerConnection,
    /// Growth of private pages with the fleet, in MiB.
    GrowthMib,
    /// CPU time per request in a small fleet, in µs.
    SmallCpuUs,
    /// CPU time per request in a large fleet, as a multiple of that in a small one.
    Slowdown,
    /// Time of one choice in ns.
    PickNs,
    /// Allocations per choice.
    Allocations,
}

/// One run of one contender at one work.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Run {
    /// What was measured.
    pub figures: BTreeMap<Figure, f64>,
    /// Requests that were not served.
    pub failures: u64,
    /// The first reasons.
    pub reasons: Vec<String>,
    /// What the figures do not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Figure {
    /// Head of a column.
    pub fn title(self) -> &'static str {
        match self {
            Self::PerCpuSecond => "per CPU-second",
            Self::MibPerCpuSecond => "MiB per CPU-second",
            Self::CpuUs => "CPU µs each",
            Self::HopCpuUs => "of it the relay",
            Self::Rate => "per second",
            Self::P50Us => "p50 µs",
            Self::P99Us => "p99 µs",
            Self::P50AddedUs => "p50 added µs",
            Self::P99AddedUs => "p99 added µs",
            Self::ProxyBusy => "proxy core",
            Self::LoadBusy => "load core",
            Self::OthersBusy => "others on it",
            Self::Resumed => "resumed",
            Self::PeakMib => "peak RSS MiB",
            Self::LargestPeakMib => "largest process MiB",
            Self::ResidentMib => "RSS MiB",
            Self::ProportionalMib => "PSS MiB",
            Self::PrivateMib => "private MiB",
            Self::KibPerConnection => "KiB per connection",
            Self::ResidentKibPerConnection => "resident KiB per connection",
            Self::GrowthMib => "growth MiB",
            Self::SmallCpuUs => "CPU µs each, small fleet",
            Self::Slowdown => "large : small",
            Self::PickNs => "ns",
            Self::Allocations => "allocations",
        }
    }

    /// A value for people.
    pub fn text(self, value: f64) -> String {
        match self {
            Self::PerCpuSecond | Self::Rate | Self::MibPerCpuSecond => thousands(value),
            Self::P50Us | Self::P99Us | Self::PickNs => format!("{value:.0}"),
            Self::ProxyBusy | Self::LoadBusy | Self::OthersBusy | Self::Resumed => format!("{value:.0} %"),
            Self::Slowdown | Self::Allocations => format!("{value:.2}"),
            _ => format!("{value:.1}"),
        }
    }

    /// Whether less of it is better.
    pub fn is_cost(self) -> bool {
        !matches!(self, Self::PerCpuSecond | Self::MibPerCpuSecond | Self::Rate)
    }
}

impl Work {
    /// The figure by which contenders are compared.
    pub fn main_figure(self) -> Figure {
        match self.shape().kind {
            _ if self.carried().is_some() => Figure::MibPerCpuSecond,
            _ if self.has_hop() => Figure::CpuUs,
            // One at a time: how long it takes is what matters.
            _ if self == Self::PairTcpConnect => Figure::P50Us,
            Kind::Closed | Kind::Handshakes { .. } => Figure::PerCpuSecond,
            Kind::Paced(_) => Figure::P50AddedUs,
            Kind::Rest => Figure::ResidentMib,
            Kind::Idle { .. } => Figure::KibPerConnection,
            Kind::Growth => Figure::GrowthMib,
            Kind::Pick => Figure::PickNs,
        }
    }

    /// Columns of its table, after the main figure.
    pub fn columns(self) -> &'static [Figure] {
        use Figure::{
            Allocations, CpuUs, HopCpuUs, LargestPeakMib, LoadBusy, OthersBusy, P50Us, P99AddedUs, P99Us, PeakMib,
            PrivateMib, ProportionalMib, ProxyBusy, Rate, ResidentKibPerConnection, ResidentMib, Resumed, Slowdown,
            SmallCpuUs,
        };
        match self.shape().kind {
            _ if self.has_hop() => &[HopCpuUs, Rate, P50Us, P99Us, ProxyBusy, LoadBusy, OthersBusy, PeakMib],
            Kind::Closed => &[CpuUs, Rate, P50Us, P99Us, ProxyBusy, LoadBusy, OthersBusy, PeakMib, LargestPeakMib],
            Kind::Handshakes { .. } => &[CpuUs, Rate, Resumed, ProxyBusy, LoadBusy, OthersBusy, PeakMib],
            Kind::Paced(_) => &[P99AddedUs, P50Us, P99Us, Rate, CpuUs, OthersBusy],
            Kind::Rest => &[ProportionalMib, PrivateMib],
            Kind::Idle { .. } => &[ResidentKibPerConnection, ResidentMib],
            Kind::Growth => &[SmallCpuUs, Slowdown, ResidentMib],
            Kind::Pick => &[Allocations],
        }
    }
}

impl Run {
    /// Adds a figure.
    pub fn set(&mut self, figure: Figure, value: f64) {
        // No measurement here is good for more digits.
        self.figures.insert(figure, format!("{value:.4e}").parse().unwrap_or(value));
    }

    /// A figure.
    pub fn get(&self, figure: Figure) -> Option<f64> {
        self.figures.get(&figure).copied()
    }

    /// With figures.
    pub fn of(figures: impl IntoIterator<Item = (Figure, f64)>) -> Self {
        let mut run = Self::default();
        figures.into_iter().for_each(|(figure, value)| run.set(figure, value));
        run
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (figure, value)) in self.figures.iter().take(6).enumerate() {
            let comma = if n > 0 { ", " } else { "" };
            write!(f, "{comma}{} {}", figure.text(*value), figure.title())?;
        }
        if self.failures > 0 {
            write!(f, ", {} FAILED: {}", self.failures, self.reasons.join("; "))?;
        }
        Ok(())
    }
}

/// A whole number with commas.
pub fn thousands(value: f64) -> String {
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
