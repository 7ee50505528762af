//! Laws, over random logs.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::codec::restore;
use super::*;
use crate::codec::{Row, dump, meta, rows};

fn short() -> impl Strategy<Value = String> {
    prop_oneof!["[ab]/[xyz]", "@[ab]", "n[12]",]
}

fn an_op() -> impl Strategy<Value = Op> {
    let put = (short(), 0..4u8, "(n[12])?", 0..3u8, any::<bool>()).prop_map(|(short, body, node, claim, owned)| {
        let terminating = body == 3 && short.starts_with('@');
        let mut thing = thing(&short).body(&body.to_string());
        if short.contains('/') {
            thing = thing.node(&node);
        }
        if claim > 0 {
            thing = thing.claims(&[["", "ip/1", "ip/2"][usize::from(claim)]]);
        }
        if body > 0 {
            thing = thing.with(|header| {
                header.labels.insert("app", body.to_string());
                header.labels.insert("tier", claim.to_string());
            });
        }
        if owned {
            thing = thing.owned_by(&["uid-n1"]);
        }
        if short.contains('/') {
            thing = match body {
                0 => thing.field("uses/ore", &u8::from(owned).to_string()),
                1 => thing.field("uses/ore", "2").field("class", "raw"),
                2 => thing.field("bound/pods", "count/pods 2").field("bound/ore", "ore 3"),
                _ => thing.field("bound/ore", "ore 2").field("bound-scope", "!raw"),
            };
        }
        if terminating { thing.terminating().put() } else { thing.put() }
    });
    prop_oneof![
        8 => put,
        3 => short().prop_map(|short| delete(&short)),
        1 => (0..60u64).prop_map(compact),
        1 => (0..5u32).prop_map(raise),
        1 => (0..4000u64).prop_map(quota),
    ]
}

fn a_command() -> impl Strategy<Value = Command> {
    let expect = proptest::option::weighted(0.2, (short(), 0..3u8)).prop_map(|expect| {
        expect.map(|(short, condition)| match condition {
            0 => Expect::absent(key(&short)),
            1 => Expect::exists(key(&short)),
            _ => Expect::revision(key(&short), 5),
        })
    });
    (vec(an_op(), 1..4), expect, 0..30u128).prop_map(|(ops, expect, id)| Command {
        proposal: if id < 5 { Bytes::new() } else { Bytes::copy_from_slice(&id.to_be_bytes()) },
        ..expecting(expect.into_iter().collect(), ops)
    })
}

/// What is taken, added up object by object.
fn recounted(state: &State, namespace: &str, bounds: &crate::Bounds, thing: &str) -> u64 {
    let all = state.iter().filter(|(key, _)| key.namespace == namespace);
    let counted = all.filter(|(_, record)| bounds.count(record.header.fields.get("class").unwrap_or("")));
    let takes = counted.map(|(key, record)| {
        let used = crate::bounds::uses(&record.header).find(|(used, _)| *used == thing).map_or(0, |(_, n)| n);
        used + u64::from(crate::bounds::count(key) == thing)
    });
    takes.sum()
}

