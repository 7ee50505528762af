//! As many pods as the ReplicaSet says: makes them, deletes the ones too many, and counts them.
//!
//! Ownership is the uid on the pod. The selector only decides which orphans are adopted and which pods are let go.
//! Scheduling, restarting and the order of a rollout are others' work.
//!
//! **Invariant:** a pod counts until it is finished or marked deleted, whatever its node does; a replacement is made
//! only then, and a key is planned again only when its last plan is in the root, so no pod is made twice.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use objects::{meta, selector::LabelSelector};
use serde_json::{Value, json};
use state::{Command, Event, Key, Record, State};

use crate::emit::{self, Notice};
use crate::{Context, Plan, Row, json, record};

use super::keys_of;

/// Pods made or deleted by one plan.
const BURST: usize = 500;
/// When pods that could not be made are tried again.
const RETRY: std::time::Duration = std::time::Duration::from_secs(30);
/// Attempts to find a free pod name.
const NAME_ATTEMPTS: usize = 16;
const COMPONENT: &str = "replicaset-controller";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

pub const ROW: Row = Row {
    name: "replicaset",
    watches: &[("apps", "replicasets"), ("", "pods")],
    keys,
    plan,
    resync: |root| keys_of(root, "apps", "replicasets"),
};

fn keys(root: &State, event: &Event) -> Vec<Key> {
    if event.key.resource == "replicasets" {
        return vec![event.key.clone()];
    }
    let mut found = Vec::new();
    for pod in [&event.old, &event.new].into_iter().flatten() {
        match emit::controller_of(pod) {
            Some(uid) => found.extend(root.by_uid(uid).filter(|key| key.resource == "replicasets").cloned()),
            None if may_be_adopted(event) => {
                let sets = root.selecting("apps", "replicasets", &event.key.namespace, &pod.header.labels);
                found.extend(sets.into_iter().map(|(key, _)| key.clone()));
            }
            None => {}
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Whether the change of a pod without controller could give it one: it is new, or its labels or owners changed.
fn may_be_adopted(event: &Event) -> bool {
    match (&event.old, &event.new) {
        (Some(old), Some(new)) => old.header.labels != new.header.labels || old.header.owners != new.header.owners,
        (_, new) => new.is_some(),
    }
}

type Pod<'a> = (&'a Key, &'a Arc<Record>);

fn plan(root: &State, key: &Key, cx: &mut Context) -> Plan {
    let mut plan = Plan::default();
    let Some(present) = root.get(key) else { return plan };
    let mut set = record::parse(present);
    let selector = LabelSelector::of(json::at(&set, "spec.selector"));
    let alive = present.header.deletion_ms == 0;

    let mut pods: Vec<Pod<'_>> = Vec::new();
    for pod_key in root.owned_by(&present.header.uid).filter(|key| key.resource == "pods") {
        let Some(pod) = root.get(pod_key) else { continue };
        if emit::controller_of(pod) != Some(present.header.uid.as_str()) {
            continue;
        }
        match emit::is_selected(&selector, pod) {
            true => pods.push((pod_key, pod)),
            false if alive => plan.commands.extend(emit::disown(pod_key, pod, &present.header.uid)),
            false => {}
        }
    }
    if alive {
        for (pod_key, pod) in emit::selected(root, ("", "pods"), &key.namespace, &selector) {
            if emit::controller_of(pod).is_none() && is_active(pod) {
                plan.commands.extend(adopt(pod_key, pod, &set));
                pods.push((pod_key, pod));
            }
        }
    }
    pods.retain(|(_, pod)| is_active(pod));

    let mut failure = None;
    if alive {
        let wanted = usize::try_from(json::int(&set, "spec.replicas").unwrap_or(1)).unwrap_or(0);
        if pods.len() < wanted {
            let count = (wanted - pods.len()).min(BURST);
            failure = create_pods(root, key, &set, count, cx, &mut plan.commands).err();
        } else if pods.len() > wanted {
            delete_pods(root, &set, &pods, (pods.len() - wanted).min(BURST), cx, &mut plan.commands);
        }
    }
    plan_failure(root, &mut set, failure, cx, &mut plan);
    plan_status(key, present, set, &pods, cx, &mut plan);
    plan
}

fn is_active(pod: &Record) -> bool {
    pod.header.deletion_ms == 0 && !emit::is_finished(pod)
}

fn adopt(key: &Key, pod: &Record, set: &Value) -> Option<Command> {
    let mut object = record::parse(pod);
    json::list(&mut object, "metadata.ownerReferences").push(meta::owner_reference(set));
    emit::update(key, pod, &object)
}

fn create_pods(
    root: &State,
    key: &Key,
    set: &Value,
    count: usize,
    cx: &mut Context,
    out: &mut Vec<Command>,
) -> Result<(), String> {
    let mut names = Vec::new();
    for _ in 0..count {
        let Some(name) = free_name(root, key, &names, cx) else { continue };
        let mut command = emit::create(root, "", "pods", new_pod(key, set, &name), cx)?;
        if let Some(exceeded) = emit::exceeded(root, &command) {
            return Err(exceeded);
        }
        // A set deleted meanwhile gets no more pods.
        command.expects.push(state::Expect::uid(key.clone(), meta::uid(set)));
        let said = said(root, set, "SuccessfulCreate", &format!("Created pod: {name}"), cx);
        out.push(emit::told(command, said));
        names.push(name);
    }
    Ok(())
}

fn new_pod(key: &Key, set: &Value, name: &str) -> Value {
    let template = json::at(set, "spec.template");
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "generateName": format!("{}-", key.name),
            "namespace": key.namespace,
            "ownerReferences": [meta::owner_reference(set)],
        },
        "spec": json::at(template, "spec"),
    });
    for part in ["labels", "annotations", "finalizers"] {
        let value = json::at(template, &format!("metadata.{part}"));
        if !value.is_null() {
            json::set(&mut pod, &format!("metadata.{part}"), value.clone());
        }
    }
    pod
}

