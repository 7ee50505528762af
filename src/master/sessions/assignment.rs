//! What one node shall run, as the difference between what was sent and what a root says. Level, not edge: a wake-up only
//! means "compare again".
//!
//! **Invariant:** after every message the node knows exactly the pods bound to it and the ConfigMaps and Secrets those
//! name, each at the version of the message's revision.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use control::seal::{self, Sealer};
use objects::meta;
use rpc::pb;
use state::{Key, Record, Revision, State};

/// What the node was sent, and what its pods refer to.
#[derive(Default)]
pub struct Assigned {
    sent: BTreeMap<Key, Sent>,
    /// Per pod: the revision its references were read at, and the references.
    references: BTreeMap<Key, (Revision, BTreeSet<Key>)>,
    pod_cidr: String,
    sealer: Option<Arc<dyn Sealer>>,
}

struct Sent {
    uid: String,
    revision: Revision,
}

impl Assigned {
    /// `sealer` opens the Secrets.
    pub fn new(sealer: Option<Arc<dyn Sealer>>) -> Self {
        Self { sealer, ..Self::default() }
    }

    /// The complete assignment of `node` at this root.
    pub fn full(&mut self, root: &State, node: &str, epoch: u64) -> pb::Assignment {
        *self = Self::new(self.sealer.take());
        let mut assignment = self.difference(root, node);
        assignment.epoch = epoch;
        assignment.full = true;
        assignment
    }

    /// What changed since the last call; `None` when nothing did.
    pub fn changes(&mut self, root: &State, node: &str, epoch: u64) -> Option<pb::Assignment> {
        let cidr = self.pod_cidr.clone();
        let mut assignment = self.difference(root, node);
        if assignment.objects.is_empty() && assignment.removed.is_empty() && assignment.pod_cidr == cidr {
            return None;
        }
        assignment.epoch = epoch;
        Some(assignment)
    }

    /// The ConfigMaps and Secrets that the node's pods refer to, present or not.
    pub fn referred(&self) -> BTreeSet<Key> {
        self.references.values().flat_map(|(_, keys)| keys.iter().cloned()).collect()
    }

    fn difference(&mut self, root: &State, node: &str) -> pb::Assignment {
        let mut wanted: BTreeSet<Key> = root.on_node(node).cloned().collect();
        self.references.retain(|pod, _| wanted.contains(pod));
        let mut namespaces = BTreeSet::new();
        for pod in &wanted {
            namespaces.insert(pod.namespace.clone());
            let Some(record) = root.get(pod) else { continue };
            if self.references.get(pod).is_none_or(|(revision, _)| *revision != record.revision) {
                self.references.insert(pod.clone(), (record.revision, references(pod, record)));
            }
        }
        wanted.extend(self.referred());
        for namespace in &namespaces {
            wanted.extend(root.list("", "services", Some(namespace)).map(|(key, _)| key.clone()));
        }
        if !namespaces.is_empty() {
            // Pods of every namespace are told where the API is.
            wanted.insert(Key::new("", "services", "default", "kubernetes"));
        }

        let mut assignment = pb::Assignment { revision: root.revision(), ..Default::default() };
        for key in &wanted {
            let Some(record) = root.get(key) else { continue };
            let sent = self.sent.get(key);
            if sent.is_some_and(|sent| sent.revision == record.revision) {
                continue;
            }
            // Another object under the same name: the old one is gone.
            if let Some(old) = sent.filter(|sent| sent.uid != record.header.uid) {
                assignment.removed.push(name_of(key, &old.uid));
            }
            let opened = match seal::open(record, self.sealer.as_deref()) {
                Ok(opened) => opened,
                // The pods that need it wait, here or at a master that can open it.
                Err(why) => {
                    tracing::error!(%key, why, "a Secret cannot be sent to a node");
                    continue;
                }
            };
            assignment.objects.push(pb::AssignedObject {
                name: Some(name_of(key, &record.header.uid)),
                revision: record.revision,
                json: opened.json().into(),
            });
            self.sent.insert(key.clone(), Sent { uid: record.header.uid.clone(), revision: record.revision });
        }
        self.sent.retain(|key, sent| {
            let stays = wanted.contains(key) && root.get(key).is_some();
            if !stays {
                assignment.removed.push(name_of(key, &sent.uid));
            }
            stays
        });
        self.pod_cidr = pod_cidr(root, node);
        assignment.pod_cidr = self.pod_cidr.clone();
        assignment
    }
}

/// The CIDR that the leader allotted to the node; empty until then.
pub fn pod_cidr(root: &State, node: &str) -> String {
    root.get(&Key::node(node))
        .map(|record| meta::text(&control::record::parse(record), &["spec", "podCIDR"]).to_owned())
        .unwrap_or_default()
}

