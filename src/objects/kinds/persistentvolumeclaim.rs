//! PersistentVolumeClaim: a namespace's wish for storage, and once bound its right to one volume.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::{Value, json};

use super::{Column, Kind, Rules, Typed, amount, printed, volume};
use crate::quantity::Quantity;
use crate::quota::{self, Uses};
use crate::{At, Errors, meta, patch, selector};

const ONLY: &str =
    "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";

static COLUMNS: &[Column] = &[
    printed::NAME,
    printed::column("Status", "string", 0, "phase represents the current phase of PersistentVolumeClaim."),
    printed::column(
        "Volume",
        "string",
        0,
        "volumeName is the binding reference to the PersistentVolume backing this claim.",
    ),
    printed::column("Capacity", "string", 0, "capacity represents the actual resources of the underlying volume."),
    printed::column(
        "Access Modes",
        "string",
        0,
        "accessModes contains the actual access modes the volume backing the PVC has.",
    ),
    printed::column("StorageClass", "string", 0, "StorageClass of the pvc"),
    printed::column("VolumeAttributesClass", "string", 0, "VolumeAttributesClass of the pvc"),
    printed::AGE,
    printed::column("VolumeMode", "string", 1, "volumeMode defines what type of volume is required by the claim."),
];

pub(super) const KIND: Kind = Kind {
    kind: "PersistentVolumeClaim",
    plural: "persistentvolumeclaims",
    singular: "persistentvolumeclaim",
    short_names: &["pvc"],
    status: true,
    kept_only: true,
    columns: COLUMNS,
    rules: Rules {
        typed: Typed::of::<PersistentVolumeClaim>(),
        default,
        validate,
        create: |object| meta::set(object, &["status"], json!({"phase": "Pending"})),
        uses,
        row,
        lists: &patch::CONDITIONED,
        ..Rules::NONE
    },
    ..Kind::BASE
};

/// Of a claim, or of a template of claims.
pub(super) fn default(object: &mut Value) {
    volume::default_mode(object);
    meta::set_empty(object, &["status", "phase"], json!("Pending"));
    for list in ["requests", "limits"] {
        amount::canonical(object, &["spec", "resources", list]);
    }
    // Two fields for one thing; the newer one can say more.
    let source = meta::at(object, &["spec", "dataSource"]).cloned();
    let reference = meta::at(object, &["spec", "dataSourceRef"]).cloned();
    match (source, reference) {
        (Some(source), None) => meta::set(object, &["spec", "dataSourceRef"], source),
        (None, Some(reference)) if meta::text(&reference, &["namespace"]).is_empty() => {
            meta::set(object, &["spec", "dataSource"], reference);
        }
        _ => {}
    }
}

fn validate(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let spec = new.field("spec");
    volume::validate(&spec, "at least 1 access mode is required", errors);
    selector::validate(&spec.field("selector"), errors);
    let resources = spec.field("resources");
    let wanted = resources.fields(&["requests", "storage"]);
    let at = At::new(resources.key("storage").path, wanted.value);
    if wanted.is_set() {
        amount::positive_quantity(&at, errors);
    } else {
        errors.push(at.required(""));
    }
    if let Some(old) = old {
        update(&spec, old, errors);
    }
}

/// Storage in all, and of the claim's class.
fn uses(claim: &Value, uses: &mut Uses) {
    let storage = Quantity::parse(meta::text(claim, &["spec", "resources", "requests", "storage"]));
    let bytes = storage.map_or(0, |storage| quota::amount("storage", &storage));
    uses.add("requests.storage", bytes);
    let class = volume::class(claim);
    if !class.is_empty() {
        uses.add(format!("{class}.storageclass.storage.k8s.io/requests.storage"), bytes);
        uses.add(format!("{class}.storageclass.storage.k8s.io/persistentvolumeclaims"), 1);
    }
    let attributes = meta::text(claim, &["spec", "volumeAttributesClassName"]);
    if !attributes.is_empty() {
        uses.word("VolumeAttributesClass");
        uses.word(format!("VolumeAttributesClass={attributes}"));
    }
}

/// A claim is bound once, and once bound may grow.
fn update(spec: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let before = old.field("spec");
    let size = ["resources", "requests", "storage"];
    let mut same = spec.value.clone();
    if before.field("volumeName").is_empty() {
        meta::copy(&mut same, before.value, &["volumeName"]);
    }
    // A default class that came later is written into claims that named none.
    if !before.field("storageClassName").is_set() {
        meta::copy(&mut same, before.value, &["storageClassName"]);
    }
    if old.fields(&["status", "phase"]).text() == "Bound" {
        meta::copy(&mut same, before.value, &size);
        meta::copy(&mut same, before.value, &["volumeAttributesClassName"]);
    }
    // "" is no class at all, and another thing than not to say one.
    let class = meta::at(&same, &["storageClassName"]) != meta::at(before.value, &["storageClassName"]);
    if class || !meta::alike(&same, before.value) {
        errors.push(spec.forbidden(ONLY));
    }
    let amount = |at: &At<'_>| Quantity::parse(at.text()).unwrap_or(Quantity::ZERO);
    let (wanted, capacity) = (spec.fields(&size), old.fields(&["status", "capacity", "storage"]));
    // What was asked for in vain may be taken back, what is there already may not.
    if amount(&wanted) < amount(&before.fields(&size)) && amount(&wanted) <= amount(&capacity) {
        errors.push(wanted.forbidden("field can not be less than status.capacity"));
    }
    spec.field("volumeMode").immutable(&before.field("volumeMode"), errors);
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let bound = meta::text(object, &["spec", "volumeName"]);
    let (size, modes) = match bound {
        "" => (String::new(), String::new()),
        _ => (
            volume::size(object, &["status", "capacity", "storage"]),
            volume::access_modes(object, &["status", "accessModes"]),
        ),
    };
    vec![
        printed::name(object),
        volume::phase(object).into(),
        bound.into(),
        size.into(),
        modes.into(),
        volume::class(object).into(),
        printed::text_or(object, &["spec", "volumeAttributesClassName"], "<unset>"),
        printed::age(object, now),
        printed::text_or(object, &["spec", "volumeMode"], "<unset>"),
    ]
}
