//! What Veer wants to reach, and whether it does.

use super::contenders::{Contender, Peer, Variant};
use super::figures::Figure;
use super::works::{Kind, Work};

/// Most memory of one process under any load, in MiB.
pub const UNDER_LOAD: f64 = 10.0;

/// A goal of a work.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// The work's main figure is so many times as good as another's.
    Times(f64, Whom),
    /// A figure is at most so much.
    AtMost(Figure, f64),
    /// A figure is less than that of every rival.
    Below(Figure),
    /// With the relay, a request costs at most so much more than without, as a share.
    Extra(f64),
    /// The relay costs at most so many times as much as the floor's.
    HopTimesFloor(f64),
}

/// Whom Veer is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// The best way of another proxy.
    Rival(Peer),
    /// The best of all other proxies.
    BestRival,
    /// The best that relays bytes only.
    BytesOnly,
    /// The floor.
    Floor,
}

/// Medians of a work's contenders.
pub type Median<'a> = &'a dyn Fn(Contender, Figure) -> Option<f64>;

/// A goal beside what was measured.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The goal.
    pub goal: String,
    /// What was measured.
    pub measured: String,
    /// `None`: what it would be compared with was not measured.
    pub met: Option<bool>,
}

impl Work {
    /// The goals that Veer has set itself.
    pub fn goals(self) -> Vec<Goal> {
        use Goal::{AtMost, Below, Extra, HopTimesFloor, Times};
        use Whom::{BestRival, BytesOnly, Floor, Rival};
        let (haproxy, nginx, envoy) = (Rival(Peer::Haproxy), Rival(Peer::Nginx), Rival(Peer::Envoy));
        match self {
            Self::Http1 => vec![Times(1.2, haproxy), Times(0.87, Floor)],
            Self::Http2 | Self::Grpc => vec![Times(2.5, haproxy)],
            Self::Tcp => vec![Times(0.97, Floor)],
            Self::PairHttp1 => vec![Times(1.7, haproxy), Times(1.0, BytesOnly)],
            Self::PairHttp2 => vec![Times(3.0, haproxy)],
            Self::PairTcp | Self::Download | Self::Upload | Self::Stream => vec![Times(1.0, BestRival)],
            Self::Http1Body10k => vec![Times(1.25, haproxy)],
            Self::PairHttp1Body10k => vec![Times(1.8, haproxy)],
            Self::Tcp64k => vec![Times(1.0, Floor)],
            Self::Connect => vec![Times(1.0, nginx)],
            Self::PairConnect => vec![Times(1.1, nginx)],
            Self::PairTcpConnect => vec![AtMost(Figure::P50Us, 200.0)],
            Self::Handshake | Self::HandshakeResumed => vec![Times(1.0, haproxy), Times(1.0, envoy)],
            Self::Gateway => vec![Extra(0.15)],
            Self::Gateway64k => vec![HopTimesFloor(1.1)],
            Self::Latency | Self::LatencyBusy | Self::PairLatency | Self::PairLatencyBusy => {
                vec![Below(Figure::P50AddedUs), Below(Figure::P99AddedUs)]
            }
            Self::Rest => vec![AtMost(Figure::ResidentMib, 6.0)],
            Self::Idle => vec![AtMost(Figure::KibPerConnection, 1.1)],
            Self::IdleTls => vec![AtMost(Figure::KibPerConnection, 4.0)],
            Self::Growth => vec![AtMost(Figure::GrowthMib, 1.0), AtMost(Figure::Slowdown, 1.05)],
            Self::Pick => vec![AtMost(Figure::PickNs, 200.0), AtMost(Figure::Allocations, 0.0)],
        }
    }

    /// Whether its loads count for the goal of memory under load.
    pub fn is_load(self) -> bool {
        self.shape().kind == Kind::Closed
    }
}

