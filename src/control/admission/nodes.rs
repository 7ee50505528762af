//! A node may only touch what is its own. `authz` has let it through by name; here the object is at hand.

use objects::meta;
use serde_json::Value;
use state::State;

use super::{Denied, Operation, Request};
use crate::authz::{MASTERS, NODE_LEASES};

pub(super) fn restrict(request: &Request<'_>, _root: &State) -> Result<(), Denied> {
    let Some(node) = request.user.as_node().filter(|_| !request.user.is_in(MASTERS)) else { return Ok(()) };
    let refuse = |message: String| Err(Denied::Forbidden(message));
    let object = &*request.object;
    match (request.kind.group, request.kind.plural) {
        ("", "nodes") if meta::name(object) != node => {
            refuse(format!("node {node:?} is not allowed to modify node {:?}", meta::name(object)))
        }
        ("", "nodes") => taints_kept(request, node).and_then(|()| labels_allowed(request, node)),
        ("", "pods") if request.operation == Operation::Create => {
            refuse(format!("node {node:?} is not allowed to create pods"))
        }
        ("", "pods") => {
            let bound = request.old.unwrap_or(object);
            if meta::text(bound, &["spec", "nodeName"]) != node {
                return refuse(format!("node {node:?} can only modify pods with spec.nodeName set to itself"));
            }
            // By labels it could draw the traffic of other Services to itself.
            if meta::labels(bound) != meta::labels(object) {
                return refuse(format!("node {node:?} cannot update labels through pod status"));
            }
            Ok(())
        }
        ("coordination.k8s.io", "leases") => {
            if meta::namespace(object) == NODE_LEASES && meta::name(object) == node {
                Ok(())
            } else {
                refuse(format!("can only access node lease with the same name as the requesting node {node:?}"))
            }
        }
        _ => Ok(()),
    }
}

/// Labels of Kubernetes' own that a node may set on itself, as the kubelet does.
const NODE_LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];
/// The prefixes, and those that end with them, that are the node's own.
const NODE_PREFIXES: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];
/// Labels that say what may run on a node; no node sets them on itself.
const RESTRICTED_PREFIX: &str = "node-restriction.kubernetes.io";

/// A node that could give itself any label could call privileged pods to itself.
fn labels_allowed(request: &Request<'_>, node: &str) -> Result<(), Denied> {
    let (old, new) = (request.old.map(meta::labels).unwrap_or_default(), meta::labels(request.object));
    let mut changed: Vec<&str> = old
        .keys()
        .chain(new.keys())
        .filter(|label| old.get(*label) != new.get(*label) && !is_nodes_own(label))
        .map(String::as_str)
        .collect();
    changed.sort_unstable();
    changed.dedup();
    if changed.is_empty() {
        return Ok(());
    }
    let what = if request.old.is_some() { "modify labels" } else { "set the following labels" };
    Err(Denied::Forbidden(format!("node {node:?} is not allowed to {what}: {}", changed.join(", "))))
}

/// As Kubernetes' plugin NodeRestriction has it: labels of others are free, those of Kubernetes are not, but for a few.
fn is_nodes_own(label: &str) -> bool {
    let Some((prefix, _)) = label.split_once('/') else { return true };
    let below = |root: &str| prefix == root || prefix.strip_suffix(root).is_some_and(|rest| rest.ends_with('.'));
    let kubernetes = below("kubernetes.io") || below("k8s.io");
    !below(RESTRICTED_PREFIX)
        && (!kubernetes || NODE_LABELS.contains(&label) || NODE_PREFIXES.iter().any(|prefix| below(prefix)))
}

/// A node that could lift its own taints could call pods to itself.
fn taints_kept(request: &Request<'_>, node: &str) -> Result<(), Denied> {
    let taints = |object: &Value| meta::list(object, &["spec", "taints"]).to_vec();
    match request.old {
        Some(old) if taints(old) != taints(request.object) => {
            Err(Denied::Forbidden(format!("node {node:?} is not allowed to modify taints")))
        }
        _ => Ok(()),
    }
}
