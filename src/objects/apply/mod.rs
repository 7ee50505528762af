//! Server-side apply: who owns which field of an object, and what an applied configuration makes of it.
//!
//! ```text
//! apply:    live ─▶ merge the configuration in ─▶ prune what the applier dropped ─▶ conflicts? ─▶ new owners
//! updated:  live, new ─▶ compare ─▶ who wrote owns what it wrote, nobody else does
//! ```
//!
//! Types come from Kubernetes' own definitions (`types.txt`); the behaviour is that of its field manager.
//!
//! Not here: whether the object that comes out is valid, and what the server fills in. Objects are not converted: a kind
//! has one version here, and the entries of others are read as if they were of it.
//!
//! **Invariant:** applying the same configuration again changes nothing, not even a time.

mod compare;
mod conflict;
mod managers;
mod merge;
mod path;
mod prune;
mod schema;
mod set;
#[cfg(test)]
mod tests;
mod times;

use jiff::Timestamp;
use serde_json::Value;

use crate::{Kind, meta};
use compare::{Comparison, fields};
pub use conflict::{ApplyError, Conflict};
use managers::{Entry, Managers, Operation};
pub use path::{Element, Scalar};
pub(crate) use schema::ListType;
pub use schema::{Schema, Type};
pub use set::FieldSet;
pub use times::keep_times;

/// Where `kubectl apply` without `--server-side` keeps what it applied.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The manager whose applies take over what client-side apply owned.
const KUBECTL: &str = "kubectl";
/// The owner of all that was there before the first apply to an object whose owners nobody kept.
const BEFORE: &str = "before-first-apply";
/// A manager without a name.
const UNKNOWN: &str = "unknown";

/// What the server owns, and so nobody does.
const UNOWNED: &[&[&str]] = &[
    &["apiVersion"],
    &["kind"],
    &["metadata"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "uid"],
    &["metadata", "resourceVersion"],
    &["metadata", "generation"],
    &["metadata", "creationTimestamp"],
    &["metadata", "deletionTimestamp"],
    &["metadata", "deletionGracePeriodSeconds"],
    &["metadata", "selfLink"],
    &["metadata", "managedFields"],
];
/// What a write of `/status` may change.
const STATUS: &[&[&str]] =
    &[&["status"], &["metadata", "labels"], &["metadata", "annotations"], &["metadata", "finalizers"]];
const REPLICAS: &[&[&str]] = &[&["spec", "replicas"]];
const MANAGED_FIELDS: &[&str] = &["metadata", "managedFields"];

/// One write: of what, by whom, when.
#[derive(Clone, Debug)]
pub struct Write<'a> {
    pub of: Type<'a>,
    pub api_version: String,
    /// Status is not written with the object.
    pub has_status: bool,
    pub manager: &'a str,
    /// `status`, `scale`; empty for the object itself.
    pub subresource: &'a str,
    pub now: Timestamp,
}

impl<'a> Write<'a> {
    pub fn new(kind: &Kind, manager: &'a str, subresource: &'a str, now: Timestamp) -> Write<'a> {
        let api_version = kind.api_version();
        Write { of: Type::of(kind), api_version, has_status: kind.status, manager, subresource, now }
    }

    /// Of these fields, those that the write can change.
    fn writable(&self, fields: FieldSet) -> FieldSet {
        match self.subresource {
            "" if self.has_status => fields.outside(&FieldSet::of(&[&["status"]])),
            "status" => fields.inside(&FieldSet::of(STATUS)),
            "scale" => fields.inside(&FieldSet::of(REPLICAS)),
            _ => fields,
        }
    }

    fn entry(&self, operation: Operation, fields: &FieldSet) -> Entry {
        Entry {
            manager: if self.manager.is_empty() { UNKNOWN } else { self.manager }.to_owned(),
            operation,
            api_version: self.api_version.clone(),
            subresource: self.subresource.to_owned(),
            time: Some(self.now),
            fields: fields.difference(&FieldSet::of(UNOWNED)),
        }
    }

    fn compare(&self, old: Option<&Value>, new: &Value) -> Comparison {
        Comparison::between(self.of, old, Some(new)).of(|fields| self.writable(fields))
    }
}

/// Applies a configuration: the object that comes out, with its new owners. `force` takes what others own.
///
/// A field that the configuration holds as null is owned, and empty.
///
/// # Errors
/// See [`ApplyError`].
pub fn apply(live: Option<&Value>, applied: &Value, write: &Write<'_>, force: bool) -> Result<Value, ApplyError> {
    check(applied, write).map_err(ApplyError::Malformed)?;
    let managers = owners_before(live, write);
    let mut new = match attempt(live, applied, write, managers.clone(), force) {
        Err(ApplyError::Conflicts(conflicts)) if write.manager == KUBECTL => {
            let taken_over = last_applied(live, write);
            let rest: Vec<Conflict> =
                conflicts.into_iter().filter(|conflict| !taken_over.has(&conflict.path)).collect();
            if !rest.is_empty() {
                return Err(ApplyError::Conflicts(rest));
            }
            attempt(live, applied, write, managers, true)?
        }
        other => other?,
    };
    if write.manager == KUBECTL && !meta::annotation(&new, LAST_APPLIED).is_empty() {
        let mut kept = applied.clone();
        meta::remove(&mut kept, &["metadata", "annotations", LAST_APPLIED]);
        meta::set(&mut new, &["metadata", "annotations", LAST_APPLIED], format!("{kept}\n").into());
    }
    keep_times(live, &mut new);
    Ok(new)
}

