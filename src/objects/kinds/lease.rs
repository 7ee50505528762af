//! Lease.
use super::*;
pub(super) const KIND: Kind = Kind { kind: "Lease", plural: "leases", singular: "lease", rules: Rules { typed: typed::<k8s_openapi::api::core::v1::ConfigMap>, ..Rules::NONE }, ..Kind::BASE };
