//! Certificates that nobody should believe, shown by servers and by clients.

use std::time::Duration;

use rcgen::{ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use veer_identity::{Ca, ClientAuth, HandshakeError, Identity, VerifyError, clock};

use crate::support::*;

/// A cluster whose own authority went rogue: what does an honest peer say to a leaf of it?
struct Rogue {
    ca: RawCa,
    judge: Identity,
    _judge_ca: Ca,
}

impl Rogue {
    fn new() -> Self {
        let ca = RawCa::root(Some("spiffe://rogue.example"));
        let judge_ca = self::ca("west");
        let judge = identity(&judge_ca, &web("west"), &[judge_ca.bundle(), ca.bundle("rogue")]);
        Self { ca, judge, _judge_ca: judge_ca }
    }

    /// Both sides refuse; returns what the client says.
    async fn refuses(&self, forged: &Forged) -> VerifyError {
        assert!(forged.as_client(&self.judge, ClientAuth::Required).await.is_err(), "the server must refuse");
        match forged.as_server(&self.judge, &[web("rogue")]).await {
            HandshakeError::Peer(error) => error,
            other => panic!("{other}"),
        }
    }
}

fn rogue_uri() -> SanType {
    uri(&web("rogue").to_string())
}

#[tokio::test]
async fn an_ordinary_leaf_of_the_same_authority_is_believed() {
    let rogue = Rogue::new();
    let forged = rogue.ca.leaf(&[rogue_uri()], |_| {});
    let (_, peer) = forged.as_client(&rogue.judge, ClientAuth::Workloads).await.unwrap();
    assert_eq!(peer.unwrap().id, web("rogue"));
}

#[tokio::test]
async fn exactly_one_spiffe_id() {
    let rogue = Rogue::new();
    let dns = || SanType::DnsName("web.shop".try_into().unwrap());
    for names in [
        vec![rogue_uri(), rogue_uri()],
        vec![rogue_uri(), uri("spiffe://west.example/ns/shop/sa/web")],
        vec![rogue_uri(), uri("https://example.com")],
        vec![rogue_uri(), dns()],
        vec![dns()],
        vec![uri("https://rogue.example/ns/shop/sa/web")],
        vec![uri("spiffe://rogue.example/web")],
        vec![uri("spiffe://rogue.example/ns/shop/sa/web/more")],
        vec![uri("spiffe://rogue.example")],
        vec![],
    ] {
        let forged = rogue.ca.leaf(&names, |_| {});
        let error = rogue.refuses(&forged).await;
        assert!(matches!(error, VerifyError::NotOneSpiffeId(_)), "{names:?}: {error}");
    }
}

#[tokio::test]
async fn a_leaf_is_not_a_ca_and_signs_handshakes_only() {
    let rogue = Rogue::new();
    let ca_leaf = rogue.ca.leaf(&[rogue_uri()], |params| {
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    assert_eq!(rogue.refuses(&ca_leaf).await, VerifyError::CaAsLeaf);
    let signer = rogue.ca.leaf(&[rogue_uri()], |params| params.key_usages.push(KeyUsagePurpose::KeyCertSign));
    assert_eq!(rogue.refuses(&signer).await, VerifyError::CaAsLeaf);
    let silent = rogue.ca.leaf(&[rogue_uri()], |params| params.key_usages.clear());
    assert!(matches!(rogue.refuses(&silent).await, VerifyError::Usage(_)));
    let other_use = rogue.ca.leaf(&[rogue_uri()], |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    });
    assert!(matches!(rogue.refuses(&other_use).await, VerifyError::Usage(_)));
}

#[tokio::test]
async fn dates_are_kept() {
    let rogue = Rogue::new();
    let hour = Duration::from_secs(3600);
    let expired = rogue.ca.leaf(&[rogue_uri()], |params| {
        params.not_before = (clock::now() - hour * 2).into();
        params.not_after = (clock::now() - hour).into();
    });
    let error = rogue.refuses(&expired).await;
    assert!(matches!(&error, VerifyError::Expired { id, .. } if *id == web("rogue")), "{error}");
    assert!(error.to_string().contains("expired 3"), "{error}");
    let early = rogue.ca.leaf(&[rogue_uri()], |params| params.not_before = (clock::now() + hour / 2).into());
    assert!(matches!(rogue.refuses(&early).await, VerifyError::NotYetValid { .. }));
    // What the server says of such a client, and the outcome for metrics.
    let refused = expired.as_client(&rogue.judge, ClientAuth::Required).await.unwrap_err();
    assert_eq!(refused.outcome(), "expired");
    let refused = early.as_client(&rogue.judge, ClientAuth::Required).await.unwrap_err();
    assert_eq!(refused.outcome(), "not_yet_valid");
}

#[tokio::test]
async fn nobody_signs_for_himself() {
    let rogue = Rogue::new();
    let key = rcgen::KeyPair::generate().unwrap();
    let der = leaf_params(&[rogue_uri()]).self_signed(&key).unwrap().der().clone();
    let key = rustls_pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let forged = Forged { chain: vec![der], key: veer_identity::PrivateKey::new(key) };
    assert!(matches!(rogue.refuses(&forged).await, VerifyError::NotSigned { .. }));
    // Nor does a leaf sign for another.
    let leaf_ca = RawCa::root(Some("spiffe://rogue.example"));
    let mut forged = leaf_ca.leaf(&[rogue_uri()], |_| {});
    forged.chain.push(rogue.ca.leaf(&[rogue_uri()], |_| {}).chain[0].clone());
    assert!(matches!(rogue.refuses(&forged).await, VerifyError::NotSigned { .. }));
}

#[tokio::test]
async fn an_authority_stays_within_its_trust_domain() {
    let rogue = Rogue::new();
    // An intermediate that says it is of another trust domain, under the right root.
    let foreign = rogue.ca.below(Some("spiffe://west.example"));
    let mut forged = foreign.leaf(&[rogue_uri()], |_| {});
    forged.chain.push(foreign.der.clone());
    assert!(matches!(rogue.refuses(&forged).await, VerifyError::ForeignIssuer { .. }));
    // One that says nothing is of the root's.
    let plain = rogue.ca.below(None);
    let mut fine = plain.leaf(&[rogue_uri()], |_| {});
    fine.chain.push(plain.der.clone());
    fine.as_client(&rogue.judge, ClientAuth::Workloads).await.unwrap();
    // A root that says it is of another trust domain is not taken into the bundle.
    let error = rogue.judge.trust(RawCa::root(Some("spiffe://west.example")).bundle("edge")).unwrap_err();
    assert!(error.to_string().contains("west.example"), "{error}");
}

#[tokio::test]
async fn long_chains_are_not_read() {
    let rogue = Rogue::new();
    let mut authorities = vec![rogue.ca.below(None)];
    for _ in 0..3 {
        let next = authorities.last().unwrap().below(None);
        authorities.push(next);
    }
    for depth in 1..=4 {
        let mut forged = authorities[depth - 1].leaf(&[rogue_uri()], |_| {});
        forged.chain.extend(authorities[..depth].iter().rev().map(|ca| ca.der.clone()));
        if depth < veer_identity::trust::MAX_CHAIN {
            forged.as_client(&rogue.judge, ClientAuth::Workloads).await.unwrap();
        } else {
            assert_eq!(rogue.refuses(&forged).await, VerifyError::ChainTooLong(depth + 1));
        }
    }
}

#[tokio::test]
async fn the_intermediate_signs_leaves_only() {
    // Ours is of path length 0: even with its key nobody makes another authority under it.
    let west = ca("west");
    let honest = svid(&west, &web("west"));
    let cert = x509_parser::parse_x509_certificate(&honest.chain[1]).unwrap().1;
    assert_eq!(cert.basic_constraints().unwrap().unwrap().value.path_len_constraint, Some(0));
    let constraints = cert.name_constraints().unwrap().unwrap();
    assert_eq!(constraints.value.excluded_subtrees.as_ref().unwrap().len(), 3, "no DNS names, no addresses");
}

#[test]
fn bundles_must_hold_roots() {
    let west = ca("west");
    let identity = identity(&west, &web("west"), &[west.bundle()]);
    let before = *identity.changed().borrow();
    let leaf = RawCa::root(None).leaf(&[rogue_uri()], |_| {});
    let many: String = (0..17).map(|_| west.bundle().roots_pem).collect();
    for pem in [
        "".to_owned(),
        "junk".to_owned(),
        pem(&leaf.chain[0]),
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
        many,
    ] {
        let bundle = veer_identity::TrustBundle { trust_domain: domain("west"), roots_pem: pem };
        assert!(identity.trust(bundle).is_err());
    }
    assert_eq!(*identity.changed().borrow(), before, "the former bundle stays");
    assert!(identity.trusts(&domain("west")));
}

/// One changed byte anywhere: refused, and nothing panics. (Thousands of inputs, cheap ones: no handshake is needed.)
#[test]
fn every_changed_byte_is_refused() {
    let west = ca("west");
    let honest = svid(&west, &web("west"));
    let mut trust = veer_identity::trust::TrustStore::default();
    trust.insert(west.bundle()).unwrap();
    let now = rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_secs(clock::unix_seconds(clock::now())));
    let judge = |chain: &[rustls_pki_types::CertificateDer<'static>]| {
        trust.verify(&chain[0], &chain[1..], veer_identity::trust::Usage::Server, now)
    };
    judge(&honest.chain).unwrap();
    for which in 0..honest.chain.len() {
        for at in 0..honest.chain[which].len() {
            for bits in [0x01, 0x80, 0xff] {
                let mut chain = honest.chain.clone();
                let mut bytes = chain[which].to_vec();
                bytes[at] ^= bits;
                chain[which] = bytes.into();
                assert!(judge(&chain).is_err(), "certificate {which}, byte {at}, bits {bits:#x}");
            }
            let mut chain = honest.chain.clone();
            chain[which] = chain[which][..at].to_vec().into();
            assert!(judge(&chain).is_err(), "certificate {which} cut at {at}");
        }
    }
    // The frame around a request may be read tolerantly; whatever is issued is for the key that asked.
    let request = veer_identity::KeyRequest::new().unwrap();
    for at in 0..request.csr_der.len() {
        for bits in [0x01, 0x80, 0xff] {
            let mut bytes = request.csr_der.clone();
            bytes[at] ^= bits;
            let signed = west.sign(&bytes, &web("west"), Duration::from_secs(60), clock::now());
            if let Ok(chain) = signed {
                let svid = veer_identity::Svid::from_chain(request.key.clone(), chain);
                assert!(svid.is_ok(), "request, byte {at}, bits {bits:#x}");
            }
        }
    }
}
