//! The Leases of living nodes, for people and clients that look there. Nothing inside hactl reads them.

use objects::meta;
use serde_json::json;
use state::{Command, Key, Op, State};

use crate::{Context, emit, json, record};

const GROUP: &str = "coordination.k8s.io";
const NAMESPACE: &str = "kube-node-lease";
/// A Lease is renewed when it is this old; one command renews all that are at least half as old.
const RENEW_MS: i64 = 10_000;
/// How long a Lease says it is good for.
const DURATION_S: i64 = 40;

/// One command that renews the Leases of these nodes, when one of them is due.
pub fn plan(root: &State, alive: &[&str], cx: &mut Context) -> Option<Command> {
    root.get(&Key::namespace(NAMESPACE)).filter(|namespace| namespace.header.deletion_ms == 0)?;
    let kind = emit::kind(GROUP, "leases")?;
    let age_ms = |name: &str| {
        let lease = root.get(&record::key(kind, NAMESPACE, name))?;
        let renewed_ms: i64 = emit::field(lease, "renewed").parse().ok()?;
        Some(cx.now_ms() - renewed_ms)
    };
    let ages: Vec<(&str, i64)> = alive.iter().map(|name| (*name, age_ms(name).unwrap_or(i64::MAX))).collect();
    if ages.iter().all(|(_, age)| (0..RENEW_MS).contains(age)) {
        return None;
    }
    let mut ops = Vec::new();
    for (name, _) in ages.into_iter().filter(|(_, age)| !(0..RENEW_MS / 2).contains(age)) {
        let key = record::key(kind, NAMESPACE, name);
        let mut lease = match root.get(&key) {
            Some(present) => record::parse(present),
            None => {
                let Some(node) = root.get(&Key::node(name)) else { continue };
                let mut owner = meta::owner_reference(&record::parse(node));
                json::remove(&mut owner, "controller");
                json::remove(&mut owner, "blockOwnerDeletion");
                json!({
                    "apiVersion": "coordination.k8s.io/v1",
                    "kind": "Lease",
                    "metadata": {
                        "name": name,
                        "namespace": NAMESPACE,
                        "uid": cx.uid(),
                        "creationTimestamp": cx.time(),
                        "ownerReferences": [owner],
                    },
                    "spec": { "holderIdentity": name, "leaseDurationSeconds": DURATION_S },
                })
            }
        };
        json::set(&mut lease, "spec.renewTime", cx.micro_time().into());
        ops.extend(record::put(kind, &lease).ok().map(Op::put));
    }
    (!ops.is_empty()).then(|| Command { ops, ..Command::default() })
}
