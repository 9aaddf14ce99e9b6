//! A cluster's certificate authority: a root that can stay offline, and the intermediate that signs.
//!
//! | certificate | lifetime | renewed |
//! |---|---|---|
//! | root | 10 years | by hand: [`Ca::stage_root`], [`Ca::switch_root`], [`Ca::retire_roots`] |
//! | intermediate | 1 year | by [`Ca::load_or_create`] after half of it, while the root's key is here |
//! | workload | [`DEFAULT_TTL`] | by its proxy after half of it |
//!
//! Keys are ECDSA P-256. Authorities carry the SPIFFE ID of their trust domain (X.509-SVID §3.2), which our verifier
//! holds them to. URI name constraints would say the same in X.509's own words, but webpki refuses every chain that has
//! one; so the certificates only exclude DNS names and IP addresses: this CA can vouch for no web site, wherever it is trusted.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use veer_core::inbound::TrustBundle;
use veer_core::{SpiffeId, TrustDomain};
use x509_parser::prelude::FromDer;

use crate::error::Error;
use crate::files;
use crate::leaf;
use crate::svid::pem;

/// Lifetime of workload certificates when nobody says otherwise: renewed after half of it, a proxy lives at least 12 hours
/// without its control plane.
pub const DEFAULT_TTL: Duration = Duration::from_secs(24 * 3600);
/// Certificates begin this long before they were signed, for callers whose clock is behind.
pub const BACKDATE: Duration = Duration::from_secs(60);
const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const INTERMEDIATE_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// A request is a key and a signature; nobody needs more.
const MAX_REQUEST: usize = 8 * 1024;

/// A cluster's certificate authority.
pub struct Ca {
    trust_domain: TrustDomain,
    current: Authority,
    /// Published so that everybody trusts it before it signs.
    next: Option<Authority>,
    /// Roots that signed before, trusted until [`Ca::retire_roots`].
    former: Vec<CertificateDer<'static>>,
}

/// A root and the intermediate under it.
struct Authority {
    root: CertificateDer<'static>,
    root_key: Option<KeyPair>,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Ca {
    /// Makes a new root and intermediate.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn create(trust_domain: &TrustDomain, now: SystemTime) -> Result<Self, Error> {
        let current = Authority::create(trust_domain, now)?;
        Ok(Self { trust_domain: trust_domain.clone(), current, next: None, former: Vec::new() })
    }

