//! Clusters of several machines: each with its own engine and its own place in the network.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::machine::{Lan, Machine};
use crate::support::{eventually, kubectl_default, text};

fn pods(on: &Machine) -> Result<Vec<Value>, String> {
    let list = on.json(&["get", "pods"])?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

fn ready(pod: &Value) -> bool {
    let all = pod["status"]["containerStatuses"].as_array();
    pod["metadata"]["deletionTimestamp"].is_null()
        && pod["status"]["phase"] == "Running"
        && all.is_some_and(|all| all.iter().all(|one| one["ready"] == true))
}

/// Waits until so many pods are ready on each of these machines, and no more in all.
fn spread(on: &Machine, wanted: &[(&str, usize)]) -> Vec<Value> {
    eventually("the pods run where they should", || {
        let all = pods(on)?;
        let count = |node: &str| all.iter().filter(|pod| ready(pod) && pod["spec"]["nodeName"] == node).count();
        let found: Vec<usize> = wanted.iter().map(|(node, _)| count(node)).collect();
        let expected: Vec<usize> = wanted.iter().map(|(_, count)| *count).collect();
        if found == expected && all.iter().filter(|pod| ready(pod)).count() == found.iter().sum::<usize>() {
            Ok(all.clone())
        } else {
            Err(format!("{found:?} {}", on.kubectl(&["get", "pods", "-o", "wide"])))
        }
    })
}

fn node_is(on: &Machine, name: &str, wanted: &str) -> Value {
    eventually(&format!("{name} has Ready={wanted}"), || {
        let node = on.json(&["get", "node", name])?;
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition["type"] == "Ready").cloned().unwrap_or_default();
        if ready["status"] == wanted { Ok(node) } else { Err(format!("{ready}")) }
    })
}

fn name(pod: &Value) -> String {
    pod["metadata"]["name"].as_str().expect("a name").to_owned()
}

fn on<'a>(pods: &'a [Value], node: &str) -> &'a Value {
    pods.iter().find(|pod| pod["spec"]["nodeName"] == node).expect("a pod there")
}

