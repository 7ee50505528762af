//! PUT and PATCH, of the object, its status, its scale, and a Namespace's `finalize`.
//!
//! Both are the same loop: take the present version, make the next one, propose it on the condition that the present one
//! is still there. A PATCH that loses is made again on the newer version; a PUT only if it named no version itself. An apply
//! is a PATCH that also creates.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use objects::patch::{self, PatchError};
use objects::{FieldError, Part, Reason, meta};
use serde_json::Value;
use state::{Expect, Op, Record, Refusal};

use super::create;
use crate::json::Parsed;
use crate::query::{Sent, WriteOptions};
use crate::server::Call;
use crate::status::{Failure, Result};
use crate::write::{self, ATTEMPTS_MAX, Draft, Writer};
use crate::{body, negotiate};

/// How the next version is made of the present one.
enum Change {
    Put(Parsed),
    Patch(PatchType, Parsed),
    /// A configuration, decoded, with its warnings.
    Apply(Value, Vec<String>),
}

#[derive(Clone, Copy)]
enum PatchType {
    Json,
    Merge,
    Strategic,
}

const PATCH_TYPES: &str = "application/json-patch+json, application/merge-patch+json, \
     application/strategic-merge-patch+json, application/apply-patch+yaml";

pub async fn write(call: &Call, body: Body) -> Result<Response> {
    let patches = call.resource.verb == "patch";
    let patch = if patches { patch_type(negotiate::content_type(&call.headers))? } else { None };
    let sent = match patch {
        Some(_) => Sent::Patch,
        None if patches => Sent::Apply,
        None => Sent::Update,
    };
    let options = WriteOptions::parse(&call.query, &call.headers, sent)?;
    let bytes = body::read(call, body).await?;
    let change = match patch {
        Some(kind) => Change::Patch(kind, decode_patch(&bytes)?),
        None if patches => configuration(call, &bytes, &options)?,
        None => Change::Put(body::decode(&call.headers, &bytes)?),
    };
    let writer = Writer {
        manager: &options.manager,
        subresource: match call.resource.subresource.as_str() {
            "finalize" => "",
            part => part,
        },
        applies: sent == Sent::Apply,
    };
    let mut attempt = 0;
    // The local root may be behind: only what a fresh one refuses is refused.
    let mut fresh = false;
    loop {
        attempt += 1;
        let root = write::root(call, fresh).await?;
        let result = match root.get(&call.key()) {
            Some(record) => attempt_on(call, &root, record, &change, &writer, &options).await,
            None => match (&change, fresh) {
                (Change::Put(parsed), true) if call.kind.create_on_update && call.resource.subresource.is_empty() => {
                    return create_by_put(call, parsed, &writer, &options).await;
                }
                (Change::Apply(applied, warnings), true) if call.resource.subresource.is_empty() => {
                    return create_by_apply(call, applied, warnings.clone(), &writer, &options).await;
                }
                _ => Err(Attempt::Final(Failure::not_found(call.kind, &call.resource.name))),
            },
        };
        match result {
            Ok(response) => return Ok(response),
            Err(Attempt::Lost(_)) if attempt < ATTEMPTS_MAX => fresh = true,
            Err(Attempt::Final(failure)) if !fresh && matches!(failure.code, 404 | 409) => fresh = true,
            Err(Attempt::Lost(failure) | Attempt::Final(failure)) => return Err(failure),
        }
    }
}

/// Why an attempt failed: another one may succeed, or not.
enum Attempt {
    Lost(Failure),
    Final(Failure),
}

impl From<Failure> for Attempt {
    fn from(failure: Failure) -> Self {
        Self::Final(failure)
    }
}

