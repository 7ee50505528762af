//! From "this object should look so" to commands: creation with defaults and admission, updates and deletions with the
//! precondition of what was read, and Event objects for users.
//!
//! **Invariant:** every command expects what its plan has seen, so a plan that comes late changes nothing.

use std::sync::Arc;

use objects::selector::LabelSelector;
use objects::{Kind, Kinds, meta};
use serde_json::{Value, json};
use state::{Command, Expect, Key, Op, Record, State};

use crate::{Context, admission, authz, json, record};

/// The finalizer with which an owner waits for its dependents.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Grace of a pod that names none.
const POD_GRACE_S: i64 = 30;

/// A built-in kind; `None` only for a resource this version does not know.
pub fn kind(group: &str, resource: &str) -> Option<&'static Kind> {
    Kinds::builtin().by_resource(group, resource)
}

/// A command of one op, with its preconditions.
pub fn command(expects: Vec<Expect>, op: Op) -> Command {
    Command { expects, ops: vec![op], ..Command::default() }
}

/// Creates the object, with uid, creation time, defaults and admission.
///
/// # Errors
/// Why it cannot be made: what admission refuses.
pub fn create(
    root: &State,
    group: &str,
    resource: &str,
    mut object: Value,
    cx: &mut Context,
) -> Result<Command, String> {
    let kind = kind(group, resource).ok_or_else(|| format!("{resource} of {group:?} are not known here"))?;
    json::set(&mut object, "metadata.uid", cx.uid().into());
    json::set(&mut object, "metadata.creationTimestamp", cx.time().into());
    kind.default(&mut object);
    let (user, settings) = (controllers_user(), cx.settings.clone());
    let mut request = admission::Request {
        kind,
        operation: admission::Operation::Create,
        object: &mut object,
        old: None,
        user: &user,
        now: cx.now,
        seed: cx.draw(),
        settings: &settings,
    };
    admission::mutate(&mut request, root).map_err(|denied| denied.to_string())?;
    kind.default(request.object);
    kind.prepare_create(request.object);
    // Of a pod only the template was judged, and admission may have added what is not honoured.
    let errors = if kind.graceful { kind.validate(request.object, None) } else { Vec::new() };
    if !errors.is_empty() {
        return Err(objects::aggregate(&errors));
    }
    admission::validate(&request, root).map_err(|denied| denied.to_string())?;
    let put = record::put(kind, &object).map_err(|error| error.to_string())?;
    Ok(command(vec![Expect::absent(put.key.clone())], Op::put(put)))
}

/// Why `apply` would refuse the command on this root for the quotas of its namespace.
pub fn exceeded(root: &State, command: &Command) -> Option<String> {
    command
        .ops
        .iter()
        .find_map(|op| match &op.kind {
            Some(state::op::Kind::Put(put)) => root.exceeded(&put.key, &put.header),
            _ => None,
        })
        .map(|exceeded| admission::exceeded(&exceeded))
}

/// The identity controllers create objects with.
fn controllers_user() -> authz::User {
    authz::User {
        name: "system:kube-controller-manager".into(),
        groups: vec!["system:masters".into(), "system:authenticated".into()],
        ..authz::User::default()
    }
}

/// Replaces the object that was read as `present`; `None` when nothing would change.
pub fn update(key: &Key, present: &Record, object: &Value) -> Option<Command> {
    let put = record::put(kind(&key.group, &key.resource)?, object).ok()?;
    if put.body == present.body && put.header == present.header {
        return None;
    }
    Some(command(vec![Expect::revision(key.clone(), present.revision)], Op::put(put)))
}

/// The same for a change of spec: raises the generation, of kinds that have one.
pub fn update_spec(key: &Key, present: &Record, object: &mut Value) -> Option<Command> {
    update(key, present, object)?;
    if kind(&key.group, &key.resource)?.has_generation() {
        json::set(object, "metadata.generation", (meta::generation(object) + 1).into());
    }
    update(key, present, object)
}

