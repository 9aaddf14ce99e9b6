//! TLS toward backends outside of the mesh (Gateway API, BackendTLSPolicy): names and authorities of the user's choice.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ResolvesClientCert, Resumption, UnbufferedClientConnection, verify_server_cert_signed_by_trust_anchor,
    verify_server_name,
};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use veer_core::backend_tls::{Authorities, BackendTls, SubjectName};

use crate::clock::TlsClock;
use crate::config::provider;
use crate::error::Error;
use crate::handshake::HandshakeError;
use crate::public::{PublicCertificate, roots};
use crate::signatures::tls13_signatures;
use crate::tls::{Broken, Inbox, TlsStream, Wants, shake_hands};
use crate::verifier::SecretNotes;
use crate::{ALPN_H2_STANDARD, ALPN_HTTP1_STANDARD};

/// Where systems keep the certificates of the authorities that they trust, PEM; the first that is there is read.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What is spoken with a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP/1.1, which a backend that chooses no protocol speaks as well.
    Http1,
    /// HTTP/2, which it must choose (RFC 9113 §3.2).
    Http2,
    /// Bytes: no protocol is offered.
    Bytes,
}

/// Makes TLS connections to the endpoints of one policy. TLS 1.3 only; nothing is resumed.
#[derive(Debug)]
pub struct BackendClient {
    name: ServerName<'static>,
    /// By what is spoken.
    configs: [Arc<ClientConfig>; 3],
}

impl BackendClient {
    /// Reads a policy, and the system's authorities where it asks for them. `shown` is shown to backends that want to know who
    /// calls.
    ///
    /// # Errors
    /// When the policy is broken, its name is none, or its authorities cannot be read: then no connection may be made.
    pub fn new(policy: &BackendTls, shown: Option<&PublicCertificate>) -> Result<Self, Error> {
        let refuse = |reason: String| Error::Text { what: "BackendTLSPolicy", reason };
        let roots = match &policy.authorities {
            Authorities::Pem(pem) => roots(pem)?,
            Authorities::System => system()?,
            Authorities::Nobody(reason) => return Err(refuse(reason.to_string())),
        };
        let server_name = |name: &str| ServerName::try_from(name.to_owned()).map_err(|error| refuse(error.to_string()));
        let name = server_name(&policy.hostname)?;
        let names = policy.names.iter().map(|name| match name {
            SubjectName::Uri(uri) => Ok(Name::Uri(Arc::clone(uri))),
            SubjectName::Hostname(host) => match host.strip_prefix('*') {
                Some(suffix) if suffix.starts_with('.') => Ok(Name::Below(suffix.to_ascii_lowercase().into())),
                _ => server_name(host).map(Name::Host),
            },
        });
        let names = names.collect::<Result<Vec<_>, _>>()?;
        let algorithms = provider().signature_verification_algorithms;
        let verifier = Arc::new(Verifier { roots, names, algorithms });
        let config = ClientConfig::builder_with_details(provider().clone(), Arc::new(TlsClock))
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has TLS 1.3 suites")
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match shown {
            Some(shown) => config.with_client_cert_resolver(Arc::new(Shown(shown.certified()))),
            None => config.with_no_client_auth(),
        };
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        // Records are ours ([`crate::tls`]).
        config.enable_secret_extraction = true;
        config.key_log = Arc::new(SecretNotes);
        let speaking = |alpn: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
            Arc::new(config)
        };
        let configs = [speaking(&[ALPN_HTTP1_STANDARD]), speaking(&[ALPN_H2_STANDARD]), speaking(&[])];
        Ok(Self { name, configs })
    }

    /// Shakes hands. Not a byte goes to a server whose certificate does not hold. No time-out.
    ///
    /// # Errors
    /// Why the handshake failed.
    ///
    /// # Cancel safety
    /// Dropping the future drops the stream.
    pub async fn connect<S>(&self, stream: S, spoken: Spoken) -> Result<TlsStream<S>, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = Arc::clone(&self.configs[spoken as usize]);
        let connection =
            UnbufferedClientConnection::new(config, self.name.clone()).map_err(HandshakeError::from_rustls)?;
        let wants = Wants { hold: false, ticket: false };
        let (stream, ()) = shake_hands(stream, Inbox::default(), connection, wants, |_, _| ())
            .await
            .map_err(|Broken { error, .. }| HandshakeError::from_io(error))?;
        if spoken == Spoken::Http2 && stream.get_ref().1.alpn_protocol() != Some(ALPN_H2_STANDARD) {
            return Err(HandshakeError::Protocol("the backend did not choose HTTP/2".to_owned()));
        }
        Ok(stream)
    }
}

/// The authorities that the system trusts: `SSL_CERT_FILE`, else the first known file that is there.
fn system() -> Result<RootCertStore, Error> {
    let chosen = std::env::var("SSL_CERT_FILE").ok();
    let path = chosen.as_deref().or_else(|| SYSTEM.into_iter().find(|path| Path::new(path).exists()));
    let refuse = |reason: String| Error::Text { what: "certificates of the system's authorities", reason };
    let path = path.ok_or_else(|| refuse("no known file is there; name one by SSL_CERT_FILE".to_owned()))?;
    let text = std::fs::read(path).map_err(|error| refuse(format!("{path}: {error}")))?;
    let mut roots = RootCertStore::empty();
    // Systems keep some that are older than today's rules.
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&text).filter_map(Result::ok));
    if roots.is_empty() {
        return Err(refuse(format!("{path} holds none")));
    }
    Ok(roots)
}

#[derive(Debug)]
enum Name {
    Host(ServerName<'static>),
    /// One label, then this.
    Below(Box<str>),
    Uri(Arc<str>),
}

#[derive(Debug)]
struct Verifier {
    roots: RootCertStore,
    /// Empty: the name that was asked for.
    names: Vec<Name>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Name {
    fn is_in(&self, leaf: &ParsedCertificate<'_>, raw: &webpki::EndEntityCert<'_>) -> bool {
        match self {
            Name::Host(host) => verify_server_name(leaf, host).is_ok(),
            Name::Uri(uri) => raw.valid_uri_names().any(|name| name == &**uri),
            Name::Below(suffix) => raw.valid_dns_names().any(|name| {
                let name = name.to_ascii_lowercase();
                name.strip_suffix(&**suffix).is_some_and(|label| !label.is_empty() && !label.contains('.'))
            }),
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let leaf = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&leaf, &self.roots, intermediates, now, self.algorithms.all)?;
        if self.names.is_empty() {
            verify_server_name(&leaf, server_name)?;
            return Ok(ServerCertVerified::assertion());
        }
        let raw = webpki::EndEntityCert::try_from(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        if !self.names.iter().any(|name| name.is_in(&leaf, &raw)) {
            return Err(CertificateError::NotValidForName.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    tls13_signatures!(algorithms);
}

/// Shows one certificate to whoever asks.
#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.key.choose_scheme(schemes).is_some().then(|| Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