/// Namespaces and nodes first, so that most of what follows is accepted.
fn a_log() -> impl Strategy<Value = Vec<Command>> {
    let first = command(["@a", "@b", "n1", "n2"].map(|short| thing(short).put()).to_vec());
    vec(a_command(), 0..60).prop_map(move |mut log| {
        log.insert(0, first.clone());
        log
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn the_same_log_gives_the_same_state(log in a_log()) {
        let (mut one, mut two) = (State::default(), State::default());
        for command in &log {
            // One keeps old roots alive, the other does not.
            let root = one.clone();
            prop_assert_eq!(apply(&mut one, command), apply(&mut two, command));
            drop(root);
        }
        prop_assert_eq!(one.hash(), two.hash());
        prop_assert_eq!(one, two);
    }

    #[test]
    fn what_is_stored_is_the_state(log in a_log()) {
        let mut state = State::default();
        let mut stored = BTreeMap::new();
        for command in &log {
            let applied = apply(&mut state, command);
            let mut write = |row| match row {
                Row::Put(key, value) => drop(stored.insert(key, value)),
                Row::Delete(key) => drop(stored.remove(&key)),
            };
            rows(&applied, &mut write);
            write(meta(&state));
        }
        let stored: Vec<_> = stored.into_iter().collect();
        prop_assert_eq!(&stored, &dump(&state));
        let restored = restore(&stored).expect("what was stored can be restored");
        prop_assert_eq!(restored.hash(), state.hash());
        prop_assert_eq!(restored, state);
    }

    #[test]
    fn no_change_takes_more_than_the_bounds_leave(log in a_log()) {
        let mut state = state([vec![raise(crate::VERSION)]]);
        for command in &log {
            let before = state.clone();
            apply(&mut state, command);
            for namespace in ["a", "b"] {
                for (key, bounds) in before.bounding(namespace).filter(|(key, _)| state.get(key) == before.get(key)) {
                    for bound in &bounds.all {
                        let [was, is] = [&before, &state].map(|state| recounted(state, namespace, bounds, &bound.thing));
                        prop_assert!(is <= was.max(bound.limit), "{} by {key}: {was}, then {is} of {}", bound.name, bound.limit);
                        prop_assert_eq!(is, state.taken(namespace, bounds, &bound.thing));
                    }
                }
            }
        }
    }

    #[test]
    fn the_past_is_as_it_was(log in a_log()) {
        let mut roots = vec![State::default()];
        let mut state = State::default();
        for command in &log {
            apply(&mut state, command);
            roots.push(state.clone());
        }
        for then in roots {
            for namespace in [None, Some("a")] {
                let was: Vec<_> = then.list("", "pods", namespace).collect();
                match state.list_at("", "pods", namespace, then.revision()) {
                    Ok(list) => prop_assert_eq!(list, was),
                    Err(_) => prop_assert!(then.revision() < state.compacted()),
                }
            }
            for short in ["a/x", "@a", "n1"].map(key) {
                if let Ok(record) = state.get_at(&short, then.revision()) {
                    prop_assert_eq!(record.as_ref(), then.get(&short));
                }
            }
        }
    }

    #[test]
    fn indexes_say_what_the_objects_say(log in a_log()) {
        let mut state = State::default();
        for command in &log {
            apply(&mut state, command);
        }
        let mut fresh = State::default();
        for (key, record) in state.iter() {
            fresh.replace(&crate::key::Shared::new(key.clone()), Some(record.clone()));
        }
        prop_assert_eq!(&state.index, &fresh.index);
        for (key, record) in state.iter() {
            let header = &record.header;
            prop_assert_eq!(state.by_uid(&header.uid), Some(key));
            prop_assert!(header.node.is_empty() || state.on_node(&header.node).any(|found| found == key));
            prop_assert!(header.owners.iter().all(|owner| state.owned_by(&owner.uid).any(|found| found == key)));
        }
        for labels in [&[("app", "1")][..], &[("tier", "1")], &[("app", "1"), ("tier", "2")], &[("app", "3")]] {
            let has = |record: &crate::Record| labels.iter().all(|(name, value)| record.header.labels.get(name) == Some(value));
            let found: Vec<_> = state.labelled("", "pods", "a", labels).into_iter().map(|(key, _)| key).collect();
            let all = state.list("", "pods", Some("a")).filter(|(_, record)| has(record)).map(|(key, _)| key);
            prop_assert_eq!(found, all.collect::<Vec<_>>());
        }
        prop_assert_eq!(&state.claims, &fresh.claims);
        prop_assert_eq!(&state.population, &fresh.population);
        prop_assert_eq!((&state.taken, &state.bounding), (&fresh.taken, &fresh.bounding));
        prop_assert_eq!((state.hash, state.bytes), (fresh.hash, fresh.bytes));
        prop_assert_eq!(state.events.len() as u64, state.revision() - state.compacted());
    }
}
