//! A CA and two identities for the pairs of other proxies. Veer's come from its own control plane.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

/// Name of the calling proxy.
pub const CALLER: &str = "caller.bench";
/// Name of the called proxy.
pub const CALLEE: &str = "callee.bench";

/// Writes `ca.pem`, and per identity `NAME.pem`, `NAME.key` and `NAME.both.pem` (HAProxy wants one file). Keys are ECDSA
/// P-256, as Veer's are.
pub fn write(folder: &Path) -> anyhow::Result<()> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    // Without names of their own, subject and issuer would be the same and every certificate look self-signed.
    params.distinguished_name.push(DnType::CommonName, "benchmark");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let root = params.self_signed(&key)?;
    std::fs::write(folder.join("ca.pem"), root.pem())?;
    let issuer = Issuer::new(params, key);
    for name in [CALLER, CALLEE] {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&key, &issuer)?;
        std::fs::write(folder.join(format!("{name}.pem")), leaf.pem())?;
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
        std::fs::write(folder.join(format!("{name}.both.pem")), leaf.pem() + &key.serialize_pem())?;
    }
    Ok(())
}
