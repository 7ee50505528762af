//! What a node's conditions mean for it and its pods: taints, readiness of its pods, eviction, and the end of pods whose
//! node is gone.
//!
//! ```text
//! conditions ─▶ taints ─(toleration runs out)─▶ pods marked deleted ─▶ ReplicaSets replace them
//! Ready=Unknown ─▶ its pods Ready=False ─▶ endpoints drop them       (back: as their containers are)
//! no Node object ─▶ its pods removed
//! ```
//!
//! A silent node's conditions are made Unknown by [`crate::nodelife`], which alone knows of silence.
//!
//! **Invariant:** while not one node is Ready nothing is evicted: then it is more likely the masters that are cut off, and
//! there is nowhere to go. When the first is back, the others have their pods' whole toleration to follow.

use std::time::Duration;

use serde_json::{Value, json};
use state::{Command, Event, Key, Record, State};

use crate::emit::{self, Notice};
use crate::json::Condition;
use crate::{Context, Plan, Row, json, nodelife, record};

use super::keys_of;

/// Evictions and status changes of one plan.
const BURST: usize = 500;
/// The reason in a pod's Ready condition while its node is silent; only such a condition is taken back.
const SILENT: &str = "NodeStatusUnknown";
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// Condition, its status, the taint it means, its effects.
const TAINTS: &[(&str, &str, &str, &[&str])] = &[
    ("Ready", "Unknown", UNREACHABLE, &["NoSchedule", "NoExecute"]),
    ("Ready", "False", NOT_READY, &["NoSchedule", "NoExecute"]),
    ("Ready", "", NOT_READY, &["NoSchedule", "NoExecute"]),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure", &["NoSchedule"]),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure", &["NoSchedule"]),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure", &["NoSchedule"]),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable", &["NoSchedule"]),
];

pub const ROW: Row = Row { name: "node", watches: &[("", "nodes"), ("", "pods")], keys, plan, resync };

fn keys(root: &State, event: &Event) -> Vec<Key> {
    if event.key.resource == "nodes" {
        let was = event.old.as_ref().is_some_and(|node| is_ready(node));
        let is = event.new.as_ref().is_some_and(|node| is_ready(node));
        // Evictions wait for a Ready node to exist.
        return if is && !was { keys_of(root, "", "nodes") } else { vec![event.key.clone()] };
    }
    let Some(pod) = event.new.as_ref().filter(|pod| !pod.header.node.is_empty()) else { return Vec::new() };
    let key = Key::node(&pod.header.node);
    // On a Ready node only a pod that has just come can have a taint to tolerate for a while.
    let came = event.old.as_ref().is_none_or(|old| old.header.node != pod.header.node);
    let quiet = root.get(&key).is_some_and(|node| is_ready(node) && !(came && drives_out(node)));
    if quiet { Vec::new() } else { vec![key] }
}

