//! Namespaces: objects are made in living ones; every one can be selected by its name, is finalized, and some stay for ever.

use objects::meta;
use serde_json::json;
use state::{Key, State};

use super::{Denied, Operation, Request};

/// The label by which selectors find a namespace by its name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// The finalizer that the namespace controller removes when nothing is left inside.
const FINALIZER: &str = "kubernetes";
/// Clients and the system itself rely on these.
const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

/// Nothing new is made in a namespace that is not there or is being deleted. `apply` has the last word.
pub(super) fn lives(request: &mut Request<'_>, root: &State) -> Result<(), Denied> {
    if !request.kind.namespaced {
        return Ok(());
    }
    let name = meta::namespace(request.object);
    match root.get(&Key::namespace(name)) {
        None => Err(Denied::NoNamespace(name.to_owned())),
        Some(namespace) if namespace.header.deletion_ms != 0 => Err(Denied::Terminating(name.to_owned())),
        Some(_) => Ok(()),
    }
}

pub(super) fn identity(request: &mut Request<'_>, _root: &State) -> Result<(), Denied> {
    let name = meta::name(request.object).to_owned();
    meta::set(request.object, &["metadata", "labels", NAME_LABEL], name.into());
    let finalizers = meta::list(request.object, &["spec", "finalizers"]);
    if request.operation == Operation::Create && !finalizers.iter().any(|f| f == FINALIZER) {
        let mut finalizers = finalizers.to_vec();
        finalizers.push(json!(FINALIZER));
        meta::set(request.object, &["spec", "finalizers"], finalizers.into());
    }
    Ok(())
}

pub(super) fn protect(request: &Request<'_>, _root: &State) -> Result<(), Denied> {
    if IMMORTAL.contains(&meta::name(request.object)) {
        return Err(Denied::Forbidden("this namespace may not be deleted".into()));
    }
    Ok(())
}
