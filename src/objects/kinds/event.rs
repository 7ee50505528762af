//! Event.
use super::*;
pub(super) const KIND: Kind = Kind { kind: "Event", plural: "events", singular: "event", rules: Rules { typed: typed::<k8s_openapi::api::core::v1::ConfigMap>, ..Rules::NONE }, ..Kind::BASE };
