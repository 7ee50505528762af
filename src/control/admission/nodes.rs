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
        ("", "nodes") => taints_kept(request, node),
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
