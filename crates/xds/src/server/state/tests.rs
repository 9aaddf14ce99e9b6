use std::cell::RefCell;

use bytes::Bytes;
use tokio::sync::watch;
use veer_core::{SpiffeId, TrustDomain};

use super::*;

const THING: &str = "veer.dev/v1.Service";
const PART: &str = "veer.dev/v1.Endpoints";

/// Every name of every type has the same body.
struct Same(RefCell<&'static str>);

impl Source for Same {
    fn get(&self, _: &Subscriber, _: &str, name: &str) -> Option<(String, Bytes)> {
        let body = *self.0.borrow();
        (!name.starts_with("no")).then(|| (body.to_owned(), Bytes::from_static(body.as_bytes())))
    }

    fn list(&self, _: &Subscriber, _: &str) -> Vec<String> {
        vec!["a".into(), "b".into(), "c".into()]
    }

    fn changes(&self) -> watch::Receiver<u64> {
        watch::Sender::new(1).subscribe()
    }
}

struct Talk {
    state: StreamState,
    source: Same,
}

impl Talk {
    fn new() -> Self {
        let id = SpiffeId::new(TrustDomain::new("west.example").unwrap(), "shop", "web");
        Self { state: StreamState::new(Subscriber::verified(id), Limits::default()), source: Same(RefCell::new("1")) }
    }

    fn ask(&mut self, request: DeltaDiscoveryRequest) -> Asked {
        self.state.take(request, |url| TYPE_ORDER.contains(&url))
    }

    fn subscribe(&mut self, type_url: &str, names: &[&str]) {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        self.ask(DeltaDiscoveryRequest {
            type_url: type_url.into(),
            resource_names_subscribe: names,
            ..Default::default()
        });
    }

    fn ack(&mut self, response: &DeltaDiscoveryResponse, refusal: Option<&str>) -> Asked {
        self.ask(DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: refusal.map(|text| ProtoStatus { code: 3, message: text.into() }),
            ..Default::default()
        })
    }

    fn change(&mut self, body: &'static str) {
        *self.source.0.borrow_mut() = body;
        self.state.everything_may_have_changed();
    }

    fn hear(&mut self) -> Option<DeltaDiscoveryResponse> {
        while self.state.has_work() {
            if let Some(response) = self.state.next_response(&self.source, 1) {
                return Some(response);
            }
        }
        None
    }
}

fn names(response: &DeltaDiscoveryResponse) -> Vec<&str> {
    response.resources.iter().map(|resource| &*resource.name).collect()
}

#[test]
fn a_reader_who_does_not_acknowledge_gets_one_response_and_then_only_the_last() {
    let mut talk = Talk::new();
    talk.subscribe(THING, &["a", "b"]);
    let first = talk.hear().unwrap();
    assert_eq!(names(&first), ["a", "b"]);
    for body in ["2", "3", "4"] {
        talk.change(body);
        assert!(talk.hear().is_none());
    }
    let wrong = DeltaDiscoveryResponse { nonce: "77".into(), ..first.clone() };
    assert!(talk.ack(&wrong, None).acknowledged.is_none());
    assert!(talk.hear().is_none(), "only its own nonce acknowledges a response");
    assert!(talk.ack(&first, None).acknowledged.is_some());
    let second = talk.hear().unwrap();
    assert_eq!(second.resources.len(), 2);
    assert!(second.resources.iter().all(|resource| resource.version == "4"), "what was between is skipped");
    talk.ack(&second, None);
    assert!(talk.state.is_settled() && talk.hear().is_none());
}

#[test]
fn what_others_refer_to_holds_them_back_until_it_was_taken() {
    let mut talk = Talk::new();
    talk.subscribe(THING, &["a"]);
    talk.subscribe(PART, &["a"]);
    let part = talk.hear().unwrap();
    let thing = talk.hear().unwrap();
    assert_eq!((&*part.type_url, &*thing.type_url), (PART, THING), "in order, whatever was asked first");
    talk.ack(&thing, None);
    talk.change("2");
    assert!(talk.hear().is_none(), "the thing must not overtake the part that is still due");
    talk.ack(&part, None);
    assert_eq!(talk.hear().unwrap().type_url, PART);
    assert_eq!(talk.hear().unwrap().type_url, THING);
}

#[test]
fn a_refusal_is_told_once_and_not_sent_again_before_it_changes() {
    let mut talk = Talk::new();
    talk.subscribe(THING, &["a"]);
    let response = talk.hear().unwrap();
    let refused = talk.ack(&response, Some("a: bad")).acknowledged.unwrap();
    assert_eq!(refused.refusal.as_deref(), Some("a: bad"));
    assert!(talk.ack(&response, Some("a: bad")).acknowledged.is_none());
    talk.state.everything_may_have_changed();
    assert!(talk.hear().is_none());
    talk.change("2");
    assert_eq!(names(&talk.hear().unwrap()), ["a"]);
}

#[test]
fn asking_again_is_answered_again_and_giving_back_ends_it() {
    let mut talk = Talk::new();
    talk.subscribe(THING, &["a", "none"]);
    let first = talk.hear().unwrap();
    assert_eq!((names(&first), &*first.removed_resources), (vec!["a"], &["none".to_owned()][..]));
    talk.ack(&first, None);
    talk.subscribe(THING, &["a"]);
    let again = talk.hear().unwrap();
    assert_eq!(names(&again), ["a"]);
    talk.ack(&again, None);
    talk.ask(DeltaDiscoveryRequest {
        type_url: THING.into(),
        resource_names_unsubscribe: vec!["a".into(), "never-asked".into()],
        ..Default::default()
    });
    talk.change("2");
    assert!(talk.hear().is_none());
}

#[test]
fn a_resumed_wildcard_hears_only_the_difference() {
    let mut talk = Talk::new();
    let claims = [("a", "1"), ("b", "0"), ("no-more", "1")];
    talk.ask(DeltaDiscoveryRequest {
        type_url: THING.into(),
        resource_names_subscribe: vec![WILDCARD.into()],
        initial_resource_versions: claims.map(|(name, version)| (name.to_owned(), version.to_owned())).into(),
        ..Default::default()
    });
    let response = talk.hear().unwrap();
    assert_eq!(names(&response), ["b", "c"]);
    assert_eq!(response.removed_resources, ["no-more"]);
}

#[test]
fn nonsense_types_are_bounded() {
    let mut talk = Talk::new();
    for number in 0..1000 {
        talk.subscribe(&format!("nonsense/{number}"), &["a"]);
    }
    assert_eq!(talk.state.types.len(), MAX_TYPES);
    talk.ask(DeltaDiscoveryRequest { type_url: "x".repeat(1 << 20), ..Default::default() });
    assert_eq!(talk.state.types.len(), MAX_TYPES);
}
