//! Garbage: objects none of whose owners live any more, and owners that wait for their dependents (`foregroundDeletion`)
//! or let them live on (`orphan`).
//!
//! **Invariant:** an object with at least one living owner is kept; an owner of another namespace does not count. Of an owner
//! whose kind is not known here nobody can say that it is gone: it counts as living.

use std::collections::BTreeSet;

use objects::{Kinds, meta};
use state::{Command, Event, EventKind, Expect, Key, Record, State};

use crate::emit::{self, FOREGROUND};
use crate::{Context, Plan, Row, record};

const ORPHAN: &str = "orphan";
/// Deletions of one plan.
const BURST: usize = 500;

pub const ROW: Row = Row { name: "gc", watches: &[], keys, plan, resync };

fn keys(root: &State, event: &Event) -> Vec<Key> {
    let mut found = Vec::new();
    if let Some(new) = &event.new {
        let owners_changed = event.old.as_ref().is_none_or(|old| old.header.owners != new.header.owners);
        if (owners_changed && !new.header.owners.is_empty()) || is_waiting(new) {
            found.push(event.key.clone());
        }
    }
    if let Some(old) = &event.old {
        if event.kind() == EventKind::Deleted {
            found.extend(root.owned_by(&old.header.uid).cloned());
        }
        // One that waits for its dependents may have waited for this one.
        let owners = old.header.owners.iter().filter_map(|owner| root.by_uid(&owner.uid));
        found.extend(owners.filter(|key| root.get(key).is_some_and(|owner| is_waiting(owner))).cloned());
    }
    found
}

fn resync(root: &State) -> Vec<Key> {
    let concerned = |key: &Key, record: &Record| {
        is_waiting(record) || (!record.header.owners.is_empty() && !has_living_owner(root, key, record))
    };
    emit::everything(root).filter(|(key, record)| concerned(key, record)).map(|(key, _)| key.clone()).collect()
}

/// Marked deleted, and held by one of the two finalizers that are kept here.
fn is_waiting(record: &Record) -> bool {
    record.header.deletion_ms != 0 && record.header.finalizers.iter().any(|f| f == FOREGROUND || f == ORPHAN)
}

/// Whether some owner exists that is not itself about to go after its dependents.
fn has_living_owner(root: &State, key: &Key, record: &Record) -> bool {
    let lives = record.header.owners.iter().any(|owner| {
        root.by_uid(&owner.uid).is_some_and(|owner_key| {
            let reachable = owner_key.namespace.is_empty() || owner_key.namespace == key.namespace;
            let going = root.get(owner_key).is_some_and(|owner| {
                owner.header.deletion_ms != 0 && owner.header.finalizers.iter().any(|f| f == FOREGROUND)
            });
            reachable && !going
        })
    });
    lives || has_unknown_owner(key, record)
}

/// Whether an owner is of a kind that is not known here, or lives in a namespace while the object does not.
pub(crate) fn has_unknown_owner(key: &Key, record: &Record) -> bool {
    let owners = meta::owners(&record::parse(record));
    owners.iter().any(|owner| match Kinds::builtin().by_api_version(&owner.api_version, &owner.kind) {
        Some(kind) => key.namespace.is_empty() && kind.namespaced,
        None => true,
    })
}

/// Deletes what was looked at, and nothing that has found another owner since.
fn expecting(key: &Key, present: &Record, command: Option<Command>) -> Option<Command> {
    let mut command = command?;
    command.expects.push(Expect::revision(key.clone(), present.revision));
    Some(command)
}

fn plan(root: &State, key: &Key, cx: &mut Context) -> Plan {
    let mut plan = Plan::default();
    let Some(present) = root.get(key) else { return plan };
    if is_waiting(present) {
        let is = |finalizer: &str| present.header.finalizers.iter().any(|f| f == finalizer);
        match is(ORPHAN) {
            true => orphan_dependents(root, key, present, &mut plan),
            false => delete_dependents(root, key, present, cx, &mut plan),
        }
    }
    if !present.header.owners.is_empty() && !has_living_owner(root, key, present) {
        plan.commands.extend(expecting(key, present, emit::delete(key, present, cx)));
    }
    plan
}

