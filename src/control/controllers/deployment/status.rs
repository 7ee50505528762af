//! Counts and conditions of a Deployment, worded as `kubectl rollout status` and people expect them.
//!
//! The progress deadline runs from the condition's `lastUpdateTime`, which every step forward renews; so it survives a
//! change of leader.

use std::time::Duration;

use objects::meta;
use serde_json::Value;

use super::{Goal, Set, Sets, condition};
use crate::{Context, json};

const PROGRESSING: &str = "Progressing";
const FAILURE: &str = "ReplicaFailure";
const AVAILABLE: &str = "Available";
const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
/// The deadline of a Deployment that wants none.
const NO_DEADLINE: i64 = i32::MAX as i64;

fn deadline_s(deployment: &Value) -> Option<i64> {
    json::int(deployment, "spec.progressDeadlineSeconds").filter(|s| *s != NO_DEADLINE)
}

/// Puts a condition unless status and reason are the same already; `renew` writes it anyway.
fn put(deployment: &mut Value, kind: &str, status: &str, reason: &str, message: &str, renew: bool, cx: &Context) {
    let now = cx.time();
    let mut since = now.clone();
    if let Some(present) = json::condition(deployment, kind) {
        let same_status = json::text(present, "status") == status;
        if same_status && json::text(present, "reason") == reason && !renew {
            return;
        }
        if same_status {
            since = json::text(present, "lastTransitionTime").to_owned();
        }
    }
    let made = condition(kind, status, reason, message, &now, &since);
    let conditions = json::list(deployment, "status.conditions");
    match conditions.iter_mut().find(|present| json::text(present, "type") == kind) {
        Some(place) => *place = made,
        None => conditions.push(made),
    }
}

