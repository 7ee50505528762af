//! ResourceQuotas: what a pod must say for them to count it. That no change takes more than they leave is a rule of `apply`;
//! [`wording`] says so as Kubernetes does.

use std::collections::{BTreeMap, BTreeSet};

use objects::{meta, quota};
use serde_json::Value;
use state::{Exceeded, State};

use super::{Denied, Request};

/// Whoever bounds requests must be told of them, container by container.
pub(super) fn constrain(request: &Request<'_>, root: &State) -> Result<(), Denied> {
    let pod = &*request.object;
    let mut bounding = root.bounding(meta::namespace(pod)).peekable();
    if bounding.peek().is_none() {
        return Ok(());
    }
    let class = request.kind.uses(pod).class.join(",");
    for (key, bounds) in bounding.filter(|(_, bounds)| bounds.count(&class)) {
        let names = bounds.all.iter().map(|bound| bound.name.as_str());
        let required: Vec<&str> = names.filter(|name| quota::COMPUTE.contains(name)).collect();
        let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for container in ["containers", "initContainers"].iter().flat_map(|list| meta::list(pod, &["spec", list])) {
            for name in required.iter().filter(|name| !says(container, name)) {
                missing.entry(*name).or_default().insert(meta::text(container, &["name"]));
            }
        }
        if !missing.is_empty() {
            let missing: Vec<String> = missing
                .into_iter()
                .map(|(name, of)| format!("{name} for: {}", of.into_iter().collect::<Vec<_>>().join(",")))
                .collect();
            return Err(Denied::Forbidden(format!("failed quota: {}: must specify {}", key.name, missing.join("; "))));
        }
    }
    Ok(())
}

fn says(container: &Value, name: &str) -> bool {
    let (list, resource) = name.split_once('.').unwrap_or(("requests", name));
    meta::at(container, &["resources", list, resource]).is_some()
}

/// `exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2`.
pub fn wording(exceeded: &Exceeded) -> String {
    let list = |amount: fn(&state::Beyond) -> u64| {
        let parts =
            exceeded.parts.iter().map(|part| format!("{}={}", part.name, quota::quantity(&part.name, amount(part))));
        parts.collect::<Vec<_>>().join(",")
    };
    let (asked, taken, limit) = (list(|part| part.asked), list(|part| part.taken), list(|part| part.limit));
    format!("exceeded quota: {}, requested: {asked}, used: {taken}, limited: {limit}", exceeded.by)
}
