use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use state::Key;

use super::*;
use crate::harness::{World, deployment};

fn web() -> Key {
    Key::new("apps", "deployments", "default", "web")
}

/// A settled Deployment `web` on three nodes.
fn running(replicas: i64, spec: Value) -> World {
    let mut world = World::with_nodes(3);
    let mut object = deployment("web", replicas);
    for (key, value) in spec.as_object().expect("a map") {
        object["spec"][key] = value.clone();
    }
    world.create("apps", "deployments", object);
    world.settle_quietly();
    world
}

fn set_image(world: &mut World, image: &str) {
    world.edit(&web(), |d| d["spec"]["template"]["spec"]["containers"][0]["image"] = image.into());
}

fn counts(world: &World) -> Vec<i64> {
    let web = world.object(&web());
    ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas"]
        .map(|name| json::count(&web, &format!("status.{name}")))
        .to_vec()
}

fn progressing(world: &World) -> (String, String) {
    let web = world.object(&web());
    let condition = json::condition(&web, "Progressing").expect("there");
    (json::text(condition, "status").to_owned(), json::text(condition, "reason").to_owned())
}

/// (image, size, revision) of every ReplicaSet, by revision.
fn sets(world: &World) -> Vec<(String, i64, i64)> {
    let mut sets: Vec<_> = world
        .list("apps", "replicasets", "default")
        .iter()
        .map(|(_, set)| {
            let image = json::text(&set["spec"]["template"]["spec"]["containers"][0], "image").to_owned();
            let revision = json::entry(set, "metadata.annotations", revisions::REVISION).and_then(|r| r.parse().ok());
            (image, json::count(set, "spec.replicas"), revision.unwrap_or(0))
        })
        .collect();
    sets.sort_by_key(|set| set.2);
    sets
}

#[test]
fn a_deployment_comes_up() {
    let world = running(3, json!({}));
    assert_eq!(counts(&world), [3, 3, 3, 3, 0]);
    assert_eq!(progressing(&world), ("True".into(), "NewReplicaSetAvailable".into()));
    let (_, set) = world.list("apps", "replicasets", "default").remove(0);
    let hash = json::entry(&set, "metadata.labels", revisions::HASH_LABEL).expect("labelled").to_owned();
    assert_eq!(meta::name(&set), format!("web-{hash}"));
    assert_eq!(set["spec"]["selector"]["matchLabels"][revisions::HASH_LABEL], hash.as_str());
    assert_eq!(json::entry(&set, "metadata.annotations", revisions::DESIRED), Some("3"));
    assert_eq!(json::entry(&set, "metadata.annotations", revisions::MAX), Some("4"));
    let nodes: std::collections::BTreeSet<_> = world.pods().iter().map(|(_, pod)| pod.header.node.clone()).collect();
    assert_eq!(nodes.len(), 3, "one pod per node");
    let up = format!("Scaled up replica set web-{hash} from 0 to 3");
    assert!(world.said("web").contains(&("ScalingReplicaSet".into(), up)), "{:?}", world.said("web"));
}

#[test]
fn a_rollout_and_its_undo() {
    let mut world = running(4, json!({}));
    set_image(&mut world, "image:2");
    world.settle_quietly();
    assert_eq!(sets(&world), [("image:1".into(), 0, 1), ("image:2".into(), 4, 2)]);
    // As kubectl does: the old template again. Its set becomes the newest revision.
    set_image(&mut world, "image:1");
    world.settle_quietly();
    assert_eq!(sets(&world), [("image:2".into(), 0, 2), ("image:1".into(), 4, 3)]);
    assert_eq!(json::entry(&world.object(&web()), "metadata.annotations", revisions::REVISION), Some("3"));
}

#[test]
fn history_is_bounded() {
    let mut world = running(1, json!({ "revisionHistoryLimit": 2 }));
    for n in 2..=6 {
        set_image(&mut world, &format!("image:{n}"));
        world.settle_quietly();
    }
    let images: Vec<String> = sets(&world).into_iter().map(|set| set.0).collect();
    assert_eq!(images, ["image:4", "image:5", "image:6"]);
}

#[test]
fn a_pause_holds_the_rollout_but_not_the_size() {
    let mut world = running(4, json!({}));
    world.edit(&web(), |d| d["spec"]["paused"] = true.into());
    set_image(&mut world, "image:2");
    world.settle();
    assert_eq!(sets(&world), [("image:1".into(), 4, 1)]);
    assert_eq!(progressing(&world), ("Unknown".into(), "DeploymentPaused".into()));
    world.edit(&web(), |d| d["spec"]["replicas"] = 6.into());
    world.settle();
    assert_eq!(sets(&world), [("image:1".into(), 6, 1)]);
    world.edit(&web(), |d| d["spec"]["paused"] = false.into());
    world.settle_quietly();
    assert_eq!(sets(&world), [("image:1".into(), 0, 1), ("image:2".into(), 6, 2)]);
}

#[test]
fn recreate_waits_for_the_old_pods_to_be_gone() {
    let mut world = running(3, json!({ "strategy": { "type": "Recreate" } }));
    set_image(&mut world, "image:2");
    while let Some(item) = world.waiting().first().cloned() {
        world.plan(&item);
    }
    assert_eq!(sets(&world), [("image:1".into(), 0, 1)], "the old pods are still on their way out");
    world.settle_quietly();
    assert_eq!(sets(&world), [("image:1".into(), 0, 1), ("image:2".into(), 3, 2)]);
}