/// Stops the clock of the progress deadline while paused, and starts it anew after.
pub fn note_pause(deployment: &mut Value, paused: bool, cx: &Context) {
    let reason =
        json::condition(deployment, PROGRESSING).map_or("", |present| json::text(present, "reason")).to_owned();
    if deadline_s(deployment).is_none() || reason == TIMED_OUT {
        return;
    }
    if paused && reason != "DeploymentPaused" {
        put(deployment, PROGRESSING, "Unknown", "DeploymentPaused", "Deployment is paused", false, cx);
    } else if !paused && reason == "DeploymentPaused" {
        put(deployment, PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed", false, cx);
    }
}

/// Starts the clock when a set for the present template was made, or found and none ran.
pub fn note_new_set(deployment: &mut Value, new: &Option<Set>, cx: &Context) {
    let (Some(new), true) = (new, deadline_s(deployment).is_some()) else { return };
    let name = &new.key.name;
    if new.record.is_none() {
        let message = format!("Created new replica set \"{name}\"");
        put(deployment, PROGRESSING, "True", "NewReplicaSetCreated", &message, false, cx);
    } else if json::condition(deployment, PROGRESSING).is_none() {
        let message = format!("Found new replica set \"{name}\"");
        put(deployment, PROGRESSING, "True", "FoundNewReplicaSet", &message, false, cx);
    }
}

/// Writes the counts and the Available condition.
pub fn count(deployment: &mut Value, sets: &Sets, goal: &Goal, cx: &Context) {
    let sum = |of: fn(&Set) -> i64| sets.all().map(of).sum::<i64>();
    let available = sum(|set| set.available);
    let updated = sets.new.as_ref().map_or(0, |new| new.actual);
    json::set(deployment, "status.observedGeneration", meta::generation(deployment).into());
    json::set(deployment, "status.replicas", sum(|set| set.actual).into());
    json::set(deployment, "status.updatedReplicas", updated.into());
    json::set(deployment, "status.readyReplicas", sum(|set| set.ready).into());
    json::set(deployment, "status.availableReplicas", available.into());
    json::set(deployment, "status.unavailableReplicas", (sets.size() - available).max(0).into());
    if available >= goal.replicas - goal.unavailable {
        let message = "Deployment has minimum availability.";
        put(deployment, AVAILABLE, "True", "MinimumReplicasAvailable", message, false, cx);
    } else {
        let message = "Deployment does not have minimum availability.";
        put(deployment, AVAILABLE, "False", "MinimumReplicasUnavailable", message, false, cx);
    }
}

/// Whether nothing but the new set runs, in full and available.
pub fn is_complete(sets: &Sets, goal: &Goal) -> bool {
    let total: i64 = sets.all().map(|set| set.actual).sum();
    let available: i64 = sets.all().map(|set| set.available).sum();
    let updated = sets.new.as_ref().map_or(0, |new| new.actual);
    updated == goal.replicas && total == goal.replicas && available == goal.replicas
}

/// Writes counts and conditions; how long until the progress deadline has to be looked at.
pub fn sync(deployment: &mut Value, sets: &Sets, goal: &Goal, rolling_out: bool, cx: &Context) -> Option<Duration> {
    let before = Progress::read(deployment);
    count(deployment, sets, goal, cx);
    take_over_failure(deployment, sets, cx);
    if !rolling_out {
        return None;
    }
    let Some(deadline_s) = deadline_s(deployment) else {
        json::drop_condition(deployment, PROGRESSING);
        return None;
    };
    let after = Progress::read(deployment);
    let reason = json::condition(deployment, PROGRESSING).map_or("", |present| json::text(present, "reason"));
    if after.total == after.updated && reason == NEW_SET_AVAILABLE {
        return None;
    }
    let subject = match &sets.new {
        Some(new) => format!("ReplicaSet \"{}\"", new.key.name),
        None => format!("Deployment \"{}\"", meta::name(deployment)),
    };
    if is_complete(sets, goal) {
        let message = format!("{subject} has successfully progressed.");
        put(deployment, PROGRESSING, "True", NEW_SET_AVAILABLE, &message, false, cx);
        return None;
    }
    if after.is_ahead_of(&before) {
        let message = format!("{subject} is progressing.");
        put(deployment, PROGRESSING, "True", "ReplicaSetUpdated", &message, true, cx);
        return Some(Duration::from_secs(u64::try_from(deadline_s).unwrap_or(0) + 1));
    }
    let left_ms = left_ms(deployment, deadline_s, cx)?;
    if left_ms >= 0 {
        return Some(Duration::from_millis(u64::try_from(left_ms).unwrap_or(0) + 1000));
    }
    let message = format!("{subject} has timed out progressing.");
    put(deployment, PROGRESSING, "False", TIMED_OUT, &message, false, cx);
    None
}

/// Says what the new set says about pods that cannot be made.
fn take_over_failure(deployment: &mut Value, sets: &Sets, cx: &Context) {
    let failure = sets.new.iter().chain(&sets.old).find_map(|set| json::condition(&set.object, FAILURE)).cloned();
    match failure {
        Some(failure) => {
            let of = |name: &str| json::text(&failure, name).to_owned();
            put(deployment, FAILURE, &of("status"), &of("reason"), &of("message"), false, cx);
        }
        None => json::drop_condition(deployment, FAILURE),
    }
}

/// Milliseconds until the deadline; `None` when no clock runs.
fn left_ms(deployment: &Value, deadline_s: i64, cx: &Context) -> Option<i64> {
    let present = json::condition(deployment, PROGRESSING)?;
    if matches!(json::text(present, "reason"), NEW_SET_AVAILABLE | TIMED_OUT) {
        return None;
    }
    Some(json::time_ms(present, "lastUpdateTime")? + deadline_s * 1000 - cx.now_ms())
}

/// The counts that show a rollout move.
struct Progress {
    total: i64,
    updated: i64,
    ready: i64,
    available: i64,
}

impl Progress {
    fn read(deployment: &Value) -> Self {
        Self {
            total: json::count(deployment, "status.replicas"),
            updated: json::count(deployment, "status.updatedReplicas"),
            ready: json::count(deployment, "status.readyReplicas"),
            available: json::count(deployment, "status.availableReplicas"),
        }
    }

    fn is_ahead_of(&self, before: &Self) -> bool {
        self.updated > before.updated
            || self.total - self.updated < before.total - before.updated
            || self.ready > before.ready
            || self.available > before.available
    }
}
