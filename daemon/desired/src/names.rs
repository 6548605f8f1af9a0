//! Names and numbers of the domain, checked once at the border.
//!
//! Names are kept in an `Arc<str>`: a snapshot repeats them in many places and is cloned often.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A name, port or protocol that is not what it claims to be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what} {value:?} is not valid: {remedy}")]
pub struct NameError {
    /// What the value was meant to be, for example `namespace`.
    pub what: &'static str,
    /// The value as it came.
    pub value: String,
    /// What a valid value looks like.
    pub remedy: &'static str,
}

const DNS_LABEL: &str =
    "use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit";
const DNS_SUBDOMAIN: &str =
    "use 1 to 253 of a-z, 0-9, '-' and '.', beginning and ending with a letter or digit";
const UID: &str = "use 1 to 253 of letters, digits, '-', '_', '.' and ':'";

fn is_dns_label(text: &str) -> bool {
    text.len() <= 63 && !text.contains('.') && is_dns_subdomain(text)
}

fn is_dns_subdomain(text: &str) -> bool {
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.len() <= 253
        && bytes.first().is_some_and(inner)
        && bytes.last().is_some_and(inner)
        && bytes
            .iter()
            .all(|byte| inner(byte) || matches!(byte, b'-' | b'.'))
}

fn is_uid(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':'))
}

macro_rules! text_newtype {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:path, $remedy:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                if $check(text) {
                    Ok(Self(Arc::from(text)))
                } else {
                    Err(NameError { what: $what, value: text.to_owned(), remedy: $remedy })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&self.0)
            }
        }
    };
}

text_newtype!(
    /// `metadata.name` of a Node.
    NodeName, "node name", is_dns_subdomain, DNS_SUBDOMAIN
);
text_newtype!(
    /// `metadata.name` of a Namespace.
    NamespaceName, "namespace", is_dns_label, DNS_LABEL
);
text_newtype!(
    /// `metadata.name` of a namespaced object.
    ObjectName, "object name", is_dns_subdomain, DNS_SUBDOMAIN
);
text_newtype!(
    /// `metadata.uid` of a Pod.
    PodUid, "pod uid", is_uid, UID
);

macro_rules! object_reference {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name {
            /// The namespace the object is in.
            pub namespace: NamespaceName,
            /// The object's name within the namespace.
            pub name: ObjectName,
        }

        impl $name {
            /// Checks both parts.
            ///
            /// # Errors
            /// When one of them is not a Kubernetes name.
            pub fn new(namespace: &str, name: &str) -> Result<Self, NameError> {
                Ok(Self { namespace: namespace.parse()?, name: name.parse()? })
            }
        }

        /// Parses `namespace/name`; a bare `name` is in namespace `default`.
        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
                Self::new(namespace, name)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(reference: $name) -> Self {
                reference.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "{}/{}", self.namespace, self.name)
            }
        }
    };
}

object_reference!(
    /// Which Pod: `namespace/name`.
    PodName
);
object_reference!(
    /// Which Service: `namespace/name`.
    ServiceName
);
object_reference!(
    /// Which EndpointSlice: `namespace/name`.
    SliceName
);
object_reference!(
    /// Which NetworkPolicy: `namespace/name`.
    PolicyName
);

/// A transport port, 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PortNumber(NonZeroU16);

impl PortNumber {
    /// The number in host order.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0.get()
    }
}

impl TryFrom<i32> for PortNumber {
    type Error = NameError;

    fn try_from(number: i32) -> Result<Self, NameError> {
        u16::try_from(number)
            .ok()
            .and_then(NonZeroU16::new)
            .map(Self)
            .ok_or_else(|| NameError {
                what: "port",
                value: number.to_string(),
                remedy: "use a number from 1 to 65535",
            })
    }
}

impl FromStr for PortNumber {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError {
            what: "port",
            value: text.to_owned(),
            remedy: "use a number from 1 to 65535",
        };
        text.parse().map(Self).map_err(|_| wrong())
    }
}

impl fmt::Display for PortNumber {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// A transport protocol that Services and NetworkPolicies can name.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP, the default wherever a protocol is left out.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP: carried and matched, not load-balanced.
    Sctp,
}

impl Protocol {
    /// Every protocol, in order.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// The IP protocol number.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The name that Kubernetes uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

impl FromStr for Protocol {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::ALL
            .into_iter()
            .find(|protocol| text.eq_ignore_ascii_case(protocol.as_str()))
            .ok_or(NameError {
                what: "protocol",
                value: text.to_owned(),
                remedy: "use TCP, UDP or SCTP",
            })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_say_what_is_wrong() {
        assert_eq!(
            "kube-system".parse::<NamespaceName>().unwrap().as_str(),
            "kube-system"
        );
        let wrong = "../etc".parse::<NamespaceName>().unwrap_err();
        assert_eq!(
            wrong.to_string(),
            "namespace \"../etc\" is not valid: use 1 to 63 of a-z, 0-9 and '-', beginning and \
             ending with a letter or digit"
        );
        for text in ["", "A", "-a", "a-", "a/b", &"a".repeat(254)] {
            assert!(text.parse::<ObjectName>().is_err(), "{text:?}");
        }
        assert!("a.b".parse::<NamespaceName>().is_err());
        assert!("a.b".parse::<ObjectName>().is_ok());
    }

    #[test]
    fn references_read_what_they_print() {
        let pod: PodName = "shop/web-0".parse().unwrap();
        assert_eq!(pod.to_string(), "shop/web-0");
        assert_eq!(
            "web-0".parse::<PodName>().unwrap().to_string(),
            "default/web-0"
        );
        assert!("a/b/c".parse::<PodName>().is_err());
    }

    #[test]
    fn ports_and_protocols() {
        assert_eq!(PortNumber::try_from(80).unwrap().get(), 80);
        for number in [-1, 0, 65_536] {
            assert!(PortNumber::try_from(number).is_err(), "{number}");
        }
        assert_eq!("udp".parse::<Protocol>().unwrap(), Protocol::Udp);
        assert_eq!(
            "ICMP".parse::<Protocol>().unwrap_err().to_string(),
            "protocol \"ICMP\" is not valid: use TCP, UDP or SCTP"
        );
    }
}
