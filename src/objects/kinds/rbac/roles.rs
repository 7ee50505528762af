//! Role and ClusterRole: rules that allow verbs on resources, and of the whole cluster also on paths of the API.

use k8s_openapi::api::rbac::v1 as api;

use super::{BASE, RULES};
use crate::kinds::{Kind, Rules, Typed};
use crate::{At, Errors, selector};

pub(in crate::kinds) const ROLE: Kind = Kind {
    kind: "Role",
    plural: "roles",
    singular: "role",
    rules: Rules {
        typed: Typed::of::<api::Role>(),
        validate: |new, _, errors| rules(&new.field("rules"), true, errors),
        ..RULES
    },
    ..BASE
};

pub(in crate::kinds) const CLUSTER_ROLE: Kind = Kind {
    kind: "ClusterRole",
    plural: "clusterroles",
    singular: "clusterrole",
    namespaced: false,
    rules: Rules {
        typed: Typed::of::<api::ClusterRole>(),
        validate: |new, _, errors| {
            rules(&new.field("rules"), false, errors);
            aggregation(&new.field("aggregationRule"), errors);
        },
        ..RULES
    },
    ..BASE
};

fn rules(rules: &At<'_>, namespaced: bool, errors: &mut Errors) {
    for at in rules.items() {
        rule(&at, namespaced, errors);
    }
}

/// Verbs on either resources or paths.
fn rule(rule: &At<'_>, namespaced: bool, errors: &mut Errors) {
    let [verbs, paths, groups, resources, names] =
        ["verbs", "nonResourceURLs", "apiGroups", "resources", "resourceNames"].map(|field| rule.field(field));
    if verbs.is_empty() {
        errors.push(verbs.required("verbs must contain at least one value"));
    }
    if !paths.is_empty() {
        if namespaced {
            errors.push(paths.invalid("namespaced rules cannot apply to non-resource URLs"));
        }
        if [&groups, &resources, &names].iter().any(|list| !list.is_empty()) {
            errors.push(paths.invalid("rules cannot apply to both regular resources and non-resource URLs"));
        }
        return;
    }
    if groups.is_empty() {
        errors.push(groups.required("resource rules must supply at least one api group"));
    }
    if resources.is_empty() {
        errors.push(resources.required("resource rules must supply at least one resource"));
    }
}

fn aggregation(at: &At<'_>, errors: &mut Errors) {
    if !at.is_set() {
        return;
    }
    let selectors = at.field("clusterRoleSelectors");
    if selectors.is_empty() {
        errors.push(selectors.required("at least one clusterRoleSelector required if aggregationRule is non-nil"));
    }
    for at in selectors.items() {
        selector::validate(&at, errors);
    }
}
