//! The roles and bindings every cluster has: written when a term begins, never in between, so that what an admin takes
//! away stays away at least as long as the leader, as it does in Kubernetes until a restart.
//!
//! All of them are one command: no state holds some of them before the others, and until it holds any they hold as if they
//! were there ([`crate::rbac::Index`]).

use state::{Command, Event, Key, State};

use crate::rbac::{CLUSTER_ROLES, GROUP, defaults};
use crate::{Context, Plan, Row, emit};

pub const ROW: Row = Row {
    name: "rbac-defaults",
    watches: &[(GROUP, CLUSTER_ROLES)],
    keys: |_, _: &Event| Vec::new(),
    plan,
    resync: |_| vec![Key::new(GROUP, CLUSTER_ROLES, "", "")],
};

fn plan(root: &State, _key: &Key, cx: &mut Context) -> Plan {
    let mut all = Command::default();
    for (key, object) in defaults::missing(root) {
        let command = match root.get(&key) {
            Some(present) => emit::update(&key, present, &object),
            // Admission has no rule that could refuse one.
            None => emit::create(root, &key.group, &key.resource, object, cx).ok(),
        };
        if let Some(command) = command {
            all.expects.extend(command.expects);
            all.ops.extend(command.ops);
        }
    }
    Plan { commands: if all.ops.is_empty() { Vec::new() } else { vec![all] }, ..Plan::default() }
}
