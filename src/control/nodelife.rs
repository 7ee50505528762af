//! From silence to readiness: a node nobody has heard from is Unknown, one that is heard again is what it was. As in
//! Kubernetes every condition of its kubelet is Unknown meanwhile: nobody knows its memory or disk either.
//!
//! What readiness means for taints, pods and endpoints stands in [`crate::controllers::node`], which works on the state
//! alone; this is the only place that knows of silence.
//!
//! **Invariant:** only changes of readiness are written; a beating heart costs no command (its Lease, one for all nodes
//! each ten seconds).

use std::collections::BTreeMap;

use serde_json::Value;
use state::{Command, Key, Record, State};

use crate::emit::{self, Notice};
use crate::json::Condition;
use crate::{Context, controllers, json, lease, record};

const ANNOTATIONS: &str = "metadata.annotations";
const HEARTBEAT: &str = "lastHeartbeatTime";
const SILENT: &str = "NodeStatusUnknown";
const SILENT_MESSAGE: &str = "Kubelet stopped posting node status.";
/// What Ready was before the silence, kept on the node so that any leader can give it back.
const READY_BEFORE: &str = "hactl.io/ready-before-silence";
/// Which pressures there were before the silence, between commas; absent for none.
const PRESSURES_BEFORE: &str = "hactl.io/pressures-before-silence";

/// What a kubelet says of itself beside Ready: condition, its reason and message with the pressure, and without.
type Pressure = (&'static str, [&'static str; 2], [&'static str; 2]);
const PRESSURES: &[Pressure] = &[
    (
        "MemoryPressure",
        ["KubeletHasInsufficientMemory", "kubelet has insufficient memory available"],
        ["KubeletHasSufficientMemory", "kubelet has sufficient memory available"],
    ),
    (
        "DiskPressure",
        ["KubeletHasDiskPressure", "kubelet has disk pressure"],
        ["KubeletHasNoDiskPressure", "kubelet has no disk pressure"],
    ),
    (
        "PIDPressure",
        ["KubeletHasInsufficientPID", "kubelet has insufficient PID available"],
        ["KubeletHasSufficientPID", "kubelet has sufficient PID available"],
    ),
];

/// Plans the changes of readiness, and renews the Leases of living nodes. `heard` maps a node's name to how long it has
/// been silent, in milliseconds; a node that is not in it is not judged, so a new leader first grants a full grace.
/// Called about once a second, and whenever `heard` grows beyond the grace.
pub fn plan(root: &State, heard: &BTreeMap<String, u64>, cx: &mut Context) -> Vec<Command> {
    let grace_ms = u64::try_from(cx.settings.node_grace.as_millis()).unwrap_or(u64::MAX);
    let mut commands = Vec::new();
    let mut alive = Vec::new();
    for (name, silent_ms) in heard {
        let key = Key::node(name);
        let Some(present) = root.get(&key) else { continue };
        let silent = *silent_ms > grace_ms;
        if !silent {
            alive.push(name.as_str());
        }
        commands.extend(judge(root, &key, present, silent, cx));
    }
    commands.extend(lease::plan(root, &alive, cx));
    commands
}

fn judge(root: &State, key: &Key, present: &Record, silent: bool, cx: &mut Context) -> Vec<Command> {
    // Once a second for every node: most are seen to be well without reading their bodies.
    if !silent && emit::field(present, "ready") != "unknown" {
        return Vec::new();
    }
    let mut node = record::parse(present);
    let condition = json::condition(&node, "Ready");
    let status = condition.map_or("", |condition| json::text(condition, "status")).to_owned();
    let ours = condition.is_some_and(|condition| json::text(condition, "reason") == SILENT);
    let (reason, message) = match silent {
        true if status == "Unknown" => return Vec::new(),
        true => {
            fall_silent(&mut node, &status, cx);
            ("NodeNotReady", format!("Node {} status is now: NodeNotReady", key.name))
        }
        false if !(status == "Unknown" && ours) => return Vec::new(),
        false => {
            come_back(&mut node, cx);
            ("NodeReady", format!("Node {} status is now: NodeReady", key.name))
        }
    };
    // Together with the condition, so that no pod is placed there in between.
    controllers::node::sync_taints(&mut node, cx);
    let Some(command) = emit::update_spec(key, present, &mut node) else { return Vec::new() };
    let notice = Notice { component: "node-controller", kind: "Normal", reason, message: &message };
    vec![emit::told(command, emit::notice(root, &node, &notice, cx))]
}

fn fall_silent(node: &mut Value, status: &str, cx: &Context) {
    json::set_entry(node, ANNOTATIONS, READY_BEFORE, status.into());
    let present = |kind: &&str| json::condition(node, kind).is_some();
    let known: Vec<&str> = PRESSURES.iter().map(|(kind, ..)| *kind).filter(present).collect();
    let pressed: Vec<&str> =
        known.iter().copied().filter(|kind| json::condition_status(node, kind) == "True").collect();
    if !pressed.is_empty() {
        json::set_entry(node, ANNOTATIONS, PRESSURES_BEFORE, pressed.join(",").into());
    }
    for kind in known.into_iter().chain(["Ready"]) {
        let condition = Condition { kind, status: "Unknown", reason: SILENT, message: SILENT_MESSAGE };
        json::set_condition(node, &condition, HEARTBEAT, &cx.time());
    }
}

fn come_back(node: &mut Value, cx: &Context) {
    let before = |name| json::entry(node, ANNOTATIONS, name).map(str::to_owned);
    let (ready, pressures) = (before(READY_BEFORE), before(PRESSURES_BEFORE).unwrap_or_default());
    forget(node);
    for (kind, with, without) in PRESSURES {
        if json::condition(node, kind).is_none_or(|condition| json::text(condition, "reason") != SILENT) {
            continue;
        }
        let pressed = pressures.split(',').any(|one| one == *kind);
        let (status, [reason, message]) = if pressed { ("True", *with) } else { ("False", *without) };
        json::set_condition(node, &Condition { kind, status, reason, message }, HEARTBEAT, &cx.time());
    }
    let condition = match ready.as_deref() {
        Some("False") => Condition {
            kind: "Ready",
            status: "False",
            reason: "KubeletNotReady",
            message: "kubelet was not ready before it fell silent",
        },
        _ => Condition {
            kind: "Ready",
            status: "True",
            reason: "KubeletReady",
            message: "kubelet is posting ready status",
        },
    };
    json::set_condition(node, &condition, HEARTBEAT, &cx.time());
}

/// Drops what was kept for the end of the silence: the kubelet has spoken for itself again.
pub(crate) fn forget(node: &mut Value) {
    for name in [READY_BEFORE, PRESSURES_BEFORE] {
        json::remove_entry(node, ANNOTATIONS, name);
    }
}
