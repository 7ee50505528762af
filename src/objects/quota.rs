//! What a ResourceQuota counts: what one object takes of its namespace, what a quota allows, and how both are printed.
//!
//! Amounts are whole numbers: cpu in thousandths, all else in units; what is between two is rounded up.
//!
//! Adding up and refusing is `state`'s, `control` brings the two together.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::meta;
use crate::quantity::Quantity;

/// What one object takes beside its one of `count/<resource>.<group>`, and the words that scopes tell it apart by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    pub amounts: BTreeMap<String, u64>,
    pub class: Vec<String>,
}

impl Uses {
    pub(crate) fn add(&mut self, thing: impl Into<String>, amount: u64) {
        if amount > 0 {
            let sum = self.amounts.entry(thing.into()).or_default();
            *sum = sum.saturating_add(amount);
        }
    }

    pub(crate) fn word(&mut self, word: impl Into<String>) {
        self.class.push(word.into());
    }
}

/// One entry of `spec.hard`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// As the quota calls it.
    pub name: String,
    /// As [`Uses`] and counts call it.
    pub thing: String,
    pub amount: u64,
}

/// Holds of an object whose class has one of the words, or none of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub none: bool,
    pub words: Vec<String>,
}

/// Legacy names of `count/<resource>`.
const COUNTED: &[&str] =
    &["configmaps", "persistentvolumeclaims", "replicationcontrollers", "resourcequotas", "secrets", "services"];
