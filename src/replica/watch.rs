//! Following the changes of some objects from a revision onward.
//!
//! ```text
//!   enable the wait ─▶ read the root ─▶ matching events after my position? ─yes─▶ batch, position moves behind it
//!         ▲                                        │ no: position moves to the root's revision
//!         └─────────── woken by the hub ◀──────────┘
//! ```
//!
//! A watcher holds a position and a filter, no queue: a slow one costs nothing, and at worst learns that its position
//! was compacted. It works the same on every member, so it can be resumed on another one at its position.
//!
//! **Invariant:** every matching change is returned once, in order. [`Watcher::next`] can be cancelled at any time: the
//! position moves only in the step that returns the batch.

use std::sync::Arc;
use std::time::Duration;

use state::{Compacted, Event, Record, Revision, State, Topic};

use crate::Replica;
use crate::hub::Subscription;

/// How many events one batch holds at most; the rest is in the next, which does not wait.
pub const BATCH_EVENTS_MAX: usize = 1024;

/// A batch ends with the event that brings its objects to this many bytes: what a watcher whose client does not read
/// keeps in memory.
const BATCH_BYTES: usize = 64 * 1024;

/// How often a watcher for which nothing happens moves its position along, so that compaction does not overtake it.
const IDLE: Duration = Duration::from_secs(15);

/// What to follow: one resource, and of that all objects for which every given field matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub group: String,
    pub resource: String,
    pub namespace: Option<String>,
    pub name: Option<String>,
    /// Bound to this node before or after the change.
    pub node: Option<String>,
}

impl Filter {
    /// All objects of a resource.
    pub fn resource(group: impl Into<String>, resource: impl Into<String>) -> Self {
        Self { group: group.into(), resource: resource.into(), ..Self::default() }
    }

    pub fn in_namespace(self, namespace: impl Into<String>) -> Self {
        Self { namespace: Some(namespace.into()), ..self }
    }

    pub fn named(self, name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    pub fn on_node(self, node: impl Into<String>) -> Self {
        Self { node: Some(node.into()), ..self }
    }

    pub fn matches(&self, event: &Event) -> bool {
        let same = |asked: &Option<String>, is: &str| asked.as_deref().is_none_or(|asked| asked == is);
        let on_node = |record: &Option<Arc<Record>>| record.as_ref().is_some_and(|r| same(&self.node, &r.header.node));
        event.key.group == self.group
            && event.key.resource == self.resource
            && same(&self.namespace, &event.key.namespace)
            && same(&self.name, &event.key.name)
            && (on_node(&event.old) || on_node(&event.new))
    }

    /// The narrowest topic that every matching event is part of.
    fn topic(&self) -> Topic {
        let (group, resource) = (self.group.as_str(), self.resource.as_str());
        match (&self.name, &self.node, &self.namespace) {
            (Some(name), _, _) => Topic::name(group, resource, name),
            (_, Some(node), _) if !node.is_empty() => Topic::node(group, resource, node),
            (_, _, Some(namespace)) if !namespace.is_empty() => Topic::namespace(group, resource, namespace),
            _ => Topic::resource(group, resource),
        }
    }
}

/// Matching changes, at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// In order of their revisions.
    pub events: Vec<Arc<Event>>,
    /// Nothing that matches is missing up to here; at least the last event's revision.
    pub revision: Revision,
}

/// See the module. Made by [`Replica::watch`].
pub struct Watcher {
    replica: Replica,
    filter: Filter,
    topic: Topic,
    subscription: Subscription,
    position: Revision,
}

impl Watcher {
    pub(crate) fn new(replica: Replica, filter: Filter, after: Revision) -> Self {
        let topic = filter.topic();
        let subscription = replica.hub().subscribe(topic);
        Self { replica, filter, topic, subscription, position: after }
    }

    /// The revision up to which everything that matches has been returned; to resume from, here or on another member.
    pub fn position(&self) -> Revision {
        self.position
    }

    /// Moves the position to the root's revision if nothing that matches lies between (for bookmarks). Returns the
    /// position.
    pub fn settle(&mut self) -> Revision {
        let root = self.replica.root();
        if self.matching(&root).is_ok_and(|batch| batch.events.is_empty()) {
            self.position = self.position.max(root.revision());
        }
        self.position
    }

    /// The next matching changes; waits for one. Cancel-safe.
    ///
    /// # Errors
    /// [`Compacted`] when history no longer reaches back to the position: list again.
    pub async fn next(&mut self) -> Result<Batch, Compacted> {
        loop {
            let notified = self.subscription.notify().notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            let batch = self.matching(&self.replica.root())?;
            self.position = batch.revision;
            if !batch.events.is_empty() {
                return Ok(batch);
            }
            tokio::select! {
                () = notified => {}
                () = tokio::time::sleep(IDLE) => {}
            }
        }
    }

    fn matching(&self, root: &State) -> Result<Batch, Compacted> {
        let events = root.events_on(self.topic, self.position)?;
        let mut batch = Batch { events: Vec::new(), revision: self.position.max(root.revision()) };
        let mut bytes = 0;
        for event in events.filter(|event| self.filter.matches(event)) {
            bytes += event.new.as_ref().or(event.old.as_ref()).map_or(0, |record| record.body.len());
            batch.events.push(event.clone());
            // As if the batch were whole.
            if state::mutants::is_chosen("lost-event") && batch.events.len() == 2 {
                break;
            }
            if batch.events.len() == BATCH_EVENTS_MAX || bytes >= BATCH_BYTES {
                batch.revision = event.revision;
                break;
            }
        }
        Ok(batch)
    }
}