async fn attempt_on(
    call: &Call,
    root: &state::State,
    record: &Arc<Record>,
    change: &Change,
    writer: &Writer<'_>,
    options: &WriteOptions,
) -> Result<Response, Attempt> {
    let old = control::record::parse(&*call.opened(record)?);
    let mut cx = call.server.context();
    let (mut object, mut warnings) = next(call, change, &old, writer, options, &cx)?;
    let named_version = check_preconditions(call, &object, record)?;
    let part = writer.part();
    let finalizers = finalizers(call, &object);
    warnings.extend(write::admit_update(call, writer, &mut object, &old, &mut cx, root)?);
    if let Some(finalizers) = finalizers {
        meta::set(&mut object, &["spec", "finalizers"], finalizers);
    }
    let put = write::put(call.kind, &object)?;
    let answer = |record: &Record| -> Result<Response> {
        let json = if part == Part::Scale {
            call.kind.scale(&control::record::parse(record)).to_string().into_bytes()
        } else {
            call.written(record)
        };
        call.plain(warnings.clone())?.json(StatusCode::OK, json)
    };
    if options.dry_run {
        write::within_quota(call, &put, root)?;
        return Ok(answer(&write::stored(put, record.revision))?);
    }
    let key = call.key();
    let gone = super::delete::is_over(call.kind, &object);
    let op = if gone { Op::delete(key.clone()) } else { Op::put(put.clone()) };
    let outcome = write::propose(call, &cx, vec![Expect::revision(key, record.revision)], vec![op]).await?;
    match outcome.refusal {
        None => {
            let revision = outcome.revisions.first().copied().filter(|revision| *revision != 0);
            Ok(answer(&write::stored(put, revision.unwrap_or(outcome.revision)))?)
        }
        Some(refusal @ (Refusal::Conflict(_) | Refusal::Claimed(_))) if !named_version => {
            Err(Attempt::Lost(write::refused(call, &call.resource.name, refusal)))
        }
        Some(refusal) => Err(Attempt::Final(write::refused(call, &call.resource.name, refusal))),
    }
}

/// The next version as the client wants it, decoded, and warnings.
fn next(
    call: &Call,
    change: &Change,
    old: &Value,
    writer: &Writer<'_>,
    options: &WriteOptions,
    cx: &control::Context,
) -> Result<(Value, Vec<String>)> {
    let scale = call.resource.subresource == "scale";
    let shown = if scale { call.kind.scale(old) } else { call.shown(old.clone()) };
    let (object, duplicates) = match change {
        Change::Put(parsed) => (parsed.value.clone(), parsed.duplicates.clone()),
        Change::Patch(kind, parsed) => {
            let mut object = shown;
            apply(call, *kind, &mut object, &parsed.value)?;
            (object, parsed.duplicates.clone())
        }
        Change::Apply(applied, warnings) => {
            let object = writer.apply(call.kind, Some(old), applied, options.force, cx)?;
            return Ok((object, warnings.clone()));
        }
    };
    if scale {
        return scaled(call, object).map(|object| (object, Vec::new()));
    }
    let draft = write::decode(call, object, &duplicates, options)?;
    Ok((draft.object, draft.warnings))
}

fn apply(call: &Call, kind: PatchType, object: &mut Value, patch: &Value) -> Result<()> {
    let result = match kind {
        PatchType::Json => patch::json_patch(object, patch),
        PatchType::Merge => patch::merge(object, patch),
        // A Scale has no lists: its strategic merge is a merge.
        PatchType::Strategic if call.resource.subresource == "scale" => patch::merge(object, patch),
        PatchType::Strategic => patch::strategic(call.kind, object, patch),
    };
    result.map_err(|error| match error {
        PatchError::Malformed(_) => Failure::bad_request(error.to_string()),
        PatchError::TooMany(_) => Failure::too_large(error.to_string()),
        PatchError::Failed(_) => Failure::unprocessable(error.to_string()),
    })
}

/// A Scale, reduced to what it changes.
fn scaled(call: &Call, scale: Value) -> Result<Value> {
    let kind = meta::text(&scale, &["kind"]);
    if !kind.is_empty() && kind != "Scale" {
        return Err(Failure::bad_request(format!(
            "the kind in the data ({kind}) does not match the expected kind (Scale)"
        )));
    }
    let name = meta::name(&scale);
    if !name.is_empty() && name != call.resource.name {
        return Err(Failure::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.resource.name
        )));
    }
    let replicas = match meta::at(&scale, &["spec", "replicas"]) {
        None => 0,
        Some(value) => value.as_i64().ok_or_else(|| {
            Failure::bad_request(
                "Scale in version \"autoscaling/v1\" cannot be handled as a Scale: spec.replicas is no integer",
            )
        })?,
    };
    if replicas < 0 {
        let error = FieldError::new("spec.replicas", Reason::Invalid, "must be greater than or equal to 0");
        return Err(Failure::invalid(call.kind, &call.resource.name, &[error.with_value(replicas.into())]));
    }
    let mut out = serde_json::json!({"metadata": {}, "spec": {"replicas": replicas}});
    for field in ["resourceVersion", "uid"] {
        meta::copy(&mut out, &scale, &["metadata", field]);
    }
    Ok(out)
}

