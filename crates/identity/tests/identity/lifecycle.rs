//! Issue, renew, rotate, distrust, save and load.

use std::time::{Duration, SystemTime};

use tempfile::tempdir;
use veer_core::SpiffeId;
use veer_identity::ca::DEFAULT_TTL;
use veer_identity::{Ca, ClientAuth, Error, HandshakeError, Identity, KeyRequest, Svid, VerifyError, clock};

use crate::support::*;

const HOUR: Duration = Duration::from_secs(3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

#[test]
fn certificates_follow_the_x509_svid_standard() {
    let west = ca("west");
    let now = clock::now();
    let svid = svid_for(&west, &web("west"), DEFAULT_TTL, now);
    assert_eq!(svid.chain.len(), 2, "leaf and intermediate; everybody has the root");
    let cert = x509_parser::parse_x509_certificate(&svid.chain[0]).unwrap().1;
    let names = cert.subject_alternative_name().unwrap().unwrap();
    assert!(names.critical, "the subject is empty (RFC 5280 §4.2.1.6)");
    assert_eq!(names.value.general_names.len(), 1);
    assert_eq!(cert.subject().iter().count(), 0);
    assert!(!cert.is_ca());
    let usage = cert.key_usage().unwrap().unwrap();
    assert!(usage.critical);
    assert_eq!(usage.value.flags, 1, "digitalSignature and nothing else");
    let purposes = cert.extended_key_usage().unwrap().unwrap().value;
    assert!(purposes.server_auth && purposes.client_auth && !purposes.any && !purposes.code_signing);
    let seconds = |time: SystemTime| clock::unix_seconds(time);
    assert_eq!(seconds(svid.not_before), seconds(now) - 60, "for clocks that are behind");
    assert_eq!(seconds(svid.not_after), seconds(now + DEFAULT_TTL));
    assert_ne!(svid_for(&west, &web("west"), DEFAULT_TTL, now).chain[0], svid.chain[0]);
}

#[test]
fn a_request_gets_what_the_issuer_decides() {
    let west = ca("west");
    let now = clock::now();
    // It asks for somebody else and for an authority; it gets a leaf of the identity that the issuer named.
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = leaf_params(&[uri("spiffe://east.example/ns/shop/sa/admin")]);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let csr = params.serialize_request(&key).unwrap();
    let chain = west.sign(csr.der(), &web("west"), HOUR, now).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
    assert_eq!(Svid::from_chain(veer_identity::PrivateKey::new(key), chain).unwrap().id, web("west"));

    let refused = |csr: &[u8]| matches!(west.sign(csr, &web("west"), HOUR, now), Err(Error::Request(_)));
    let good = KeyRequest::new().unwrap().csr_der;
    for at in [good.len() - 3, good.len() / 2] {
        let mut broken = good.clone();
        broken[at] ^= 1;
        assert!(refused(&broken), "the request is not signed by its key");
    }
    assert!(refused(b"") && refused(b"junk") && refused(&good[..good.len() - 1]) && refused(&vec![0x30; 100_000]));
    for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        assert!(refused(leaf_params(&[]).serialize_request(&key).unwrap().der()), "P-256 only");
    }
    let odd = SpiffeId::new(domain("west"), "shop/sa/x/ns", "web");
    assert!(matches!(west.sign(&good, &odd, HOUR, now), Err(Error::Issuer { .. })));
}

#[test]
fn nothing_outlives_its_issuer() {
    let now = clock::now();
    let west = Ca::create(&domain("west"), now).unwrap();
    let svid = svid_for(&west, &web("west"), YEAR * 3, now);
    assert_eq!(svid.not_after, west.not_after());
    let request = KeyRequest::new().unwrap();
    let error = west.sign(&request.csr_der, &web("west"), HOUR, now + YEAR + HOUR).unwrap_err();
    assert!(error.to_string().contains("root's key"), "{error}");
}

#[test]
fn renewal_is_due_at_half_of_the_lifetime() {
    let west = ca("west");
    let svid = svid(&west, &web("west"));
    let lifetime = svid.not_after.duration_since(svid.not_before).unwrap();
    let identity = Identity::new(svid.clone(), [west.bundle()]).unwrap();
    assert_eq!(identity.renew_at(), svid.not_before + lifetime / 2);
    assert_eq!(svid.renew_at(1.0), svid.not_before + lifetime.mul_f64(0.4));
    assert!(svid.renew_at(0.5) < svid.renew_at(0.0) && svid.renew_at(7.0) == svid.renew_at(1.0));
    assert_eq!(svid.remaining(svid.not_after - HOUR), HOUR);
    assert_eq!(svid.remaining(svid.not_after + HOUR), Duration::ZERO);
}

