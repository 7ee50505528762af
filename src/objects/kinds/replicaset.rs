//! ReplicaSet.
use super::*;
pub(super) const KIND: Kind = Kind { kind: "ReplicaSet", plural: "replicasets", singular: "replicaset", rules: Rules { typed: typed::<k8s_openapi::api::core::v1::ConfigMap>, ..Rules::NONE }, ..Kind::BASE };