    /// Reads what [`Self::save`] wrote. The root's key may be absent: kept offline, it is needed only to renew the
    /// intermediate.
    ///
    /// # Errors
    /// Which file failed, why, and what to do.
    pub fn load(dir: &Path) -> Result<Self, Error> {
        let (trust_domain, current) = Authority::load(&dir.join("current"))?;
        let next_dir = dir.join("next");
        let next = match files::read_if_there(&next_dir.join(INTERMEDIATE))? {
            Some(_) => Some(Authority::load(&next_dir)?.1),
            None => None,
        };
        let former_path = dir.join(FORMER);
        let former = match files::read_if_there(&former_path)? {
            Some(text) => CertificateDer::pem_slice_iter(text.as_bytes())
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| files::malformed(&former_path, error))?,
            None => Vec::new(),
        };
        Ok(Self { trust_domain, current, next, former })
    }

    /// Writes everything below `dir`, directories 0700, files 0600. What is gone from here (the staged root after a switch,
    /// retired roots) is removed there.
    ///
    /// # Errors
    /// Which file failed, why, and what to do.
    pub fn save(&self, dir: &Path) -> Result<(), Error> {
        let former: String = self.former.iter().map(|der| pem("CERTIFICATE", der)).collect();
        files::write_private(&dir.join(FORMER), former.as_bytes())?;
        self.current.save(&dir.join("current"))?;
        match &self.next {
            Some(next) => next.save(&dir.join("next")),
            None => Authority::remove(&dir.join("next")),
        }
    }

    /// Loads the authority, or makes and saves a new one when there is none. Renews the intermediate after half of its
    /// lifetime when the root's key is here.
    ///
    /// # Errors
    /// When what is there cannot be read (it is never replaced), belongs to another trust domain, or cannot be saved.
    pub fn load_or_create(dir: &Path, trust_domain: &TrustDomain, now: SystemTime) -> Result<Self, Error> {
        if files::read_if_there(&dir.join("current").join(INTERMEDIATE))?.is_none() {
            let ca = Self::create(trust_domain, now)?;
            ca.save(dir)?;
            return Ok(ca);
        }
        let mut ca = Self::load(dir)?;
        if ca.trust_domain != *trust_domain {
            return Err(Error::File {
                path: dir.to_owned(),
                problem: format!("holds the authority of {}, not of {trust_domain}", ca.trust_domain),
                mend: "name another directory, or set the trust domain back",
            });
        }
        if ca.renew_intermediate(now)? {
            ca.save(dir)?;
        }
        Ok(ca)
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Certifies the request's key as `id`, whatever the request asks for. The chain leads to the root without holding it,
    /// except for the control plane's identity: those who join know the root by its hash only and must be shown it.
    ///
    /// # Errors
    /// When the request is malformed, not signed by its key or not ECDSA P-256, `id` is of another trust domain, or the
    /// intermediate has ended.
    pub fn sign(
        &self,
        csr_der: &[u8],
        id: &SpiffeId,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Vec<CertificateDer<'static>>, Error> {
        if id.trust_domain != self.trust_domain {
            return Err(self.cannot_sign(format!("{id} is of another trust domain")));
        }
        // What is written must be readable as a name again; parts that were put together by hand may not be.
        if id.to_string().parse::<SpiffeId>().as_ref() != Ok(id) {
            return Err(self.cannot_sign(format!("{id} is not a SPIFFE ID of the form that is issued")));
        }
        if now > self.current.not_after {
            return Err(
                self.cannot_sign("its intermediate certificate has expired; bring the root's key back".to_owned())
            );
        }
        let key = read_request(csr_der)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.to_string().try_into()?)];
        params.not_before = now.checked_sub(BACKDATE).unwrap_or(now).max(self.current.not_before).into();
        // Nothing outlives its issuer.
        params.not_after = (now + ttl).min(self.current.not_after).into();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial()?);
        let leaf = params.signed_by(&key, &self.current.issuer)?.der().clone();
        let mut chain = vec![leaf, self.current.certificate.clone()];
        if *id == SpiffeId::control(self.trust_domain.clone()) {
            chain.push(self.current.root.clone());
        }
        Ok(chain)
    }

    /// Every root that is to be believed: the one that signs, the one that will, those that did.
    pub fn bundle(&self) -> TrustBundle {
        let next = self.next.iter().map(|next| &next.root);
        let roots = std::iter::once(&self.current.root).chain(next).chain(&self.former);
        let roots_pem = roots.map(|der| pem("CERTIFICATE", der)).collect();
        TrustBundle { trust_domain: self.trust_domain.clone(), roots_pem }
    }

    /// SHA-256 of the root that signs, for join tokens.
    pub fn root_hash(&self) -> [u8; 32] {
        hash(&self.current.root)
    }

    /// When the intermediate ends.
    pub fn not_after(&self) -> SystemTime {
        self.current.not_after
    }

    /// Renews the intermediate when more than half of its lifetime is over and the root's key is here. Says whether it did.
    ///
    /// # Errors
    /// When signing fails.
    pub fn renew_intermediate(&mut self, now: SystemTime) -> Result<bool, Error> {
        let lifetime = self.current.not_after.duration_since(self.current.not_before).unwrap_or_default();
        if now < self.current.not_before + lifetime / 2 {
            return Ok(false);
        }
        let Some(root_key) = self.current.root_key.take() else {
            tracing::warn!(trust_domain = %self.trust_domain, "the intermediate is past half of its lifetime and the root's key is not here");
            return Ok(false);
        };
        self.current = Authority::under(&self.trust_domain, self.current.root.clone(), root_key, now)?;
        Ok(true)
    }

    /// Begins the rotation of the root: makes the next one and adds it to the [`Self::bundle`]. Once every subscriber and
    /// peer has the bundle, [`Self::switch_root`]. Does nothing when one is staged already.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn stage_root(&mut self, now: SystemTime) -> Result<(), Error> {
        if self.next.is_none() {
            self.next = Some(Authority::create(&self.trust_domain, now)?);
        }
        Ok(())
    }

    /// Signs by the staged root from now on; the former stays in the bundle. Says whether there was one.
    pub fn switch_root(&mut self) -> bool {
        match self.next.take() {
            Some(next) => {
                let before = std::mem::replace(&mut self.current, next);
                self.former.insert(0, before.root);
                true
            }
            None => false,
        }
    }

    /// Ends the rotation: former roots leave the bundle. To be called when no certificate under them is alive.
    pub fn retire_roots(&mut self) {
        self.former.clear();
    }

    fn cannot_sign(&self, reason: String) -> Error {
        Error::Issuer { trust_domain: self.trust_domain.clone(), reason }
    }
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ca").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

