//! Tickets: used while nothing has changed, and judged like new connections.

use std::time::{Duration, SystemTime};

use rustls::HandshakeKind::{Full, Resumed};
use rustls::{AlertDescription, HandshakeKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use veer_core::SpiffeId;
use veer_identity::ca::DEFAULT_TTL;
use veer_identity::{Ca, ClientAuth, HandshakeError, Identity, VerifyError, clock};

use crate::support::*;

const MINUTE: Duration = Duration::from_secs(60);

/// Shakes hands with the server at `port`, both ends.
async fn meet_at(
    port: u16,
    client: &Identity,
    server: &Identity,
    expected: &[SpiffeId],
    auth: ClientAuth,
) -> (ClientSide, ServerSide) {
    let (near, far) = duplex(64 * 1024);
    let sni = sni();
    let tls = client.client_config(ALPN).toward(([127, 0, 0, 1], port).into());
    tokio::join!(
        veer_identity::connect(near, tls, &sni, expected),
        veer_identity::accept(far, server.server_config(ALPN, auth)),
    )
}

/// Shakes hands, talks, and says which kind it was: both sides see the same, and the same peers.
async fn meet(client: &Identity, server: &Identity) -> HandshakeKind {
    let id = server.svid().id.clone();
    let (near, far) = meet_at(1, client, server, &[id], ClientAuth::Workloads).await;
    let ((mut near, callee), (mut far, caller)) = (near.unwrap(), far.unwrap());
    talk(&mut near, &mut far).await;
    let caller = caller.unwrap();
    assert_eq!((&callee.id, callee.not_after), (&server.svid().id, server.svid().not_after));
    assert_eq!((&caller.id, caller.not_after), (&client.svid().id, client.svid().not_after));
    let kind = near.get_ref().1.handshake_kind().unwrap();
    assert_eq!(far.get_ref().1.handshake_kind(), Some(kind));
    assert_eq!(near.get_ref().1.alpn_protocol(), Some(ALPN[0]));
    assert_eq!(far.get_ref().1.server_name(), Some("p8080.west"));
    kind
}

fn pair(ca: &Ca) -> (Identity, Identity) {
    (identity(ca, &web("west"), &[ca.bundle()]), identity(ca, &web("west"), &[ca.bundle()]))
}

#[tokio::test]
async fn who_comes_again_is_resumed() {
    let west = ca("west");
    let (client, server) = pair(&west);
    assert_eq!(meet(&client, &server).await, Full);
    for _ in 0..5 {
        assert_eq!(meet(&client, &server).await, Resumed);
    }
}

/// A check of health does that: nothing is said, and the client has closed before the server has seen it come.
#[tokio::test]
async fn who_came_for_the_handshake_alone_has_its_ticket_too() {
    let west = ca("west");
    let (client, server) = pair(&west);
    for expected in [Full, Resumed, Resumed] {
        let id = [web("west")];
        let (near, far) = duplex(64 * 1024);
        let sni = sni();
        let tls = client.client_config(ALPN).toward(([127, 0, 0, 1], 1).into());
        let client = async {
            let (mut near, _) = veer_identity::connect(near, tls, &sni, &id).await.unwrap();
            near.shutdown().await.unwrap();
            // The server just ends.
            assert_eq!(near.read(&mut [0; 8]).await.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
            near.get_ref().1.handshake_kind()
        };
        let server = async {
            let (mut far, _) =
                veer_identity::accept(far, server.server_config(ALPN, ClientAuth::Workloads)).await.unwrap();
            assert_eq!(far.read(&mut [0; 8]).await.unwrap(), 0);
        };
        assert_eq!(tokio::join!(client, server).0, Some(expected));
    }
}

#[tokio::test]
async fn each_ticket_is_used_once() {
    let west = ca("west");
    let (client, server) = pair(&west);
    assert_eq!(meet(&client, &server).await, Full);
    let id = [web("west")];
    // The second of two that begin together has no ticket left; afterwards there are two.
    let again = || meet_at(1, &client, &server, &id, ClientAuth::Workloads);
    let (one, two) = tokio::join!(again(), again());
    let kinds: Vec<_> = [&one, &two].map(|both| both.0.as_ref().unwrap().0.get_ref().1.handshake_kind()).into();
    assert_eq!(kinds, [Some(Resumed), Some(Full)]);
}

#[tokio::test]
async fn tickets_are_for_one_address_and_one_set_of_identities() {
    let west = ca("west");
    let (client, server) = pair(&west);
    assert_eq!(meet(&client, &server).await, Full);
    let kind = async |port, expected: &[SpiffeId]| {
        let (near, far) = meet_at(port, &client, &server, expected, ClientAuth::Workloads).await;
        let (mut near, mut far) = (near.unwrap().0, far.unwrap().0);
        talk(&mut near, &mut far).await;
        near.get_ref().1.handshake_kind().unwrap()
    };
    let (only, more) = (vec![web("west")], vec![web("west"), web("east")]);
    assert_eq!(kind(2, &only).await, Full);
    assert_eq!(kind(1, &more).await, Full);
    assert_eq!(kind(1, &more).await, Resumed);
    assert_eq!(kind(1, &only).await, Resumed);
    // Whoever may not answer is not found by a ticket either.
    let (near, _) = meet_at(1, &client, &server, &[web("east")], ClientAuth::Workloads).await;
    assert!(matches!(near, Err(HandshakeError::Peer(VerifyError::WrongIdentity { .. }))));
}

#[tokio::test]
async fn without_an_address_nothing_is_resumed() {
    let west = ca("west");
    let (client, server) = pair(&west);
    for _ in 0..3 {
        let (near, far) = shake(&client, &server, &[web("west")], ClientAuth::Workloads).await;
        let ((mut near, _), (mut far, _)) = (near.unwrap(), far.unwrap());
        talk(&mut near, &mut far).await;
        assert_eq!(near.get_ref().1.handshake_kind(), Some(Full));
    }
}

/// Each change, on either side, makes the next handshake a full one.
#[tokio::test]
async fn nothing_outlives_a_change() {
    let (west, east) = (ca("west"), ca("east"));
    let (client, server) = pair(&west);
    for side in [&client, &server] {
        let changes: [&dyn Fn(); 3] =
            [&|| side.rotate(svid(&west, &web("west"))), &|| side.trust(east.bundle()).unwrap(), &|| {
                side.distrust(&domain("east"))
            }];
        for change in changes {
            meet(&client, &server).await;
            assert_eq!(meet(&client, &server).await, Resumed);
            change();
            assert_eq!(meet(&client, &server).await, Full);
            assert_eq!(meet(&client, &server).await, Resumed);
        }
    }
}

#[tokio::test]
async fn a_distrusted_caller_is_refused_with_its_ticket() {
    let (west, east) = (ca("west"), ca("east"));
    let bundles = [west.bundle(), east.bundle()];
    let (client, server) = (identity(&west, &web("west"), &bundles), identity(&east, &web("east"), &bundles));
    assert_eq!(meet(&client, &server).await, Full);
    assert_eq!(meet(&client, &server).await, Resumed);
    server.distrust(&domain("west"));
    let (near, far) = meet_at(1, &client, &server, &[web("east")], ClientAuth::Workloads).await;
    assert_eq!(far.unwrap_err().outcome(), "unknown_ca");
    let told = first_read(near).await;
    assert!(matches!(told, HandshakeError::Refused(AlertDescription::UnknownCA)), "{told}");
}

fn short(ca: &Ca, ttl: Duration, bundles: &Ca) -> Identity {
    Identity::new(svid_for(ca, &web("west"), ttl, clock::now()), [bundles.bundle()]).unwrap()
}

fn later(by: Duration) -> impl Fn() -> SystemTime {
    let then = clock::now() + by;
    move || then
}

/// The caller's certificate ends while its ticket would be good: it is judged again, and refused like a new one.
#[tokio::test]
async fn a_ticket_does_not_outlive_the_callers_certificate() {
    let west = ca("west");
    let (client, server) = (short(&west, 30 * MINUTE, &west), short(&west, DEFAULT_TTL, &west));
    assert_eq!(meet(&client, &server).await, Full);
    {
        let _clock = clock::set(later(29 * MINUTE));
        assert_eq!(meet(&client, &server).await, Resumed);
    }
    let _clock = clock::set(later(31 * MINUTE));
    let (near, far) = meet_at(1, &client, &server, &[web("west")], ClientAuth::Workloads).await;
    assert!(matches!(far, Err(HandshakeError::Peer(VerifyError::Expired { .. }))), "{far:?}");
    let told = first_read(near).await;
    assert!(matches!(told, HandshakeError::Refused(AlertDescription::CertificateExpired)), "{told}");
}

#[tokio::test]
async fn a_ticket_does_not_outlive_the_callees_certificate() {
    let west = ca("west");
    let (client, server) = (short(&west, DEFAULT_TTL, &west), short(&west, 30 * MINUTE, &west));
    assert_eq!(meet(&client, &server).await, Full);
    let _clock = clock::set(later(31 * MINUTE));
    let (near, far) = meet_at(1, &client, &server, &[web("west")], ClientAuth::Workloads).await;
    let error = near.unwrap_err();
    assert!(matches!(error, HandshakeError::Peer(VerifyError::Expired { .. })), "{error}");
    // The server is told, by its first read.
    let (mut far, _) = far.unwrap();
    let told = tokio::io::AsyncReadExt::read(&mut far, &mut [0; 1]).await.unwrap_err();
    let told = HandshakeError::from_io(told);
    assert!(matches!(told, HandshakeError::Refused(AlertDescription::CertificateExpired)), "{told}");
}

#[tokio::test]
async fn tickets_end() {
    let west = ca("west");
    let (client, server) = pair(&west);
    assert_eq!(meet(&client, &server).await, Full);
    {
        let _clock = clock::set(later(119 * MINUTE));
        assert_eq!(meet(&client, &server).await, Resumed);
    }
    let _clock = clock::set(later(250 * MINUTE));
    assert_eq!(meet(&client, &server).await, Full);
}

/// A ticket of a door that is open to Veer's own identities is no good at the door for workloads.
#[tokio::test]
async fn tickets_are_for_the_door_that_gave_them() {
    let west = ca("west");
    let server = identity(&west, &web("west"), &[west.bundle()]);
    let gateway = identity(&west, &SpiffeId::gateway(domain("west")), &[west.bundle()]);
    let expected = [web("west")];
    for kind in [Full, Resumed] {
        let (near, far) = meet_at(1, &gateway, &server, &expected, ClientAuth::Required).await;
        let ((mut near, _), (mut far, _)) = (near.unwrap(), far.unwrap());
        talk(&mut near, &mut far).await;
        assert_eq!(near.get_ref().1.handshake_kind(), Some(kind));
    }
    let (near, far) = meet_at(1, &gateway, &server, &expected, ClientAuth::Workloads).await;
    assert!(matches!(far, Err(HandshakeError::Peer(VerifyError::SystemIdentity(_)))), "{far:?}");
    first_read(near).await;
}

/// Another process under the same address, as after a restart: it cannot read the ticket, and shows its certificate.
#[tokio::test]
async fn a_stranger_cannot_use_a_ticket() {
    let west = ca("west");
    let (client, server) = pair(&west);
    assert_eq!(meet(&client, &server).await, Full);
    let restarted = identity(&west, &web("west"), &[west.bundle()]);
    assert_eq!(meet(&client, &restarted).await, Full);
    let thief = ca("west");
    let thief = identity(&thief, &web("west"), &[thief.bundle(), west.bundle()]);
    let (near, _) = meet_at(1, &client, &thief, &[web("west")], ClientAuth::Workloads).await;
    assert!(matches!(near, Err(HandshakeError::Peer(VerifyError::NotSigned { .. }))));
}

/// What a client holds back until it has something to say arrives with it.
#[tokio::test]
async fn the_last_flight_may_leave_with_the_first_bytes() {
    let west = ca("west");
    let (client, server) = pair(&west);
    for kind in [Full, Resumed, Resumed] {
        let (near, far) = duplex(64 * 1024);
        let (sni, expected) = (sni(), [web("west")]);
        let tls = client.client_config(ALPN).toward(([127, 0, 0, 1], 1).into()).holding_last_flight();
        let (near, far) = tokio::join!(
            async {
                let mut near = veer_identity::connect(near, tls, &sni, &expected).await.unwrap().0;
                assert!(!near.is_flushed());
                use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
                near.write_all(b"ping").await.unwrap();
                near.flush().await.unwrap();
                let mut answer = [0; 4];
                near.read_exact(&mut answer).await.unwrap();
                near
            },
            async {
                use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
                let mut far =
                    veer_identity::accept(far, server.server_config(ALPN, ClientAuth::Workloads)).await.unwrap().0;
                let mut heard = [0; 4];
                far.read_exact(&mut heard).await.unwrap();
                far.write_all(b"pong").await.unwrap();
                far.flush().await.unwrap();
                far
            }
        );
        assert_eq!(near.get_ref().1.handshake_kind(), Some(kind));
        assert!(far.is_flushed());
    }
}
