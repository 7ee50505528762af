//! The replica in memory, the hub and its watchers. Whether something is waiting is asked by polling once, never by time.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;
use state::{Command, Compact, Expect, Header, Key, Op, Put, Refusal, State, op};

use crate::watch::{BATCH_EVENTS_MAX, Batch, Filter, Watcher};
use crate::{Error, Replica, memory};

fn put(key: Key, node: &str, body: u64) -> Op {
    let header = Header { node: node.into(), ..Header::default() };
    Op::put(Put { key, header, body: body.to_string().into(), ..Put::default() })
}

fn pod(namespace: &str, name: &str, node: &str, body: u64) -> Op {
    put(Key::new("", "pods", namespace, name), node, body)
}

fn command(ops: Vec<Op>) -> Command {
    Command { ops, ..Command::default() }
}

async fn propose(replica: &Replica, ops: Vec<Op>) -> u64 {
    let outcome = replica.propose(command(ops)).await.expect("leads");
    assert_eq!(outcome.refusal, None);
    outcome.revision
}

/// Namespaces `a` and `b`, nodes `n1` and `n2`: revision 4.
async fn given() -> Replica {
    let replica = memory::start();
    let ops = [Key::namespace("a"), Key::namespace("b"), Key::node("n1"), Key::node("n2")];
    propose(&replica, ops.map(|key| put(key, "", 0)).to_vec()).await;
    replica
}

fn pods() -> Filter {
    Filter::resource("", "pods")
}

/// What is there without waiting.
fn ready(watcher: &mut Watcher) -> Option<Batch> {
    match pin!(watcher.next()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(batch) => Some(batch.expect("not compacted")),
        Poll::Pending => None,
    }
}

fn revisions(batch: Option<Batch>) -> Vec<u64> {
    batch.into_iter().flat_map(|batch| batch.events).map(|event| event.revision).collect()
}

#[tokio::test]
async fn proposals_apply_at_once_and_in_order() {
    let replica = given().await;
    let mut applied = replica.applied();
    assert_eq!(*applied.borrow_and_update(), 4);
    assert_eq!(propose(&replica, vec![pod("a", "x", "", 1)]).await, 5);
    assert_eq!((*applied.borrow(), replica.root().revision()), (5, 5));
    assert_eq!(replica.read().await.expect("leads").revision(), 5);
    let refused = replica
        .propose(Command { expects: vec![Expect::absent(Key::node("n1"))], ..Command::default() })
        .await
        .expect("leads");
    assert_eq!(refused.refusal, Some(Refusal::AlreadyExists(Key::node("n1"))));
}

#[tokio::test]
async fn a_member_begun_with_a_state_does_not_repeat_its_proposals() {
    let replica = given().await;
    let again = memory::start_with(State::clone(&replica.root()));
    assert_eq!(propose(&again, vec![pod("a", "x", "", 1)]).await, 5);
}

#[tokio::test]
async fn only_the_leader_of_a_term_proposes_as_one() {
    let (replica, controls) = memory::start_controlled(State::default());
    let node = || command(vec![put(Key::node("n1"), "", 0)]);
    assert_eq!(replica.leadership().borrow().leading, Some(1));
    assert!(replica.propose_as_leader(1, node()).await.is_ok());
    controls.lead(2);
    assert!(matches!(replica.propose_as_leader(1, node()).await, Err(Error::Deposed(1))));
    assert!(replica.propose_as_leader(2, node()).await.is_ok());
    assert_eq!(replica.root().applied().term, 2);
    controls.depose();
    assert!(matches!(replica.propose_as_leader(2, node()).await, Err(Error::Deposed(2))));
    assert!(matches!(replica.propose(node()).await, Err(Error::Unavailable(_))));
    assert!(matches!(replica.read().await, Err(Error::Unavailable(_))));
    assert!(!replica.leadership().borrow().serving);
}

#[tokio::test]
async fn a_paused_member_answers_when_resumed() {
    let (replica, controls) = memory::start_controlled(State::default());
    controls.pause();
    let waiting = tokio::spawn({
        let replica = replica.clone();
        async move { propose(&replica, vec![put(Key::node("n1"), "", 0)]).await }
    });
    tokio::task::yield_now().await;
    assert_eq!(replica.root().revision(), 0);
    controls.resume();
    assert_eq!(waiting.await.expect("does not panic"), 1);
}

