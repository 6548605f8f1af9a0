//! What the store of leases says of itself: shown by `towline`, `/readyz` and metrics.

use jiff::{SignedDuration, Timestamp};

/// What the store of leases says of itself.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StoreReport {
    /// Whether leases have been listed and are watched.
    pub connected: bool,
    /// What goes wrong with the store, if anything does; leases stay as they were known.
    pub trouble: Option<String>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// Why this node holds no lease, or not safely.
    pub obstacle: Option<String>,
    /// Until when the lease is held, should the store not be reached any more; `None` while there
    /// is none, and for one that does not expire.
    pub expires: Option<Timestamp>,
    /// Keys and values that could not be read; their subnets count as taken.
    pub unreadable: Vec<String>,
}

// === impl StoreReport ===

impl StoreReport {
    /// The store is not followed any more, or does not do what it is asked for.
    pub fn lost(&mut self, trouble: String) {
        self.connected = false;
        self.troubled(trouble);
    }

    /// All is well, as far as the store goes; whether it was not before.
    pub fn found(&mut self) -> bool {
        let modified = !self.connected || self.trouble.is_some();
        self.connected = true;
        self.trouble = None;
        self.since = None;
        modified
    }

    /// Something goes wrong; whether that is news.
    pub(crate) fn troubled(&mut self, trouble: String) -> bool {
        if self.since.is_none() {
            self.since = Timestamp::from_second(Timestamp::now().as_second()).ok();
        }
        let modified = self.trouble.as_ref() != Some(&trouble);
        self.trouble = Some(trouble);
        modified
    }

    /// The own lease lasts `seconds` from now; `None` for one that does not expire, or for none.
    pub(crate) fn lasts(&mut self, seconds: Option<i64>) {
        let until = |seconds| Timestamp::now().checked_add(SignedDuration::from_secs(seconds));
        self.expires = seconds.and_then(|seconds| until(seconds).ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_lasts_from_its_beginning_until_all_is_well() {
        let mut report = StoreReport::default();
        report.lost("refused".to_owned());
        let since = report.since;
        assert!(since.is_some());
        report.since = Timestamp::from_second(7).ok();
        report.lost("no answer".to_owned());
        assert_eq!(report.since, Timestamp::from_second(7).ok());
        assert_eq!(report.trouble.as_deref(), Some("no answer"));
        assert!(report.found());
        assert_eq!((report.trouble.clone(), report.since), (None, None));
        assert!(!report.found());
    }
}
