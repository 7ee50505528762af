//! What a pod asks of its node, as header fields: `requests.cpu` (thousandths), `requests.memory` (bytes), `host-ports`
//! (`TCP/0.0.0.0/80,…`). The scheduler counts with these and parses no bodies.

use serde_json::Value;

use super::Fields;
use crate::{meta, quantity};

pub(super) fn insert(pod: &Value, fields: &mut Fields) {
    for (field, resource, amount) in
        [("requests.cpu", "cpu", quantity::milli as fn(&str) -> i64), ("requests.memory", "memory", quantity::value)]
    {
        let asked = effective(pod, |container| amount(meta::text(container, &["resources", "requests", resource])))
            .saturating_add(amount(meta::text(pod, &["spec", "overhead", resource])));
        if asked > 0 {
            fields.insert(field.into(), asked.to_string());
        }
    }
    let ports = host_ports(pod);
    if !ports.is_empty() {
        fields.insert("host-ports".into(), ports.join(","));
    }
}

/// The most that is asked for at one time: by all containers together, or by an init container beside the sidecars that
/// started before it.
fn effective(pod: &Value, amount: impl Fn(&Value) -> i64) -> i64 {
    let (mut sidecars, mut peak) = (0i64, 0i64);
    for container in meta::list(pod, &["spec", "initContainers"]) {
        let asked = amount(container);
        if meta::text(container, &["restartPolicy"]) == "Always" {
            sidecars = sidecars.saturating_add(asked);
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(sidecars.saturating_add(asked));
        }
    }
    let together = meta::list(pod, &["spec", "containers"]).iter().map(amount).fold(sidecars, i64::saturating_add);
    peak.max(together)
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