#[test]
fn a_rollout_that_cannot_progress_times_out() {
    let mut world = running(4, json!({ "progressDeadlineSeconds": 60 }));
    world.broken_images.insert("image:2".into());
    set_image(&mut world, "image:2");
    world.settle();
    // 25 % of 4: one more, one less.
    assert_eq!(sets(&world), [("image:1".into(), 3, 1), ("image:2".into(), 2, 2)]);
    assert_eq!(progressing(&world), ("True".into(), "ReplicaSetUpdated".into()));
    world.advance(Duration::from_secs(70));
    assert_eq!(progressing(&world), ("False".into(), "ProgressDeadlineExceeded".into()));
    assert_eq!(json::condition_status(&world.object(&web()), "Available"), "True");
    // In the middle of the rollout both sets share a change of size.
    world.edit(&web(), |d| d["spec"]["replicas"] = 8.into());
    world.settle();
    let sizes: Vec<i64> = sets(&world).iter().map(|set| set.1).collect();
    assert_eq!(sizes.iter().sum::<i64>(), 10, "8 and 25 % of it: {sizes:?}");
    set_image(&mut world, "image:1");
    world.settle_quietly();
    assert_eq!(counts(&world), [8, 8, 8, 8, 0]);
}

#[test]
fn min_ready_seconds_delay_availability() {
    let mut world = running(2, json!({}));
    world.edit(&web(), |d| d["spec"]["minReadySeconds"] = 10.into());
    world.settle();
    set_image(&mut world, "image:2");
    world.settle();
    assert_eq!(sets(&world)[1].1, 1, "the next only when the first is available");
    world.advance(Duration::from_secs(60));
    world.settle_quietly();
    assert_eq!(sets(&world)[1].1, 2);
}

#[test]
fn a_stranger_with_the_name_of_the_new_set_is_stepped_around() {
    let mut world = running(1, json!({}));
    let mut next = world.object(&web());
    next["spec"]["template"]["spec"]["containers"][0]["image"] = "image:2".into();
    let name = format!("web-{}", revisions::hash(&next));
    let mut stranger = deployment("other", 0);
    stranger["kind"] = "ReplicaSet".into();
    stranger["metadata"]["name"] = name.into();
    world.create("apps", "replicasets", stranger);
    set_image(&mut world, "image:2");
    world.settle_quietly();
    assert_eq!(json::count(&world.object(&web()), "status.collisionCount"), 1);
}

#[test]
fn deleting_a_deployment_deletes_all_below_it() {
    let mut world = running(3, json!({}));
    world.delete(&web());
    world.settle_quietly();
    assert!(world.list("apps", "replicasets", "default").is_empty());
    assert!(world.list("", "pods", "default").is_empty());
}

#[test]
fn shares_of_replicas() {
    for (value, replicas, up, down) in [
        (json!("25%"), 10, 3, 2),
        (json!("25%"), 1, 1, 0),
        (json!("0%"), 5, 0, 0),
        (json!("100%"), 5, 5, 5),
        (json!(2), 5, 2, 2),
        (json!(null), 4, 1, 1),
    ] {
        assert_eq!(rollout::share(&value, replicas, true), up, "{value} of {replicas} up");
        assert_eq!(rollout::share(&value, replicas, false), down, "{value} of {replicas} down");
    }
}

/// Pods of `web` that answer, and ReplicaSet sizes together.
fn available_and_total(world: &World) -> (i64, i64) {
    let ready = world.pods().iter().filter(|(_, pod)| emit::field(pod, "ready") == "true").count();
    let total =
        world.list("apps", "replicasets", "default").iter().map(|(_, set)| json::count(set, "spec.replicas")).sum();
    (i64::try_from(ready).expect("few"), total)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever the order in which plans, bindings and kubelets get their turn.
    #[test]
    fn a_rolling_update_keeps_its_bounds(
        replicas in 1i64..7,
        surge in 0i64..3,
        unavailable in 0i64..3,
        turns in proptest::collection::vec(any::<u16>(), 400),
    ) {
        prop_assume!(surge + unavailable > 0);
        let strategy = json!({ "type": "RollingUpdate",
            "rollingUpdate": { "maxSurge": surge, "maxUnavailable": unavailable } });
        let mut world = running(replicas, json!({ "strategy": strategy }));
        set_image(&mut world, "image:2");
        for (i, turn) in turns.iter().enumerate() {
            if i == 150 {
                set_image(&mut world, "image:3");
            }
            let (waiting, work) = (world.waiting(), world.kubelet_work());
            match usize::from(*turn) % (waiting.len() + work.len() + 1) {
                n if n < waiting.len() => { world.plan(&waiting[n]); }
                n if n < waiting.len() + work.len() => world.kubelet(&work[n - waiting.len()]),
                _ => { world.schedule(); }
            }
            let (available, total) = available_and_total(&world);
            prop_assert!(total <= replicas + surge, "{total} of {replicas}+{surge}");
            prop_assert!(available >= replicas - unavailable, "{available} of {replicas}-{unavailable}");
        }
        world.settle_quietly();
    }
}
