//! What containers go through when the parts of hactl, their node or they themselves die.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use crate::support::{Local, eventually, text};

fn pods(local: &Local) -> Vec<Value> {
    let list: Value =
        serde_json::from_str(&local.kubectl(&["get", "pods", "-l", "app=web", "-o", "json"])).expect("JSON");
    list["items"].as_array().expect("items").clone()
}

/// Pods that run and are not on their way out.
fn running(local: &Local) -> Vec<Value> {
    let alive = |pod: &Value| pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null();
    pods(local).into_iter().filter(alive).collect()
}

/// Container id and start time by pod uid.
pub fn containers(local: &Local) -> BTreeMap<String, (String, String)> {
    let identity = |pod: &Value| {
        let status = &pod["status"]["containerStatuses"][0];
        let id = status["containerID"].as_str().unwrap_or("").trim_start_matches("docker://").to_owned();
        let output = docker(&["inspect", "-f", "{{.State.StartedAt}}", &id]);
        (pod["metadata"]["uid"].as_str().expect("a uid").to_owned(), (id, output))
    };
    running(local).iter().map(identity).collect()
}

fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().expect("run docker; `make setup` installs it");
    assert!(output.status.success(), "docker {}: {}", arguments.join(" "), text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

pub fn web(local: &Local, replicas: &str) {
    local.kubectl(&["create", "deployment", "web", "--image=hactl.local/sample:1", "--replicas", replicas]);
    local.kubectl(&["rollout", "status", "deployment/web", "--timeout=180s"]);
}

#[test]
fn containers_outlive_everything_but_their_node() {
    let local = Local::up_with(3, 2, &["--node-silence", "15s"]);
    web(&local, "4");

    // A container that dies is restarted in place; the others are left alone.
    let before = containers(&local);
    assert_eq!(before.len(), 4);
    let (victim, (id, _)) = before.first_key_value().expect("a pod");
    docker(&["kill", id]);
    eventually("it is restarted in place", || {
        let pods = pods(&local);
        let pod = pods.iter().find(|pod| pod["metadata"]["uid"] == **victim).ok_or("the pod was replaced")?;
        let status = &pod["status"]["containerStatuses"][0];
        if status["restartCount"] == 1 && status["ready"] == true { Ok(()) } else { Err("not yet") }
    });
    let mut after = containers(&local);
    let mut others = before.clone();
    assert_ne!(after.remove(victim), others.remove(victim));
    assert_eq!(after, others);

    // Its kubelet dies and comes back: the same containers go on.
    let before = containers(&local);
    local.ok(&["local", "kill", "node-1"]);
    local.ok(&["local", "start", "node-1"]);
    node_is(&local, "node-1", "True");
    assert_eq!(containers(&local), before);

    // All masters die and come back: the same containers go on.
    for master in local.masters() {
        local.ok(&["local", "kill", &master]);
    }
    for (id, started) in before.values() {
        assert_eq!(
            docker(&["inspect", "-f", "{{.State.Running}} {{.State.StartedAt}}", id]),
            format!("true {started}")
        );
    }
    for master in local.masters() {
        local.ok(&["local", "start", &master]);
    }
    eventually("the API answers", || {
        let output = local.try_kubectl(&crate::support::kubectl_default(), &["get", "pods"]);
        if output.status.success() { Ok(()) } else { Err(text(&output.stderr)) }
    });
    node_is(&local, "node-1", "True");
    node_is(&local, "node-2", "True");
    assert_eq!(containers(&local), before, "no pod was rescheduled because a leader is new");

    // The machine of node-1 dies: its pods run elsewhere, and when it comes back no pod has two sandboxes.
    local.ok(&["local", "kill", "node-1", "--with-pods"]);
    eventually("its pods run elsewhere", || {
        let all = running(&local);
        let elsewhere = all.iter().filter(|pod| pod["spec"]["nodeName"] == "node-2" && ready(pod)).count();
        if elsewhere == 4 { Ok(()) } else { Err(format!("{elsewhere} of 4")) }
    });
    local.ok(&["local", "start", "node-1"]);
    node_is(&local, "node-1", "True");
    eventually("what was evicted is gone", || {
        let count = pods(&local).len();
        if count == 4 { Ok(()) } else { Err(format!("{count} pods")) }
    });
    for pod in running(&local) {
        let uid = pod["metadata"]["uid"].as_str().expect("a uid");
        let short: String = uid.chars().filter(|letter| *letter != '-').take(12).collect();
        let names = docker(&["ps", "-a", "--format", "{{.Names}}", "--filter", &format!("name=_POD_.*{short}")]);
        assert_eq!(names.lines().count(), 1, "sandboxes of {uid}: {names}");
    }
}

fn ready(pod: &Value) -> bool {
    pod["status"]["containerStatuses"].as_array().is_some_and(|all| all.iter().all(|one| one["ready"] == true))
}

pub fn node_is(local: &Local, name: &str, ready: &str) {
    eventually(&format!("{name} has Ready={ready}"), || {
        let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
        let output = local.try_kubectl(&crate::support::kubectl_default(), &["get", "node", name, "-o", path]);
        let status = text(&output.stdout);
        if status == ready { Ok(()) } else { Err(format!("{status} {}", text(&output.stderr))) }
    });
}

#[test]
fn a_failover_leaves_containers_untouched() {
    let local = Local::calm(3, 1);
    web(&local, "3");
    let before = containers(&local);
    let report = local.ok(&["bench", "failover", "--kills", "3", "-o", "json"]);
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["writesLost"], serde_json::json!([]), "{report}");
    assert_eq!(containers(&local), before);
    local.kubectl(&["scale", "deployment/web", "--replicas=4"]);
    local.kubectl(&["rollout", "status", "deployment/web", "--timeout=180s"]);
}

#[test]
fn two_clusters_on_one_engine_leave_each_other_alone() {
    let (one, other) = (Local::calm(1, 1), Local::calm(1, 1));
    web(&one, "2");
    web(&other, "2");
    let kept = containers(&other);
    one.ok(&["local", "down"]);
    assert_eq!(containers(&other), kept);
    for (id, _) in kept.values() {
        assert_eq!(docker(&["inspect", "-f", "{{.State.Running}}", id]), "true");
    }
}
