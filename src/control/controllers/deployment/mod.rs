//! Deployments: one ReplicaSet per template, pods moved from the old ones to the new one.
//!
//! Here: gathering the ReplicaSets, and what each situation calls for. [`revisions`] knows which set belongs to which
//! template, [`rollout`] is the arithmetic of sizes, [`status`] the conditions that `kubectl rollout` reads. Pods are
//! the ReplicaSet controller's; a ReplicaSet tells how many of its pods are available.
//!
//! ```text
//! paused, or spec.replicas changed ─▶ scale (all active sets, in proportion)
//! Recreate                         ─▶ old sets to 0 ─▶ their pods gone ─▶ new set to full size
//! RollingUpdate                    ─▶ new set up within maxSurge ─▶ old sets down within maxUnavailable
//! ```
//!
//! **Invariant:** the sizes of all sets sum to at most replicas + maxSurge, unless they did not before, and no plan takes
//! available pods below replicas − maxUnavailable.

mod revisions;
mod rollout;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use objects::{meta, selector::LabelSelector};
use serde_json::{Value, json};
use state::{Event, EventKind, Expect, Key, Record, State};

use crate::emit::{self, Notice};
use crate::{Context, Plan, Row, json, record};

use super::keys_of;

const COMPONENT: &str = "deployment-controller";

pub const ROW: Row = Row {
    name: "deployment",
    watches: &[("apps", "deployments"), ("apps", "replicasets"), ("", "pods")],
    keys,
    plan,
    resync: |root| keys_of(root, "apps", "deployments"),
};

fn keys(root: &State, event: &Event) -> Vec<Key> {
    let records = || [&event.old, &event.new].into_iter().flatten();
    let mut found: Vec<Key> = match event.key.resource.as_str() {
        "deployments" => vec![event.key.clone()],
        "replicasets" => records()
            .flat_map(|set| match emit::controller_of(set) {
                Some(uid) => root.by_uid(uid).cloned().into_iter().collect(),
                None => root
                    .selecting("apps", "deployments", &event.key.namespace, &set.header.labels)
                    .into_iter()
                    .map(|(key, _)| key.clone())
                    .collect::<Vec<_>>(),
            })
            .collect(),
        // Recreate waits for the last old pod to be gone; the sets do not count pods that are being deleted.
        _ if event.kind() == EventKind::Deleted => records()
            .filter_map(|pod| root.get(root.by_uid(emit::controller_of(pod)?)?))
            .filter_map(|set| root.by_uid(emit::controller_of(set)?).cloned())
            .collect(),
        _ => Vec::new(),
    };
    found.retain(|key| key.resource == "deployments");
    found.sort_unstable();
    found.dedup();
    found
}

/// One ReplicaSet of the Deployment, as it is and as this plan wants it.
#[derive(Clone, Debug)]
pub(crate) struct Set {
    key: Key,
    /// `None` while it is still to be created.
    record: Option<Arc<Record>>,
    object: Value,
    /// `spec.replicas`, as wanted.
    replicas: i64,
    /// What `spec.replicas` is.
    before: i64,
    /// Pods it has, ready ones, available ones: its status.
    actual: i64,
    ready: i64,
    available: i64,
}

impl Set {
    fn read(key: &Key, record: &Arc<Record>) -> Self {
        let object = record::parse(record);
        let replicas = json::int(&object, "spec.replicas").unwrap_or(1);
        Self {
            key: key.clone(),
            record: Some(record.clone()),
            replicas,
            before: replicas,
            actual: json::count(&object, "status.replicas"),
            ready: json::count(&object, "status.readyReplicas"),
            // The status may be older than the size: what is about to be deleted is not available.
            available: json::count(&object, "status.availableReplicas").min(replicas),
            object,
        }
    }

    fn annotation(&self, key: &str) -> Option<i64> {
        json::entry(&self.object, "metadata.annotations", key)?.parse().ok()
    }

    fn created_ms(&self) -> i64 {
        self.record.as_ref().map_or(i64::MAX, |record| record.header.creation_ms)
    }
}

