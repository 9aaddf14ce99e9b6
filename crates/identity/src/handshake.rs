//! Handshakes: the only places where a [`VerifiedPeer`] comes from.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::server::danger::ClientCertVerifier;
use rustls::{AlertDescription, CertificateError};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use veer_core::SpiffeId;
use veer_core::sni::Sni;

use crate::clock;
use crate::config::{ClientTls, ServerTls};
use crate::error::VerifyError;
use crate::tls::{Broken, Inbox, TlsStream, Wants, shake_hands};
use crate::trust::Judged;
use crate::verifier::{Verdict, to_rustls};

/// The other side of a finished handshake. Made by nothing else: no other crate can write one down.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifiedPeer {
    /// Who it is.
    pub id: SpiffeId,
    /// When its certificate ends; the connection should not live longer.
    pub not_after: SystemTime,
    /// SHA-256 of its certificate, DER.
    pub fingerprint: [u8; 32],
}

impl From<Judged> for VerifiedPeer {
    fn from(Judged { id, not_after, fingerprint }: Judged) -> Self {
        Self { id, not_after, fingerprint }
    }
}

/// Shakes hands as client with exactly one of `expected`; nobody when it is empty. A peer that is not one of them is told
/// so by an alert, sees neither our certificate nor any byte of data. No time-out.
///
/// A server judges our certificate only after our side has finished (TLS 1.3): its refusal comes as an error of the first
/// read, which [`HandshakeError::from_io`] tells apart.
///
/// # Errors
/// Why the handshake failed and who is to blame.
///
/// # Cancel safety
/// Dropping the future drops the stream.
pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    tls: ClientTls,
    sni: &Sni,
    expected: &[SpiffeId],
) -> Result<(TlsStream<S>, VerifiedPeer), HandshakeError> {
    let name = sni.to_string();
    let name = ServerName::try_from(name).map_err(|_| HandshakeError::ServerName(sni.to_string()))?;
    let destination = tls.expecting(sni, expected);
    let connection =
        UnbufferedClientConnection::new(destination.config(), name).map_err(HandshakeError::from_rustls)?;
    let judge = |connection: &UnbufferedClientConnection, verdict: Option<Verdict>| match verdict {
        Some(verdict) => Some(verdict),
        // Resumed: the certificate was shown to an earlier connection.
        None => judge_again(connection, |leaf, rest, now| destination.verifier.judge(leaf, rest, now)),
    };
    let wants = Wants { hold: tls.holds_last_flight(), ticket: destination.tickets.is_some() };
    let (stream, verdict) = match shake_hands(stream, Inbox::default(), connection, wants, judge).await {
        Ok(done) => done,
        Err(Broken { verdict: Some(Err(refused)), .. }) => return Err(HandshakeError::Peer(refused)),
        // Alerts before any ServerHello are a gateway's words, later ones the callee's.
        Err(Broken { error, heard: false, .. }) => return Err(HandshakeError::from_io(error).before_hello()),
        Err(Broken { error, .. }) => return Err(HandshakeError::from_io(error)),
    };
    let judged = match verdict {
        Some(Ok(judged)) => judged,
        Some(Err(refused)) => {
            if let Some(tickets) = &destination.tickets {
                tickets.clear();
            }
            return Err(refuse(stream, refused).await);
        }
        None => return Err(HandshakeError::NoCertificate),
    };
    Ok((stream, judged.into()))
}

/// Shakes hands as server. The peer is `None` only with [`ClientAuth::Optional`](crate::ClientAuth::Optional). No time-out.
///
/// A ticket for the client leaves with the first write, flush or read of the stream.
///
/// # Errors
/// Why the handshake failed and who is to blame.
///
/// # Cancel safety
/// Dropping the future drops the stream.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    tls: Arc<ServerTls>,
) -> Result<(TlsStream<S>, Option<VerifiedPeer>), HandshakeError> {
    accept_read(stream, &[], tls).await
}