impl Goal {
    /// Compares. `None`: Veer was not measured.
    pub fn judge(self, work: Work, all: &[Contender], median: Median<'_>) -> Option<Verdict> {
        let own = |variant| Contender { peer: Peer::Veer, variant };
        let best = |of: Vec<f64>, cost: bool| of.into_iter().reduce(if cost { f64::min } else { f64::max });
        let among = |figure, is_meant: &dyn Fn(Contender) -> bool| -> Vec<f64> {
            all.iter().filter(|c| is_meant(**c)).filter_map(|c| median(*c, figure)).collect()
        };
        match self {
            Self::Times(times, whom) => {
                let figure = work.main_figure();
                let mine = median(own(Variant::Plain), figure)?;
                let other = best(among(figure, &|contender| whom.is(contender)), figure.is_cost());
                let ratio = other.map(|other| if figure.is_cost() { other / mine } else { mine / other });
                Some(Verdict {
                    goal: format!("≥ {times} × {}", whom.title()),
                    measured: ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.2} ×")),
                    met: ratio.map(|ratio| ratio >= times),
                })
            }
            Self::AtMost(figure, limit) => {
                let mine = median(own(Variant::Plain), figure)?;
                let text = |value| format!("{} {}", figure.text(value), figure.title());
                Some(Verdict {
                    goal: format!("≤ {limit} {}", figure.title()),
                    measured: text(mine),
                    met: Some(mine <= limit),
                })
            }
            Self::Below(figure) => {
                let mine = median(own(Variant::Plain), figure)?;
                let other = best(among(figure, &Contender::is_rival), true);
                let text = |value| figure.text(value);
                Some(Verdict {
                    goal: format!("{} below every peer", figure.title()),
                    measured: format!("{}, best peer {}", text(mine), other.map_or("–".to_owned(), text)),
                    met: other.map(|other| mine < other),
                })
            }
            Self::Extra(limit) => {
                let (with, without) =
                    (median(own(Variant::Hop), Figure::CpuUs)?, median(own(Variant::Plain), Figure::CpuUs)?);
                let extra = with / without - 1.0;
                Some(Verdict {
                    goal: format!("≤ {:.0} % more CPU than without", 100.0 * limit),
                    measured: format!("{:+.0} %", 100.0 * extra),
                    met: Some(extra <= limit),
                })
            }
            Self::HopTimesFloor(limit) => {
                let mine = median(own(Variant::Hop), Figure::HopCpuUs)?;
                let floor = median(Contender { peer: Peer::Floor, variant: Variant::Hop }, Figure::HopCpuUs);
                Some(Verdict {
                    goal: format!("relay ≤ {limit} × the floor's, which splices"),
                    measured: floor.map_or("–".to_owned(), |floor| format!("{:.2} ×", mine / floor)),
                    met: floor.map(|floor| mine <= limit * floor),
                })
            }
        }
    }
}

impl Whom {
    fn is(self, contender: Contender) -> bool {
        match self {
            Self::Rival(peer) => contender.peer == peer && contender.is_rival(),
            Self::BestRival => contender.is_rival(),
            Self::BytesOnly => contender.variant == Variant::Bytes,
            Self::Floor => contender == Contender { peer: Peer::Floor, variant: Variant::Plain },
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Rival(peer) => peer.title(),
            Self::BestRival => "the best peer",
            Self::BytesOnly => "the best pair that only relays bytes",
            Self::Floor => "floor",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn plain(peer: Peer) -> Contender {
        Contender { peer, variant: Variant::Plain }
    }

    fn judge(goal: Goal, work: Work, figures: &[(Contender, Figure, f64)]) -> Verdict {
        let all: Vec<Contender> = figures.iter().map(|(contender, ..)| *contender).collect();
        let median = |contender, figure| {
            figures.iter().find(|(c, f, _)| (*c, *f) == (contender, figure)).map(|(.., value)| *value)
        };
        goal.judge(work, &all, &median).unwrap()
    }

    #[test]
    fn a_rival_counts_with_its_best_way_and_not_with_half_of_the_work() {
        let figure = Figure::PerCpuSecond;
        let way = |variant| Contender { peer: Peer::Haproxy, variant };
        let figures = [
            (plain(Peer::Veer), figure, 170.0),
            (way(Variant::Plain), figure, 50.0),
            (way(Variant::Http2Hop), figure, 100.0),
            (way(Variant::Bytes), figure, 1000.0),
        ];
        let goal = Goal::Times(1.7, Whom::Rival(Peer::Haproxy));
        let verdict = judge(goal, Work::PairHttp1, &figures);
        assert_eq!((verdict.measured.as_str(), verdict.met), ("1.70 ×", Some(true)));
        assert_eq!(judge(Goal::Times(1.0, Whom::BytesOnly), Work::PairHttp1, &figures).met, Some(false));
        assert_eq!(judge(Goal::Times(1.0, Whom::Floor), Work::PairHttp1, &figures).met, None);
    }

    #[test]
    fn of_costs_the_least_is_the_best() {
        let figures = [
            (plain(Peer::Veer), Figure::P50AddedUs, 100.0),
            (plain(Peer::Haproxy), Figure::P50AddedUs, 90.0),
            (plain(Peer::Nginx), Figure::P50AddedUs, 120.0),
        ];
        assert_eq!(judge(Goal::Below(Figure::P50AddedUs), Work::Latency, &figures).met, Some(false));
        let ratio = judge(Goal::Times(1.0, Whom::BestRival), Work::Latency, &figures);
        assert_eq!(ratio.measured, "0.90 ×");
    }

    #[test]
    fn the_relay_is_compared_with_the_pair_without_it() {
        let own = |variant| Contender { peer: Peer::Veer, variant };
        let figures = [(own(Variant::Plain), Figure::CpuUs, 100.0), (own(Variant::Hop), Figure::CpuUs, 112.0)];
        let verdict = judge(Goal::Extra(0.15), Work::Gateway, &figures);
        assert_eq!((verdict.measured.as_str(), verdict.met), ("+12 %", Some(true)));
    }
}
