//! Clients outside of the mesh that show certificates, or do not (GEP-91): tokio-rustls calls.

use std::sync::Arc;

use rcgen::{ExtendedKeyUsagePurpose, SanType};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use veer_identity::{HandshakeError, PublicCertificate, PublicClients, ServerTls};

use crate::support::*;

fn names() -> Vec<SanType> {
    vec![SanType::DnsName("ada.example".try_into().unwrap())]
}

fn server(clients: Option<PublicClients>) -> Arc<ServerTls> {
    let shown = rcgen::generate_simple_self_signed(vec!["shop.example".to_owned()]).unwrap();
    let shown = PublicCertificate::from_pem(&shown.cert.pem(), &shown.signing_key.serialize_pem()).unwrap();
    Arc::new(ServerTls::public(vec![shown], &[], clients))
}

/// A client calls; whether both sides could say something.
async fn call(server: &Arc<ServerTls>, shows: Option<&Forged>) -> Result<(), HandshakeError> {
    let (near, far) = duplex(64 * 1024);
    let config = rustls::ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(BelievesAll));
    let config = match shows {
        Some(shown) => config.with_client_auth_cert(shown.chain.clone(), shown.key.der().clone_key()).unwrap(),
        None => config.with_no_client_auth(),
    };
    let name = ServerName::try_from("shop.example").unwrap();
    let (client, server) = tokio::join!(
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, near),
        veer_identity::accept(far, Arc::clone(server)),
    );
    let mut client = client.unwrap();
    let (mut server, peer) = match server {
        Ok(done) => done,
        Err(error) => {
            assert!(client.read(&mut [0; 1]).await.is_err(), "the client is told");
            return Err(error);
        }
    };
    assert_eq!(peer, None, "nobody of the mesh");
    client.write_all(b"ping").await.unwrap();
    let mut read = [0; 4];
    server.read_exact(&mut read).await.unwrap();
    server.write_all(b"pong").await.unwrap();
    server.flush().await.unwrap();
    client.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"pong");
    Ok(())
}

#[tokio::test]
async fn only_clients_of_the_authorities_are_let_in() {
    let (ours, second, foreign) = (RawCa::root(None), RawCa::root(None), RawCa::root(None));
    let both = format!("{}{}", pem(&ours.der), pem(&second.der));
    let server = server(Some(PublicClients::of_authorities(&both).unwrap()));
    let through = ours.below(None);
    let mut by_intermediate = through.leaf(&names(), |_| {});
    by_intermediate.chain.push(through.der.clone());
    for good in [ours.leaf(&names(), |_| {}), second.leaf(&names(), |_| {}), by_intermediate] {
        call(&server, Some(&good)).await.unwrap();
    }
    let ended = ours.leaf(&names(), |params| {
        params.not_after = (veer_identity::clock::now() - std::time::Duration::from_secs(10)).into();
    });
    let for_servers =
        ours.leaf(&names(), |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    for (bad, outcome) in [
        (Some(foreign.leaf(&names(), |_| {})), "unknown_ca"),
        (Some(ended), "expired"),
        (Some(for_servers), "bad_certificate"),
        (None, "no_certificate"),
    ] {
        assert_eq!(call(&server, bad.as_ref()).await.unwrap_err().outcome(), outcome);
    }
}

#[tokio::test]
async fn the_insecure_fallback_lets_everybody_in_and_no_authority_nobody() {
    let foreign = RawCa::root(None).leaf(&names(), |_| {});
    let fallback = server(Some(PublicClients::anybody()));
    call(&fallback, Some(&foreign)).await.unwrap();
    call(&fallback, None).await.unwrap();
    // Who is not asked shows none.
    call(&server(None), Some(&foreign)).await.unwrap();
    for text in ["", "nothing", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        assert!(PublicClients::of_authorities(text).is_err(), "{text:?}");
    }
}
