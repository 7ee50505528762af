//! Finished pods beyond a number: the oldest go. Pods of lost nodes are [`super::node`]'s.

use std::time::Duration;

use state::{Event, Key, Record, State};

use crate::{Context, Plan, Row, emit};

/// Finished pods kept for people to read their logs and reasons.
const FINISHED_MAX: usize = 1000;
/// Looked at this often.
const ROUND: Duration = Duration::from_secs(60);
/// Deletions of one plan.
const BURST: usize = 500;

pub const ROW: Row = Row {
    name: "podgc",
    watches: &[("", "namespaces")],
    keys: |_, _: &Event| Vec::new(),
    plan,
    resync: |_| vec![all()],
};

fn all() -> Key {
    Key::new("", "pods", "", "")
}

fn plan(root: &State, _key: &Key, cx: &mut Context) -> Plan {
    let mut plan = Plan { again: Some(ROUND), ..Plan::default() };
    let mut finished: Vec<(&Key, &Record)> =
        root.list("", "pods", None).filter(|(_, pod)| emit::is_finished(pod)).map(|(key, pod)| (key, &**pod)).collect();
    if finished.len() <= FINISHED_MAX {
        return plan;
    }
    finished.sort_by_key(|(key, pod)| (pod.header.creation_ms, *key));
    let surplus = finished.len() - FINISHED_MAX;
    plan.commands
        .extend(finished.into_iter().take(surplus.min(BURST)).filter_map(|(key, pod)| emit::delete(key, pod, cx)));
    plan
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::harness::{World, pod};

    #[test]
    fn the_oldest_finished_pods_go() {
        let mut world = World::new();
        for i in 0..FINISHED_MAX + 3 {
            let key = world.create("", "pods", pod(&format!("p{i:04}"), json!({})));
            let mut pod = world.object(&key);
            pod["status"]["phase"] = "Succeeded".into();
            world.put(&pod, &key);
        }
        world.advance(ROUND);
        let left = world.list("", "pods", "default");
        assert_eq!((left.len(), left[0].0.name.as_str()), (FINISHED_MAX, "p0003"));
    }
}
