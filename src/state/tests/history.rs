//! Reading the past.

use super::*;
use crate::{Compacted, Event, EventKind, Topic};

/// Revisions: 1 @a, 2 n1, 3 a/x, 4 a/y, 5 a/x bound to n1, 6 a/y deleted, 7 a/x changed.
fn given() -> State {
    state([
        vec![thing("@a").put(), thing("n1").put()],
        vec![thing("a/x").put(), thing("a/y").put()],
        vec![thing("a/x").node("n1").put()],
        vec![delete("a/y")],
        vec![thing("a/x").node("n1").body("1").put()],
    ])
}

fn list(state: &State, revision: u64) -> Result<String, Compacted> {
    let list = state.list_at("", "pods", Some("a"), revision)?;
    Ok(list.iter().map(|(key, record)| format!("{}@{}", key.name, record.revision)).collect::<Vec<_>>().join(" "))
}

#[test]
fn lists_at_every_revision() {
    let mut state = given();
    let expected = [(2, ""), (3, "x@3"), (4, "x@3 y@4"), (5, "x@5 y@4"), (6, "x@5"), (7, "x@7"), (99, "x@7")];
    for (revision, expected) in expected {
        assert_eq!(list(&state, revision).as_deref(), Ok(expected));
        assert_eq!(
            state.list_at("", "pods", None, revision).map(|list| list.len()),
            Ok(expected.split(' ').filter(|x| !x.is_empty()).count())
        );
    }
    apply(&mut state, &command(vec![compact(5)]));
    assert_eq!(list(&state, 4), Err(Compacted { asked: 4, compacted: 5 }));
    assert_eq!(list(&state, 5).as_deref(), Ok("x@5 y@4"));
}

#[test]
fn gets_at_every_revision() {
    let state = given();
    let at =
        |short: &str, revision| state.get_at(&key(short), revision).map(|record| record.map(|record| record.revision));
    assert_eq!(at("a/x", 2), Ok(None));
    assert_eq!(at("a/x", 3), Ok(Some(3)));
    assert_eq!(at("a/x", 6), Ok(Some(5)));
    assert_eq!(at("a/y", 5), Ok(Some(4)));
    assert_eq!(at("a/y", 6), Ok(None));
    assert_eq!(at("n1", 99), Ok(Some(2)));
}

#[test]
fn topics_hold_their_events_and_no_others() {
    let mut state = given();
    let on = |state: &State, topic, after| {
        let events = state.events_on(topic, after)?;
        Ok(events.map(|event| event.revision).collect::<Vec<_>>())
    };
    let cases = [
        (Topic::resource("", "pods"), 0, vec![3, 4, 5, 6, 7]),
        (Topic::resource("", "pods"), 5, vec![6, 7]),
        (Topic::resource("apps", "pods"), 0, vec![]),
        (Topic::namespace("", "pods", "a"), 6, vec![7]),
        (Topic::namespace("", "pods", "b"), 0, vec![]),
        (Topic::name("", "pods", "y"), 0, vec![4, 6]),
        (Topic::node("", "pods", "n1"), 0, vec![5, 7]),
        (Topic::name("", "nodes", "n1"), 0, vec![2]),
        (Topic::resource("", "pods"), u64::MAX, vec![]),
    ];
    for (topic, after, expected) in cases {
        assert_eq!(on(&state, topic, after), Ok(expected));
    }
    apply(&mut state, &command(vec![compact(6)]));
    assert_eq!(on(&state, Topic::resource("", "pods"), 5), Err(Compacted { asked: 5, compacted: 6 }));
    assert_eq!(on(&state, Topic::resource("", "pods"), 6), Ok(vec![7]));
    assert_eq!(state.topics.len(), 4);
}

#[test]
fn events_say_what_happened() {
    let state = given();
    let events: Vec<&Event> = state.events_after(2).expect("not compacted").map(AsRef::as_ref).collect();
    let kinds: Vec<EventKind> = events.iter().map(|event| event.kind()).collect();
    use EventKind::{Created, Deleted, Updated};
    assert_eq!(kinds, [Created, Created, Updated, Deleted, Updated]);
    assert_eq!(events[4].old.as_ref().map(|old| old.revision), Some(5));
}

#[test]
fn history_is_cut_to_a_bound_exactly() {
    let full = given();
    assert_eq!(full.beyond_history(full.history_bytes()), 0, "nothing need go");
    for bound in [full.history_bytes() - 1, full.history_bytes() / 2, 1, 0] {
        let mut state = full.clone();
        let upto = state.beyond_history(bound);
        let (mut less, mut enough) = (full.clone(), full.clone());
        apply(&mut less, &command(vec![compact(upto - 1)]));
        apply(&mut enough, &command(vec![compact(upto)]));
        assert!(enough.history_bytes() <= bound && less.history_bytes() > bound, "{bound}: up to {upto}");
        apply(&mut state, &command(vec![compact(upto)]));
        assert_eq!(state.beyond_history(bound), upto, "and then nothing more");
    }
}

#[test]
fn bytes_count_what_is_and_what_was() {
    let mut state = given();
    let (bytes, history) = (state.bytes(), state.history_bytes());
    assert!(bytes > 0 && history > 0);
    apply(&mut state, &command(vec![compact(7)]));
    assert_eq!((state.bytes(), state.history_bytes()), (bytes, 0));
    apply(&mut state, &command(vec![delete("a/x"), delete("n1"), delete("@a"), compact(99)]));
    apply(&mut state, &command(vec![compact(99)]));
    assert_eq!((state.bytes(), state.history_bytes(), state.hash(), state.len()), (0, 0, 0, 0));
}
