//! Peers are believed for what their Links provide, and nothing else.

use std::sync::Arc;

use veer_compile::PeerView;
use veer_core::gateway::{Lease, PathGateway};
use veer_core::offer::PeerGateways;
use veer_core::{Offer, Reach};

use crate::support::*;

const HOST: &str = "cart.shop.svc.clusterset.local";

fn offering_one(offer: Offer) -> PeerView {
    PeerView { offers: vec![Arc::new(offer)], ..peer("east") }
}

#[test]
fn what_a_peer_may_not_say_is_refused_and_shown() {
    type Change = fn(&mut Offer);
    let cases: [(&str, Change, &str); 7] = [
        ("a service outside provides", |o| o.service = object("bank/cart"), "does not let the peer provide"),
        (
            "our own identity",
            |o| o.endpoints[0].identity = Some("spiffe://west.example/ns/shop/sa/cart".parse().unwrap()),
            "of this very cluster",
        ),
        (
            "a third one's identity",
            |o| o.endpoints[0].identity = Some("spiffe://edge.example/ns/shop/sa/cart".parse().unwrap()),
            "not of the peer's trust domain",
        ),
        (
            "a system identity",
            |o| o.endpoints[0].identity = Some("spiffe://east.example/ns/veer-system/sa/gateway".parse().unwrap()),
            "reserved",
        ),
        ("no identity", |o| o.endpoints[0].identity = None, "has no identity"),
        ("no mesh port", |o| o.endpoints[0].mesh_port = 0, "no port for mutual TLS"),
        ("too many endpoints", |o| o.endpoints = vec![o.endpoints[0].clone(); 10_001], "more than"),
    ];
    for (what, change, reason) in cases {
        let mut offer = offer("east", 2, 10, "shop/cart");
        change(&mut offer);
        let service = offer.service.clone();
        let meaning = mean(&link("east", 2, ""), &[offering_one(offer)]);
        assert!(meaning.services.is_empty(), "{what}");
        let [refused] = &meaning.refused[..] else { panic!("{what}: {:?}", meaning.refused) };
        assert_eq!(refused.service.as_ref(), Some(&service), "{what}");
        assert!(refused.reason.contains(reason), "{what}: {}", refused.reason);
    }
    let meaning = mean(&link("east", 2, ""), &[offering("east", 2, &["shop/cart"])]);
    assert_eq!((serving(&meaning, HOST).as_str(), meaning.refused.len()), ("east: cart-1", 0));
    let meaning = mean(&link("east", 2, ""), &[offering("south", 4, &["shop/cart"])]);
    assert_eq!(serving(&meaning, HOST), "no such host", "a peer without a Link");
    assert_eq!(meaning.refused.len(), 1);
}

#[test]
fn on_a_flat_network_addresses_must_be_the_peers_and_tokens_are_not_needed() {
    let flat = link("east", 2, "  network: flat\n  addresses: [127.2.0.0/16]\n");
    let meaning = mean(&flat, &[offering("east", 2, &["shop/cart"])]);
    let endpoints = &meaning.endpoints[HOST].clusters[0];
    assert_eq!((endpoints.reach, &*endpoints.endpoints[0].ports[0].token), (Reach::Flat, ""));
    let meaning = mean(&flat, &[offering("east", 9, &["shop/cart"])]);
    assert_eq!(serving(&meaning, HOST), "no such host");
    assert!(meaning.refused[0].reason.contains("outside"), "{:?}", meaning.refused);
}

#[test]
fn behind_a_gateway_an_endpoint_without_a_token_cannot_be_reached() {
    let mut offer = offer("east", 2, 10, "shop/cart");
    offer.endpoints[0].ports[0].token = "not a label".into();
    assert_eq!(serving(&mean(&link("east", 2, ""), &[offering_one(offer)]), HOST), "east: ");
}

#[test]
fn gateways_are_those_that_the_peer_states_within_its_allowance_else_the_pinned() {
    let stated = |addresses: &[&str]| {
        let gateway = |(n, address): (usize, &&str)| PathGateway {
            name: format!("s{n}").into(),
            address: address.parse().unwrap(),
            weight: 1,
            draining: false,
        };
        let gateways = addresses.iter().enumerate().map(gateway).collect();
        let stated = PeerGateways { cluster: cluster("east"), trust_domain: "east.example".parse().unwrap(), gateways };
        PeerView { gateways: Some(stated), ..peer("east") }
    };
    let path = |link: &str, view: PeerView| {
        let meaning = mean(link, &[view]);
        let path = &meaning.paths[&cluster("east")];
        let gateways: Vec<String> = path.gateways.iter().map(|g| g.address.to_string()).collect();
        (gateways.join(" "), meaning.refused.len(), path.lease)
    };
    let pinned = link("east", 2, "");
    let range = link("east", 2, "  addresses: [127.2.0.0/24]\n");
    let fresh = Lease::Fresh;
    assert_eq!(path(&pinned, peer("east")), ("127.2.0.3:15443".into(), 0, fresh));
    assert_eq!(path(&pinned, stated(&["127.2.0.3:15443", "127.2.0.4:15443"])), ("127.2.0.3:15443".into(), 1, fresh));
    assert_eq!(
        path(&range, stated(&["127.2.0.4:15443", "127.2.0.5:15443"])),
        ("127.2.0.4:15443 127.2.0.5:15443".into(), 0, fresh)
    );
    assert_eq!(path(&range, stated(&["10.0.0.1:15443"])), ("127.2.0.3:15443".into(), 1, fresh));
    assert_eq!(mean(&pinned, &[]).paths[&cluster("east")].lease, Lease::Silent, "nobody heard it yet");
}

#[test]
fn a_link_claims_nothing_that_is_taken() {
    for (what, text, kept) in [
        ("our name", link("west", 2, "").replace("west.example", "other.example"), 0),
        ("our trust domain", link("east", 2, "").replace("east.example", "west.example"), 0),
        (
            "another's trust domain",
            documents(&[&link("edge", 3, "").replace("edge.example", "east.example"), &link("east", 2, "")]),
            1,
        ),
    ] {
        let meaning = mean(&text, &[]);
        assert_eq!(codes(&meaning.faults), ["V0340"], "{what}");
        assert_eq!(meaning.paths.len(), kept, "{what}");
        assert_eq!(meaning.bundles["west.example"].roots_pem, "own", "{what}");
    }
}

#[test]
fn an_export_may_be_for_safe_methods_only() {
    let safe = |text: &str, value: &str| {
        text.replace("annotations: {", &format!("annotations: {{veer.dev/allow-unsafe-methods: \"{value}\", "))
    };
    let namespace = |value: &str| {
        format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, annotations: {{veer.dev/allow-unsafe-methods: \"{value}\"}}}}"
        )
    };
    let own = export("shop/cart", "*");
    for (parts, restricted) in [
        (vec![own.clone()], false),
        (vec![safe(&own, "false")], true),
        (vec![safe(&own, "true"), namespace("false")], false),
        (vec![own.clone(), namespace("false")], true),
    ] {
        let mut all = vec![service("shop/cart"), workload("shop/cart-1", "cart", 1), link("east", 2, "")];
        all.extend(parts);
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let meaning = mean(&documents(&all), &[]);
        let offered = &meaning.inbound[&object("shop/cart-1")].offered_to[0];
        assert!(!offered.ports.is_empty());
        assert_eq!(if restricted { &offered.ports[..] } else { &[] }, offered.safe_only, "{all:?}");
    }
}
