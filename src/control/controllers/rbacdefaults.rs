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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::{Authorizer, User};
    use crate::harness::World;
    use crate::rbac::CLUSTER_ROLE_BINDINGS;
    use crate::rbac::testing::{asked, binding, put};

    #[test]
    fn written_when_a_term_begins_and_mended_with_the_next() {
        let mut world = World::new();
        assert!(defaults::missing(&world.root).is_empty());
        let public = Key::new(GROUP, CLUSTER_ROLE_BINDINGS, "", "system:public-info-viewer");
        let authorizer = Authorizer::default();
        let healthy = |root: &State| authorizer.decide(&User::anonymous(), &asked("get", ":/healthz"), root).allowed;
        assert!(healthy(&world.root));
        world.remove(&public);
        world.settle();
        assert!(!healthy(&world.root), "taken away for as long as the leader stays");
        world.take_office();
        world.settle_quietly();
        assert!(healthy(&world.root));
    }

    #[test]
    fn what_admins_editors_and_viewers_may() {
        let mut world = World::new();
        for role in ["admin", "edit", "view"] {
            let to = format!("User:{role}");
            put(
                &mut world.root,
                &format!("rolebindings/default/{role}"),
                binding(&format!("ClusterRole:{role}"), &[&to]),
            );
        }
        let authorizer = Authorizer::default();
        // Who of the three may, the least first.
        for (verb, what, least) in [
            ("list", "|pods||default|", "view"),
            ("get", "|pods|log|default|x", "view"),
            ("get", "apps|deployments|scale|default|x", "view"),
            ("get", "|namespaces|||default", "view"),
            ("get", "|secrets||default|x", "edit"),
            ("create", "|pods|exec|default|x", "edit"),
            ("patch", "apps|deployments||default|x", "edit"),
            ("impersonate", "|serviceaccounts||default|x", "edit"),
            ("create", "rbac.authorization.k8s.io|rolebindings||default|", "admin"),
            ("create", "authorization.k8s.io|localsubjectaccessreviews||default|", "admin"),
            ("update", "|resourcequotas||default|x", ""),
            ("list", "|pods||kube-system|", ""),
            ("get", "|nodes|||x", ""),
        ] {
            let may =
                |role: &&str| authorizer.decide(&User::authenticated(*role, vec![]), &asked(verb, what), &world.root);
            let allowed: Vec<&str> = ["view", "edit", "admin"].into_iter().filter(|role| may(role).allowed).collect();
            assert_eq!(allowed.first().copied().unwrap_or(""), least, "{verb} {what}");
            let after = ["view", "edit", "admin"].into_iter().skip_while(|role| *role != least);
            assert_eq!(allowed, after.collect::<Vec<_>>(), "{verb} {what}");
        }
    }
}
