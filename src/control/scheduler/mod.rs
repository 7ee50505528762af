//! Places pods on nodes: filters say which nodes can take a pod and why others cannot, scores which of them is best.
//!
//! It only ever writes a pod's `spec.nodeName` and its PodScheduled condition. Making pods, and moving them by deleting
//! them, is the controllers' work; that a bound pod never moves is a rule of `apply`.
//!
//! ```text
//! events ─▶ Usage (pending pods, nodes, what their pods ask for)
//! each pending pod, of the highest priority and oldest first: FILTERS ─▶ nodes that fit ─▶ SCORES ─▶ binding, counted at once for the next pod
//!                                        └─▶ none: reasons, counted ─▶ condition and event
//! ```
//!
//! **Invariant:** a binding expects the revision of the pod it was decided on, and a pass counts its own bindings, so no
//! pass gives away more than a node has.

mod cache;
mod filters;
mod scores;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde_json::Value;
use state::{Command, Expect, Key, Record, State};

use crate::emit::{self, Notice};
use crate::json::Condition;
use crate::{Context, json, record};

pub use cache::Usage;
use cache::{Load, NodeInfo, Request};

/// The `spec.schedulerName` of pods placed here.
const NAME: &str = "default-scheduler";
/// Pods looked at in one pass; the rest come in the next.
const BATCH: usize = 1000;

/// What became of one pending pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Bound to this node.
    Bind(String),
    /// No node takes it: the reasons as event and condition word them.
    Refuse(String),
}

/// The answer for one pod. The commands put the binding, or the condition when it changed, and the Event.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    pub pod: Key,
    pub decision: Decision,
    pub commands: Vec<Command>,
}

/// A pod on its way to a node, as filters and scores see it.
pub(crate) struct Pod<'a> {
    pub object: &'a Value,
    pub request: &'a Request,
}

/// A node as filters and scores see it, with the pods placed earlier in this pass counted.
#[derive(Clone, Copy)]
pub(crate) struct Node<'a> {
    pub info: &'a NodeInfo,
    pub load: &'a Load,
}

/// Places these pods, with a usage computed from scratch. The leader keeps a [`Scheduler`] instead.
pub fn plan(root: &State, pending: &[Key], cx: &mut Context) -> Vec<Placement> {
    let mut usage = Usage::default();
    usage.follow(root);
    place_all(root, &usage, pending.to_vec(), cx)
}

/// The scheduler with what it derived from earlier roots. A fresh one decides the same, only slower.
#[derive(Debug, Default)]
pub struct Scheduler {
    usage: Usage,
}

impl Scheduler {
    /// Places every pending pod of `root`. `root` must contain the outcomes of all commands of the plan before.
    /// Pods that nothing changed for since they were refused are left out.
    pub fn plan(&mut self, root: &State, cx: &mut Context) -> Vec<Placement> {
        self.usage.follow(root);
        let mut all = Vec::new();
        loop {
            let pending: Vec<Key> = self.usage.pending().take(BATCH).cloned().collect();
            let placements = place_all(root, &self.usage, pending, cx);
            for placement in &placements {
                // Refused, and its condition says so already: what could not be written is decided again.
                if placement.commands.is_empty() {
                    self.usage.refuse(&placement.pod);
                }
            }
            // A pass that writes is followed by another; one that only refused must not hide the pods behind it.
            let quiet = !placements.is_empty() && placements.iter().all(|placement| placement.commands.is_empty());
            all.extend(placements);
            if !quiet {
                return all;
            }
        }
    }
}

