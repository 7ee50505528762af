//! Forgets objects of a benchmark that ended without clearing up (killed, or cut off).
//!
//! The names of a run begin with the time of its start, so the first object is one of the oldest: looking at it is enough
//! to know that there is nothing to do, however many objects a benchmark is writing.

use std::time::Duration;

use state::{Command, Event, Key, Op, State};

use crate::{Context, Plan, Row};

/// Where `hactl bench` keeps its objects.
pub const GROUP: &str = "bench.hactl.io";
/// The one resource of that group.
pub const RESOURCE: &str = "keys";

/// No benchmark needs an object that long after it was written.
const LIFE_MS: i64 = 3_600_000;
/// Looked at this often; objects may live that much longer.
const ROUND: Duration = Duration::from_secs(60);
/// Deletions in the one command of a round.
const BURST: usize = 1000;

pub const ROW: Row = Row {
    name: "benchttl",
    watches: &[("", "namespaces")],
    keys: |_, _: &Event| Vec::new(),
    plan,
    resync: |_| vec![Key::new(GROUP, RESOURCE, "", "")],
};

fn plan(root: &State, _key: &Key, cx: &mut Context) -> Plan {
    let cutoff_ms = cx.now_ms() - LIFE_MS;
    let old: Vec<Op> = root
        .list(GROUP, RESOURCE, None)
        .take_while(|(_, record)| record.header.creation_ms < cutoff_ms)
        .map(|(key, _)| Op::delete(key.clone()))
        .take(BURST)
        .collect();
    let again = if old.len() == BURST { Duration::from_secs(1) } else { ROUND };
    let commands = if old.is_empty() { Vec::new() } else { vec![Command { ops: old, ..Command::default() }] };
    Plan { commands, again: Some(again), ..Plan::default() }
}

#[cfg(test)]
mod tests {
    use state::{Header, Put};

    use super::*;
    use crate::harness::World;

    fn put(name: &str, creation_ms: i64) -> Op {
        let header = Header { creation_ms, ..Header::default() };
        Op::put(Put { key: Key::new(GROUP, RESOURCE, "", name), header, body: "{}".into(), ..Put::default() })
    }

    #[test]
    fn only_what_a_benchmark_left_long_ago_goes() {
        let mut world = World::new();
        world.settle();
        let now = world.cx().now_ms();
        let ops = vec![put("1-old.1", now - 2 * LIFE_MS), put("2-new.1", now), put("2-new.2", now)];
        world.apply(&Command { ops, ..Command::default() });
        let names = |world: &World| -> Vec<String> {
            world.list(GROUP, RESOURCE, "").into_iter().map(|(key, _)| key.name).collect()
        };
        world.advance(ROUND);
        assert_eq!(names(&world), ["2-new.1", "2-new.2"]);
        world.advance(Duration::from_secs(3660));
        assert!(names(&world).is_empty());
    }
}
