use super::*;

fn seen(revision: Revision, name: &str, value: Option<&str>) -> Seen {
    Seen { revision, name: name.into(), value: value.map(str::to_owned), broken: Vec::new() }
}

/// Calls one after another, then the history; which law, if any, is broken.
fn check(calls: &[(&str, Call, Answer)], events: &[Seen], broken: Option<&str>) {
    let mut record = Record::default();
    for (name, call, answer) in calls {
        let begun = record.moments;
        record.moments += 2;
        record.operations.push(Operation {
            client: "c".into(),
            name: (*name).into(),
            call: call.clone(),
            begun,
            ended: Some(begun + 1),
            answer: answer.clone(),
        });
    }
    record.events = events.iter().map(|seen| (seen.revision, seen.clone())).collect();
    let found: Vec<&str> = ALL.iter().filter(|law| !(law.judge)(&record).is_empty()).map(|law| law.name).collect();
    match broken {
        None => assert_eq!(found, Vec::<&str>::new(), "{calls:?}"),
        Some(law) => assert!(found.contains(&law), "{calls:?} breaks {found:?}, not {law}"),
    }
}

#[test]
fn each_law_sees_what_breaks_it() {
    let write = |value: &str| Call::Write(value.to_owned());
    let a = [seen(1, "r", Some("a"))];
    check(&[("r", write("a"), Answer::Done(1))], &a, None);
    check(&[("r", write("a"), Answer::Done(1))], &[], Some("what was acknowledged stays"));
    check(&[("r", write("a"), Answer::Done(1))], &[seen(1, "r", Some("b"))], Some("what was acknowledged stays"));
    check(&[("r", write("a"), Answer::Failed)], &a, Some("what certainly failed did nothing"));
    check(&[("r", write("a"), Answer::Unknown)], &a, None);
    check(
        &[("r", write("a"), Answer::Done(1))],
        &[seen(1, "r", Some("a")), seen(2, "r", Some("a"))],
        Some("nothing happens twice"),
    );
    check(
        &[("r", write("a"), Answer::Done(2)), ("s", write("b"), Answer::Done(1))],
        &[seen(1, "s", Some("b")), seen(2, "r", Some("a"))],
        Some("revisions follow the order of calls"),
    );
    check(
        &[("r", write("a"), Answer::Done(1)), ("r", Call::Read, Answer::Value(None, 0))],
        &a,
        Some("revisions follow the order of calls"),
    );
    check(
        &[("r", write("a"), Answer::Done(1)), ("r", Call::Read, Answer::Value(None, 1))],
        &a,
        Some("an answer is true at its revision"),
    );
    check(
        &[("r", write("a"), Answer::Done(1)), ("r", Call::Read, Answer::Value(None, 1))],
        &a,
        Some("histories are linearizable"),
    );
    let pair = |a: &str, b: &str| vec![("r1".to_owned(), a.to_owned()), ("r2".to_owned(), b.to_owned())];
    let both = [seen(1, "r1", Some("a")), seen(2, "r2", Some("b")), seen(3, "r1", Some("c")), seen(4, "r2", Some("d"))];
    let all = |a, b, revision| ("", Call::List, Answer::All(pair(a, b), revision));
    check(&[all("a", "b", 2), all("c", "b", 3), all("c", "d", 4)], &both, None);
    check(&[all("a", "d", 4)], &both, Some("an answer is true at its revision"));
    check(&[all("c", "b", 3), all("a", "b", 2)], &both, Some("lists are linearizable"));
    check(&[all("c", "b", 3), all("a", "d", 4)], &both, Some("lists are linearizable"));
    check(&[("r1", write("c"), Answer::Done(3)), all("a", "b", 3)], &both, Some("lists are linearizable"));
    // As the API says it: where it names no revision, the search for an order judges.
    let linear = Some("histories are linearizable");
    let k = [seen(1, "configmaps/k1", Some("a")), seen(2, "configmaps/k1", None)];
    let on = |call, answer| ("configmaps/k1", call, answer);
    let create = || on(Call::Create("a".into()), Answer::Done(1));
    let refused = || on(Call::Create("b".into()), Answer::Declined);
    let saw = |value: Option<&str>| on(Call::Read, Answer::Saw(value.map(str::to_owned)));
    let gone = || on(Call::Delete, Answer::Made);
    let list = |rows: &[&str], revision| {
        let rows = rows.iter().map(|value| ("configmaps/k1".to_owned(), (*value).to_owned())).collect();
        ("configmaps/", Call::List, Answer::All(rows, revision))
    };
    check(&[create(), refused(), saw(Some("a")), list(&["a"], 1), gone(), saw(None), list(&[], 2)], &k, None);
    check(&[create(), gone(), refused()], &k, linear);
    check(&[create(), gone(), saw(Some("a"))], &k, linear);
    check(&[create(), saw(None), gone()], &k, linear);
    check(&[create(), gone(), gone()], &k, linear);
    check(&[create(), on(Call::Delete, Answer::Declined)], &k[..1], linear);
    check(&[create(), on(Call::Swap("a".into(), "b".into()), Answer::Declined)], &k[..1], linear);
    check(&[on(Call::Create("a".into()), Answer::Declined)], &k[..1], Some("what certainly failed did nothing"));
    check(&[create(), list(&[], 1)], &k[..1], Some("an answer is true at its revision"));
    check(&[create(), list(&[], 1)], &k[..1], Some("lists are linearizable"));
    check(
        &[],
        &[seen(1, "leader", Some("t2-m1-1")), seen(2, "leader", Some("t1-m2-2"))],
        Some("a deposed leader writes nothing"),
    );
    check(&[], &[seen(1, "leader", Some("t1-m1-1")), seen(2, "leader", Some("t2-m2-2"))], None);
}