/// Short names of `requests.<resource>`.
const REQUESTED: &[&str] = &["cpu", "ephemeral-storage", "memory"];
/// What Kubernetes never counts.
const UNCOUNTED: &[&str] = &["count/bindings", "count/events", "count/events.events.k8s.io"];
/// What pods have requests of that a quota must be told of.
pub const COMPUTE: &[&str] = &["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];

/// What the objects that a quota counts are called by.
pub fn thing(name: &str) -> String {
    match name {
        _ if COUNTED.contains(&name) => format!("count/{name}"),
        _ if REQUESTED.contains(&name) || name.starts_with("hugepages-") => format!("requests.{name}"),
        _ => name.to_owned(),
    }
}

/// What a ResourceQuota allows.
pub fn limits(quota: &Value) -> Vec<Limit> {
    let scopes = scopes(quota);
    meta::strings(quota, &["spec", "hard"])
        .into_iter()
        .filter_map(|(name, hard)| {
            let amount = amount(&name, &Quantity::parse(&hard).ok()?);
            Some(Limit { thing: thing(&name), amount, name })
        })
        .filter(|limit| !UNCOUNTED.contains(&limit.thing.as_str()))
        .filter(|limit| scopes.iter().all(|(scope, _)| is_of(scope, &limit.thing)))
        .collect()
}

/// Whether a scope picks objects that may take of this thing: pods, or claims. No other object is in any scope.
fn is_of(scope: &str, thing: &str) -> bool {
    let counted = if scope == "VolumeAttributesClass" { "count/persistentvolumeclaims" } else { "count/pods" };
    !thing.starts_with("count/") || thing == counted
}

/// Of which objects a ResourceQuota counts what they take: those of which all hold.
pub fn conditions(quota: &Value) -> Vec<Condition> {
    scopes(quota).into_iter().map(|(_, condition)| condition).collect()
}

fn scopes(quota: &Value) -> Vec<(&str, Condition)> {
    let named = meta::list(quota, &["spec", "scopes"]).iter().filter_map(Value::as_str);
    let mut all: Vec<_> = named.map(|scope| (scope, condition(scope, "Exists", &[]))).collect();
    for expression in meta::list(quota, &["spec", "scopeSelector", "matchExpressions"]) {
        let scope = meta::text(expression, &["scopeName"]);
        let condition = condition(scope, meta::text(expression, &["operator"]), meta::list(expression, &["values"]));
        all.push((scope, condition));
    }
    all
}

fn condition(scope: &str, operator: &str, values: &[Value]) -> Condition {
    let word = scope.strip_prefix("Not").unwrap_or(scope);
    let valued = || values.iter().filter_map(Value::as_str).map(|value| format!("{word}={value}")).collect();
    match operator {
        "In" => Condition { none: false, words: valued() },
        "NotIn" => Condition { none: true, words: valued() },
        operator => Condition { none: (operator == "DoesNotExist") != (word != scope), words: vec![word.to_owned()] },
    }
}

fn plain(name: &str) -> &str {
    let name = name.rsplit('/').next().unwrap_or(name);
    name.strip_prefix("requests.").or_else(|| name.strip_prefix("limits.")).unwrap_or(name)
}

/// The whole number that a quantity of this counts as.
pub fn amount(name: &str, quantity: &Quantity) -> u64 {
    let amount = if plain(name) == "cpu" { quantity.milli() } else { quantity.value() };
    u64::try_from(amount.max(0)).unwrap_or(u64::MAX)
}

/// The quantity that such a number stands for, as it is printed.
pub fn quantity(name: &str, amount: u64) -> Quantity {
    match plain(name) {
        "cpu" => Quantity::from_milli(amount.into()),
        "ephemeral-storage" | "memory" | "storage" => Quantity::from_bytes(amount.into()),
        plain if plain.starts_with("hugepages-") => Quantity::from_bytes(amount.into()),
        _ => Quantity::from_value(amount.into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Kinds;

    fn uses(resource: &str, object: Value) -> (Value, Vec<String>) {
        let kind = Kinds::builtin().by_resource("", resource).expect("a kind");
        let uses = kind.uses(&object);
        (json!(uses.amounts), uses.class)
    }

    #[test]
    fn what_objects_take() {
        let container = json!({"resources": {
            "requests": {"cpu": "100m", "memory": "1Mi"}, "limits": {"cpu": "1", "example.com/gpu": "2"},
        }});
        let running = json!({"pods": 1, "requests.cpu": 200, "requests.memory": 2 << 20, "limits.cpu": 2000});
        let spec = json!({"containers": [container, container], "priorityClassName": "high"});
        let class = ["PriorityClass", "PriorityClass=high"];
        assert_eq!(uses("pods", json!({ "spec": spec })), (running, class.map(str::to_owned).to_vec()));
        for (resource, object, amounts, class) in [
            ("pods", json!({"spec": {"containers": [{}]}}), json!({"pods": 1}), vec!["BestEffort"]),
            (
                "pods",
                json!({"spec": {"activeDeadlineSeconds": 0, "containers": [container]}, "status": {"phase": "Failed"}}),
                json!({}),
                vec!["Terminating"],
            ),
            (
                "pods",
                json!({"spec": {
                    "containers": [container],
                    "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"namespaces": ["x"]}]}},
                }}),
                json!({"pods": 1, "requests.cpu": 100, "requests.memory": 1 << 20, "limits.cpu": 1000}),
                vec!["CrossNamespacePodAffinity"],
            ),
            ("services", json!({"spec": {"type": "ClusterIP", "ports": [{}]}}), json!({}), vec![]),
            (
                "services",
                json!({"spec": {"type": "NodePort", "ports": [{}, {}]}}),
                json!({"services.nodeports": 2}),
                vec![],
            ),
            (
                "services",
                json!({"spec": {
                    "type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
                    "ports": [{"nodePort": 30000}, {}],
                }}),
                json!({"services.loadbalancers": 1, "services.nodeports": 1}),
                vec![],
            ),
            (
                "persistentvolumeclaims",
                json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "1Ki"}}}}),
                json!({
                    "requests.storage": 1024,
                    "fast.storageclass.storage.k8s.io/requests.storage": 1024,
                    "fast.storageclass.storage.k8s.io/persistentvolumeclaims": 1,
                }),
                vec![],
            ),
            ("configmaps", json!({}), json!({}), vec![]),
        ] {
            let class = class.into_iter().map(str::to_owned).collect();
            assert_eq!(uses(resource, object.clone()), (amounts, class), "{object}");
        }
    }

    #[test]
    fn what_quotas_allow() {
        let hard =
            json!({"cpu": "0.5", "limits.memory": "1Ki", "secrets": "3", "count/jobs.batch": "1", "count/events": "1"});
        let things = |quota: &Value| -> Vec<(String, String, u64)> {
            limits(quota).into_iter().map(|limit| (limit.name, limit.thing, limit.amount)).collect()
        };
        let expected = [
            ("count/jobs.batch", "count/jobs.batch", 1),
            ("cpu", "requests.cpu", 500),
            ("limits.memory", "limits.memory", 1024),
            ("secrets", "count/secrets", 3),
        ]
        .map(|(name, thing, n)| (name.to_owned(), thing.to_owned(), n));
        assert_eq!(things(&json!({"spec": {"hard": hard}})), expected);
        assert_eq!(things(&json!({"spec": {"hard": hard, "scopes": ["NotBestEffort"]}})), expected[1..3]);
    }

    #[test]
    fn what_scopes_pick() {
        let of =
            |none: bool, words: &[&str]| Condition { none, words: words.iter().map(ToString::to_string).collect() };
        let quota = json!({"spec": {"scopes": ["BestEffort", "NotTerminating"], "scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": "In", "values": ["a", "b"]},
            {"scopeName": "PriorityClass", "operator": "NotIn", "values": ["c"]},
            {"scopeName": "PriorityClass", "operator": "Exists"},
            {"scopeName": "PriorityClass", "operator": "DoesNotExist"},
            {"scopeName": "NotBestEffort", "operator": "Exists"},
        ]}}});
        let expected = [
            of(false, &["BestEffort"]),
            of(true, &["Terminating"]),
            of(false, &["PriorityClass=a", "PriorityClass=b"]),
            of(true, &["PriorityClass=c"]),
            of(false, &["PriorityClass"]),
            of(true, &["PriorityClass"]),
            of(true, &["BestEffort"]),
        ];
        assert_eq!(conditions(&quota), expected);
    }

    #[test]
    fn amounts_are_printed_as_they_are_written() {
        for (name, text, number) in [
            ("cpu", "1500m", 1500),
            ("limits.cpu", "2", 2000),
            ("requests.memory", "1Gi", 1 << 30),
            ("fast.storageclass.storage.k8s.io/requests.storage", "2Ki", 2048),
            ("fast.storageclass.storage.k8s.io/persistentvolumeclaims", "2048", 2048),
            ("count/pods", "2", 2),
            ("requests.hugepages-2Mi", "4Mi", 4 << 20),
        ] {
            assert_eq!(amount(name, &Quantity::parse(text).expect("a quantity")), number, "{name}");
            assert_eq!(quantity(name, number).to_string(), text, "{name}");
        }
    }
}
