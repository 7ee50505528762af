//! What volumes and claims of volumes share: access modes, classes and sizes.

use serde_json::{Value, json};

use crate::{At, Errors, meta, names, quantity};

/// The modes and the letters they are printed as, in that order.
const ACCESS_MODES: &[(&str, &str)] =
    &[("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

pub(super) fn default_mode(object: &mut Value) {
    meta::set_empty(object, &["spec", "volumeMode"], json!("Filesystem"));
}

/// Modes, class and mode of use; `none` is said where no access mode is given.
pub(super) fn validate(spec: &At<'_>, none: &str, errors: &mut Errors) {
    let modes = spec.field("accessModes");
    if modes.is_empty() {
        errors.push(modes.required(none));
    }
    for mode in modes.items() {
        if !ACCESS_MODES.iter().any(|(name, _)| *name == mode.text()) {
            let at = At::new(modes.path.clone(), mode.value);
            errors.push(at.unsupported(&["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"]));
        }
    }
    let alone = modes.items().filter(|mode| mode.text() == "ReadWriteOncePod").count();
    if alone > 0 && alone < modes.len() {
        errors.push(modes.forbidden("may not use ReadWriteOncePod with other access modes"));
    }
    let class = spec.field("storageClassName");
    if !class.is_empty() {
        errors.extend(names::subdomain(class.text()).into_iter().map(|message| class.invalid(message)));
    }
    spec.field("volumeMode").one_of(&["Block", "Filesystem"], false, errors);
}

/// `RWO,ROX`.
pub(super) fn access_modes(object: &Value, path: &[&str]) -> String {
    let modes = meta::list(object, path);
    let letters: Vec<&str> = ACCESS_MODES
        .iter()
        .filter(|(name, _)| modes.iter().any(|mode| mode == name))
        .map(|(_, letters)| *letters)
        .collect();
    letters.join(",")
}

/// The class, which an annotation of the first days may name too.
pub(super) fn class(object: &Value) -> &str {
    match meta::annotation(object, CLASS_ANNOTATION) {
        "" => meta::text(object, &["spec", "storageClassName"]),
        annotation => annotation,
    }
}

pub(super) fn phase(object: &Value) -> &str {
    if meta::is_deleting(object) { "Terminating" } else { meta::text(object, &["status", "phase"]) }
}

/// The size at a path as it is printed.
pub(super) fn size(object: &Value, path: &[&str]) -> String {
    match meta::text(object, path) {
        "" => "0".to_owned(),
        size => quantity::canonical(size),
    }
}
