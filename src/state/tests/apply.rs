//! Each rule of `apply`, as one case.

use super::*;
use crate::Condition;

/// Namespaces `a` and (terminating) `z`, nodes `n1` and `n2`, pods `a/free`, `a/bound` on `n1` (claims `ip/1`), and
/// `z/left`: at revision 7.
fn given() -> State {
    state([
        vec![thing("@a").put()],
        vec![thing("@z").put(), thing("n1").put(), thing("n2").put()],
        vec![thing("a/free").put(), thing("a/bound").node("n1").claims(&["ip/1"]).put(), thing("z/left").put()],
        vec![thing("@z").terminating().put()],
    ])
}

const NOW: u64 = 8;

fn check(command: Command, expected: Outcome) {
    let mut state = given();
    let before = state.clone();
    assert_eq!(before.revision(), NOW);
    let applied = apply(&mut state, &command);
    assert_eq!(applied.outcome, expected);
    assert_eq!(state.revision(), expected.revision);
    assert_eq!(applied.events.len() as u64, state.revision() - NOW);
    for (event, revision) in applied.events.iter().zip(NOW + 1..) {
        assert_eq!(event.revision, revision);
        assert_eq!(event.new.as_ref().map_or(revision, |new| new.revision), revision);
    }
    if expected.refusal.is_some() {
        // A refused command changes nothing; only the entry has been seen.
        let mut untouched = before;
        untouched.skip(state.applied());
        assert_eq!(state, untouched);
    }
}

#[test]
fn creates_replaces_and_deletes() {
    check(command(vec![thing("a/new").put()]), accepted(9, &[9]));
    check(command(vec![thing("a/free").body("{1}").put()]), accepted(9, &[9]));
    check(command(vec![delete("a/free")]), accepted(9, &[9]));
    check(command(vec![delete("a/absent")]), accepted(NOW, &[0]));
    check(command(vec![delete("a/free"), thing("a/new").put(), thing("n2").put()]), accepted(10, &[9, 10, 3 + 1]));
    check(command(vec![]), accepted(NOW, &[]));
}

#[test]
fn an_identical_put_changes_nothing() {
    check(command(vec![thing("a/free").put()]), accepted(NOW, &[5]));
    check(command(vec![thing("z/left").put()]), accepted(NOW, &[7]));
    let mut managed = thing("a/free");
    managed.0.managed_fields = Bytes::from_static(b"[]");
    check(command(vec![managed.put()]), accepted(9, &[9]));
    check(command(vec![thing("a/free").with(|header| header.generation = 2).put()]), accepted(9, &[9]));
}

#[test]
fn versions_remember_their_creation() {
    let mut state = given();
    apply(&mut state, &command(vec![thing("a/free").body("1").put()]));
    assert_eq!(state.get(&key("a/free")).map(|record| (record.created, record.revision)), Some((5, 9)));
    apply(&mut state, &command(vec![delete("a/free"), thing("a/free").put()]));
    assert_eq!(state.get(&key("a/free")).map(|record| (record.created, record.revision)), Some((11, 11)));
}

#[test]
fn preconditions_hold_before_the_first_op() {
    let ops = || vec![thing("a/new").put()];
    let free = || key("a/free");
    let none = || key("a/none");
    let cases = [
        (Expect::absent(none()), None),
        (Expect::absent(free()), Some(Refusal::AlreadyExists(free()))),
        (Expect::exists(free()), None),
        (Expect::exists(none()), Some(Refusal::NotFound(none()))),
        (Expect::revision(free(), 5), None),
        (Expect::revision(free(), 4), Some(Refusal::Conflict(free()))),
        (Expect::revision(none(), 5), Some(Refusal::NotFound(none()))),
        (Expect::revision(none(), 0), Some(Refusal::NotFound(none()))),
        (Expect::uid(free(), "uid-a/free"), None),
        (Expect::uid(free(), "another"), Some(Refusal::Conflict(free()))),
        (Expect::uid(none(), "uid-a/none"), Some(Refusal::NotFound(none()))),
        (Expect { key: free(), condition: None }, Some(Refusal::Invalid("an unknown condition on pods/a/free".into()))),
        (Expect { key: none(), condition: Some(Condition::Absent(true)) }, None),
        // Judged on the state before the command, whatever its ops create.
        (Expect::exists(key("a/new")), Some(Refusal::NotFound(key("a/new")))),
    ];
    for (expect, refusal) in cases {
        let expected = refusal.map_or(accepted(9, &[9]), |refusal| refused(NOW, refusal));
        check(expecting(vec![Expect::exists(key("n1")), expect], ops()), expected);
    }
}

