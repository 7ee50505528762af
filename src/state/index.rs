//! Putting one version of an object in place of another, with every index, the hash and the byte counts. Undoing a
//! change is the same call with the versions swapped.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use prost::Message;

use crate::key::{Shared, Sought};
use crate::{Event, Header, Key, Record, State, hash, visits};

/// Bytes counted per object or event beside its contents: keys, pointers, index entries.
const OVERHEAD: u64 = 256;

impl State {
    /// Makes `new` the present version of `key` (none: absent). Returns the version before.
    pub(crate) fn replace(&mut self, key: &Shared, new: Option<Arc<Record>>) -> Option<Arc<Record>> {
        let old = match &new {
            Some(record) => self.objects.insert(key.clone(), record.clone()),
            None => self.objects.remove(&Sought::new(key)),
        };
        self.reindex(key, old.as_deref(), new.as_deref());
        old
    }

    fn reindex(&mut self, key: &Shared, old: Option<&Record>, new: Option<&Record>) {
        if let Some(record) = old {
            self.hash = self.hash.wrapping_sub(hash::of(key, record));
            self.bytes -= size(record);
        }
        if let Some(record) = new {
            self.hash = self.hash.wrapping_add(hash::of(key, record));
            self.bytes += size(record);
        }
        let (old, new) = (old.map(|record| &record.header), new.map(|record| &record.header));
        if !key.namespace.is_empty() {
            if old.is_some() != new.is_some() {
                self.count(&key.namespace, new.is_some());
            }
            self.account(key, old, new);
        }
        unique(&mut self.claims, key, claims(old), claims(new));
        self.enter(key, old, new);
    }

    /// Only what differs is touched: most changes are of a status, and leave every entry as it is.
    fn enter(&mut self, key: &Shared, old: Option<&Header>, new: Option<&Header>) {
        if let (Some(old), Some(new)) = (old, new)
            && is_found_alike(old, new)
        {
            return;
        }
        let of = |header: Option<&Header>| header.map_or_else(Vec::new, |header| entries(key, header));
        let (old, new) = (of(old), of(new));
        for entry in old.iter().filter(|entry| !new.contains(entry)) {
            self.index.remove(&(*entry, key.clone()));
        }
        for entry in new.iter().filter(|entry| !old.contains(entry)) {
            self.index.insert((*entry, key.clone()));
        }
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
            self.topics.insert((topic, event.revision));
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
pub(crate) fn size(record: &Record) -> u64 {
    (record.body.len() + record.managed_fields.len() + record.header.encoded_len()) as u64 + OVERHEAD
}

/// Bytes history takes for one event: `new` is either the present version or the next event's `old`.
pub(crate) fn history_size(event: &Event) -> u64 {
    OVERHEAD + event.old.as_deref().map_or(0, size)
}

/// What an object is found by beside its key: its uid, its owners, its node, each of its labels in its namespace, and
/// what it says to select there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry(u64);

impl Entry {
    pub fn uid(uid: &str) -> Self {
        Self(hash::names(b'u', &[uid]))
    }

    pub fn owner(uid: &str) -> Self {
        Self(hash::names(b'w', &[uid]))
    }

    pub fn node(node: &str) -> Self {
        Self(hash::names(b'o', &[node]))
    }

    pub fn label(group: &str, resource: &str, namespace: &str, label: (&str, &str)) -> Self {
        Self(hash::names(b'l', &[group, resource, namespace, label.0, label.1]))
    }

    /// `pair` is `name=value`, or "" of one that demands no label.
    pub fn selector(group: &str, resource: &str, namespace: &str, pair: &str) -> Self {
        Self(hash::names(b's', &[group, resource, namespace, pair]))
    }
}

/// The header field of objects that select others by label: one pair, `name=value`, that all of those carry, or "".
const SELECTOR: &str = "selector";

/// Every entry of every object, in one set: sets of their own for few keys each would take a node of a tree each.
pub(crate) type Index = OrdSet<(Entry, Shared)>;

/// The keys that may be meant by an entry, in key order. They are compared with the object by whoever asked.
pub(crate) fn keys(index: &Index, entry: Entry) -> impl Iterator<Item = &Key> {
    let from = index.range((entry, Shared::first())..).inspect(|_| visits::one());
    from.take_while(move |(found, _)| *found == entry).map(|(_, key)| &**key)
}

/// The entries of one object.
fn entries(key: &Key, header: &Header) -> Vec<Entry> {
    let mut all = Vec::with_capacity(8);
    if !header.uid.is_empty() {
        all.push(Entry::uid(&header.uid));
    }
    all.extend(header.owners.iter().map(|owner| Entry::owner(&owner.uid)));
    if !header.node.is_empty() {
        all.push(Entry::node(&header.node));
    }
    let (group, resource, namespace) = (&key.group, &key.resource, &key.namespace);
    all.extend(header.labels.iter().map(|label| Entry::label(group, resource, namespace, label)));
    all.extend(header.fields.get(SELECTOR).map(|pair| Entry::selector(group, resource, namespace, pair)));
    all
}

/// Whether two versions of an object have the same entries: cheaper to see than the entries are to make.
fn is_found_alike(old: &Header, new: &Header) -> bool {
    old.uid == new.uid
        && old.node == new.node
        && old.labels == new.labels
        && old.fields.get(SELECTOR) == new.fields.get(SELECTOR)
        && old.owners.iter().map(|owner| &owner.uid).eq(new.owners.iter().map(|owner| &owner.uid))
}

fn claims(header: Option<&Header>) -> impl Iterator<Item = &str> + Clone {
    header.into_iter().flat_map(|header| header.claims.iter().map(String::as_str))
}

/// An index whose entries belong to one key each.
fn unique<'a>(
    index: &mut OrdMap<Arc<str>, Shared>,
    key: &Shared,
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
