//! Classes that objects get which name none: the newest that calls itself the default.

use std::cmp::Reverse;

use objects::meta;
use state::State;

use super::{Denied, Request};
use crate::record;

const STORAGE_DEFAULT: &[&str] =
    &["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
const INGRESS_DEFAULT: &[&str] = &["ingressclass.kubernetes.io/is-default-class"];
/// How claims and Ingresses named their class in the first days.
const STORAGE_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const INGRESS_CLASS: &str = "kubernetes.io/ingress.class";

pub(super) fn of_storage(request: &mut Request<'_>, root: &State) -> Result<(), Denied> {
    default(request, root, ("storage.k8s.io", "storageclasses"), STORAGE_DEFAULT, (STORAGE_CLASS, "storageClassName"));
    Ok(())
}

pub(super) fn of_ingress(request: &mut Request<'_>, root: &State) -> Result<(), Denied> {
    default(
        request,
        root,
        ("networking.k8s.io", "ingressclasses"),
        INGRESS_DEFAULT,
        (INGRESS_CLASS, "ingressClassName"),
    );
    Ok(())
}

fn default(
    request: &mut Request<'_>,
    root: &State,
    (group, resource): (&str, &str),
    marks: &[&str],
    (annotation, field): (&str, &str),
) {
    // An empty name is a choice too: no class at all.
    let named = meta::at(request.object, &["metadata", "annotations", annotation]).is_some()
        || meta::at(request.object, &["spec", field]).is_some();
    if named {
        return;
    }
    let classes = root.list(group, resource, None).filter(|(_, class)| {
        let class = record::parse(class);
        marks.iter().any(|mark| meta::annotation(&class, mark) == "true")
    });
    if let Some((key, _)) = classes.min_by_key(|(key, class)| (Reverse(class.header.creation_ms), *key)) {
        meta::set(request.object, &["spec", field], key.name.as_str().into());
    }
}
