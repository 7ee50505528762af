use serde_json::{Value, json};
use state::Key;

use super::*;
use crate::harness::{World, deployment, node, pod};

/// Places one pod on these nodes; the node, or the reason.
fn placed(nodes: Vec<Value>, spec: Value) -> String {
    let mut world = World::new();
    for node in nodes {
        world.create("", "nodes", node);
    }
    world.settle();
    let key = world.create("", "pods", pod("it", spec));
    let mut cx = world.cx();
    match &plan(&world.root, &[key], &mut cx)[..] {
        [Placement { decision: Decision::Bind(node), .. }] => node.clone(),
        [Placement { decision: Decision::Refuse(reason), .. }] => reason.clone(),
        other => panic!("{other:?}"),
    }
}

fn with(mut object: Value, path: &str, value: Value) -> Value {
    json::set(&mut object, path, value);
    object
}

fn container(part: Value) -> Value {
    let mut container = json!({ "name": "c", "image": "image:1" });
    for (key, value) in part.as_object().into_iter().flatten() {
        container[key] = value.clone();
    }
    json!({ "containers": [container] })
}

#[test]
fn filters_and_their_reasons() {
    let tainted =
        |name: &str| with(node(name), "spec.taints", json!([{ "key": "k", "value": "v", "effect": "NoSchedule" }]));
    let cordoned = with(node("a"), "spec.unschedulable", true.into());
    let small = with(node("a"), "status.allocatable", json!({ "cpu": "1", "memory": "1Gi", "pods": "110" }));
    let full = with(node("a"), "status.allocatable.pods", "0".into());
    let wants =
        |cpu: &str, memory: &str| container(json!({ "resources": { "requests": { "cpu": cpu, "memory": memory } } }));
    let any = || json!({});
    let cases = [
        (vec![], any(), "no nodes available to schedule pods"),
        (vec![node("a")], any(), "a"),
        (vec![cordoned.clone()], any(), "0/1 nodes are available: 1 node(s) were unschedulable."),
        (vec![cordoned, node("b")], any(), "b"),
        (
            vec![tainted("a"), tainted("b"), small.clone()]
                .into_iter()
                .enumerate()
                .map(|(i, node)| with(node, "metadata.name", format!("n{i}").into()))
                .collect(),
            wants("2", "1Mi"),
            "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {k: v}.",
        ),
        (vec![tainted("a")], json!({ "tolerations": [{ "key": "k", "operator": "Exists" }] }), "a"),
        (
            vec![tainted("a")],
            json!({ "tolerations": [{ "key": "k", "value": "w", "effect": "NoSchedule" }] }),
            "0/1 nodes are available: 1 node(s) had untolerated taint {k: v}.",
        ),
        (vec![small.clone()], wants("1", "1Gi"), "a"),
        (vec![small], wants("1001m", "2Gi"), "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory."),
        (vec![full], any(), "0/1 nodes are available: 1 Too many pods."),
        (
            vec![node("a")],
            json!({ "nodeSelector": { "disk": "ssd" } }),
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
        ),
        (vec![node("a"), node("b")], json!({ "nodeSelector": { "kubernetes.io/hostname": "b" } }), "b"),
    ];
    for (nodes, spec, expect) in cases {
        assert_eq!(placed(nodes, spec.clone()), expect, "{spec}");
    }
}

#[test]
fn one_pass_counts_its_own_bindings() {
    let mut world = World::with_nodes(2);
    let spec = container(json!({ "ports": [{ "containerPort": 80, "hostPort": 80 }] }));
    let keys: Vec<Key> =
        ["p1", "p2", "p3"].iter().map(|name| world.create("", "pods", pod(name, spec.clone()))).collect();
    let mut cx = world.cx();
    let decisions: Vec<Decision> = plan(&world.root, &keys, &mut cx).into_iter().map(|p| p.decision).collect();
    let bound = decisions.iter().filter(|decision| matches!(decision, Decision::Bind(_))).count();
    assert_eq!(bound, 2, "{decisions:?}");
    assert!(decisions.contains(&Decision::Refuse(
        "0/2 nodes are available: 2 node(s) didn't have free ports for the requested pod ports.".into()
    )));
}

#[test]
fn a_binding_happens_with_its_event_or_not_at_all() {
    let mut world = World::with_nodes(1);
    let keys: Vec<Key> = ["p1", "p2"].iter().map(|name| world.create("", "pods", pod(name, json!({})))).collect();
    let mut cx = world.cx();
    for placement in plan(&world.root, &keys, &mut cx) {
        let [command] = placement.commands.as_slice() else { panic!("{} has several commands", placement.pod) };
        let resources = command.ops.iter().map(|op| match &op.kind {
            Some(state::op::Kind::Put(put)) => put.key.resource.as_str(),
            _ => "",
        });
        assert_eq!(resources.collect::<Vec<_>>(), ["pods", "events"]);
    }
}

#[test]
fn a_refused_pod_is_told_once_and_placed_when_room_comes() {
    let mut world = World::new();
    let key = world.create("", "pods", pod("it", json!({})));
    world.settle();
    let condition = json::condition(&world.object(&key), "PodScheduled").cloned().expect("there");
    assert_eq!(json::text(&condition, "reason"), "Unschedulable");
    let said = |world: &World| world.said("it").iter().filter(|(reason, _)| reason == "FailedScheduling").count();
    assert_eq!(said(&world), 1);
    world.assert_nothing_to_plan();
    world.create("", "nodes", node("a"));
    world.settle();
    assert_eq!(json::text(&world.object(&key), "spec.nodeName"), "a");
    assert_eq!(json::condition_status(&world.object(&key), "PodScheduled"), "True");
    assert!(world.said("it").iter().any(|(_, message)| message == "Successfully assigned default/it to a"));
}

#[test]
fn pods_of_one_owner_spread() {
    let mut world = World::with_nodes(3);
    world.create("apps", "deployments", deployment("web", 9));
    world.settle_quietly();
    for i in 1..=3 {
        let name = format!("node-{i}");
        let on = world.pods().iter().filter(|(_, pod)| pod.header.node == name).count();
        assert_eq!(on, 3, "{name}");
    }
}

#[test]
fn usage_by_events_is_usage_from_scratch() {
    let mut world = World::with_nodes(2);
    let mut usage = Usage::default();
    usage.follow(&world.root);
    let web = world.create("apps", "deployments", deployment("web", 5));
    world.settle();
    usage.follow(&world.root);
    world.edit(&web, |web| web["spec"]["replicas"] = 2.into());
    world.create("", "pods", pod("big", container(json!({ "resources": { "requests": { "cpu": "64" } } }))));
    world.remove(&Key::node("node-2"));
    world.settle();
    usage.follow(&world.root);
    let mut fresh = Usage::default();
    fresh.follow(&world.root);
    assert_eq!(usage, fresh);
}

#[test]
fn the_pod_that_matters_most_is_placed_first() {
    let mut world = World::new();
    world.create("", "nodes", with(node("a"), "status.allocatable.pods", "1".into()));
    let class = json!({ "metadata": { "name": "high" }, "value": 10 });
    world.create("scheduling.k8s.io", "priorityclasses", class);
    let low = world.create("", "pods", pod("a-low", json!({})));
    world.now = world.now.checked_add(std::time::Duration::from_secs(5)).expect("a time");
    let high = world.create("", "pods", pod("b-high", json!({ "priorityClassName": "high" })));
    world.settle();
    let node_of = |key: &Key| world.root.get(key).expect("there").header.node.clone();
    assert_eq!((node_of(&low), node_of(&high)), (String::new(), "a".into()));
}