fn name_of(key: &Key, uid: &str) -> pb::ObjectName {
    pb::ObjectName {
        resource: key.resource.clone(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        uid: uid.to_owned(),
    }
}

/// The ConfigMaps and Secrets that a pod's volumes and environment name.
fn references(pod: &Key, record: &Record) -> BTreeSet<Key> {
    let found = objects::kinds::pod_references(&control::record::parse(record));
    let key = |resource: &'static str| move |name: String| Key::new("", resource, &pod.namespace, name);
    let config_maps = found.config_maps.into_iter().map(key("configmaps"));
    config_maps.chain(found.secrets.into_iter().map(key("secrets"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use objects::Kinds;
    use serde_json::{Value, json};
    use state::{Command, EntryId, Op};

    fn put(root: &mut State, resource: &str, object: Value) {
        let kind = Kinds::builtin().by_resource("", resource).unwrap();
        let put = control::record::put(kind, &object).unwrap();
        let command = Command { ops: vec![Op::put(put)], ..Command::default() };
        let applied = root.apply(EntryId { term: 1, index: root.revision() + 1 }, &command);
        assert_eq!(applied.outcome.refusal, None);
    }

    fn pod(name: &str, uid: &str, node: &str) -> Value {
        json!({"metadata": {"name": name, "namespace": "default", "uid": uid}, "spec": {
            "nodeName": node,
            "containers": [{"name": "c", "envFrom": [{"configMapRef": {"name": "settings"}}]}],
            "volumes": [{"name": "s", "secret": {"secretName": "key"}}],
        }})
    }

    fn base() -> State {
        let mut root = State::default();
        put(&mut root, "namespaces", json!({"metadata": {"name": "default", "uid": "ns"}}));
        put(&mut root, "nodes", json!({"metadata": {"name": "n1", "uid": "n1"}, "spec": {"podCIDR": "10.244.1.0/24"}}));
        put(&mut root, "nodes", json!({"metadata": {"name": "n2", "uid": "n2"}}));
        root
    }

    fn names(assignment: &pb::Assignment) -> (Vec<String>, Vec<String>) {
        let text = |name: &pb::ObjectName| format!("{}/{}", name.resource, name.name);
        (
            assignment.objects.iter().filter_map(|object| object.name.as_ref()).map(text).collect(),
            assignment.removed.iter().map(text).collect(),
        )
    }

    #[test]
    fn a_node_gets_its_pods_with_what_they_refer_to_and_then_only_changes() {
        let mut root = base();
        put(
            &mut root,
            "configmaps",
            json!({"metadata": {"name": "settings", "namespace": "default", "uid": "cm"}, "data": {"a": "1"}}),
        );
        put(&mut root, "configmaps", json!({"metadata": {"name": "other", "namespace": "default", "uid": "cm2"}}));
        put(&mut root, "pods", pod("a", "a", "n1"));
        put(&mut root, "pods", pod("b", "b", "n2"));
        let mut assigned = Assigned::default();
        let full = assigned.full(&root, "n1", 3);
        assert_eq!(names(&full), (vec!["configmaps/settings".into(), "pods/a".into()], vec![]));
        assert_eq!(
            (full.full, full.epoch, full.revision, full.pod_cidr.as_str()),
            (true, 3, root.revision(), "10.244.1.0/24")
        );
        assert_eq!(assigned.changes(&root, "n1", 3), None);

        // A Secret that comes into being later, and a changed ConfigMap.
        put(&mut root, "secrets", json!({"metadata": {"name": "key", "namespace": "default", "uid": "s"}}));
        put(
            &mut root,
            "configmaps",
            json!({"metadata": {"name": "settings", "namespace": "default", "uid": "cm"}, "data": {"a": "2"}}),
        );
        let changes = assigned.changes(&root, "n1", 3).unwrap();
        assert_eq!(names(&changes), (vec!["configmaps/settings".into(), "secrets/key".into()], vec![]));
        assert!(!changes.full);

        // The pod goes, and so does what only it referred to.
        let delete = Command { ops: vec![Op::delete(Key::new("", "pods", "default", "a"))], ..Command::default() };
        root.apply(EntryId { term: 1, index: 99 }, &delete);
        let changes = assigned.changes(&root, "n1", 3).unwrap();
        assert_eq!(
            names(&changes),
            (vec![], vec!["configmaps/settings".into(), "pods/a".into(), "secrets/key".into()])
        );
    }

    #[test]
    fn a_pod_replaced_under_its_name_is_removed_and_sent() {
        let mut root = base();
        put(&mut root, "pods", pod("a", "old", "n1"));
        let mut assigned = Assigned::default();
        assigned.full(&root, "n1", 1);
        let key = Key::new("", "pods", "default", "a");
        root.apply(EntryId { term: 1, index: 98 }, &Command { ops: vec![Op::delete(key)], ..Command::default() });
        put(&mut root, "pods", pod("a", "new", "n1"));
        let changes = assigned.changes(&root, "n1", 1).unwrap();
        assert_eq!(changes.removed[0].uid, "old");
        assert_eq!(changes.objects[0].name.as_ref().unwrap().uid, "new");
    }
}
