//! What cannot be seen from outside: key limits, buffers, and peers that break the rules.

use proptest::prelude::*;
use rustls::{AlertDescription, ContentType};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use veer_core::sni::Sni;
use veer_core::{ClusterName, SpiffeId, TrustDomain};

use super::TlsStream;
use crate::ca::DEFAULT_TTL;
use crate::{ALPN_TCP, Ca, ClientAuth, HandshakeError, Identity, KeyRequest, Svid, clock};

const ALPN: &[&[u8]] = &[ALPN_TCP];

async fn pair() -> (TlsStream<DuplexStream>, TlsStream<DuplexStream>) {
    let domain = TrustDomain::new("west.example").unwrap();
    let ca = Ca::create(&domain, clock::now()).unwrap();
    let id = SpiffeId::new(domain, "shop", "web");
    let request = KeyRequest::new().unwrap();
    let chain = ca.sign(&request.csr_der, &id, DEFAULT_TTL, clock::now()).unwrap();
    let both = Identity::new(Svid::from_chain(request.key, chain).unwrap(), [ca.bundle()]).unwrap();
    let sni = Sni::Direct { port: 80, cluster: ClusterName::new("west").unwrap() };
    let (near, far) = duplex(1 << 20);
    let expected = [id];
    let (near, far) = tokio::join!(
        crate::connect(near, both.client_config(ALPN), &sni, &expected),
        crate::accept(far, both.server_config(ALPN, ClientAuth::Workloads)),
    );
    (near.unwrap().0, far.unwrap().0)
}

async fn say(from: &mut TlsStream<DuplexStream>, to: &mut TlsStream<DuplexStream>, what: &[u8]) {
    from.write_all(what).await.unwrap();
    from.flush().await.unwrap();
    let mut heard = vec![0; what.len()];
    to.read_exact(&mut heard).await.unwrap();
    assert!(heard == what);
}

/// A record that the honest side of the wire would not make, sealed with its keys; what the other side says to it.
async fn told(kind: ContentType, message: &[u8]) -> HandshakeError {
    let (mut near, mut far) = pair().await;
    say(&mut far, &mut near, b"first the ticket").await;
    near.wire().push_raw(kind, message);
    near.flush().await.unwrap();
    let error = HandshakeError::from_io(far.read(&mut [0; 10]).await.unwrap_err());
    let again = HandshakeError::from_io(far.read(&mut [0; 10]).await.unwrap_err());
    assert_eq!(error.to_string(), again.to_string());
    assert!(far.write(b"more").await.is_err());
    match near.read(&mut [0; 10]).await {
        Err(alert) => HandshakeError::from_io(alert),
        Ok(count) => panic!("{count} bytes came from a side that refuses us"),
    }
}

#[tokio::test]
async fn who_breaks_the_rules_is_told_which() {
    use AlertDescription as Alert;
    for (kind, message, alert) in [
        // A NewSessionTicket for a server, a ClientHello, half a key update with data behind it, a key update that asks for 7.
        (ContentType::Handshake, &[4, 0, 0, 0][..], Alert::UnexpectedMessage),
        (ContentType::Handshake, &[1, 0, 0, 1, 0], Alert::UnexpectedMessage),
        (ContentType::Handshake, &[24, 0, 0, 1, 0, 24], Alert::UnexpectedMessage),
        (ContentType::Handshake, &[24, 0, 0, 1, 7], Alert::IllegalParameter),
        (ContentType::Handshake, &[24, 2, 0, 0, 7], Alert::DecodeError),
        (ContentType::Handshake, &[], Alert::UnexpectedMessage),
        (ContentType::ChangeCipherSpec, &[1], Alert::UnexpectedMessage),
        (ContentType::Heartbeat, &[1, 2, 3], Alert::UnexpectedMessage),
        (ContentType::Alert, &[1], Alert::DecodeError),
    ] {
        match told(kind, message).await {
            HandshakeError::Refused(found) => assert_eq!(found, alert, "{kind:?} {message:?}"),
            other => panic!("{kind:?} {message:?}: {other}"),
        }
    }
}