#[tokio::test]
async fn rotation_leaves_connections_alone_and_changes_the_next() {
    let west = ca("west");
    let client = identity(&west, &web("west"), &[west.bundle()]);
    let server = identity(&west, &web("west"), &[west.bundle()]);
    let (kept_client, kept_server) = (client.client_config(ALPN), server.server_config(ALPN, ClientAuth::Workloads));
    let (near, far) = shake(&client, &server, &[web("west")], ClientAuth::Workloads).await;
    let ((mut near, first), (mut far, _)) = (near.unwrap(), far.unwrap());

    let mut changed = server.changed();
    changed.mark_unchanged();
    let later = svid_for(&west, &web("west"), DEFAULT_TTL * 2, clock::now());
    server.rotate(later.clone());
    client.rotate(svid_for(&west, &web("west"), DEFAULT_TTL * 3, clock::now()));
    assert!(changed.has_changed().unwrap());
    talk(&mut near, &mut far).await;

    // Configurations taken before the rotation show the new certificates as well.
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (sni, expected) = (sni(), [web("west")]);
    let (near, far) = tokio::join!(
        veer_identity::connect(near, kept_client, &sni, &expected),
        veer_identity::accept(far, kept_server),
    );
    let (callee, caller) = (near.unwrap().1, far.unwrap().1.unwrap());
    assert_eq!(callee.not_after, later.not_after);
    assert_eq!(caller.not_after, client.svid().not_after);
    assert!(callee.not_after > first.not_after);
}

#[tokio::test]
async fn the_root_is_rotated_without_a_gap() {
    let mut west = ca("west");
    let peer_ca = ca("east");
    let peer = identity(&peer_ca, &web("east"), &[peer_ca.bundle(), west.bundle()]);
    let old = identity(&west, &web("west"), &[west.bundle(), peer_ca.bundle()]);
    let meets = async |own: &Identity| shake(&peer, own, &[web("west")], ClientAuth::Workloads).await.0.map(|_| ());
    meets(&old).await.unwrap();

    west.stage_root(clock::now()).unwrap();
    peer.trust(west.bundle()).unwrap();
    old.trust(west.bundle()).unwrap();
    let (hash, staged) = (west.root_hash(), west.bundle());
    assert!(west.switch_root() && !west.switch_root());
    assert_ne!(west.root_hash(), hash);
    assert_eq!(west.bundle().roots_pem.len(), staged.roots_pem.len(), "both roots are believed");
    let new = identity(&west, &web("west"), &[west.bundle(), peer_ca.bundle()]);
    meets(&old).await.unwrap();
    meets(&new).await.unwrap();

    west.retire_roots();
    peer.trust(west.bundle()).unwrap();
    meets(&new).await.unwrap();
    assert_eq!(meets(&old).await.unwrap_err().outcome(), "unknown_ca");
}

#[tokio::test]
async fn a_distrusted_domain_is_refused_from_then_on() {
    let (west, east) = (ca("west"), ca("east"));
    let bundles = [west.bundle(), east.bundle()];
    let (client, server) = (identity(&west, &web("west"), &bundles), identity(&east, &web("east"), &bundles));
    let kept = client.client_config(ALPN);
    shake(&client, &server, &[web("east")], ClientAuth::Workloads).await.0.unwrap();
    let mut changed = client.changed();
    changed.mark_unchanged();
    client.distrust(&domain("east"));
    assert!(changed.has_changed().unwrap() && !client.trusts(&domain("east")));
    let (near, _) = shake(&client, &server, &[web("east")], ClientAuth::Workloads).await;
    assert!(matches!(near, Err(HandshakeError::Peer(VerifyError::UnknownTrustDomain(_)))));
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (sni, expected) = (sni(), [web("east")]);
    let (near, _far) = tokio::join!(
        veer_identity::connect(near, kept, &sni, &expected),
        veer_identity::accept(far, server.server_config(ALPN, ClientAuth::Workloads)),
    );
    assert!(near.is_err(), "a kept configuration does not remember it");
    let (_, far) = shake(&server, &client, &[web("west")], ClientAuth::Workloads).await;
    assert_eq!(far.unwrap_err().outcome(), "unknown_ca");
    client.distrust(&domain("west"));
    assert!(client.trusts(&domain("west")), "one's own stays");
}

#[tokio::test]
async fn time_is_asked_at_each_handshake() {
    let west = ca("west");
    let both = identity(&west, &web("west"), &[west.bundle()]);
    let end = both.svid().not_after;
    let meets = async || shake(&both, &both, &[web("west")], ClientAuth::Workloads).await.0.map(|_| ());
    {
        let _clock = clock::set(move || end + HOUR);
        let error = meets().await.unwrap_err();
        assert!(matches!(error, HandshakeError::Peer(VerifyError::Expired { .. })), "{error}");
    }
    meets().await.unwrap();
}

#[tokio::test]
async fn an_ended_root_is_not_believed() {
    let judge_ca = ca("west");
    let ended = RawCa::ended_root("spiffe://rogue.example");
    let judge = identity(&judge_ca, &web("west"), &[judge_ca.bundle(), ended.bundle("rogue")]);
    let forged = ended.leaf(&[uri(&web("rogue").to_string())], |_| {});
    let error = forged.as_server(&judge, &[web("rogue")]).await;
    assert!(matches!(error, HandshakeError::Peer(VerifyError::NotSigned { .. })), "{error}");
}

