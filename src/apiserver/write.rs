//! The order in which a write is judged: decode, default, note who owns what, mutate, default again, validate, propose. One
//! place for all verbs, so that none can leave a step out.

use std::sync::Arc;

use control::admission::{self, Denied, Operation};
use control::authz::User;
use control::rbac::escalation::{self, Refused};
use control::rbac::signers;
use control::{rbac, record, seal};
use objects::apply::{self, ApplyError};
use objects::{FieldError, Kind, Part, Reason, Requester, meta};
use serde_json::Value;
use state::{Command, Expect, Op, Outcome, Put, Record, Refusal, State};

use crate::body;
use crate::query::WriteOptions;
use crate::server::Call;
use crate::status::{Failure, Result};

/// How often a write whose precondition was lost is judged again.
pub const ATTEMPTS_MAX: usize = 5;

/// An object in the course of being written.
pub struct Draft {
    pub object: Value,
    pub warnings: Vec<String>,
}

/// Checks that a body is of the kind and namespace of its path, and passes it through the typed struct.
pub fn decode(call: &Call, object: Value, duplicates: &[String], options: &WriteOptions) -> Result<Draft> {
    let mut object = object;
    match call.view {
        Some(view) => check_kind(&view.api_version(), view.kind, &object)?,
        None => check_kind(&call.kind.api_version(), call.kind.kind, &object)?,
    }
    check_place(call, &mut object)?;
    let unknown = as_stored(call, &mut object).map_err(|error| malformed(call.kind, &error))?;
    let warnings = body::judge(options.field_validation, duplicates, &unknown)?;
    Ok(Draft { object, warnings })
}

/// A value of the wrong type: 400, as Kubernetes answers what it cannot decode.
pub fn malformed(kind: &Kind, error: &FieldError) -> Failure {
    let message = if error.message.is_empty() { error.to_string() } else { error.message.clone() };
    Failure::bad_request(if message.contains("cannot be handled") {
        message
    } else {
        format!("{} in version {:?} cannot be handled as a {}: {message}", kind.kind, kind.api_version(), kind.kind)
    })
}

/// Passes an object of whichever version through its typed struct, and makes it one of the stored version. The paths of
/// unknown fields.
fn as_stored(call: &Call, object: &mut Value) -> Result<Vec<String>, FieldError> {
    let Some(view) = call.view else { return call.kind.decode(object) };
    let unknown = view.decode(object)?;
    view.store(object);
    // What the view holds in annotations has not been looked at yet.
    call.kind.decode(object)?;
    Ok(unknown)
}

/// A body names the version and kind of its path, or none.
pub fn check_kind(api_version: &str, kind: &str, object: &Value) -> Result<()> {
    let (version, name) = (meta::text(object, &["apiVersion"]), meta::text(object, &["kind"]));
    if !version.is_empty() && version != api_version {
        return Err(Failure::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({api_version})"
        )));
    }
    if !name.is_empty() && name != kind {
        return Err(Failure::bad_request(format!(
            "the kind in the data ({name}) does not match the expected kind ({kind})"
        )));
    }
    Ok(())
}

