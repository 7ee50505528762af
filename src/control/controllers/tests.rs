//! All controllers together: whatever users do and however nodes fail, the cluster comes to rest where every law holds,
//! and a new leader finds nothing to do.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;
use state::Key;

use crate::harness::{World, deployment};

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
