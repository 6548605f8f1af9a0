//! Name resolution in a configuration, which goes before IPAM's.

use protocol::Dns;
use serde::Deserialize;

/// `dns` as configured. An empty list says something else than no list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RawDns {
    nameservers: Option<Vec<String>>,
    domain: String,
    search: Option<Vec<String>>,
    options: Option<Vec<String>>,
}

// === impl RawDns ===

impl RawDns {
    /// What goes before IPAM's: everything, as soon as anything is said, be it an empty list.
    #[must_use]
    pub fn chosen(self) -> Option<Dns> {
        let lists = [&self.nameservers, &self.search, &self.options];
        if self.domain.is_empty() && lists.iter().all(|list| list.is_none()) {
            return None;
        }
        Some(Dns {
            nameservers: self.nameservers.unwrap_or_default(),
            domain: self.domain,
            search: self.search.unwrap_or_default(),
            options: self.options.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(text: &str) -> Option<Dns> {
        serde_json::from_str::<RawDns>(text).unwrap().chosen()
    }

    #[test]
    fn an_empty_list_is_said_and_nothing_is_not() {
        assert_eq!(chosen("{}"), None);
        assert_eq!(chosen(r#"{"domain":""}"#), None);
        assert_eq!(chosen(r#"{"search":[]}"#), Some(Dns::default()));
        let domain = chosen(r#"{"domain":"a.example"}"#).map(|dns| dns.domain);
        assert_eq!(domain.as_deref(), Some("a.example"));
    }
}