/// Says that pods cannot be made, once per reason; takes it back when they can.
fn plan_failure(root: &State, set: &mut Value, failure: Option<String>, cx: &mut Context, plan: &mut Plan) {
    let Some(message) = failure else { return json::drop_condition(set, "ReplicaFailure") };
    let condition =
        json::Condition { kind: "ReplicaFailure", status: "True", reason: "FailedCreate", message: &message };
    if json::set_condition(set, &condition, "", &cx.time()) {
        let message = format!("Error creating: {message}");
        let notice = Notice { component: COMPONENT, kind: "Warning", reason: "FailedCreate", message: &message };
        plan.commands.extend(emit::notice(root, set, &notice, cx));
    }
    plan.look_again(RETRY);
}

fn free_name(root: &State, key: &Key, taken: &[String], cx: &mut Context) -> Option<String> {
    (0..NAME_ATTEMPTS)
        .map(|_| meta::generated_name(&format!("{}-", key.name), cx.draw()))
        .find(|name| !taken.contains(name) && root.get(&Key::new("", "pods", &key.namespace, name)).is_none())
}

fn delete_pods(root: &State, set: &Value, pods: &[Pod<'_>], count: usize, cx: &mut Context, out: &mut Vec<Command>) {
    let victims = victims(root, set, pods, count);
    for (key, pod) in victims {
        let Some(command) = emit::delete(key, pod, cx) else { continue };
        let said = said(root, set, "SuccessfulDelete", &format!("Deleted pod: {}", key.name), cx);
        out.push(emit::told(command, said));
    }
}

fn said(root: &State, set: &Value, reason: &str, message: &str, cx: &mut Context) -> Option<Command> {
    emit::notice(root, set, &Notice { component: COMPONENT, kind: "Normal", reason, message }, cx)
}

/// The pods that go first: unscheduled, pending, not ready, cheap by annotation, doubled up on a node with the pods of
/// the same Deployment, ready for a shorter time, restarted more often, younger.
fn victims<'a>(root: &State, set: &Value, pods: &[Pod<'a>], count: usize) -> Vec<Pod<'a>> {
    if count == pods.len() {
        return pods.to_vec();
    }
    let mut ranked: Vec<_> = pods
        .iter()
        .map(|&(key, pod)| {
            let object = record::parse(pod);
            let phase = match emit::field(pod, "status.phase") {
                "Pending" | "" => 0,
                "Unknown" => 1,
                _ => 2,
            };
            let ready = is_ready(pod);
            let cost: i32 = json::entry(&object, "metadata.annotations", DELETION_COST)
                .and_then(|cost| cost.parse().ok())
                .unwrap_or(0);
            let since = if ready { ready_since_ms(pod) } else { 0 };
            let restarts: i64 = json::items(&object, "status.containerStatuses")
                .iter()
                .map(|c| json::count(c, "restartCount"))
                .max()
                .unwrap_or(0);
            let worth = (!pod.header.node.is_empty(), phase, ready, cost);
            let age = (Reverse(since), Reverse(restarts), Reverse(pod.header.creation_ms));
            (worth, Reverse(0), age, key, pod)
        })
        .collect();
    ranked.sort_by(|a, b| (&a.0, &a.2, a.3).cmp(&(&b.0, &b.2, b.3)));
    // The one of a node that would be kept longest is its first, the next one doubles it: so each node keeps its share.
    let mut kept = siblings_per_node(root, set);
    for (_, doubled, _, _, pod) in ranked.iter_mut().rev() {
        let on_node = kept.entry(pod.header.node.as_str()).or_insert(0);
        *on_node += 1;
        *doubled = Reverse(*on_node);
    }
    ranked.sort_by(|a, b| (&a.0, &a.1, &a.2, a.3).cmp(&(&b.0, &b.1, &b.2, b.3)));
    ranked.into_iter().take(count).map(|(_, _, _, key, pod)| (key, pod)).collect()
}