fn place_all(root: &State, usage: &Usage, pending: Vec<Key>, cx: &mut Context) -> Vec<Placement> {
    let mut pods: Vec<_> = pending.into_iter().filter_map(|key| Some((root.get(&key)?.clone(), key))).collect();
    pods.retain(|(pod, _)| cache::is_pending(pod));
    pods.sort_by(|(a, a_key), (b, b_key)| {
        let rank = |pod: &Record| (Reverse(cache::priority(pod)), pod.header.creation_ms);
        (rank(a), a_key).cmp(&(rank(b), b_key))
    });
    let mut loads = Loads { before: usage.loads(), changed: BTreeMap::new() };
    let mut placements = Vec::with_capacity(pods.len());
    for (present, key) in pods {
        let mut object = record::parse(&present);
        let request = Request::of(&present);
        let decision = place(&Pod { object: &object, request: &request }, usage.nodes(), &loads);
        if let Decision::Bind(node) = &decision {
            loads.add(node, &request);
        }
        let commands = match &decision {
            Decision::Bind(node) => bind(root, &key, present.revision, &mut object, node, cx),
            Decision::Refuse(message) => refuse(root, &key, &present, &mut object, message, cx),
        };
        placements.push(Placement { pod: key, decision, commands });
    }
    placements
}

/// The loads of one pass: those before it, and those of the nodes that it placed pods on.
struct Loads<'a> {
    before: &'a BTreeMap<String, Load>,
    changed: BTreeMap<String, Load>,
}

impl Loads<'_> {
    fn of(&self, node: &str) -> Option<&Load> {
        self.changed.get(node).or_else(|| self.before.get(node))
    }

    fn add(&mut self, node: &str, request: &Request) {
        if !self.changed.contains_key(node) {
            self.changed.insert(node.to_owned(), self.before.get(node).cloned().unwrap_or_default());
        }
        if let Some(load) = self.changed.get_mut(node) {
            load.add(request);
        }
    }
}

/// The best node for one pod, or why there is none.
fn place(pod: &Pod<'_>, nodes: &BTreeMap<String, NodeInfo>, loads: &Loads<'_>) -> Decision {
    let idle = Load::default();
    let mut fitting: Vec<Node<'_>> = Vec::new();
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for (name, info) in nodes {
        let node = Node { info, load: loads.of(name).unwrap_or(&idle) };
        let against = filters::reasons(pod, &node);
        if against.is_empty() {
            fitting.push(node);
        }
        for reason in against {
            *reasons.entry(reason).or_default() += 1;
        }
    }
    match scores::best(pod, &fitting) {
        Some(node) => Decision::Bind(node.info.name.clone()),
        None if nodes.is_empty() => Decision::Refuse("no nodes available to schedule pods".to_owned()),
        None => {
            let mut parts: Vec<String> = reasons.into_iter().map(|(reason, n)| format!("{n} {reason}")).collect();
            parts.sort_unstable();
            Decision::Refuse(format!("0/{} nodes are available: {}.", nodes.len(), parts.join(", ")))
        }
    }
}

fn bind(root: &State, key: &Key, revision: u64, object: &mut Value, node: &str, cx: &mut Context) -> Vec<Command> {
    json::set(object, "spec.nodeName", node.into());
    let condition = Condition { kind: "PodScheduled", status: "True", reason: "", message: "" };
    json::set_condition(object, &condition, "", &cx.time());
    let Some(put) = emit::kind("", "pods").and_then(|kind| record::put(kind, object).ok()) else { return Vec::new() };
    let expects = vec![Expect::revision(key.clone(), revision), Expect::exists(Key::node(node))];
    let bound = Command { expects, ops: vec![state::Op::put(put)], ..Command::default() };
    let message = format!("Successfully assigned {}/{} to {node}", key.namespace, key.name);
    let notice = Notice { component: NAME, kind: "Normal", reason: "Scheduled", message: &message };
    vec![emit::told(bound, emit::notice(root, object, &notice, cx))]
}

/// Says why not, once per reason.
fn refuse(
    root: &State,
    key: &Key,
    present: &Record,
    object: &mut Value,
    message: &str,
    cx: &mut Context,
) -> Vec<Command> {
    let condition = Condition { kind: "PodScheduled", status: "False", reason: "Unschedulable", message };
    if !json::set_condition(object, &condition, "", &cx.time()) {
        return Vec::new();
    }
    let Some(command) = emit::update(key, present, object) else { return Vec::new() };
    let notice = Notice { component: NAME, kind: "Warning", reason: "FailedScheduling", message };
    vec![emit::told(command, emit::notice(root, object, &notice, cx))]
}
