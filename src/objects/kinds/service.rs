//! Service.
use super::*;
pub(super) const KIND: Kind = Kind { kind: "Service", plural: "services", singular: "service", rules: Rules { typed: typed::<k8s_openapi::api::core::v1::ConfigMap>, ..Rules::NONE }, ..Kind::BASE };
