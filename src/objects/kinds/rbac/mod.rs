//! The four kinds of RBAC: roles say what may be done, bindings say who may do what a role says.

mod bindings;
mod roles;

pub(super) use bindings::{CLUSTER_ROLE_BINDING, ROLE_BINDING};
pub(super) use roles::{CLUSTER_ROLE, ROLE};

use super::{Kind, Rules};
use crate::names;

const GROUP: &str = "rbac.authorization.k8s.io";

/// What all four start from.
const BASE: Kind = Kind { group: GROUP, create_on_update: true, ..Kind::BASE };
const RULES: Rules = Rules { name: names::path_segment, ..Rules::NONE };
