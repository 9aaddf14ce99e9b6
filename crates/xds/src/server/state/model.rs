//! A client in a few lines against the real state: whatever happened, once everything was said both know the same.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use bytes::Bytes;
use tokio::sync::watch;
use veer_core::{SpiffeId, TrustDomain};

use super::*;

const THING: &str = "veer.dev/v1.Service";

#[derive(Default)]
struct Versions(RefCell<BTreeMap<String, u32>>);

impl Source for Versions {
    fn get(&self, _: &Subscriber, _: &str, name: &str) -> Option<(String, Bytes)> {
        // Bodies are large enough that a change of several is cut into several responses.
        self.0.borrow().get(name).map(|version| (version.to_string(), Bytes::from(vec![b' '; 400])))
    }

    fn list(&self, _: &Subscriber, _: &str) -> Vec<String> {
        self.0.borrow().keys().cloned().collect()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        watch::Sender::new(1).subscribe()
    }
}

/// A client that may be slow to hear, refuses at random, and loses its connection.
struct Model {
    server: StreamState,
    wanted: BTreeSet<String>,
    wildcard: bool,
    /// Versions; `None` is a stated absence.
    known: BTreeMap<String, Option<String>>,
    refused: BTreeSet<(String, String)>,
    unheard: VecDeque<DeltaDiscoveryResponse>,
}

impl Model {
    fn stream() -> StreamState {
        let id = SpiffeId::new(TrustDomain::new("west.example").unwrap(), "shop", "web");
        StreamState::new(Subscriber::verified(id), Limits { response_bytes: 1000, ..Limits::default() })
    }

    fn new() -> Self {
        Self {
            server: Self::stream(),
            wanted: BTreeSet::new(),
            wildcard: false,
            known: BTreeMap::new(),
            refused: BTreeSet::new(),
            unheard: VecDeque::new(),
        }
    }

    fn send(&mut self, request: DeltaDiscoveryRequest) {
        self.server.take(DeltaDiscoveryRequest { type_url: THING.into(), ..request }, |_| true);
    }

    fn subscribe(&mut self, name: &str) {
        if name == WILDCARD {
            self.wildcard = true;
        } else {
            self.wanted.insert(name.to_owned());
        }
        self.send(DeltaDiscoveryRequest { resource_names_subscribe: vec![name.to_owned()], ..Default::default() });
    }

    fn unsubscribe(&mut self, name: &str) {
        if name == WILDCARD {
            self.wildcard = false;
        } else {
            self.wanted.remove(name);
        }
        self.forget_unwanted();
        self.send(DeltaDiscoveryRequest { resource_names_unsubscribe: vec![name.to_owned()], ..Default::default() });
    }

    fn forget_unwanted(&mut self) {
        let (wanted, wildcard) = (&self.wanted, self.wildcard);
        self.known.retain(|name, known| wanted.contains(name) || (wildcard && known.is_some()));
    }

    fn reconnect(&mut self) {
        self.server = Self::stream();
        self.unheard.clear();
        self.refused.clear();
        let mut names: Vec<String> = self.wanted.iter().cloned().collect();
        if self.wildcard {
            names.push(WILDCARD.into());
        }
        let versions = self.known.iter().filter_map(|(name, version)| Some((name.clone(), version.clone()?)));
        let initial_resource_versions = versions.collect::<HashMap<_, _>>();
        self.send(DeltaDiscoveryRequest {
            resource_names_subscribe: names,
            initial_resource_versions,
            ..Default::default()
        });
    }

    /// The server says one thing, if it has any.
    fn speak(&mut self, source: &Versions) -> bool {
        while self.server.has_work() {
            if let Some(response) = self.server.next_response(source, 1) {
                self.unheard.push_back(response);
                assert_eq!(self.unheard.len(), 1, "one response of a type at a time");
                return true;
            }
        }
        false
    }

    /// The client hears one response and answers it.
    fn hear(&mut self, refuses: bool) -> bool {
        let Some(response) = self.unheard.pop_front() else { return false };
        let mut error_detail = None;
        for resource in response.resources {
            if refuses {
                error_detail = Some(ProtoStatus { code: 3, message: resource.name.clone() });
                self.refused.insert((resource.name, resource.version));
            } else {
                self.known.insert(resource.name, Some(resource.version));
            }
        }
        for name in response.removed_resources {
            self.known.insert(name, None);
        }
        self.forget_unwanted();
        self.send(DeltaDiscoveryRequest { response_nonce: response.nonce, error_detail, ..Default::default() });
        true
    }

    fn settle_and_compare(&mut self, source: &Versions) {
        while self.hear(false) || self.speak(source) {}
        assert!(self.server.is_settled());
        let versions = source.0.borrow();
        let listed = versions.keys().filter(|_| self.wildcard);
        for name in self.wanted.iter().chain(listed) {
            let truth = versions.get(name).map(u32::to_string);
            let refused = truth.clone().is_some_and(|version| self.refused.contains(&(name.clone(), version)));
            assert!(
                refused || self.known.get(name) == Some(&truth),
                "{name}: {:?}, is {truth:?}",
                self.known.get(name)
            );
        }
        for (name, known) in &self.known {
            assert!(known.is_none() || versions.contains_key(name), "{name} is no more");
        }
    }
}

#[test]
fn whatever_happened_both_sides_agree_in_the_end() {
    for seed in 0..400 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (source, mut model) = (Versions::default(), Model::new());
        for _ in 0..rng.usize(1..200) {
            let name = format!("n{}", rng.u8(0..8));
            match rng.u8(0..20) {
                0..4 => model.subscribe(&name),
                4..6 => model.unsubscribe(&name),
                6 => model.subscribe(WILDCARD),
                7 => model.unsubscribe(WILDCARD),
                8..12 => {
                    *source.0.borrow_mut().entry(name).or_default() += 1;
                    model.server.everything_may_have_changed();
                }
                12 => {
                    source.0.borrow_mut().remove(&name);
                    model.server.everything_may_have_changed();
                }
                13 => model.reconnect(),
                14..17 => _ = model.unheard.is_empty() && model.speak(&source),
                17 => _ = model.hear(true),
                _ => _ = model.hear(false),
            }
        }
        model.settle_and_compare(&source);
    }
}