#[test]
fn an_svid_is_read_as_written() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("svid.pem");
    let west = ca("west");
    let svid = svid(&west, &web("west"));
    svid.save(&path).unwrap();
    let loaded = Svid::load(&path).unwrap();
    assert_eq!((&loaded.id, &loaded.chain, loaded.not_after), (&svid.id, &svid.chain, svid.not_after));
    assert_eq!(loaded.key.der(), svid.key.der());
    assert!(!format!("{svid:?}").contains("48, 129"), "the key is never shown");

    std::fs::write(&path, "-----BEGIN NONSENSE-----").unwrap();
    let message = Svid::load(&path).unwrap_err().to_string();
    assert!(message.contains("svid.pem") && message.contains("restore"), "{message}");
}

#[test]
fn a_key_belongs_to_its_certificate() {
    let west = ca("west");
    let (one, two) = (svid(&west, &web("west")), svid(&west, &web("west")));
    assert!(matches!(Svid::from_chain(one.key, two.chain), Err(Error::KeyMismatch(_))));
}

#[test]
fn an_authority_survives_a_restart() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempdir().unwrap();
    let dir = dir.path().join("ca");
    let now = clock::now();
    let first = Ca::load_or_create(&dir, &domain("west"), now).unwrap();
    let mut second = Ca::load_or_create(&dir, &domain("west"), now).unwrap();
    assert_eq!((first.root_hash(), first.bundle()), (second.root_hash(), second.bundle()));
    for file in ["current/root.pem", "current/root-key.pem", "current/intermediate.pem"] {
        let mode = std::fs::metadata(dir.join(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{file}");
    }
    assert_eq!(std::fs::metadata(dir.join("current")).unwrap().permissions().mode() & 0o777, 0o700);

    second.stage_root(now).unwrap();
    second.save(&dir).unwrap();
    let mut third = Ca::load(&dir).unwrap();
    assert_eq!(third.bundle(), second.bundle());
    assert!(third.switch_root());
    third.save(&dir).unwrap();
    let fourth = Ca::load(&dir).unwrap();
    assert_eq!((fourth.bundle(), fourth.root_hash()), (third.bundle(), third.root_hash()));
    assert!(!dir.join("next").exists());

    let other = Ca::load_or_create(&dir, &domain("east"), now).unwrap_err().to_string();
    assert!(other.contains("west.example"), "{other}");
}

#[test]
fn the_intermediate_is_renewed_while_the_roots_key_is_here() {
    let dir = tempdir().unwrap();
    let now = clock::now();
    let first = Ca::load_or_create(dir.path(), &domain("west"), now).unwrap();
    let later = now + YEAR / 2 + HOUR;
    let renewed = Ca::load_or_create(dir.path(), &domain("west"), later).unwrap();
    assert!(renewed.not_after() > first.not_after() && renewed.root_hash() == first.root_hash());

    std::fs::remove_file(dir.path().join("current/root-key.pem")).unwrap();
    let offline = Ca::load_or_create(dir.path(), &domain("west"), later + YEAR / 2 + HOUR).unwrap();
    assert_eq!(offline.not_after(), renewed.not_after(), "nothing to renew it with");
    assert!(offline.sign(&KeyRequest::new().unwrap().csr_der, &web("west"), HOUR, later).is_ok());
}

#[test]
fn what_is_broken_is_named_and_never_replaced() {
    let dir = tempdir().unwrap();
    let now = clock::now();
    Ca::load_or_create(dir.path(), &domain("west"), now).unwrap();
    for file in ["current/root.pem", "current/root-key.pem", "current/intermediate.pem"] {
        let path = dir.path().join(file);
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, "broken").unwrap();
        let message = Ca::load_or_create(dir.path(), &domain("west"), now).unwrap_err().to_string();
        assert!(message.contains(file) && message.contains(';'), "{message}");
        assert_eq!(std::fs::read(&path).unwrap(), b"broken");
        std::fs::write(&path, good).unwrap();
    }
    std::fs::remove_file(dir.path().join("current/root.pem")).unwrap();
    let message = Ca::load_or_create(dir.path(), &domain("west"), now).unwrap_err().to_string();
    assert!(message.contains("root.pem"), "{message}");
    let stranger = tempdir().unwrap();
    Ca::load_or_create(stranger.path(), &domain("west"), now).unwrap();
    std::fs::copy(stranger.path().join("current/root.pem"), dir.path().join("current/root.pem")).unwrap();
    let message = Ca::load_or_create(dir.path(), &domain("west"), now).unwrap_err().to_string();
    assert!(message.contains("not the key of root.pem"), "{message}");
}

#[test]
fn configurations_are_made_once() {
    let west = ca("west");
    let both = identity(&west, &web("west"), &[west.bundle()]);
    let one = both.server_config(ALPN, ClientAuth::Workloads);
    both.rotate(svid(&west, &web("west")));
    assert!(std::sync::Arc::ptr_eq(&one, &both.server_config(ALPN, ClientAuth::Workloads)));
    assert!(!std::sync::Arc::ptr_eq(&one, &both.server_config(ALPN, ClientAuth::Required)));
    assert!(!std::sync::Arc::ptr_eq(&one, &both.server_config(&[], ClientAuth::Workloads)));
}
