//! Backends outside of the mesh, by the names and authorities of a BackendTLSPolicy: tokio-rustls answers.

use std::sync::Arc;

use rcgen::SanType;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use veer_core::backend_tls::{Authorities, BackendTls, SubjectName};
use veer_identity::{BackendClient, HandshakeError, PublicCertificate, Spoken};

use crate::support::*;

fn policy(authorities: Authorities, names: &[SubjectName]) -> BackendTls {
    BackendTls { service_port: 443, hostname: "backend.shop.example".into(), names: names.to_vec(), authorities }
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

/// A backend with this certificate that takes these protocols, and wants a certificate of this authority.
fn backend(shown: &Forged, alpn: &[&[u8]], clients: Option<&RawCa>) -> Arc<rustls::ServerConfig> {
    let config = rustls::ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13]);
    let config = match clients {
        None => config.with_no_client_auth(),
        Some(authority) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(authority.der.clone()).unwrap();
            let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
            config.with_client_cert_verifier(verifier)
        }
    };
    let mut config = config.with_single_cert(shown.chain.clone(), shown.key.der().clone_key()).unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

/// Calls and says something; the server name that the backend saw.
async fn call(
    client: &BackendClient,
    spoken: Spoken,
    server: Arc<rustls::ServerConfig>,
) -> Result<Option<String>, HandshakeError> {
    let (near, far) = duplex(64 * 1024);
    let (client, server) =
        tokio::join!(client.connect(near, spoken), tokio_rustls::TlsAcceptor::from(server).accept(far));
    let mut client = client?;
    let mut server = match server {
        Ok(server) => server,
        Err(error) => {
            let told = client.read(&mut [0; 1]).await.expect_err("the client is told");
            return Err(HandshakeError::Protocol(format!("{error}, {told}")));
        }
    };
    client.write_all(b"ping").await.unwrap();
    client.flush().await.unwrap();
    let mut read = [0; 4];
    server.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"ping");
    Ok(server.get_ref().1.server_name().map(ToOwned::to_owned))
}

#[tokio::test]
async fn backends_must_have_the_name_and_an_authority_that_vouches() {
    let (ours, foreign) = (RawCa::root(None), RawCa::root(None));
    let believed = Authorities::Pem(pem(&ours.der).into());
    let id = "spiffe://elsewhere.example/ns/shop/sa/web";
    let host = |name: &str| SubjectName::Hostname(name.into());
    for (shown, names, outcome) in [
        (ours.leaf(&[dns("backend.shop.example")], |_| {}), vec![], "ok"),
        (ours.leaf(&[dns("*.shop.example")], |_| {}), vec![], "ok"),
        (ours.leaf(&[dns("other.example")], |_| {}), vec![], "bad_certificate"),
        (foreign.leaf(&[dns("backend.shop.example")], |_| {}), vec![], "unknown_ca"),
        // Names that are written stand in place of the host name.
        (ours.leaf(&[dns("other.example")], |_| {}), vec![host("no.example"), host("other.example")], "ok"),
        (ours.leaf(&[dns("backend.shop.example")], |_| {}), vec![host("other.example")], "bad_certificate"),
        (ours.leaf(&[dns("a.b.example")], |_| {}), vec![host("*.b.example")], "ok"),
        (ours.leaf(&[dns("a.a.b.example")], |_| {}), vec![host("*.b.example")], "bad_certificate"),
        (ours.leaf(&[uri(id)], |_| {}), vec![SubjectName::Uri(id.into())], "ok"),
        (ours.leaf(&[uri(id)], |_| {}), vec![SubjectName::Uri(format!("{id}2").into())], "bad_certificate"),
        (foreign.leaf(&[uri(id)], |_| {}), vec![SubjectName::Uri(id.into())], "unknown_ca"),
    ] {
        let client = BackendClient::new(&policy(believed.clone(), &names), None).unwrap();
        match call(&client, Spoken::Http1, backend(&shown, &[], None)).await {
            Ok(asked) => assert_eq!((asked.as_deref(), outcome), (Some("backend.shop.example"), "ok"), "{names:?}"),
            Err(error) => assert_eq!(error.outcome(), outcome, "{names:?}: {error}"),
        }
    }
}

#[tokio::test]
async fn a_policy_that_is_broken_makes_no_client() {
    for authorities in [
        Authorities::Nobody("its ConfigMap is missing".into()),
        Authorities::Pem("".into()),
        Authorities::Pem("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into()),
    ] {
        assert!(BackendClient::new(&policy(authorities, &[]), None).is_err());
    }
    let mut nameless = policy(Authorities::Pem(pem(&RawCa::root(None).der).into()), &[]);
    nameless.hostname = "not a name".into();
    assert!(BackendClient::new(&nameless, None).is_err());
}

#[tokio::test]
async fn what_is_spoken_is_agreed_upon_and_a_certificate_is_shown_to_who_asks() {
    let ours = RawCa::root(None);
    let shown = ours.leaf(&[dns("backend.shop.example")], |_| {});
    let policy = policy(Authorities::Pem(pem(&ours.der).into()), &[]);
    let client = BackendClient::new(&policy, None).unwrap();
    let both: &[&[u8]] = &[b"h2", b"http/1.1"];
    for (spoken, alpn, fine) in [
        (Spoken::Http2, both, true),
        (Spoken::Http1, both, true),
        (Spoken::Bytes, both, true),
        (Spoken::Http1, &[], true),
        // Without having chosen HTTP/2 nobody speaks it over TLS.
        (Spoken::Http2, &[], false),
        (Spoken::Http2, &[b"http/1.1"], false),
    ] {
        assert_eq!(call(&client, spoken, backend(&shown, alpn, None)).await.is_ok(), fine, "{spoken:?} {alpn:?}");
    }

    let key = rcgen::KeyPair::generate().unwrap();
    let own = leaf_params(&[dns("gateway.example")]).signed_by(&key, &ours.issuer).unwrap();
    let own = PublicCertificate::from_pem(&own.pem(), &key.serialize_pem()).unwrap();
    let asking = backend(&shown, &[], Some(&ours));
    assert!(call(&client, Spoken::Http1, Arc::clone(&asking)).await.is_err(), "nothing is shown");
    let client = BackendClient::new(&policy, Some(&own)).unwrap();
    call(&client, Spoken::Http1, asking).await.unwrap();
    call(&client, Spoken::Http1, backend(&shown, &[], None)).await.unwrap();
}
