//! A change of one key, as watchers see it: two stored versions, so nothing is written twice.

use std::sync::Arc;

use crate::{Key, Record, Revision, hash};

/// One change. `old` is the version before, `new` the version after; one of them is present.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The revision of the change; of a deletion too, where `new` is absent.
    pub revision: Revision,
    pub key: Key,
    pub old: Option<Arc<Record>>,
    pub new: Option<Arc<Record>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Created,
    Updated,
    Deleted,
}

impl Event {
    pub fn kind(&self) -> EventKind {
        match (&self.old, &self.new) {
            (None, _) => EventKind::Created,
            (Some(_), Some(_)) => EventKind::Updated,
            (Some(_), None) => EventKind::Deleted,
        }
    }

    /// Everything a watcher may have asked for that this event is part of.
    pub fn topics(&self) -> impl Iterator<Item = Topic> + use<> {
        let (group, resource) = (self.key.group.as_str(), self.key.resource.as_str());
        let node = |record: &Option<Arc<Record>>| {
            let node = record.as_ref().map_or("", |record| record.header.node.as_str());
            (!node.is_empty()).then(|| Topic::node(group, resource, node))
        };
        let (old, new) = (node(&self.old), node(&self.new));
        [
            Some(Topic::resource(group, resource)),
            (!self.key.namespace.is_empty()).then(|| Topic::namespace(group, resource, &self.key.namespace)),
            Some(Topic::name(group, resource, &self.key.name)),
            old,
            new.filter(|new| old != Some(*new)),
        ]
        .into_iter()
        .flatten()
    }
}

/// What history is indexed by and watchers are woken by: all of a resource, or its objects of one namespace, one name
/// or one node. It is a hash, so that it costs no allocation: who reads events by topic still compares what it asked
/// for, because two topics may, very rarely, be one. It is never stored or sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(u64);

impl Topic {
    pub fn resource(group: &str, resource: &str) -> Self {
        Self::of(b'r', group, resource, "")
    }

    pub fn namespace(group: &str, resource: &str, namespace: &str) -> Self {
        Self::of(b's', group, resource, namespace)
    }

    /// The objects of this name in all namespaces.
    pub fn name(group: &str, resource: &str, name: &str) -> Self {
        Self::of(b'n', group, resource, name)
    }

    /// The objects bound to this node before or after the change.
    pub fn node(group: &str, resource: &str, node: &str) -> Self {
        Self::of(b'o', group, resource, node)
    }

    fn of(kind: u8, group: &str, resource: &str, rest: &str) -> Self {
        Self(hash::names(kind, &[group, resource, rest]))
    }
}