const ROOT: &str = "root.pem";
const ROOT_KEY: &str = "root-key.pem";
const INTERMEDIATE: &str = "intermediate.pem";
const FORMER: &str = "former-roots.pem";

impl Authority {
    fn create(trust_domain: &TrustDomain, now: SystemTime) -> Result<Self, Error> {
        let key = KeyPair::generate()?;
        let mut params = authority_params(trust_domain, "root", 1)?;
        params.not_before = now.checked_sub(BACKDATE).unwrap_or(now).into();
        params.not_after = (now + ROOT_LIFETIME).into();
        let root = params.self_signed(&key)?.der().clone();
        Self::under(trust_domain, root, key, now)
    }

    /// A new intermediate under a root.
    fn under(
        trust_domain: &TrustDomain,
        root: CertificateDer<'static>,
        root_key: KeyPair,
        now: SystemTime,
    ) -> Result<Self, Error> {
        let root_end = leaf::Authority::read(&root)?.not_after;
        let key = KeyPair::generate()?;
        let mut params = authority_params(trust_domain, "intermediate", 0)?;
        params.not_before = now.checked_sub(BACKDATE).unwrap_or(now).into();
        params.not_after = (now + INTERMEDIATE_LIFETIME).min(root_end).into();
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &Issuer::from_ca_cert_der(&root, &root_key)?)?.der().clone();
        Self::assemble(root, Some(root_key), certificate, key)
    }

    fn assemble(
        root: CertificateDer<'static>,
        root_key: Option<KeyPair>,
        certificate: CertificateDer<'static>,
        key: KeyPair,
    ) -> Result<Self, Error> {
        let leaf::Authority { not_before, not_after, .. } = leaf::Authority::read(&certificate)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { root, root_key, certificate, issuer, not_before, not_after })
    }

    fn save(&self, dir: &Path) -> Result<(), Error> {
        if let Some(root_key) = &self.root_key {
            files::write_private(&dir.join(ROOT_KEY), root_key.serialize_pem().as_bytes())?;
        }
        files::write_private(&dir.join(ROOT), pem("CERTIFICATE", &self.root).as_bytes())?;
        // Key and certificate in one file: the last to be written, and what says that the directory is complete.
        let together = self.issuer.key().serialize_pem() + &pem("CERTIFICATE", &self.certificate);
        files::write_private(&dir.join(INTERMEDIATE), together.as_bytes())
    }

    fn load(dir: &Path) -> Result<(TrustDomain, Self), Error> {
        let certificate = |path: &Path, text: &str| {
            CertificateDer::from_pem_slice(text.as_bytes())
                .map_err(|error| files::malformed(path, format!("holds no certificate in PEM form: {error}")))
        };
        let key = |path: &Path, text: &str| {
            KeyPair::from_pem(text)
                .map_err(|error| files::malformed(path, format!("holds no usable private key: {error}")))
        };
        let root_path = dir.join(ROOT);
        let root = certificate(&root_path, &files::read(&root_path)?)?;
        let root_key_path = dir.join(ROOT_KEY);
        let root_key = files::read_if_there(&root_key_path)?.map(|text| key(&root_key_path, &text)).transpose()?;
        let path = dir.join(INTERMEDIATE);
        let text = files::read(&path)?;
        let own_key = key(&path, &text)?;
        let own = certificate(&path, &text)?;
        let trust_domain = leaf::Authority::read(&root)
            .map_err(|error| files::malformed(&root_path, error))?
            .trust_domain
            .ok_or_else(|| files::malformed(&root_path, "names no trust domain"))?;
        let spki = |der: &CertificateDer<'_>| {
            x509_parser::parse_x509_certificate(der).ok().map(|(_, c)| c.public_key().subject_public_key.data.to_vec())
        };
        if spki(&own).as_deref() != Some(own_key.public_key_raw()) {
            return Err(files::malformed(&path, "holds a key that is not the certificate's"));
        }
        if let Some(root_key) = &root_key
            && spki(&root).as_deref() != Some(root_key.public_key_raw())
        {
            return Err(files::malformed(&root_key_path, "is not the key of root.pem"));
        }
        let authority = Self::assemble(root, root_key, own, own_key).map_err(|error| files::malformed(&path, error))?;
        Ok((trust_domain, authority))
    }

    fn remove(dir: &Path) -> Result<(), Error> {
        match std::fs::remove_dir_all(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::File {
                path: dir.to_owned(),
                problem: format!("cannot be removed: {error}"),
                mend: "remove it by hand",
            }),
            _ => Ok(()),
        }
    }
}

