//! The arithmetic of a rollout: how big each ReplicaSet shall be next. Only sizes and availability count here.

use std::cmp::Reverse;

use serde_json::Value;

use super::{Goal, Set, Sets, revisions};

/// More than any `replicas`; sums and products of two such sizes do not overflow.
const SIZE_MAX: i64 = i32::MAX as i64;

/// A count, or a percentage of `replicas` rounded up or down. Absent is 25 %, the default.
pub fn share(value: &Value, replicas: i64, up: bool) -> i64 {
    let percent = match value {
        Value::Number(n) => return n.as_i64().unwrap_or(0).clamp(0, SIZE_MAX),
        Value::String(text) => text.trim_end_matches('%').parse::<i64>().unwrap_or(25),
        _ => 25,
    };
    let hundredths = replicas.saturating_mul(percent.max(0)).min(100 * SIZE_MAX);
    if up { (hundredths + 99) / 100 } else { hundredths / 100 }
}

/// Whether `spec.replicas` changed since the active sets were sized.
pub fn is_scaling(sets: &Sets, goal: &Goal) -> bool {
    sets.all()
        .filter(|set| set.replicas > 0)
        .any(|set| set.annotation(revisions::DESIRED).is_some_and(|desired| desired != goal.replicas))
}

/// One step of a rolling update. (After Recreate emptied the old sets it grows the new one.)
pub fn roll(sets: &mut Sets, goal: &Goal) {
    if !grow_new(sets, goal) {
        shrink_old(sets, goal);
    }
}

/// Sets the size of the new set as far as maxSurge allows; whether an existing one changed.
fn grow_new(sets: &mut Sets, goal: &Goal) -> bool {
    let room = (goal.replicas + goal.surge - sets.size()).max(0);
    let Some(new) = &mut sets.new else { return false };
    let before = new.replicas;
    new.replicas = match before > goal.replicas || goal.recreate {
        true => goal.replicas,
        false => before + room.min(goal.replicas - before),
    };
    new.replicas != before
}

/// Takes from the old sets what may go: unhealthy pods first, then as many available ones as maxUnavailable allows.
fn shrink_old(sets: &mut Sets, goal: &Goal) {
    let available_min = goal.replicas - goal.unavailable;
    let new_unavailable = sets.new.as_ref().map_or(0, |new| new.replicas - new.available.min(new.replicas));
    let mut spare = sets.size() - available_min - new_unavailable;
    for old in &mut sets.old {
        let unhealthy = old.replicas - old.available.min(old.replicas);
        let gone = unhealthy.min(spare).max(0);
        old.replicas -= gone;
        spare -= gone;
    }
    if spare <= 0 {
        return;
    }
    let mut spare = sets.available() - available_min;
    for old in &mut sets.old {
        let gone = old.replicas.min(spare).max(0);
        old.replicas -= gone;
        spare -= gone;
    }
}

/// Sets every one to 0 and says how many pods that takes away.
pub fn shrink_all(sets: &mut [Set]) -> i64 {
    let gone = sets.iter().map(|set| set.replicas).sum();
    sets.iter_mut().for_each(|set| set.replicas = 0);
    gone
}

/// Follows a change of `spec.replicas`, or a pause: one active set takes the whole size, several share the change in
/// proportion, so that a rollout in the middle stays in the middle. `before` is the Deployment's last count of pods.
pub fn scale(sets: &mut Sets, goal: &Goal, before: i64) {
    let active = sets.all().filter(|set| set.replicas > 0).count();
    if active <= 1 {
        let newest_old = sets.old.iter().map(Set::created_ms).max();
        let only = match active {
            1 => sets.all_mut().find(|set| set.replicas > 0),
            _ => match &mut sets.new {
                Some(new) => Some(new),
                None => sets.old.iter_mut().find(|set| Some(set.created_ms()) == newest_old),
            },
        };
        if let Some(only) = only {
            only.replicas = goal.replicas;
        }
        return;
    }
    if is_saturated(sets, goal) {
        shrink_all(&mut sets.old);
        return;
    }
    if !goal.recreate {
        share_out(sets, goal, before);
    }
}

/// Whether the new set alone is what was asked for.
fn is_saturated(sets: &Sets, goal: &Goal) -> bool {
    sets.new.as_ref().is_some_and(|new| {
        let desired = new.annotation(revisions::DESIRED);
        new.replicas == goal.replicas && desired == Some(goal.replicas) && new.available == goal.replicas
    })
}

fn share_out(sets: &mut Sets, goal: &Goal, before: i64) {
    let allowed = if goal.replicas > 0 { goal.replicas + goal.surge } else { 0 };
    let change = allowed - sets.size();
    let mut active: Vec<&mut Set> = sets.all_mut().filter(|set| set.replicas > 0).collect();
    // The biggest first; of equals the newer when growing, the older when shrinking.
    active.sort_by_key(|set| (Reverse(set.replicas), if change > 0 { -set.created_ms() } else { set.created_ms() }));
    let mut done = 0;
    for set in &mut active {
        let left = change - done;
        if left == 0 {
            break;
        }
        let wanted = fraction(set, goal, before);
        let part = if change > 0 { wanted.clamp(0, left) } else { wanted.clamp(left, 0) };
        set.replicas += part;
        done += part;
    }
    if let Some(first) = active.first_mut() {
        first.replicas += change - done;
    }
    active.iter_mut().for_each(|set| set.replicas = set.replicas.max(0));
}

/// How much a set grows when it keeps its share of the whole.
fn fraction(set: &Set, goal: &Goal, before: i64) -> i64 {
    if goal.replicas == 0 {
        return -set.replicas;
    }
    let whole = set.annotation(revisions::MAX).filter(|max| *max > 0).unwrap_or(before).max(1);
    let scaled = i128::from(set.replicas) * i128::from(goal.replicas + goal.surge);
    let whole = i128::from(whole);
    // Rounded half up.
    i64::try_from((2 * scaled + whole) / (2 * whole)).unwrap_or(SIZE_MAX) - set.replicas
}
