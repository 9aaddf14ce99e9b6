//! A client of mutual TLS 1.3 for the called proxy of a pair. It is not what is measured, so it believes every server.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, HandshakeKind, NamedGroup, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::side_by_side::programs::Running;

const ANSWER: usize = 4 * 1024;

/// Dials one proxy.
pub(super) struct Client {
    target: std::net::SocketAddr,
    name: ServerName<'static>,
    connector: TlsConnector,
}

impl Client {
    /// With the certificate that the proxy wants to see. `resumes`: sessions are resumed; `classic`: key exchange by X25519 alone is offered.
    ///
    /// # Errors
    /// When the certificate is not there (yet), or is broken.
    pub(super) fn new(running: &Running, resumes: bool, classic: bool) -> anyhow::Result<Self> {
        let [chain, key] = &running.tls.files;
        let chain = CertificateDer::pem_file_iter(chain)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .with_context(|| chain.display().to_string())?;
        let key = PrivateKeyDer::from_pem_file(key).with_context(|| key.display().to_string())?;
        let mut provider = aws_lc_rs::default_provider();
        if classic {
            provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
        }
        let provider = Arc::new(provider);
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_client_auth_cert(chain, key)?;
        config.alpn_protocols = vec![running.tls.protocol.clone()];
        config.resumption = if resumes { Resumption::in_memory_sessions(8) } else { Resumption::disabled() };
        let name = ServerName::try_from(running.tls.name.clone())?;
        Ok(Self { target: running.target, name, connector: TlsConnector::from(Arc::new(config)) })
    }

    async fn connect(&self) -> anyhow::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.target).await?;
        stream.set_nodelay(true)?;
        Ok(self.connector.connect(self.name.clone(), stream).await?)
    }

    /// One handshake, to the end of the connection: what the server has to say to the client's certificate comes after the
    /// client is done. Whether a session was resumed, and by which group keys were exchanged.
    ///
    /// # Errors
    /// When the server refuses.
    pub(super) async fn shake_hands(&self) -> anyhow::Result<(bool, Option<NamedGroup>)> {
        let mut stream = self.connect().await?;
        let session = stream.get_ref().1;
        let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
        let group = session.negotiated_key_exchange_group().map(|group| group.name());
        stream.shutdown().await?;
        let mut rest = [0; 512];
        loop {
            match stream.read(&mut rest).await {
                Ok(0) => return Ok((resumed, group)),
                Ok(_) => {}
                // A server that ends TCP without ending TLS has still agreed to the handshake.
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok((resumed, group)),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A connection on which one request has been served over HTTP/1.1.
    ///
    /// # Errors
    /// When it was not served.
    pub(super) async fn ask(&self, host: &str) -> anyhow::Result<TlsStream<TcpStream>> {
        let mut stream = self.connect().await?;
        stream.write_all(format!("GET /items HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await?;
        let (mut answer, mut filled) = ([0; ANSWER], 0);
        // The origin's body is the last that comes: its end is that of the answer.
        while !answer[..filled].ends_with(b"xxxx") {
            let n = stream.read(&mut answer[filled..]).await?;
            ensure!(n > 0, "ended after {:?}", String::from_utf8_lossy(&answer[..filled]));
            filled += n;
        }
        ensure!(answer.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&answer[..filled]));
        Ok(stream)
    }
}

/// Believes every server, as long as it has the key of its certificate.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
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
        Err(rustls::Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