/// Like [`accept`], after `received` was read of the stream: to choose `tls` by what a ClientHello says.
///
/// # Errors
/// As [`accept`]; also when `received` is more than 64 KiB.
///
/// # Cancel safety
/// Dropping the future drops the stream.
pub async fn accept_read<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    received: &[u8],
    tls: Arc<ServerTls>,
) -> Result<(TlsStream<S>, Option<VerifiedPeer>), HandshakeError> {
    let inbox = Inbox::holding(received)
        .ok_or_else(|| HandshakeError::from_rustls(rustls::Error::General("too much was read before".to_owned())))?;
    let connection = UnbufferedServerConnection::new(tls.config.clone()).map_err(HandshakeError::from_rustls)?;
    let judge = |connection: &UnbufferedServerConnection, verdict: Option<Verdict>| match (verdict, &tls.verifier) {
        (Some(verdict), _) => Some(verdict),
        (None, Some(verifier)) => judge_again(connection, |leaf, rest, now| verifier.judge(leaf, rest, now)),
        // Nothing is resumed there, and rustls has judged what it asked for.
        (None, None) => None,
    };
    let (stream, verdict) =
        match shake_hands(stream, inbox, connection, Wants { hold: true, ticket: false }, judge).await {
            Ok(done) => done,
            Err(Broken { error, .. }) => return Err(HandshakeError::from_io(error)),
        };
    match verdict {
        Some(Ok(judged)) => Ok((stream, Some(judged.into()))),
        Some(Err(refused)) => Err(refuse(stream, refused).await),
        None if tls.verifier.as_ref().is_some_and(|verifier| verifier.client_auth_mandatory()) => {
            stream.refuse(rustls::Error::NoCertificatesPresented).await;
            Err(HandshakeError::NoCertificate)
        }
        None => Ok((stream, None)),
    }
}

/// The judgement of a connection that was resumed: its first handshake's chain, by the rules and the clock of now.
fn judge_again(
    connection: &rustls::CommonState,
    judge: impl FnOnce(&CertificateDer<'_>, &[CertificateDer<'_>], UnixTime) -> Verdict,
) -> Option<Verdict> {
    let (leaf, intermediates) = connection.peer_certificates()?.split_first()?;
    Some(judge(leaf, intermediates, clock::unix_time()))
}

async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(stream: TlsStream<S>, why: VerifyError) -> HandshakeError {
    stream.refuse(to_rustls(why.clone(), clock::unix_time())).await;
    HandshakeError::Peer(why)
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The peer's certificate was not believed by us.
    #[error("the peer's certificate was refused: {0}")]
    Peer(#[source] VerifyError),
    /// Like [`Self::Peer`], when only rustls' own words are left of it.
    #[error("the peer's certificate was refused: {0}")]
    PeerCertificate(CertificateError),
    /// The peer showed no certificate.
    #[error("the peer showed no certificate")]
    NoCertificate,
    /// A gateway on the way refused to relay. Nothing was sent.
    #[error("the gateway refused: {0}")]
    Relay(RelayAlert),
    /// The peer refused us or our certificate.
    #[error("the peer refused with the alert {0:?}")]
    Refused(AlertDescription),
    /// Bytes that are not TLS 1.3 as we speak it, or no common protocol.
    #[error("TLS: {0}")]
    Protocol(String),
    /// Not a possible server name.
    #[error("{0:?} cannot be sent as server name")]
    ServerName(String),
    /// The connection ended before the handshake did.
    #[error("the connection was closed during the handshake")]
    Closed,
    /// The connection failed.
    #[error("the connection failed during the handshake: {0}")]
    Io(#[source] io::Error),
}

/// Who is to blame for a failed handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The endpoint that was to answer, or stands in its place.
    Endpoint,
    /// The way there.
    Path,
    /// Our own certificate, trust or request.
    Local,
}

/// What a blind gateway says: an alert before any ServerHello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RelayAlert {
    /// `unrecognized_name`: the token is stale, or was never offered.
    #[error("unrecognized_name: the token is stale or not offered")]
    StaleName,
    /// `internal_error`: the endpoint behind cannot be reached.
    #[error("internal_error: the endpoint cannot be reached")]
    Unreachable,
    /// `access_denied`: over a limit.
    #[error("access_denied: over limit")]
    OverLimit,
    /// `user_canceled`: the gateway is draining.
    #[error("user_canceled: draining")]
    Draining,
}

impl RelayAlert {
    /// The alert on the wire.
    pub fn description(self) -> AlertDescription {
        match self {
            RelayAlert::StaleName => AlertDescription::UnrecognisedName,
            RelayAlert::Unreachable => AlertDescription::InternalError,
            RelayAlert::OverLimit => AlertDescription::AccessDenied,
            RelayAlert::Draining => AlertDescription::UserCanceled,
        }
    }

    /// The alert's meaning when it comes from a gateway.
    pub fn from_description(description: AlertDescription) -> Option<Self> {
        match description {
            AlertDescription::UnrecognisedName => Some(RelayAlert::StaleName),
            AlertDescription::InternalError => Some(RelayAlert::Unreachable),
            AlertDescription::AccessDenied => Some(RelayAlert::OverLimit),
            AlertDescription::UserCanceled => Some(RelayAlert::Draining),
            _ => None,
        }
    }