/// Removes the key at once, whatever its finalizers.
pub fn remove(key: &Key, present: &Record) -> Command {
    command(vec![Expect::uid(key.clone(), present.header.uid.clone())], Op::delete(key.clone()))
}

/// Deletes as a client's DELETE would: a running pod is marked and gets its grace, an object with finalizers is marked,
/// everything else goes. `None` when that has been done already.
pub fn delete(key: &Key, present: &Record, cx: &Context) -> Option<Command> {
    delete_with(key, present, cx, |_| {})
}

/// The same; what is only marked is edited too.
pub fn delete_with(key: &Key, present: &Record, cx: &Context, edit: impl FnOnce(&mut Value)) -> Option<Command> {
    let header = &present.header;
    let kind = kind(&key.group, &key.resource)?;
    let on_node = kind.graceful && !header.node.is_empty();
    // Its kubelet says when nothing of it is left; that its containers have ended is not yet that.
    if on_node && header.deletion_ms != 0 {
        return None;
    }
    let graceful = on_node && !is_finished(present);
    if !graceful && header.finalizers.is_empty() {
        return Some(remove(key, present));
    }
    if header.deletion_ms != 0 {
        return None;
    }
    let mut object = record::parse(present);
    let grace_s =
        graceful.then(|| json::int(&object, "spec.terminationGracePeriodSeconds").unwrap_or(POD_GRACE_S).max(1));
    kind.mark_deleted(&mut object, cx.now, grace_s);
    edit(&mut object);
    update(key, present, &object)
}

/// Marks the object deleted and makes it wait for its dependents. `None` when it is being deleted already.
pub fn delete_after_dependents(key: &Key, present: &Record, cx: &Context) -> Option<Command> {
    if present.header.deletion_ms != 0 {
        return None;
    }
    let mut object = record::parse(present);
    kind(&key.group, &key.resource)?.mark_deleted(&mut object, cx.now, None);
    json::list(&mut object, "metadata.finalizers").push(FOREGROUND.into());
    update(key, present, &object)
}

/// Takes one finalizer away; removes the object if it was the last of one being deleted.
pub fn drop_finalizer(key: &Key, present: &Record, finalizer: &str) -> Option<Command> {
    let header = &present.header;
    if !header.finalizers.iter().any(|f| f == finalizer) {
        return None;
    }
    let last = header.finalizers.iter().all(|f| f == finalizer);
    let running = key.resource == "pods" && !header.node.is_empty() && !is_finished(present);
    if last && header.deletion_ms != 0 && !running {
        return Some(command(vec![Expect::revision(key.clone(), present.revision)], Op::delete(key.clone())));
    }
    let mut object = record::parse(present);
    json::list(&mut object, "metadata.finalizers").retain(|f| f.as_str() != Some(finalizer));
    if last {
        json::remove(&mut object, "metadata.finalizers");
    }
    update(key, present, &object)
}

/// Takes one owner out of a dependent.
pub fn disown(key: &Key, present: &Record, owner: &str) -> Option<Command> {
    let mut object = record::parse(present);
    json::list(&mut object, "metadata.ownerReferences").retain(|reference| json::text(reference, "uid") != owner);
    if json::items(&object, "metadata.ownerReferences").is_empty() {
        json::remove(&mut object, "metadata.ownerReferences");
    }
    update(key, present, &object)
}

/// Every object of every kind.
pub fn everything(root: &State) -> impl Iterator<Item = (&Key, &Arc<Record>)> {
    Kinds::builtin().all().flat_map(|kind| root.list(kind.group, kind.plural, None))
}

/// A field of the header; "" where there is none.
pub fn field<'a>(record: &'a Record, name: &str) -> &'a str {
    record.header.fields.get(name).unwrap_or("")
}

/// Whether the object's labels are selected.
pub fn is_selected(selector: &LabelSelector, record: &Record) -> bool {
    selector.selects(|label| record.header.labels.get(label))
}

