//! Putting one version of an object in place of another, with every index, the hash and the byte counts. Undoing a
//! change is the same call with the versions swapped.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use prost::Message;

use crate::{Event, Header, Key, Record, State, hash};

/// Bytes counted per object or event beside its contents: keys, pointers, index entries.
const OVERHEAD: u64 = 256;

impl State {
    /// Makes `new` the present version of `key` (none: absent). Returns the version before.
    pub(crate) fn replace(&mut self, key: &Arc<Key>, new: Option<Arc<Record>>) -> Option<Arc<Record>> {
        let old = match &new {
            Some(record) => self.objects.insert(key.clone(), record.clone()),
            None => self.objects.remove(key.as_ref()),
        };
        self.reindex(key, old.as_deref(), new.as_deref());
        old
    }

    fn reindex(&mut self, key: &Arc<Key>, old: Option<&Record>, new: Option<&Record>) {
        if let Some(record) = old {
            self.hash = self.hash.wrapping_sub(hash::of(key, record));
            self.bytes -= size(record);
        }
        if let Some(record) = new {
            self.hash = self.hash.wrapping_add(hash::of(key, record));
            self.bytes += size(record);
        }
        let (old, new) = (old.map(|record| &record.header), new.map(|record| &record.header));
        if !key.namespace.is_empty() && old.is_some() != new.is_some() {
            self.count(&key.namespace, new.is_some());
        }
        unique(&mut self.by_uid, key, uid(old), uid(new));
        unique(&mut self.claims, key, claims(old), claims(new));
        shared(&mut self.by_owner, key, owners(old), owners(new));
        shared(&mut self.by_node, key, node(old), node(new));
    }

    fn count(&mut self, namespace: &str, one_more: bool) {
        let count = self.population(namespace);
        match (one_more, count) {
            (true, _) => drop(self.population.insert(namespace.into(), count + 1)),
            (false, 0 | 1) => drop(self.population.remove(namespace)),
            (false, _) => drop(self.population.insert(namespace.into(), count - 1)),
        }
    }

    /// Adds a change that has been made to history.
    pub(crate) fn record(&mut self, event: &Arc<Event>) {
        for topic in event.topics() {
            self.topics.insert((topic, event.revision), event.clone());
        }
        self.history_bytes += history_size(event);
        self.events.insert(event.revision, event.clone());
    }

    /// Drops the oldest change from history.
    pub(crate) fn forget(&mut self, event: &Event) {
        for topic in event.topics() {
            self.topics.remove(&(topic, event.revision));
        }
        self.history_bytes -= history_size(event);
        self.events.remove(&event.revision);
    }
}

/// Bytes one version of an object takes.
fn size(record: &Record) -> u64 {
    (record.body.len() + record.managed_fields.len() + record.header.encoded_len()) as u64 + OVERHEAD
}

/// Bytes history takes for one event: `new` is either the present version or the next event's `old`.
fn history_size(event: &Event) -> u64 {
    OVERHEAD + event.old.as_deref().map_or(0, size)
}

fn uid(header: Option<&Header>) -> impl Iterator<Item = &str> + Clone {
    header.into_iter().map(|header| header.uid.as_str()).filter(|uid| !uid.is_empty())
}

fn node(header: Option<&Header>) -> impl Iterator<Item = &str> + Clone {
    header.into_iter().map(|header| header.node.as_str()).filter(|node| !node.is_empty())
}

fn claims(header: Option<&Header>) -> impl Iterator<Item = &str> + Clone {
    header.into_iter().flat_map(|header| header.claims.iter().map(String::as_str))
}

fn owners(header: Option<&Header>) -> impl Iterator<Item = &str> + Clone {
    header.into_iter().flat_map(|header| header.owners.iter().map(|owner| owner.uid.as_str()))
}

/// An index whose entries belong to one key each.
fn unique<'a>(
    index: &mut OrdMap<Arc<str>, Arc<Key>>,
    key: &Arc<Key>,
    old: impl Iterator<Item = &'a str> + Clone,
    new: impl Iterator<Item = &'a str> + Clone,
) {
    if old.clone().eq(new.clone()) {
        return;
    }
    for entry in old {
        index.remove(entry);
    }
    for entry in new {
        index.insert(entry.into(), key.clone());
    }
}

/// An index whose entries have any number of keys.
fn shared<'a>(
    index: &mut OrdMap<Arc<str>, OrdSet<Arc<Key>>>,
    key: &Arc<Key>,
    old: impl Iterator<Item = &'a str> + Clone,
    new: impl Iterator<Item = &'a str> + Clone,
) {
    if old.clone().eq(new.clone()) {
        return;
    }
    for entry in old {
        if let Some(keys) = index.get_mut(entry) {
            keys.remove(key.as_ref());
            if keys.is_empty() {
                index.remove(entry);
            }
        }
    }
    for entry in new {
        match index.get_mut(entry) {
            Some(keys) => drop(keys.insert(key.clone())),
            None => drop(index.insert(entry.into(), OrdSet::unit(key.clone()))),
        }
    }
}
