//! Garbage: objects none of whose owners live any more, and owners that wait for their dependents (`foregroundDeletion`)
//! or let them live on (`orphan`).
//!
//! **Invariant:** an object with at least one living owner is kept; an owner of another namespace does not count.

use state::{Event, EventKind, Key, Record, State};

use crate::emit::{self, FOREGROUND};
use crate::{Context, Plan, Row, json, record};

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
    record.header.owners.iter().any(|owner| {
        root.by_uid(&owner.uid).is_some_and(|owner_key| {
            let reachable = owner_key.namespace.is_empty() || owner_key.namespace == key.namespace;
            let going = root.get(owner_key).is_some_and(|owner| {
                owner.header.deletion_ms != 0 && owner.header.finalizers.iter().any(|f| f == FOREGROUND)
            });
            reachable && !going
        })
    })
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
        plan.commands.extend(emit::delete(key, present, cx));
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
    for dependent in dependents {
        let Some(record) = root.get(dependent) else { continue };
        let mut object = record::parse(record);
        json::list(&mut object, "metadata.ownerReferences").retain(|owner| json::text(owner, "uid") != uid);
        if json::items(&object, "metadata.ownerReferences").is_empty() {
            json::remove(&mut object, "metadata.ownerReferences");
        }
        plan.commands.extend(emit::update(dependent, record, &object));
    }
}

/// Deletes the dependents and lets the owner go when none is left that blocks it.
fn delete_dependents(root: &State, key: &Key, present: &Record, cx: &Context, plan: &mut Plan) {
    let uid = &present.header.uid;
    let mut blocked = false;
    for dependent in root.owned_by(uid) {
        let Some(record) = root.get(dependent) else { continue };
        // Two objects that own each other must not wait for ever.
        let cycle = dependent == key || record.header.finalizers.iter().any(|f| f == FOREGROUND);
        blocked |= !cycle && record.header.owners.iter().any(|owner| owner.uid == *uid && owner.block_deletion);
        if plan.commands.len() < BURST && !has_living_owner(root, dependent, record) {
            plan.commands.extend(emit::delete(dependent, record, cx));
        }
    }
    if !blocked {
        plan.commands.extend(emit::drop_finalizer(key, present, FOREGROUND));
    }
}
