//! Containers run on untouched while their cluster is lost and comes back: from a snapshot, and from one survivor.

use crate::failures::{containers, node_is, web};
use crate::support::{Local, eventually, kubectl_default, text};

fn answers(local: &Local) {
    eventually("the API answers", || {
        let output = local.try_kubectl(&kubectl_default(), &["get", "pods"]);
        if output.status.success() { Ok(()) } else { Err(text(&output.stderr)) }
    });
}

fn nodes_follow(local: &Local) {
    answers(local);
    for node in ["node-1", "node-2"] {
        node_is(local, node, "True");
    }
}

#[test]
fn containers_outlive_their_cluster() {
    let local = Local::calm(3, 2);
    web(&local, "4");
    let before = containers(&local);
    assert_eq!(before.len(), 4);

    // Everything is lost but the nodes and a file.
    let (file, key) = (local.dir().join("all.snapshot"), local.dir().join("recovery.key"));
    let (file, key) = (file.to_str().expect("a path"), key.to_str().expect("a path"));
    local.ok(&["cluster", "snapshot", "save", file]);
    for master in local.masters() {
        local.ok(&["local", "kill", &master]);
        std::fs::remove_dir_all(local.dir().join(master)).expect("remove");
    }
    let command = local.restore_command(file, key, "master-1");
    local.ok(&command.iter().map(String::as_str).collect::<Vec<_>>());
    local.ok(&["local", "start", "master-1"]);
    nodes_follow(&local);
    assert_eq!(containers(&local), before, "the snapshot knows them all");

    // Two of three masters are lost for good.
    local.ok(&["local", "up", "--masters", "3", "--nodes", "2"]);
    for lost in ["master-1", "master-3"] {
        local.ok(&["local", "kill", lost]);
    }
    local.ok(&["local", "kill", "master-2"]);
    let survivor = local.dir().join("master-2");
    let survivor = survivor.to_str().expect("a path");
    local.ok(&["cluster", "recover", "--from-this-member", "--yes", "--data-dir", survivor]);
    local.ok(&["local", "start", "master-2"]);
    nodes_follow(&local);
    assert_eq!(containers(&local), before, "the survivor knows them all");

    // And the cluster works.
    local.kubectl(&["scale", "deployment/web", "--replicas=5"]);
    local.kubectl(&["rollout", "status", "deployment/web", "--timeout=180s"]);
    let after = containers(&local);
    assert_eq!(after.len(), 5);
    assert!(before.iter().all(|(uid, container)| after.get(uid) == Some(container)));
}
