//! What people type: `shop/web 10.96.0.10:53/UDP`.

use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::names::{NamespaceName, ObjectName, PortNumber, Protocol};

/// One end of a question: an address, or a name that is a pod's or (as destination) a service's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Place {
    /// An address.
    Address(IpAddr),
    /// A namespace and a name; without namespace `default`.
    Named(NamespaceName, ObjectName),
}

/// The destination of a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Destination {
    /// Where.
    pub place: Place,
    /// Which port of which protocol; `None` asks about ICMP.
    pub port: Option<(PortNumber, Protocol)>,
}

/// Text that is no place or destination.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what} {value:?}: use {remedy}")]
pub struct QueryError {
    /// `source` or `destination`, or a part of it.
    pub what: &'static str,
    /// The text as it came.
    pub value: String,
    /// What would be right.
    pub remedy: &'static str,
}

const PLACE: &str = "an address, or namespace/name";
const DESTINATION: &str = "ADDRESS or NAMESPACE/NAME, then :PORT or :PORT/PROTOCOL; an IPv6 \
                           address with a port is written [ADDRESS]:PORT";

impl FromStr for Place {
    type Err = QueryError;

    fn from_str(text: &str) -> Result<Self, QueryError> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
        match (namespace.parse(), name.parse()) {
            (Ok(namespace), Ok(name)) => Ok(Self::Named(namespace, name)),
            _ => Err(QueryError {
                what: "place",
                value: text.to_owned(),
                remedy: PLACE,
            }),
        }
    }
}

impl FromStr for Destination {
    type Err = QueryError;

    fn from_str(text: &str) -> Result<Self, QueryError> {
        let wrong = || QueryError {
            what: "destination",
            value: text.to_owned(),
            remedy: DESTINATION,
        };
        // A bare IPv6 address has colons of its own.
        if let Ok(address) = text.parse() {
            return Ok(Self {
                place: Place::Address(address),
                port: None,
            });
        }
        let (place, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, rest) = rest.split_once(']').ok_or_else(wrong)?;
                let port = match rest.strip_prefix(':') {
                    None if rest.is_empty() => None,
                    None => return Err(wrong()),
                    Some(port) => Some(port),
                };
                (address, port)
            }
            None => match text.rsplit_once(':') {
                Some((place, port)) => (place, Some(port)),
                None => (text, None),
            },
        };
        let place = place.parse().map_err(|_| wrong())?;
        let port = port
            .map(|port| parse_port(port).ok_or_else(wrong))
            .transpose()?;
        Ok(Self { place, port })
    }
}

fn parse_port(text: &str) -> Option<(PortNumber, Protocol)> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "TCP"));
    Some((number.parse().ok()?, protocol.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(namespace: &str, name: &str) -> Place {
        Place::Named(namespace.parse().unwrap(), name.parse().unwrap())
    }

    #[test]
    fn destinations_in_every_form() {
        let address = |text: &str| Place::Address(text.parse().unwrap());
        let port = |number: i32, protocol| Some((number.try_into().unwrap(), protocol));
        for (text, place, port) in [
            ("10.0.0.1", address("10.0.0.1"), None),
            ("10.0.0.1:80", address("10.0.0.1"), port(80, Protocol::Tcp)),
            (
                "10.0.0.1:53/udp",
                address("10.0.0.1"),
                port(53, Protocol::Udp),
            ),
            (
                "shop/web:80/SCTP",
                named("shop", "web"),
                port(80, Protocol::Sctp),
            ),
            ("web", named("default", "web"), None),
            ("fd00::1", address("fd00::1"), None),
            ("[fd00::1]", address("fd00::1"), None),
            ("[fd00::1]:80", address("fd00::1"), port(80, Protocol::Tcp)),
        ] {
            assert_eq!(text.parse(), Ok(Destination { place, port }), "{text}");
        }
    }

    #[test]
    fn wrong_destinations_are_named() {
        for text in [
            "",
            "a b",
            "10.0.0.1:0",
            "10.0.0.1:80/ICMP",
            "[fd00::1",
            "[fd00::1]80",
            "a/b/c",
        ] {
            let wrong = text.parse::<Destination>().unwrap_err();
            assert_eq!(wrong.value, text);
        }
        assert_eq!(
            "A".parse::<Place>().unwrap_err().to_string(),
            "place \"A\": use an address, or namespace/name"
        );
    }
}
