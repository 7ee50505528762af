//! RoleBinding and ClusterRoleBinding: users, groups and service accounts that have a role. The role stays the same for
//! life, so that who may change the subjects cannot change what they may do.

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1 as api;
use serde_json::{Value, json};

use super::{BASE, GROUP, RULES};
use crate::kinds::{Column, Kind, Rules, Typed, printed};
use crate::{At, Errors, meta, names};

const fn wide(name: &'static str, description: &'static str) -> Column {
    printed::column(name, "string", 1, description)
}

static COLUMNS: &[Column] = &[
    printed::NAME,
    printed::column("Role", "string", 0, "RoleRef can reference a Role in the current namespace or a ClusterRole."),
    printed::AGE,
    wide("Users", "Users in the roleBinding"),
    wide("Groups", "Groups in the roleBinding"),
    wide("ServiceAccounts", "ServiceAccounts in the roleBinding"),
];

static CLUSTER_COLUMNS: &[Column] = &[
    printed::NAME,
    printed::column("Role", "string", 0, "RoleRef can only reference a ClusterRole in the global namespace."),
    printed::AGE,
    wide("Users", "Users in the clusterRoleBinding"),
    wide("Groups", "Groups in the clusterRoleBinding"),
    wide("ServiceAccounts", "ServiceAccounts in the clusterRoleBinding"),
];

pub(in crate::kinds) const ROLE_BINDING: Kind = Kind {
    kind: "RoleBinding",
    plural: "rolebindings",
    singular: "rolebinding",
    columns: COLUMNS,
    rules: Rules {
        typed: Typed::of::<api::RoleBinding>(),
        default,
        validate: |new, old, errors| validate(new, old, &["ClusterRole", "Role"], errors),
        row,
        ..RULES
    },
    ..BASE
};

pub(in crate::kinds) const CLUSTER_ROLE_BINDING: Kind = Kind {
    kind: "ClusterRoleBinding",
    plural: "clusterrolebindings",
    singular: "clusterrolebinding",
    namespaced: false,
    columns: CLUSTER_COLUMNS,
    rules: Rules {
        typed: Typed::of::<api::ClusterRoleBinding>(),
        default,
        validate: |new, old, errors| validate(new, old, &["ClusterRole"], errors),
        row,
        ..RULES
    },
    ..BASE
};

fn default(object: &mut Value) {
    meta::set_empty(object, &["roleRef", "apiGroup"], json!(GROUP));
    for subject in meta::list_mut(object, &["subjects"]) {
        if matches!(meta::text(subject, &["kind"]), "User" | "Group") {
            meta::set_empty(subject, &["apiGroup"], json!(GROUP));
        }
    }
}

fn validate(new: &At<'_>, old: Option<&At<'_>>, roles: &[&str], errors: &mut Errors) {
    let role = new.field("roleRef");
    role.field("apiGroup").one_of(&[GROUP], true, errors);
    let kind = role.field("kind");
    if !roles.contains(&kind.text()) {
        errors.push(kind.unsupported(roles));
    }
    let name = role.field("name");
    if name.is_empty() {
        errors.push(name.required(""));
    } else {
        errors.extend(names::path_segment(name.text()).into_iter().map(|message| name.invalid(message)));
    }
    for at in new.field("subjects").items() {
        subject(&at, roles.contains(&"Role"), errors);
    }
    if let Some(old) = old
        && old.field("roleRef").value != role.value
    {
        errors.push(role.invalid("cannot change roleRef"));
    }
}

/// Without a namespace, an account that a RoleBinding names is one of its own.
fn subject(at: &At<'_>, namespaced: bool, errors: &mut Errors) {
    let [name, group, kind, namespace] = ["name", "apiGroup", "kind", "namespace"].map(|field| at.field(field));
    if name.is_empty() {
        errors.push(name.required(""));
    }
    match kind.text() {
        "ServiceAccount" => {
            if !name.is_empty() {
                errors.extend(names::subdomain(name.text()).into_iter().map(|message| name.invalid(message)));
            }
            if !group.is_empty() {
                errors.push(group.unsupported(&[""]));
            }
            if namespace.is_empty() && !namespaced {
                errors.push(namespace.required(""));
            }
        }
        "User" | "Group" => group.one_of(&[GROUP], true, errors),
        _ => errors.push(kind.unsupported(&["Group", "ServiceAccount", "User"])),
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let role = |field| meta::text(object, &["roleRef", field]);
    let subjects = |kind: &str| -> Value {
        let of = meta::list(object, &["subjects"]).iter().filter(|one| meta::text(one, &["kind"]) == kind);
        let names = of.map(|one| match (kind, meta::text(one, &["namespace"]), meta::text(one, &["name"])) {
            ("ServiceAccount", namespace, name) => format!("{namespace}/{name}"),
            (_, _, name) => name.to_owned(),
        });
        names.collect::<Vec<_>>().join(", ").into()
    };
    vec![
        printed::name(object),
        format!("{}/{}", role("kind"), role("name")).into(),
        printed::age(object, now),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}