/// How many active pods of the other sets of this set's Deployment each node has.
fn siblings_per_node<'a>(root: &'a State, set: &Value) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    let Some(owner) = meta::controller(set) else { return counts };
    let siblings = root.owned_by(&owner.uid).filter(|key| key.resource == "replicasets");
    for sibling in siblings.filter_map(|key| root.get(key)).filter(|sibling| sibling.header.uid != meta::uid(set)) {
        for key in root.owned_by(&sibling.header.uid).filter(|key| key.resource == "pods") {
            let theirs = |pod: &Record| emit::controller_of(pod) == Some(sibling.header.uid.as_str());
            let Some(pod) = root.get(key).filter(|pod| is_active(pod) && theirs(pod)) else { continue };
            *counts.entry(pod.header.node.as_str()).or_insert(0) += 1;
        }
    }
    counts
}

fn is_ready(pod: &Record) -> bool {
    emit::field(pod, "ready") == "true"
}

fn ready_since_ms(pod: &Record) -> i64 {
    emit::field(pod, "ready-since").parse().unwrap_or(0)
}

fn plan_status(key: &Key, present: &Record, mut set: Value, pods: &[Pod<'_>], cx: &Context, plan: &mut Plan) {
    let template_labels = meta::strings(&set, &["spec", "template", "metadata", "labels"]);
    let min_ready_ms = json::count(&set, "spec.minReadySeconds") * 1000;
    let now_ms = cx.now_ms();
    let (mut labeled, mut ready, mut available) = (0, 0, 0);
    for (_, pod) in pods {
        let has = |(label, value): (&String, &String)| pod.header.labels.get(label) == Some(value.as_str());
        labeled += i64::from(template_labels.iter().all(has));
        if !is_ready(pod) {
            continue;
        }
        ready += 1;
        let left_ms = ready_since_ms(pod) + min_ready_ms - now_ms;
        if min_ready_ms == 0 || left_ms <= 0 {
            available += 1;
        } else {
            plan.look_again(std::time::Duration::from_millis(u64::try_from(left_ms).unwrap_or(0)));
        }
    }
    json::set(&mut set, "status.replicas", pods.len().into());
    json::set(&mut set, "status.fullyLabeledReplicas", labeled.into());
    json::set(&mut set, "status.readyReplicas", ready.into());
    json::set(&mut set, "status.availableReplicas", available.into());
    let generation = meta::generation(&set);
    json::set(&mut set, "status.observedGeneration", generation.into());
    plan.commands.extend(emit::update(key, present, &set));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::{World, pod};

    fn set(replicas: i64) -> Value {
        json!({
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": { "name": "web", "namespace": "default" },
            "spec": {
                "replicas": replicas,
                "selector": { "matchLabels": { "app": "web" } },
                "template": {
                    "metadata": { "labels": { "app": "web" } },
                    "spec": { "containers": [{ "name": "c", "image": "image:1" }] },
                },
            },
        })
    }

    fn running(replicas: i64, nodes: usize) -> (World, Key) {
        let mut world = World::with_nodes(nodes);
        let key = world.create("apps", "replicasets", set(replicas));
        world.settle_quietly();
        (world, key)
    }

    #[test]
    fn pods_are_made_counted_and_replaced() {
        let (mut world, key) = running(2, 1);
        let pods = world.pods();
        assert_eq!(pods.len(), 2);
        let (name, first) = (&pods[0].0, world.object(&pods[0].0));
        assert!(name.name.starts_with("web-") && name.name.len() == "web-".len() + 5, "{name}");
        assert_eq!(meta::controller(&first).expect("owned").uid, meta::uid(&world.object(&key)));
        world.delete(name);
        let mut failed = world.object(&pods[1].0);
        json::set(&mut failed, "status.phase", "Failed".into());
        world.put(&failed, &pods[1].0);
        world.settle_quietly();
        assert_eq!(world.pods().len(), 2);
        assert!(world.root.get(&pods[1].0).is_some(), "a failed pod is replaced and kept for its logs");
        let status = &world.object(&key)["status"];
        assert_eq!(json::count(status, "availableReplicas"), 2);
        assert_eq!(json::count(status, "fullyLabeledReplicas"), 2);
    }

    #[test]
    fn orphans_are_adopted_and_strangers_let_go() {
        let mut world = World::with_nodes(1);
        let orphan = world.create("", "pods", {
            let mut orphan = pod("orphan", json!({}));
            orphan["metadata"]["labels"] = json!({ "app": "web" });
            orphan
        });
        let key = world.create("apps", "replicasets", set(2));
        world.settle_quietly();
        assert_eq!(world.pods().len(), 2, "the orphan is one of them");
        let uid = meta::uid(&world.object(&key)).to_owned();
        assert_eq!(meta::controller(&world.object(&orphan)).expect("adopted").uid, uid);
        let mut stranger = world.object(&orphan);
        stranger["metadata"]["labels"] = json!({ "app": "other" });
        world.put(&stranger, &orphan);
        world.settle_quietly();
        assert_eq!(meta::controller(&world.object(&orphan)), None);
        assert_eq!(world.pods().len(), 3);
    }

    #[test]
    fn victims_go_in_order() {
        let (mut world, key) = running(4, 2);
        let pods: Vec<Key> = world.pods().into_iter().map(|(key, _)| key).collect();
        let spoil = |world: &mut World, key: &Key, change: &dyn Fn(&mut Value)| {
            let mut pod = world.object(key);
            change(&mut pod);
            world.put(&pod, key);
        };
        spoil(&mut world, &pods[2], &|pod| json::set_entry(pod, "metadata.annotations", DELETION_COST, "-5".into()));
        spoil(&mut world, &pods[3], &|pod| {
            let condition = json::Condition { kind: "Ready", status: "False", reason: "", message: "" };
            json::set_condition(pod, &condition, "", "2026-01-02T03:04:06Z");
        });
        let set = world.object(&key);
        let present: Vec<_> = pods.iter().map(|key| (key, world.root.get(key).expect("there"))).collect();
        let order: Vec<&Key> = victims(&world.root, &set, &present, 2).into_iter().map(|(key, _)| key).collect();
        assert_eq!(order, [&pods[3], &pods[2]], "not ready before cheap before the others");
    }

    #[test]
    fn each_node_keeps_its_share() {
        let (mut world, key) = running(9, 2);
        world.edit(&key, |set| set["spec"]["replicas"] = 4.into());
        world.settle_quietly();
        let on = |node: &str| world.pods().iter().filter(|(_, pod)| pod.header.node == node).count();
        assert_eq!((on("node-1"), on("node-2")), (2, 2));
    }
}
