//! What one stream has subscribed to, what it was sent, and what is due. No I/O.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{Limits, Source, Subscriber};
use crate::TYPE_ORDER;
use crate::proto::{
    Any, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource, ResourceError, ResourceName, Status as ProtoStatus,
};

/// Subscribes to everything that [`Source::list`] gives.
pub(crate) const WILDCARD: &str = "*";

/// Types one stream may ask about. More than exist, few enough that asking about nonsense costs nothing.
const MAX_TYPES: usize = 64;
/// Longest name: a host or `namespace/name` is shorter.
const MAX_NAME: usize = 1024;
/// What is kept of a refusal's text.
const MAX_REASON: usize = 4096;

/// The state of one stream.
pub(super) struct StreamState {
    /// Who reads it.
    pub who: Subscriber,
    limits: Limits,
    /// In the order in which a change is sent.
    types: Vec<TypeState>,
    names: usize,
    responses: u64,
}

/// What a request amounted to.
#[derive(Default)]
pub(super) struct Asked {
    /// The response that it acknowledged or refused.
    pub acknowledged: Option<Acknowledged>,
    /// Names over a bound.
    pub refused_names: usize,
    /// A type that is not served was asked for.
    pub unknown_type: bool,
}

/// An answered response.
pub(super) struct Acknowledged {
    pub type_url: String,
    pub generation: u64,
    pub refusal: Option<String>,
}

struct TypeState {
    type_url: String,
    served: bool,
    /// Subscribed by name.
    names: HashSet<String>,
    wildcard: bool,
    /// What the client holds, as far as it said or was told. A refused version stays here, so that it is not sent again.
    held: HashMap<String, Held>,
    due: Due,
    /// Names to be refused in the next response, with the reason.
    errors: Vec<(String, &'static str)>,
    /// A first answer is owed even when it is empty: it tells a resuming client that nothing has changed.
    owes_answer: bool,
    in_flight: Option<InFlight>,
}

#[derive(PartialEq)]
enum Held {
    Absent,
    Version(String),
    /// Something, to be sent again.
    Something,
}

struct InFlight {
    nonce: String,
    generation: u64,
    /// What it carries.
    names: Vec<String>,
}

/// Which names to compare with the source.
enum Due {
    Names(BTreeSet<String>),
    All,
}

impl Due {
    fn nothing() -> Self {
        Due::Names(BTreeSet::new())
    }

    fn is_nothing(&self) -> bool {
        matches!(self, Due::Names(names) if names.is_empty())
    }
}

impl StreamState {
    pub(super) fn new(who: Subscriber, limits: Limits) -> Self {
        Self { who, limits, types: Vec::new(), names: 0, responses: 0 }
    }

    /// Takes a request in.
    pub(super) fn take(&mut self, request: DeltaDiscoveryRequest, serves: impl Fn(&str) -> bool) -> Asked {
        let mut asked = Asked::default();
        let Some(index) = self.index_of(&request.type_url, &serves) else {
            asked.refused_names = request.resource_names_subscribe.len();
            return asked;
        };
        let budget = self.limits.subscriptions.saturating_sub(self.names);
        let state = &mut self.types[index];
        self.names -= state.names.len();

        let answers = |flight: &InFlight| !request.response_nonce.is_empty() && flight.nonce == request.response_nonce;
        if let Some(flight) = state.in_flight.take_if(|flight| answers(flight)) {
            let refusal = request.error_detail.map(|status| status.message.chars().take(MAX_REASON).collect());
            asked.acknowledged =
                Some(Acknowledged { type_url: state.type_url.clone(), generation: flight.generation, refusal });
        }
        // Giving back goes first: one request may do both, and then the subscription is what is wanted.
        for name in &request.resource_names_unsubscribe {
            state.unsubscribe(name);
        }
        if !request.resource_names_subscribe.is_empty() && !state.served {
            asked.unknown_type = true;
            state.owes_answer = true;
        }
        let mut versions = request.initial_resource_versions;
        asked.refused_names += state.subscribe(request.resource_names_subscribe, &mut versions, budget);
        self.names += state.names.len();
        asked
    }

