//! Bounds of a namespace: what is counted, what is refused, and that no order of commands goes beyond one.

use super::*;
use crate::{Beyond, Exceeded};

/// A namespace whose object `q` sets these bounds.
fn bounded(fields: &[(&str, &str)]) -> State {
    let q = fields.iter().fold(thing("a/q"), |q, (name, value)| q.field(name, value));
    state([vec![raise(crate::VERSION)], vec![thing("@a").put(), thing("@b").put()], vec![q.put()]])
}

fn user(short: &str, uses: &[(&str, &str)]) -> Op {
    uses.iter().fold(thing(short), |thing, (name, n)| thing.field(&format!("uses/{name}"), n)).put()
}

fn refusal(state: &mut State, ops: Vec<Op>) -> Option<Refusal> {
    let before = (state.revision(), state.hash(), state.taken.clone());
    let refusal = apply(state, &command(ops)).outcome.refusal;
    if refusal.is_some() {
        assert_eq!((state.revision(), state.hash(), state.taken.clone()), before, "nothing is left behind");
    }
    refusal
}

fn beyond(name: &str, asked: u64, taken: u64, limit: u64) -> Option<Refusal> {
    let parts = vec![Beyond { name: name.into(), asked, taken, limit }];
    Some(Refusal::Exceeded(Exceeded { by: "q".into(), parts }))
}

#[test]
fn what_is_taken_stays_within_each_bound() {
    let mut state = bounded(&[("bound/cpu", "requests.cpu 500"), ("bound/pods", "pods 2")]);
    let pod = |short: &str, cpu: &str| vec![user(short, &[("pods", "1"), ("requests.cpu", cpu)])];
    assert_eq!(refusal(&mut state, pod("a/x", "300")), None);
    assert_eq!(refusal(&mut state, pod("a/y", "300")), beyond("cpu", 300, 300, 500));
    assert_eq!(refusal(&mut state, pod("b/y", "300")), None, "another namespace");
    assert_eq!(refusal(&mut state, pod("a/y", "200")), None);
    assert_eq!(refusal(&mut state, pod("a/z", "0")), beyond("pods", 1, 2, 2));
    assert_eq!(refusal(&mut state, pod("a/x", "301")), beyond("cpu", 1, 500, 500), "a change asks for the difference");
    assert_eq!(refusal(&mut state, pod("a/x", "100")), None);
    // What takes nothing any more makes room, and one command's ops see each other.
    assert_eq!(refusal(&mut state, vec![user("a/x", &[]), user("a/z", &[("pods", "1")])]), None);
    assert_eq!(refusal(&mut state, vec![delete("a/y"), user("a/v", &[("pods", "1")])]), None);
    assert_eq!(refusal(&mut state, pod("a/w", "0")), beyond("pods", 1, 2, 2));
}

#[test]
fn every_object_is_one_of_its_resource() {
    let mut state = bounded(&[("bound/count/pods", "count/pods 2")]);
    assert_eq!(refusal(&mut state, vec![user("a/x", &[])]), None);
    assert_eq!(refusal(&mut state, vec![user("a/y", &[])]), beyond("count/pods", 1, 2, 2));
    assert_eq!(refusal(&mut state, vec![thing("a/x").body("{1}").put()]), None);
    assert_eq!(crate::bounds::count(&Key::new("apps", "deployments", "a", "web")), "count/deployments.apps");
}

#[test]
fn a_scope_counts_objects_of_some_classes() {
    for (scope, expected) in [
        ("", [true, true, true]),
        ("best", [false, true, false]),
        ("!best", [true, false, true]),
        ("class=a|class=b", [false, false, true]),
        ("class !class=a|class=x", [false, false, false]),
        ("class !class=x", [false, false, true]),
    ] {
        let state = bounded(&[("bound/pods", "pods 1"), ("bound-scope", scope)]);
        let counted = ["", "best,long", "class,class=a"].map(|class| {
            let (_, bounds) = state.bounding("a").next().expect("bounds");
            bounds.count(class)
        });
        assert_eq!(counted, expected, "{scope}");
    }
    // Who comes into a scope takes of it.
    let mut state = bounded(&[("bound/pods", "pods 1"), ("bound-scope", "best")]);
    let pod = |short: &str, class: &str| vec![thing(short).field("uses/pods", "1").field("class", class).put()];
    assert_eq!(refusal(&mut state, pod("a/x", "best")), None);
    assert_eq!(refusal(&mut state, pod("a/y", "")), None);
    assert_eq!(refusal(&mut state, pod("a/y", "best")), beyond("pods", 1, 1, 1));
    assert_eq!(refusal(&mut state, pod("a/x", "")), None);
    assert_eq!(refusal(&mut state, pod("a/y", "best")), None);
}