#[tokio::test]
async fn messages_may_be_spread_over_records_but_not_mixed() {
    let (mut near, mut far) = pair().await;
    near.wire().push_raw(ContentType::Handshake, &[24, 0]);
    near.wire().push_raw(ContentType::Handshake, &[0, 1]);
    near.write_all(b"between").await.unwrap();
    near.flush().await.unwrap();
    far.read(&mut [0; 10]).await.unwrap_err();
}

#[tokio::test]
async fn nobody_is_kept_busy_with_nothing() {
    for (kind, message) in [(ContentType::ApplicationData, &[][..]), (ContentType::Alert, &[1, 90])] {
        let (mut near, mut far) = pair().await;
        for _ in 0..32 {
            near.wire().push_raw(kind, message);
        }
        say(&mut near, &mut far, b"after a little of it").await;
        for _ in 0..33 {
            near.wire().push_raw(kind, message);
        }
        near.flush().await.unwrap();
        far.read(&mut [0; 10]).await.unwrap_err();
    }
}

#[tokio::test]
async fn what_was_good_is_read_before_the_error() {
    let (mut near, mut far) = pair().await;
    near.write_all(b"good").await.unwrap();
    near.wire().push_raw(ContentType::Heartbeat, b"bad");
    near.flush().await.unwrap();
    let mut heard = [0; 100];
    assert_eq!(far.read(&mut heard).await.unwrap(), 4);
    let error = HandshakeError::from_io(far.read(&mut heard).await.unwrap_err());
    assert!(matches!(error, HandshakeError::Protocol(_)), "{error}");
    near.read(&mut heard).await.unwrap_err();
}

#[tokio::test]
async fn keys_are_changed_before_they_are_used_up() {
    let (mut near, mut far) = pair().await;
    near.wire().sealer().set_limit(3);
    far.wire().sealer().set_limit(5);
    for round in 0..20 {
        say(&mut near, &mut far, &vec![round; 70_000]).await;
        say(&mut far, &mut near, &vec![round; 40_000]).await;
        assert!(near.wire().sealer().sealed() <= 3 && far.wire().sealer().sealed() <= 5);
    }
}

#[tokio::test]
async fn an_idle_stream_has_no_buffer() {
    let (mut near, mut far) = pair().await;
    for size in [1, 20_000, 200_000] {
        say(&mut near, &mut far, &vec![7; size]).await;
        say(&mut far, &mut near, &vec![7; size]).await;
        for stream in [&mut near, &mut far] {
            assert_eq!(stream.wire().inbox.held() + stream.wire().outbox.held(), 0);
        }
    }
    // A record of which a part has come waits in memory of its size.
    let (mut near, mut far) = pair().await;
    say(&mut far, &mut near, b"the ticket comes with this").await;
    let (mut raw, mut wire) = far.into_parts();
    let mut record = vec![0; 100 + super::record::OVERHEAD];
    wire.sealer().seal_from(&[7; 100], &mut record).unwrap();
    raw.write_all(&record[..50]).await.unwrap();
    let mut heard = [0; 100];
    let waiting = tokio::time::timeout(std::time::Duration::from_millis(1), near.read_exact(&mut heard)).await;
    assert!(waiting.is_err());
    assert_eq!(near.wire().inbox.held(), 50);
    raw.write_all(&record[50..]).await.unwrap();
    near.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, [7; 100]);
    assert_eq!(near.wire().inbox.held(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever comes instead of records: an error, never a panic, never data.
    #[test]
    fn junk_is_refused(junk in proptest::collection::vec(any::<u8>(), 1..300), dressed in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (mut near, far) = pair().await;
            let (mut raw, _) = far.into_parts();
            let mut bytes = junk;
            if dressed {
                let length = (bytes.len() as u16).to_be_bytes();
                bytes.splice(0..0, [23, 3, 3, length[0], length[1]]);
            }
            raw.write_all(&bytes).await.unwrap();
            drop(raw);
            assert!(near.read(&mut [0; 400]).await.is_err());
        });
    }
}
