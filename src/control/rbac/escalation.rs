//! Nobody grants more than he holds: who writes a role must hold all its rules, or be allowed to `escalate` it; who binds
//! one must hold all of its rules, or be allowed to `bind` it. `system:masters` may both.
//!
//! Asked of every create and change of the four kinds, after validation. Deletions take rights away and are not asked.

use objects::meta;
use serde_json::Value;

use super::rule::{ALL, quoted};
use super::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, GROUP, Index, ROLE_BINDINGS, ROLES, RoleRef, Rule, covers};
use crate::authz::{Attributes, MASTERS, User};
use crate::json;

/// A create or change of an object of the group [`GROUP`].
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    pub user: &'a User,
    /// The plural of the kind.
    pub resource: &'a str,
    /// The name in the request's path; a POST has none.
    pub name: &'a str,
    pub object: &'a Value,
    pub old: Option<&'a Value>,
}

/// Why a write is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// 403: the message behind `<resource> "<name>" is forbidden: `.
    #[error("{0}")]
    Forbidden(String),
    /// 404: the complete message; the role to be bound is not there.
    #[error("{0}")]
    NotFound(String),
}

/// Judges one write.
///
/// # Errors
/// What it grants beyond what its user holds.
pub fn check(write: &Write<'_>, index: &Index) -> Result<(), Refused> {
    if write.user.is_in(MASTERS) || write.old.is_some_and(|old| keeps_all_but_lifecycle(write.object, old)) {
        return Ok(());
    }
    match write.resource {
        ROLES | CLUSTER_ROLES => role(write, index),
        ROLE_BINDINGS | CLUSTER_ROLE_BINDINGS => binding(write, index),
        _ => Ok(()),
    }
}

fn role(write: &Write<'_>, index: &Index) -> Result<(), Refused> {
    let namespace = meta::namespace(write.object);
    if may(write.user, index, "escalate", (write.resource, namespace, write.name)) {
        return Ok(());
    }
    confirm(write.user, namespace, &rules(write.object), index)?;
    let aggregates = |role: &Value| !json::items(role, "aggregationRule.clusterRoleSelectors").is_empty();
    if aggregates(write.object) || write.old.is_some_and(aggregates) {
        // Whatever such a role may come to hold.
        confirm(write.user, namespace, &everything(), index).map_err(|_| {
            Refused::Forbidden("must have cluster-admin privileges to use the aggregationRule".to_owned())
        })?;
    }
    Ok(())
}

fn binding(write: &Write<'_>, index: &Index) -> Result<(), Refused> {
    let namespace = meta::namespace(write.object);
    let role: RoleRef = serde_json::from_value(write.object["roleRef"].clone()).unwrap_or_default();
    let resource = match role.kind.as_str() {
        "Role" => Some(ROLES),
        "ClusterRole" => Some(CLUSTER_ROLES),
        _ => None,
    };
    if resource.is_some_and(|resource| may(write.user, index, "bind", (resource, namespace, &role.name))) {
        return Ok(());
    }
    let rules = index.rules_of(&role, namespace).map_err(Refused::NotFound)?;
    confirm(write.user, namespace, rules, index)
}

fn may(user: &User, index: &Index, verb: &str, (resource, namespace, name): (&str, &str, &str)) -> bool {
    let asked = Attributes {
        verb: verb.to_owned(),
        group: GROUP.to_owned(),
        resource: resource.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        ..Attributes::default()
    };
    index.allows(user, &asked).allowed
}

/// Whether the user holds these rules in the namespace ("": everywhere).
fn confirm(user: &User, namespace: &str, rules: &[Rule], index: &Index) -> Result<(), Refused> {
    let (held, unresolved) = index.held(user, namespace);
    let missing = covers::uncovered(&held, rules).map_err(|error| Refused::Forbidden(error.to_string()))?;
    if missing.is_empty() {
        return Ok(());
    }
    let mut lines: Vec<String> = covers::compact(missing).iter().map(Rule::to_string).collect();
    lines.sort_unstable();
    lines.dedup();
    let mut message = format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        quoted(&user.groups),
        lines.join("\n")
    );
    if !unresolved.is_empty() {
        message += &format!("; resolution errors: [{}]", unresolved.join(", "));
    }
    Err(Refused::Forbidden(message))
}

fn rules(role: &Value) -> Vec<Rule> {
    serde_json::from_value(role["rules"].clone()).unwrap_or_default()
}

