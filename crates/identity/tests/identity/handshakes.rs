//! Between honest implementations.

use rustls::AlertDescription;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use veer_core::SpiffeId;
use veer_core::sni::Sni;
use veer_identity::{
    ALPN_H2, ALPN_TCP, Blame, ClientAuth, HandshakeError, KeyRequest, RelayAlert, Svid, VerifyError, clock, join,
};

use crate::support::*;

#[tokio::test]
async fn both_sides_learn_who_the_other_is() {
    let (west, east) = (ca("west"), ca("east"));
    let bundles = [west.bundle(), east.bundle()];
    let (client, server) = (identity(&west, &web("west"), &bundles), identity(&east, &web("east"), &bundles));
    let (near, far) = shake(&client, &server, &[web("other"), web("east")], ClientAuth::Workloads).await;
    let ((mut near, callee), (mut far, caller)) = (near.unwrap(), far.unwrap());
    assert_eq!(callee.id, web("east"));
    assert_eq!(callee.not_after, server.svid().not_after);
    assert_eq!(caller.unwrap().id, web("west"));
    let (_, state) = far.get_ref();
    assert_eq!(state.server_name(), Some("p8080.west"));
    assert_eq!(state.alpn_protocol(), Some(ALPN_H2));
    talk(&mut near, &mut far).await;
}

/// Clusters x and y trust each other. Whatever the authority of x signs in the name of y is refused, by clients and by
/// servers, of both clusters and of a third.
#[tokio::test]
async fn no_authority_vouches_for_another_trust_domain() {
    let names = ["west", "east", "edge"];
    let cas = names.map(ca);
    let bundles: Vec<_> = cas.iter().map(|ca| ca.bundle()).collect();
    for (x, signer) in cas.iter().enumerate() {
        for (y, name) in names.iter().enumerate() {
            if x == y {
                continue;
            }
            let victim = web(name);
            // Our CA refuses to sign it at all…
            let request = KeyRequest::new().unwrap();
            assert!(signer.sign(&request.csr_der, &victim, std::time::Duration::from_secs(60), clock::now()).is_err());
            // …so somebody with the key of x writes the certificate by hand, under the honest chain's shape.
            let raw = RawCa::root(None);
            let forged = raw.leaf(&[uri(&victim.to_string())], |_| {});
            let mut trusted = bundles.clone();
            // The root of x is now the forger's: nothing but its name ties it to x.
            trusted[x] = raw.bundle(names[x]);
            for judge in 0..names.len() {
                if judge == x {
                    continue;
                }
                let judge = identity(&cas[judge], &web(names[judge]), &trusted);
                let error = forged.as_server(&judge, std::slice::from_ref(&victim)).await;
                assert!(
                    matches!(&error, HandshakeError::Peer(VerifyError::NotSigned { id, .. }) if *id == victim),
                    "{error}"
                );
                assert_eq!(error.outcome(), "unknown_ca");
                let error = forged.as_client(&judge, ClientAuth::Required).await.unwrap_err();
                assert_eq!(error.outcome(), "unknown_ca", "{error}");
            }
        }
    }
}

#[tokio::test]
async fn an_unknown_trust_domain_is_refused_and_told() {
    let (west, stranger) = (ca("west"), ca("stranger"));
    let client = identity(&west, &web("west"), &[west.bundle()]);
    let server = identity(&stranger, &web("stranger"), &[stranger.bundle(), west.bundle()]);
    let (near, far) = shake(&client, &server, &[web("stranger")], ClientAuth::Workloads).await;
    assert!(matches!(near, Err(HandshakeError::Peer(VerifyError::UnknownTrustDomain(_)))));
    assert!(matches!(far, Err(HandshakeError::Refused(AlertDescription::UnknownCA))), "{far:?}");
    // The other way round: the server refuses the caller, which the caller reads.
    let (near, far) = shake(&server, &client, &[web("west")], ClientAuth::Workloads).await;
    assert_eq!(far.unwrap_err().outcome(), "unknown_ca");
    let told = first_read(near).await;
    assert!(matches!(told, HandshakeError::Refused(AlertDescription::UnknownCA)), "{told}");
    assert_eq!(told.blame(), Blame::Local);
}

