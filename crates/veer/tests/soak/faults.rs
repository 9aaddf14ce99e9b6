//! What goes wrong: each fault knows how to mend itself.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use veer_testkit::Line;

use crate::ledger::Mood;
use crate::world::{CLUSTERS, REGIONS, World};

/// One fault, not yet there.
#[derive(Debug, Clone)]
pub enum Fault {
    /// SIGKILL to a process, which its supervisor starts again.
    Crash { cluster: &'static str, process: String },
    /// SIGKILL to every process of a region.
    Killed { cluster: &'static str },
    /// No packet to or from a cluster.
    Cut { cluster: &'static str },
    /// Packets take long, overtake each other and get lost.
    BadLine { cluster: &'static str, line: Line },
    /// A copy of the application misbehaves.
    Copy { index: usize, mood: Mood },
    /// No byte is left on the disk.
    FullDisk,
    /// A process can open nothing more.
    NoDescriptors { cluster: &'static str, process: String },
    /// A cluster's clock jumps, and jumps back.
    Clock { cluster: &'static str, off: i64 },
}

impl Fault {
    /// One by chance; every kind is as likely.
    ///
    /// # Errors
    /// When it is not known what runs.
    pub fn any(world: &World, rng: &mut fastrand::Rng) -> anyhow::Result<Self> {
        let cluster = CLUSTERS[rng.usize(..CLUSTERS.len())];
        let region = REGIONS[rng.usize(..REGIONS.len())];
        let milliseconds = |rng: &mut fastrand::Rng, range| Duration::from_millis(rng.u64(range));
        Ok(match rng.u8(..8) {
            0 => Self::Crash { cluster, process: process(world, cluster, rng)? },
            1 => Self::Killed { cluster: region },
            2 => Self::Cut { cluster: region },
            3 => {
                let (delay, jitter) = (milliseconds(rng, 10..150), milliseconds(rng, 0..50));
                Self::BadLine { cluster, line: Line { delay, jitter, loss: rng.f64() * 0.05 } }
            }
            4 => {
                let moods = [Mood::Slow(milliseconds(rng, 100..1500)), Mood::Failing, Mood::Silent, Mood::Down];
                Self::Copy { index: rng.usize(..world.copies.len()), mood: moods[rng.usize(..moods.len())] }
            }
            5 => Self::FullDisk,
            6 => Self::NoDescriptors { cluster, process: process(world, cluster, rng)? },
            _ => Self::Clock { cluster, off: rng.i64(-900..900) },
        })
    }

    /// Whether nobody could be served while both are there: then there is nothing to learn.
    pub fn leaves_nobody(&self, other: &Self) -> bool {
        matches!((self.lost_region(), other.lost_region()), (Some(one), Some(two)) if one != two)
    }

    fn lost_region(&self) -> Option<&'static str> {
        match self {
            Self::Killed { cluster } | Self::Cut { cluster } => Some(cluster),
            _ => None,
        }
    }

    /// Lets it happen; what mends it.
    ///
    /// # Errors
    /// When it cannot be brought about.
    pub fn strike(&self, world: &World) -> anyhow::Result<Mend> {
        Ok(match self {
            Self::Crash { cluster, process } => {
                world.fleet.crash(cluster, process)?;
                Box::new(|_| Ok(()))
            }
            Self::Killed { cluster } => {
                let cluster = *cluster;
                world.fleet.kill(cluster)?;
                Box::new(move |world| world.fleet.revive(cluster))
            }
            Self::Cut { cluster } => bad_line(world, cluster, Line { loss: 1.0, ..Line::default() })?,
            Self::BadLine { cluster, line } => bad_line(world, cluster, *line)?,
            Self::Copy { index, mood } => {
                let copy = Arc::clone(&world.copies[*index]);
                copy.mood.send_replace(*mood);
                Box::new(move |_| {
                    copy.mood.send_replace(Mood::Fine);
                    Ok(())
                })
            }
            Self::FullDisk => {
                world.disk.fill()?;
                Box::new(|world| world.disk.clear())
            }
            Self::NoDescriptors { cluster, process } => {
                let pid = *world.fleet.processes(cluster)?.get(process).context("it runs no more")?;
                let open = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64;
                let pid = Pid::from_raw(pid.cast_signed()).context("process id 0")?;
                let maximum = getrlimit(Resource::Nofile).maximum;
                let former = prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(open), maximum })?;
                // It may be another's victim meanwhile; there is nothing to mend then.
                Box::new(move |_| {
                    let _ = prlimit(Some(pid), Resource::Nofile, former);
                    Ok(())
                })
            }
            Self::Clock { cluster, off } => {
                let cluster = *cluster;
                world.clock(cluster, *off)?;
                Box::new(move |world| world.clock(cluster, 0))
            }
        })
    }
}

/// Takes a fault back.
pub type Mend = Box<dyn FnOnce(&World) -> anyhow::Result<()>>;

fn bad_line(world: &World, cluster: &'static str, line: Line) -> anyhow::Result<Mend> {
    world.wire.line(cluster, line)?;
    Ok(Box::new(move |world| world.wire.line(cluster, Line::default())))
}

/// Any process of a cluster but its supervisor.
fn process(world: &World, cluster: &str, rng: &mut fastrand::Rng) -> anyhow::Result<String> {
    let mut names: Vec<String> = world.fleet.processes(cluster)?.into_keys().filter(|name| name != "cluster").collect();
    names.sort();
    anyhow::ensure!(!names.is_empty(), "{cluster} runs nothing");
    Ok(names.swap_remove(rng.usize(..names.len())))
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crash { cluster, process } => write!(f, "kill -9 {cluster}/{process}"),
            Self::Killed { cluster } => write!(f, "kill -9 {cluster}"),
            Self::Cut { cluster } => write!(f, "{cluster} is cut off"),
            Self::BadLine { cluster, line } => write!(f, "{cluster} has a bad line: {line:?}"),
            Self::Copy { index, mood } => write!(f, "copy {index} is {mood:?}"),
            Self::FullDisk => f.write_str("the disk is full"),
            Self::NoDescriptors { cluster, process } => write!(f, "{cluster}/{process} has no descriptors left"),
            Self::Clock { cluster, off } => write!(f, "{cluster}'s clock is {off:+} s off"),
        }
    }
}
