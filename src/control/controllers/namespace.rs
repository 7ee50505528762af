//! Empties a Namespace that is being deleted, says in its conditions what still remains, then lets it go.
//!
//! That nothing new is made in it is a rule of `apply`, so an empty namespace stays empty.

use std::collections::BTreeMap;

use objects::Kinds;
use serde_json::Value;
use state::{Event, Expect, Key, Op, Record, State};

use crate::json::Condition;
use crate::{Context, Plan, Row, emit, json, record};

/// Deletions of one plan.
const BURST: usize = 500;

pub const ROW: Row = Row { name: "namespace", watches: &[], keys, plan, resync };

fn keys(root: &State, event: &Event) -> Vec<Key> {
    if event.key.resource == "namespaces" && event.key.group.is_empty() {
        return vec![event.key.clone()];
    }
    // What goes in a dying namespace may have been the last.
    let home = Key::namespace(&event.key.namespace);
    if event.key.namespace.is_empty() || !is_dying(root, &home) { Vec::new() } else { vec![home] }
}

fn resync(root: &State) -> Vec<Key> {
    let mut keys = super::keys_of(root, "", "namespaces");
    keys.retain(|key| is_dying(root, key));
    keys
}

fn is_dying(root: &State, key: &Key) -> bool {
    root.get(key).is_some_and(|namespace| namespace.header.deletion_ms != 0)
}

/// What is left in a namespace.
#[derive(Default)]
struct Remains {
    by_resource: BTreeMap<String, usize>,
    by_finalizer: BTreeMap<String, usize>,
}

fn plan(root: &State, key: &Key, cx: &mut Context) -> Plan {
    let mut plan = Plan::default();
    let Some(present) = root.get(key).filter(|_| is_dying(root, key)) else { return plan };
    let mut remains = Remains::default();
    // Pods first: they take their time.
    let (pods, others): (Vec<_>, Vec<_>) =
        Kinds::builtin().all().filter(|kind| kind.namespaced).partition(|kind| kind.plural == "pods");
    for kind in pods.into_iter().chain(others) {
        for (key, object) in root.list(kind.group, kind.plural, Some(&key.name)) {
            *remains.by_resource.entry(format!("{}.{} has", kind.plural, kind.group)).or_default() += 1;
            for finalizer in &object.header.finalizers {
                *remains.by_finalizer.entry(format!("{finalizer} in")).or_default() += 1;
            }
            if plan.commands.len() < BURST {
                plan.commands.extend(emit::delete(key, object, cx));
            }
        }
    }
    let mut namespace = record::parse(present);
    if remains.by_resource.is_empty() {
        plan.commands.extend(let_go(key, present, &mut namespace));
        return plan;
    }
    json::set(&mut namespace, "status.phase", "Terminating".into());
    describe(&mut namespace, &remains, cx);
    // The deletions matter more than the words about them.
    plan.commands.extend(emit::update(key, present, &namespace));
    plan
}

/// Takes the finalizer `kubernetes` away; the namespace goes with it unless others still hold it.
fn let_go(key: &Key, present: &Record, namespace: &mut Value) -> Option<state::Command> {
    json::list(namespace, "spec.finalizers").retain(|finalizer| finalizer.as_str() != Some("kubernetes"));
    let held = !json::items(namespace, "spec.finalizers").is_empty() || !present.header.finalizers.is_empty();
    if held {
        return emit::update(key, present, namespace);
    }
    let expect = Expect::revision(key.clone(), present.revision);
    Some(emit::command(vec![expect], Op::delete(key.clone())))
}

