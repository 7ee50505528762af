//! Namespace: a place for names, with a life of its own (Active, Terminating).

use k8s_openapi::api::core::v1::Namespace;
use serde_json::json;

use super::{Column, Kind, Part, Rules, Subresource, Typed, printed};
use crate::{meta, names, patch};

static COLUMNS: &[Column] =
    &[printed::NAME, printed::column("Status", "string", 0, "The status of the namespace"), printed::AGE];

pub(super) const KIND: Kind = Kind {
    kind: "Namespace",
    plural: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    namespaced: false,
    status: true,
    subresources: &[Subresource { name: "finalize", verbs: &["update"], group: "", version: "v1", kind: "Namespace" }],
    selectable: &["status.phase"],
    columns: COLUMNS,
    rules: Rules {
        typed: Typed::of::<Namespace>(),
        name: names::label,
        create: |object| meta::set(object, &["status"], json!({"phase": "Active"})),
        update: |new, old, part| {
            // Only `/finalize` changes the finalizers of the spec.
            if part == Part::Main {
                meta::copy(new, old, &["spec"]);
            }
        },
        fields: |object, fields| {
            fields.insert("status.phase".into(), meta::text(object, &["status", "phase"]).into());
        },
        row: |object, now| {
            let phase = meta::text(object, &["status", "phase"]);
            vec![printed::name(object), phase.into(), printed::age(object, now)]
        },
        lists: &patch::CONDITIONED,
        ..Rules::NONE
    },
    ..Kind::BASE
};
