//! The work queue of the controllers: which key of which row is due, in flight, or waiting for its time.
//!
//! **Invariant:** a key is in flight at most once, and is planned again only after it was marked done; what wakes it
//! meanwhile makes it due right then.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use control::Row;
use state::Key;
use tokio::time::Instant;

/// A key of the row with this index.
pub type Item = (usize, Key);

/// The shortest and longest wait after a failure; doubled for each failure in a row.
const BACKOFF_MIN: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
struct Entry {
    queued: bool,
    in_flight: bool,
    /// Woken while in flight.
    dirty: bool,
    failures: u32,
    /// When it becomes due by itself.
    timer: Option<Instant>,
    /// Since when it is due.
    due_since: Option<Instant>,
}

pub struct Queue {
    rows: &'static [Row],
    ready: VecDeque<Item>,
    entries: BTreeMap<Item, Entry>,
    timers: BTreeMap<(Instant, Item), ()>,
}

impl Queue {
    /// For the keys of these rows.
    pub fn new(rows: &'static [Row]) -> Self {
        Self { rows, ready: VecDeque::new(), entries: BTreeMap::new(), timers: BTreeMap::new() }
    }

    /// Something about the key may have changed: it is due.
    pub fn wake(&mut self, item: Item) {
        let entry = self.entries.entry(item.clone()).or_default();
        if entry.in_flight {
            entry.dirty = true;
        } else if !entry.queued {
            entry.queued = true;
            entry.due_since = Some(Instant::now());
            self.ready.push_back(item);
        }
    }

    /// The next due key, which is in flight from now on.
    pub fn take(&mut self) -> Option<Item> {
        let item = self.ready.pop_front()?;
        if let Some(entry) = self.entries.get_mut(&item) {
            entry.queued = false;
            entry.in_flight = true;
            if let Some(since) = entry.due_since.take() {
                metrics::histogram!("hactl_controller_queue_seconds", "controller" => self.rows[item.0].name)
                    .record(since.elapsed().as_secs_f64());
            }
            if let Some(at) = entry.timer.take() {
                self.timers.remove(&(at, item.clone()));
            }
        }
        Some(item)
    }

    /// Every outcome of the key's plan is known and applied. `again` is the plan's own wish.
    pub fn done(&mut self, item: Item, failed: bool, again: Option<Duration>, now: Instant) {
        let Some(entry) = self.entries.get_mut(&item) else { return };
        entry.in_flight = false;
        entry.failures = if failed { entry.failures.saturating_add(1) } else { 0 };
        let dirty = std::mem::take(&mut entry.dirty);
        let backoff = failed.then(|| BACKOFF_MAX.min(BACKOFF_MIN * 2u32.saturating_pow(entry.failures.min(16) - 1)));
        let wait = match (backoff, again) {
            (Some(backoff), Some(again)) => Some(backoff.min(again)),
            (one, other) => one.or(other),
        };
        if let Some(wait) = wait {
            let at = now + wait;
            entry.timer = Some(at);
            self.timers.insert((at, item.clone()), ());
        }
        // A failed key waits its back-off even when something woke it: its own conflict may have been that something.
        if dirty && !failed {
            self.wake(item);
        } else if wait.is_none() {
            self.entries.remove(&item);
        }
    }

    /// Makes the keys due whose time has come.
    pub fn tick(&mut self, now: Instant) {
        while let Some(((at, item), ())) = self.timers.first_key_value() {
            if *at > now {
                return;
            }
            let (at, item) = (*at, item.clone());
            self.timers.remove(&(at, item.clone()));
            if let Some(entry) = self.entries.get_mut(&item) {
                entry.timer = None;
            }
            self.wake(item);
        }
    }

    /// When the next key becomes due by itself.
    pub fn next_timer(&self) -> Option<Instant> {
        self.timers.first_key_value().map(|((at, _), ())| *at)
    }

    pub fn due(&self) -> usize {
        self.ready.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(name: &str) -> Item {
        (0, Key::new("", "pods", "default", name))
    }

    #[test]
    fn a_key_is_due_once_however_often_it_is_woken() {
        let mut queue = Queue::new(control::controllers::ALL);
        queue.wake(item("a"));
        queue.wake(item("a"));
        assert_eq!(queue.take(), Some(item("a")));
        assert_eq!(queue.take(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_woken_in_flight_is_due_when_done_and_not_before() {
        let mut queue = Queue::new(control::controllers::ALL);
        queue.wake(item("a"));
        queue.take();
        queue.wake(item("a"));
        assert_eq!(queue.take(), None);
        queue.done(item("a"), false, None, Instant::now());
        assert_eq!(queue.take(), Some(item("a")));
        queue.done(item("a"), false, None, Instant::now());
        assert_eq!(queue.take(), None);
        assert!(queue.entries.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_key_backs_off_twice_as_long_each_time_and_a_success_resets_it() {
        let mut queue = Queue::new(control::controllers::ALL);
        let start = Instant::now();
        queue.wake(item("a"));
        for wait in [10, 20, 40] {
            queue.take().unwrap();
            queue.done(item("a"), true, None, start);
            assert_eq!(queue.next_timer(), Some(start + Duration::from_millis(wait)));
            queue.tick(start + Duration::from_millis(wait));
        }
        queue.take().unwrap();
        queue.done(item("a"), false, None, start);
        assert_eq!(queue.next_timer(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_plan_that_asks_to_look_again_is_due_at_its_time_and_an_event_comes_first() {
        let mut queue = Queue::new(control::controllers::ALL);
        let start = Instant::now();
        queue.wake(item("a"));
        queue.take();
        queue.done(item("a"), false, Some(Duration::from_secs(5)), start);
        queue.tick(start + Duration::from_secs(4));
        assert_eq!(queue.take(), None);
        queue.wake(item("a"));
        assert_eq!(queue.take(), Some(item("a")));
        assert_eq!(queue.next_timer(), None, "taken: the timer is no longer needed");
    }
}