#[test]
fn a_second_machine_joins_runs_pods_and_leaves() {
    let lan = Lan::new();
    let mut first = Machine::host(&lan);
    let mut second = Machine::new(&lan, "b", 2);
    first.init(&lan);
    second.join(&first, &[]);
    let node = node_is(&first, "b", "True");
    let addresses = node["status"]["addresses"].as_array().expect("addresses");
    assert!(
        addresses.contains(&serde_json::json!({ "type": "InternalIP", "address": second.address })),
        "{addresses:?}"
    );

    // The readiness probe of the sample is asked from the machine that the pod is on.
    first.kubectl(&["apply", "-f", concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/sample.yaml")]);
    let all = spread(&first, &[("host", 2), ("b", 2)]);
    let pod = on(&all, "b");
    let address = pod["status"]["podIP"].as_str().expect("an address");
    let url = format!("http://{address}:8080/from-the-test");
    logs_follow(&first, &name(pod), || drop(second.fetch(&url)));
    assert!(first.kubectl(&["logs", &name(pod)]).contains("/from-the-test"));

    // A container that dies there is restarted there.
    let id =
        pod["status"]["containerStatuses"][0]["containerID"].as_str().expect("an id").trim_start_matches("docker://");
    second.docker(&["kill", id]);
    eventually("it is restarted in place", || {
        let pod = first.json(&["get", "pod", &name(pod)])?;
        if ready(&pod) && pod["status"]["containerStatuses"][0]["restartCount"] == 1 {
            Ok(())
        } else {
            Err(pod["status"].to_string())
        }
    });

    // Its engine is restarted: the node says so, and its pods run again.
    second.stop_engine();
    let node = node_is(&first, "b", "False");
    assert!(node["status"].to_string().contains("no Docker Engine answers"), "{node}");
    second.start_engine();
    node_is(&first, "b", "True");
    let all = eventually("four pods run", || {
        let all: Vec<Value> = pods(&first)?.into_iter().filter(ready).collect();
        if all.len() == 4 { Ok(all) } else { Err(first.kubectl(&["get", "pods", "-o", "wide"])) }
    });
    assert!(all.iter().all(|pod| pod["metadata"]["uid"].is_string()));

    // It leaves with nothing but what it has: everything of it is undone.
    let left = second.hactl(&["cluster", "leave"]);
    assert!(left.status.success(), "{}", text(&left.stderr));
    assert!(second.hactl_ends(), "{}", second.log("hactl"));
    assert!(!second.data_dir().exists());
    assert_eq!(second.containers("label=hactl.io/cluster"), Vec::<String>::new());
    assert!(!second.docker(&["network", "ls", "--format", "{{.Name}}"]).contains("-pods"));
    let gone = first.try_kubectl(&["get", "node", "b"]);
    assert!(text(&gone.stderr).contains("not found"), "{}", text(&gone.stderr));
    spread(&first, &[("host", 4)]);

    // It joins anew under its old name, is deleted by the administrator, and leaves all the same.
    second.join(&first, &[]);
    node_is(&first, "b", "True");
    first.kubectl(&["scale", "deployment/sample", "--replicas=8"]);
    spread(&first, &[("host", 4), ("b", 4)]);
    first.kubectl(&["delete", "node", "b"]);
    spread(&first, &[("host", 8)]);
    let left = second.hactl(&["cluster", "leave"]);
    assert!(left.status.success(), "{}", text(&left.stderr));
    assert!(!second.data_dir().exists());
    assert_eq!(second.containers("label=hactl.io/cluster"), Vec::<String>::new());
}

/// `kubectl logs -f` shows what is logged after it began.
fn logs_follow(on: &Machine, pod: &str, act: impl Fn()) {
    let mut follower = Command::new(kubectl_default())
        .args(["logs", "-f", pod])
        .env("KUBECONFIG", on.kubeconfig())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run kubectl");
    let (lines, found) = std::sync::mpsc::channel();
    let output = follower.stdout.take().expect("piped");
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    eventually("the log follows", || {
        act();
        match found.try_iter().find(|line| line.contains("/from-the-test")) {
            Some(_) => Ok(()),
            None => Err("no such line"),
        }
    });
    follower.kill().expect("kill kubectl");
    follower.wait().expect("kubectl ends");
    drop(found);
    reader.join().expect("the reader ends");
}

#[test]
fn three_machines_are_one_cluster_that_outlives_one() {
    let lan = Lan::new();
    let mut first = Machine::new(&lan, "a", 2);
    let mut second = Machine::new(&lan, "b", 3);
    let mut third = Machine::new(&lan, "c", 4);
    first.init(&lan);
    second.join(&first, &["--master"]);
    third.join(&first, &["--master"]);
    eventually("three masters vote", || {
        let status = first.hactl(&["cluster", "status", "-o", "json"]);
        let status: Value = serde_json::from_slice(&status.stdout).map_err(|_| text(&status.stderr))?;
        let members = status["members"].as_array().cloned().unwrap_or_default();
        let voters = members.iter().filter(|member| member["voter"] == true).count();
        if voters == 3 { Ok(()) } else { Err(status.to_string()) }
    });
    for machine in ["a", "b", "c"] {
        node_is(&second, machine, "True");
    }
    second.kubectl(&["create", "deployment", "web", "--image=hactl.local/sample:1", "--replicas=6"]);
    spread(&second, &[("a", 2), ("b", 2), ("c", 2)]);

    // The machine that began as leader dies; its pods run on the others, and kubectl goes on.
    first.die();
    let all = spread(&second, &[("b", 3), ("c", 3)]);
    third.kubectl(&["logs", &name(on(&all, "c"))]);
    third.kubectl(&["scale", "deployment/web", "--replicas=4"]);

    // It comes back: a master and a node again, with no pod but those it is given.
    first.come_back(&lan);
    node_is(&first, "a", "True");
    first.kubectl(&["scale", "deployment/web", "--replicas=6"]);
    spread(&first, &[("a", 2), ("b", 2), ("c", 2)]);
}