#[tokio::test]
async fn filters_select() {
    let replica = given().await;
    propose(&replica, vec![pod("a", "x", "", 1), pod("b", "x", "", 1), pod("a", "y", "n1", 1)]).await;
    propose(&replica, vec![pod("a", "x", "n1", 1), pod("b", "x", "n2", 1)]).await;
    propose(&replica, vec![Op::delete(Key::new("", "pods", "a", "x")), put(Key::node("n1"), "", 9)]).await;
    let cases = [
        (pods(), 4, vec![5, 6, 7, 8, 9, 10]),
        (pods(), 8, vec![9, 10]),
        (pods().in_namespace("b"), 0, vec![6, 9]),
        (pods().named("x"), 0, vec![5, 6, 8, 9, 10]),
        (pods().named("x").in_namespace("a"), 0, vec![5, 8, 10]),
        (pods().on_node("n1"), 0, vec![7, 8, 10]),
        (pods().on_node("n1").named("y"), 0, vec![7]),
        (pods().on_node(""), 0, vec![5, 6, 8, 9]),
        (Filter::resource("", "nodes").named("n1"), 4, vec![11]),
        (Filter::resource("apps", "pods"), 0, vec![]),
    ];
    for (filter, after, expected) in cases {
        let mut watcher = replica.watch(filter.clone(), after);
        assert_eq!(revisions(ready(&mut watcher)), expected, "{filter:?}");
        assert_eq!(ready(&mut watcher), None);
        assert_eq!(watcher.position(), 11);
    }
}

#[tokio::test]
async fn only_those_who_asked_are_woken() {
    let replica = given().await;
    let filters =
        [pods(), pods().in_namespace("a"), pods().named("x"), pods().on_node("n1"), Filter::resource("", "nodes")];
    let mut watchers: Vec<_> = filters.into_iter().map(|filter| replica.watch(filter, 4)).collect();
    let cases = [
        (pod("a", "x", "", 1), [true, true, true, false, false]),
        (pod("b", "y", "n2", 1), [true, false, false, false, false]),
        (pod("b", "z", "n1", 1), [true, false, false, true, false]),
        (put(Key::node("n1"), "", 1), [false, false, false, false, true]),
        (put(Key::namespace("c"), "", 1), [false, false, false, false, false]),
    ];
    for (op, expected) in cases {
        let mut waiting: Vec<_> =
            watchers.iter_mut().map(|watcher| by_hand(async move { ready_or_wait(watcher).await })).collect();
        waiting.iter_mut().for_each(|task| assert!(!task.poll()));
        propose(&replica, vec![op]).await;
        assert_eq!(waiting.iter().map(Task::is_woken).collect::<Vec<_>>(), expected);
        waiting.iter_mut().zip(expected).for_each(|(task, expected)| assert_eq!(task.poll(), expected));
    }
}

async fn ready_or_wait(watcher: &mut Watcher) {
    assert_eq!(watcher.next().await.expect("not compacted").events.len(), 1);
}

/// A future that is polled by hand and knows whether it was woken.
struct Task<'a> {
    future: std::pin::Pin<Box<dyn Future<Output = ()> + 'a>>,
    woken: Arc<Woken>,
}

#[derive(Default)]
struct Woken(std::sync::atomic::AtomicBool);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

fn by_hand<'a>(future: impl Future<Output = ()> + 'a) -> Task<'a> {
    Task { future: Box::pin(future), woken: Arc::default() }
}

impl Task<'_> {
    fn poll(&mut self) -> bool {
        let waker = Waker::from(self.woken.clone());
        self.future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready()
    }

    fn is_woken(&self) -> bool {
        self.woken.0.load(std::sync::atomic::Ordering::SeqCst)
    }
}

#[tokio::test]
async fn a_cancelled_wait_loses_nothing() {
    let replica = given().await;
    let mut watcher = replica.watch(pods(), 4);
    assert_eq!(ready(&mut watcher), None);
    propose(&replica, vec![pod("a", "x", "", 1)]).await;
    assert_eq!(revisions(ready(&mut watcher)), [5]);
    assert_eq!(ready(&mut watcher), None);
}

#[tokio::test]
async fn a_slow_watcher_learns_that_it_was_too_slow() {
    let replica = given().await;
    let (mut slow, mut settled) = (replica.watch(pods(), 4), replica.watch(pods(), 4));
    propose(&replica, vec![put(Key::node("n1"), "", 1)]).await;
    assert_eq!(settled.settle(), 5);
    propose(&replica, vec![pod("a", "x", "", 1)]).await;
    assert_eq!(settled.settle(), 5);
    let compact = Op { kind: Some(op::Kind::Compact(Compact { revision: 5 })) };
    replica.propose(command(vec![compact])).await.expect("leads");
    assert!(slow.next().await.is_err_and(|error| (error.asked, error.compacted) == (4, 5)));
    assert_eq!(slow.settle(), 4);
    assert_eq!(revisions(settled.next().await.ok()), [6]);
}

