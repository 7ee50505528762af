//! Secret.
use super::*;
pub(super) const KIND: Kind = Kind { kind: "Secret", plural: "secrets", singular: "secret", rules: Rules { typed: typed::<k8s_openapi::api::core::v1::ConfigMap>, ..Rules::NONE }, ..Kind::BASE };
