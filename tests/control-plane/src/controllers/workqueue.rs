//! The keys one controller has to reconcile: each at most once in the queue, never two workers on one
//! key, failures repeated after exponentially growing pauses, deadlines kept per key.
//!
//! Time is an argument, so that nothing here waits and everything can be tested.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

use super::object::Key;

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The queue of one controller.
#[derive(Debug)]
pub(crate) struct WorkQueue {
    width: usize,
    ready: VecDeque<Key>,
    queued: HashSet<Key>,
    running: HashSet<Key>,
    /// Keys that changed while they were being worked on.
    dirty: HashSet<Key>,
    failures: HashMap<Key, u32>,
    deadlines: HashMap<Key, Instant>,
    by_deadline: BTreeSet<(Instant, Key)>,
}

impl WorkQueue {
    /// A queue of which at most `width` keys are worked on at a time.
    pub(crate) fn new(width: usize) -> Self {
        Self {
            width,
            ready: VecDeque::new(),
            queued: HashSet::new(),
            running: HashSet::new(),
            dirty: HashSet::new(),
            failures: HashMap::new(),
            deadlines: HashMap::new(),
            by_deadline: BTreeSet::new(),
        }
    }

    /// Asks for a reconcile of the key. A key that is being worked on comes again afterwards.
    pub(crate) fn add(&mut self, key: Key) {
        if self.running.contains(&key) {
            self.dirty.insert(key);
        } else if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    /// Asks for a reconcile at `when`; of several such wishes the earliest counts.
    pub(crate) fn add_at(&mut self, key: Key, when: Instant) {
        match self.deadlines.get(&key) {
            Some(earlier) if *earlier <= when => return,
            Some(later) => {
                self.by_deadline.remove(&(*later, key.clone()));
            }
            None => {}
        }
        self.deadlines.insert(key.clone(), when);
        self.by_deadline.insert((when, key));
    }

    /// When the next deadline passes.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.by_deadline.first().map(|(when, _)| *when)
    }

    /// Takes the next key to work on, if there is one and a worker is free.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Key> {
        while let Some((when, _)) = self.by_deadline.first() {
            if *when > now {
                break;
            }
            if let Some((_, key)) = self.by_deadline.pop_first() {
                self.deadlines.remove(&key);
                self.add(key);
            }
        }
        if self.running.len() >= self.width {
            return None;
        }
        let key = self.ready.pop_front()?;
        self.queued.remove(&key);
        self.running.insert(key.clone());
        Some(key)
    }

    /// Work on the key succeeded.
    pub(crate) fn succeed(&mut self, key: &Key) {
        self.failures.remove(key);
        self.finish(key);
    }

    /// Work on the key failed: it comes again after a pause, which is returned.
    pub(crate) fn fail(&mut self, key: &Key, now: Instant) -> Duration {
        let failures = self.failures.entry(key.clone()).or_default();
        let pause = FIRST_PAUSE
            .saturating_mul(2_u32.saturating_pow(*failures))
            .min(LONGEST_PAUSE);
        *failures += 1;
        self.add_at(key.clone(), now + pause);
        // News that came meanwhile waits for the pause as well.
        self.dirty.remove(key);
        self.finish(key);
        pause
    }

    fn finish(&mut self, key: &Key) {
        self.running.remove(key);
        if self.dirty.remove(key) {
            self.add(key.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;

    fn pod(name: &str) -> Key {
        Key::new::<Pod>("default", name)
    }

    #[test]
    fn a_key_is_queued_once_and_comes_again_when_it_changed_during_work() {
        let now = Instant::now();
        let mut queue = WorkQueue::new(2);
        queue.add(pod("a"));
        queue.add(pod("a"));
        assert_eq!(queue.take(now), Some(pod("a")));
        assert_eq!(queue.take(now), None);
        queue.add(pod("a"));
        assert_eq!(queue.take(now), None, "one worker per key");
        queue.succeed(&pod("a"));
        assert_eq!(queue.take(now), Some(pod("a")));
        queue.succeed(&pod("a"));
        assert_eq!(queue.take(now), None);
    }

    #[test]
    fn no_more_keys_run_than_the_width() {
        let now = Instant::now();
        let mut queue = WorkQueue::new(1);
        queue.add(pod("a"));
        queue.add(pod("b"));
        assert_eq!(queue.take(now), Some(pod("a")));
        assert_eq!(queue.take(now), None);
        queue.succeed(&pod("a"));
        assert_eq!(queue.take(now), Some(pod("b")));
    }

    #[test]
    fn pauses_double_up_to_a_limit_and_end_with_success() {
        let mut now = Instant::now();
        let mut queue = WorkQueue::new(1);
        queue.add(pod("a"));
        let mut pauses = Vec::new();
        for _ in 0..15 {
            assert_eq!(queue.take(now), Some(pod("a")));
            pauses.push(queue.fail(&pod("a"), now));
            assert_eq!(queue.take(now), None);
            now = queue.next_deadline().unwrap();
        }
        assert_eq!(pauses[..3], [5, 10, 20].map(Duration::from_millis));
        assert_eq!(pauses[14], LONGEST_PAUSE);
        assert_eq!(queue.take(now), Some(pod("a")));
        queue.succeed(&pod("a"));
        queue.add(pod("a"));
        assert_eq!(queue.take(now), Some(pod("a")));
        assert_eq!(queue.fail(&pod("a"), now), FIRST_PAUSE);
    }

    #[test]
    fn the_earliest_deadline_of_a_key_counts() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut queue = WorkQueue::new(1);
        queue.add_at(pod("a"), at(9));
        queue.add_at(pod("a"), at(5));
        queue.add_at(pod("a"), at(7));
        assert_eq!(queue.next_deadline(), Some(at(5)));
        assert_eq!(queue.take(at(4)), None);
        assert_eq!(queue.take(at(5)), Some(pod("a")));
        assert_eq!(queue.next_deadline(), None);
    }
}
