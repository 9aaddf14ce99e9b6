//! The small grammars of manifests. Each check gives the rule that was broken.

type Checked = Result<(), String>;

fn edge(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

/// DNS label (RFC 1123).
pub(crate) fn label(text: &str) -> Checked {
    let bytes = text.as_bytes();
    let rule = match bytes {
        [] => "is empty",
        _ if bytes.len() > 63 => "is longer than 63 characters",
        _ if !edge(bytes[0]) || !edge(bytes[bytes.len() - 1]) => {
            "must begin and end with a lower-case letter or a digit"
        }
        _ if !bytes.iter().all(|&b| edge(b) || b == b'-') => "may hold lower-case letters, digits and '-' only",
        _ => return Ok(()),
    };
    Err(rule.to_owned())
}

/// DNS subdomain (RFC 1123): labels and dots, at most 253 characters.
pub(crate) fn subdomain(text: &str) -> Checked {
    if text.len() > 253 {
        return Err("is longer than 253 characters".to_owned());
    }
    text.split('.').try_for_each(|part| {
        let edges = part.as_bytes();
        let fine = edges.first().is_some_and(|&b| edge(b))
            && edges.last().is_some_and(|&b| edge(b))
            && edges.iter().all(|&b| edge(b) || b == b'-');
        if fine {
            Ok(())
        } else {
            Err("must be lower-case letters, digits, '-' and '.', each part with a letter or digit at both ends"
                .to_owned())
        }
    })
}

/// Host name that may begin with `*.` (Gateway API).
pub(crate) fn hostname(text: &str) -> Checked {
    if text.parse::<std::net::IpAddr>().is_ok() {
        return Err("is an address; a host name is needed".to_owned());
    }
    subdomain(text.strip_prefix("*.").unwrap_or(text))
}

/// Origin of the Fetch standard with scheme `http` or `https`; its host may be `*` or begin with `*.` (Gateway API).
pub(crate) fn origin(text: &str) -> Checked {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let rest = rest.ok_or_else(|| "must begin with http:// or https://".to_owned())?;
    let (host, port) = rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port)));
    if port.is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
        return Err("has a port that is none".to_owned());
    }
    match host {
        "*" => Ok(()),
        host => subdomain(&host.strip_prefix("*.").unwrap_or(host).to_ascii_lowercase()),
    }
}

/// Key of a label or an annotation: an optional DNS prefix and a name.
pub(crate) fn qualified(text: &str) -> Checked {
    let name = match text.split_once('/') {
        Some((prefix, name)) => {
            subdomain(prefix).map_err(|rule| format!("its prefix {rule}"))?;
            name
        }
        None => text,
    };
    match name.is_empty() {
        true => Err("has no name".to_owned()),
        false => label_value(name),
    }
}

/// Value of a label.
pub(crate) fn label_value(text: &str) -> Checked {
    let bytes = text.as_bytes();
    let edge = |b: &u8| b.is_ascii_alphanumeric();
    let rule = match bytes {
        [] => return Ok(()),
        _ if bytes.len() > 63 => "is longer than 63 characters",
        [first, .., last] if !edge(first) || !edge(last) => "must begin and end with a letter or a digit",
        [one] if !edge(one) => "must be a letter or a digit",
        _ if !bytes.iter().all(|b| edge(b) || matches!(b, b'-' | b'_' | b'.')) => {
            "may hold letters, digits, '-', '_' and '.' only"
        }
        _ => return Ok(()),
    };
    Err(rule.to_owned())
}

/// Token of HTTP (RFC 9110 §5.6.2): names of header fields, methods.
pub(crate) fn token(text: &str) -> Checked {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    match text.bytes().find(|&b| !allowed(b)) {
        _ if text.is_empty() => Err("is empty".to_owned()),
        _ if text.len() > 256 => Err("is longer than 256 characters".to_owned()),
        Some(_) => Err("may hold letters, digits and !#$%&'*+-.^_`|~ only".to_owned()),
        None => Ok(()),
    }
}

