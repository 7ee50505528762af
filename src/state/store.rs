//! The state itself: persistent (shared, immutable) maps, so that a clone is a root a reader may keep for as long as it likes.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::{Event, Key, Outcome, Record, Revision};

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

/// What `apply` hands back beside the changed state.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    pub outcome: Outcome,
    pub events: Vec<Arc<Event>>,
}

/// Everything the cluster believes at one revision. `Clone` is O(1); writers clone, change and publish.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub(crate) objects: OrdMap<Key, Arc<Record>>,
    pub(crate) events: OrdMap<Revision, Arc<Event>>,
    pub(crate) by_uid: OrdMap<String, Key>,
    pub(crate) by_owner: OrdMap<String, OrdSet<Key>>,
    pub(crate) by_node: OrdMap<String, OrdSet<Key>>,
    pub(crate) claims: OrdMap<String, Key>,
    pub(crate) revision: Revision,
    pub(crate) compacted: Revision,
    pub(crate) version: u32,
    pub(crate) applied: EntryId,
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

    /// The version whose rules `apply` follows.
    pub fn version(&self) -> u32 {
        self.version
    }

    pub fn get(&self, key: &Key) -> Option<&Arc<Record>> {
        self.objects.get(key)
    }

    /// All objects of a resource in key order, of one namespace or (with `None`) of all.
    pub fn list<'a>(
        &'a self,
        group: &str,
        resource: &str,
        namespace: Option<&str>,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Record>)> + use<'a> {
        let from = Key::new(group, resource, namespace.unwrap_or(""), "");
        let one = namespace.is_some();
        let want = from.clone();
        self.objects.range(from..).take_while(move |(key, _)| {
            key.group == want.group
                && key.resource == want.resource
                && (!one || key.namespace == want.namespace)
        })
    }

    /// The object of this uid.
    pub fn by_uid(&self, uid: &str) -> Option<&Key> {
        self.by_uid.get(uid)
    }

    /// The keys whose owners include this uid, in key order.
    pub fn owned_by<'a>(&'a self, uid: &str) -> impl Iterator<Item = &'a Key> + use<'a> {
        self.by_owner.get(uid).into_iter().flat_map(|keys| keys.iter())
    }

    /// The keys bound to this node, in key order.
    pub fn on_node<'a>(&'a self, node: &str) -> impl Iterator<Item = &'a Key> + use<'a> {
        self.by_node.get(node).into_iter().flat_map(|keys| keys.iter())
    }

    /// Who holds a claim.
    pub fn claimed(&self, claim: &str) -> Option<&Key> {
        self.claims.get(claim)
    }

    /// The changes after `revision`, in order.
    ///
    /// # Errors
    /// [`Compacted`] when history no longer reaches back that far.
    pub fn events_after(&self, revision: Revision) -> Result<impl Iterator<Item = &Arc<Event>>, Compacted> {
        if revision < self.compacted {
            return Err(Compacted { asked: revision, compacted: self.compacted });
        }
        Ok(self.events.range(revision + 1..).map(|(_, event)| event))
    }
}
