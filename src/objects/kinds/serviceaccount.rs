//! ServiceAccount.
use super::*;
pub(super) const KIND: Kind = Kind { kind: "ServiceAccount", plural: "serviceaccounts", singular: "serviceaccount", rules: Rules { typed: typed::<k8s_openapi::api::core::v1::ConfigMap>, ..Rules::NONE }, ..Kind::BASE };