/// Value of a header field.
pub(crate) fn header_value(text: &str) -> Checked {
    if text.len() > 4096 {
        return Err("is longer than 4096 characters".to_owned());
    }
    if !text.bytes().all(|b| b == b'\t' || (0x20..0x7f).contains(&b)) {
        return Err("may hold visible ASCII characters, spaces and tabs only".to_owned());
    }
    match text.trim_matches([' ', '\t']) == text {
        true => Ok(()),
        false => Err("must not begin or end with a space".to_owned()),
    }
}

/// Path of an exact or prefix match (the rules of the Gateway API: what normal forms never contain cannot match).
pub(crate) fn path(text: &str) -> Checked {
    if text.len() > 1024 {
        return Err("is longer than 1024 characters".to_owned());
    }
    if !text.starts_with('/') {
        return Err("must begin with '/'".to_owned());
    }
    for bad in ["//", "/./", "/../", "%2f", "%2F", "#", "?"] {
        if text.contains(bad) {
            return Err(format!("must not contain {bad:?}"));
        }
    }
    if text.ends_with("/..") || text.ends_with("/.") {
        return Err("must not end with a dot segment".to_owned());
    }
    match text.bytes().all(|b| (0x21..0x7f).contains(&b)) {
        true => Ok(()),
        false => Err("may hold visible ASCII characters only; write others percent-encoded".to_owned()),
    }
}

/// Dot-separated identifiers of Protocol Buffers.
pub(crate) fn proto_name(text: &str, dots: bool) -> Checked {
    let identifier = |part: &str| {
        let mut bytes = part.bytes();
        bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
            && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let fine = if dots { text.split('.').all(identifier) } else { identifier(text) };
    match fine {
        true => Ok(()),
        false if dots => Err("is not a fully qualified service like shop.v1.Cart".to_owned()),
        false => Err("is not a method like AddItem".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammars_take_what_is_right_and_refuse_what_is_not() {
        let table: [(fn(&str) -> Checked, &[&str], &[&str]); 9] = [
            (label, &["a", "a-1", "0"], &["", "-a", "a-", "A", "a.b", "a_b", &"a".repeat(64)]),
            (subdomain, &["a.b-c.d", "a"], &["", ".a", "a.", "a..b", "A.b", "a-.b"]),
            (hostname, &["*.a.b", "a.b"], &["*", "a.*", "1.2.3.4", "*.*.b"]),
            (
                origin,
                &["https://a.b", "http://*.a.b:8080", "https://*", "http://A"],
                &["a.b", "ftp://a.b", "https://", "https://a:0", "https://a.b/", "https://a*b"],
            ),
            (qualified, &["app", "veer.dev/mtls", "a/B_c.d"], &["", "/a", "a/", "a/b/c", "A.b/c", "a b"]),
            (label_value, &["", "A", "a.b_c-d"], &["-", "-a", "a-", "a b", "ä"]),
            (token, &["X-A", "a!"], &["", "a b", "a:b", "ä"]),
            (header_value, &["", "a b", "a;q=1"], &[" a", "a\n", "ä", "a\r\nb"]),
            (
                path,
                &["/", "/a/b", "/a%20b", "/a/"],
                &["", "a", "//", "/a//b", "/a/../b", "/a/.", "/%2f", "/a#b", "/a b"],
            ),
        ];
        for (check, good, bad) in table {
            good.iter().for_each(|text| assert_eq!(check(text), Ok(()), "{text:?}"));
            bad.iter().for_each(|text| assert!(check(text).is_err(), "{text:?}"));
        }
        assert!(proto_name("shop.v1.Cart", true).is_ok() && proto_name("Add", false).is_ok());
        assert!(proto_name("shop..Cart", true).is_err() && proto_name("a.b", false).is_err());
    }
}