fn authority_params(trust_domain: &TrustDomain, role: &str, path_length: u8) -> Result<CertificateParams, Error> {
    let serial = serial()?;
    let mut params = CertificateParams::default();
    let mut name = rcgen::DistinguishedName::new();
    // Unique per certificate, or path building would have to try one key after the other.
    let mark: String = serial.to_bytes().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    name.push(DnType::OrganizationName, "Veer");
    name.push(DnType::CommonName, format!("{role} {mark}"));
    params.distinguished_name = name;
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://{trust_domain}").try_into()?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = Some(rcgen::NameConstraints {
        permitted_subtrees: Vec::new(),
        excluded_subtrees: vec![
            GeneralSubtree::DnsName(String::new()),
            GeneralSubtree::IpAddress(rcgen::CidrSubnet::from_v4_prefix([0; 4], 0)),
            GeneralSubtree::IpAddress(rcgen::CidrSubnet::from_v6_prefix([0; 16], 0)),
        ],
    });
    params.serial_number = Some(serial);
    Ok(params)
}

/// The key of a request that is signed by it. Everything else that it says is ignored.
fn read_request(der: &[u8]) -> Result<rcgen::SubjectPublicKeyInfo, Error> {
    let refuse = |reason: &str| Error::Request(reason.to_owned());
    if der.len() > MAX_REQUEST {
        return Err(refuse("it is longer than 8 KiB"));
    }
    let request = rcgen::CertificateSigningRequestParams::from_der(&der.into())
        .map_err(|error| Error::Request(error.to_string()))?;
    let (_, parsed) = x509_parser::certification_request::X509CertificationRequest::from_der(der)
        .map_err(|_| refuse("it is not PKCS #10 in DER"))?;
    let key = rcgen::SubjectPublicKeyInfo::from_der(parsed.certification_request_info.subject_pki.raw)
        .map_err(|_| refuse("its key is of an unknown kind"))?;
    use rcgen::PublicKeyData;
    // The curve is asked of the key itself, not of the signature algorithm, which does not name it.
    let p256 = &rcgen::PKCS_ECDSA_P256_SHA256;
    if key.algorithm() != p256 || request.public_key.algorithm() != p256 || key.der_bytes().len() != 65 {
        return Err(refuse("its key is not ECDSA P-256"));
    }
    Ok(key)
}

fn serial() -> Result<rcgen::SerialNumber, Error> {
    let mut bytes = [0u8; 16];
    aws_lc_rs::rand::fill(&mut bytes)?;
    // Positive and without leading zero (RFC 5280 §4.1.2.2).
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(rcgen::SerialNumber::from_slice(&bytes))
}

pub(crate) fn hash(der: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der).as_ref());
    out
}
