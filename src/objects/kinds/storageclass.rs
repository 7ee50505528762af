//! StorageClass: who makes volumes, and how.

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

use super::{Column, Kind, Rules, Typed, printed};
use crate::{At, Errors, Reason, meta, names};

const PARAMETERS_MAX: usize = 512;
/// Of all parameters together.
const PARAMETERS_BYTES_MAX: usize = 256 * 1024;
const DEFAULT_ANNOTATIONS: &[&str] =
    &["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

static COLUMNS: &[Column] = &[
    printed::NAME,
    printed::column("Provisioner", "string", 0, "provisioner indicates the type of the provisioner."),
    printed::column(
        "ReclaimPolicy",
        "string",
        0,
        "reclaimPolicy controls the reclaimPolicy for dynamically provisioned PersistentVolumes of this storage class.",
    ),
    printed::column(
        "VolumeBindingMode",
        "string",
        0,
        "volumeBindingMode indicates how PersistentVolumeClaims should be provisioned and bound.",
    ),
    printed::column(
        "AllowVolumeExpansion",
        "string",
        0,
        "allowVolumeExpansion shows whether the storage class allow volume expand.",
    ),
    printed::AGE,
];

pub(super) const KIND: Kind = Kind {
    group: "storage.k8s.io",
    kind: "StorageClass",
    plural: "storageclasses",
    singular: "storageclass",
    short_names: &["sc"],
    namespaced: false,
    columns: COLUMNS,
    rules: Rules {
        typed: Typed::of::<StorageClass>(),
        default: |object| {
            meta::set_absent(object, &["reclaimPolicy"], json!("Delete"));
            meta::set_absent(object, &["volumeBindingMode"], json!("Immediate"));
        },
        validate,
        row,
        ..Rules::NONE
    },
    ..Kind::BASE
};

fn validate(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let provisioner = new.field("provisioner");
    if provisioner.is_empty() {
        errors.push(provisioner.required(""));
    } else {
        let lower = provisioner.text().to_ascii_lowercase();
        errors.extend(names::qualified_name(&lower).into_iter().map(|message| provisioner.invalid(message)));
    }
    parameters(&new.field("parameters"), errors);
    let (reclaim, binding) = (new.field("reclaimPolicy"), new.field("volumeBindingMode"));
    reclaim.one_of(&["Delete", "Retain"], true, errors);
    binding.one_of(&["Immediate", "WaitForFirstConsumer"], true, errors);
    let Some(old) = old else { return };
    for field in ["parameters", "provisioner", "reclaimPolicy"] {
        let (new, old) = (new.field(field), old.field(field));
        if new.value != old.value && !(new.is_empty() && old.is_empty()) {
            errors.push(new.forbidden(format!("updates to {field} are forbidden.")));
        }
    }
    binding.immutable(&old.field("volumeBindingMode"), errors);
}

fn parameters(parameters: &At<'_>, errors: &mut Errors) {
    if parameters.len() > PARAMETERS_MAX {
        errors.push(parameters.error(Reason::TooLong, format!("may not be more than {PARAMETERS_MAX} entries")));
    }
    let mut bytes = 0;
    for (key, value) in parameters.entries() {
        if key.is_empty() {
            errors.push(parameters.invalid_value("", "field can not be empty."));
        }
        bytes += key.len() + value.text().len();
    }
    if bytes > PARAMETERS_BYTES_MAX {
        errors.push(parameters.too_long(PARAMETERS_BYTES_MAX));
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let is_default = DEFAULT_ANNOTATIONS.iter().any(|key| meta::annotation(object, key) == "true");
    let name = format!("{}{}", meta::name(object), if is_default { " (default)" } else { "" });
    vec![
        name.into(),
        meta::text(object, &["provisioner"]).into(),
        printed::text_or(object, &["reclaimPolicy"], "Delete"),
        printed::text_or(object, &["volumeBindingMode"], "Immediate"),
        meta::flag(object, &["allowVolumeExpansion"]).into(),
        printed::age(object, now),
    ]
}
