//! Which nodes can take a pod, and the reason of each that cannot, worded as Kubernetes words it. To add one: a function
//! and a row.

use serde_json::Value;

use super::{Node, Pod};
use crate::controllers::node::tolerates;
use crate::json;

/// The reasons against a node; none if it fits.
type Filter = fn(&Pod<'_>, &Node<'_>) -> Vec<String>;

/// In order; the first that objects speaks for the node.
const FILTERS: &[Filter] = &[unschedulable, node_name, taints, not_ready, node_selector, host_ports, resources];

pub fn reasons(pod: &Pod<'_>, node: &Node<'_>) -> Vec<String> {
    FILTERS.iter().map(|filter| filter(pod, node)).find(|reasons| !reasons.is_empty()).unwrap_or_default()
}

fn one(holds: bool, reason: &str) -> Vec<String> {
    if holds { Vec::new() } else { vec![reason.to_owned()] }
}

fn unschedulable(pod: &Pod<'_>, node: &Node<'_>) -> Vec<String> {
    let taint = serde_json::json!({ "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule" });
    one(!node.info.unschedulable || is_tolerated(pod, &taint), "node(s) were unschedulable")
}

fn node_name(pod: &Pod<'_>, node: &Node<'_>) -> Vec<String> {
    let wanted = json::text(pod.object, "spec.nodeName");
    one(wanted.is_empty() || wanted == node.info.name, "node(s) didn't match the requested node name")
}

fn taints(pod: &Pod<'_>, node: &Node<'_>) -> Vec<String> {
    let against = node
        .info
        .taints
        .iter()
        .filter(|taint| matches!(json::text(taint, "effect"), "NoSchedule" | "NoExecute"))
        .find(|taint| !is_tolerated(pod, taint));
    match against {
        Some(taint) => {
            let (key, value) = (json::text(taint, "key"), json::text(taint, "value"));
            vec![format!("node(s) had untolerated taint {{{key}: {value}}}")]
        }
        None => Vec::new(),
    }
}

pub fn is_tolerated(pod: &Pod<'_>, taint: &Value) -> bool {
    json::items(pod.object, "spec.tolerations").iter().any(|toleration| tolerates(toleration, taint))
}

/// Between a node's falling silent and its taint there is one plan; until then this one objects.
fn not_ready(pod: &Pod<'_>, node: &Node<'_>) -> Vec<String> {
    let taint = serde_json::json!({ "key": crate::controllers::node::NOT_READY, "effect": "NoSchedule" });
    one(node.info.ready || is_tolerated(pod, &taint), "node(s) were not ready")
}

fn node_selector(pod: &Pod<'_>, node: &Node<'_>) -> Vec<String> {
    let fits = json::at(pod.object, "spec.nodeSelector")
        .as_object()
        .into_iter()
        .flatten()
        .all(|(key, value)| node.info.labels.get(key).map(String::as_str) == value.as_str());
    one(fits, "node(s) didn't match Pod's node affinity/selector")
}

fn host_ports(pod: &Pod<'_>, node: &Node<'_>) -> Vec<String> {
    let free = pod.request.ports.iter().all(|port| !node.load.ports.keys().any(|taken| clash(port, taken)));
    one(free, "node(s) didn't have free ports for the requested pod ports")
}

/// Two host ports clash on one address, or where one of them is on all addresses.
fn clash(a: &str, b: &str) -> bool {
    let parts = |port: &str| {
        let mut parts = port.splitn(3, '/').map(str::to_owned);
        (parts.next(), parts.next(), parts.next())
    };
    let ((protocol, address, port), (other_protocol, other_address, other_port)) = (parts(a), parts(b));
    let every = |address: &Option<String>| matches!(address.as_deref(), None | Some("" | "0.0.0.0"));
    protocol == other_protocol
        && port == other_port
        && (address == other_address || every(&address) || every(&other_address))
}

fn resources(pod: &Pod<'_>, node: &Node<'_>) -> Vec<String> {
    let (info, load, request) = (node.info, node.load, pod.request);
    let mut reasons = one(load.pods < info.pods, "Too many pods");
    if request.cpu_milli > 0 {
        reasons.extend(one(load.cpu_milli + request.cpu_milli <= info.cpu_milli, "Insufficient cpu"));
    }
    if request.memory > 0 {
        reasons.extend(one(load.memory + request.memory <= info.memory, "Insufficient memory"));
    }
    reasons
}
