//! The past: what changed since a revision, and how things stood at one.
//!
//! An event holds the version before it, so the past is read from the present by undoing: the first event of a key after
//! a revision has, as `old`, the version at that revision.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::index::history_size;
use crate::{Compacted, Event, Key, Record, Revision, State, Topic};

impl State {
    /// The changes after `revision`, in order.
    ///
    /// # Errors
    /// [`Compacted`] when history no longer reaches back that far.
    pub fn events_after(&self, revision: Revision) -> Result<impl Iterator<Item = &Arc<Event>>, Compacted> {
        self.reaches(revision)?;
        Ok(self.events.range((Bound::Excluded(revision), Bound::Unbounded)).map(|(_, event)| event))
    }

    /// The changes of a topic after `revision`, in order; costs nothing for changes of other topics. See [`Topic`] on
    /// comparing what was asked for.
    ///
    /// # Errors
    /// [`Compacted`] when history no longer reaches back that far.
    pub fn events_on(&self, topic: Topic, revision: Revision) -> Result<impl Iterator<Item = &Arc<Event>>, Compacted> {
        self.reaches(revision)?;
        let range = (Bound::Excluded((topic, revision)), Bound::Included((topic, Revision::MAX)));
        Ok(self.topics.range(range).filter_map(|(_, revision)| self.events.get(revision)))
    }

    /// The object as it was at `revision`.
    ///
    /// # Errors
    /// [`Compacted`] when history no longer reaches back that far.
    pub fn get_at(&self, key: &Key, revision: Revision) -> Result<Option<Arc<Record>>, Compacted> {
        let topic = Topic::name(&key.group, &key.resource, &key.name);
        let mut later = self.events_on(topic, revision)?;
        Ok(match later.find(|event| event.key == *key) {
            Some(event) => event.old.clone(),
            None => self.get(key).cloned(),
        })
    }

    /// The list as it was at `revision`, in key order; the list of now for a revision that has not been reached.
    ///
    /// # Errors
    /// [`Compacted`] when history no longer reaches back that far.
    pub fn list_at<'a>(
        &'a self,
        group: &str,
        resource: &str,
        namespace: Option<&str>,
        revision: Revision,
    ) -> Result<Vec<(&'a Key, &'a Arc<Record>)>, Compacted> {
        let topic = match namespace {
            Some(namespace) if !namespace.is_empty() => Topic::namespace(group, resource, namespace),
            _ => Topic::resource(group, resource),
        };
        let mut then: BTreeMap<&Key, Option<&Arc<Record>>> = BTreeMap::new();
        for event in self.events_on(topic, revision)? {
            let key = &event.key;
            let asked = namespace.is_none_or(|namespace| key.namespace == namespace);
            if asked && key.group == group && key.resource == resource {
                then.entry(key).or_insert(event.old.as_ref());
            }
        }
        let mut list: Vec<_> =
            self.list(group, resource, namespace).filter(|(key, _)| !then.contains_key(key)).collect();
        if !then.is_empty() {
            let old = then.into_iter().filter_map(|(key, record)| Some((key, record?)));
            list.extend(old);
            list.sort_unstable_by_key(|(key, _)| *key);
        }
        Ok(list)
    }

    /// The revision up to which history must go for what is left of it to be at most so many bytes. The cost is that of the
    /// events that go.
    pub fn beyond_history(&self, bytes: u64) -> Revision {
        let mut left = self.history_bytes;
        let mut upto = self.compacted;
        for (revision, event) in &self.events {
            if left <= bytes {
                break;
            }
            left -= history_size(event);
            upto = *revision;
        }
        upto
    }

    fn reaches(&self, revision: Revision) -> Result<(), Compacted> {
        if revision < self.compacted {
            return Err(Compacted { asked: revision, compacted: self.compacted });
        }
        Ok(())
    }

    /// Drops history up to and including `revision`. The cost is that of the events dropped: compact often.
    pub(crate) fn compact(&mut self, revision: Revision) -> Vec<Arc<Event>> {
        let revision = revision.min(self.revision);
        if revision <= self.compacted {
            return Vec::new();
        }
        let forgotten: Vec<_> = self.events.range(..=revision).map(|(_, event)| event.clone()).collect();
        for event in &forgotten {
            self.forget(event);
        }
        self.compacted = revision;
        forgotten
    }
}
