//! DELETE of one object: removed at once, or marked and left to a kubelet, a controller or whoever owns a finalizer.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use control::admission::Operation;
use http::StatusCode;
use objects::{FieldError, Kind, Reason, meta};
use serde_json::{Value, json};
use state::{Expect, Key, Op, Record, Refusal};

use crate::body;
use crate::query::{self, Query};
use crate::server::Call;
use crate::status::{self, Failure, Result};
use crate::write::{self, ATTEMPTS_MAX};

/// Waits for dependents with `blockOwnerDeletion`.
const FOREGROUND: &str = "foregroundDeletion";
/// Lets dependents go before the owner does.
const ORPHAN: &str = "orphan";
/// `terminationGracePeriodSeconds` of a pod that says nothing.
const GRACE_DEFAULT_S: i64 = 30;

/// What a DELETE asks for, from its body or its query.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub dry_run: bool,
    grace_seconds: Option<i64>,
    policy: Option<Policy>,
    uid: String,
    resource_version: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    Background,
    Foreground,
    Orphan,
}

impl DeleteOptions {
    /// A body wins over the query.
    pub fn parse(query: &Query, body: Option<&Value>) -> Result<Self> {
        let Some(body) = body else { return Self::from_query(query) };
        let kind = meta::text(body, &["kind"]);
        if !matches!(kind, "" | "DeleteOptions") {
            return Err(Failure::bad_request(format!("expected a body of kind DeleteOptions, got {kind:?}")));
        }
        let dry_run = meta::list(body, &["dryRun"]).iter().map(|value| value.as_str().unwrap_or("?"));
        Ok(Self {
            dry_run: query::dry_run(dry_run)? || query::dry_run(query.all("dryRun"))?,
            grace_seconds: grace(meta::int(body, &["gracePeriodSeconds"]).or(query.number("gracePeriodSeconds")?))?,
            policy: policy(
                match meta::text(body, &["propagationPolicy"]) {
                    "" => query.get("propagationPolicy"),
                    text => text,
                },
                meta::at(body, &["orphanDependents"]).and_then(Value::as_bool),
            )?,
            uid: meta::text(body, &["preconditions", "uid"]).to_owned(),
            resource_version: meta::text(body, &["preconditions", "resourceVersion"]).to_owned(),
        })
    }

    fn from_query(query: &Query) -> Result<Self> {
        Ok(Self {
            dry_run: query::dry_run(query.all("dryRun"))?,
            grace_seconds: grace(query.number("gracePeriodSeconds")?)?,
            policy: policy(
                query.get("propagationPolicy"),
                query.has("orphanDependents").then(|| query.flag("orphanDependents")),
            )?,
            ..Self::default()
        })
    }
}

fn grace(seconds: Option<i64>) -> Result<Option<i64>> {
    match seconds {
        Some(seconds) if seconds < 0 => {
            let error = FieldError::new("gracePeriodSeconds", Reason::Invalid, "must be greater than or equal to 0");
            Err(Failure::invalid_options("DeleteOptions", &[error.with_value(seconds.into())]))
        }
        seconds => Ok(seconds),
    }
}

fn policy(text: &str, orphan: Option<bool>) -> Result<Option<Policy>> {
    let named = match text {
        "" => None,
        "Background" => Some(Policy::Background),
        "Foreground" => Some(Policy::Foreground),
        "Orphan" => Some(Policy::Orphan),
        other => {
            let message = "supported values: \"Foreground\", \"Background\", \"Orphan\"";
            let error = FieldError::new("propagationPolicy", Reason::NotSupported, message).with_value(other.into());
            return Err(Failure::invalid_options("DeleteOptions", &[error]));
        }
    };
    match (named, orphan) {
        (Some(_), Some(_)) => {
            let message = "orphanDependents and deletionPropagation cannot be both set";
            let error = FieldError::new("propagationPolicy", Reason::Invalid, message).with_value(text.into());
            Err(Failure::invalid_options("DeleteOptions", &[error]))
        }
        (None, Some(true)) => Ok(Some(Policy::Orphan)),
        (None, Some(false)) => Ok(Some(Policy::Background)),
        (named, None) => Ok(named),
    }
}

pub async fn delete(call: &Call, body: Body) -> Result<Response> {
    let bytes = body::read(call, body).await?;
    let options = DeleteOptions::parse(&call.query, body::optional(&call.headers, &bytes)?.as_ref())?;
    let outcome = remove(call, &call.key(), &options).await?;
    let json = match outcome {
        Removal::Gone { uid } => status::success(call.kind, &call.resource.name, &uid),
        Removal::Marked { object } => call.shown(object),
    };
    call.plain(Vec::new())?.json(StatusCode::OK, json.to_string().into_bytes())
}

/// What a deletion did.
pub enum Removal {
    Gone {
        uid: String,
    },
    /// It is being deleted, or was already.
    Marked {
        object: Value,
    },
}

/// Deletes one object; on a lost race it looks again.
pub async fn remove(call: &Call, key: &Key, options: &DeleteOptions) -> Result<Removal> {
    let mut fresh = false;
    let mut attempt = 0;
    loop {
        attempt += 1;
        let root = write::root(call, fresh).await?;
        let failure = match root.get(key) {
            None => Failure::not_found(call.kind, &key.name),
            Some(record) => match step(call, key, &root, record, options).await {
                Ok(Some(removal)) => return Ok(removal),
                Ok(None) => Failure::modified(call.kind, &key.name),
                Err(failure) if !fresh && matches!(failure.code, 404 | 409) => failure,
                Err(failure) => return Err(failure),
            },
        };
        if fresh && (failure.code == 404 || attempt >= ATTEMPTS_MAX) {
            return Err(failure);
        }
        fresh = true;
    }
}

