//! What may change in a living pod: images, tolerations (more of them), and little else.

use serde_json::Value;

use crate::{At, Errors, meta};

const ONLY: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(super) fn validate(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let containers = new.field("containers");
    if containers.len() != old.field("containers").len() {
        errors.push(containers.forbidden("pod updates may not add or remove containers"));
        return;
    }
    tolerations(&new.field("tolerations"), &old.field("tolerations"), errors);
    let mut same = new.value.clone();
    meta::copy(&mut same, old.value, &["tolerations"]);
    for list in ["containers", "initContainers"] {
        images(&mut same, old.value, list);
    }
    // Binding, which comes by its own way, is judged by `apply`.
    if meta::text(old.value, &["nodeName"]).is_empty() {
        meta::copy(&mut same, old.value, &["nodeName"]);
    }
    if let Some(field) = first_difference(&same, old.value) {
        errors.push(new.forbidden(format!("{ONLY}; {field} differs")));
    }
}

fn images(pod_spec: &mut Value, old: &Value, list: &str) {
    let Some(Value::Array(containers)) = pod_spec.get_mut(list) else { return };
    for (container, old) in containers.iter_mut().zip(meta::list(old, &[list])) {
        meta::copy(container, old, &["image"]);
    }
}

fn tolerations(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let plain = |toleration: &Value| {
        let mut toleration = toleration.clone();
        meta::remove(&mut toleration, &["tolerationSeconds"]);
        toleration
    };
    for before in old.items() {
        if !new.items().any(|now| plain(now.value) == plain(before.value)) {
            errors.push(new.forbidden("existing toleration can not be modified except its tolerationSeconds"));
            return;
        }
    }
}

fn first_difference(new: &Value, old: &Value) -> Option<String> {
    let (new, old) = (new.as_object()?, old.as_object()?);
    let differs = |key: &&String| {
        let (new, old) = (new.get(*key).unwrap_or(&Value::Null), old.get(*key).unwrap_or(&Value::Null));
        new != old && !(meta::is_empty(new) && meta::is_empty(old))
    };
    new.keys().chain(old.keys()).find(differs).map(|key| format!("spec.{key}"))
}