#[tokio::test]
async fn only_the_exact_identity_may_answer() {
    let west = ca("west");
    let client = identity(&west, &web("west"), &[west.bundle()]);
    let gateway = identity(&west, &SpiffeId::gateway(domain("west")), &[west.bundle()]);
    let cart = SpiffeId::new(domain("west"), "shop", "cart");
    for expected in [vec![cart.clone()], vec![], vec![cart.clone(), web("west")]] {
        let (near, far) = shake(&client, &gateway, &expected, ClientAuth::Required).await;
        let error = near.unwrap_err();
        let HandshakeError::Peer(VerifyError::WrongIdentity { found, expected: named }) = &error else {
            panic!("{error}")
        };
        assert_eq!((found, named), (&SpiffeId::gateway(domain("west")), &expected));
        assert_eq!((error.blame(), error.outcome()), (Blame::Endpoint, "wrong_identity"));
        // The server was refused before it saw our certificate.
        assert!(matches!(far, Err(HandshakeError::Refused(AlertDescription::CertificateUnknown))), "{far:?}");
    }
}

#[tokio::test]
async fn reserved_identities_do_not_act_as_workloads() {
    let west = ca("west");
    let server = identity(&west, &web("west"), &[west.bundle()]);
    for id in [SpiffeId::gateway(domain("west")), SpiffeId::control(domain("west"))] {
        let client = identity(&west, &id, &[west.bundle()]);
        let (near, far) = shake(&client, &server, &[web("west")], ClientAuth::Workloads).await;
        assert!(matches!(far, Err(HandshakeError::Peer(VerifyError::SystemIdentity(refused))) if refused == id));
        first_read(near).await;
        let (near, far) = shake(&client, &server, &[web("west")], ClientAuth::Required).await;
        assert_eq!(far.unwrap().1.unwrap().id, id);
        near.unwrap();
    }
}

#[tokio::test]
async fn a_certificate_is_asked_for() {
    let west = ca("west");
    let request = KeyRequest::new().unwrap();
    let control = SpiffeId::control(domain("west"));
    let chain = west.sign(&request.csr_der, &control, veer_identity::ca::DEFAULT_TTL, clock::now()).unwrap();
    let server = Svid::from_chain(request.key, chain).unwrap();
    let server = veer_identity::Identity::new(server, [west.bundle()]).unwrap();
    for auth in [ClientAuth::Required, ClientAuth::Workloads, ClientAuth::Optional] {
        let (near, far) = duplex(64 * 1024);
        let anonymous = join::client_config(west.root_hash(), ALPN);
        let sni = sni();
        let (_near, far) = tokio::join!(
            veer_identity::connect(near, anonymous, &sni, &[]),
            veer_identity::accept(far, server.server_config(ALPN, auth)),
        );
        match auth {
            ClientAuth::Optional => assert_eq!(far.unwrap().1, None),
            _ => assert!(matches!(far, Err(HandshakeError::NoCertificate))),
        }
    }
}

#[tokio::test]
async fn a_gateways_words_are_told_apart() {
    let west = ca("west");
    let client = identity(&west, &web("west"), &[west.bundle()]);
    for (alert, blame) in [
        (RelayAlert::StaleName, Blame::Endpoint),
        (RelayAlert::Unreachable, Blame::Endpoint),
        (RelayAlert::OverLimit, Blame::Path),
        (RelayAlert::Draining, Blame::Path),
    ] {
        let (near, mut far) = duplex(64 * 1024);
        let sni = Sni::Gateway { token: "abc".into(), port: 80, cluster: veer_core::ClusterName::new("west").unwrap() };
        let gateway = async move {
            let mut hello = [0; 5];
            far.read_exact(&mut hello).await.unwrap();
            let mut rest = vec![0; usize::from(u16::from_be_bytes([hello[3], hello[4]]))];
            far.read_exact(&mut rest).await.unwrap();
            far.write_all(&alert.record()).await.unwrap();
        };
        let expected = [web("west")];
        let (near, ()) =
            tokio::join!(veer_identity::connect(near, client.client_config(ALPN), &sni, &expected), gateway);
        let error = near.unwrap_err();
        assert_eq!((error.relay_alert(), error.blame()), (Some(alert), blame), "{error}");
    }
}

#[tokio::test]
async fn ends_without_a_word_are_told_apart() {
    let west = ca("west");
    let client = identity(&west, &web("west"), &[west.bundle()]);
    let (near, far) = duplex(64 * 1024);
    drop(far);
    let error = veer_identity::connect(near, client.client_config(ALPN), &sni(), &[web("west")]).await.unwrap_err();
    assert!(matches!(error, HandshakeError::Closed | HandshakeError::Io(_)), "{error}");
    assert_eq!(error.blame(), Blame::Path);

    let (near, mut far) = duplex(64 * 1024);
    far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let error = veer_identity::connect(near, client.client_config(ALPN), &sni(), &[web("west")]).await.unwrap_err();
    assert!(matches!(error, HandshakeError::Protocol(_)), "{error}");
}

