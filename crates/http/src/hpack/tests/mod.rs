mod appendix_c;
mod peers;
mod policy;

use super::*;

type Text = (String, String);

pub(super) fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

/// Encodes as the engine does: pseudo-fields by kind, fields by number.
fn encode(encoder: &mut Encoder, fields: &[(&[u8], &[u8], bool)]) -> Vec<u8> {
    let mut out = Vec::new();
    encoder.begin(&mut out);
    for (name, value, sensitive) in fields.iter().copied() {
        match Pseudo::of(name) {
            Some(pseudo) => encoder.pseudo(pseudo, value, &mut out),
            None => encoder.field(Name::of(name), name, value, sensitive, &mut out),
        }
    }
    out
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>, bool)>, HpackFault> {
    let mut fields = Vec::new();
    decoder.decode(block, |name, value, sensitive| {
        fields.push((name.to_vec(), value.to_vec(), sensitive));
        Ok::<_, HpackFault>(())
    })?;
    Ok(fields)
}

fn text(fields: &[(Vec<u8>, Vec<u8>, bool)]) -> Vec<Text> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    fields.iter().map(|(name, value, _)| (text(name), text(value))).collect()
}
