//! ConfigMap.
use super::*;
pub(super) const KIND: Kind = Kind { kind: "ConfigMap", plural: "configmaps", singular: "configmap", rules: Rules { typed: typed::<k8s_openapi::api::core::v1::ConfigMap>, ..Rules::NONE }, ..Kind::BASE };
