//! Pod.
mod references;
pub use references::{References, pod_references};
use super::*;
pub(super) const KIND: Kind = Kind { kind: "Pod", plural: "pods", singular: "pod", rules: Rules { typed: typed::<k8s_openapi::api::core::v1::Pod>, ..Rules::NONE }, ..Kind::BASE };
