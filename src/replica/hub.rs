//! Who wakes up for which change.
//!
//! A watcher waits on one topic, the narrowest it asked for; a publisher wakes the topics of its events and nobody else.
//! Nothing is queued here: who wakes up reads the events from the root, from its own position.
//!
//! **Invariant:** no lost wake-up. A waiter enables its wait before it reads the root; a publisher stores the root before
//! it wakes.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use state::{Event, Topic};
use tokio::sync::Notify;

/// Per topic, how many wait and where.
type Topics = HashMap<Topic, (usize, Arc<Notify>)>;

/// The meeting point of one member's publisher and its watchers.
#[derive(Clone, Debug, Default)]
pub struct Hub(Arc<Mutex<Topics>>);

impl Hub {
    pub fn new() -> Self {
        Self::default()
    }

    /// Wakes the watchers of these events. To be called after the root that contains them is published.
    pub fn publish(&self, events: &[Arc<Event>]) {
        if events.is_empty() {
            return;
        }
        let mut woken = HashSet::new();
        let topics = self.topics();
        if topics.is_empty() {
            return;
        }
        for topic in events.iter().flat_map(|event| event.topics()) {
            if let Some((_, notify)) = topics.get(&topic).filter(|_| woken.insert(topic)) {
                notify.notify_waiters();
            }
        }
    }

    /// Wakes every watcher: for a root that was replaced as a whole, as by a snapshot.
    pub fn publish_all(&self) {
        self.topics().values().for_each(|(_, notify)| notify.notify_waiters());
    }

    pub(crate) fn subscribe(&self, topic: Topic) -> Subscription {
        let mut topics = self.topics();
        let (waiting, notify) = topics.entry(topic).or_default();
        *waiting += 1;
        Subscription { hub: self.clone(), topic, notify: notify.clone() }
    }

    /// How many topics somebody listens to.
    #[cfg(test)]
    pub(crate) fn listened(&self) -> usize {
        self.topics().len()
    }

    fn topics(&self) -> std::sync::MutexGuard<'_, Topics> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among those who wait on a topic; given up when dropped.
#[derive(Debug)]
pub(crate) struct Subscription {
    hub: Hub,
    topic: Topic,
    notify: Arc<Notify>,
}

impl Subscription {
    pub(crate) fn notify(&self) -> &Notify {
        &self.notify
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut topics = self.hub.topics();
        if let Entry::Occupied(mut entry) = topics.entry(self.topic) {
            entry.get_mut().0 -= 1;
            if entry.get().0 == 0 {
                entry.remove();
            }
        }
    }
}
