//! What the scheduler derives from the root, event by event: the nodes, what their pods ask for, and the pods that wait.
//!
//! **Invariant:** following events gives exactly what a fresh look at the same root gives, but for the refused pods,
//! which are only remembered to spare work.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use objects::quantity;
use serde_json::Value;
use state::{Event, Key, Record, Revision, State};

use super::NAME;
use crate::{emit, json, record};

/// Pods a node takes when it does not say.
const PODS_MAX_DEFAULT: i64 = 110;
/// What a pod that asks for nothing counts as when loads are compared.
const CPU_ASSUMED_MILLI: i64 = 100;
const MEMORY_ASSUMED: i64 = 200 << 20;
/// No amount counts as more, so that sums do not overflow: a trillion cores, a pebibyte.
const AMOUNT_MAX: i64 = 1 << 50;

/// What scheduling asks of a node's object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeInfo {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Value>,
    pub unschedulable: bool,
    pub ready: bool,
    pub cpu_milli: i64,
    pub memory: i64,
    pub pods: i64,
}

impl NodeInfo {
    fn read(key: &Key, present: &Record) -> Self {
        let node = record::parse(present);
        let amount = |name: &str| match json::at(&node, "status.allocatable").get(name) {
            Some(amount) => amount.as_str().unwrap_or("0").to_owned(),
            None => json::text(&node, &format!("status.capacity.{name}")).to_owned(),
        };
        let pods = amount("pods");
        Self {
            name: key.name.clone(),
            labels: present.header.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            taints: json::items(&node, "spec.taints").to_vec(),
            unschedulable: json::flag(&node, "spec.unschedulable"),
            ready: json::condition_status(&node, "Ready") == "True",
            cpu_milli: quantity::milli(&amount("cpu")).min(AMOUNT_MAX),
            memory: quantity::value(&amount("memory")).min(AMOUNT_MAX),
            pods: if pods.is_empty() { PODS_MAX_DEFAULT } else { quantity::value(&pods) },
        }
    }
}

/// What one pod asks for, out of its header.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    pub cpu_milli: i64,
    pub memory: i64,
    /// `TCP/0.0.0.0/80`: protocol, host address, port.
    pub ports: Vec<String>,
    /// The uid of its controller.
    pub owner: String,
}

impl Request {
    pub fn of(pod: &Record) -> Self {
        let number = |name: &str| emit::field(pod, name).parse().unwrap_or(0).min(AMOUNT_MAX);
        Self {
            cpu_milli: number("requests.cpu"),
            memory: number("requests.memory"),
            ports: emit::field(pod, "host-ports")
                .split(',')
                .filter(|port| !port.is_empty())
                .map(str::to_owned)
                .collect(),
            owner: emit::controller_of(pod).unwrap_or("").to_owned(),
        }
    }
}

/// What the pods of one node ask for together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Load {
    pub cpu_milli: i64,
    pub memory: i64,
    pub pods: i64,
    /// With something assumed for pods that ask for nothing.
    pub cpu_weighed_milli: i64,
    pub memory_weighed: i64,
    pub ports: BTreeMap<String, usize>,
    /// Pods per controller.
    pub owners: BTreeMap<String, usize>,
}

impl Load {
    pub fn add(&mut self, request: &Request) {
        self.count(request, 1);
        for port in &request.ports {
            *self.ports.entry(port.clone()).or_default() += 1;
        }
        if !request.owner.is_empty() {
            *self.owners.entry(request.owner.clone()).or_default() += 1;
        }
    }

    fn remove(&mut self, request: &Request) {
        self.count(request, -1);
        for port in &request.ports {
            take_one(&mut self.ports, port);
        }
        take_one(&mut self.owners, &request.owner);
    }

    fn count(&mut self, request: &Request, sign: i64) {
        let or = |asked: i64, assumed: i64| if asked == 0 { assumed } else { asked };
        self.cpu_milli += sign * request.cpu_milli;
        self.memory += sign * request.memory;
        self.pods += sign;
        self.cpu_weighed_milli += sign * or(request.cpu_milli, CPU_ASSUMED_MILLI);
        self.memory_weighed += sign * or(request.memory, MEMORY_ASSUMED);
    }
}

fn take_one(counts: &mut BTreeMap<String, usize>, key: &str) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// Nodes, loads and pending pods of one revision.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    nodes: BTreeMap<String, NodeInfo>,
    loads: BTreeMap<String, Load>,
    /// Those that matter most first.
    pending: BTreeSet<(Reverse<i64>, Key)>,
    refused: BTreeSet<Key>,
    revision: Option<Revision>,
}