/// Takes the owner out of its dependents, then lets it go.
fn orphan_dependents(root: &State, key: &Key, present: &Record, plan: &mut Plan) {
    let uid = &present.header.uid;
    let dependents: Vec<&Key> = root.owned_by(uid).take(BURST).collect();
    if dependents.is_empty() {
        plan.commands.extend(emit::drop_finalizer(key, present, ORPHAN));
        return;
    }
    let disowned = dependents.into_iter().filter_map(|key| emit::disown(key, root.get(key)?, uid));
    plan.commands.extend(disowned);
}

/// Deletes the dependents, theirs before them, and lets the owner go when none is left that blocks it.
fn delete_dependents(root: &State, key: &Key, present: &Record, cx: &Context, plan: &mut Plan) {
    let uid = &present.header.uid;
    let above = ancestors(root, present);
    let mut blocked = false;
    for dependent in root.owned_by(uid) {
        let Some(record) = root.get(dependent) else { continue };
        // Objects that own each other must not wait for ever.
        let cycle = dependent == key || above.contains(record.header.uid.as_str());
        let owns = !cycle && dependent.resource != "pods" && root.owned_by(&record.header.uid).next().is_some();
        blocked |= !cycle && record.header.owners.iter().any(|owner| owner.uid == *uid && owner.block_deletion);
        if plan.commands.len() < BURST {
            plan.commands.extend(match has_living_owner(root, dependent, record) {
                true => emit::disown(dependent, record, uid),
                false if owns => emit::delete_after_dependents(dependent, record, cx),
                false => expecting(dependent, record, emit::delete(dependent, record, cx)),
            });
        }
    }
    if !blocked {
        plan.commands.extend(emit::drop_finalizer(key, present, FOREGROUND));
    }
}

