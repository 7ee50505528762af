//! Second versions of resources. One version is stored; another is a view of it, made when it is read and undone when it
//! is written, so that whichever version a client speaks, nothing of the object is lost.
//!
//! Defaults, validation, selectors and rows are the stored version's: a view is converted first.

use k8s_openapi::api::autoscaling::v1::HorizontalPodAutoscaler;
use k8s_openapi::api::events::v1::Event;
use serde_json::Value;

use super::{Typed, decode, horizontalpodautoscaler};
use crate::{FieldError, meta};

/// One resource as it is served beside its stored version.
pub struct View {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    /// The group of the stored version.
    pub of_group: &'static str,
    typed: Typed,
    /// Members that only have another name: here, and in the stored version.
    renamed: &'static [(&'static str, &'static str)],
    show: fn(&mut Value),
    store: fn(&mut Value),
}

pub(super) static ALL: &[View] = &[
    View {
        group: "autoscaling",
        version: "v1",
        kind: "HorizontalPodAutoscaler",
        plural: "horizontalpodautoscalers",
        of_group: "autoscaling",
        typed: Typed::of::<HorizontalPodAutoscaler>(),
        renamed: &[],
        show: horizontalpodautoscaler::v1::show,
        store: horizontalpodautoscaler::v1::store,
    },
    View {
        group: "events.k8s.io",
        version: "v1",
        kind: "Event",
        plural: "events",
        of_group: "",
        typed: Typed::of::<Event>(),
        renamed: &[
            ("regarding", "involvedObject"),
            ("note", "message"),
            ("reportingController", "reportingComponent"),
            ("deprecatedSource", "source"),
            ("deprecatedFirstTimestamp", "firstTimestamp"),
            ("deprecatedLastTimestamp", "lastTimestamp"),
            ("deprecatedCount", "count"),
        ],
        show: |_| {},
        store: |_| {},
    },
];

impl View {
    pub fn api_version(&self) -> String {
        format!("{}/{}", self.group, self.version)
    }

    /// [`Kind::decode`](super::Kind::decode) of an object of this version.
    ///
    /// # Errors
    /// A value of the wrong type, with its path.
    pub fn decode(&self, object: &mut Value) -> Result<Vec<String>, FieldError> {
        decode(object, &self.api_version(), self.kind, self.typed)
    }

    /// Makes a stored object one of this version.
    pub fn show(&self, object: &mut Value) {
        for (here, stored) in self.renamed {
            rename(object, stored, here);
        }
        (self.show)(object);
        meta::set(object, &["apiVersion"], self.api_version().into());
    }

    /// Makes an object of this version a stored one.
    pub fn store(&self, object: &mut Value) {
        (self.store)(object);
        for (here, stored) in self.renamed {
            rename(object, here, stored);
        }
    }

    /// `EventList`.
    pub fn list_kind(&self) -> String {
        format!("{}List", self.kind)
    }

    /// Defines the schema; its name.
    pub(crate) fn define(&self, generator: &mut schemars::SchemaGenerator) -> Option<String> {
        (self.typed.schema)(generator)
    }

    /// What a field selector's field is called in the stored version: `regarding.name` is `involvedObject.name`.
    pub fn stored_field(&self, field: &str) -> String {
        let (first, rest) = field.split_once('.').map_or((field, None), |(first, rest)| (first, Some(rest)));
        let first = self.renamed.iter().find(|(here, _)| *here == first).map_or(first, |(_, stored)| stored);
        rest.map_or_else(|| first.to_owned(), |rest| format!("{first}.{rest}"))
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.plural, self.version, self.group)
    }
}

fn rename(object: &mut Value, from: &str, to: &str) {
    if let Some(value) = meta::remove(object, &[from]) {
        meta::set(object, &[to], value);
    }
}