/// The selected objects of a resource and namespace. Costs what those with the selector's rarest label cost.
pub fn selected<'a>(
    root: &'a State,
    (group, resource): (&'a str, &'a str),
    namespace: &'a str,
    selector: &LabelSelector,
) -> Vec<(&'a Key, &'a Arc<Record>)> {
    let pairs = selector.pairs();
    let mut found = match pairs.is_empty() {
        true => root.list(group, resource, Some(namespace)).collect(),
        false => root.labelled(group, resource, namespace, &pairs),
    };
    found.retain(|(_, record)| is_selected(selector, record));
    found
}

/// Whether the pod's containers have all stopped for good.
pub fn is_finished(pod: &Record) -> bool {
    matches!(field(pod, "status.phase"), "Succeeded" | "Failed")
}

/// The uid of the owner that controls the object.
pub fn controller_of(record: &Record) -> Option<&str> {
    record.header.owners.iter().find(|owner| owner.controller).map(|owner| owner.uid.as_str())
}

/// The command together with the Event that tells of it: both happen or neither, so that none tells of what never was and
/// nothing happens untold.
pub fn told(mut command: Command, event: Option<Command>) -> Command {
    if let Some(event) = event {
        command.expects.extend(event.expects);
        command.ops.extend(event.ops);
    }
    command
}

/// What an Event says, beside the object it is about.
pub struct Notice<'a> {
    pub component: &'a str,
    /// `Normal` or `Warning`.
    pub kind: &'a str,
    pub reason: &'a str,
    pub message: &'a str,
}

/// Puts an Event about `object`. Its name follows from what it says, so saying it again raises the count. `None` where
/// the namespace, or a store over its quota, takes no new objects: an Event keeps nothing else from happening.
pub fn notice(root: &State, object: &Value, notice: &Notice<'_>, cx: &mut Context) -> Option<Command> {
    let namespace = match meta::namespace(object) {
        "" => "default",
        namespace => namespace,
    };
    let home = root.get(&Key::namespace(namespace))?;
    let full = root.quota() != 0 && root.bytes() > root.quota();
    if home.header.deletion_ms != 0 || full {
        return None;
    }
    let kind = kind("", "events")?;
    let uid = match (meta::uid(object), json::text(object, "kind")) {
        // Kubernetes names a node by its name here, and kubectl asks for both.
        (uid, _) if !uid.is_empty() => uid,
        _ => meta::name(object),
    };
    let what = format!("{uid}/{}/{}/{}/{}", notice.component, notice.kind, notice.reason, notice.message);
    let base: String = meta::name(object).chars().take(200).collect();
    let name = format!("{base}.{:08x}{:08x}", json::fnv32(what.as_bytes()), json::fnv32(notice.message.as_bytes()));
    let key = record::key(kind, namespace, &name);
    if let Some(present) = root.get(&key) {
        let mut event = record::parse(present);
        let count = json::count(&event, "count") + 1;
        json::set(&mut event, "count", count.into());
        json::set(&mut event, "lastTimestamp", cx.time().into());
        return update(&key, present, &event);
    }
    let event = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": cx.uid(),
            "creationTimestamp": cx.time(),
        },
        "involvedObject": {
            "apiVersion": json::text(object, "apiVersion"),
            "kind": json::text(object, "kind"),
            "name": meta::name(object),
            "namespace": meta::namespace(object),
            "uid": uid,
            "resourceVersion": meta::resource_version(object),
        },
        "type": notice.kind,
        "reason": notice.reason,
        "message": notice.message,
        "source": { "component": notice.component },
        "reportingComponent": notice.component,
        "reportingInstance": "",
        "firstTimestamp": cx.time(),
        "lastTimestamp": cx.time(),
        "eventTime": null,
        "count": 1,
    });
    let put = record::put(kind, &event).ok()?;
    Some(command(vec![Expect::absent(key)], Op::put(put)))
}
