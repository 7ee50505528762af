//! What a pod asks of its node, as header fields: `requests.cpu` (thousandths), `requests.memory` (bytes), `host-ports`
//! (`TCP/0.0.0.0/80,…`). The scheduler counts with these and parses no bodies.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Fields;
use crate::meta;
use crate::quantity::Quantity;

/// By the name of the resource.
pub type Amounts = BTreeMap<String, Quantity>;

pub(super) fn insert(pod: &Value, fields: &mut Fields) {
    let asked = asked(pod);
    for (field, resource, amount) in [
        ("requests.cpu", "cpu", Quantity::milli as fn(&Quantity) -> i128),
        ("requests.memory", "memory", Quantity::value),
    ] {
        let amount = asked.get(resource).map_or(0, amount);
        if amount > 0 {
            fields.insert(field.into(), i64::try_from(amount).unwrap_or(i64::MAX).to_string());
        }
    }
    let ports = host_ports(pod);
    if !ports.is_empty() {
        fields.insert("host-ports".into(), ports.join(","));
    }
}

/// What the pod requests, with its overhead.
pub(super) fn asked(pod: &Value) -> Amounts {
    let mut all = pod_amounts(pod, "requests");
    add(&mut all, &amounts(pod, &["spec", "overhead"]));
    all
}

/// The most of its containers' `requests` or `limits` at one time: of all containers together, or of an init container beside
/// the sidecars that started before it.
pub fn pod_amounts(pod: &Value, list: &str) -> Amounts {
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for container in meta::list(pod, &["spec", "initContainers"]) {
        let mut together = sidecars.clone();
        add(&mut together, &amounts(container, &["resources", list]));
        raise(&mut peak, &together);
        if meta::text(container, &["restartPolicy"]) == "Always" {
            sidecars = together;
        }
    }
    let mut all = sidecars;
    for container in meta::list(pod, &["spec", "containers"]) {
        add(&mut all, &amounts(container, &["resources", list]));
    }
    raise(&mut all, &peak);
    all
}

/// The quantities of a map; malformed ones are left out.
pub fn amounts(object: &Value, path: &[&str]) -> Amounts {
    let all = meta::strings(object, path).into_iter();
    all.filter_map(|(resource, amount)| Some((resource, Quantity::parse(&amount).ok()?))).collect()
}

fn add(all: &mut Amounts, more: &Amounts) {
    for (resource, amount) in more {
        *all.entry(resource.clone()).or_insert(Quantity::ZERO) += *amount;
    }
}

fn raise(all: &mut Amounts, to: &Amounts) {
    for (resource, amount) in to {
        let present = all.entry(resource.clone()).or_insert(*amount);
        *present = (*present).max(*amount);
    }
}

fn host_ports(pod: &Value) -> Vec<String> {
    let mut found: Vec<String> = meta::list(pod, &["spec", "containers"])
        .iter()
        .flat_map(|container| meta::list(container, &["ports"]))
        .filter_map(|port| {
            let number = meta::int(port, &["hostPort"]).filter(|number| *number > 0)?;
            let or = |text: &'static str, field: &str| match meta::text(port, &[field]) {
                "" => text.to_owned(),
                given => given.to_owned(),
            };
            Some(format!("{}/{}/{number}", or("TCP", "protocol"), or("0.0.0.0", "hostIP")))
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_pod_asks_for() {
        let asks = |cpu: &str, memory: &str| json!({"requests": {"cpu": cpu, "memory": memory}});
        for (spec, cpu, memory, ports) in [
            (json!({"containers": [{"name": "a"}]}), None, None, None),
            (
                json!({"containers": [{"resources": asks("100m", "1Mi")}, {"resources": asks("1", "1Ki")}]}),
                Some("1100"),
                Some("1049600"),
                None,
            ),
            (
                json!({
                    "initContainers": [
                        {"resources": asks("200m", "0"), "restartPolicy": "Always"},
                        {"resources": asks("2", "0")},
                    ],
                    "containers": [{"resources": asks("1", "0")}],
                }),
                Some("2200"),
                None,
                None,
            ),
            (
                json!({"containers": [{"ports": [
                    {"hostPort": 80, "protocol": "TCP"}, {"containerPort": 1}, {"hostPort": 53, "protocol": "UDP", "hostIP": "10.0.0.1"},
                ]}]}),
                None,
                None,
                Some("TCP/0.0.0.0/80,UDP/10.0.0.1/53"),
            ),
        ] {
            let mut fields = Fields::new();
            insert(&json!({"spec": spec}), &mut fields);
            let got =
                ["requests.cpu", "requests.memory", "host-ports"].map(|name| fields.get(name).map(String::as_str));
            assert_eq!(got, [cpu, memory, ports], "{spec}");
        }
    }
}
