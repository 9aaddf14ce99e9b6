//! TLS 1.3 records (RFC 8446 §5): sealing and opening, each in the buffer that the bytes are in anyway.
//!
//! rustls' own record layer makes a `Vec` per record and copies it once more in each direction. At 16 KiB that is a fifth of
//! the work, and it is why a connection cannot be without buffers while it is idle.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rustls::crypto::cipher::{Iv, NONCE_LEN, Nonce as Counted, make_tls13_aad};
use rustls::crypto::tls13::OkmBlock;
use rustls::{
    AlertDescription, CipherSuite, ConnectionTrafficSecrets, ContentType, Error, InvalidMessage, PeerMisbehaved,
    Tls13CipherSuite,
};

use super::warm::Place;

/// Type, version, length.
pub(crate) const HEADER: usize = 5;
/// Authentication tag of every suite that we speak.
pub(crate) const TAG: usize = 16;
/// What a record adds to its plaintext: header, inner content type, tag. We pad nothing.
pub(crate) const OVERHEAD: usize = HEADER + 1 + TAG;
/// Longest plaintext of a record (RFC 8446 §5.1).
pub(crate) const MAX_PLAIN: usize = 1 << 14;
/// Longest payload of an encrypted record (RFC 8446 §5.2).
pub(crate) const MAX_SEALED: usize = MAX_PLAIN + 256;

/// One direction: its secret, the key that came from it, and the number of the next record.
struct Half {
    suite: &'static Tls13CipherSuite,
    /// `application_traffic_secret_N` (RFC 8446 §7.1); the next comes from it.
    secret: OkmBlock,
    key: OkmBlock,
    iv: Iv,
    sequence: u64,
    cipher: Place,
}

impl Half {
    /// With the key that the handshake gave, and the secret that it came from.
    fn new(
        suite: &'static Tls13CipherSuite,
        secret: OkmBlock,
        (sequence, key): (u64, ConnectionTrafficSecrets),
    ) -> Result<Self, Error> {
        let (key, iv) = match key {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv }
            | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
            | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (OkmBlock::new(key.as_ref()), iv),
            _ => return Err(Error::General("a cipher suite that was never offered".to_owned())),
        };
        Ok(Self { suite, secret, key, iv, sequence, cipher: Place::default() })
    }

    /// Goes on to the next secret and its key (RFC 8446 §7.2, §7.3).
    fn update(&mut self) -> Result<(), Error> {
        let hkdf = self.suite.hkdf_provider;
        let mut next = [0; OkmBlock::MAX_LEN];
        let next = &mut next[..self.secret.as_ref().len()];
        expand(&*hkdf.expander_for_okm(&self.secret), b"traffic upd", next)?;
        let secret = OkmBlock::new(next);
        let expander = hkdf.expander_for_okm(&secret);
        let mut key = [0; 32];
        let key = &mut key[..self.suite.aead_alg.key_len()];
        expand(&*expander, b"key", key)?;
        let mut iv = [0; NONCE_LEN];
        expand(&*expander, b"iv", &mut iv)?;
        let (suite, key) = (self.suite, OkmBlock::new(key));
        *self = Self { suite, secret, key, iv: Iv::from(iv), sequence: 0, cipher: Place::default() };
        Ok(())
    }

    /// Does something with the cipher and the next nonce. A number is never used twice: the counter moves before anything
    /// can fail, and stops at its end.
    fn with<T>(&mut self, act: impl FnOnce(&LessSafeKey, Nonce) -> T) -> Result<T, Error> {
        let nonce = Nonce::assume_unique_for_key(Counted::new(&self.iv, self.sequence).0);
        self.sequence = self.sequence.checked_add(1).ok_or(Error::EncryptError)?;
        let (suite, key) = (self.suite, &self.key);
        self.cipher.with(|| cipher(suite, key), |cipher| act(cipher, nonce))
    }
}

fn cipher(suite: &Tls13CipherSuite, key: &OkmBlock) -> Result<LessSafeKey, Error> {
    let algorithm = match suite.common.suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => &AES_128_GCM,
        CipherSuite::TLS13_AES_256_GCM_SHA384 => &AES_256_GCM,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => &CHACHA20_POLY1305,
        _ => return Err(Error::General("a cipher suite that was never offered".to_owned())),
    };
    UnboundKey::new(algorithm, key.as_ref()).map(LessSafeKey::new).map_err(|_| Error::EncryptError)
}

