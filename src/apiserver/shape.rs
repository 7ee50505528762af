//! How stored records are written out: as themselves (bytes copied, nothing parsed), as Table rows, or as metadata only.

use jiff::Timestamp;
use objects::{Kind, View};
use serde_json::{Value, json};
use state::{Record, Revision};

use crate::negotiate::Form;
use crate::server::Call;
use crate::status::{Failure, Result};

/// What a Table row carries beside its cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Include {
    None,
    Metadata,
    Object,
}

/// One way to write the objects of one kind.
#[derive(Clone, Copy)]
pub struct Shape {
    pub kind: &'static Kind,
    /// The version asked for, where it is not the stored one.
    pub view: Option<&'static View>,
    pub form: Form,
    pub include: Include,
    /// For the ages in Tables.
    pub now: Timestamp,
}

/// `metadata` of a list.
#[derive(Clone, Debug, Default)]
pub struct ListMeta {
    pub revision: Revision,
    pub token: Option<String>,
    pub remaining: Option<usize>,
}

impl ListMeta {
    fn json(&self) -> Value {
        let mut out = json!({"resourceVersion": self.revision.to_string()});
        if let Some(token) = &self.token {
            out["continue"] = token.as_str().into();
        }
        if let Some(remaining) = self.remaining {
            out["remainingItemCount"] = remaining.into();
        }
        out
    }
}

impl Shape {
    pub fn new(call: &Call, form: Form) -> Result<Self> {
        let include = match call.query.get("includeObject") {
            "" | "Metadata" => Include::Metadata,
            "None" => Include::None,
            "Object" => Include::Object,
            other => return Err(Failure::bad_request(format!("unrecognized includeObject value: {other:?}"))),
        };
        Ok(Self { kind: call.kind, view: call.view, form, include, now: (call.server.config.now)() })
    }

    /// Whether the objects themselves are written, byte by byte as they are stored.
    pub fn copies(&self) -> bool {
        self.form == Form::Object && self.view.is_none()
    }

    fn api_version(&self) -> String {
        self.view.map_or_else(|| self.kind.api_version(), View::api_version)
    }

    fn kind_name(&self) -> &'static str {
        self.view.map_or(self.kind.kind, |view| view.kind)
    }

    /// Writes one object on its own, at the revision it is shown with. `columns`: a Table repeats its columns.
    pub fn write_object(&self, record: &Record, revision: Revision, columns: bool, out: &mut Vec<u8>) {
        match self.form {
            Form::Object if self.copies() => record.write_json_at(revision, out),
            Form::Object => write_value(&self.shown(record, revision), out),
            Form::Metadata(version) => {
                let object = self.shown(record, revision);
                write_value(&partial(&object, version), out);
            }
            Form::Table(version) => {
                let object = parse_at(record, revision);
                let columns = if columns { self.columns() } else { Value::Null };
                write_value(
                    &json!({
                        "kind": "Table",
                        "apiVersion": format!("meta.k8s.io/{version}"),
                        "metadata": {"resourceVersion": revision.to_string()},
                        "columnDefinitions": columns,
                        "rows": [self.row(&object, version)],
                    }),
                    out,
                );
            }
        }
    }

    /// A bookmark: nothing but a kind and a revision, and whether it ends the initial events.
    pub fn write_bookmark(&self, revision: Revision, initial_end: bool, out: &mut Vec<u8>) {
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let bookmark = match self.form {
            Form::Object => {
                json!({"kind": self.kind_name(), "apiVersion": self.api_version(), "metadata": metadata})
            }
            Form::Metadata(version) => json!({
                "kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata,
            }),
            Form::Table(version) => json!({
                "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": {"resourceVersion": revision.to_string()},
                "columnDefinitions": null,
                "rows": [{"cells": [], "object": {
                    "kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata,
                }}],
            }),
        };
        write_value(&bookmark, out);
    }

    /// Everything before the first item of a list.
    pub fn write_head(&self, meta: &ListMeta, out: &mut Vec<u8>) {
        let (kind, api_version) = match self.form {
            Form::Object => (format!("{}List", self.kind_name()), self.api_version()),
            Form::Metadata(version) => ("PartialObjectMetadataList".into(), format!("meta.k8s.io/{version}")),
            Form::Table(version) => ("Table".into(), format!("meta.k8s.io/{version}")),
        };
        let mut head = json!({"kind": kind, "apiVersion": api_version, "metadata": meta.json()});
        if let Form::Table(_) = self.form {
            head["columnDefinitions"] = self.columns();
        }
        write_value(&head, out);
        out.pop();
        out.extend_from_slice(if matches!(self.form, Form::Table(_)) { b",\"rows\":[" } else { b",\"items\":[" });
    }

    pub fn write_item(&self, record: &Record, out: &mut Vec<u8>) {
        match self.form {
            Form::Object if self.copies() => record.write_json(out),
            Form::Object => write_value(&self.shown(record, record.revision), out),
            Form::Metadata(version) => write_value(&partial(&self.shown(record, record.revision), version), out),
            Form::Table(version) => write_value(&self.row(&parse_at(record, record.revision), version), out),
        }
    }

    /// Everything behind the last item.
    pub fn write_tail(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"]}");
    }

    fn columns(&self) -> Value {
        self.kind
            .columns()
            .iter()
            .map(|column| {
                json!({
                    "name": column.name,
                    "type": column.kind,
                    "format": column.format,
                    "description": column.description,
                    "priority": column.priority,
                })
            })
            .collect()
    }

    fn row(&self, object: &Value, version: &str) -> Value {
        let mut row = json!({"cells": self.kind.row(object, self.now)});
        match self.include {
            Include::None => row["object"] = Value::Null,
            Include::Metadata => row["object"] = partial(object, version),
            Include::Object => {
                row["object"] = object.clone();
                if let Some(view) = self.view {
                    view.show(&mut row["object"]);
                }
            }
        }
        row
    }

    fn shown(&self, record: &Record, revision: Revision) -> Value {
        let mut object = parse_at(record, revision);
        if let Some(view) = self.view {
            view.show(&mut object);
        }
        object
    }
}

fn partial(object: &Value, version: &str) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object.get("metadata").cloned().unwrap_or_else(|| json!({})),
    })
}

fn write_value(value: &Value, out: &mut Vec<u8>) {
    // Writing a `Value` into memory cannot fail.
    let _ = serde_json::to_writer(out, value);
}

fn parse_at(record: &Record, revision: Revision) -> Value {
    let mut object = control::record::parse(record);
    if revision != record.revision {
        objects::meta::set(&mut object, &["metadata", "resourceVersion"], revision.to_string().into());
    }
    object
}
