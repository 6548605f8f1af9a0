//! Names, labels: RFC 1123, RFC 1035, and the Kubernetes qualified name. Each check answers what is
//! wrong, or nothing.

fn alphanumeric(byte: u8, upper: bool) -> bool {
    byte.is_ascii_digit() || byte.is_ascii_lowercase() || (upper && byte.is_ascii_uppercase())
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    alphanumeric(*first, false)
        && alphanumeric(*last, false)
        && bytes
            .iter()
            .all(|byte| alphanumeric(*byte, false) || *byte == b'-')
}

/// RFC 1123 label of at most 63 characters.
pub(crate) fn label(text: &str) -> Option<&'static str> {
    if text.len() > 63 {
        return Some("must be no more than 63 bytes");
    }
    (!is_label(text)).then_some("a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')")
}

/// RFC 1035 label of at most 63 characters.
pub(crate) fn label1035(text: &str) -> Option<&'static str> {
    if text.len() > 63 {
        return Some("must be no more than 63 bytes");
    }
    let fits = is_label(text) && !text.as_bytes()[0].is_ascii_digit();
    (!fits).then_some("a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')")
}

/// RFC 1123 subdomain of at most 253 characters.
pub(crate) fn subdomain(text: &str) -> Option<&'static str> {
    if text.len() > 253 {
        return Some("must be no more than 253 bytes");
    }
    (!text.split('.').all(is_label)).then_some("a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')")
}

/// One path segment.
pub(crate) fn segment(text: &str) -> Option<&'static str> {
    if matches!(text, "." | "..") {
        return Some("may not be '.' or '..'");
    }
    text.contains(['/', '%'])
        .then_some("may not contain '/' or '%'")
}

/// The part after the slash of a label key, or a label value that is not empty.
fn name_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    bytes.len() <= 63
        && alphanumeric(*first, true)
        && alphanumeric(*last, true)
        && bytes
            .iter()
            .all(|byte| alphanumeric(*byte, true) || b"-_.".contains(byte))
}

/// A key of labels or annotations: `[SUBDOMAIN/]NAME`.
pub(crate) fn qualified_name(text: &str) -> Option<&'static str> {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    if !name_part(name) {
        return Some(
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
        );
    }
    prefix.and_then(subdomain)
}

/// A label's value.
pub(crate) fn label_value(text: &str) -> Option<&'static str> {
    let fits = text.is_empty() || name_part(text);
    (!fits).then_some("a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "a-1", "0"] {
            assert_eq!(label(good), None, "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", &"a".repeat(64)] {
            assert!(label(bad).is_some(), "{bad}");
        }
        assert!(label1035("1a").is_some());
        assert_eq!(subdomain("a.b-c.d"), None);
        assert!(subdomain("a..b").is_some());
        assert_eq!(segment("system:node"), None);
        assert!(segment("a/b").is_some());
        assert_eq!(qualified_name("kubernetes.io/App_1"), None);
        assert!(qualified_name("a/b/c").is_some());
        assert_eq!(label_value(""), None);
        assert!(label_value("a b").is_some());
    }
}
