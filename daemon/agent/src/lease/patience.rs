//! How often what somebody else undoes is put back: at once, and ever more seldom while it goes on,
//! because two daemons under one name would otherwise write in turns as fast as they can.

use std::time::Duration;

use tokio::time::Instant;

/// First and longest time between two times.
const WAIT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Who has kept still for so long has stopped.
const QUIET: Duration = Duration::from_secs(120);

/// What has been put back lately.
#[derive(Debug, Default)]
pub(super) struct Patience(Option<(Instant, Duration)>);

// === impl Patience ===

impl Patience {
    /// Until when to wait with saying something; `undone` is that it has been said before. `None`
    /// for not at all.
    pub(super) fn until(&self, undone: bool, now: Instant) -> Option<Instant> {
        let (last, wait) = self.0.filter(|_| undone)?;
        Some(last + wait).filter(|until| *until > now)
    }

    /// Something was said at `now`.
    pub(super) fn note(&mut self, undone: bool, now: Instant) {
        if !undone {
            return;
        }
        let known = self.0.filter(|(last, _)| now - *last < QUIET);
        let wait = known.map_or(WAIT.0, |(_, wait)| (wait * 2).min(WAIT.1));
        self.0 = Some((now, wait));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_daemons_of_one_name_write_ever_more_seldom() {
        let begin = Instant::now();
        let mut patience = Patience::default();
        let mut now = begin;
        let mut written = Vec::new();
        while now < begin + Duration::from_secs(120) {
            match patience.until(true, now) {
                Some(later) => now = later,
                None => {
                    written.push((now - begin).as_millis());
                    patience.note(true, now);
                }
            }
        }
        assert_eq!(
            written,
            [0, 500, 1_500, 3_500, 7_500, 15_500, 31_500, 61_500, 91_500]
        );
    }

    #[test]
    fn what_is_new_and_what_is_undone_once_in_a_while_is_said_at_once() {
        let now = Instant::now();
        let mut patience = Patience::default();
        patience.note(true, now);
        assert_eq!(patience.until(false, now), None);
        let later = now + QUIET;
        assert_eq!(patience.until(true, later), None);
        patience.note(true, later);
        assert_eq!(patience.until(true, later), Some(later + WAIT.0));
    }
}
