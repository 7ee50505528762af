//! Forgets Event objects whose last occurrence is older than the setting.

use std::time::Duration;

use state::{Command, Event, Expect, Key, Op, Record, State};

use crate::{Context, Plan, Row, json, record};

/// Looked at this often; Events may live that much longer.
const ROUND: Duration = Duration::from_secs(60);
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
    let cutoff_ms = cx.now_ms() - i64::try_from(cx.settings.event_ttl.as_millis()).unwrap_or(i64::MAX);
    let old: Vec<(&Key, &Record)> = root
        .list("", "events", None)
        .filter(|(_, event)| event.header.creation_ms < cutoff_ms && last_ms(event) < cutoff_ms)
        .map(|(key, event)| (key, &**event))
        .take(BURST)
        .collect();
    let again = if old.len() == BURST { Duration::from_secs(1) } else { ROUND };
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

fn last_ms(event: &Record) -> i64 {
    let object = record::parse(event);
    ["lastTimestamp", "eventTime", "series.lastObservedTime"]
        .iter()
        .filter_map(|path| json::time_ms(&object, path))
        .max()
        .unwrap_or(event.header.creation_ms)
}
