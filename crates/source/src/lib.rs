//! Where objects come from: folders of manifests.
//!
//! [`watch`] reads every `*.yaml`, `*.yml` and `*.json` below its folders (names that begin with a dot are skipped), looks
//! again every [`POLL`], and publishes one immutable [`Snapshot`] after each change. A look costs a `stat` per file; only
//! what changed is read.
//!
//! # What counts as a statement, and what is silence
//!
//! | what is found | what it means |
//! |---|---|
//! | a file is gone, its folder can be read and holds other manifests | its objects are deleted, at the second look |
//! | a file that parses lacks an object that it had | the object is deleted, at the second look |
//! | a file has an error | its objects stay as they were when it last had none (`V0204`) |
//! | a file cannot be read, or has no bytes | its objects stay (`V0203`, `V0204`) |
//! | a folder cannot be read, is gone, or holds no manifest | everything of it stays; [`SourceState::Stale`] (`V0201`, `V0202`) |
//! | more than half of the intent is deleted within two seconds, and at least three objects | they are held (`V0205`) |
//!
//! The *second look* is [`POLL`] later: editors that write in place or move the old file away first leave a gap in which an
//! object seems to be deleted. *Intent* is what [`Object::is_intent`] says: routes, exports, imports, grants, links,
//! policies. Workloads, Services and EndpointSlices come and go by themselves.
//!
//! Held objects stay in force until they return, or until someone confirms the loss: [`Confirm::confirm`] (`veer confirm`),
//! or a file named [`CONFIRM_FILE`] in one of the folders that was made or touched after the loss (`touch .veer-confirm`).
//! The file is never removed and confirms nothing that is lost later.

mod file;
mod folder;
mod hold;
mod scan;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use veer_core::ObjectName;
use veer_resources::{Diagnostic, KindName, Object};

pub use folder::FolderSource;

/// Time between two looks: an edit takes effect well under a second, and a thousand files cost about a millisecond.
pub const POLL: Duration = Duration::from_millis(200);
/// Name of the file that confirms a loss.
pub const CONFIRM_FILE: &str = ".veer-confirm";

/// All that a source knows at one time. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The objects in force, without duplicates.
    pub objects: Arc<[Object]>,
    /// What is wrong with the manifests and with the folders. References between objects are not followed here: whoever
    /// compiles the objects knows what peers offer, too.
    pub diagnostics: Arc<[Diagnostic]>,
    /// Grows with every snapshot of a source.
    pub generation: u64,
    /// How far [`Self::objects`] can be believed.
    pub state: SourceState,
    /// Objects that are in force although they seem to be deleted.
    pub held: Option<Arc<MassLoss>>,
}

impl Snapshot {
    /// Whether all folders were read completely at least once: only then is the absence of an object a statement.
    pub fn is_known(&self) -> bool {
        self.state != SourceState::Starting
    }
}

/// How far the objects of a snapshot can be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceState {
    /// Not every folder was read completely yet: what is missing is unknown.
    Starting,
    /// The objects are what the folders say.
    Synced,
    /// A folder is silent: its objects are what it said last.
    Stale {
        /// The folder.
        folder: Arc<str>,
        /// In which way.
        silence: Silence,
        /// Since when.
        since: Instant,
    },
}

/// In which way a folder is silent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Silence {
    /// It cannot be read, for this reason.
    Unreadable(String),
    /// It holds no manifest.
    Empty,
    /// It is not there.
    Vanished,
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Silence::Unreadable(reason) => write!(f, "cannot be read: {reason}"),
            Silence::Empty => f.write_str("holds no manifest"),
            Silence::Vanished => f.write_str("is not there"),
        }
    }
}

/// Intent that was deleted all at once and is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MassLoss {
    /// What is held, in order.
    pub objects: Vec<(KindName, ObjectName)>,
    /// Number of intent objects before the loss.
    pub of: usize,
    /// Since when.
    pub since: Instant,
}

/// Lets go what is held.
#[derive(Debug, Clone, Default)]
pub struct Confirm(Arc<AtomicBool>);

impl Confirm {
    /// Confirms the loss that is held now; takes effect at the next look. Confirms nothing when nothing is held.
    pub fn confirm(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}

/// Watches folders until the last receiver is dropped. The first look is already in the receiver.
///
/// # Panics
/// Outside of a Tokio runtime.
pub fn watch(folders: Vec<PathBuf>) -> watch::Receiver<Snapshot> {
    FolderSource::new(folders).watch().0
}

impl FolderSource {
    /// Watches until the last receiver is dropped. The first look is already in the receiver.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn watch(mut self) -> (watch::Receiver<Snapshot>, Confirm) {
        self.poll();
        let confirm = self.confirm();
        let (to, snapshots) = watch::channel(self.snapshot());
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval_at(Instant::now() + POLL, POLL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    biased;
                    _ = ticks.tick() => {}
                    () = to.closed() => break,
                }
                // Small files on a local disk: a thread for each look would cost more than the look.
                if self.poll() {
                    to.send_replace(self.snapshot());
                }
            }
        });
        (snapshots, confirm)
    }
}