fn everything() -> [Rule; 2] {
    let all = || vec![ALL.to_owned()];
    [
        Rule { api_groups: all(), resources: all(), verbs: all(), ..Rule::default() },
        Rule { non_resource_urls: all(), verbs: all(), ..Rule::default() },
    ]
}

/// Whether nothing changes but what a deletion goes through: owners and finalizers.
fn keeps_all_but_lifecycle(object: &Value, old: &Value) -> bool {
    let without = |object: &Value| {
        let mut object = object.clone();
        for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion"] {
            meta::remove(&mut object, &["metadata", field]);
        }
        object
    };
    without(object) == without(old)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use state::State;

    use super::*;
    use crate::rbac::testing::{binding as bound, put};

    const GRANT: &str = "is attempting to grant RBAC permissions not currently held:\n";

    /// `editor` edits in `ns`; `escalator` may escalate roles, `binder` may bind `view`; `root` holds everything.
    fn index() -> Index {
        let mut root = State::default();
        let role = |rules: Value| json!({"rules": rules});
        let everything = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}, {"nonResourceURLs": ["*"], "verbs": ["*"]}]);
        put(&mut root, "clusterroles/all", role(everything));
        put(&mut root, "clusterrolebindings/root", bound("ClusterRole:all", &["User:root"]));
        let pods = json!([{"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get", "list"]}]);
        put(&mut root, "clusterroles/view", role(pods.clone()));
        put(&mut root, "roles/ns/view", role(pods));
        put(&mut root, "rolebindings/ns/editor", bound("ClusterRole:view", &["User:editor", "Group:editors"]));
        let escalate = json!([{"apiGroups": [GROUP], "resources": ["clusterroles", "roles"], "verbs": ["escalate"]}]);
        put(&mut root, "clusterroles/escalate", role(escalate));
        put(&mut root, "clusterrolebindings/escalate", bound("ClusterRole:escalate", &["User:escalator"]));
        let bind = json!([{"apiGroups": [GROUP], "resources": ["clusterroles"], "resourceNames": ["view"], "verbs": ["bind"]}]);
        put(&mut root, "clusterroles/bind", role(bind));
        put(&mut root, "rolebindings/ns/bind", bound("ClusterRole:bind", &["User:binder"]));
        put(&mut root, "rolebindings/ns/lost", bound("Role:gone", &["User:lost"]));
        Index::of(&root)
    }

    fn object(namespace: &str, body: &Value) -> Value {
        let mut object = body.clone();
        object["metadata"] = json!({"name": "x", "namespace": namespace, "uid": "u"});
        if namespace.is_empty() {
            object["metadata"] = json!({"name": "x", "uid": "u"});
        }
        object
    }

    fn judge(user: &str, resource: &str, object: &Value, old: Option<&Value>) -> Result<(), String> {
        let groups = vec!["dev".to_owned(), "system:authenticated".to_owned()];
        let user = match user {
            "master" => User::authenticated("master", vec![MASTERS.into()]),
            name => User { name: name.into(), groups, ..User::default() },
        };
        let name = if old.is_some() { meta::name(object) } else { "" };
        check(&Write { user: &user, resource, name, object, old }, &index()).map_err(|refused| refused.to_string())
    }

    #[test]
    fn roles() {
        let held = json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]});
        let more = json!({"rules": [
            {"apiGroups": ["", "apps"], "resources": ["pods"], "verbs": ["get", "watch"]},
            {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["s"], "verbs": ["get"]},
        ]});
        let paths = json!({"rules": [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]});
        let refusal = |user: &str, lines: &[&str]| {
            format!("user {user:?} (groups=[\"dev\" \"system:authenticated\"]) {GRANT}{}", lines.join("\n"))
        };
        let beyond = [
            r#"{APIGroups:[""], Resources:["pods"], Verbs:["watch"]}"#,
            r#"{APIGroups:[""], Resources:["secrets"], ResourceNames:["s"], Verbs:["get"]}"#,
            r#"{APIGroups:["apps"], Resources:["pods"], Verbs:["get" "watch"]}"#,
        ];
        let url = [r#"{NonResourceURLs:["/metrics"], Verbs:["get"]}"#];
        for (user, resource, namespace, body, expected) in [
            ("editor", ROLES, "ns", &held, None),
            ("editor", ROLES, "ns", &more, Some(refusal("editor", &beyond))),
            (
                "editor",
                ROLES,
                "other",
                &held,
                Some(refusal("editor", &[r#"{APIGroups:[""], Resources:["pods"], Verbs:["list"]}"#])),
            ),
            (
                "editor",
                CLUSTER_ROLES,
                "",
                &held,
                Some(refusal("editor", &[r#"{APIGroups:[""], Resources:["pods"], Verbs:["list"]}"#])),
            ),
            ("editor", CLUSTER_ROLES, "", &paths, Some(refusal("editor", &url))),
            (
                "lost",
                ROLES,
                "ns",
                &paths,
                Some(
                    refusal("lost", &url) + "; resolution errors: [role.rbac.authorization.k8s.io \"gone\" not found]",
                ),
            ),
            ("root", CLUSTER_ROLES, "", &more, None),
            ("escalator", CLUSTER_ROLES, "", &more, None),
            ("escalator", ROLES, "ns", &more, None),
            ("master", CLUSTER_ROLES, "", &more, None),
        ] {
            let found = judge(user, resource, &object(namespace, body), None);
            assert_eq!(found.err(), expected, "{user} {resource} {namespace}");
        }
    }

    #[test]
    fn aggregation_needs_everything() {
        let plain = object("", &json!({"rules": []}));
        let sum = object(
            "",
            &json!({"rules": [], "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}}),
        );
        let refusal = Some("must have cluster-admin privileges to use the aggregationRule".to_owned());
        for (user, object, old, expected) in [
            ("editor", &plain, None, None),
            ("editor", &sum, None, refusal.clone()),
            ("editor", &plain, Some(&sum), refusal),
            ("root", &sum, None, None),
            ("escalator", &plain, Some(&sum), None),
        ] {
            assert_eq!(judge(user, CLUSTER_ROLES, object, old).err(), expected, "{user}");
        }
    }

    #[test]
    fn bindings() {
        let view = bound("ClusterRole:view", &["User:x"]);
        let own = bound("Role:view", &["User:x"]);
        let all = bound("ClusterRole:all", &["User:x"]);
        let gone = bound("Role:gone", &["User:x"]);
        let not_found = "role.rbac.authorization.k8s.io \"gone\" not found";
        for (user, resource, namespace, body, expected) in [
            ("editor", ROLE_BINDINGS, "ns", &view, ""),
            ("editor", ROLE_BINDINGS, "ns", &own, ""),
            ("editor", ROLE_BINDINGS, "ns", &all, GRANT),
            ("editor", ROLE_BINDINGS, "other", &view, GRANT),
            ("editor", CLUSTER_ROLE_BINDINGS, "", &view, GRANT),
            ("editor", ROLE_BINDINGS, "ns", &gone, not_found),
            ("binder", ROLE_BINDINGS, "ns", &view, ""),
            ("binder", ROLE_BINDINGS, "ns", &own, GRANT),
            ("binder", ROLE_BINDINGS, "ns", &all, GRANT),
            ("binder", CLUSTER_ROLE_BINDINGS, "", &view, GRANT),
            ("escalator", ROLE_BINDINGS, "ns", &view, GRANT),
            ("root", CLUSTER_ROLE_BINDINGS, "", &all, ""),
            ("master", ROLE_BINDINGS, "ns", &gone, ""),
        ] {
            let refusal = judge(user, resource, &object(namespace, body), None).err().unwrap_or_default();
            let fits = if expected.is_empty() { refusal.is_empty() } else { refusal.contains(expected) };
            assert!(fits, "{user} {resource} {namespace}: {refusal}");
        }
    }

    #[test]
    fn a_deletion_may_run_its_course() {
        let mut old = object("", &bound("ClusterRole:all", &["User:x"]));
        old["metadata"]["finalizers"] = json!(["a"]);
        old["metadata"]["resourceVersion"] = "1".into();
        let mut new = old.clone();
        new["metadata"]["finalizers"] = json!([]);
        new["metadata"]["resourceVersion"] = "2".into();
        assert_eq!(judge("nobody", CLUSTER_ROLE_BINDINGS, &new, Some(&old)), Ok(()));
        // A label decides what is aggregated.
        new["metadata"]["labels"] = json!({"a": "b"});
        assert!(judge("nobody", CLUSTER_ROLE_BINDINGS, &new, Some(&old)).is_err());
    }
}
