//! Pods: the account they run as, how long they tolerate a lost node, their priority.

use objects::meta;
use serde_json::{Value, json};
use state::State;

use super::{Denied, Request};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// Every pod runs as some ServiceAccount. No token is mounted yet: none is issued.
pub(super) fn service_account(request: &mut Request<'_>, _root: &State) -> Result<(), Denied> {
    let pod = &mut *request.object;
    if meta::text(pod, &["spec", "serviceAccountName"]).is_empty() {
        meta::set(pod, &["spec", "serviceAccountName"], "default".into());
    }
    // The deprecated alias, which older clients read.
    let name = meta::text(pod, &["spec", "serviceAccountName"]).to_owned();
    meta::set(pod, &["spec", "serviceAccount"], name.into());
    Ok(())
}

/// How long a pod stays on a node that is not ready or not heard of, unless it says so itself.
pub(super) fn default_tolerations(request: &mut Request<'_>, _root: &State) -> Result<(), Denied> {
    let present = meta::list(request.object, &["spec", "tolerations"]);
    let added: Vec<Value> = [NOT_READY, UNREACHABLE]
        .into_iter()
        .filter(|taint| !present.iter().any(|toleration| tolerates(toleration, taint)))
        .map(|taint| {
            json!({
                "key": taint, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": request.settings.toleration_s,
            })
        })
        .collect();
    if !added.is_empty() {
        let tolerations = [present, &added].concat();
        meta::set(request.object, &["spec", "tolerations"], tolerations.into());
    }
    Ok(())
}

fn tolerates(toleration: &Value, taint: &str) -> bool {
    let is = |field, values: &[&str]| values.contains(&meta::text(toleration, &[field]));
    is("key", &[taint, ""]) && is("effect", &["NoExecute", ""])
}

/// Without PriorityClasses all pods are equal.
pub(super) fn priority(request: &mut Request<'_>, _root: &State) -> Result<(), Denied> {
    for (field, value) in [("priority", json!(0)), ("preemptionPolicy", json!("PreemptLowerPriority"))] {
        if meta::at(request.object, &["spec", field]).is_none() {
            meta::set(request.object, &["spec", field], value);
        }
    }
    Ok(())
}
