//! What an object costs in memory, over the bytes it is encoded in: the state is loaded as `apply` loads it, under an
//! allocator that counts. History is compacted away first: it has bounds of its own.
//!
//! `HACTL_OBJECTS=100000 cargo test -p control --test memory -- --nocapture` prints the figures for as many objects.

use objects::{Kind, Kinds};
use serde_json::{Value, json};
use state::{Command, Compact, EntryId, Op, State, op};

#[path = "../../../tests/support/counting.rs"]
mod counting;

/// More bytes of memory than this many times the encoded ones would break a promise.
const RATIO_MAX: f64 = 2.5;
/// A running pod of a Deployment, as kubelet and scheduler leave it.
fn pod(i: usize) -> Value {
    let (app, node, uid) = (format!("app-{}", i / 10), format!("node-{}", i % 100), objects::meta::uuid(i as u64, 7));
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z"});
    let conditions = ["Initialized", "Ready", "ContainersReady", "PodScheduled"].map(condition);
    json!({
        "metadata": {
            "name": format!("{app}-5d9c7b8f6d-{i:05}"), "generateName": format!("{app}-5d9c7b8f6d-"),
            "namespace": "default", "uid": uid, "creationTimestamp": "2026-01-02T03:04:05Z",
            "labels": {"app": app, "pod-template-hash": "5d9c7b8f6d", "tier": "web"},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{app}-5d9c7b8f6d"),
                "uid": objects::meta::uuid(i as u64 / 10, 8), "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "nodeName": node, "restartPolicy": "Always", "schedulerName": "default-scheduler",
            "serviceAccountName": "default", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
            "tolerations": [
                {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5},
                {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5},
            ],
            "containers": [{
                "name": "web", "image": "registry.example.com/web:1.2.3", "imagePullPolicy": "IfNotPresent",
                "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            }],
        },
        "status": {
            "phase": "Running", "podIP": "10.244.3.7", "podIPs": [{"ip": "10.244.3.7"}], "hostIP": "10.0.0.3",
            "startTime": "2026-01-02T03:04:05Z",
            "conditions": conditions,
        },
    })
}

/// About a kilobyte in one value.
fn config_map(i: usize) -> Value {
    json!({
        "metadata": {
            "name": format!("config-{i:06}"), "namespace": "default", "uid": objects::meta::uuid(i as u64, 9),
            "creationTimestamp": "2026-01-02T03:04:05Z", "labels": {"app": format!("app-{}", i / 10)},
        },
        "data": {"file": "x".repeat(830)},
    })
}

fn put(kind: &Kind, object: &Value) -> Op {
    Op::put(control::record::put(kind, object).expect("complete"))
}

fn apply(state: &mut State, ops: Vec<Op>) {
    let entry = EntryId { term: 1, index: state.applied().index + 1 };
    let outcome = state.apply(entry, &Command { ops, ..Command::default() }).outcome;
    assert_eq!(outcome.refusal, None);
}

/// Bytes of memory per byte of what the objects are encoded in.
fn ratio(resource: &str, count: usize, make: fn(usize) -> Value) -> f64 {
    let kinds = Kinds::builtin();
    let kind = |resource| kinds.by_resource("", resource).expect("a kind");
    let mut state = State::default();
    let named = |name: &str| json!({"metadata": {"name": name, "uid": name}});
    apply(&mut state, vec![put(kind("namespaces"), &named("default"))]);
    let nodes = (0..100).map(|i| put(kind("nodes"), &named(&format!("node-{i}")))).collect();
    apply(&mut state, nodes);
    let before = counting::in_use();
    let mut encoded = 0;
    for first in (0..count).step_by(100) {
        // In an order in which names do not come sorted.
        let ops: Vec<Op> = (first..first + 100).map(|i| put(kind(resource), &make(i * 7919 % count))).collect();
        apply(&mut state, ops);
        let revision = state.revision();
        apply(&mut state, vec![Op { kind: Some(op::Kind::Compact(Compact { revision })) }]);
    }
    for (_, record) in state.list("", resource, None) {
        encoded += record.body.len() + record.managed_fields.len();
    }
    let took = counting::in_use() - before;
    assert_eq!(state.list("", resource, None).count(), count);
    let ratio = took as f64 / encoded as f64;
    println!(
        "{count} {resource}: {} bytes encoded, {} bytes of memory each: {ratio:.2}",
        encoded / count,
        took / count as i64
    );
    ratio
}

#[test]
fn an_object_takes_at_most_two_and_a_half_times_its_bytes() {
    let count = std::env::var("HACTL_OBJECTS").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000);
    for (resource, make) in [("pods", pod as fn(usize) -> Value), ("configmaps", config_map)] {
        let ratio = ratio(resource, count, make);
        assert!(ratio <= RATIO_MAX, "{resource}: {ratio:.2}");
    }
}