/// Every node there is, and every node that pods believe in.
fn resync(root: &State) -> Vec<Key> {
    let mut keys = keys_of(root, "", "nodes");
    keys.extend(
        root.list("", "pods", None)
            .filter(|(_, pod)| !pod.header.node.is_empty())
            .map(|(_, pod)| Key::node(&pod.header.node)),
    );
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn is_ready(node: &Record) -> bool {
    emit::field(node, "ready") == "true"
}

fn drives_out(node: &Record) -> bool {
    json::items(&record::parse(node), "spec.taints").iter().any(|taint| json::text(taint, "effect") == "NoExecute")
}

fn plan(root: &State, key: &Key, cx: &mut Context) -> Plan {
    let mut plan = Plan::default();
    let Some(present) = root.get(key) else {
        for pod_key in root.on_node(&key.name).take(BURST) {
            plan.commands.extend(root.get(pod_key).map(|pod| emit::remove(pod_key, pod)));
        }
        if plan.commands.len() == BURST {
            plan.look_again(Duration::ZERO);
        }
        return plan;
    };
    let mut node = record::parse(present);
    let status = json::condition_status(&node, "Ready").to_owned();
    sync_taints(&mut node, cx);
    if status != "Unknown" {
        nodelife::forget(&mut node);
    }
    plan.commands.extend(emit::update_spec(key, present, &mut node));
    for pod_key in root.on_node(&key.name) {
        let Some(pod) = root.get(pod_key) else { continue };
        if plan.commands.len() < BURST {
            plan.commands.extend(sync_pod_readiness(pod_key, pod, &status, cx));
        }
    }
    evict(root, key, &node, cx, &mut plan);
    plan
}

/// Makes the taints that conditions and cordon mean stand in the spec, and only those of them.
pub fn sync_taints(node: &mut Value, cx: &Context) {
    let before = json::items(node, "spec.taints").to_vec();
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    for &(kind, status, taint, effects) in TAINTS {
        if json::condition_status(node, kind) == status {
            wanted.extend(effects.iter().map(|effect| (taint, *effect)));
        }
    }
    const CORDON: &str = "node.kubernetes.io/unschedulable";
    if json::flag(node, "spec.unschedulable") {
        wanted.push((CORDON, "NoSchedule"));
    }
    let ours = |taint: &Value| {
        let key = json::text(taint, "key");
        key == CORDON || TAINTS.iter().any(|row| row.2 == key)
    };
    let is = |taint: &Value, (key, effect): (&str, &str)| {
        json::text(taint, "key") == key && json::text(taint, "effect") == effect
    };
    let mut taints = before.clone();
    taints.retain(|taint| !ours(taint) || wanted.iter().any(|want| is(taint, *want)));
    for want in wanted {
        if !taints.iter().any(|taint| is(taint, want)) {
            taints.push(json!({ "key": want.0, "effect": want.1, "timeAdded": cx.time() }));
        }
    }
    // From here tolerationSeconds run, also for taints that people set.
    for taint in &mut taints {
        if json::text(taint, "effect") == "NoExecute" && json::text(taint, "timeAdded").is_empty() {
            json::set(taint, "timeAdded", cx.time().into());
        }
    }
    match taints.is_empty() {
        _ if taints == before => {}
        true => json::remove(node, "spec.taints"),
        false => json::set(node, "spec.taints", taints.into()),
    }
}

/// A pod on a silent node is not ready; when the node is back it is as ready as its containers were.
fn sync_pod_readiness(key: &Key, pod: &Record, node_status: &str, cx: &Context) -> Option<Command> {
    let ready = emit::field(pod, "ready") == "true";
    if emit::is_finished(pod) || ready == (node_status == "True") {
        return None;
    }
    let mut object = record::parse(pod);
    let silent = json::condition(&object, "Ready").is_some_and(|condition| json::text(condition, "reason") == SILENT);
    let (status, reason) = match node_status {
        "Unknown" if ready => ("False", SILENT),
        "True" if silent && json::condition_status(&object, "ContainersReady") == "True" => ("True", ""),
        _ => return None,
    };
    json::set_condition(&mut object, &Condition { kind: "Ready", status, reason, message: "" }, "", &cx.time());
    emit::update(key, pod, &object)
}

/// Whether a toleration covers a taint.
pub fn tolerates(toleration: &Value, taint: &Value) -> bool {
    let (key, effect) = (json::text(toleration, "key"), json::text(toleration, "effect"));
    let exists = json::text(toleration, "operator") == "Exists";
    (effect.is_empty() || effect == json::text(taint, "effect"))
        && (key == json::text(taint, "key") || (key.is_empty() && exists))
        && (exists || json::text(toleration, "value") == json::text(taint, "value"))
}

/// Marks the pods whose toleration of a NoExecute taint has run out.
fn evict(root: &State, key: &Key, node: &Value, cx: &mut Context, plan: &mut Plan) {
    let taints: Vec<&Value> =
        json::items(node, "spec.taints").iter().filter(|taint| json::text(taint, "effect") == "NoExecute").collect();
    if taints.is_empty() {
        return;
    }
    let by_silence = |taint: &&Value| matches!(json::text(taint, "key"), UNREACHABLE | NOT_READY);
    let since_ms = match taints.iter().any(by_silence) {
        false => i64::MIN,
        true => match some_ready_since_ms(root) {
            Some(since_ms) => since_ms,
            None => return,
        },
    };
    for pod_key in root.on_node(&key.name) {
        let Some(pod) = root.get(pod_key) else { continue };
        if pod.header.deletion_ms != 0 || emit::is_finished(pod) {
            continue;
        }
        let object = record::parse(pod);
        let Some(at_ms) = taints.iter().filter_map(|taint| deadline_ms(&object, taint, since_ms, cx)).min() else {
            continue;
        };
        let left_ms = at_ms.saturating_sub(cx.now_ms());
        if left_ms > 0 {
            plan.look_again(Duration::from_millis(u64::try_from(left_ms).unwrap_or(0)));
            continue;
        }
        if plan.commands.len() >= BURST {
            plan.look_again(Duration::ZERO);
            break;
        }
        let now = cx.time();
        let deleted = emit::delete_with(pod_key, pod, cx, |object| {
            let condition = Condition {
                kind: "DisruptionTarget",
                status: "True",
                reason: "DeletionByTaintManager",
                message: "Taint manager: deleting due to NoExecute taint",
            };
            json::set_condition(object, &condition, "", &now);
        });
        let Some(deleted) = deleted else { continue };
        let message = format!("Marking for deletion Pod {}/{}", pod_key.namespace, pod_key.name);
        let notice = Notice {
            component: "taint-eviction-controller",
            kind: "Normal",
            reason: "TaintManagerEviction",
            message: &message,
        };
        plan.commands.push(emit::told(deleted, emit::notice(root, &object, &notice, cx)));
    }
}

/// Since when some node has been Ready without a break; `None` while none is.
fn some_ready_since_ms(root: &State) -> Option<i64> {
    let ready = root.list("", "nodes", None).filter(|(_, node)| is_ready(node));
    ready
        .map(|(_, node)| {
            let node = record::parse(node);
            json::condition(&node, "Ready").and_then(|ready| json::time_ms(ready, "lastTransitionTime"))
        })
        .map(|since_ms| since_ms.unwrap_or(i64::MIN))
        .min()
}

/// When this taint drives the pod out, counted from `since_ms` at the earliest; `None` if it is tolerated for ever.
fn deadline_ms(pod: &Value, taint: &Value, since_ms: i64, cx: &Context) -> Option<i64> {
    let since_ms = json::time_ms(taint, "timeAdded").unwrap_or_else(|| cx.now_ms()).max(since_ms);
    match json::items(pod, "spec.tolerations").iter().find(|toleration| tolerates(toleration, taint)) {
        None => Some(since_ms),
        Some(toleration) => {
            let wait_ms = |s: i64| s.max(0).saturating_mul(1000);
            json::int(toleration, "tolerationSeconds").map(|s| since_ms.saturating_add(wait_ms(s)))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::harness::{World, deployment};

    fn taints(world: &World, name: &str) -> Vec<String> {
        let node = world.object(&Key::node(name));
        json::items(&node, "spec.taints")
            .iter()
            .map(|taint| format!("{}:{}", json::text(taint, "key"), json::text(taint, "effect")))
            .collect()
    }

    fn on<'a>(world: &'a World, node: &'a str) -> Vec<(&'a Key, &'a Record)> {
        world.root.on_node(node).filter_map(|key| Some((key, &**world.root.get(key)?))).collect()
    }

    /// Three nodes with two pods each; `node-1` falls silent.
    fn silent() -> World {
        let mut world = World::with_nodes(3);
        world.create("apps", "deployments", deployment("web", 6));
        world.settle_quietly();
        world.dead.insert("node-1".into());
        assert_eq!(world.hear(&[("node-1", 4_900), ("node-2", 0), ("node-3", 0)]), 1, "Leases only");
        world.hear(&[("node-1", 5_100), ("node-2", 0), ("node-3", 0)]);
        world.settle();
        world
    }

    #[test]
    fn a_silent_node_loses_its_pods_after_their_toleration() {
        let mut world = silent();
        assert_eq!(json::condition_status(&world.object(&Key::node("node-1")), "Ready"), "Unknown");
        assert_eq!(taints(&world, "node-1"), [format!("{UNREACHABLE}:NoSchedule"), format!("{UNREACHABLE}:NoExecute")]);
        assert_eq!(on(&world, "node-1").len(), 2);
        assert!(on(&world, "node-1").iter().all(|(_, pod)| emit::field(pod, "ready") == "false"));
        assert_eq!(world.hear(&[("node-1", 6_000)]), 0, "said once");
        world.advance(Duration::from_secs(4));
        assert_eq!(world.pods().len(), 6);
        assert!(on(&world, "node-1").iter().all(|(_, pod)| pod.header.deletion_ms == 0));
        world.advance(Duration::from_secs(2));
        assert!(on(&world, "node-1").iter().all(|(_, pod)| pod.header.deletion_ms != 0), "marked, and still there");
        assert_eq!(world.pods().iter().filter(|(_, pod)| pod.header.node != "node-1").count(), 6);
        // Its kubelet is back and reports them gone.
        world.dead.clear();
        world.hear(&[("node-1", 0)]);
        world.settle_quietly();
        assert!(taints(&world, "node-1").is_empty());
        assert!(on(&world, "node-1").is_empty());
    }

    #[test]
    fn a_node_back_in_time_keeps_its_pods() {
        let mut world = silent();
        world.advance(Duration::from_secs(3));
        world.dead.clear();
        world.hear(&[("node-1", 100)]);
        world.settle_quietly();
        world.advance(Duration::from_secs(60));
        assert_eq!(on(&world, "node-1").len(), 2);
        assert!(on(&world, "node-1").iter().all(|(_, pod)| emit::field(pod, "ready") == "true"));
    }

    #[test]
    fn a_silent_nodes_conditions_are_unknown_until_it_is_back() {
        let conditions = |world: &World| -> Vec<String> {
            let node = world.object(&Key::node("node-1"));
            let said =
                |one: &Value| ["type", "status", "reason", "message"].map(|field| json::text(one, field)).join("|");
            json::items(&node, "status.conditions").iter().map(said).collect()
        };
        let mut world = World::with_nodes(2);
        let said = |kind: &str, status: &str, reason: &str, message: &str| json!({ "type": kind, "status": status, "reason": reason, "message": message });
        let all = vec![
            said("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            said("DiskPressure", "True", "KubeletHasDiskPressure", "kubelet has disk pressure"),
            said("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            said("NetworkUnavailable", "False", "RouteCreated", "a route was made"),
            said("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
        ];
        let mut node = world.object(&Key::node("node-1"));
        json::set(&mut node, "status.conditions", all.into());
        world.put(&node, &Key::node("node-1"));
        world.settle();
        let before = conditions(&world);
        assert_eq!(taints(&world, "node-1"), ["node.kubernetes.io/disk-pressure:NoSchedule"]);
        world.hear(&[("node-1", 5_100), ("node-2", 0)]);
        world.settle();
        let silent = "Unknown|NodeStatusUnknown|Kubelet stopped posting node status.";
        let mut expected: Vec<String> =
            ["MemoryPressure", "DiskPressure", "PIDPressure"].map(|kind| format!("{kind}|{silent}")).to_vec();
        expected.extend([before[3].clone(), format!("Ready|{silent}")]);
        assert_eq!(conditions(&world), expected, "all of its kubelet, and no other");
        assert_eq!(taints(&world, "node-1"), [format!("{UNREACHABLE}:NoSchedule"), format!("{UNREACHABLE}:NoExecute")]);
        world.hear(&[("node-1", 0), ("node-2", 0)]);
        world.settle_quietly();
        assert_eq!(conditions(&world), before);
        assert_eq!(taints(&world, "node-1"), ["node.kubernetes.io/disk-pressure:NoSchedule"]);
        assert_eq!(json::at(&world.object(&Key::node("node-1")), "metadata.annotations"), &Value::Null);
    }

    #[test]
    fn nothing_is_evicted_while_no_node_is_ready() {
        let mut world = World::with_nodes(2);
        world.create("apps", "deployments", deployment("web", 4));
        world.settle_quietly();
        world.hear(&[("node-1", 9_000), ("node-2", 9_000)]);
        world.settle();
        world.advance(Duration::from_secs(60));
        assert!(world.pods().iter().all(|(_, pod)| pod.header.deletion_ms == 0));
        assert_eq!(world.pods().len(), 4);
        world.dead.insert("node-1".into());
        world.hear(&[("node-1", 70_000), ("node-2", 0)]);
        world.settle();
        assert!(
            on(&world, "node-1").iter().all(|(_, pod)| pod.header.deletion_ms == 0),
            "the first to be back does not make the others late"
        );
        world.advance(Duration::from_secs(6));
        assert!(
            on(&world, "node-1").iter().all(|(_, pod)| pod.header.deletion_ms != 0),
            "now there is somewhere to go"
        );
    }

    #[test]
    fn a_pod_that_tolerates_a_taint_for_a_while_goes_after_it_also_when_it_came_later() {
        let mut world = World::with_nodes(1);
        world.edit(&Key::node("node-1"), |node| {
            json::set(node, "spec.taints", json!([{ "key": "k", "value": "v", "effect": "NoExecute" }]));
        });
        world.settle();
        let for_seconds =
            |s: i64| json!([{ "key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": s }]);
        for (name, s) in [("short", 30), ("long", i64::MAX)] {
            let spec = json!({ "tolerations": for_seconds(s), "terminationGracePeriodSeconds": 1 });
            world.create("", "pods", crate::harness::pod(name, spec));
        }
        world.settle();
        assert_eq!(on(&world, "node-1").len(), 2);
        world.advance(Duration::from_secs(31));
        world.settle_quietly();
        let left: Vec<_> = world.pods().into_iter().map(|(key, _)| key.name).collect();
        assert_eq!(left, ["long"]);
    }

    #[test]
    fn a_deleted_node_takes_its_pods_along() {
        let mut world = silent();
        world.remove(&Key::node("node-1"));
        world.settle_quietly();
        assert!(on(&world, "node-1").is_empty());
        assert_eq!(world.pods().len(), 6);
    }

    #[test]
    fn a_cordon_is_a_taint() {
        let mut world = World::with_nodes(1);
        let key = Key::node("node-1");
        world.edit(&key, |node| json::set(node, "spec.unschedulable", true.into()));
        world.settle();
        assert_eq!(taints(&world, "node-1"), ["node.kubernetes.io/unschedulable:NoSchedule"]);
        world.edit(&key, |node| json::remove(node, "spec.unschedulable"));
        world.settle_quietly();
        assert!(taints(&world, "node-1").is_empty());
    }

    #[test]
    fn tolerations() {
        let taint = json!({ "key": "k", "value": "v", "effect": "NoExecute" });
        for (toleration, expect) in [
            (json!({ "operator": "Exists" }), true),
            (json!({ "key": "k", "operator": "Exists" }), true),
            (json!({ "key": "k", "value": "v" }), true),
            (json!({ "key": "k", "operator": "Equal", "value": "v", "effect": "NoExecute" }), true),
            (json!({ "key": "k", "value": "w" }), false),
            (json!({ "key": "l", "operator": "Exists" }), false),
            (json!({ "key": "k", "operator": "Exists", "effect": "NoSchedule" }), false),
            (json!({ "value": "v" }), false),
        ] {
            assert_eq!(tolerates(&toleration, &taint), expect, "{toleration}");
        }
    }
}