    /// The whole TLS record of the fatal alert, in clear (RFC 8446 §5.1, §6), for a gateway that answers a ClientHello.
    pub fn record(self) -> [u8; 7] {
        [21, 3, 3, 0, 2, 2, u8::from(self.description())]
    }
}

impl HandshakeError {
    /// Reads an error of a TLS stream of this crate, also one of a later read or write.
    pub fn from_io(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(inner) => Self::from_rustls(inner.clone()),
            None if error.kind() == io::ErrorKind::UnexpectedEof => HandshakeError::Closed,
            None => HandshakeError::Io(error),
        }
    }

    /// Who is to blame: whom to avoid, and whether the endpoint is.
    pub fn blame(&self) -> Blame {
        match self {
            HandshakeError::Relay(RelayAlert::StaleName | RelayAlert::Unreachable) => Blame::Endpoint,
            HandshakeError::Relay(RelayAlert::OverLimit | RelayAlert::Draining) => Blame::Path,
            HandshakeError::Closed | HandshakeError::Io(_) => Blame::Path,
            // The root we should have, or our clock, may be at fault; but another endpoint may do better.
            HandshakeError::Peer(_) | HandshakeError::PeerCertificate(_) | HandshakeError::NoCertificate => {
                Blame::Endpoint
            }
            HandshakeError::Refused(alert) => match alert {
                AlertDescription::InternalError | AlertDescription::UserCanceled | AlertDescription::CloseNotify => {
                    Blame::Endpoint
                }
                _ => Blame::Local,
            },
            HandshakeError::Protocol(_) => Blame::Endpoint,
            HandshakeError::ServerName(_) => Blame::Local,
        }
    }

    /// A short word for metrics: the `outcome` of `veer_tls_handshakes_total`.
    pub fn outcome(&self) -> &'static str {
        match self {
            HandshakeError::Peer(error) => match error {
                VerifyError::UnknownTrustDomain(_) | VerifyError::NotSigned { .. } | VerifyError::NotPinned => {
                    "unknown_ca"
                }
                VerifyError::Expired { .. } => "expired",
                VerifyError::NotYetValid { .. } => "not_yet_valid",
                VerifyError::WrongIdentity { .. } | VerifyError::SystemIdentity(_) => "wrong_identity",
                _ => "bad_certificate",
            },
            HandshakeError::PeerCertificate(error) => match error {
                CertificateError::UnknownIssuer => "unknown_ca",
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => "expired",
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "not_yet_valid",
                _ => "bad_certificate",
            },
            HandshakeError::NoCertificate => "no_certificate",
            HandshakeError::Relay(RelayAlert::StaleName) => "stale_name",
            HandshakeError::Relay(RelayAlert::Unreachable) => "unreachable",
            HandshakeError::Relay(RelayAlert::OverLimit) => "over_limit",
            HandshakeError::Relay(RelayAlert::Draining) => "draining",
            HandshakeError::Refused(_) => "refused",
            HandshakeError::Protocol(_) => "protocol",
            HandshakeError::ServerName(_) => "server_name",
            HandshakeError::Closed => "closed",
            HandshakeError::Io(_) => "io",
        }
    }

    /// The gateway's refusal, when it is one.
    pub fn relay_alert(&self) -> Option<RelayAlert> {
        match self {
            HandshakeError::Relay(alert) => Some(*alert),
            _ => None,
        }
    }

    fn before_hello(self) -> Self {
        match self {
            HandshakeError::Refused(description) => match RelayAlert::from_description(description) {
                Some(alert) => HandshakeError::Relay(alert),
                None => HandshakeError::Refused(description),
            },
            other => other,
        }
    }

    pub(crate) fn from_rustls(error: rustls::Error) -> Self {
        match error {
            rustls::Error::AlertReceived(description) => HandshakeError::Refused(description),
            rustls::Error::NoCertificatesPresented => HandshakeError::NoCertificate,
            rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
                match other.0.downcast_ref::<VerifyError>() {
                    Some(refused) => HandshakeError::Peer(refused.clone()),
                    None => HandshakeError::PeerCertificate(CertificateError::Other(other)),
                }
            }
            rustls::Error::InvalidCertificate(error) => HandshakeError::PeerCertificate(error),
            other => HandshakeError::Protocol(other.to_string()),
        }
    }
}
