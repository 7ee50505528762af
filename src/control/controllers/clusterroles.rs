//! ClusterRoles with an `aggregationRule`: their rules are those of the ClusterRoles it selects.
//!
//! Any change of a ClusterRole may concern any such sum, so all of them are looked at; sums of sums follow, because the
//! change of one wakes the others.

use std::collections::BTreeSet;

use objects::selector::LabelSelector;
use serde::Deserialize;
use serde_json::{Value, json};
use state::{Event, Key, Record, State};

use crate::rbac::{CLUSTER_ROLES, GROUP, Rule};
use crate::{Context, Plan, Row, emit, json, record};

/// Bytes of JSON that the rules of a sum may take: what is larger could not be written as one object.
const RULES_BYTES_MAX: usize = record::OBJECT_BYTES_MAX / 2;

pub const ROW: Row = Row {
    name: "clusterrole-aggregation",
    watches: &[(GROUP, CLUSTER_ROLES)],
    keys: |root, _: &Event| sums(root),
    plan,
    resync: sums,
};

fn sums(root: &State) -> Vec<Key> {
    let roles = root.list(GROUP, CLUSTER_ROLES, None);
    roles.filter(|(_, role)| may_be_sum(role)).map(|(key, _)| key.clone()).collect()
}

/// Whether the body names the field at all, which spares parsing all other roles.
fn may_be_sum(role: &Record) -> bool {
    std::str::from_utf8(&role.body).is_ok_and(|body| body.contains("\"aggregationRule\""))
}

fn plan(root: &State, key: &Key, _cx: &mut Context) -> Plan {
    let mut plan = Plan::default();
    let Some(present) = root.get(key).filter(|role| role.header.deletion_ms == 0) else { return plan };
    let mut role = record::parse(present);
    if let Some(rules) = changed_rules(root, key, &role) {
        json::set(&mut role, "rules", json!(rules));
        plan.commands.extend(emit::update(key, present, &role));
    }
    plan
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Rules {
    rules: Vec<Rule>,
}

/// The rules the role should have; `None` where it has them, is no sum, or they would be too large (it keeps what it has).
fn changed_rules(root: &State, key: &Key, role: &Value) -> Option<Vec<Rule>> {
    role.get("aggregationRule")?;
    let mut rules = Vec::new();
    let mut seen = BTreeSet::new();
    for selector in json::items(role, "aggregationRule.clusterRoleSelectors") {
        let selector = LabelSelector::of(selector);
        for (part, record) in emit::selected(root, (GROUP, CLUSTER_ROLES), "", &selector) {
            if part != key {
                let of_part = record::typed::<Rules>(record).unwrap_or_default().rules;
                rules.extend(of_part.into_iter().filter(|rule| seen.insert(rule.clone())));
            }
        }
    }
    let present: Vec<Rule> = serde_json::from_value(role["rules"].clone()).unwrap_or_default();
    let fits = serde_json::to_vec(&rules).is_ok_and(|bytes| bytes.len() <= RULES_BYTES_MAX);
    (present != rules && fits).then_some(rules)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::World;
    use crate::rbac::testing::{key, put};

    fn role(labels: &Value, selectors: Option<&Value>, resources: &[&str]) -> Value {
        let rules: Vec<Value> =
            resources.iter().map(|r| json!({"apiGroups": [""], "resources": [r], "verbs": ["get"]})).collect();
        let mut role = json!({"metadata": {"labels": labels}, "rules": rules});
        if let Some(selectors) = selectors {
            role["aggregationRule"] = json!({"clusterRoleSelectors": selectors});
        }
        role
    }

    /// The resources of the rules that the sum should have instead of its own.
    fn resources(root: &State, name: &str) -> Option<String> {
        let key = key(&format!("clusterroles/{name}"));
        let role = record::parse(root.get(&key).expect("present"));
        let rules = changed_rules(root, &key, &role)?;
        Some(rules.iter().flat_map(|rule| rule.resources.clone()).collect::<Vec<_>>().join(","))
    }

    #[test]
    fn the_rules_of_a_sum() {
        let mut root = State::default();
        let none = json!({});
        let to_view = json!({"to": "view"});
        let to_edit = json!({"to": "edit", "also": "x"});
        let selects = |labels: &Value| json!([{"matchLabels": labels}]);
        put(&mut root, "clusterroles/b", role(&to_view, None, &["services", "pods"]));
        put(&mut root, "clusterroles/a", role(&to_view, None, &["pods", "events"]));
        put(&mut root, "clusterroles/c", role(&to_edit, None, &["secrets"]));
        put(&mut root, "clusterroles/sum", role(&to_view, Some(&selects(&to_view)), &[]));
        let both = json!([{"matchLabels": {"also": "x"}}, {"matchExpressions": [{"key": "to", "operator": "Exists"}]}]);
        put(&mut root, "clusterroles/both", role(&none, Some(&both), &[]));
        put(&mut root, "clusterroles/done", role(&none, Some(&selects(&to_edit)), &["secrets"]));
        put(&mut root, "clusterroles/stale", role(&none, Some(&selects(&json!({"to": "nobody"}))), &["secrets"]));
        put(&mut root, "clusterroles/nothing", role(&none, Some(&json!([])), &[]));
        for (name, expected) in [
            ("sum", Some("pods,events,services")),
            ("both", Some("secrets,pods,events,services")),
            ("done", None),
            ("stale", Some("")),
            ("nothing", None),
            ("a", None),
        ] {
            assert_eq!(resources(&root, name).as_deref(), expected, "{name}");
        }
        let names: Vec<String> = sums(&root).into_iter().map(|key| key.name).collect();
        assert_eq!(names, ["both", "done", "nothing", "stale", "sum"]);
    }

    #[test]
    fn a_sum_too_large_keeps_what_it_has() {
        let mut root = State::default();
        let long = "x".repeat(RULES_BYTES_MAX / 2);
        let part = json!({"a": "b"});
        put(&mut root, "clusterroles/sum", role(&json!({}), Some(&json!([{"matchLabels": part}])), &["pods"]));
        put(&mut root, "clusterroles/1", role(&part, None, &[&long]));
        assert!(resources(&root, "sum").is_some());
        put(&mut root, "clusterroles/2", role(&part, None, &[&format!("y{long}")]));
        assert_eq!(resources(&root, "sum"), None);
    }

    #[test]
    fn a_sum_follows_its_parts() {
        let mut world = World::new();
        let made = |name: &str, labels: Value| {
            let mut role = role(&labels, None, &["widgets"]);
            role["metadata"]["name"] = name.into();
            role
        };
        let has = |world: &World, sum: &str| {
            let sum = world.object(&key(&format!("clusterroles/{sum}")));
            json::items(&sum, "rules").iter().any(|rule| rule["resources"] == json!(["widgets"]))
        };
        let to_view = json!({"rbac.authorization.k8s.io/aggregate-to-view": "true"});
        let part = world.create(GROUP, CLUSTER_ROLES, made("widgets", to_view));
        world.settle_quietly();
        // A sum of sums too.
        assert!(has(&world, "view") && has(&world, "edit") && has(&world, "admin"));
        world.edit(&part, |role| role["metadata"]["labels"] = json!({}));
        world.settle_quietly();
        assert!(!has(&world, "view") && !has(&world, "edit") && !has(&world, "admin"));
        // Its own rules are not its own.
        world.edit(&key("clusterroles/view"), |view| view["rules"] = json!([]));
        world.settle_quietly();
        assert!(!json::items(&world.object(&key("clusterroles/view")), "rules").is_empty());
    }
}
