//! Reading certificates: what an X.509-SVID says about itself. Nothing here is believed yet.

use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use veer_core::{SpiffeId, TrustDomain};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use crate::clock;
use crate::error::VerifyError;

/// What a leaf claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub(crate) id: SpiffeId,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

impl Leaf {
    /// Reads the certificate and applies the rules of X.509-SVID §2, §4 and §5.2 that concern a leaf alone. Stricter in
    /// one point: names beside the one URI are refused too, because no issuer of ours writes any.
    pub(crate) fn read(der: &CertificateDer<'_>) -> Result<Self, VerifyError> {
        let cert = parse(der)?;
        let names = cert
            .subject_alternative_name()
            .map_err(|_| VerifyError::Malformed("subject alternative names cannot be read".into()))?
            .map(|extension| extension.value.general_names.as_slice())
            .unwrap_or_default();
        let id = match names {
            [GeneralName::URI(uri)] => {
                uri.parse::<SpiffeId>().map_err(|error| VerifyError::NotOneSpiffeId(error.to_string()))?
            }
            [] => return Err(VerifyError::NotOneSpiffeId("it has no name".into())),
            [_] => return Err(VerifyError::NotOneSpiffeId("its name is not a URI".into())),
            names => return Err(VerifyError::NotOneSpiffeId(format!("it has {} names", names.len()))),
        };
        let constraints =
            cert.basic_constraints().map_err(|_| VerifyError::Malformed("basic constraints cannot be read".into()))?;
        if constraints.is_some_and(|c| c.value.ca) {
            return Err(VerifyError::CaAsLeaf);
        }
        let usage = cert
            .key_usage()
            .map_err(|_| VerifyError::Malformed("key usage cannot be read".into()))?
            .ok_or_else(|| VerifyError::Usage("it has no key usage".into()))?
            .value;
        if usage.key_cert_sign() || usage.crl_sign() {
            return Err(VerifyError::CaAsLeaf);
        }
        if !usage.digital_signature() {
            return Err(VerifyError::Usage("its key usage lacks digitalSignature".into()));
        }
        let validity = cert.validity();
        Ok(Self {
            id,
            not_before: clock::from_unix(validity.not_before.timestamp()),
            not_after: clock::from_unix(validity.not_after.timestamp()),
        })
    }
}

/// What a CA certificate says about itself.
#[derive(Debug)]
pub(crate) struct Authority {
    /// The trust domain that its URI names, when it has one.
    pub(crate) trust_domain: Option<TrustDomain>,
    pub(crate) not_after: SystemTime,
    pub(crate) not_before: SystemTime,
}

impl Authority {
    pub(crate) fn read(der: &CertificateDer<'_>) -> Result<Self, VerifyError> {
        let cert = parse(der)?;
        if !cert.is_ca() {
            return Err(VerifyError::Malformed("it is not a CA certificate".into()));
        }
        let names = cert
            .subject_alternative_name()
            .map_err(|_| VerifyError::Malformed("subject alternative names cannot be read".into()))?
            .map(|extension| extension.value.general_names.as_slice())
            .unwrap_or_default();
        let mut uris = names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        let trust_domain = match (uris.next(), uris.next()) {
            (None, _) => None,
            (Some(uri), None) => Some(
                trust_domain_of(uri)
                    .ok_or_else(|| VerifyError::Malformed(format!("its URI {uri:?} is not spiffe://<trust domain>")))?,
            ),
            (Some(_), Some(_)) => return Err(VerifyError::Malformed("it has several URIs".into())),
        };
        let validity = cert.validity();
        Ok(Self {
            trust_domain,
            not_before: clock::from_unix(validity.not_before.timestamp()),
            not_after: clock::from_unix(validity.not_after.timestamp()),
        })
    }
}

/// The trust domain of `spiffe://<trust domain>`, the SPIFFE ID of an authority.
pub(crate) fn trust_domain_of(uri: &str) -> Option<TrustDomain> {
    TrustDomain::new(uri.strip_prefix("spiffe://")?).ok()
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, VerifyError> {
    match x509_parser::parse_x509_certificate(der) {
        Ok(([], cert)) => Ok(cert),
        Ok(_) => Err(VerifyError::Malformed("bytes follow the certificate".into())),
        Err(_) => Err(VerifyError::Malformed("it is not a DER certificate".into())),
    }
}