#[tokio::test(start_paused = true)]
async fn what_happens_is_judged_at_once() {
    let judged = |act: fn(&Laws)| {
        let laws = Laws::new(Arc::new(Trace::new(false)));
        act(&laws);
        laws.judge()
    };
    assert!(
        judged(|laws| {
            laws.leads(1, 1);
            laws.leads(2, 2);
            laws.leads(1, 1);
            laws.followed("m1", vec![seen(1, "r", Some("a")), seen(2, "r", None)], 2);
            laws.followed("m2", vec![seen(1, "r", Some("a"))], 1);
            laws.followed("configmaps/m1", vec![seen(3, "configmaps/k1", Some("b"))], 3);
        })
        .is_empty()
    );
    assert!(
        judged(|laws| {
            laws.leads(1, 1);
            laws.leads(1, 2);
        })[0]
            .starts_with("one leader per term")
    );
    assert!(
        judged(|laws| {
            laws.followed("m1", vec![seen(1, "r", Some("a"))], 1);
            laws.followed("m2", vec![seen(1, "r", Some("b"))], 1);
        })[0]
            .starts_with("a revision is one change")
    );
    for missed in [vec![seen(1, "r", Some("a"))], vec![seen(2, "s", Some("b")), seen(1, "r", Some("a"))]] {
        let laws = Laws::new(Arc::new(Trace::new(false)));
        laws.followed("m1", vec![seen(1, "r", Some("a")), seen(2, "s", Some("b"))], 2);
        laws.followed("m2", missed, 2);
        assert!(laws.judge()[0].starts_with("a follower sees every change"));
    }
    // Each topic has its own followers, and what one saw the others must.
    let laws = Laws::new(Arc::new(Trace::new(false)));
    laws.followed("m1", vec![seen(1, "r", Some("a"))], 2);
    laws.followed("configmaps/m1", vec![seen(2, "configmaps/k1", Some("b"))], 2);
    laws.followed("configmaps/api", vec![], 2);
    assert!(laws.judge()[0].starts_with("a follower sees every change once and in order: configmaps/api"));
    let mut other = State::default();
    other.skip(state::EntryId { term: 2, index: 1 });
    let mut one = State::default();
    one.skip(state::EntryId { term: 1, index: 1 });
    let laws = Laws::new(Arc::new(Trace::new(false)));
    laws.state(&one);
    laws.state(&other);
    assert!(laws.judge()[0].starts_with("replicas are equal"));
}