/// The path decides name and namespace; a body that says otherwise is refused.
fn check_place(call: &Call, object: &mut Value) -> Result<()> {
    let resource = &call.resource;
    if call.kind.namespaced {
        let given = meta::text(object, &["metadata", "namespace"]);
        if !given.is_empty() && given != resource.namespace {
            return Err(Failure::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        meta::set(object, &["metadata", "namespace"], resource.namespace.as_str().into());
    } else {
        meta::remove(object, &["metadata", "namespace"]);
    }
    if !resource.name.is_empty() {
        let given = meta::text(object, &["metadata", "name"]);
        if !given.is_empty() && given != resource.name {
            return Err(Failure::bad_request(format!(
                "the name of the object ({given}) does not match the name on the URL ({})",
                resource.name
            )));
        }
        meta::set(object, &["metadata", "name"], resource.name.as_str().into());
    }
    Ok(())
}

/// Makes a decoded object a new one: default, note the owners of its fields, admit, default, stamp, validate. Returns
/// warnings.
pub fn admit_create(
    call: &Call,
    object: &mut Value,
    writer: &Writer<'_>,
    cx: &mut control::Context,
    root: &State,
) -> Result<Vec<String>> {
    let kind = call.kind;
    kind.default(object);
    writer.note(kind, None, object, cx);
    let managed = meta::at(object, MANAGED_FIELDS).cloned();
    let mut warnings = admit(call, Operation::Create, object, None, cx, root)?;
    warnings.extend(kind.warning());
    kind.default(object);
    let uid = cx.uid();
    meta::stamp(object, &uid, cx.now);
    kind.prepare_create(object);
    let User { name, uid, groups, extra } = &call.user;
    kind.note_requester(object, &Requester { name, uid, groups, extra });
    set_managed(object, managed);
    judge(call, Operation::Create, object, None, cx, root)?;
    Ok(warnings)
}

/// Makes a decoded object the next version of `old`.
pub fn admit_update(
    call: &Call,
    writer: &Writer<'_>,
    object: &mut Value,
    old: &Value,
    cx: &mut control::Context,
    root: &State,
) -> Result<Vec<String>> {
    let (kind, part) = (call.kind, writer.part());
    kind.default(object);
    let sent = meta::remove(object, MANAGED_FIELDS);
    kind.prepare_update(object, old, part);
    set_managed(object, sent);
    writer.note(kind, Some(old), object, cx);
    let managed = meta::at(object, MANAGED_FIELDS).cloned();
    let warnings = admit(call, Operation::Update, object, Some(old), cx, root)?;
    kind.default(object);
    // Admission may have changed the spec: the generation is counted from what will be written.
    if part == Part::Main {
        kind.prepare_update(object, old, part);
        set_managed(object, managed);
    }
    apply::keep_times(Some(old), object);
    judge(call, Operation::Update, object, Some(old), cx, root)?;
    Ok(warnings)
}

const MANAGED_FIELDS: &[&str] = &["metadata", "managedFields"];

fn set_managed(object: &mut Value, managed: Option<Value>) {
    match managed {
        Some(managed) => meta::set(object, MANAGED_FIELDS, managed),
        None => drop(meta::remove(object, MANAGED_FIELDS)),
    }
}

/// Who writes what of an object, and so owns it.
pub struct Writer<'a> {
    pub manager: &'a str,
    /// `status`, `scale`, `approval`; empty for the object itself.
    pub subresource: &'a str,
    /// The owners are in the object already: it comes out of an apply.
    pub applies: bool,
}

impl Writer<'_> {
    pub fn part(&self) -> Part {
        match self.subresource {
            "status" => Part::Status,
            "scale" => Part::Scale,
            "approval" => Part::Approval,
            _ => Part::Main,
        }
    }

    fn note(&self, kind: &Kind, old: Option<&Value>, object: &mut Value, cx: &control::Context) {
        if !self.applies {
            apply::updated(old, object, &apply::Write::new(kind, self.manager, self.subresource, cx.now));
        }
    }

    /// The object that an applied configuration makes of the present one.
    pub fn apply(
        &self,
        kind: &Kind,
        live: Option<&Value>,
        applied: &Value,
        force: bool,
        cx: &control::Context,
    ) -> Result<Value> {
        let write = apply::Write::new(kind, self.manager, self.subresource, cx.now);
        apply::apply(live, applied, &write, force).map_err(|error| match &error {
            ApplyError::Malformed(why) => Failure::bad_request(why),
            ApplyError::Conflicts(conflicts) => {
                let failure = Failure::apply_conflict(error.to_string());
                conflicts.iter().fold(failure, |failure, conflict| {
                    failure.cause("FieldManagerConflict", conflict.message(), &conflict.field())
                })
            }
        })
    }
}

fn admit(
    call: &Call,
    operation: Operation,
    object: &mut Value,
    old: Option<&Value>,
    cx: &mut control::Context,
    root: &State,
) -> Result<Vec<String>> {
    admitted(call, operation, object, old, cx, |request| admission::mutate(request, root))
}

fn judge(
    call: &Call,
    operation: Operation,
    object: &mut Value,
    old: Option<&Value>,
    cx: &mut control::Context,
    root: &State,
) -> Result<()> {
    let name = meta::name(object).to_owned();
    let errors = call.kind.validate(object, old);
    if !errors.is_empty() {
        return Err(Failure::invalid(call.kind, &name, &errors));
    }
    if call.kind.group == rbac::GROUP {
        let (user, resource, path) = (&call.user, call.kind.plural, call.resource.name.as_str());
        let write = escalation::Write { user, resource, name: path, object, old };
        escalation::check(&write, &call.server.authorizer.index(root)).map_err(|refused| match refused {
            Refused::Forbidden(why) => Failure::forbidden(call.kind, &name, why),
            Refused::NotFound(why) => Failure::role_missing(why),
        })?;
    }
    if let Some(old) = old {
        check_signer(call, object, old, root)?;
    }
    permit(call, operation, object, old, cx, root)
}

/// Who decides on a request for a certificate, or answers it, needs its signer's word.
fn check_signer(call: &Call, object: &Value, old: &Value, root: &State) -> Result<()> {
    let Some(verb) = signers::verb(call.kind, &call.resource.subresource, object, old) else { return Ok(()) };
    let signer = meta::text(object, &["spec", "signerName"]);
    let allowed = |asked| call.server.authorizer.decide(&call.user, &asked, root).allowed;
    if signers::checks(verb, signer).into_iter().any(allowed) {
        return Ok(());
    }
    let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
    Err(Failure::forbidden(call.kind, meta::name(object), why))
}