    /// After a change of the source every name may have another version.
    pub(super) fn everything_may_have_changed(&mut self) {
        for state in &mut self.types {
            if state.served && (state.wildcard || !state.names.is_empty()) {
                state.due = Due::All;
            }
        }
    }

    /// Whether [`Self::next_response`] may have something to say.
    pub(super) fn has_work(&self) -> bool {
        self.sendable().is_some()
    }

    /// Whether nothing is due and nothing unacknowledged.
    pub(super) fn is_settled(&self) -> bool {
        self.types.iter().all(|state| !state.is_due() && state.in_flight.is_none())
    }

    /// The first type in order that has something due. One that still waits for an acknowledgement holds those after it back:
    /// they may refer to what it is about to say.
    fn sendable(&self) -> Option<usize> {
        let (index, state) = self.types.iter().enumerate().find(|(_, state)| state.is_due())?;
        state.in_flight.is_none().then_some(index)
    }

    /// The next response, if there is anything to say. Looks at one type; the caller asks again while there is work.
    pub(super) fn next_response(&mut self, source: &dyn Source, generation: u64) -> Option<DeltaDiscoveryResponse> {
        let index = self.sendable()?;
        let state = &mut self.types[index];
        let mut response = state.collect(source, &self.who, self.limits.response_bytes);
        let says_nothing = response.resources.is_empty()
            && response.removed_resources.is_empty()
            && response.resource_errors.is_empty();
        if says_nothing && !state.owes_answer {
            return None;
        }
        state.owes_answer = false;
        self.responses += 1;
        response.nonce = self.responses.to_string();
        response.system_version_info = generation.to_string();
        let names = response.resources.iter().map(|resource| resource.name.clone()).collect();
        state.in_flight = Some(InFlight { nonce: response.nonce.clone(), generation, names });
        Some(response)
    }

    fn index_of(&mut self, type_url: &str, serves: &impl Fn(&str) -> bool) -> Option<usize> {
        if let Some(index) = self.types.iter().position(|state| state.type_url == type_url) {
            return Some(index);
        }
        if self.types.len() == MAX_TYPES || type_url.len() > MAX_NAME {
            return None;
        }
        let rank = |type_url: &str| TYPE_ORDER.iter().position(|known| *known == type_url).unwrap_or(TYPE_ORDER.len());
        let index = self.types.partition_point(|state| rank(&state.type_url) <= rank(type_url));
        self.types.insert(index, TypeState::new(type_url, serves(type_url)));
        Some(index)
    }
}

impl TypeState {
    fn new(type_url: &str, served: bool) -> Self {
        Self {
            type_url: type_url.to_owned(),
            served,
            names: HashSet::new(),
            wildcard: false,
            held: HashMap::new(),
            due: Due::nothing(),
            errors: Vec::new(),
            owes_answer: true,
            in_flight: None,
        }
    }

    fn is_due(&self) -> bool {
        let subscribed = self.wildcard || !self.names.is_empty() || !self.errors.is_empty() || !self.served;
        !self.due.is_nothing() || !self.errors.is_empty() || (self.owes_answer && subscribed)
    }

    fn unsubscribe(&mut self, name: &str) {
        if name == WILDCARD {
            self.wildcard = false;
            let names = &self.names;
            self.held.retain(|held, _| names.contains(held));
            if let Due::Names(due) = &mut self.due {
                due.retain(|due| names.contains(due));
            }
            return;
        }
        self.names.remove(name);
        // What the wildcard covers stays due and held.
        if !self.wildcard {
            self.held.remove(name);
            if let Due::Names(due) = &mut self.due {
                due.remove(name);
            }
        }
    }

