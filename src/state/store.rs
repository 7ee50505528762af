//! The state itself: persistent (shared, immutable) maps, so that a clone is a root a reader may keep for as long as it
//! likes. Keys and records are shared by `Arc`, so that copying a path of a map copies pointers.

use std::ops::Bound;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::bounds::{Bounding, Taken};
use crate::index::{Entry, Index, keys};
use crate::key::{Shared, Sought};
use crate::outcomes::{Numbers, Outcomes};
use crate::{Event, Key, Outcome, Pairs, Record, Remembered, Revision, Topic, visits};

/// Where in the Raft log an entry stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryId {
    pub term: u64,
    pub index: u64,
}

/// A revision at or below the last compaction was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {asked} ({compacted})")]
pub struct Compacted {
    pub asked: Revision,
    pub compacted: Revision,
}

/// What `apply` hands back beside the changed state. [`crate::codec::rows`] turns it into what must be stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    pub outcome: Outcome,
    /// In order of their revisions.
    pub events: Vec<Arc<Event>>,
    /// Events that a compaction dropped from history.
    pub forgotten: Vec<Arc<Event>>,
    /// The outcome's row in the table of proposals; `None` for a command without a proposal id, and for one that had
    /// been applied before, whose first outcome is repeated here.
    pub remembered: Option<Remembered>,
}

/// Everything the cluster believes at one revision. `Clone` is O(1); writers clone, change and publish.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    pub(crate) objects: OrdMap<Shared, Arc<Record>>,
    /// All changes after `compacted`, without a gap.
    pub(crate) events: OrdMap<Revision, Arc<Event>>,
    /// Which changes are of which topic.
    pub(crate) topics: OrdSet<(Topic, Revision)>,
    pub(crate) index: Index,
    pub(crate) claims: OrdMap<Arc<str>, Shared>,
    /// How many objects each namespace holds; no entry for none.
    pub(crate) population: OrdMap<Arc<str>, u64>,
    pub(crate) taken: Taken,
    pub(crate) bounding: Bounding,
    pub(crate) outcomes: Outcomes,
    pub(crate) numbers: Numbers,
    pub(crate) proposals_next: u64,
    pub(crate) revision: Revision,
    pub(crate) compacted: Revision,
    pub(crate) version: u32,
    pub(crate) applied: EntryId,
    pub(crate) hash: u128,
    pub(crate) bytes: u64,
    pub(crate) history_bytes: u64,
    pub(crate) quota: u64,
}

impl Default for State {
    /// The empty state at revision 0, under the first version's rules.
    fn default() -> Self {
        Self {
            objects: OrdMap::new(),
            events: OrdMap::new(),
            topics: OrdSet::new(),
            index: Index::new(),
            claims: OrdMap::new(),
            population: OrdMap::new(),
            taken: Taken::new(),
            bounding: Bounding::new(),
            outcomes: OrdMap::new(),
            numbers: Numbers::default(),
            proposals_next: 0,
            revision: 0,
            compacted: 0,
            version: 1,
            applied: EntryId::default(),
            hash: 0,
            bytes: 0,
            history_bytes: 0,
            quota: 0,
        }
    }
}

impl State {
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// History at or below this revision is gone.
    pub fn compacted(&self) -> Revision {
        self.compacted
    }

    /// The log entry applied last.
    pub fn applied(&self) -> EntryId {
        self.applied
    }

    /// Notes an entry that holds no command (a membership change, a new leader's blank).
    pub fn skip(&mut self, entry: EntryId) {
        self.applied = entry;
    }

    /// Bytes that all present objects may take together, as [`Self::bytes`] counts them; 0: no bound.
    pub fn quota(&self) -> u64 {
        self.quota
    }

    /// The version whose rules `apply` follows; see [`crate::VERSION`].
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Equal on all members at equal revisions.
    pub fn hash(&self) -> u128 {
        self.hash
    }

    /// Bytes of all objects as they are now.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of what only history holds: older versions, and what a compaction would free.
    pub fn history_bytes(&self) -> u64 {
        self.history_bytes
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    pub fn get(&self, key: &Key) -> Option<&Arc<Record>> {
        self.held(key).map(|(_, record)| record)
    }

    /// The object, with its key as the maps share it.
    pub(crate) fn held(&self, key: &Key) -> Option<(&Shared, &Arc<Record>)> {
        visits::one();
        self.objects.get_key_value(&Sought::new(key))
    }

    /// All objects in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Arc<Record>)> {
        self.objects.iter().inspect(|_| visits::one()).map(|(key, record)| (&**key, record))
    }

