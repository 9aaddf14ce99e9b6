//! What is Veer's own: server names and tokens, manifests, resources between control planes and proxies.

use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use veer_core::gateway::TokenKey;
use veer_core::offer::PeerGateways;
use veer_core::sni::Sni;
use veer_core::{ClusterName, Endpoints, GatewayConfig, Inbound, Offer, Path, Service};
use veer_identity::TokenCrypter;
use veer_proxy::client_hello::{self, Progress};
use veer_proxy::proxy_protocol;
use veer_xds::proto::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

/// More bytes change a verdict only when more were asked for.
pub(crate) fn client_hello(bytes: &[u8]) {
    let whole = format!("{:?}", client_hello::parse(bytes));
    for end in [bytes.len() / 2, bytes.len().saturating_sub(1)] {
        let part = client_hello::parse(&bytes[..end]);
        if !matches!(part, Progress::NeedMore) {
            assert_eq!(format!("{part:?}"), whole);
        }
    }
}

/// More bytes change a verdict only when more were asked for, and no more are asked for than are read.
pub(crate) fn proxy_protocol(bytes: &[u8]) {
    use proxy_protocol::{MAX_BYTES, Progress, parse};
    let whole = parse(bytes);
    match whole {
        Progress::Found(header) => assert!(header.length <= bytes.len().min(MAX_BYTES), "{header:?}"),
        Progress::NeedMore => assert!(bytes.len() < MAX_BYTES, "more than is ever read"),
        Progress::Refused(_) => {}
    }
    for end in [bytes.len() / 2, bytes.len().saturating_sub(1)] {
        let part = parse(&bytes[..end]);
        assert!(part == Progress::NeedMore || part == whole, "{part:?}, then {whole:?}");
    }
}

/// A name that is read is written the same, and no token opens that was not sealed.
pub(crate) fn server_name(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(name) = text.parse::<Sni>() {
        let again = name.to_string();
        assert_eq!(again.parse::<Sni>().ok(), Some(name), "{again}");
    }
    let Ok(peer) = ClusterName::new("east") else { return };
    let key: Result<TokenKey, _> = serde_json::from_value(serde_json::json!({
        "id": 1, "peer": peer, "secret": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
    }));
    let Some(crypter) = key.ok().and_then(|key| TokenCrypter::new(&key).ok()) else { return };
    let opened = veer_identity::token::open(text, std::slice::from_ref(&crypter));
    if let Ok((token, _)) = opened {
        assert_eq!(crypter.seal(&token).len(), text.len(), "a token that nobody sealed");
    }
}

/// Every fault has its place.
pub(crate) fn manifest(bytes: &[u8]) {
    let (_, faults) = veer_resources::parse_bytes("fuzz.yaml", bytes);
    for fault in faults {
        assert!(!fault.to_string().is_empty());
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = veer_resources::parse_fleet("fleet.yaml", text);
    }
}

/// Messages of the session, and the resources in them by type.
pub(crate) fn delta_ads(bytes: &[u8]) {
    if let Ok(request) = DeltaDiscoveryRequest::decode(bytes) {
        assert_eq!(DeltaDiscoveryRequest::decode(&request.encode_to_vec()[..]).ok(), Some(request));
    }
    let Ok(response) = DeltaDiscoveryResponse::decode(bytes) else { return };
    for resource in &response.resources {
        let body = resource.resource.as_ref().map_or(&[][..], |any| &any.value);
        same::<Service>(body);
        same::<Endpoints>(body);
        same::<Path>(body);
        same::<Inbound>(body);
        same::<GatewayConfig>(body);
    }
}

/// What a peer says.
pub(crate) fn offer(bytes: &[u8]) {
    same::<Offer>(bytes);
    same::<PeerGateways>(bytes);
}

/// What is understood is kept as it was understood, also over a restart.
fn same<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(bytes) else { return };
    let Ok(text) = serde_json::to_vec(&value) else { panic!("{value:?} cannot be written") };
    let again = serde_json::from_slice::<T>(&text);
    assert!(again.is_ok_and(|again| again == value), "{value:?} is not read as it was written");
}
