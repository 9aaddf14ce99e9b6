//! rustls' seams filled with our own judgement.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use veer_core::SpiffeId;

use crate::config::ClientAuth;
use crate::error::VerifyError;
use crate::join::Pin;
use crate::trust::{TrustStore, Usage};

/// Shows the SVID of the moment.
#[derive(Debug)]
pub(crate) struct Resolver(pub(crate) Arc<ArcSwap<CertifiedKey>>);

impl ResolvesClientCert for Resolver {
    fn resolve(&self, _hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let key = self.0.load_full();
        key.key.choose_scheme(schemes).is_some().then_some(key)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// What a client believes of a server.
#[derive(Debug, Clone)]
pub(crate) enum Anchor {
    /// The bundles held at the moment of the handshake.
    Trust(Arc<ArcSwap<TrustStore>>),
    /// One root, known by hash.
    Pin(Pin),
}

/// One connection's judgement of the server: the chain, and exactly these identities. Judged inside the handshake, so that
/// a wrong server gets an alert and never sees our certificate.
#[derive(Debug)]
pub(crate) struct ServerVerifier {
    pub(crate) anchor: Anchor,
    pub(crate) expected: Vec<SpiffeId>,
    pub(crate) found: OnceLock<Result<SpiffeId, VerifyError>>,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
}

impl ServerVerifier {
    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<SpiffeId, VerifyError> {
        match &self.anchor {
            Anchor::Pin(pin) => pin.verify(leaf, intermediates, now),
            Anchor::Trust(trust) => {
                let id = trust.load().verify(leaf, intermediates, Usage::Server, now)?;
                if self.expected.contains(&id) {
                    return Ok(id);
                }
                Err(VerifyError::WrongIdentity { found: id, expected: self.expected.clone() })
            }
        }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = self.found.get_or_init(|| self.judge(end_entity, intermediates, now));
        match found {
            Ok(_) => Ok(ServerCertVerified::assertion()),
            Err(error) => Err(to_rustls(error.clone(), now)),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A server's judgement of its callers.
#[derive(Debug)]
pub(crate) struct ClientVerifier {
    pub(crate) trust: Arc<ArcSwap<TrustStore>>,
    pub(crate) auth: ClientAuth,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.auth != ClientAuth::Optional
    }

    // No hints: a caller has one certificate, and the list of our peers is nobody's business.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let judged =
            self.trust.load().verify(end_entity, intermediates, Usage::Client, now).and_then(|id| match self.auth {
                ClientAuth::Workloads if id.is_system() => Err(VerifyError::SystemIdentity(id)),
                _ => Ok(id),
            });
        match judged {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(error) => Err(to_rustls(error, now)),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Chosen by the alert that it makes rustls send (the other side reads nothing else), with our own error inside where
/// rustls has room for it.
fn to_rustls(error: VerifyError, now: UnixTime) -> rustls::Error {
    let certificate = match &error {
        VerifyError::Expired { not_after, .. } => {
            CertificateError::ExpiredContext { time: now, not_after: unix(*not_after) }
        }
        VerifyError::NotYetValid { not_before, .. } => {
            CertificateError::NotValidYetContext { time: now, not_before: unix(*not_before) }
        }
        VerifyError::UnknownTrustDomain(_) | VerifyError::NotSigned { .. } | VerifyError::NotPinned => {
            CertificateError::UnknownIssuer
        }
        _ => CertificateError::Other(OtherError(Arc::new(error))),
    };
    certificate.into()
}

fn unix(time: std::time::SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default())
}