#[tokio::test]
async fn there_must_be_a_common_protocol() {
    let west = ca("west");
    let both = identity(&west, &web("west"), &[west.bundle()]);
    let (near, far) = duplex(64 * 1024);
    let sni = sni();
    let expected = [web("west")];
    let (near, far) = tokio::join!(
        veer_identity::connect(near, both.client_config(&[ALPN_TCP]), &sni, &expected),
        veer_identity::accept(far, both.server_config(ALPN, ClientAuth::Workloads)),
    );
    assert!(matches!(near, Err(HandshakeError::Refused(AlertDescription::NoApplicationProtocol))));
    assert!(far.is_err());
}

#[tokio::test]
async fn tls_1_2_is_not_spoken() {
    let west = ca("west");
    let server = identity(&west, &web("west"), &[west.bundle()]);
    let (mut near, far) = duplex(64 * 1024);
    // A ClientHello of TLS 1.2 without extensions (RFC 5246 §7.4.1.2), suite ECDHE-ECDSA-AES128-GCM-SHA256.
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    let mut record = vec![22, 3, 1, 0, (hello.len() + 4) as u8, 1, 0, 0, hello.len() as u8];
    record.extend(hello);
    near.write_all(&record).await.unwrap();
    let error = veer_identity::accept(far, server.server_config(ALPN, ClientAuth::Workloads)).await.unwrap_err();
    assert!(matches!(error, HandshakeError::Protocol(_)), "{error}");
}

#[tokio::test]
async fn nothing_is_resumed() {
    let west = ca("west");
    let both = identity(&west, &web("west"), &[west.bundle()]);
    for _ in 0..3 {
        let (near, far) = shake(&both, &both, &[web("west")], ClientAuth::Workloads).await;
        let ((mut near, _), (mut far, _)) = (near.unwrap(), far.unwrap());
        talk(&mut near, &mut far).await;
        let kind = near.get_ref().1.handshake_kind();
        assert_eq!(kind, Some(rustls::HandshakeKind::Full));
    }
}

#[tokio::test]
async fn joining_believes_the_pinned_root_and_its_control_plane_only() {
    let (west, other) = (ca("west"), ca("west"));
    let control = SpiffeId::control(domain("west"));
    let token = veer_identity::JoinToken {
        control: vec!["127.1.0.1:15010".parse().unwrap()],
        cluster: veer_core::ClusterName::new("west").unwrap(),
        workload: veer_core::ObjectName::new("shop", "web"),
        secret: join::new_secret().unwrap(),
        expires: clock::now() + join::DEFAULT_LIFETIME,
        ca_hash: west.root_hash(),
    };
    let attempt = async |server: &veer_identity::Identity| {
        let (near, far) = duplex(64 * 1024);
        tokio::join!(
            join::connect(near, &token, ALPN),
            veer_identity::accept(far, server.server_config(ALPN, ClientAuth::Optional)),
        )
        .0
    };
    let (mut stream, peer) = attempt(&identity(&west, &control, &[west.bundle()])).await.unwrap();
    assert_eq!(peer.id, control);
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(ALPN_H2));
    stream.flush().await.unwrap();
    // Another root of the same trust domain.
    let error = attempt(&identity(&other, &control, &[other.bundle()])).await.unwrap_err();
    assert!(matches!(error, HandshakeError::Peer(VerifyError::NotPinned)), "{error}");
    // The right root, shown by a workload.
    let mut workload = svid(&west, &web("west"));
    workload.chain.push(svid(&west, &control).chain[2].clone());
    let workload = veer_identity::Identity::new(workload, [west.bundle()]).unwrap();
    let error = attempt(&workload).await.unwrap_err();
    assert!(matches!(error, HandshakeError::Peer(VerifyError::WrongIdentity { .. })), "{error}");
    // The right root, shown by somebody whose own chain does not lead to it.
    let mut thief = svid(&other, &control);
    thief.chain[2] = svid(&west, &control).chain[2].clone();
    let thief = veer_identity::Identity::new(thief, [other.bundle()]).unwrap();
    let error = attempt(&thief).await.unwrap_err();
    assert!(matches!(error, HandshakeError::Peer(VerifyError::NotSigned { .. })), "{error}");
}
