//! `towline why`: what to ask the daemon, and its answer in words.

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::table::cell;

/// A question as the daemon takes it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Question {
    source: String,
    destination: String,
    port: Option<u16>,
    protocol: String,
}

// === impl Question ===

impl Question {
    /// Reads `SRC` and `DST[:PORT[/PROTO]]`; IPv6 addresses with a port stand in brackets.
    pub(crate) fn parse(source: &str, destination: &str) -> anyhow::Result<Self> {
        let (host, port) = split_port(destination);
        let (port, protocol) = match port {
            None => (None, "TCP".to_owned()),
            Some(text) => {
                let (number, protocol) = match text.split_once('/') {
                    Some((number, protocol)) => (number, protocol),
                    None => (text, "tcp"),
                };
                let number: u16 = number
                    .parse()
                    .ok()
                    .filter(|number| *number != 0)
                    .with_context(|| format!("destination: {destination:?}: the port must be a number from 1 to 65535"))?;
                (Some(number), protocol.to_uppercase())
            }
        };
        if !["TCP", "UDP", "SCTP"].contains(&protocol.as_str()) {
            bail!("destination: {destination:?}: the protocol must be tcp, udp or sctp");
        }
        if host.is_empty() || source.is_empty() {
            bail!("name a source and a destination: [NAMESPACE/]POD or an address");
        }
        Ok(Self {
            source: source.to_owned(),
            destination: host.trim_matches(['[', ']']).to_owned(),
            port,
            protocol,
        })
    }

    /// The request's path with query.
    pub(crate) fn path(&self) -> String {
        let mut path = format!(
            "/v1/why?src={}&dst={}&protocol={}",
            encoded(&self.source),
            encoded(&self.destination),
            self.protocol
        );
        if let Some(port) = self.port {
            path += &format!("&port={port}");
        }
        path
    }
}

/// Host and port of `host`, `host:port`, `[v6]:port` or a bare IPv6 address.
fn split_port(text: &str) -> (&str, Option<&str>) {
    if let Some(end) = text.rfind(']') {
        let (host, rest) = text.split_at(end + 1);
        return (host, rest.strip_prefix(':'));
    }
    match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => (host, Some(port)),
        _ => (text, None),
    }
}

/// `text` for a query: everything but letters, digits and `-._/:` as percent codes.
pub(crate) fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._/:".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded += &format!("%{byte:02X}");
        }
    }
    encoded
}

/// The daemon's answer in words.
pub(crate) fn text(answer: &Value) -> String {
    let lines = answer["lines"].as_array().cloned().unwrap_or_default();
    let mut text = String::new();
    for line in &lines {
        text.push_str(&cell(line));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    fn path(source: &str, destination: &str) -> String {
        Question::parse(source, destination).unwrap().path()
    }

    #[test]
    fn destinations_are_read_with_and_without_port_and_protocol() {
        assert_eq!(path("a/b", "c/d"), "/v1/why?src=a/b&dst=c/d&protocol=TCP");
        assert_eq!(path("a", "10.0.0.1:53/udp"), "/v1/why?src=a&dst=10.0.0.1&protocol=UDP&port=53");
        assert_eq!(path("fd00::1", "[fd00::2]:80"), "/v1/why?src=fd00::1&dst=fd00::2&protocol=TCP&port=80");
        assert_eq!(path("a", "fd00::2"), "/v1/why?src=a&dst=fd00::2&protocol=TCP");
        assert_eq!(path("a&b c", "d:1"), "/v1/why?src=a%26b%20c&dst=d&protocol=TCP&port=1");
    }

    #[test]
    fn wrong_questions_are_named() {
        let error = |destination| Question::parse("a", destination).unwrap_err().to_string();
        assert_eq!(error("b:0"), "destination: \"b:0\": the port must be a number from 1 to 65535");
        assert_eq!(error("b:1/icmp"), "destination: \"b:1/icmp\": the protocol must be tcp, udp or sctp");
        assert!(error(":1").starts_with("name a source"));
    }
}