fn check(applied: &Value, write: &Write<'_>) -> Result<(), String> {
    path::object(applied, "an applied configuration")?;
    let version = meta::text(applied, &["apiVersion"]);
    if version != write.api_version {
        return Err(format!(
            "Incorrect version specified in apply patch. Specified patch version: {version}, expected: {}",
            write.api_version
        ));
    }
    if meta::at(applied, MANAGED_FIELDS).is_some() {
        return Err("metadata.managedFields must be nil".to_owned());
    }
    merge::check(write.of, applied)
}

/// The owners of the live object. Where nobody kept them, one entry owns all there is.
fn owners_before(live: Option<&Value>, write: &Write<'_>) -> Managers {
    let mut managers = live.map(owners).unwrap_or_default();
    if let (Some(live), true) = (live, managers.is_empty()) {
        let before = Write { manager: BEFORE, ..write.clone() };
        managers.put(before.entry(Operation::Update, &write.compare(None, live).written()));
    }
    managers
}

/// The owners as an object has them. Entries that cannot be read are as none.
fn owners(object: &Value) -> Managers {
    Managers::from_json(meta::at(object, MANAGED_FIELDS)).unwrap_or_default()
}

fn attempt(
    live: Option<&Value>,
    applied: &Value,
    write: &Write<'_>,
    mut managers: Managers,
    force: bool,
) -> Result<Value, ApplyError> {
    let mut merged = live.map_or_else(|| applied.clone(), |live| merge::merge(write.of, live, applied));
    meta::remove(&mut merged, MANAGED_FIELDS);
    let set = write.writable(fields(write.of, applied));
    let own = write.entry(Operation::Apply, &set);
    let last = managers.take(&own).map(|entry| entry.fields).unwrap_or_default();
    let new = prune::prune(write.of, merged, &last, &managers.owned().union(&set));
    let comparison = write.compare(live, &new);
    let written = comparison.written();
    if !force {
        let conflicts = conflict::conflicts(&managers, &written);
        if !conflicts.is_empty() {
            return Err(ApplyError::Conflicts(conflicts));
        }
    }
    managers.give_up(&written);
    managers.give_up(&comparison.removed);
    managers.put(own);
    // Empty lists and maps that are applied have no owner of their own where something was in them.
    let mut new = merge::merge(write.of, &new, applied);
    drop_nulls(&mut new);
    set_owners(&mut new, &managers);
    Ok(new)
}

/// What client-side apply applied last and the live object still has.
fn last_applied(live: Option<&Value>, write: &Write<'_>) -> FieldSet {
    let text = live.map_or("", |live| meta::annotation(live, LAST_APPLIED));
    let Ok(applied) = serde_json::from_str::<Value>(text) else { return FieldSet::default() };
    if meta::text(&applied, &["apiVersion"]) != write.api_version {
        return FieldSet::default();
    }
    let comparison = Comparison::between(write.of, Some(&applied), live);
    fields(write.of, &applied).difference(&comparison.written()).difference(&comparison.removed)
}

/// Notes the owners of `new`, which another write than an apply makes of `live`: who writes owns what differs.
///
/// `new` has the entries the client sent: the client may change them, but not with a subresource. None, or none that can
/// be read, leave the live ones; an empty list or one empty entry takes all away. Of an object without entries none are
/// kept until it is applied.
pub fn updated(live: Option<&Value>, new: &mut Value, write: &Write<'_>) {
    let sent = meta::remove(new, MANAGED_FIELDS);
    let kept = live.map(owners).unwrap_or_default();
    let mut managers = match &sent {
        Some(sent) if write.subresource.is_empty() && is_reset(sent) => Managers::default(),
        Some(sent) if write.subresource.is_empty() => {
            Managers::from_json(Some(sent)).ok().filter(|sent| !sent.is_empty()).unwrap_or(kept)
        }
        _ => kept,
    };
    if live.is_some() && managers.is_empty() {
        return;
    }
    let comparison = write.compare(live, new);
    let written = comparison.written();
    managers.give_up(&written);
    managers.give_up(&comparison.removed);
    let own = write.entry(Operation::Update, &written);
    if !own.fields.is_empty() {
        managers.add(own);
    }
    managers.cap();
    set_owners(new, &managers);
}

fn is_reset(sent: &Value) -> bool {
    match sent.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([entry]) => entry.as_object().is_some_and(serde_json::Map::is_empty),
        _ => false,
    }
}

fn set_owners(object: &mut Value, managers: &Managers) {
    match managers.to_json() {
        Some(json) => meta::set(object, MANAGED_FIELDS, json),
        None => drop(meta::remove(object, MANAGED_FIELDS)),
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => {
            list.retain(|item| !item.is_null());
            list.iter_mut().for_each(drop_nulls);
        }
        _ => {}
    }
}
