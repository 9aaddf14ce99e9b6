//! rustls' seams filled with our own judgement.

use std::cell::RefCell;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::crypto::tls13::OkmBlock;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DistinguishedName, KeyLog, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use veer_core::SpiffeId;

use crate::config::ClientAuth;
use crate::error::VerifyError;
use crate::join::Pin;
use crate::signatures::tls13_signatures;
use crate::trust::{Judged, TrustStore, Usage};

/// What a verifier found.
pub(crate) type Verdict = Result<Judged, VerifyError>;

/// What rustls asked of us in a step of a handshake, and what it does not pass on: its errors have no room for ours, its
/// connections none for who the peer is, and unbuffered ones do not tell the server name. The secrets it passes on in a form
/// that keeps the peer's certificates with them.
#[derive(Default)]
pub(crate) struct Notes {
    pub(crate) verdict: Option<Verdict>,
    pub(crate) server_name: Option<Box<str>>,
    /// The client's `application_traffic_secret_0` (RFC 8446 §7.1).
    pub(crate) client_secret: Option<OkmBlock>,
    /// The server's.
    pub(crate) server_secret: Option<OkmBlock>,
}

thread_local! {
    static NOTES: RefCell<Notes> = RefCell::default();
}

impl Notes {
    /// Runs a step and takes what it left. rustls asks within the step and on its thread.
    pub(crate) fn of<T>(step: impl FnOnce() -> T) -> (T, Self) {
        NOTES.take();
        let done = step();
        (done, NOTES.take())
    }

    /// What a later step left replaces what was there.
    pub(crate) fn add(&mut self, later: Self) {
        let earlier = std::mem::take(self);
        self.verdict = later.verdict.or(earlier.verdict);
        self.server_name = later.server_name.or(earlier.server_name);
        self.client_secret = later.client_secret.or(earlier.client_secret);
        self.server_secret = later.server_secret.or(earlier.server_secret);
    }
}

/// Notes the secrets from which keys of data come.
#[derive(Debug)]
pub(crate) struct SecretNotes;

impl KeyLog for SecretNotes {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        let secret = Some(OkmBlock::new(secret));
        NOTES.with_borrow_mut(|notes| match label {
            "CLIENT_TRAFFIC_SECRET_0" => notes.client_secret = secret,
            "SERVER_TRAFFIC_SECRET_0" => notes.server_secret = secret,
            _ => {}
        });
    }

    fn will_log(&self, label: &str) -> bool {
        matches!(label, "CLIENT_TRAFFIC_SECRET_0" | "SERVER_TRAFFIC_SECRET_0")
    }
}

/// Shows the SVID of the moment, or nothing.
#[derive(Debug)]
pub(crate) struct Resolver(pub(crate) Option<Arc<ArcSwap<CertifiedKey>>>);

impl ResolvesClientCert for Resolver {
    fn resolve(&self, _hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let key = self.0.as_ref()?.load_full();
        key.key.choose_scheme(schemes).is_some().then_some(key)
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        NOTES.with_borrow_mut(|notes| notes.server_name = hello.server_name().map(Into::into));
        self.0.as_ref().map(|key| key.load_full())
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

/// A client's judgement of the server: the chain, and exactly these identities. Judged inside the handshake, so that a wrong
/// server gets an alert and never sees our certificate.
#[derive(Debug)]
pub(crate) struct ServerVerifier {
    pub(crate) anchor: Anchor,
    pub(crate) expected: Box<[SpiffeId]>,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
}

impl ServerVerifier {
    /// The judgement; also of a resumed connection, by the chain that its first handshake showed.
    pub(crate) fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Verdict {
        match &self.anchor {
            Anchor::Pin(pin) => pin.judge(leaf, intermediates, now),
            Anchor::Trust(trust) => {
                let judged = trust.load().judge(leaf, intermediates, Usage::Server, now)?;
                if self.expected.contains(&judged.id) {
                    return Ok(judged);
                }
                Err(VerifyError::WrongIdentity { found: judged.id, expected: self.expected.to_vec() })
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
        leave(self.judge(end_entity, intermediates, now), now).map(|()| ServerCertVerified::assertion())
    }

    tls13_signatures!(algorithms);
}

/// A server's judgement of its callers.
#[derive(Debug)]
pub(crate) struct ClientVerifier {
    pub(crate) trust: Arc<ArcSwap<TrustStore>>,
    pub(crate) auth: ClientAuth,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
}

impl ClientVerifier {
    /// The judgement; also of a resumed connection, by the chain that its first handshake showed.
    pub(crate) fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Verdict {
        let judged = self.trust.load().judge(leaf, intermediates, Usage::Client, now)?;
        match self.auth {
            ClientAuth::Workloads if judged.id.is_system() => Err(VerifyError::SystemIdentity(judged.id)),
            _ => Ok(judged),
        }
    }
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
        leave(self.judge(end_entity, intermediates, now), now).map(|()| ClientCertVerified::assertion())
    }

    tls13_signatures!(algorithms);
}

/// Notes the verdict, and tells rustls.
fn leave(verdict: Verdict, now: UnixTime) -> Result<(), rustls::Error> {
    let told = match &verdict {
        Ok(_) => Ok(()),
        Err(error) => Err(to_rustls(error.clone(), now)),
    };
    NOTES.with_borrow_mut(|notes| notes.verdict = Some(verdict));
    told
}

/// Chosen by the alert that it makes rustls send (the other side reads nothing else), with our own error inside where
/// rustls has room for it.
pub(crate) fn to_rustls(error: VerifyError, now: UnixTime) -> rustls::Error {
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
