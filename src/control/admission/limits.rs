//! LimitRanges: what containers get that ask for nothing, and how much a container, a pod or a claim may ask for.

use std::collections::BTreeSet;

use objects::kinds::{Amounts, amounts, pod_amounts};
use objects::meta;
use objects::quantity::Quantity;
use serde_json::Value;
use state::State;

use super::{Denied, Operation, Request};
use crate::record;

/// Says on the pod what it got.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// Every limit of this type in the LimitRanges of the namespace, in the order of their names; those of one in one list.
fn limits(request: &Request<'_>, root: &State) -> Vec<Vec<Value>> {
    let ranges = root.list("", "limitranges", Some(meta::namespace(request.object)));
    ranges.map(|(_, range)| meta::list(&record::parse(range), &["spec", "limits"]).to_vec()).collect()
}

fn is_for(limit: &Value, kind: &str) -> bool {
    meta::text(limit, &["type"]) == kind
}

/// Gives a pod's containers what they do not say themselves.
pub(super) fn default(request: &mut Request<'_>, root: &State) -> Result<(), Denied> {
    for range in limits(request, root) {
        let mut said = Vec::new();
        for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
            for container in meta::list_mut(request.object, &["spec", list]) {
                for limit in range.iter().filter(|limit| is_for(limit, "Container")) {
                    let name = meta::text(container, &["name"]).to_owned();
                    let limits = fill(container, "limits", &amounts(limit, &["default"]));
                    let requests = fill(container, "requests", &amounts(limit, &["defaultRequest"]));
                    for (filled, of) in [(requests, "request"), (limits, "limit")] {
                        if !filled.is_empty() {
                            said.push(format!("{} {of} for {what} {name}", filled.join(", ")));
                        }
                    }
                }
            }
        }
        if !said.is_empty() {
            let said = format!("LimitRanger plugin set: {}", said.join("; "));
            meta::set(request.object, &["metadata", "annotations", ANNOTATION], said.into());
        }
    }
    Ok(())
}

/// The resources that were not there.
fn fill(container: &mut Value, list: &str, defaults: &Amounts) -> Vec<String> {
    let mut filled = Vec::new();
    for (resource, amount) in defaults {
        let path = ["resources", list, resource.as_str()];
        if meta::at(container, &path).is_none() {
            meta::set(container, &path, amount.to_string().into());
            filled.push(resource.clone());
        }
    }
    filled
}

pub(super) fn judge(request: &Request<'_>, root: &State) -> Result<(), Denied> {
    let claim = request.kind.plural == "persistentvolumeclaims";
    if !claim && request.operation == Operation::Update {
        return Ok(());
    }
    let resources = ["spec", "resources"];
    // What does not change was judged when it was asked for.
    let same = |old: &Value| meta::at(old, &resources) == meta::at(request.object, &resources);
    if request.operation == Operation::Update && request.old.is_none_or(same) {
        return Ok(());
    }
    for range in limits(request, root) {
        let mut against = Vec::new();
        for limit in &range {
            if claim {
                of_claim(limit, request.object, &mut against);
            } else {
                of_pod(limit, request.object, &mut against);
            }
        }
        if !against.is_empty() {
            return Err(Denied::Forbidden(all(against)));
        }
    }
    Ok(())
}

/// Several reasons in one, as Kubernetes joins them.
fn all(reasons: Vec<String>) -> String {
    let mut seen = BTreeSet::new();
    let mut once: Vec<String> = reasons.into_iter().filter(|reason| seen.insert(reason.clone())).collect();
    if once.len() == 1 { once.remove(0) } else { format!("[{}]", once.join(", ")) }
}

/// What is asked for, and where it ends.
struct Asked {
    requests: Amounts,
    limits: Amounts,
}

fn of_pod(limit: &Value, pod: &Value, against: &mut Vec<String>) {
    if is_for(limit, "Pod") {
        let asked = Asked { requests: pod_amounts(pod, "requests"), limits: pod_amounts(pod, "limits") };
        within(limit, &asked, against);
    }
    if is_for(limit, "Container") {
        for list in ["containers", "initContainers"] {
            for container in meta::list(pod, &["spec", list]) {
                let of = |list| amounts(container, &["resources", list]);
                within(limit, &Asked { requests: of("requests"), limits: of("limits") }, against);
            }
        }
    }
}

fn within(limit: &Value, asked: &Asked, against: &mut Vec<String>) {
    let kind = meta::text(limit, &["type"]);
    for (resource, least) in amounts(limit, &["min"]) {
        against.extend(at_least(kind, &resource, &least, asked));
    }
    for (resource, most) in amounts(limit, &["max"]) {
        against.extend(at_most(kind, &resource, &most, asked));
    }
    for (resource, ratio) in amounts(limit, &["maxLimitRequestRatio"]) {
        against.extend(in_ratio(kind, &resource, &ratio, asked));
    }
}

/// A claim has no limits.
fn of_claim(limit: &Value, claim: &Value, against: &mut Vec<String>) {
    if !is_for(limit, "PersistentVolumeClaim") {
        return;
    }
    let kind = "PersistentVolumeClaim";
    let requests = amounts(claim, &["spec", "resources", "requests"]);
    for (resource, most) in amounts(limit, &["max"]) {
        let says = format!("maximum {resource} usage per {kind} is {most}");
        match requests.get(&resource) {
            None => against.push(format!("{says}.  No request is specified")),
            Some(request) if *request > most => against.push(format!("{says}, but request is {request}")),
            Some(_) => {}
        }
    }
    let asked = Asked { requests, limits: Amounts::new() };
    for (resource, least) in amounts(limit, &["min"]) {
        against.extend(at_least(kind, &resource, &least, &asked));
    }
}

fn at_least(kind: &str, resource: &str, least: &Quantity, asked: &Asked) -> Option<String> {
    let says = format!("minimum {resource} usage per {kind} is {least}");
    match (asked.requests.get(resource), asked.limits.get(resource)) {
        (None, _) => Some(format!("{says}.  No request is specified")),
        (Some(request), _) if request < least => Some(format!("{says}, but request is {request}")),
        (_, Some(limit)) if limit < least => Some(format!("{says}, but limit is {limit}")),
        _ => None,
    }
}

fn at_most(kind: &str, resource: &str, most: &Quantity, asked: &Asked) -> Option<String> {
    let says = format!("maximum {resource} usage per {kind} is {most}");
    match (asked.limits.get(resource), asked.requests.get(resource)) {
        (None, _) => Some(format!("{says}.  No limit is specified")),
        (Some(limit), _) if limit > most => Some(format!("{says}, but limit is {limit}")),
        (_, Some(request)) if request > most => Some(format!("{says}, but request is {request}")),
        _ => None,
    }
}

fn in_ratio(kind: &str, resource: &str, ratio: &Quantity, asked: &Asked) -> Option<String> {
    let says = format!("{resource} max limit to request ratio per {kind} is {ratio}");
    let some = |amount: Option<&Quantity>| amount.filter(|amount| !amount.is_zero()).map(Quantity::milli);
    let Some(request) = some(asked.requests.get(resource)) else {
        return Some(format!("{says}, but no request is specified or request is 0"));
    };
    let Some(limit) = some(asked.limits.get(resource)) else {
        return Some(format!("{says}, but no limit is specified or limit is 0"));
    };
    let beyond = limit.saturating_mul(1000) > ratio.milli().saturating_mul(request);
    beyond.then(|| format!("{says}, but provided ratio is {:.6}", limit as f64 / request as f64))
}