#[test]
fn a_namespace_takes_new_objects_while_it_lives() {
    check(command(vec![thing("b/new").put()]), refused(NOW, Refusal::NamespaceMissing(key("@b"))));
    check(command(vec![thing("z/new").put()]), refused(NOW, Refusal::NamespaceTerminating(key("@z"))));
    check(command(vec![thing("z/left").body("1").put()]), accepted(9, &[9]));
    check(command(vec![delete("z/left")]), accepted(9, &[9]));
    check(command(vec![thing("@b").put(), thing("b/new").put()]), accepted(10, &[9, 10]));
    check(
        command(vec![delete("z/left"), thing("z/left").put()]),
        refused(NOW, Refusal::NamespaceTerminating(key("@z"))),
    );
}

#[test]
fn a_claim_is_held_once() {
    let taken = || refused(NOW, Refusal::Claimed("ip/1 held by pods/a/bound".into()));
    check(command(vec![thing("a/new").claims(&["ip/2", "ip/1"]).put()]), taken());
    check(command(vec![thing("a/free").claims(&["ip/1"]).put()]), taken());
    check(command(vec![thing("a/bound").node("n1").claims(&["ip/1", "ip/3"]).put()]), accepted(9, &[9]));
    check(command(vec![delete("a/bound"), thing("a/new").claims(&["ip/1"]).put()]), accepted(10, &[9, 10]));
    check(
        command(vec![thing("a/bound").node("n1").put(), thing("a/new").claims(&["ip/1"]).put()]),
        accepted(10, &[9, 10]),
    );
    check(
        command(vec![thing("a/x").claims(&["ip/9"]).put(), thing("a/y").claims(&["ip/9"]).put()]),
        refused(NOW, Refusal::Claimed("ip/9 held by pods/a/x".into())),
    );
    check(
        command(vec![thing("a/new").with(|header| header.uid = "uid-a/free".into()).put()]),
        refused(NOW, Refusal::Claimed("uid/uid-a/free held by pods/a/free".into())),
    );
}

#[test]
fn a_pod_is_bound_once_to_a_node_that_exists() {
    check(command(vec![thing("a/free").node("n2").put()]), accepted(9, &[9]));
    check(command(vec![thing("a/new").node("n2").put()]), accepted(9, &[9]));
    let missing = || refused(NOW, Refusal::Bind("node \"n3\" does not exist".into()));
    check(command(vec![thing("a/free").node("n3").put()]), missing());
    check(command(vec![thing("a/new").node("n3").put()]), missing());
    let moved = || refused(NOW, Refusal::Bind("pods/a/bound is already assigned to node \"n1\"".into()));
    check(command(vec![thing("a/bound").node("n2").claims(&["ip/1"]).put()]), moved());
    check(command(vec![thing("a/bound").claims(&["ip/1"]).put()]), moved());
    // The pod outlives its node, and can still be changed.
    check(
        command(vec![delete("n1"), thing("a/bound").node("n1").claims(&["ip/1"]).body("1").put()]),
        accepted(10, &[9, 10]),
    );
}

#[test]
fn a_deposed_leader_writes_nothing() {
    let of_term = |term| Command { term, ..command(vec![thing("a/new").put()]) };
    check(of_term(0), accepted(9, &[9]));
    check(of_term(TERM), accepted(9, &[9]));
    check(of_term(TERM - 1), refused(NOW, Refusal::Deposed(TERM - 1)));
    check(of_term(TERM + 1), refused(NOW, Refusal::Deposed(TERM + 1)));
}