    /// Adds names with the versions that the client says it has; returns how many were refused.
    fn subscribe(&mut self, names: Vec<String>, versions: &mut HashMap<String, String>, budget: usize) -> usize {
        /// One response tells of so many refusals; the rest is only counted.
        const ERRORS: usize = 16;
        let mut refused = 0;
        let limit = self.names.len().saturating_add(budget);
        for name in names {
            if !self.served {
                if self.errors.len() < ERRORS && name.len() <= MAX_NAME {
                    self.errors.push((name, "resources of this type are not served here"));
                }
                continue;
            }
            if name == WILDCARD {
                if !self.wildcard {
                    // Once, so that what a client claims to have cannot grow from request to request.
                    self.held.extend(versions.drain().map(|(name, version)| (name, Held::Version(version))));
                }
                // What is on its way when everything is asked for will be held, whatever it was sent for.
                for name in self.in_flight.iter().flat_map(|flight| &flight.names) {
                    self.held.entry(name.clone()).or_insert(Held::Something);
                }
                self.wildcard = true;
                self.owes_answer = true;
                self.due = Due::All;
                continue;
            }
            let full = self.names.len() >= limit && !self.names.contains(&name);
            if full || name.len() > MAX_NAME || name.is_empty() {
                refused += 1;
                if self.errors.len() < ERRORS && name.len() <= MAX_NAME {
                    self.errors.push((name, "too many subscriptions on this stream, or not a name"));
                }
                continue;
            }
            // A name subscribed to anew is answered anew, unless the client says what it has.
            match versions.remove(&name) {
                Some(version) => self.held.insert(name.clone(), Held::Version(version)),
                // Not forgotten: were the name given back before it is sent, a wildcard must still be able to take it away.
                None => {
                    self.held.contains_key(&name).then(|| self.held.insert(name.clone(), Held::Something)).flatten()
                }
            };
            if let Due::Names(due) = &mut self.due {
                due.insert(name.clone());
            }
            self.names.insert(name);
        }
        refused
    }

    /// Compares what is due with the source, up to a response's size; what is left stays due.
    fn collect(&mut self, source: &dyn Source, who: &Subscriber, max_bytes: usize) -> DeltaDiscoveryResponse {
        let mut response = DeltaDiscoveryResponse { type_url: self.type_url.clone(), ..Default::default() };
        response.resource_errors = self.errors.drain(..).map(|(name, reason)| resource_error(name, reason)).collect();
        if !self.served {
            return response;
        }
        let mut due = match std::mem::replace(&mut self.due, Due::nothing()) {
            Due::Names(names) => names,
            Due::All => self.everything(source, who),
        };
        let mut bytes = 0;
        while let Some(name) = due.pop_first() {
            match source.get(who, &self.type_url, &name) {
                Some((version, body)) => {
                    if matches!(self.held.get(&name), Some(Held::Version(held)) if *held == version) {
                        continue;
                    }
                    bytes += body.len() + name.len() + version.len();
                    self.held.insert(name.clone(), Held::Version(version.clone()));
                    let any = Any { type_url: self.type_url.clone(), value: body };
                    response.resources.push(Resource { version, resource: Some(any), name });
                }
                None => {
                    if self.held.get(&name) == Some(&Held::Absent) || !source.knows(who, &self.type_url, &name) {
                        continue;
                    }
                    bytes += name.len();
                    if self.names.contains(&name) {
                        self.held.insert(name.clone(), Held::Absent);
                    } else {
                        self.held.remove(&name);
                    }
                    response.removed_resources.push(name);
                }
            }
            if bytes >= max_bytes {
                break;
            }
        }
        response.more = !due.is_empty();
        self.due = Due::Names(due);
        response
    }

    /// Every name that the client should have, and those it has and should not.
    fn everything(&self, source: &dyn Source, who: &Subscriber) -> BTreeSet<String> {
        let mut all: BTreeSet<String> = self.names.iter().cloned().collect();
        if self.wildcard {
            all.extend(source.list(who, &self.type_url));
            all.extend(self.held.keys().cloned());
        }
        all
    }
}

fn resource_error(name: String, reason: &str) -> ResourceError {
    let status = ProtoStatus { code: tonic::Code::Unimplemented as i32, message: reason.to_owned() };
    ResourceError { resource_name: Some(ResourceName { name }), error_detail: Some(status) }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