    /// All objects of a resource in key order, of one namespace or (with `None`) of all.
    pub fn list<'a>(
        &'a self,
        group: &str,
        resource: &str,
        namespace: Option<&str>,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Record>)> + use<'a> {
        self.list_after(group, resource, namespace, None)
    }

    /// [`list`](Self::list) from behind a key of it on.
    pub fn list_after<'a>(
        &'a self,
        group: &str,
        resource: &str,
        namespace: Option<&str>,
        after: Option<&Key>,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Record>)> + use<'a> {
        let want = Key::new(group, resource, namespace.unwrap_or(""), "");
        let one = namespace.is_some();
        let start = match after {
            Some(after) => Bound::Excluded(Sought::new(after)),
            None => Bound::Included(Sought::new(&want)),
        };
        let from = self.objects.range((start, Bound::Unbounded)).inspect(|_| visits::one());
        from.map(|(key, record)| (&**key, record)).take_while(move |(key, _)| {
            key.group == want.group && key.resource == want.resource && (!one || key.namespace == want.namespace)
        })
    }

    /// The object of this uid.
    pub fn by_uid(&self, uid: &str) -> Option<&Key> {
        self.found(Entry::uid(uid)).find(|(_, record)| record.header.uid == uid).map(|(key, _)| key)
    }

    /// The keys whose owners include this uid, in key order.
    pub fn owned_by<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a Key> {
        self.found(Entry::owner(uid))
            .filter(move |(_, record)| record.header.owners.iter().any(|owner| owner.uid == uid))
            .map(|(key, _)| key)
    }

    /// The keys bound to this node, in key order.
    pub fn on_node<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Key> {
        self.found(Entry::node(node)).filter(move |(_, record)| record.header.node == node).map(|(key, _)| key)
    }

    /// The objects of a resource and namespace ("" for a cluster-scoped one) that carry all of these labels, in key
    /// order. Costs as many steps as the rarest of the labels has objects there; without labels it finds nothing.
    pub fn labelled<'a>(
        &'a self,
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
        labels: &[(&str, &str)],
    ) -> Vec<(&'a Key, &'a Arc<Record>)> {
        let of_label = |label: &(&str, &str)| keys(&self.index, Entry::label(group, resource, namespace, *label));
        let mut sets: Vec<_> = labels.iter().map(|label| (of_label(label), Vec::new())).collect();
        // Side by side, so that the shortest ends it.
        let rarest = 'shortest: {
            while !sets.is_empty() {
                for (keys, seen) in &mut sets {
                    match keys.next() {
                        Some(key) => seen.push(key),
                        None => break 'shortest std::mem::take(seen),
                    }
                }
            }
            Vec::new()
        };
        let is_of = |key: &Key| key.group == group && key.resource == resource && key.namespace == namespace;
        rarest
            .into_iter()
            .filter(|key| is_of(key))
            .filter_map(|key| Some((key, self.get(key)?)))
            .filter(|(_, record)| labels.iter().all(|(name, value)| record.header.labels.get(name) == Some(value)))
            .collect()
    }

    /// The objects of a resource and namespace that may select one with these labels, in key order: those whose header
    /// field `selector` names one of the labels, and those where it is empty. Whether they do stands in their bodies.
    pub fn selecting(&self, group: &str, resource: &str, namespace: &str, labels: &Pairs) -> Vec<(&Key, &Arc<Record>)> {
        let pairs = labels.iter().map(|(name, value)| format!("{name}={value}")).chain([String::new()]);
        let mut found: Vec<_> = pairs
            .flat_map(|pair| self.found(Entry::selector(group, resource, namespace, &pair)))
            .filter(|(key, _)| key.group == group && key.resource == resource && key.namespace == namespace)
            .collect();
        found.sort_unstable_by_key(|(key, _)| *key);
        found.dedup_by_key(|(key, _)| *key);
        found
    }

    fn found(&self, entry: Entry) -> impl Iterator<Item = (&Key, &Arc<Record>)> {
        keys(&self.index, entry).filter_map(|key| Some((key, self.get(key)?)))
    }

    /// Who holds a claim.
    pub fn claimed(&self, claim: &str) -> Option<&Key> {
        self.claims.get(claim).map(|key| &**key)
    }

    /// How many objects a namespace holds, whatever their resource.
    pub fn population(&self, namespace: &str) -> u64 {
        self.population.get(namespace).copied().unwrap_or(0)
    }
}
