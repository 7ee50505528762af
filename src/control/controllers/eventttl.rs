//! Forgets Event objects whose last occurrence is older than the setting.

use std::time::Duration;

use state::{Command, Event, Expect, Key, Op, Record, State};

use crate::{Context, Plan, Row, json, record};

/// Looked at this often, or ten times in the life of an Event if that is more often; Events may live that much longer.
const ROUND: Duration = Duration::from_secs(60);
const ROUND_MIN: Duration = Duration::from_secs(1);
/// Deletions in the one command of a round.
const BURST: usize = 1000;

pub const ROW: Row = Row {
    name: "eventttl",
    watches: &[("", "namespaces")],
    keys: |_, _: &Event| Vec::new(),
    plan,
    resync: |_| vec![all()],
};

fn all() -> Key {
    Key::new("", "events", "", "")
}

fn plan(root: &State, _key: &Key, cx: &mut Context) -> Plan {
    let now_ms = cx.now_ms();
    let cutoff_ms = now_ms - i64::try_from(cx.settings.event_ttl.as_millis()).unwrap_or(i64::MAX);
    let old: Vec<(&Key, &Record)> = root
        .list("", "events", None)
        .filter(|(_, event)| event.header.creation_ms < cutoff_ms && last_ms(event, now_ms) < cutoff_ms)
        .map(|(key, event)| (key, &**event))
        .take(BURST)
        .collect();
    let again = if old.len() == BURST { ROUND_MIN } else { (cx.settings.event_ttl / 10).clamp(ROUND_MIN, ROUND) };
    let commands = match old.is_empty() {
        true => Vec::new(),
        false => vec![Command {
            expects: old.iter().map(|(key, event)| Expect::revision((*key).clone(), event.revision)).collect(),
            ops: old.iter().map(|(key, _)| Op::delete((*key).clone())).collect(),
            ..Command::default()
        }],
    };
    Plan { commands, again: Some(again), ..Plan::default() }
}

/// When it last happened. What a client says of the future does not count, or its Events would stay for ever.
fn last_ms(event: &Record, now_ms: i64) -> i64 {
    let object = record::parse(event);
    ["lastTimestamp", "eventTime", "series.lastObservedTime"]
        .iter()
        .filter_map(|path| json::time_ms(&object, path))
        .filter(|at| *at <= now_ms)
        .max()
        .unwrap_or(event.header.creation_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::{World, deployment};

    #[test]
    fn events_are_counted_and_forgotten() {
        let mut world = World::with_nodes(1);
        let web = world.create("apps", "deployments", deployment("web", 1));
        world.settle();
        world.advance(Duration::from_secs(1800));
        for replicas in [0, 1] {
            world.edit(&web, |web| web["spec"]["replicas"] = replicas.into());
            world.settle();
        }
        let scaled_up = |world: &World| {
            let events = world.list("", "events", "default").into_iter().map(|(_, event)| event);
            events
                .filter(|event| json::text(event, "message").contains("from 0 to 1"))
                .map(|e| json::count(&e, "count"))
                .sum::<i64>()
        };
        assert_eq!(scaled_up(&world), 2, "one Event, counted");
        world.advance(Duration::from_secs(1860));
        assert_eq!(scaled_up(&world), 2, "it lives on from its last occurrence");
        assert!(world.said("web").iter().all(|(reason, _)| reason == "ScalingReplicaSet"));
        world.advance(Duration::from_secs(3660));
        assert!(world.list("", "events", "default").is_empty());
    }

    #[test]
    fn an_event_of_the_future_is_forgotten_as_any_other() {
        let mut world = World::new();
        world.settings.event_ttl = Duration::from_secs(600);
        let event = |name: &str, last: &str| {
            serde_json::json!({
                "metadata": { "name": name, "namespace": "default" }, "lastTimestamp": last,
                "involvedObject": { "kind": "Pod", "name": "p", "namespace": "default" },
            })
        };
        for (name, last) in [("past", "2026-01-02T03:00:00Z"), ("future", "2226-01-02T03:00:00Z")] {
            world.create("", "events", event(name, last));
        }
        world.settle();
        world.advance(Duration::from_secs(500));
        assert_eq!(world.list("", "events", "default").len(), 2);
        world.advance(Duration::from_secs(200));
        assert!(world.list("", "events", "default").is_empty());
    }
}
