//! What must be true of the objects themselves, as the API shows them when all is quiet: the laws that the state of every
//! master keeps (`control::invariants`), judged from outside.

use std::collections::{BTreeMap, BTreeSet};

use super::Judged;
use crate::run::history::{Record, Shown};

/// No uid and no claim (ClusterIP, node port, pod range) twice; owners, nodes and namespaces that are named are there.
pub fn judge(record: &Record) -> Judged {
    let all = &record.rest.objects;
    let mut judged = Judged { checked: all.len(), ..Judged::default() };
    let mut holders: BTreeMap<String, &Shown> = BTreeMap::new();
    for one in all {
        for claim in one.claims.iter().cloned().chain([format!("the uid {}", one.uid)]) {
            if let Some(other) = holders.insert(claim.clone(), one) {
                judged.broken.push(format!("{claim} belongs to {} and to {}", other.name(), one.name()));
            }
        }
    }
    let uids: BTreeSet<&str> = all.iter().map(|one| one.uid.as_str()).collect();
    let named = |resource: &str| -> BTreeSet<&str> {
        all.iter().filter(|one| one.resource == resource).map(|one| one.name.as_str()).collect()
    };
    let (nodes, namespaces) = (named("nodes"), named("namespaces"));
    for one in all {
        if !one.owners.is_empty() && !one.owners.iter().any(|owner| uids.contains(owner.as_str())) {
            judged.broken.push(format!("no owner of {} is left", one.name()));
        }
        if !one.node.is_empty() && !nodes.contains(one.node.as_str()) {
            judged.broken.push(format!("{} is bound to {}, which is not there", one.name(), one.node));
        }
        if !one.namespace.is_empty() && !namespaces.contains(one.namespace.as_str()) {
            judged.broken.push(format!("{} is in a namespace that is not there", one.name()));
        }
    }
    judged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::history::Rest;

    fn shown(resource: &str, name: &str, change: impl FnOnce(&mut Shown)) -> Shown {
        let namespace = if matches!(resource, "nodes" | "namespaces") { "" } else { "default" };
        let mut one = Shown {
            resource: resource.into(),
            namespace: namespace.into(),
            name: name.into(),
            uid: format!("{resource}-{name}"),
            ..Shown::default()
        };
        change(&mut one);
        one
    }

    #[test]
    fn each_law_has_its_bad_state() {
        let check = |more: Vec<Shown>, broken: usize| {
            let mut objects = vec![
                shown("namespaces", "default", |_| {}),
                shown("nodes", "n1", |one| one.claims = vec!["the pod range 10.1.0.0/24".into()]),
                shown("services", "a", |one| one.claims = vec!["the ClusterIP 10.0.0.1".into()]),
            ];
            objects.extend(more);
            let judged = judge(&Record { rest: Rest { objects, ..Rest::default() }, ..Record::default() });
            assert_eq!(judged.broken.len(), broken, "{:?}", judged.broken);
        };
        check(vec![], 0);
        check(vec![shown("pods", "p", |one| (one.node, one.owners) = ("n1".into(), vec!["services-a".into()]))], 0);
        check(vec![shown("services", "b", |one| one.claims = vec!["the ClusterIP 10.0.0.1".into()])], 1);
        check(vec![shown("services", "b", |one| one.uid = "services-a".into())], 1);
        check(vec![shown("pods", "p", |one| one.owners = vec!["gone".into()])], 1);
        check(vec![shown("pods", "p", |one| one.node = "n2".into())], 1);
        check(vec![shown("pods", "p", |one| one.namespace = "gone".into())], 1);
    }
}
