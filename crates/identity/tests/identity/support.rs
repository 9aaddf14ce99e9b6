//! Clusters, handshakes between them, and certificates that no CA of ours would issue.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use veer_core::sni::Sni;
use veer_core::{ClusterName, SpiffeId, TrustDomain};
use veer_identity::ca::DEFAULT_TTL;
use veer_identity::{
    ALPN_H2, Ca, ClientAuth, HandshakeError, Identity, KeyRequest, PrivateKey, Svid, TlsStream, TrustBundle,
    VerifiedPeer, clock,
};

pub const ALPN: &[&[u8]] = &[ALPN_H2];

pub fn domain(name: &str) -> TrustDomain {
    TrustDomain::new(&format!("{name}.example")).unwrap()
}

pub fn web(name: &str) -> SpiffeId {
    SpiffeId::new(domain(name), "shop", "web")
}

pub fn ca(name: &str) -> Ca {
    Ca::create(&domain(name), clock::now()).unwrap()
}

pub fn sni() -> Sni {
    Sni::Direct { port: 8080, cluster: ClusterName::new("west").unwrap() }
}

pub fn svid(ca: &Ca, id: &SpiffeId) -> Svid {
    svid_for(ca, id, DEFAULT_TTL, clock::now())
}

pub fn svid_for(ca: &Ca, id: &SpiffeId, ttl: Duration, now: SystemTime) -> Svid {
    let request = KeyRequest::new().unwrap();
    let chain = ca.sign(&request.csr_der, id, ttl, now).unwrap();
    Svid::from_chain(request.key, chain).unwrap()
}

pub fn identity(ca: &Ca, id: &SpiffeId, bundles: &[TrustBundle]) -> Identity {
    Identity::new(svid(ca, id), bundles.iter().cloned()).unwrap()
}

pub type ClientStream = TlsStream<DuplexStream>;
pub type ServerStream = TlsStream<DuplexStream>;
pub type ClientSide = Result<(ClientStream, VerifiedPeer), HandshakeError>;
pub type ServerSide = Result<(ServerStream, Option<VerifiedPeer>), HandshakeError>;

/// Shakes hands; both sides' outcomes.
pub async fn shake(
    client: &Identity,
    server: &Identity,
    expected: &[SpiffeId],
    auth: ClientAuth,
) -> (ClientSide, ServerSide) {
    let (near, far) = duplex(64 * 1024);
    let sni = sni();
    tokio::join!(
        veer_identity::connect(near, client.client_config(ALPN), &sni, expected),
        veer_identity::accept(far, server.server_config(ALPN, auth)),
    )
}

/// Both sides believe each other and bytes go both ways.
pub async fn talk(client: &mut ClientStream, server: &mut ServerStream) {
    let mut buffer = [0; 4];
    client.write_all(b"ping").await.unwrap();
    client.flush().await.unwrap();
    server.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"ping");
    server.write_all(b"pong").await.unwrap();
    server.flush().await.unwrap();
    client.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"pong");
}

/// What the first read says to a client whose handshake seemed to succeed.
pub async fn first_read(client: ClientSide) -> HandshakeError {
    match client {
        Err(error) => error,
        Ok((mut stream, _)) => match stream.read(&mut [0; 1]).await {
            Ok(n) => panic!("{n} bytes were read from a server that refuses us"),
            Err(error) => HandshakeError::from_io(error),
        },
    }
}

/// A chain that somebody made without our CA's rules.
#[derive(Clone)]
pub struct Forged {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKey,
}

/// An authority with its key at hand, for certificates that ours would refuse to issue.
pub struct RawCa {
    pub der: CertificateDer<'static>,
    pub issuer: Issuer<'static, KeyPair>,
}

impl RawCa {
    pub fn root(uri: Option<&str>) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = ca_params(uri);
        let der = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::from_ca_cert_der(&der, key).unwrap(), der }
    }

    /// One whose dates are over.
    pub fn ended_root(uri: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = ca_params(Some(uri));
        params.not_before = (clock::now() - Duration::from_secs(7200)).into();
        params.not_after = (clock::now() - Duration::from_secs(3600)).into();
        let der = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::from_ca_cert_der(&der, key).unwrap(), der }
    }

    pub fn below(&self, uri: Option<&str>) -> Self {
        let key = KeyPair::generate().unwrap();
        let der = ca_params(uri).signed_by(&key, &self.issuer).unwrap().der().clone();
        Self { issuer: Issuer::from_ca_cert_der(&der, key).unwrap(), der }
    }

    /// A leaf with these names and whatever `change` does to it.
    pub fn leaf(&self, names: &[SanType], change: impl FnOnce(&mut CertificateParams)) -> Forged {
        let key = KeyPair::generate().unwrap();
        let mut params = leaf_params(names);
        change(&mut params);
        let der = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Forged { chain: vec![der], key: PrivateKey::new(PrivateKeyDer::Pkcs8(key.serialize_der().into())) }
    }

    pub fn bundle(&self, name: &str) -> TrustBundle {
        TrustBundle { trust_domain: domain(name), roots_pem: pem(&self.der) }
    }
}

fn ca_params(uri: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    let serial = KeyPair::generate().unwrap().public_key_raw()[1..9].to_vec();
    params.distinguished_name.push(rcgen::DnType::CommonName, format!("{serial:?}"));
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.subject_alt_names = uri.map(|uri| SanType::URI(uri.try_into().unwrap())).into_iter().collect();
    params
}

pub fn leaf_params(names: &[SanType]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = names.to_vec();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = (clock::now() - Duration::from_secs(60)).into();
    params.not_after = (clock::now() + Duration::from_secs(3600)).into();
    params
}

pub fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub fn pem(der: &CertificateDer<'_>) -> String {
    use base64::Engine;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
}

impl Forged {
    /// What an honest client says to a server with this chain.
    pub async fn as_server(&self, client: &Identity, expected: &[SpiffeId]) -> HandshakeError {
        let (near, far) = duplex(64 * 1024);
        let config = rustls::ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.der().clone_key())
            .unwrap();
        let mut config = config;
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        let sni = sni();
        let (client, _server) = tokio::join!(
            veer_identity::connect(near, client.client_config(ALPN), &sni, expected),
            tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(far),
        );
        client.map(|(_, peer)| peer).expect_err("a forged chain must be refused")
    }

    /// What an honest server says to a client with this chain.
    pub async fn as_client(&self, server: &Identity, auth: ClientAuth) -> ServerSide {
        let (near, far) = duplex(64 * 1024);
        let mut config = rustls::ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(BelievesAll))
            .with_client_auth_cert(self.chain.clone(), self.key.der().clone_key())
            .unwrap();
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        let name = ServerName::try_from("p80.west").unwrap();
        let (_client, server) = tokio::join!(
            tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, near),
            veer_identity::accept(far, server.server_config(ALPN, auth)),
        );
        server
    }
}

/// A client that does not care who answers.
#[derive(Debug)]
pub struct BelievesAll;

impl ServerCertVerifier for BelievesAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