impl Usage {
    /// Catches up with the root: by its events where history reaches back, else from scratch.
    pub fn follow(&mut self, root: &State) {
        let history = self.revision.filter(|revision| *revision <= root.revision());
        match history.map(|revision| root.events_after(revision)) {
            Some(Ok(events)) => events.for_each(|event| self.apply(event)),
            _ => self.rebuild(root),
        }
        self.revision = Some(root.revision());
    }

    fn rebuild(&mut self, root: &State) {
        *self = Self::default();
        for (key, node) in root.list("", "nodes", None) {
            self.nodes.insert(key.name.clone(), NodeInfo::read(key, node));
        }
        for (key, pod) in root.list("", "pods", None) {
            self.pod_came(key, pod);
        }
    }

    fn apply(&mut self, event: &Event) {
        match (event.key.group.as_str(), event.key.resource.as_str()) {
            ("", "nodes") => self.node_changed(event),
            ("", "pods") => {
                if let Some(old) = &event.old {
                    self.pod_went(&event.key, old);
                }
                if let Some(new) = &event.new {
                    self.pod_came(&event.key, new);
                }
                self.forget_refusals(event);
            }
            _ => {}
        }
    }

    fn node_changed(&mut self, event: &Event) {
        let name = &event.key.name;
        let new = event.new.as_ref().map(|node| NodeInfo::read(&event.key, node));
        if self.nodes.get(name) == new.as_ref() {
            return;
        }
        self.refused.clear();
        match new {
            Some(new) => self.nodes.insert(name.clone(), new),
            None => self.nodes.remove(name),
        };
    }

    fn pod_came(&mut self, key: &Key, pod: &Record) {
        if is_pending(pod) {
            self.pending.insert((Reverse(priority(pod)), key.clone()));
        } else if occupies(pod) {
            self.loads.entry(pod.header.node.clone()).or_default().add(&Request::of(pod));
        }
    }

    fn pod_went(&mut self, key: &Key, pod: &Record) {
        self.pending.remove(&(Reverse(priority(pod)), key.clone()));
        if let (true, Some(load)) = (occupies(pod), self.loads.get_mut(&pod.header.node)) {
            load.remove(&Request::of(pod));
        }
    }

    /// Room that became free gives every refused pod another chance; a changed or new pod has one of its own.
    fn forget_refusals(&mut self, event: &Event) {
        let occupied = |pod: &Option<std::sync::Arc<Record>>| pod.as_ref().is_some_and(|pod| occupies(pod));
        if occupied(&event.old) && !occupied(&event.new) {
            self.refused.clear();
        }
        let same = match (&event.old, &event.new) {
            (Some(old), Some(new)) => old.header.generation == new.header.generation,
            _ => false,
        };
        if !same {
            self.refused.remove(&event.key);
        }
    }

    /// The pods to be looked at.
    pub fn pending(&self) -> impl Iterator<Item = &Key> {
        self.pending.iter().map(|(_, key)| key).filter(|key| !self.refused.contains(key))
    }

    /// No node takes this pod until something changes.
    pub fn refuse(&mut self, pod: &Key) {
        self.refused.insert(pod.clone());
    }

    pub fn nodes(&self) -> &BTreeMap<String, NodeInfo> {
        &self.nodes
    }

    pub fn loads(&self) -> &BTreeMap<String, Load> {
        &self.loads
    }
}

/// How much the pod matters: `spec.priority`.
pub fn priority(pod: &Record) -> i64 {
    emit::field(pod, "priority").parse().unwrap_or(0)
}

/// Whether the pod waits for a node, for this scheduler, and for nothing else before.
pub fn is_pending(pod: &Record) -> bool {
    let ours = matches!(emit::field(pod, "spec.schedulerName"), "" | NAME);
    let gated = !emit::field(pod, "scheduling-gates").is_empty();
    ours && !gated && pod.header.node.is_empty() && pod.header.deletion_ms == 0 && !emit::is_finished(pod)
}

/// Whether the pod takes room on its node: until it is finished or gone, also while it is being deleted.
fn occupies(pod: &Record) -> bool {
    !pod.header.node.is_empty() && !emit::is_finished(pod)
}

#[cfg(test)]
impl PartialEq for Usage {
    fn eq(&self, other: &Self) -> bool {
        let busy = |usage: &Self| {
            usage
                .loads
                .iter()
                .filter(|(_, load)| load.pods > 0)
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect::<Vec<_>>()
        };
        self.nodes == other.nodes && self.pending == other.pending && busy(self) == busy(other)
    }
}
