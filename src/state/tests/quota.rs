//! The bound on the bytes of all objects.

use super::*;

fn big(short: &str, bytes: usize) -> Thing {
    thing(short).body(&"x".repeat(bytes))
}

/// A namespace and one pod, under a quota that has room for about one more like it.
fn given() -> State {
    given_in(crate::VERSION)
}

fn given_in(version: u32) -> State {
    let mut state = state([vec![thing("@a").put(), big("a/x", 10_000).put()]]);
    let room = state.bytes() + 11_000;
    for ops in [vec![raise(version)], vec![quota(room)]] {
        assert_eq!(apply(&mut state, &command(ops)).outcome.refusal, None);
    }
    state
}

fn is_taken(state: &mut State, command: &Command) -> bool {
    let before = (state.revision(), state.bytes(), state.hash());
    match apply(state, command).outcome.refusal {
        None => true,
        Some(Refusal::OverQuota(why)) => {
            assert!(why.contains("store-quota") && why.contains("delete"), "{why}");
            assert_eq!((state.revision(), state.bytes(), state.hash()), before, "nothing is left behind");
            false
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_full_store_takes_what_makes_it_smaller_and_clears_by_itself() {
    let mut state = given();
    let user = |op: Op| command(vec![op]);
    let own = |op: Op| Command { term: TERM, ..command(vec![op]) };
    assert!(is_taken(&mut state, &user(big("a/y", 10_000).put())));
    assert!(!is_taken(&mut state, &user(big("a/z", 10_000).put())), "no more objects");
    assert!(!is_taken(&mut state, &command(vec![thing("n1").put(), big("a/z", 10_000).put()])), "all or nothing");
    assert!(!is_taken(&mut state, &user(big("a/x", 20_000).put())), "nor much larger ones");
    assert!(is_taken(&mut state, &user(big("a/x", 10_500).put())), "updates have headroom");
    assert!(is_taken(&mut state, &own(thing("a/own").put())), "and so has what the cluster itself creates");
    assert!(is_taken(&mut state, &user(big("a/x", 9_000).put())), "what shrinks is welcome");
    assert!(is_taken(&mut state, &user(big("a/y", 30_000).terminating().put())), "and what is being deleted");
    assert!(state.bytes() > state.quota() + state.quota() / 16);
    assert!(!is_taken(&mut state, &own(thing("a/more").put())), "the headroom has an end");
    assert!(is_taken(&mut state, &user(delete("a/y"))), "deletes are always accepted");
    assert!(is_taken(&mut state, &user(big("a/z", 10_000).put())), "there is room again");
}

#[test]
fn changes_of_users_leave_headroom_to_what_the_cluster_itself_must_write() {
    // Of which about 1,300 bytes are headroom: room for a change of 1,000 beyond the quota.
    for (version, users_may_take_it_all) in [(2, true), (3, false)] {
        let mut state = given_in(version);
        let mut probe = state.clone();
        apply(&mut probe, &command(vec![big("a/y", 0).put()]));
        // Of the quota 200 bytes are left.
        let full = (state.quota() - probe.bytes() - 200) as usize;
        assert!(is_taken(&mut state, &command(vec![big("a/y", full).put()])));
        let grown = |short| command(vec![big(short, if short == "a/x" { 11_000 } else { full + 1_000 }).put()]);
        assert_eq!(is_taken(&mut state, &grown("a/x")), users_may_take_it_all, "version {version}");
        if !users_may_take_it_all {
            let report = Command { system: true, ..grown("a/x") };
            assert!(is_taken(&mut state, &report), "what a node reports");
            assert!(!is_taken(&mut state, &Command { system: true, ..grown("a/y") }), "that has an end too");
        }
    }
}

#[test]
fn older_versions_know_no_quota() {
    let mut state = state([vec![thing("@a").put()]]);
    let refused = apply(&mut state, &command(vec![quota(1)])).outcome.refusal;
    assert_eq!(refused, Some(Refusal::Invalid("an unknown operation".into())));
    assert_eq!(state.quota(), 0);
    for ops in [vec![raise(2)], vec![quota(1)], vec![quota(0)], vec![big("a/x", 1000).put()]] {
        assert_eq!(apply(&mut state, &command(ops)).outcome.refusal, None, "0 is no bound");
    }
}
