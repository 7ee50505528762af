//! All controllers together: whatever users do and however nodes fail, the cluster comes to rest where every law holds,
//! and a new leader finds nothing to do.

use std::collections::BTreeMap;
use std::time::Duration;

use objects::Kinds;
use proptest::prelude::*;
use serde_json::{Value, json};
use state::{Command, EntryId, Key, Op, visits};

use super::ALL;
use crate::harness::{World, deployment, pod};
use crate::record;

/// What happens to the cluster.
#[derive(Clone, Debug)]
enum Step {
    Scale(usize, i64),
    SetImage(usize, u8),
    DeleteDeployment(usize),
    DeletePod(usize),
    /// Kubelet and containers of this node die, and are heard of again later.
    NodeDies(usize),
    NodeReturns(usize),
    /// Some keys are planned, some pods started, in this order.
    Run(Vec<u8>),
    NewLeader,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0usize..2, 0i64..6).prop_map(|(d, n)| Step::Scale(d, n)),
        2 => (0usize..2, 0u8..4).prop_map(|(d, i)| Step::SetImage(d, i)),
        1 => (0usize..2).prop_map(Step::DeleteDeployment),
        2 => (0usize..16).prop_map(Step::DeletePod),
        1 => (1usize..4).prop_map(Step::NodeDies),
        1 => (1usize..4).prop_map(Step::NodeReturns),
        4 => proptest::collection::vec(any::<u8>(), 1..30).prop_map(Step::Run),
        1 => Just(Step::NewLeader),
        1 => (1u64..30).prop_map(Step::Wait),
    ]
}

const NODES: usize = 3;

fn name(deployment: usize) -> String {
    format!("web-{deployment}")
}

fn key(deployment: usize) -> Key {
    Key::new("apps", "deployments", "default", name(deployment))
}

fn alive(world: &World, deployment: usize) -> bool {
    world.root.get(&key(deployment)).is_some_and(|d| d.header.deletion_ms == 0)
}

/// What the sessions report: dead nodes silent for a long time, the others just heard.
fn hear(world: &mut World) {
    let names: Vec<String> = (1..=NODES).map(|i| format!("node-{i}")).collect();
    let heard: Vec<(&str, u64)> =
        names.iter().map(|name| (name.as_str(), if world.dead.contains(name) { 60_000 } else { 0 })).collect();
    world.hear(&heard);
}

fn take(world: &mut World, step: &Step) {
    match step {
        Step::Scale(d, n) if alive(world, *d) => world.edit(&key(*d), |d| d["spec"]["replicas"] = (*n).into()),
        Step::Scale(d, n) if world.root.get(&key(*d)).is_none() => {
            world.create("apps", "deployments", deployment(&name(*d), *n));
        }
        Step::SetImage(d, image) if alive(world, *d) => world.edit(&key(*d), |d| {
            d["spec"]["template"]["spec"]["containers"][0]["image"] = format!("image:{image}").into();
        }),
        Step::DeleteDeployment(d) if alive(world, *d) => world.delete(&key(*d)),
        Step::DeletePod(n) => {
            let pods = world.pods();
            if let Some((key, _)) = pods.get(n % pods.len().max(1)) {
                world.delete(key);
            }
        }
        Step::NodeDies(n) => {
            world.dead.insert(format!("node-{n}"));
            hear(world);
        }
        Step::NodeReturns(n) => {
            world.dead.remove(&format!("node-{n}"));
            hear(world);
        }
        Step::Run(turns) => turns.iter().for_each(|turn| run_one(world, usize::from(*turn))),
        Step::NewLeader => world.take_office(),
        Step::Wait(s) => world.advance(Duration::from_secs(*s)),
        _ => {}
    }
}

fn run_one(world: &mut World, turn: usize) {
    let (waiting, work) = (world.waiting(), world.kubelet_work());
    match turn % (waiting.len() + work.len() + 1) {
        n if n < waiting.len() => {
            world.plan(&waiting[n]);
        }
        n if n < waiting.len() + work.len() => world.kubelet(&work[n - waiting.len()]),
        _ => {
            world.schedule();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn the_cluster_converges(steps in proptest::collection::vec(step(), 1..40)) {
        let mut world = World::with_nodes(NODES);
        world.create("apps", "deployments", deployment(&name(0), 3));
        world.create("", "services", json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": "web", "namespace": "default" },
            "spec": { "selector": { "app": "web-0" }, "ports": [{ "port": 80 }] },
        }));
        steps.iter().for_each(|step| take(&mut world, step));
        // Then all is well again, and stays so.
        world.dead.clear();
        hear(&mut world);
        world.advance(Duration::from_secs(60));
        world.settle_quietly();
        let before = world.root.revision();
        world.take_office();
        world.settle();
        prop_assert_eq!(world.root.revision(), before, "a new leader has nothing to do");
    }
}

/// How many records and index entries each controller looks at, from the event of a changed pod to the end of its plans,
/// in a namespace with so many objects that have nothing to do with that pod.
fn cost_of_a_change(others: usize, change: impl Fn(&World) -> Value) -> BTreeMap<&'static str, u64> {
    let mut world = World::with_nodes(3);
    let service = |name: &str| {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": name, "namespace": "default" },
            "spec": { "selector": { "app": name }, "ports": [{ "port": 80 }] },
        })
    };
    world.create("", "services", service("web"));
    world.create("apps", "deployments", deployment("web", 3));
    world.settle_quietly();
    for i in 0..others {
        let name = format!("other-{i}");
        world.create("", "services", service(&name));
        world.create("apps", "deployments", deployment(&name, 0));
        world.create("", "pods", pod(&name, json!({ "nodeSelector": { "no": "where" } })));
        world.create("", "configmaps", json!({ "metadata": { "name": name, "namespace": "default" } }));
    }
    let object = change(&world);
    let put = record::put(Kinds::builtin().by_resource("", "pods").expect("a kind"), &object).expect("complete");
    let mut root = world.root.clone();
    let entry = EntryId { term: 1, index: root.applied().index + 1 };
    let applied = root.apply(entry, &Command { ops: vec![Op::put(put)], ..Command::default() });
    assert_eq!(applied.outcome.refusal, None);
    let mut costs = BTreeMap::new();
    for row in ALL.iter().filter(|row| row.watches("", "pods")) {
        let before = visits::count();
        for key in (row.keys)(&root, &applied.events[0]) {
            (row.plan)(&root, &key, &mut world.cx());
        }
        costs.insert(row.name, visits::count() - before);
    }
    costs
}

#[test]
fn a_change_of_one_pod_costs_the_same_however_many_objects_there_are() {
    let falls_ill = |world: &World| {
        let (key, _) = world.pods().into_iter().find(|(key, _)| key.name.starts_with("web")).expect("a pod of web");
        let mut pod = world.object(&key);
        pod["status"]["conditions"] = json!([]);
        pod
    };
    let comes_alone = |_: &World| {
        let mut orphan = pod("alone", json!({}));
        orphan["metadata"]["uid"] = "alone".into();
        orphan["metadata"]["labels"] = json!({ "app": "web" });
        orphan
    };
    let changes: [&dyn Fn(&World) -> Value; 2] = [&falls_ill, &comes_alone];
    for change in changes {
        let (few, many) = (cost_of_a_change(5, change), cost_of_a_change(200, change));
        assert_eq!(few, many);
        assert!(few["replicaset"] > 0 && few["endpointslice"] > 0, "{few:?}");
    }
}