fn describe(namespace: &mut Value, remains: &Remains, cx: &Context) {
    let counted = |counts: &BTreeMap<String, usize>| {
        let parts: Vec<String> = counts.iter().map(|(what, n)| format!("{what} {n} resource instances")).collect();
        parts.join(", ")
    };
    let (resources, finalizers) = (counted(&remains.by_resource), counted(&remains.by_finalizer));
    let held = !remains.by_finalizer.is_empty();
    let rows = [
        (
            "NamespaceDeletionDiscoveryFailure",
            false,
            "ResourcesDiscovered",
            "All resources successfully discovered".to_owned(),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed".to_owned(),
        ),
        (
            "NamespaceDeletionContentFailure",
            false,
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization".to_owned(),
        ),
        (
            "NamespaceContentRemaining",
            true,
            "SomeResourcesRemain",
            format!("Some resources are remaining: {resources}"),
        ),
        (
            "NamespaceFinalizersRemaining",
            held,
            if held { "SomeFinalizersRemain" } else { "ContentHasNoFinalizers" },
            if held {
                format!("Some content in the namespace has finalizers remaining: {finalizers}")
            } else {
                "All content-preserving finalizers finished".to_owned()
            },
        ),
    ];
    for (kind, status, reason, message) in rows {
        let status = if status { "True" } else { "False" };
        json::set_condition(namespace, &Condition { kind, status, reason, message: &message }, "", &cx.time());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::harness::{World, deployment};

    #[test]
    fn a_pod_that_stops_is_its_kubelets_until_nothing_is_left() {
        let mut world = World::with_nodes(1);
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "x" } });
        let key = world.create("", "namespaces", namespace);
        let mut pod = crate::harness::pod("p", json!({}));
        pod["metadata"]["namespace"] = "x".into();
        let pod_key = world.create("", "pods", pod);
        world.settle_quietly();
        world.dead.insert("node-1".into());
        world.delete(&key);
        world.settle();
        world.edit(&pod_key, |pod| pod["status"]["phase"] = "Succeeded".into());
        world.settle();
        assert!(world.root.get(&pod_key).is_some(), "stopped, not removed");
        world.dead.clear();
        world.settle_quietly();
        assert!(world.root.get(&key).is_none());
    }

    #[test]
    fn every_kind_goes_and_what_remains_is_told() {
        let mut world = World::new();
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "x" } });
        let key = world.create("", "namespaces", namespace);
        world.settle_quietly();
        let kinds = Kinds::builtin().all().filter(|kind| kind.namespaced);
        for kind in kinds {
            let held = matches!(kind.plural, "jobs" | "secrets");
            let finalizers = if held { json!(["example.com/hold"]) } else { json!([]) };
            let metadata = json!({ "name": "a", "namespace": "x", "uid": kind.plural, "finalizers": finalizers });
            let object = json!({ "metadata": metadata });
            world.put(&object, &record::key(kind, "x", "a"));
        }
        world.delete(&key);
        world.settle();
        let left: Vec<String> = emit::everything(&world.root)
            .filter(|(key, _)| key.namespace == "x")
            .map(|(key, _)| key.to_string())
            .collect();
        assert_eq!(left, ["secrets/x/a", "jobs.batch/x/a"]);
        let namespace = world.object(&key);
        let says = |kind: &str| json::text(json::condition(&namespace, kind).expect("said"), "message").to_owned();
        assert_eq!(
            says("NamespaceContentRemaining"),
            "Some resources are remaining: jobs.batch has 1 resource instances, secrets. has 1 resource instances"
        );
        assert_eq!(
            says("NamespaceFinalizersRemaining"),
            "Some content in the namespace has finalizers remaining: example.com/hold in 2 resource instances"
        );
        for left in [Key::new("", "secrets", "x", "a"), Key::new("batch", "jobs", "x", "a")] {
            let command = emit::drop_finalizer(&left, world.root.get(&left).expect("there"), "example.com/hold");
            world.apply(&command.expect("held"));
        }
        world.settle_quietly();
        assert!(world.root.get(&key).is_none());
    }

    #[test]
    fn a_namespace_goes_with_all_it_holds() {
        let mut world = World::with_nodes(1);
        let key = world.create(
            "",
            "namespaces",
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "x" } }),
        );
        let mut web = deployment("web", 3);
        web["metadata"]["namespace"] = "x".into();
        world.create("apps", "deployments", web);
        world.settle_quietly();
        assert_eq!(world.list("", "pods", "x").len(), 3);
        assert_eq!(world.list("", "serviceaccounts", "x").len(), 1);
        world.delete(&key);
        while let Some(item) = world.waiting().first().cloned() {
            world.plan(&item);
        }
        let namespace = world.object(&key);
        assert_eq!(json::text(&namespace, "status.phase"), "Terminating");
        let remaining = json::condition(&namespace, "NamespaceContentRemaining").expect("said");
        assert_eq!(json::text(remaining, "message"), "Some resources are remaining: pods. has 3 resource instances");
        world.settle_quietly();
        assert!(world.root.get(&key).is_none());
    }
}
