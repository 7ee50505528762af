//! The state itself: persistent (shared, immutable) maps, so that a clone is a root a reader may keep for as long as it
//! likes. Keys and records are shared by `Arc`, so that copying a path of a map copies pointers.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::{Event, Key, Outcome, ProposalId, Record, Remembered, Revision, Topic};

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
    pub(crate) objects: OrdMap<Arc<Key>, Arc<Record>>,
    /// All changes after `compacted`, without a gap.
    pub(crate) events: OrdMap<Revision, Arc<Event>>,
    pub(crate) topics: OrdMap<(Topic, Revision), Arc<Event>>,
    pub(crate) by_uid: OrdMap<Arc<str>, Arc<Key>>,
    pub(crate) by_owner: OrdMap<Arc<str>, OrdSet<Arc<Key>>>,
    pub(crate) by_node: OrdMap<Arc<str>, OrdSet<Arc<Key>>>,
    pub(crate) claims: OrdMap<Arc<str>, Arc<Key>>,
    /// How many objects each namespace holds; no entry for none.
    pub(crate) population: OrdMap<Arc<str>, u64>,
    /// Proposals in the order they were applied in, under a number that only grows.
    pub(crate) outcomes: OrdMap<u64, (ProposalId, Arc<Outcome>)>,
    pub(crate) proposals: OrdMap<ProposalId, u64>,
    pub(crate) proposals_next: u64,
    pub(crate) revision: Revision,
    pub(crate) compacted: Revision,
    pub(crate) version: u32,
    pub(crate) applied: EntryId,
    pub(crate) hash: u128,
    pub(crate) bytes: u64,
    pub(crate) history_bytes: u64,
}

impl Default for State {
    /// The empty state at revision 0, under the first version's rules.
    fn default() -> Self {
        Self {
            objects: OrdMap::new(),
            events: OrdMap::new(),
            topics: OrdMap::new(),
            by_uid: OrdMap::new(),
            by_owner: OrdMap::new(),
            by_node: OrdMap::new(),
            claims: OrdMap::new(),
            population: OrdMap::new(),
            outcomes: OrdMap::new(),
            proposals: OrdMap::new(),
            proposals_next: 0,
            revision: 0,
            compacted: 0,
            version: 1,
            applied: EntryId::default(),
            hash: 0,
            bytes: 0,
            history_bytes: 0,
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
        self.objects.get(key)
    }

    /// All objects in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Arc<Record>)> {
        self.objects.iter().map(|(key, record)| (key.as_ref(), record))
    }

    /// All objects of a resource in key order, of one namespace or (with `None`) of all.
    pub fn list<'a>(
        &'a self,
        group: &str,
        resource: &str,
        namespace: Option<&str>,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Record>)> + use<'a> {
        let want = Key::new(group, resource, namespace.unwrap_or(""), "");
        let one = namespace.is_some();
        self.objects.range::<_, Key>(want.clone()..).map(|(key, record)| (key.as_ref(), record)).take_while(
            move |(key, _)| {
                key.group == want.group && key.resource == want.resource && (!one || key.namespace == want.namespace)
            },
        )
    }

    /// The object of this uid.
    pub fn by_uid(&self, uid: &str) -> Option<&Key> {
        self.by_uid.get(uid).map(AsRef::as_ref)
    }

    /// The keys whose owners include this uid, in key order.
    pub fn owned_by<'a>(&'a self, uid: &str) -> impl Iterator<Item = &'a Key> + use<'a> {
        self.by_owner.get(uid).into_iter().flat_map(|keys| keys.iter().map(AsRef::as_ref))
    }

    /// The keys bound to this node, in key order.
    pub fn on_node<'a>(&'a self, node: &str) -> impl Iterator<Item = &'a Key> + use<'a> {
        self.by_node.get(node).into_iter().flat_map(|keys| keys.iter().map(AsRef::as_ref))
    }

    /// Who holds a claim.
    pub fn claimed(&self, claim: &str) -> Option<&Key> {
        self.claims.get(claim).map(AsRef::as_ref)
    }

    /// How many objects a namespace holds, whatever their resource.
    pub fn population(&self, namespace: &str) -> u64 {
        self.population.get(namespace).copied().unwrap_or(0)
    }
}
