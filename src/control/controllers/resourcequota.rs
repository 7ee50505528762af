//! Writes into each ResourceQuota what it allows and what is used of it. The counting, and the refusals, are `apply`'s; this
//! only shows them.
//!
//! Objects that an older version wrote do not say what they take. The key without a name stands for all of a namespace: there
//! they are written anew, so that they are counted.

use std::time::Duration;

use objects::quota;
use serde_json::{Map, Value};
use state::{Bounds, Event, Key, Record, State, bounds};

use crate::{Context, Plan, Row, emit, json, record};

use super::keys_of;

const RESOURCE: &str = "resourcequotas";
/// Objects written anew by one plan, and how soon the next ones follow.
const BURST: usize = 500;
const SOON: Duration = Duration::from_secs(1);

pub const ROW: Row = Row { name: "resourcequota", watches: &[], keys, plan, resync };

fn all_of(namespace: &str) -> Key {
    Key::new("", RESOURCE, namespace, "")
}

fn resync(root: &State) -> Vec<Key> {
    let quotas = keys_of(root, "", RESOURCE);
    let mut namespaces: Vec<Key> = quotas.iter().map(|key| all_of(&key.namespace)).collect();
    namespaces.dedup();
    [quotas, namespaces].concat()
}

fn keys(root: &State, event: &Event) -> Vec<Key> {
    let key = &event.key;
    if key.group.is_empty() && key.resource == RESOURCE {
        // A new one counts what is there.
        let new = event.old.is_none().then(|| all_of(&key.namespace));
        return new.into_iter().chain([key.clone()]).collect();
    }
    let mut quotas = root.bounding(&key.namespace).map(|(quota, _)| quota.clone()).peekable();
    if quotas.peek().is_none() {
        return Vec::new();
    }
    let counts_alike = |old: &Record, new: &Record| {
        bounds::uses(&old.header).eq(bounds::uses(&new.header))
            && emit::field(old, bounds::CLASS) == emit::field(new, bounds::CLASS)
    };
    let unchanged = event.old.as_ref().zip(event.new.as_ref()).is_some_and(|(old, new)| counts_alike(old, new));
    let uncounted = event.new.as_ref().is_some_and(|new| is_uncounted(key, new)).then(|| all_of(&key.namespace));
    match unchanged {
        true => uncounted.into_iter().collect(),
        false => quotas.chain(uncounted).collect(),
    }
}

/// Whether it takes something and does not say so.
fn is_uncounted(key: &Key, record: &Record) -> bool {
    let says = |thing: &str| record.header.fields.contains_key(&format!("{}{thing}", bounds::USES));
    match (key.group.as_str(), key.resource.as_str()) {
        ("", "pods") => !emit::is_finished(record) && !says("pods"),
        ("", "persistentvolumeclaims") => !says("requests.storage"),
        ("", "services") => match emit::field(record, "spec.type") {
            "NodePort" => !says("services.nodeports"),
            "LoadBalancer" => !says("services.loadbalancers"),
            _ => false,
        },
        ("", RESOURCE) => !record.header.fields.iter().any(|(name, _)| name.starts_with(bounds::BOUND)),
        _ => false,
    }
}

fn plan(root: &State, key: &Key, _cx: &mut Context) -> Plan {
    let mut plan = Plan::default();
    if key.name.is_empty() {
        count_all(root, &key.namespace, &mut plan);
        return plan;
    }
    let Some(present) = root.get(key) else { return plan };
    let mut quota = record::parse(present);
    let bounds = root.bounding(&key.namespace).find(|(bounding, _)| *bounding == key).map(|(_, bounds)| bounds);
    let used = used(root, key, &quota, bounds);
    json::set(&mut quota, "status.used", used);
    let hard = json::at(&quota, "spec.hard").clone();
    json::set(&mut quota, "status.hard", hard);
    plan.commands.extend(emit::update(key, present, &quota));
    plan
}

/// How much of each thing in `spec.hard`; nothing of what is not counted.
fn used(root: &State, key: &Key, quota: &Value, bounds: Option<&Bounds>) -> Value {
    let hard = json::at(quota, "spec.hard").as_object().into_iter().flatten();
    let used = hard.map(|(name, _)| {
        let bound = bounds.and_then(|bounds| Some((bounds, bounds.all.iter().find(|bound| bound.name == *name)?)));
        let taken = bound.map_or(0, |(bounds, bound)| root.taken(&key.namespace, bounds, &bound.thing));
        (name.clone(), Value::from(quota::quantity(name, taken).to_string()))
    });
    Value::Object(used.collect::<Map<_, _>>())
}

