//! EndpointSlice.
use super::*;
pub(super) const KIND: Kind = Kind { kind: "EndpointSlice", plural: "endpointslices", singular: "endpointslice", rules: Rules { typed: typed::<k8s_openapi::api::core::v1::ConfigMap>, ..Rules::NONE }, ..Kind::BASE };
