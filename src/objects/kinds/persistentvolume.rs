//! PersistentVolume: storage that outlives pods, until a claim takes it.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolume;
use serde_json::{Value, json};

use super::{Column, Kind, Rules, Typed, amount, printed, volume};
use crate::{At, Errors, Reason, meta};

static COLUMNS: &[Column] = &[
    printed::NAME,
    printed::column(
        "Capacity",
        "string",
        0,
        "capacity is the description of the persistent volume's resources and capacity.",
    ),
    printed::column("Access Modes", "string", 0, "accessModes contains all ways the volume can be mounted."),
    printed::column(
        "Reclaim Policy",
        "string",
        0,
        "persistentVolumeReclaimPolicy defines what happens to a persistent volume when released from its claim.",
    ),
    printed::column(
        "Status",
        "string",
        0,
        "phase indicates if a volume is available, bound to a claim, or released by a claim.",
    ),
    printed::column(
        "Claim",
        "string",
        0,
        "claimRef is part of a bi-directional binding between PersistentVolume and PersistentVolumeClaim.",
    ),
    printed::column("StorageClass", "string", 0, "StorageClass of the pv"),
    printed::column("VolumeAttributesClass", "string", 0, "VolumeAttributesClass of the pv"),
    printed::column(
        "Reason",
        "string",
        0,
        "reason is a brief CamelCase string that describes any failure and is meant for machine parsing and tidy display in the CLI.",
    ),
    printed::AGE,
    printed::column(
        "VolumeMode",
        "string",
        1,
        "volumeMode defines if a volume is intended to be used with a formatted filesystem or to remain in raw block state.",
    ),
];

/// The fields of the spec that say where the storage is.
const SOURCES: &[&str] = &[
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "hostPath",
    "iscsi",
    "local",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

pub(super) const KIND: Kind = Kind {
    kind: "PersistentVolume",
    plural: "persistentvolumes",
    singular: "persistentvolume",
    short_names: &["pv"],
    namespaced: false,
    status: true,
    columns: COLUMNS,
    rules: Rules {
        typed: Typed::of::<PersistentVolume>(),
        default,
        validate,
        create: |object| meta::set(object, &["status"], json!({"phase": "Pending"})),
        row,
        ..Rules::NONE
    },
    ..Kind::BASE
};

fn default(object: &mut Value) {
    meta::set_empty(object, &["spec", "persistentVolumeReclaimPolicy"], json!("Retain"));
    volume::default_mode(object);
    if let Some(path) = object.pointer_mut("/spec/hostPath") {
        meta::set_absent(path, &["type"], json!(""));
    }
    amount::canonical(object, &["spec", "capacity"]);
}

fn validate(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let spec = new.field("spec");
    volume::validate(&spec, "", errors);
    capacity(&spec.field("capacity"), errors);
    let policy = spec.field("persistentVolumeReclaimPolicy");
    policy.one_of(&["Delete", "Recycle", "Retain"], true, errors);
    let sources: Vec<At<'_>> = SOURCES.iter().map(|field| spec.field(field)).filter(At::is_set).collect();
    if sources.is_empty() {
        errors.push(spec.required("must specify a volume type"));
    }
    for extra in sources.iter().skip(1) {
        errors.push(extra.forbidden("may not specify more than 1 volume type"));
    }
    host_path(&spec.field("hostPath"), policy.text(), errors);
    let local = spec.field("local");
    if local.is_set() && !spec.fields(&["nodeAffinity", "required"]).is_set() {
        errors.push(spec.field("nodeAffinity").required("Local volume requires node affinity"));
    }
    for (source, fields) in
        [("local", &["path"][..]), ("nfs", &["server", "path"]), ("csi", &["driver", "volumeHandle"])]
    {
        let source = spec.field(source);
        for at in fields.iter().map(|field| source.field(field)).filter(|at| source.is_set() && at.is_empty()) {
            errors.push(at.required(""));
        }
    }
    let path = spec.fields(&["nfs", "path"]);
    if !path.is_empty() && !path.text().starts_with('/') {
        errors.push(path.invalid("must be an absolute path"));
    }
    if let Some(old) = old {
        update(&spec, &old.field("spec"), errors);
    }
}

fn capacity(capacity: &At<'_>, errors: &mut Errors) {
    if capacity.is_empty() {
        errors.push(capacity.required(""));
    } else if capacity.len() > 1 || !capacity.field("storage").is_set() {
        errors.push(capacity.unsupported(&["storage"]));
    }
    for (_, at) in capacity.entries() {
        amount::positive_quantity(&at, errors);
    }
}

fn host_path(source: &At<'_>, policy: &str, errors: &mut Errors) {
    let path = source.field("path");
    if !source.is_set() {
    } else if path.is_empty() {
        errors.push(path.required(""));
    } else if path.text().split('/').any(|part| part == "..") {
        errors.push(path.invalid("must not contain '..'"));
    } else if policy == "Recycle" && path.text().trim_end_matches('/').is_empty() {
        let at = At::new("spec.persistentVolumeReclaimPolicy", source.value);
        errors.push(at.forbidden("may not be 'recycle' for a hostPath mount of '/'"));
    }
}

/// Where the storage is does not change under a claim.
fn update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    if SOURCES.iter().any(|field| !meta::alike(new.field(field).value, old.field(field).value)) {
        let at = new.field("persistentvolumesource");
        errors.push(at.error(Reason::Forbidden, "spec.persistentvolumesource is immutable after creation"));
    }
    new.field("volumeMode").immutable(&old.field("volumeMode"), errors);
    if old.field("nodeAffinity").is_set() {
        new.field("nodeAffinity").immutable(&old.field("nodeAffinity"), errors);
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let claim = match meta::at(object, &["spec", "claimRef"]) {
        Some(claim) => format!("{}/{}", meta::text(claim, &["namespace"]), meta::text(claim, &["name"])),
        None => String::new(),
    };
    vec![
        printed::name(object),
        volume::size(object, &["spec", "capacity", "storage"]).into(),
        volume::access_modes(object, &["spec", "accessModes"]).into(),
        meta::text(object, &["spec", "persistentVolumeReclaimPolicy"]).into(),
        volume::phase(object).into(),
        claim.into(),
        volume::class(object).into(),
        printed::text_or(object, &["spec", "volumeAttributesClassName"], "<unset>"),
        meta::text(object, &["status", "reason"]).into(),
        printed::age(object, now),
        printed::text_or(object, &["spec", "volumeMode"], "<unset>"),
    ]
}
