//! XBackend (Gateway API, experimental): a destination outside of every cluster.

use std::net::IpAddr;
use std::sync::Arc;

use super::{BackendTlsValidation, CertificateRef};
use crate::decode::{manifest, open_enum};

/// API group of what is experimental in the Gateway API.
pub const EXPERIMENTAL_GROUP: &str = "gateway.networking.x-k8s.io";

manifest! {
    /// `spec` of an XBackend.
    #[derive(Default)]
    pub struct XBackendSpec {
        /// What it is.
        pub backend_type: XBackendType = "type" => required,
        /// The host, of [`XBackendType::ExternalHostname`].
        pub external_hostname: Option<ExternalHostname> = "externalHostname",
        /// The only port.
        pub port: XBackendPort = "port" => required,
        /// What is spoken; `None`: as the route or listener has it.
        pub protocol: Option<XBackendProtocol> = "protocol",
        /// TLS; `None`: clear text.
        pub tls: Option<XBackendTls> = "tls",
    }
    ignored []
}

impl XBackendSpec {
    /// The host; `None` when there is none that could be called.
    pub fn hostname(&self) -> Option<&Arc<str>> {
        let host = self.external_hostname.as_ref().map(|host| &host.hostname)?;
        let outside = host.parse::<IpAddr>().is_err() && !host.ends_with(".cluster.local");
        (self.backend_type == XBackendType::ExternalHostname && outside).then_some(host)
    }
}

open_enum! {
    /// What an XBackend is.
    pub enum XBackendType {
        /// A host name that the proxies resolve.
        ExternalHostname = "ExternalHostname",
    }
    default ExternalHostname
}

manifest! {
    /// A host outside of the clusters.
    #[derive(Default)]
    pub struct ExternalHostname {
        /// Its name; no address.
        pub hostname: Arc<str> = "hostname" => required,
    }
    ignored []
}

manifest! {
    /// A port of an XBackend.
    #[derive(Default)]
    pub struct XBackendPort {
        /// Its name.
        pub name: Option<Arc<str>> = "name",
        /// Its number.
        pub port: u16 = "port" => required,
    }
    ignored []
}

open_enum! {
    /// What is spoken with an XBackend.
    pub enum XBackendProtocol {
        /// Bytes.
        Tcp = "TCP",
        /// HTTP, in the version of the request.
        Http = "HTTP",
        /// HTTP/2.
        Http2 = "HTTP2",
        /// HTTP/1.1.
        Http11 = "HTTP11",
        /// HTTP/2 without TLS.
        H2c = "H2C",
        /// Model Context Protocol.
        Mcp = "MCP",
    }
    default Http
}

manifest! {
    /// TLS with an XBackend.
    #[derive(Default)]
    pub struct XBackendTls {
        /// Who shows a certificate.
        pub mode: XBackendTlsMode = "mode" => required,
        /// The certificate to show, of [`XBackendTlsMode::ClientAndServer`].
        pub client_certificate_ref: Option<CertificateRef> = "clientCertificateRef",
        /// What is asked of the backend.
        pub validation: Option<BackendTlsValidation> = "validation",
    }
    ignored []
}

open_enum! {
    /// Who shows a certificate.
    pub enum XBackendTlsMode {
        /// Nobody: clear text.
        None = "None",
        /// The backend.
        ServerOnly = "ServerOnly",
        /// Both.
        ClientAndServer = "ClientAndServer",
    }
    default None
}