/// The uids of all that own the object, directly or not.
fn ancestors<'a>(root: &'a State, record: &'a Record) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut open = vec![record];
    while let Some(record) = open.pop() {
        for owner in &record.header.owners {
            if found.insert(owner.uid.as_str()) {
                open.extend(root.by_uid(&owner.uid).and_then(|key| root.get(key)).map(|record| &**record));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::harness::World;
    use crate::json;

    fn config_map(name: &str, owners: &[(&Value, bool)]) -> Value {
        let owners: Vec<Value> = owners
            .iter()
            .map(|(owner, block)| {
                let mut reference = objects::meta::owner_reference(owner);
                reference["controller"] = false.into();
                reference["blockOwnerDeletion"] = (*block).into();
                reference
            })
            .collect();
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": name, "namespace": "default", "ownerReferences": owners },
        })
    }

    /// `a` and `b` own `both`, `a` alone owns `one`; all keys.
    fn family() -> (World, [Key; 4]) {
        let mut world = World::new();
        let a = world.create("", "configmaps", config_map("a", &[]));
        let b = world.create("", "configmaps", config_map("b", &[]));
        let (owner_a, owner_b) = (world.object(&a), world.object(&b));
        let both = world.create("", "configmaps", config_map("both", &[(&owner_a, true), (&owner_b, true)]));
        let one = world.create("", "configmaps", config_map("one", &[(&owner_a, true)]));
        world.settle_quietly();
        (world, [a, b, both, one])
    }

    fn alive(world: &World, keys: &[Key]) -> Vec<String> {
        keys.iter().filter(|key| world.root.get(key).is_some()).map(|key| key.name.clone()).collect()
    }

    fn mark(world: &mut World, key: &Key, finalizer: &str) {
        let mut object = world.object(key);
        json::set(&mut object, "metadata.finalizers", json!([finalizer]));
        json::set(&mut object, "metadata.deletionTimestamp", "2026-01-02T03:04:05Z".into());
        world.put(&object, key);
    }

    #[test]
    fn dependents_without_a_living_owner_go() {
        let (mut world, keys) = family();
        world.remove(&keys[0]);
        world.settle_quietly();
        assert_eq!(alive(&world, &keys), ["b", "both"]);
        world.remove(&keys[1]);
        world.settle_quietly();
        assert!(alive(&world, &keys).is_empty());
    }

    #[test]
    fn foreground_waits_and_orphan_lets_live() {
        let (mut world, keys) = family();
        mark(&mut world, &keys[0], ORPHAN);
        world.settle_quietly();
        assert_eq!(alive(&world, &keys), ["b", "both", "one"]);
        assert!(world.root.get(&keys[3]).expect("there").header.owners.is_empty());
        let (mut world, keys) = family();
        mark(&mut world, &keys[0], FOREGROUND);
        world.settle();
        // `both` blocks, but lives on with `b`: it is let go of.
        assert_eq!(alive(&world, &keys), ["b", "both"]);
    }

    #[test]
    fn foreground_reaches_the_dependents_of_dependents() {
        let mut world = World::with_nodes(1);
        let web = world.create("apps", "deployments", crate::harness::deployment("web", 2));
        world.settle_quietly();
        world.dead.insert("node-1".into());
        mark(&mut world, &web, FOREGROUND);
        world.settle();
        assert_eq!(world.list("", "pods", "default").len(), 2, "stopping");
        assert_eq!(world.list("apps", "replicasets", "default").len(), 1, "waits for its pods");
        assert!(world.root.get(&web).is_some());
        world.dead.clear();
        world.settle_quietly();
        assert!(world.root.get(&web).is_none() && world.pods().is_empty());
    }

    #[test]
    fn one_that_finds_another_owner_meanwhile_stays() {
        let (mut world, [a, b, _, one]) = family();
        world.remove(&a);
        let mut cx = world.cx();
        let plan = plan(&world.root, &one, &mut cx);
        assert_eq!(plan.commands.len(), 1);
        let owner = world.object(&b);
        world.edit(&one, |one| {
            one["metadata"]["ownerReferences"] =
                config_map("x", &[(&owner, false)])["metadata"]["ownerReferences"].clone();
        });
        let outcome = world.apply(&plan.commands[0]);
        assert_eq!(outcome.refusal, Some(state::Refusal::Conflict(one.clone())));
        world.settle_quietly();
        assert_eq!(alive(&world, &[one]), ["one"]);
    }

    #[test]
    fn owners_that_nobody_can_look_up_count_as_living() {
        let mut world = World::new();
        let owned = |api_version: &str, kind: &str| json!([{ "apiVersion": api_version, "kind": kind, "name": "o", "uid": "gone" }]);
        let mut map = config_map("of-a-custom-resource", &[]);
        map["metadata"]["ownerReferences"] = owned("example.com/v1", "Widget");
        let mut orphan = config_map("of-a-map", &[]);
        orphan["metadata"]["ownerReferences"] = owned("v1", "ConfigMap");
        let class = |name: &str, owners: Value| {
            json!({
                "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
                "metadata": { "name": name, "ownerReferences": owners },
            })
        };
        let keys = [
            world.create("", "configmaps", map),
            world.create("", "configmaps", orphan),
            world.create("scheduling.k8s.io", "priorityclasses", class("of-a-map", owned("v1", "ConfigMap"))),
            world.create("scheduling.k8s.io", "priorityclasses", class("of-a-node", owned("v1", "Node"))),
        ];
        world.settle_quietly();
        assert_eq!(alive(&world, &keys), ["of-a-custom-resource", "of-a-map"]);
        assert!(world.root.get(&keys[1]).is_none() && world.root.get(&keys[2]).is_some());
    }

    #[test]
    fn those_that_own_each_other_go() {
        let mut world = World::new();
        let a = world.create("", "configmaps", config_map("a", &[]));
        let owner = world.object(&a);
        let b = world.create("", "configmaps", config_map("b", &[(&owner, true)]));
        let owner = world.object(&b);
        world.edit(&a, |a| {
            a["metadata"]["ownerReferences"] = config_map("a", &[(&owner, true)])["metadata"]["ownerReferences"].clone()
        });
        world.settle_quietly();
        mark(&mut world, &a, FOREGROUND);
        world.settle_quietly();
        assert!(alive(&world, &[a, b]).is_empty());
    }
}