/// The validating half of admission: all that a deletion passes.
pub fn permit(
    call: &Call,
    operation: Operation,
    object: &mut Value,
    old: Option<&Value>,
    cx: &mut control::Context,
    root: &State,
) -> Result<()> {
    admitted(call, operation, object, old, cx, |request| admission::validate(request, root))
}

/// Puts the write before one half of admission.
fn admitted<T>(
    call: &Call,
    operation: Operation,
    object: &mut Value,
    old: Option<&Value>,
    cx: &mut control::Context,
    judge: impl FnOnce(&mut admission::Request<'_>) -> Result<T, Denied>,
) -> Result<T> {
    let name = meta::name(object).to_owned();
    let settings = cx.settings.clone();
    let mut request = admission::Request {
        kind: call.kind,
        operation,
        object,
        old,
        user: &call.user,
        now: cx.now,
        seed: cx.draw(),
        settings: &settings,
    };
    judge(&mut request).map_err(|denied| denial(call.kind, &name, &denied))
}

fn denial(kind: &Kind, name: &str, denied: &Denied) -> Failure {
    match denied {
        Denied::Forbidden(why) => Failure::forbidden(kind, name, why),
        Denied::Invalid(errors) => Failure::invalid(kind, name, errors),
        Denied::NoNamespace(namespace) => Failure::namespace_missing(namespace),
        Denied::Terminating(namespace) => Failure::namespace_terminating(kind, name, namespace),
    }
}

/// The Put of a complete object.
pub fn put(kind: &Kind, object: &Value) -> Result<Put> {
    let put = record::put(kind, object).map_err(|error| Failure::invalid(kind, meta::name(object), &[error]))?;
    record::check_size(&put).map_err(Failure::too_large)?;
    Ok(put)
}

/// What `apply` would refuse for the quotas of the namespace, for a dry run.
pub fn within_quota(call: &Call, put: &Put, root: &State) -> Result<()> {
    match root.exceeded(&put.key, &put.header) {
        Some(exceeded) => Err(refused(call, &put.key.name, Refusal::Exceeded(exceeded))),
        None => Ok(()),
    }
}

/// Proposes on behalf of a user and returns the outcome once it is applied here.
pub async fn propose(call: &Call, cx: &control::Context, expects: Vec<Expect>, ops: Vec<Op>) -> Result<Outcome> {
    let ops = ops.into_iter().map(|op| sealed(call, op)).collect::<Result<_>>()?;
    let command = Command { time_ms: cx.now_ms(), expects, ops, ..Command::default() };
    Ok(call.replica().propose(command).await?)
}

/// What is secret leaves this process sealed.
fn sealed(call: &Call, mut op: Op) -> Result<Op> {
    if let (Some(state::op::Kind::Put(put)), Some(sealer)) = (&mut op.kind, call.sealer())
        && seal::concerns(&put.key)
    {
        *put = seal::seal_put(std::mem::take(put), sealer).map_err(Failure::unavailable)?;
    }
    Ok(op)
}

/// The record that a Put became, for the answer.
pub fn stored(put: Put, revision: u64) -> Record {
    Record {
        header: put.header,
        body: put.body,
        split: put.split,
        managed_fields: put.managed_fields,
        created: revision,
        revision,
    }
}

/// A refusal that judging again cannot change.
pub fn refused(call: &Call, name: &str, refusal: Refusal) -> Failure {
    let kind = call.kind;
    match refusal {
        Refusal::AlreadyExists(_) => Failure::already_exists(kind, name),
        Refusal::NotFound(_) => Failure::not_found(kind, name),
        Refusal::Conflict(_) => Failure::modified(kind, name),
        Refusal::NamespaceMissing(key) => Failure::namespace_missing(&key.name),
        Refusal::NamespaceTerminating(key) => Failure::namespace_terminating(kind, name, &key.name),
        Refusal::Claimed(claim) => {
            let field = if claim.starts_with("nodeport/") { "spec.ports" } else { "spec.clusterIPs" };
            let error =
                FieldError::new(field, Reason::Invalid, format!("provided value is already allocated: {claim}"));
            Failure::invalid(kind, name, &[error])
        }
        Refusal::Bind(why) => Failure::conflict(kind, name, why),
        Refusal::Deposed(term) => Failure::unavailable(format!("term {term} is over")),
        Refusal::Invalid(why) => Failure::bad_request(why),
        Refusal::OverQuota(why) => Failure::insufficient_storage(why),
        Refusal::Exceeded(exceeded) => Failure::forbidden(kind, name, admission::exceeded(&exceeded)),
    }
}

/// The named object as this master has it; `fresh` asks for the newest acknowledged state.
pub async fn root(call: &Call, fresh: bool) -> Result<Arc<State>> {
    if fresh { Ok(call.replica().read().await?) } else { Ok(call.replica().root()) }
}
