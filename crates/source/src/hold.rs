//! Mass loss of intent: held until someone confirms.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use veer_core::ObjectName;
use veer_resources::{KindName, Object};

use crate::MassLoss;

/// Losses within this time count as one: whoever empties a folder does so file by file.
const AT_ONCE: Duration = Duration::from_secs(2);
/// Fewer objects are lost by an everyday edit.
const LEAST: usize = 3;

type Key = (KindName, ObjectName);

/// Compares the intent in force with what the manifests say now.
#[derive(Debug, Default)]
pub(crate) struct Hold {
    /// Intent that the manifests said at the last look.
    said: BTreeMap<Key, Object>,
    /// Lost a short time ago, and believed to be deleted so far.
    recent: Vec<(Instant, Object)>,
    held: BTreeMap<Key, Object>,
    loss: Option<Arc<MassLoss>>,
}

impl Hold {
    /// Takes what the manifests say now and gives what is held beside it.
    pub(crate) fn take(&mut self, objects: &[Object], now: Instant) -> impl Iterator<Item = &Object> {
        let intent = objects.iter().filter(|object| object.is_intent());
        let said: BTreeMap<Key, Object> = intent.map(|object| (object.key(), object.clone())).collect();
        self.recent.retain(|(at, object)| now - *at < AT_ONCE && !said.contains_key(&object.key()));
        let before = std::mem::take(&mut self.said);
        let lost = before.into_iter().filter(|(key, _)| !said.contains_key(key));
        self.recent.extend(lost.map(|(_, object)| (now, object)));
        self.held.retain(|key, _| !said.contains_key(key));
        let (lost, of) = (self.recent.len(), self.recent.len() + said.len());
        let mut of = of + self.held.len();
        if lost >= LEAST && 2 * lost > of {
            self.held.extend(self.recent.drain(..).map(|(_, object)| (object.key(), object)));
        } else if let Some(loss) = &self.loss {
            of = loss.of;
        }
        self.said = said;
        self.tell(of, now);
        self.held.values()
    }

    /// Lets go what is held; says whether anything was.
    pub(crate) fn release(&mut self) -> bool {
        self.held.clear();
        self.loss.take().is_some()
    }

    /// What is held, for snapshots.
    pub(crate) fn loss(&self) -> Option<Arc<MassLoss>> {
        self.loss.clone()
    }

    fn tell(&mut self, of: usize, now: Instant) {
        let known: HashSet<&Key> = self.loss.iter().flat_map(|loss| &loss.objects).collect();
        if known.len() == self.held.len() && self.held.keys().all(|key| known.contains(key)) {
            return;
        }
        let since = self.loss.as_ref().map_or(now, |loss| loss.since);
        let objects: Vec<Key> = self.held.keys().cloned().collect();
        self.loss = (!objects.is_empty()).then(|| Arc::new(MassLoss { objects, of, since }));
    }
}