/// PUT of `namespaces/<name>/finalize` changes only the finalizers of the spec, which no other write can.
fn finalizers(call: &Call, object: &Value) -> Option<Value> {
    let wanted = || meta::list(object, &["spec", "finalizers"]).to_vec().into();
    (call.resource.subresource == "finalize").then(wanted)
}

/// Checks the uid and version that the new object names; whether it named a version.
fn check_preconditions(call: &Call, object: &Value, record: &Record) -> Result<bool> {
    let uid = meta::uid(object);
    if !uid.is_empty() && uid != record.header.uid {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", record.header.uid);
        return Err(Failure::conflict(call.kind, &call.resource.name, why));
    }
    let version = meta::resource_version(object);
    let put = call.resource.verb == "update";
    if version.is_empty() {
        if put && call.kind.versioned_update && call.resource.subresource.is_empty() {
            let error = FieldError::new("metadata.resourceVersion", Reason::Invalid, "must be specified for an update");
            return Err(Failure::invalid(call.kind, &call.resource.name, &[error.with_value("".into())]));
        }
        return Ok(false);
    }
    if version != record.revision.to_string() {
        return Err(Failure::modified(call.kind, &call.resource.name));
    }
    // A patch starts from the present version, so its version is the client's only if the patch sets it.
    Ok(put)
}

async fn create_by_put(call: &Call, parsed: &Parsed, writer: &Writer<'_>, options: &WriteOptions) -> Result<Response> {
    call.may_create()?;
    if !meta::resource_version(&parsed.value).is_empty() {
        return Err(Failure::not_found(call.kind, &call.resource.name));
    }
    let draft = write::decode(call, parsed.value.clone(), &parsed.duplicates, options)?;
    create::store(call, draft, writer, options).await
}

async fn create_by_apply(
    call: &Call,
    applied: &Value,
    warnings: Vec<String>,
    writer: &Writer<'_>,
    options: &WriteOptions,
) -> Result<Response> {
    call.may_create()?;
    let uid = meta::uid(applied);
    if !uid.is_empty() {
        let why = format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
        return Err(Failure::conflict(call.kind, &call.resource.name, why));
    }
    let object = writer.apply(call.kind, None, applied, options.force, &call.server.context())?;
    create::store(call, Draft { object, warnings }, writer, options).await
}

/// An applied configuration: YAML or JSON, of the kind and name of the path, without what its kind does not know. That of
/// a Scale becomes one of the object itself.
fn configuration(call: &Call, bytes: &Bytes, options: &WriteOptions) -> Result<Change> {
    let Parsed { value, duplicates } = crate::json::parse_yaml(bytes)
        .map_err(|error| Failure::bad_request(format!("error decoding YAML: {error}")))?;
    if call.resource.subresource == "scale" {
        let mut object = scaled(call, value)?;
        meta::set(&mut object, &["apiVersion"], call.kind.api_version().into());
        meta::set(&mut object, &["kind"], call.kind.kind.into());
        meta::set(&mut object, &["metadata", "name"], call.resource.name.as_str().into());
        return Ok(Change::Apply(object, Vec::new()));
    }
    for field in ["apiVersion", "kind"] {
        if meta::text(&value, &[field]).is_empty() {
            return Err(Failure::bad_request(format!("{field} must be set in an applied configuration")));
        }
    }
    let draft = write::decode(call, value, &duplicates, options)?;
    Ok(Change::Apply(draft.object, draft.warnings))
}

/// None: it is an applied configuration.
fn patch_type(content_type: &str) -> Result<Option<PatchType>> {
    match content_type {
        "application/json-patch+json" => Ok(Some(PatchType::Json)),
        "application/merge-patch+json" => Ok(Some(PatchType::Merge)),
        "application/strategic-merge-patch+json" => Ok(Some(PatchType::Strategic)),
        "application/apply-patch+yaml" => Ok(None),
        other => Err(Failure::unsupported_media(format!(
            "the body of the request was in an unknown format {other:?} - accepted media types include: {PATCH_TYPES}"
        ))),
    }
}

fn decode_patch(bytes: &Bytes) -> Result<Parsed> {
    crate::json::parse_json(bytes).map_err(|error| Failure::bad_request(format!("error decoding patch: {error}")))
}