#[test]
fn malformed_commands_are_refused() {
    let invalid = |what: &str| refused(NOW, Refusal::Invalid(what.into()));
    check(command(vec![thing("a/new").put(), Op { kind: None }]), invalid("an unknown operation"));
    check(command(vec![thing("a/").put()]), invalid("\"pods/a/\" cannot be a key"));
    check(command(vec![thing("a/\0").put()]), invalid("\"pods/a/\\0\" cannot be a key"));
    let mut behind = thing("a/new");
    behind.0.split = 1000;
    check(command(vec![behind.put()]), invalid("pods/a/new is split behind its end"));
    let short = Command { proposal: Bytes::from_static(b"short"), ..command(vec![thing("a/new").put()]) };
    check(short, invalid("a proposal id of 5 bytes"));
}

#[test]
fn all_or_nothing() {
    // The last op is refused after others have touched every index.
    check(
        command(vec![
            delete("a/bound"),
            thing("a/free").node("n2").claims(&["ip/1"]).owned_by(&["u"]).put(),
            thing("@new").put(),
            thing("new/pod").node("n1").put(),
            compact(5),
            raise(7),
            delete("n2"),
            thing("a/free").node("n1").put(),
        ]),
        refused(NOW, Refusal::Bind("pods/a/free is already assigned to node \"n2\"".into())),
    );
}

#[test]
fn versions_and_compactions_only_rise() {
    let mut state = given();
    for (op, version, compacted, forgotten) in [
        (raise(1), 1, 0, 0),
        (raise(3), 3, 0, 0),
        (raise(2), 3, 0, 0),
        (compact(4), 3, 4, 4),
        (compact(2), 3, 4, 0),
        (compact(1000), 3, NOW, 4),
    ] {
        let applied = apply(&mut state, &command(vec![op]));
        assert_eq!(applied.outcome, accepted(NOW, &[NOW]));
        assert_eq!((state.version(), state.compacted(), applied.forgotten.len()), (version, compacted, forgotten));
    }
    assert_eq!(state.history_bytes(), 0);
}

#[test]
fn indexes_follow() {
    let mut state = given();
    let all = |keys: &mut dyn Iterator<Item = &Key>| keys.map(ToString::to_string).collect::<Vec<_>>().join(" ");
    apply(&mut state, &command(vec![thing("a/c1").owned_by(&["o", "o", "p"]).node("n1").put()]));
    apply(&mut state, &command(vec![thing("a/c2").owned_by(&["o"]).put()]));
    assert_eq!(all(&mut state.owned_by("o")), "pods/a/c1 pods/a/c2");
    assert_eq!(all(&mut state.owned_by("p")), "pods/a/c1");
    assert_eq!(all(&mut state.on_node("n1")), "pods/a/bound pods/a/c1");
    assert_eq!(state.by_uid("uid-a/c1"), Some(&key("a/c1")));
    assert_eq!(state.claimed("ip/1"), Some(&key("a/bound")));
    assert_eq!((state.population("a"), state.population("z"), state.population("b")), (4, 1, 0));
    assert_eq!(all(&mut state.list("", "pods", Some("z")).map(|(key, _)| key)), "pods/z/left");
    assert_eq!(all(&mut state.list("", "nodes", None).map(|(key, _)| key)), "nodes/n1 nodes/n2");

    apply(&mut state, &command(vec![thing("a/c1").owned_by(&["p"]).node("n1").put(), delete("a/bound")]));
    apply(&mut state, &command(vec![delete("a/c2"), delete("z/left")]));
    assert_eq!(all(&mut state.owned_by("o")), "");
    assert_eq!(all(&mut state.owned_by("p")), "pods/a/c1");
    assert_eq!(all(&mut state.on_node("n1")), "pods/a/c1");
    assert_eq!(state.claimed("ip/1"), None);
    assert_eq!(state.by_uid("uid-a/c2"), None);
    assert_eq!((state.population("a"), state.population("z")), (2, 0));
}
