//! Node.
use super::*;
pub(super) const KIND: Kind = Kind { kind: "Node", plural: "nodes", singular: "node", rules: Rules { typed: typed::<k8s_openapi::api::core::v1::ConfigMap>, ..Rules::NONE }, ..Kind::BASE };
