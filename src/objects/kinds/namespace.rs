//! Namespace.
use super::*;
pub(super) const KIND: Kind = Kind { kind: "Namespace", plural: "namespaces", singular: "namespace", rules: Rules { typed: typed::<k8s_openapi::api::core::v1::ConfigMap>, ..Rules::NONE }, ..Kind::BASE };