fn count_all(root: &State, namespace: &str, plan: &mut Plan) {
    let resources = [RESOURCE, "pods", "services", "persistentvolumeclaims"];
    let all = resources.into_iter().flat_map(|resource| root.list("", resource, Some(namespace)));
    let uncounted = all.filter(|(key, record)| is_uncounted(key, record));
    plan.commands
        .extend(uncounted.filter_map(|(key, record)| emit::update(key, record, &record::parse(record))).take(BURST));
    if plan.commands.len() == BURST {
        plan.look_again(SOON);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use state::{Command, Op};

    use super::*;
    use crate::harness::{World, deployment, pod};

    fn quota(name: &str, spec: Value) -> Value {
        json!({
            "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": name, "namespace": "default" },
            "spec": spec,
        })
    }

    fn key(name: &str) -> Key {
        Key::new("", RESOURCE, "default", name)
    }

    #[test]
    fn the_status_says_what_is_used() {
        let mut world = World::with_nodes(1);
        let hard = json!({ "pods": "2", "cpu": "1", "secrets": "3", "count/events": "9" });
        world.create("", RESOURCE, quota("q", json!({ "hard": hard })));
        world.create("", RESOURCE, quota("best", json!({ "hard": { "pods": "5" }, "scopes": ["BestEffort"] })));
        world.settle_quietly();
        let status = |world: &World, name: &str| json::at(&world.object(&key(name)), "status").clone();
        let zero = json!({ "pods": "0", "cpu": "0", "secrets": "0", "count/events": "0" });
        assert_eq!(status(&world, "q"), json!({ "hard": hard, "used": zero }));
        let asks =
            json!({ "containers": [{ "name": "c", "image": "i:1", "resources": { "requests": { "cpu": "250m" } } }] });
        let one = world.create("", "pods", pod("one", asks));
        world.settle_quietly();
        let used = json!({ "pods": "1", "cpu": "250m", "secrets": "0", "count/events": "0" });
        assert_eq!(status(&world, "q")["used"], used);
        assert_eq!(status(&world, "best")["used"], json!({ "pods": "0" }));
        // A pod that has ended takes nothing.
        let mut ended = world.object(&one);
        ended["status"]["phase"] = "Succeeded".into();
        world.put(&ended, &one);
        world.settle_quietly();
        assert_eq!(status(&world, "q")["used"], zero);
    }

    #[test]
    fn a_replica_set_makes_what_the_quota_leaves_and_says_why_no_more() {
        let mut world = World::with_nodes(1);
        world.create("", RESOURCE, quota("q", json!({ "hard": { "pods": "2" } })));
        world.create("apps", "deployments", deployment("web", 4));
        world.settle();
        assert_eq!(world.pods().len(), 2);
        let (set, object) = world.list("apps", "replicasets", "default").remove(0);
        let failed = json::condition(&object, "ReplicaFailure").expect("said");
        let says = "exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2";
        assert_eq!(json::text(failed, "message"), says);
        assert!(world.said(&set.name).contains(&("FailedCreate".into(), format!("Error creating: {says}"))));
        world.edit(&key("q"), |quota| quota["spec"]["hard"]["pods"] = "9".into());
        world.advance(Duration::from_secs(60));
        assert_eq!(world.pods().len(), 4);
        world.settle_quietly();
    }

    #[test]
    fn what_older_versions_wrote_is_counted() {
        let mut world = World::with_nodes(1);
        let keys = [
            world.create("", RESOURCE, quota("q", json!({ "hard": { "pods": "5" } }))),
            world.create("", "pods", pod("old", json!({}))),
        ];
        world.settle_quietly();
        for key in &keys {
            let kind = emit::kind("", &key.resource).expect("a kind");
            let mut put = record::put(kind, &world.object(key)).expect("complete");
            let fields = put.header.fields.iter().filter(|(name, _)| !name.contains('/'));
            put.header.fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            world.apply(&Command { ops: vec![Op::put(put)], ..Command::default() });
        }
        assert_eq!(world.root.bounding("default").count(), 0);
        world.take_office();
        world.settle_quietly();
        assert_eq!(json::at(&world.object(&key("q")), "status.used"), &json!({ "pods": "1" }));
    }
}