/// `HKDF-Expand-Label` without context (RFC 8446 §7.1).
fn expand(expander: &dyn rustls::crypto::tls13::HkdfExpander, label: &[u8], out: &mut [u8]) -> Result<(), Error> {
    let length = (out.len() as u16).to_be_bytes();
    let info: [&[u8]; 5] = [&length, &[6 + label.len() as u8], b"tls13 ", label, &[0]];
    expander.expand_slice(&info, out).map_err(|_| Error::EncryptError)
}

/// Seals what we send.
pub(crate) struct Sealer {
    half: Half,
    /// Records that one key may seal (RFC 8446 §5.5).
    limit: u64,
}

impl Sealer {
    /// With the handshake's secret, and the key and the number of the next record that came of it.
    pub(crate) fn new(
        suite: &'static Tls13CipherSuite,
        secret: OkmBlock,
        key: (u64, ConnectionTrafficSecrets),
    ) -> Result<Self, Error> {
        Ok(Self { half: Half::new(suite, secret, key)?, limit: suite.common.confidentiality_limit })
    }

    /// Whether the next record must be a `KeyUpdate`: it is the last that this key may seal.
    pub(crate) fn is_used_up(&self) -> bool {
        self.half.sequence.saturating_add(1) >= self.limit
    }

    /// Goes on with the next key.
    pub(crate) fn update(&mut self) -> Result<(), Error> {
        self.half.update()
    }

    /// Seals the plaintext that lies in `record` between header and the last `1 + TAG` bytes.
    pub(crate) fn seal_in_place(&mut self, kind: ContentType, record: &mut [u8]) -> Result<(), Error> {
        let header = header_for(record)?;
        let (head, body) = record.split_at_mut(HEADER);
        let (plain, tail) = body.split_at_mut(body.len() - 1 - TAG);
        head.copy_from_slice(&header);
        self.half
            .with(|cipher, nonce| cipher.seal_in_place_scatter(nonce, Aad::from(header), plain, &[kind.into()], tail))?
            .map_err(|_| Error::EncryptError)
    }

    /// Seals application data from where it is into `record`, which is [`OVERHEAD`] longer.
    pub(crate) fn seal_from(&mut self, plain: &[u8], record: &mut [u8]) -> Result<(), Error> {
        let header = header_for(record)?;
        let (head, body) = record.split_at_mut(HEADER);
        let (sealed, tail) = body.split_at_mut(body.len() - 1 - TAG);
        head.copy_from_slice(&header);
        let kind = [ContentType::ApplicationData.into()];
        self.half
            .with(|cipher, nonce| {
                cipher.seal_out_of_place_scatter(nonce, Aad::from(header), plain, sealed, &kind, tail)
            })?
            .map_err(|_| Error::EncryptError)
    }

    #[cfg(test)]
    pub(crate) fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    #[cfg(test)]
    pub(crate) fn sealed(&self) -> u64 {
        self.half.sequence
    }
}

/// The header is the additional data as well (RFC 8446 §5.2).
fn header_for(record: &[u8]) -> Result<[u8; HEADER], Error> {
    match record.len().checked_sub(HEADER) {
        Some(payload) if payload > TAG && payload <= MAX_SEALED => Ok(make_tls13_aad(payload)),
        _ => Err(Error::EncryptError),
    }
}

/// Opens what we receive.
pub(crate) struct Opener {
    half: Half,
}

impl Opener {
    /// As [`Sealer::new`].
    pub(crate) fn new(
        suite: &'static Tls13CipherSuite,
        secret: OkmBlock,
        key: (u64, ConnectionTrafficSecrets),
    ) -> Result<Self, Error> {
        Ok(Self { half: Half::new(suite, secret, key)? })
    }

    /// Goes on with the next key.
    pub(crate) fn update(&mut self) -> Result<(), Error> {
        self.half.update()
    }