/// One attempt on one version; `None` when another write came between.
async fn step(
    call: &Call,
    key: &Key,
    root: &state::State,
    record: &Arc<Record>,
    options: &DeleteOptions,
) -> Result<Option<Removal>> {
    check_preconditions(call.kind, key, record, options)?;
    let old = control::record::parse(&*call.opened(record)?);
    let mut cx = call.server.context();
    let mut judged = old.clone();
    write::permit(call, Operation::Delete, &mut judged, Some(&old), &mut cx, root)?;
    let next = plan(call.kind, &old, options, cx.now);
    let (op, removal) = match next {
        Next::Nothing => return Ok(Some(Removal::Marked { object: old })),
        Next::Remove => (Op::delete(key.clone()), Removal::Gone { uid: record.header.uid.clone() }),
        Next::Mark(object) => (Op::put(write::put(call.kind, &object)?), Removal::Marked { object }),
    };
    if options.dry_run {
        return Ok(Some(removal));
    }
    let expects = vec![Expect::revision(key.clone(), record.revision)];
    let outcome = write::propose(call, &cx, expects, vec![op]).await?;
    Ok(match (outcome.refusal, removal) {
        (None, Removal::Marked { mut object }) => {
            let revision = outcome.revisions.first().copied().unwrap_or(outcome.revision);
            meta::set(&mut object, &["metadata", "resourceVersion"], revision.to_string().into());
            Some(Removal::Marked { object })
        }
        (None, removal) => Some(removal),
        (Some(Refusal::Conflict(_) | Refusal::NotFound(_)), _) => None,
        (Some(refusal), _) => return Err(write::refused(call, &key.name, refusal)),
    })
}

fn check_preconditions(kind: &Kind, key: &Key, record: &Record, options: &DeleteOptions) -> Result<()> {
    let failed = |what: &str, asked: &str, found: &str| {
        let why = format!(
            "the {what} in the precondition ({asked}) does not match the {what} in record ({found}). The object might \
             have been deleted and then recreated"
        );
        Err(Failure::conflict(kind, &key.name, why))
    };
    if !options.uid.is_empty() && options.uid != record.header.uid {
        return failed("UID", &options.uid, &record.header.uid);
    }
    let revision = record.revision.to_string();
    if !options.resource_version.is_empty() && options.resource_version != revision {
        return failed("ResourceVersion", &options.resource_version, &revision);
    }
    Ok(())
}

/// What becomes of the object.
enum Next {
    Nothing,
    Remove,
    Mark(Value),
}

fn plan(kind: &Kind, old: &Value, options: &DeleteOptions, now: jiff::Timestamp) -> Next {
    let grace = if kind.graceful { pod_grace(old, options.grace_seconds) } else { 0 };
    let mut object = old.clone();
    let finalizers_changed = choose_finalizers(&mut object, options.policy.or_else(|| default_policy(kind, old)));
    let deleting = meta::is_deleting(old);
    let present = meta::int(old, &["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0);
    // The time that is left may only become shorter.
    let shorter = kind.graceful && grace < present;
    if !deleting || shorter {
        kind.mark_deleted(&mut object, now, Some(grace));
    } else if !finalizers_changed && !is_over(kind, &object) {
        return Next::Nothing;
    }
    if kind.group.is_empty() && kind.plural == "namespaces" {
        meta::set(&mut object, &["status", "phase"], "Terminating".into());
    }
    if is_over(kind, &object) { Next::Remove } else { Next::Mark(object) }
}

/// What a request means that names no policy; finalizers that say what to do with dependents say it still.
fn default_policy(kind: &Kind, old: &Value) -> Option<Policy> {
    let said = meta::finalizers(old).iter().any(|f| f == FOREGROUND || f == ORPHAN);
    (kind.orphans && !said && !meta::is_deleting(old)).then_some(Policy::Orphan)
}

/// Seconds a pod has to stop: none if it never started or has finished.
fn pod_grace(pod: &Value, asked: Option<i64>) -> i64 {
    let phase = meta::text(pod, &["status", "phase"]);
    if meta::text(pod, &["spec", "nodeName"]).is_empty() || matches!(phase, "Succeeded" | "Failed") {
        return 0;
    }
    asked
        .unwrap_or_else(|| meta::int(pod, &["spec", "terminationGracePeriodSeconds"]).unwrap_or(GRACE_DEFAULT_S))
        .max(0)
}

/// Foreground and Orphan are carried out by the garbage collector, which these finalizers make the object wait for.
fn choose_finalizers(object: &mut Value, policy: Option<Policy>) -> bool {
    let before = meta::finalizers(object);
    let wanted = match policy {
        None => return false,
        Some(Policy::Background) => None,
        Some(Policy::Foreground) => Some(FOREGROUND),
        Some(Policy::Orphan) => Some(ORPHAN),
    };
    let mut after: Vec<String> = before.iter().filter(|f| *f != FOREGROUND && *f != ORPHAN).cloned().collect();
    after.extend(wanted.map(str::to_owned));
    if after == before {
        return false;
    }
    if after.is_empty() {
        meta::remove(object, &["metadata", "finalizers"]);
    } else {
        meta::set(object, &["metadata", "finalizers"], json!(after));
    }
    true
}

/// Whether nothing keeps an object any more that is being deleted.
pub fn is_over(kind: &Kind, object: &Value) -> bool {
    let namespace = kind.group.is_empty() && kind.plural == "namespaces";
    meta::is_deleting(object)
        && meta::finalizers(object).is_empty()
        && (!kind.graceful || meta::int(object, &["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0) == 0)
        && (!namespace || meta::list(object, &["spec", "finalizers"]).is_empty())
}