/// The ReplicaSets of one Deployment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sets {
    /// The one of the present template.
    new: Option<Set>,
    /// The others, oldest first.
    old: Vec<Set>,
}

impl Sets {
    fn all(&self) -> impl Iterator<Item = &Set> {
        self.old.iter().chain(&self.new)
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Set> {
        self.old.iter_mut().chain(&mut self.new)
    }

    /// The sizes of all sets.
    fn size(&self) -> i64 {
        self.all().map(|set| set.replicas).sum()
    }

    fn available(&self) -> i64 {
        self.all().map(|set| set.available.min(set.replicas)).sum()
    }
}

/// What the Deployment asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    replicas: i64,
    surge: i64,
    unavailable: i64,
    recreate: bool,
}

impl Goal {
    fn read(deployment: &Value) -> Self {
        let replicas = json::int(deployment, "spec.replicas").unwrap_or(1).max(0);
        if json::text(deployment, "spec.strategy.type") == "Recreate" {
            return Self { replicas, surge: 0, unavailable: 0, recreate: true };
        }
        let part = |name: &str| json::at(deployment, &format!("spec.strategy.rollingUpdate.{name}"));
        let surge = rollout::share(part("maxSurge"), replicas, true);
        let mut unavailable = rollout::share(part("maxUnavailable"), replicas, false);
        if surge == 0 && unavailable == 0 {
            // Both may round to nothing; then one pod at a time goes first.
            unavailable = 1;
        }
        Self { replicas, surge, unavailable: unavailable.min(replicas), recreate: false }
    }
}

fn plan(root: &State, key: &Key, cx: &mut Context) -> Plan {
    let mut plan = Plan::default();
    let Some(present) = root.get(key) else { return plan };
    let mut deployment = record::parse(present);
    let goal = Goal::read(&deployment);
    let mut sets = gather(root, key, &deployment, present.header.deletion_ms == 0, &mut plan);
    if present.header.deletion_ms != 0 {
        status::count(&mut deployment, &sets, &goal, cx);
        plan.commands.extend(emit::update(key, present, &deployment));
        return plan;
    }

    let paused = json::flag(&deployment, "spec.paused");
    status::note_pause(&mut deployment, paused, cx);
    revisions::sync(&mut deployment, &mut sets, cx);
    let rolling_out = !paused && !rollout::is_scaling(&sets, &goal);
    if rolling_out {
        let ready_for_new =
            !goal.recreate || { rollout::shrink_all(&mut sets.old) == 0 && !old_pods_left(root, &sets) };
        if ready_for_new {
            if sets.new.is_none() && !create_new(root, key, &mut deployment, &mut sets, cx) {
                // The name is taken by a stranger: try the next hash.
                plan.commands.extend(emit::update(key, present, &deployment));
                return plan;
            }
            rollout::roll(&mut sets, &goal);
        }
    } else {
        rollout::scale(&mut sets, &goal, json::count(&deployment, "status.replicas"));
    }
    write_sets(root, &deployment, &mut sets, &goal, cx, &mut plan);
    if paused || (rolling_out && status::is_complete(&sets, &goal)) {
        plan.commands.extend(revisions::clean_up(&deployment, &sets));
    }
    let again = status::sync(&mut deployment, &sets, &goal, rolling_out, cx);
    plan.commands.extend(emit::update(key, present, &deployment));
    if let Some(again) = again {
        plan.look_again(again);
    }
    plan
}

/// The sets whose controller is this Deployment; orphans that match are adopted, and count from the next plan on.
fn gather(root: &State, key: &Key, deployment: &Value, adopt: bool, plan: &mut Plan) -> Sets {
    let uid = meta::uid(deployment);
    let mut found: Vec<Set> = root
        .owned_by(uid)
        .filter(|key| key.group == "apps" && key.resource == "replicasets")
        .filter_map(|key| Some((key, root.get(key)?)))
        .filter(|(_, record)| emit::controller_of(record) == Some(uid))
        .map(|(key, record)| Set::read(key, record))
        .collect();
    found.sort_by(|a, b| (a.created_ms(), &a.key).cmp(&(b.created_ms(), &b.key)));
    if adopt {
        let selector = LabelSelector::of(json::at(deployment, "spec.selector"));
        for (set_key, record) in emit::selected(root, ("apps", "replicasets"), &key.namespace, &selector) {
            if emit::controller_of(record).is_none() && record.header.deletion_ms == 0 {
                let mut object = record::parse(record);
                json::list(&mut object, "metadata.ownerReferences").push(meta::owner_reference(deployment));
                plan.commands.extend(emit::update(set_key, record, &object));
            }
        }
    }
    let new = revisions::find_new(deployment, &found).map(|i| found.remove(i));
    Sets { new, old: found }
}