#[tokio::test(start_paused = true)]
async fn an_idle_watcher_is_not_overtaken_by_compaction() {
    let replica = given().await;
    let mut idle = replica.watch(pods(), 4);
    let follow = tokio::spawn(async move { idle.next().await });
    for body in 1..10 {
        let revision = propose(&replica, vec![put(Key::node("n1"), "", body)]).await;
        // Virtual time: runs on as soon as everybody waits.
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        let compact = Op { kind: Some(op::Kind::Compact(Compact { revision })) };
        replica.propose(command(vec![compact])).await.expect("leads");
    }
    let revision = propose(&replica, vec![pod("a", "x", "", 1)]).await;
    assert_eq!(revisions(follow.await.expect("does not panic").ok()), [revision]);
}

#[tokio::test]
async fn much_comes_in_batches() {
    let replica = given().await;
    let many = BATCH_EVENTS_MAX as u64 + 10;
    propose(&replica, (0..many).map(|body| pod("a", "x", "", body)).collect()).await;
    let mut watcher = replica.watch(pods(), 4);
    let (first, second) = (ready(&mut watcher).expect("is there"), ready(&mut watcher).expect("is there"));
    assert_eq!((first.events.len(), first.revision), (BATCH_EVENTS_MAX, 4 + BATCH_EVENTS_MAX as u64));
    assert_eq!((second.events.len(), second.revision), (10, 4 + many));
}

#[tokio::test]
async fn a_dropped_watcher_leaves_no_trace() {
    let replica = given().await;
    let (one, two) = (replica.watch(pods(), 0), replica.watch(pods(), 0));
    assert_eq!(replica.hub().listened(), 1);
    drop(one);
    assert_eq!(replica.hub().listened(), 1);
    drop(two);
    assert_eq!(replica.hub().listened(), 0);
}

fn a_filter() -> impl Strategy<Value = Filter> {
    let some = |pattern| proptest::option::weighted(0.4, pattern);
    (some("[ab]"), some("[xy]"), some("n[12]")).prop_map(|(namespace, name, node)| Filter {
        namespace,
        name,
        node,
        ..pods()
    })
}

/// One step: a put or a delete of a pod.
fn a_step() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => ("[ab]", "[xyz]", "n[12]", 0..3u64).prop_map(|(namespace, name, node, body)| pod(&namespace, &name, &node, body)),
        1 => ("[ab]", "[xyz]").prop_map(|(namespace, name)| Op::delete(Key::new("", "pods", namespace, name))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// Writers and watchers run side by side; waits are cancelled now and then.
    #[test]
    fn every_watcher_sees_each_matching_change_once_in_order(
        steps in proptest::collection::vec(a_step(), 1..60),
        filters in proptest::collection::vec((a_filter(), 1..5usize), 1..6),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("starts");
        runtime.block_on(async {
            let replica = given().await;
            let end = Key::new("", "pods", "end", "end");
            let tasks: Vec<_> = filters.into_iter().map(|(filter, cancel_every)| {
                let (replica, end) = (replica.clone(), end.clone());
                tokio::spawn(async move {
                    let mut watcher = replica.watch(filter.clone(), 4);
                    let mut seen = Vec::new();
                    let mut turn = 0;
                    while replica.root().get(&end).is_none() || watcher.position() < replica.root().revision() {
                        turn += 1;
                        let batch = if turn % cancel_every == 0 {
                            ready(&mut watcher)
                        } else {
                            tokio::select! {
                                batch = watcher.next() => Some(batch.expect("not compacted")),
                                () = tokio::task::yield_now() => None,
                            }
                        };
                        seen.extend(revisions(batch));
                    }
                    (filter, seen)
                })
            }).collect();
            for step in steps {
                // A pod that is bound elsewhere already is refused: nothing changes, nothing to see.
                replica.propose(command(vec![step])).await.expect("leads");
                tokio::task::yield_now().await;
            }
            propose(&replica, vec![put(Key::namespace("end"), "", 0), put(end, "", 0)]).await;
            let root = replica.root();
            for task in tasks {
                let (filter, seen) = task.await.expect("does not panic");
                let expected: Vec<u64> = root
                    .events_after(4)
                    .expect("not compacted")
                    .filter(|event| filter.matches(event))
                    .map(|event| event.revision)
                    .collect();
                assert_eq!(seen, expected, "{filter:?}");
            }
        });
    }
}

#[tokio::test]
async fn a_position_beyond_all_revisions_waits() {
    let replica = given().await;
    let mut watcher = replica.watch(pods(), u64::MAX);
    let mut next = pin!(watcher.next());
    assert!(next.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
}