#[test]
fn a_bound_below_what_is_taken_is_set_and_only_lets_it_fall() {
    let mut state = bounded(&[("bound/pods", "pods 9")]);
    for short in ["a/x", "a/y"] {
        assert_eq!(refusal(&mut state, vec![user(short, &[("pods", "1")])]), None);
    }
    assert_eq!(refusal(&mut state, vec![thing("a/q").field("bound/pods", "pods 1").put()]), None);
    assert_eq!(refusal(&mut state, vec![user("a/z", &[("pods", "1")])]), beyond("pods", 1, 2, 1));
    assert_eq!(refusal(&mut state, vec![thing("a/x").field("uses/pods", "1").body("{1}").put()]), None);
    assert_eq!(refusal(&mut state, vec![delete("a/x"), delete("a/y")]), None);
    assert_eq!(refusal(&mut state, vec![user("a/z", &[("pods", "1")])]), None);
    assert_eq!(refusal(&mut state, vec![delete("a/q"), user("a/y", &[("pods", "1")])]), None, "with it goes its bound");
    assert_eq!(state.bounding("a").count(), 0);
}

/// Two masters admitted against the same state; the log has one order, and whoever comes second is refused.
#[test]
fn of_two_creates_on_two_masters_the_last_place_takes_one() {
    let given = bounded(&[("bound/pods", "pods 1")]);
    let creates = ["a/x", "a/y"].map(|short| {
        let put = user(short, &[("pods", "1")]);
        let Some(op::Kind::Put(asked)) = &put.kind else { panic!("a put") };
        assert_eq!(given.exceeded(&asked.key, &asked.header), None, "each of them fits");
        expecting(vec![Expect::absent(key(short))], vec![put])
    });
    for order in [[0, 1], [1, 0]] {
        let mut state = given.clone();
        let outcomes = order.map(|i| apply(&mut state, &creates[i]).outcome.refusal);
        assert_eq!(outcomes, [None, beyond("pods", 1, 1, 1)]);
        assert_eq!(state.list("", "pods", Some("a")).count(), 2, "the bound and one pod");
    }
}

#[test]
fn older_versions_know_no_bounds() {
    for version in [1, 3] {
        let q = thing("a/q").field("bound/pods", "pods 0");
        let mut state = state([vec![raise(version)], vec![thing("@a").put()], vec![q.put()]]);
        assert_eq!(refusal(&mut state, vec![user("a/x", &[("pods", "1")])]), None);
        // What they took is known when the rule begins.
        assert_eq!(refusal(&mut state, vec![raise(crate::VERSION)]), None);
        assert_eq!(refusal(&mut state, vec![user("a/y", &[("pods", "1")])]), beyond("pods", 1, 1, 0));
    }
}

#[test]
fn what_is_malformed_bounds_and_takes_nothing() {
    let mut state = bounded(&[("bound/a", "pods"), ("bound/b", "pods -1"), ("bound/c", "pods x"), ("bound/", "")]);
    assert_eq!(state.bounding("a").count(), 0);
    for amount in ["-1", "x", "", "99999999999999999999999"] {
        assert_eq!(refusal(&mut state, vec![user("a/x", &[("pods", amount)])]), None);
    }
    // Sums of the largest amounts do not overflow.
    let mut state = bounded(&[("bound/pods", &format!("pods {}", u64::MAX))]);
    let most = u64::MAX.to_string();
    assert_eq!(refusal(&mut state, vec![user("a/x", &[("pods", &most)])]), None);
    assert_eq!(
        refusal(&mut state, vec![user("a/y", &[("pods", &most)])]),
        beyond("pods", u64::MAX, u64::MAX, u64::MAX)
    );
}
