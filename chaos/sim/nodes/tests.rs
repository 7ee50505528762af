//! The laws of what runs where, on engines that were given their containers by hand.

use kubelet::runtime::Spec;
use state::{Command, EntryId, Header, Key, Op, Put};

use super::*;
use crate::Random;
use crate::sim::laws::Laws;
use crate::sim::trace::Trace;

const IMAGE: &str = IMAGES[0];

/// Pods whose container runs, and those whose container was made and never started.
type Containers<'a> = (&'a [&'a str], &'a [&'a str]);

/// Nodes n1, n2, … with these containers.
async fn nodes(of: &[Containers<'_>]) -> Arc<World> {
    let trace = Arc::new(Trace::new(false));
    let world = World::new(Random::new(1), 1, 1, trace.clone(), Laws::new(trace));
    for (id, (running, made)) in (FIRST..).zip(of) {
        let engine = Arc::new(Hollow::new(CLUSTER, &uid(id)));
        engine.publish(IMAGE);
        engine.pull(IMAGE, None).await.expect("it is published");
        for pod in running.iter().chain(*made) {
            let labels = [(label::POD_UID, *pod), (label::CONTAINER, "c")];
            let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            let spec = Spec { name: (*pod).to_owned(), image: IMAGE.to_owned(), labels, ..Spec::default() };
            let container = engine.create(&spec).await.expect("its image is here");
            if running.contains(pod) {
                engine.start(&container).await.expect("it was made");
            }
        }
        let node = Node { engine, machine: Arc::default(), data_dir: PathBuf::new(), running: None, held: 0 };
        world.nodes.lock().insert(id, node);
    }
    world
}

/// A state with these pods, each on a node.
fn bound(pods: &[(&str, u64)]) -> state::State {
    let put = |key: Key, uid: &str, node: &str| {
        let header = Header { uid: uid.to_owned(), node: node.to_owned(), ..Header::default() };
        Op::put(Put { key, header, ..Put::default() })
    };
    let ids = [FIRST, FIRST + 1];
    let mut ops: Vec<Op> = ids.iter().map(|id| put(Key::node(name(*id)), &uid(*id), "")).collect();
    ops.push(put(Key::namespace("default"), "uid-of-default", ""));
    ops.extend(pods.iter().map(|(pod, id)| put(Key::new("", "pods", "default", *pod), pod, &name(*id))));
    let mut state = state::State::default();
    let applied = state.apply(EntryId { term: 1, index: 1 }, &Command { ops, ..Command::default() });
    assert_eq!(applied.outcome.refusal, None);
    state
}

#[tokio::test(start_paused = true)]
async fn a_container_that_runs_on_two_nodes_is_seen() {
    let twice = async |of: &[Containers<'_>]| nodes(of).await.nodes.runs_twice();
    assert_eq!(twice(&[(&["a"], &[]), (&["b"], &[])]).await, None);
    assert_eq!(twice(&[(&["a"], &[]), (&["b"], &["a"])]).await, None, "what does not run is no second one");
    assert_eq!(twice(&[(&["a", "b"], &[]), (&["b"], &[])]).await.as_deref(), Some("c of pod b on n1 and n2"));
}

#[tokio::test(start_paused = true)]
async fn a_node_runs_the_pods_that_are_bound_to_it_and_no_others() {
    let well = async |of: &[Containers<'_>], root: &state::State| nodes(of).await.nodes_are_well(root).await;
    let root = bound(&[("a", FIRST), ("b", FIRST + 1)]);
    assert_eq!(well(&[(&["a"], &[]), (&["b"], &[])], &root).await, Ok(()));
    let not = |orphans: &str, missing: &str| Err(format!("n2 has the orphans {orphans} and does not run {missing}"));
    assert_eq!(well(&[(&["a"], &[]), (&["b", "c"], &[])], &root).await, not("[\"c\"]", "[]"));
    assert_eq!(well(&[(&["a"], &[]), (&["b"], &["c"])], &root).await, not("[\"c\"]", "[]"), "it need not run");
    assert_eq!(well(&[(&["a"], &[]), (&[], &[])], &root).await, not("[]", "[\"b\"]"));
    assert_eq!(well(&[(&["a"], &[]), (&[], &["b"])], &root).await, not("[]", "[\"b\"]"));
    assert_eq!(well(&[(&["a"], &[]), (&["a"], &[])], &root).await, not("[\"a\"]", "[\"b\"]"), "on the wrong node");
}
