//! What waits to go up to a master: the newest status of each pod, pods that are gone, the node's status, events.
//!
//! Not here: connections (`session`). Invariants: per pod only the newest status waits; nothing is lost while no master answers,
//! except the oldest events beyond `EVENTS_MAX`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Mutex;

use bytes::Bytes;
use rpc::pb;
use tokio::sync::Notify;

pub const EVENTS_MAX: usize = 512;

/// Names one thing that waits or is under way, so that a newer one takes its place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Node,
    Status(String),
    Gone(String),
    /// Events are told apart by their object's name.
    Event(String),
}

#[derive(Debug, Default)]
struct Inside {
    node: Option<Bytes>,
    statuses: BTreeMap<String, pb::PodStatus>,
    gone: BTreeMap<String, pb::PodGone>,
    events: VecDeque<(String, Bytes)>,
}

#[derive(Debug, Default)]
pub struct Outbox {
    inside: Mutex<Inside>,
    changed: Notify,
}

pub type Write = (Subject, pb::write::Write);

impl Outbox {
    fn with<T>(&self, change: impl FnOnce(&mut Inside) -> T) -> T {
        change(&mut self.inside.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    pub fn node(&self, json: Bytes) {
        self.with(|inside| inside.node = Some(json));
        self.changed.notify_one();
    }

    pub fn status(&self, status: pb::PodStatus) {
        self.with(|inside| inside.statuses.insert(status.uid.clone(), status));
        self.changed.notify_one();
    }

    pub fn gone(&self, gone: pb::PodGone) {
        self.with(|inside| inside.gone.insert(gone.uid.clone(), gone));
        self.changed.notify_one();
    }

    /// Nothing more is to be said of a pod that its masters have forgotten.
    pub fn forget(&self, uid: &str) {
        self.with(|inside| {
            inside.statuses.remove(uid);
            inside.gone.remove(uid);
        });
    }

    pub fn event(&self, name: String, json: Bytes) {
        self.with(|inside| {
            inside.events.retain(|(known, _)| *known != name);
            if inside.events.len() >= EVENTS_MAX {
                inside.events.pop_front();
            }
            inside.events.push_back((name, json));
        });
        self.changed.notify_one();
    }

    /// Takes the next write whose subject is not under way already, statuses before events: a master may carry out several
    /// writes at once, and an older one must not come last. A pod's last status goes before its end.
    pub fn take(&self, busy: &BTreeSet<Subject>) -> Option<Write> {
        use pb::write::Write as W;
        self.with(|inside| {
            if !busy.contains(&Subject::Node)
                && let Some(json) = inside.node.take()
            {
                return Some((Subject::Node, W::NodeStatus(json)));
            }
            let free = |uid: &&String| !busy.contains(&Subject::Status((*uid).clone()));
            let status = inside.statuses.keys().find(free).cloned();
            if let Some((uid, status)) = status.and_then(|uid| inside.statuses.remove_entry(&uid)) {
                return Some((Subject::Status(uid), W::PodStatus(status)));
            }
            let gone =
                inside.gone.keys().find(|uid| free(uid) && !busy.contains(&Subject::Gone((*uid).clone()))).cloned();
            if let Some((uid, gone)) = gone.and_then(|uid| inside.gone.remove_entry(&uid)) {
                return Some((Subject::Gone(uid), W::PodGone(gone)));
            }
            let at = inside.events.iter().position(|(name, _)| !busy.contains(&Subject::Event(name.clone())))?;
            let (name, json) = inside.events.remove(at)?;
            Some((Subject::Event(name), W::Event(json)))
        })
    }

    /// Puts back what could not be delivered, unless something newer waits.
    pub fn put_back(&self, (subject, write): Write) {
        use pb::write::Write as W;
        self.with(|inside| match (subject, write) {
            (Subject::Node, W::NodeStatus(json)) => {
                inside.node.get_or_insert(json);
            }
            (Subject::Status(uid), W::PodStatus(status)) => {
                inside.statuses.entry(uid).or_insert(status);
            }
            (Subject::Gone(uid), W::PodGone(gone)) => {
                inside.gone.entry(uid).or_insert(gone);
            }
            (Subject::Event(name), W::Event(json))
                if inside.events.len() < EVENTS_MAX && !inside.events.iter().any(|(known, _)| *known == name) =>
            {
                inside.events.push_front((name, json));
            }
            _ => {}
        });
    }

    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    pub fn wake(&self) {
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(uid: &str, text: &str) -> pb::PodStatus {
        pb::PodStatus { uid: uid.to_owned(), status_json: text.to_owned().into_bytes().into(), ..Default::default() }
    }

    #[test]
    fn newest_status_wins_and_goes_before_the_end() {
        let outbox = Outbox::default();
        outbox.gone(pb::PodGone { uid: "a".to_owned(), ..Default::default() });
        outbox.status(status("a", "1"));
        let first = outbox.take(&BTreeSet::new()).expect("a status");
        assert_eq!(first.0, Subject::Status("a".to_owned()));
        outbox.status(status("a", "2"));
        outbox.put_back(first);
        match outbox.take(&BTreeSet::new()) {
            Some((_, pb::write::Write::PodStatus(status))) => assert_eq!(status.status_json, b"2".to_vec()),
            other => panic!("{other:?}"),
        }
        assert_eq!(outbox.take(&BTreeSet::new()).map(|(subject, _)| subject), Some(Subject::Gone("a".to_owned())));
        assert!(outbox.take(&BTreeSet::new()).is_none());
        outbox.status(status("a", "3"));
        assert!(outbox.take(&BTreeSet::from([Subject::Status("a".to_owned())])).is_none());
    }

    #[test]
    fn events_are_bounded() {
        let outbox = Outbox::default();
        for at in 0..EVENTS_MAX + 3 {
            outbox.event(format!("e{at}"), Bytes::new());
        }
        assert_eq!(outbox.take(&BTreeSet::new()).map(|(subject, _)| subject), Some(Subject::Event("e3".to_owned())));
    }
}
