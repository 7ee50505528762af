//! From silence to readiness.

use std::collections::BTreeMap;

use state::{Command, State};

use crate::Context;

/// Plans the changes of readiness, and renews the Leases of living nodes. `heard` maps a node's name to how long it has
/// been silent, in milliseconds; a node that is not in it is not judged, so a new leader first grants a full grace.
/// Called about once a second, and whenever `heard` grows beyond the grace.
pub fn plan(_root: &State, _heard: &BTreeMap<String, u64>, _cx: &mut Context) -> Vec<Command> {
    Vec::new()
}
