//! Deployment.
use super::*;
pub(super) const KIND: Kind = Kind { kind: "Deployment", plural: "deployments", singular: "deployment", rules: Rules { typed: typed::<k8s_openapi::api::core::v1::ConfigMap>, ..Rules::NONE }, ..Kind::BASE };