/// Whether pods of old sets still run, be it on their way out.
fn old_pods_left(root: &State, sets: &Sets) -> bool {
    sets.old.iter().any(|set| {
        let uid = meta::uid(&set.object);
        set.actual > 0
            || root
                .owned_by(uid)
                .filter(|key| key.resource == "pods")
                .filter_map(|key| root.get(key))
                .any(|pod| !emit::is_finished(pod))
    })
}

/// Adds the set of the present template to `sets`, to be created. False if its name is taken; then the collision is
/// counted.
fn create_new(root: &State, key: &Key, deployment: &mut Value, sets: &mut Sets, cx: &mut Context) -> bool {
    let hash = revisions::hash(deployment);
    let name = format!("{}-{hash}", key.name);
    let set_key = Key::new("apps", "replicasets", &key.namespace, &name);
    if root.get(&set_key).is_some() {
        let collisions = json::count(deployment, "status.collisionCount");
        json::set(deployment, "status.collisionCount", (collisions + 1).into());
        return false;
    }
    let object = revisions::new_set(deployment, &name, &hash);
    sets.new =
        Some(Set { key: set_key, record: None, object, replicas: 0, before: 0, actual: 0, ready: 0, available: 0 });
    revisions::sync(deployment, sets, cx);
    true
}

/// Commands for every set that changed in size or annotations.
fn write_sets(root: &State, deployment: &Value, sets: &mut Sets, goal: &Goal, cx: &mut Context, plan: &mut Plan) {
    for set in sets.all_mut() {
        if set.replicas != set.before || set.replicas > 0 || set.record.is_none() {
            let annotate = |object: &mut Value, key: &str, n: i64| {
                json::set_entry(object, "metadata.annotations", key, n.to_string().into());
            };
            annotate(&mut set.object, revisions::DESIRED, goal.replicas);
            annotate(&mut set.object, revisions::MAX, goal.replicas + goal.surge);
        }
        json::set(&mut set.object, "spec.replicas", set.replicas.into());
        let command = match &set.record {
            None => emit::create(root, "apps", "replicasets", set.object.clone(), cx).ok().map(|mut command| {
                let owner = Key::new("apps", "deployments", &set.key.namespace, meta::name(deployment));
                command.expects.push(Expect::uid(owner, meta::uid(deployment)));
                command
            }),
            Some(record) if record::parse(record)["spec"] != set.object["spec"] => {
                emit::update_spec(&set.key, record, &mut set.object)
            }
            Some(record) => emit::update(&set.key, record, &set.object),
        };
        let Some(command) = command else { continue };
        let said = (set.replicas != set.before).then(|| {
            let direction = if set.replicas > set.before { "up" } else { "down" };
            let (name, before, now) = (&set.key.name, set.before, set.replicas);
            let message = format!("Scaled {direction} replica set {name} from {before} to {now}");
            let notice =
                Notice { component: COMPONENT, kind: "Normal", reason: "ScalingReplicaSet", message: &message };
            emit::notice(root, deployment, &notice, cx)
        });
        plan.commands.push(emit::told(command, said.flatten()));
    }
}

/// A condition in the form of a Deployment's.
fn condition(kind: &str, status: &str, reason: &str, message: &str, update: &str, since: &str) -> Value {
    json!({
        "type": kind,
        "status": status,
        "lastUpdateTime": update,
        "lastTransitionTime": since,
        "reason": reason,
        "message": message,
    })
}
