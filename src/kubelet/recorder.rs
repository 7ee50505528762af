//! Kubernetes Events about this node's pods: equal ones are counted in one object instead of repeated.
//!
//! Invariant: bounded in memory (`KNOWN_MAX`) and in rate per pod (`BURST`, then one per `REFILL_SECONDS`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use serde_json::json;

use crate::outbox::Outbox;
use crate::podspec;

const KNOWN_MAX: usize = 1024;
const BURST: u32 = 25;
const REFILL_SECONDS: i64 = 60;

struct Known {
    name: String,
    first: Timestamp,
    last: Timestamp,
    count: u64,
}

#[derive(Default)]
struct Inside {
    known: BTreeMap<String, Known>,
    /// Per pod: what is left of the burst, and since when.
    budgets: BTreeMap<String, (u32, Timestamp)>,
}

pub struct Recorder {
    node: String,
    outbox: Arc<Outbox>,
    inside: Mutex<Inside>,
}

impl Recorder {
    pub fn new(node: &str, outbox: Arc<Outbox>) -> Recorder {
        Recorder { node: node.to_owned(), outbox, inside: Mutex::new(Inside::default()) }
    }

    /// About a pod, or one container of it.
    pub fn pod(&self, pod: &core::Pod, container: Option<&str>, kind: &str, reason: &str, message: &str) {
        let mut object = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": podspec::namespace(pod),
            "name": podspec::name(pod),
            "uid": podspec::uid(pod),
        });
        if let Some(container) = container {
            object["fieldPath"] = json!(format!("spec.containers{{{container}}}"));
        }
        self.record(object, podspec::namespace(pod), podspec::name(pod), kind, reason, message);
    }

    /// About the node.
    pub fn node(&self, uid: &str, kind: &str, reason: &str, message: &str) {
        let object = json!({ "kind": "Node", "apiVersion": "v1", "name": self.node, "uid": uid });
        self.record(object, "default", &self.node, kind, reason, message);
    }

    fn record(&self, object: serde_json::Value, namespace: &str, name: &str, kind: &str, reason: &str, message: &str) {
        let now = Timestamp::now();
        let key = format!("{object}\0{kind}\0{reason}\0{message}");
        let mut inside = self.inside.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (left, since) = inside.budgets.get(name).copied().unwrap_or((BURST, now));
        let refill = u32::try_from(now.duration_since(since).as_secs() / REFILL_SECONDS).unwrap_or(0);
        let left = left.saturating_add(refill).min(BURST);
        if left == 0 {
            return;
        }
        if inside.budgets.len() > KNOWN_MAX {
            inside.budgets.clear();
        }
        inside.budgets.insert(name.to_owned(), (left - 1, if refill > 0 { now } else { since }));
        if inside.known.len() >= KNOWN_MAX && !inside.known.contains_key(&key) {
            let oldest = inside.known.iter().min_by_key(|(_, known)| known.last).map(|(key, _)| key.clone());
            oldest.map(|key| inside.known.remove(&key));
        }
        let known = inside.known.entry(key).or_insert_with(|| Known {
            name: format!("{name}.{:016x}", now.as_nanosecond() as u64),
            first: now,
            last: now,
            count: 0,
        });
        known.count += 1;
        known.last = now;
        let second = |at: Timestamp| Timestamp::from_second(at.as_second()).unwrap_or(at).to_string();
        let event = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": { "name": known.name, "namespace": namespace },
            "involvedObject": object,
            "type": kind,
            "reason": reason,
            "message": message,
            "count": known.count,
            "firstTimestamp": second(known.first),
            "lastTimestamp": second(known.last),
            "source": { "component": "kubelet", "host": self.node },
            "reportingComponent": "kubelet",
            "reportingInstance": self.node,
        });
        let (name, bytes) = (known.name.clone(), Bytes::from(event.to_string()));
        drop(inside);
        self.outbox.event(name, bytes);
    }
}