    /// Opens a whole record in place. Its plaintext begins after the header; type and length are given.
    ///
    /// # Errors
    /// As [`alert`] tells the peer.
    pub(crate) fn open_in_place(&mut self, record: &mut [u8]) -> Result<(ContentType, usize), Error> {
        let (header, payload) = split(record)?;
        let plain = self
            .half
            .with(|cipher, nonce| cipher.open_in_place(nonce, Aad::from(header), payload))?
            .map_err(|_| Error::DecryptError)?;
        unpad(plain)
    }

    /// Opens a whole record into `out`, which has room for [`plain_room`] bytes.
    ///
    /// # Errors
    /// As [`alert`] tells the peer; `out` then holds nothing of use.
    pub(crate) fn open_into(&mut self, record: &mut [u8], out: &mut [u8]) -> Result<(ContentType, usize), Error> {
        let (header, payload) = split(record)?;
        let (sealed, tag) = payload.split_at(payload.len() - TAG);
        self.half
            .with(|cipher, nonce| cipher.open_separate_gather(nonce, Aad::from(header), sealed, tag, out))?
            .map_err(|_| Error::DecryptError)?;
        unpad(out)
    }
}

/// Bytes that opening a record of this length writes: plaintext, inner content type and padding.
pub(crate) fn plain_room(record: usize) -> usize {
    record.saturating_sub(HEADER + TAG)
}

fn split(record: &mut [u8]) -> Result<([u8; HEADER], &mut [u8]), Error> {
    match record.split_first_chunk_mut::<HEADER>() {
        Some((header, payload)) if payload.len() > TAG => Ok((*header, payload)),
        _ => Err(Error::DecryptError),
    }
}

/// Finds the inner content type behind the padding (RFC 8446 §5.4).
fn unpad(plain: &[u8]) -> Result<(ContentType, usize), Error> {
    if plain.len() > MAX_PLAIN + 1 {
        return Err(Error::PeerSentOversizedRecord);
    }
    match plain.iter().rposition(|byte| *byte != 0) {
        Some(at) if at <= MAX_PLAIN => Ok((ContentType::from(plain[at]), at)),
        Some(_) => Err(Error::PeerSentOversizedRecord),
        None => Err(PeerMisbehaved::IllegalTlsInnerPlaintext.into()),
    }
}

/// Length of the record that begins here, header included; `None` while its header is not whole.
///
/// # Errors
/// When no record of an encrypted connection begins like this.
pub(crate) fn length(bytes: &[u8]) -> Result<Option<usize>, Error> {
    let Some(header) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    // Everything after the handshake is dressed as application data (RFC 8446 §5.2).
    if ContentType::from(header[0]) != ContentType::ApplicationData {
        return Err(Error::InappropriateMessage {
            expect_types: vec![ContentType::ApplicationData],
            got_type: ContentType::from(header[0]),
        });
    }
    let payload = usize::from(u16::from_be_bytes([header[3], header[4]]));
    if payload > MAX_SEALED {
        return Err(Error::PeerSentOversizedRecord);
    }
    Ok(Some(HEADER + payload))
}

/// Length of the handshake record that begins here; `None` while its header is not whole. What is no record at all is as long
/// as it is: rustls says what is wrong with it.
pub(crate) fn handshake_length(bytes: &[u8]) -> Option<usize> {
    let header = bytes.first_chunk::<HEADER>()?;
    let payload = usize::from(u16::from_be_bytes([header[3], header[4]]));
    match header {
        [20..=23, 3, ..] if payload <= MAX_SEALED => Some(HEADER + payload),
        _ => Some(bytes.len()),
    }
}

/// What the peer is told of an error (RFC 8446 §6.2).
pub(crate) fn alert(error: &Error) -> AlertDescription {
    match error {
        Error::DecryptError => AlertDescription::BadRecordMac,
        Error::PeerSentOversizedRecord => AlertDescription::RecordOverflow,
        Error::InvalidMessage(InvalidMessage::InvalidKeyUpdate) => AlertDescription::IllegalParameter,
        Error::InvalidMessage(_) => AlertDescription::DecodeError,
        Error::InvalidCertificate(error) => error.clone().into(),
        Error::NoCertificatesPresented => AlertDescription::CertificateRequired,
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } | Error::PeerMisbehaved(_) => {
            AlertDescription::UnexpectedMessage
        }
        _ => AlertDescription::InternalError,
    }
}
