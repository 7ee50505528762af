//! Whole pods: assignments go in, containers and statuses come out; on the hollow runtime and on Docker.

use std::sync::Arc;

use rpc::pb::write::Write as W;
use serde_json::{Value, json};

use super::*;
use crate::runtime::docker::Docker;
use crate::runtime::hollow::Hollow;
use crate::runtime::{Bridge, Runtime, State};
use crate::saved::Saved;
use crate::shared::Parts;

struct Node {
    shared: Arc<Shared>,
    assignments: mpsc::Sender<pb::Assignment>,
    revision: u64,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<()>,
    _bridge: watch::Sender<Result<Bridge, String>>,
    _dir: Option<tempfile::TempDir>,
}

async fn start(
    runtime: Arc<dyn Runtime>,
    hash: &str,
    bridge: Bridge,
    dir: &std::path::Path,
    saved: Saved,
    hold: Duration,
) -> Node {
    let (bridge_made, bridge_seen) = watch::channel(Ok(bridge));
    let shared = Arc::new(Shared::new(Parts {
        runtime,
        data_dir: dir.to_owned(),
        hash: hash.to_owned(),
        node_name: "node-1".to_owned(),
        host_ip: "192.0.2.1".to_owned(),
        cpu_millis: 2000,
        memory_bytes: 1 << 30,
        bridge: bridge_seen,
        saved,
    }));
    let (assignments, assigned) = mpsc::channel(4);
    let stop = CancellationToken::new();
    let pods = Pods::new(shared.clone(), watch::channel(String::new()).0, watch::channel(String::new()).0);
    let alive = adopt(&shared, &shared.runtime.list(None).await.expect("a list"));
    let running = tokio::spawn(pods.run(assigned, alive, hold, stop.clone()));
    Node { shared, assignments, revision: 10, stop, running, _bridge: bridge_made, _dir: None }
}

fn assigned(resource: &str, revision: u64, object: &Value) -> pb::AssignedObject {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    pb::AssignedObject {
        name: Some(pb::ObjectName {
            resource: resource.to_owned(),
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
            uid: text("/metadata/uid"),
        }),
        revision,
        json: object.to_string().into(),
    }
}

fn pod(uid: &str, spec: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": format!("pod-{uid}"), "namespace": "default", "uid": uid, "generation": 1 }, "spec": spec })
}

fn sample() -> Value {
    json!({ "terminationGracePeriodSeconds": 5, "containers": [{ "name": "web", "image": "hactl.local/sample:1" }] })
}

impl Node {
    async fn assign(&mut self, full: bool, objects: &[(&str, &Value)]) {
        self.revision += 1;
        let objects = objects.iter().map(|(resource, object)| assigned(resource, self.revision, object)).collect();
        let assignment = pb::Assignment { epoch: 1, revision: self.revision, full, objects, ..Default::default() };
        self.assignments.send(assignment).await.expect("the node runs");
    }

    /// Reads what goes up until a write fits.
    async fn until<T>(&self, what: &str, mut fits: impl FnMut(&W) -> Option<T>) -> T {
        let mut seen = Vec::new();
        let search = async {
            loop {
                while let Some((_, write)) = self.shared.outbox.take(&BTreeSet::new()) {
                    if let Some(found) = fits(&write) {
                        return found;
                    }
                    seen.push(format!("{write:?}"));
                }
                self.shared.outbox.changed().await;
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(60), search).await;
        found.unwrap_or_else(|_| panic!("never saw {what}, only:\n{}", seen.join("\n")))
    }

    async fn status(&self, uid: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.until(what, |write| match write {
            W::PodStatus(status) if status.uid == uid => {
                let status: Value = serde_json::from_slice(&status.status_json).expect("a status");
                fits(&status).then_some(status)
            }
            _ => None,
        })
        .await
    }

    async fn ready(&self, uid: &str) -> Value {
        self.status(uid, "a ready pod", |status| condition(status, "Ready") == "True").await
    }

    async fn gone(&self, uid: &str) {
        self.until("the pod's end", |write| matches!(write, W::PodGone(gone) if gone.uid == uid).then_some(())).await;
    }

    async fn stop(self) -> Saved {
        self.stop.cancel();
        self.running.await.expect("the node ends");
        self.shared.to_save()
    }
}

fn condition(status: &Value, kind: &str) -> String {
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().find(|c| c["type"] == kind).and_then(|c| c["status"].as_str()).unwrap_or_default().to_owned()
}

fn hollow() -> (Arc<Hollow>, Bridge) {
    let bridge = crate::network::bridge("c", "0000000a", "10.9.0.0/24".parse().expect("a network"));
    (Arc::new(Hollow::new("c", "n")), bridge)
}

async fn hollow_node(dir: &tempfile::TempDir, saved: Saved, hold: Duration) -> (Arc<Hollow>, Node) {
    let (runtime, bridge) = hollow();
    runtime.ensure_bridge(&bridge).await.expect("a bridge");
    (runtime.clone(), start(runtime, "0000000a", bridge, dir.path(), saved, hold).await)
}

#[tokio::test]
async fn a_pod_lives_and_dies() {
    let dir = tempfile::tempdir().expect("a directory");
    let (runtime, mut node) = hollow_node(&dir, Saved::default(), Duration::ZERO).await;
    let mut one = pod("a", sample());
    node.assign(true, &[("pods", &one)]).await;
    let status = node.ready("a").await;
    assert_eq!((&status["phase"], &status["podIP"]), (&json!("Running"), &json!("10.9.0.2")));
    let id = status["containerStatuses"][0]["containerID"]
        .as_str()
        .expect("an id")
        .trim_start_matches("docker://")
        .to_owned();

    runtime.end(&id, 3);
    let status = node
        .status("a", "a restart", |s| s["containerStatuses"][0]["restartCount"] == 1 && condition(s, "Ready") == "True")
        .await;
    assert_eq!(status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 3);

    // Absence from a change is nothing; an older assignment is nothing.
    node.assign(false, &[]).await;
    let older = pb::Assignment { epoch: 1, revision: 3, full: true, ..Default::default() };
    node.assignments.send(older).await.expect("sent");
    one["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    one["metadata"]["deletionGracePeriodSeconds"] = json!(5);
    assert_eq!(runtime.list(None).await.expect("a list").len(), 3);
    node.assign(false, &[("pods", &one)]).await;
    node.gone("a").await;
    assert_eq!(runtime.list(None).await.expect("a list").len(), 0);
    node.stop().await;
}

#[tokio::test]
async fn only_a_full_assignment_stops_by_absence() {
    let dir = tempfile::tempdir().expect("a directory");
    let (runtime, mut node) = hollow_node(&dir, Saved::default(), Duration::ZERO).await;
    node.assign(true, &[("pods", &pod("a", sample())), ("pods", &pod("b", sample()))]).await;
    node.ready("a").await;
    let mut events = runtime.events().await.expect("events");
    node.assign(true, &[("pods", &pod("b", sample()))]).await;
    while runtime.list(Some("a")).await.expect("a list").iter().any(|_| true) {
        events.next().await.expect("an event");
    }
    while node.shared.record("a").address.is_some() {
        tokio::task::yield_now().await;
    }
    assert_eq!(node.stop().await.objects.len(), 1);
}

#[tokio::test]
async fn a_restarted_kubelet_adopts_and_a_rebooted_one_starts_from_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let (runtime, mut node) = hollow_node(&dir, Saved::default(), Duration::ZERO).await;
    let never = json!({ "restartPolicy": "Never", "containers": [{ "name": "web", "image": "hactl.local/sample:1" }] });
    node.assign(true, &[("pods", &pod("a", sample())), ("pods", &pod("b", never))]).await;
    node.ready("a").await;
    let running = node.status("b", "b running", |s| s["phase"] == "Running").await;
    let id = running["containerStatuses"][0]["containerID"]
        .as_str()
        .expect("an id")
        .trim_start_matches("docker://")
        .to_owned();
    runtime.end(&id, 0);
    node.status("b", "b's success", |s| s["phase"] == "Succeeded").await;
    let ids = |containers: Vec<Container>| {
        containers.into_iter().map(|c| (c.id, c.state == State::Running)).collect::<BTreeSet<_>>()
    };
    let before = ids(runtime.list(Some("a")).await.expect("a list"));
    let saved = node.stop().await;

    let (_, bridge) = hollow();
    let node = start(runtime.clone(), "0000000a", bridge.clone(), dir.path(), saved, Duration::from_secs(3600)).await;
    let again = node.ready("a").await;
    assert_eq!(again["podIP"], "10.9.0.2");
    assert_eq!(ids(runtime.list(Some("a")).await.expect("a list")), before);
    let saved = node.stop().await;

    // The machine went down: an empty engine, no master, the saved assignment.
    let (runtime, node) = {
        let (runtime, bridge) = hollow();
        runtime.ensure_bridge(&bridge).await.expect("a bridge");
        (runtime.clone(), start(runtime, "0000000a", bridge, dir.path(), saved, Duration::from_millis(50)).await)
    };
    let status = node.ready("a").await;
    assert_eq!(status["podIP"], "10.9.0.2");
    assert!(runtime.list(Some("b")).await.expect("a list").is_empty(), "a finished pod never starts again");
    node.stop().await;
}

#[tokio::test]
async fn what_is_missing_is_said_and_found_later() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_, mut node) = hollow_node(&dir, Saved::default(), Duration::ZERO).await;
    let spec = json!({ "containers": [{ "name": "web", "image": "hactl.local/sample:1",
        "env": [{ "name": "A", "valueFrom": { "configMapKeyRef": { "name": "settings", "key": "a" } } }] }] });
    let absent = json!({ "containers": [{ "name": "web", "image": "registry.invalid/none:1" }] });
    node.assign(true, &[("pods", &pod("a", spec)), ("pods", &pod("b", absent))]).await;
    let waiting =
        |reason: &'static str| move |s: &Value| s["containerStatuses"][0]["state"]["waiting"]["reason"] == reason;
    let status = node.status("a", "the missing ConfigMap", waiting("CreateContainerConfigError")).await;
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["message"], "configmap \"settings\" not found");
    let settings =
        json!({ "metadata": { "name": "settings", "namespace": "default", "uid": "s" }, "data": { "a": "1" } });
    node.assign(false, &[("configmaps", &settings)]).await;
    node.ready("a").await;
    node.stop().await;
}

#[tokio::test]
async fn a_missing_image_backs_off() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_, mut node) = hollow_node(&dir, Saved::default(), Duration::ZERO).await;
    let absent = json!({ "containers": [{ "name": "web", "image": "registry.invalid/none:1" }] });
    node.assign(true, &[("pods", &pod("b", absent))]).await;
    let waiting =
        |reason: &'static str| move |s: &Value| s["containerStatuses"][0]["state"]["waiting"]["reason"] == reason;
    node.status("b", "the failed pull", waiting("ErrImagePull")).await;
    node.status("b", "the back-off", waiting("ImagePullBackOff")).await;
    node.stop().await;
}

/// A real pod: two containers on one address, volumes, probes, a hostPort-free request over the bridge, a kill, a deletion.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_docker() {
    let cluster = uuid::Uuid::new_v4().to_string();
    let hash = crate::podspec::short_hash(&cluster, "n");
    let runtime = Arc::new(Docker::new("", &cluster, "n"));
    let bridge = crate::network::bridge(&cluster, &hash, crate::runtime::contract::subnet(&hash));
    runtime.ensure_bridge(&bridge).await.expect("a bridge");
    let dir = tempfile::tempdir().expect("a directory");
    let mut node = start(runtime.clone(), &hash, bridge.clone(), dir.path(), Saved::default(), Duration::ZERO).await;
    let mut both = pod(
        "d0c",
        json!({
            "terminationGracePeriodSeconds": 10,
            "containers": [
                { "name": "web", "image": "hactl.local/sample:1",
                  "readinessProbe": { "httpGet": { "path": "/healthz", "port": 8080 }, "periodSeconds": 1 },
                  "livenessProbe": { "tcpSocket": { "port": 8080 }, "periodSeconds": 1 },
                  "volumeMounts": [{ "name": "conf", "mountPath": "/conf" }, { "name": "keys", "mountPath": "/keys" },
                                   { "name": "data", "mountPath": "/data" }] },
                { "name": "side", "image": "hactl.local/sample:2", "env": [{ "name": "PORT", "value": "9090" }],
                  "resources": { "limits": { "cpu": "100m", "memory": "32Mi" } } },
            ],
            "volumes": [{ "name": "conf", "configMap": { "name": "settings" } }, { "name": "keys", "secret": { "secretName": "keys" } },
                        { "name": "data", "emptyDir": {} }],
        }),
    );
    let settings =
        json!({ "metadata": { "name": "settings", "namespace": "default", "uid": "s" }, "data": { "a": "1" } });
    let keys =
        json!({ "metadata": { "name": "keys", "namespace": "default", "uid": "k" }, "data": { "key": "czNjcmV0" } });
    node.assign(true, &[("pods", &both), ("configmaps", &settings), ("secrets", &keys)]).await;
    let status = node.ready("d0c").await;
    let ip = status["podIP"].as_str().expect("an address").to_owned();
    assert_eq!(status["qosClass"], "Burstable");
    assert_eq!(page(&ip, 8080).await, "hactl sample, version 1, pod pod-d0c\n");
    assert_eq!(page(&ip, 9090).await, "hactl sample, version 2, pod pod-d0c\n");

    // Its secret lies in memory only.
    let volumes = dir.path().join("kubelet/pods/d0c/volumes");
    assert_eq!(std::fs::read_to_string(volumes.join("keys/key")).expect("the secret"), "s3cret");
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    assert!(mounts.lines().any(|line| line.starts_with("tmpfs") && line.contains("d0c/volumes/keys")), "{mounts}");

    // A killed app container is restarted in place; the other one and the address stay.
    let all = runtime.list(None).await.expect("a list");
    let web = all.iter().find(|c| c.label(label::CONTAINER) == "web").expect("web");
    let side = all.iter().find(|c| c.label(label::CONTAINER) == "side").expect("side");
    runtime.signal(&web.id, "SIGKILL").await.expect("killed");
    let restarted = |s: &Value| s["containerStatuses"][0]["restartCount"] == 1 && condition(s, "Ready") == "True";
    let status = node.status("d0c", "the restart", restarted).await;
    assert_eq!(status["podIP"], ip.as_str());
    assert_eq!(status["containerStatuses"][1]["containerID"], format!("docker://{}", side.id));

    // Another kubelet takes over without touching anything.
    let ids = |all: Vec<Container>| all.into_iter().map(|c| (c.id, c.started)).collect::<BTreeSet<_>>();
    let before = ids(runtime.list(None).await.expect("a list"));
    let saved = node.stop().await;
    let mut node = start(runtime.clone(), &hash, bridge, dir.path(), saved, Duration::ZERO).await;
    node.revision = 100;
    both["metadata"]["labels"] = json!({ "seen": "again" });
    node.assign(true, &[("pods", &both), ("configmaps", &settings), ("secrets", &keys)]).await;
    node.ready("d0c").await;
    assert_eq!(ids(runtime.list(None).await.expect("a list")), before);

    let log = runtime
        .list(Some("d0c"))
        .await
        .expect("a list")
        .into_iter()
        .find(|c| c.label(label::CONTAINER) == "side")
        .expect("side");
    let query = crate::runtime::LogQuery { tail: Some(1), ..Default::default() };
    let parts: Vec<_> = runtime.logs(&log.id, &query).await.expect("logs").collect().await;
    let text: Vec<u8> = parts.into_iter().flat_map(|part| part.expect("a part").to_vec()).collect();
    assert!(String::from_utf8_lossy(&text).contains("GET / 200"), "{text:?}");

    both["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    both["metadata"]["deletionGracePeriodSeconds"] = json!(10);
    let asked = std::time::Instant::now();
    node.assign(false, &[("pods", &both)]).await;
    node.gone("d0c").await;
    tracing::info!(took = ?asked.elapsed(), "deleted");
    assert!(runtime.list(None).await.expect("a list").is_empty());
    assert!(!dir.path().join("kubelet/pods/d0c").exists());
    node.stop().await;
    crate::teardown("", &cluster, "n", dir.path()).await.expect("nothing stays");
}

async fn page(ip: &str, port: u16) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = loop {
        // The side container has no probe: it may still be starting.
        match tokio::net::TcpStream::connect((ip, port)).await {
            Ok(stream) => break stream,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    stream.write_all(b"GET / HTTP/1.1\r\nHost: pod\r\n\r\n").await.expect("asked");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("an answer");
    text.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn nothing_is_made_before_the_hold_ends() {
    let dir = tempfile::tempdir().expect("a directory");
    let object = pod("a", sample());
    let mut objects = Objects::new();
    let assignment = pb::Assignment { full: true, objects: vec![assigned("pods", 1, &object)], ..Default::default() };
    take_over(&mut objects, assignment);
    let saved = Saved { objects: objects.into_values().collect(), ..Saved::default() };
    let (runtime, mut node) = hollow_node(&dir, saved, Duration::from_secs(3600)).await;
    // The master's word comes first: the pod is not assigned any more.
    node.assign(true, &[("pods", &pod("b", sample()))]).await;
    node.ready("b").await;
    let all = runtime.list(None).await.expect("a list");
    assert!(all.iter().all(|c| c.label(label::POD_UID) == "b" && c.state == State::Running));
    node.stop().await;
}

#[tokio::test]
async fn an_engine_that_hangs_holds_up_no_assignment() {
    let dir = tempfile::tempdir().expect("dir");
    let (runtime, mut node) = hollow_node(&dir, Saved::default(), RETURN_WAIT).await;
    node.assign(true, &[("pods", &pod("a", sample()))]).await;
    node.ready("a").await;
    runtime.hang(true);
    let taken = async {
        // More than any queue holds; each asks for a look at what else runs.
        for _ in 0..50 {
            node.assign(true, &[("pods", &pod("a", sample())), ("pods", &pod("b", sample()))]).await;
        }
        while node.shared.position() != (1, node.revision) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), taken).await.expect("assignments are taken over");
    runtime.hang(false);
    node.ready("b").await;
    node.stop().await;
}

#[tokio::test]
async fn an_address_that_something_else_uses_is_left_to_it() {
    let dir = tempfile::tempdir().expect("dir");
    let (runtime, mut node) = hollow_node(&dir, Saved::default(), RETURN_WAIT).await;
    crate::images::load(runtime.as_ref(), "hactl.local/sample:1").await.expect("loaded");
    let stranger = crate::runtime::Spec {
        name: "stranger".to_owned(),
        image: "hactl.local/sample:1".to_owned(),
        // Known to be ours, so that nobody removes it as an orphan.
        labels: BTreeMap::from([(label::POD_UID.to_owned(), "s".to_owned())]),
        network: crate::runtime::Network::Bridge {
            name: hollow().1.name,
            address: std::net::Ipv4Addr::new(10, 9, 0, 2),
        },
        ..Default::default()
    };
    let id = runtime.create(&stranger).await.expect("created");
    runtime.start(&id).await.expect("started");
    node.assign(false, &[("pods", &pod("a", sample()))]).await;
    let status = node.ready("a").await;
    assert_eq!(status["podIP"], "10.9.0.3");
    node.stop().await;
}

#[tokio::test]
async fn a_container_removed_by_hand_is_made_again_and_counted() {
    let dir = tempfile::tempdir().expect("dir");
    let (runtime, mut node) = hollow_node(&dir, Saved::default(), RETURN_WAIT).await;
    node.assign(true, &[("pods", &pod("a", sample()))]).await;
    node.ready("a").await;
    for container in runtime.list(None).await.expect("a list") {
        runtime.remove(&container.id).await.expect("removed");
    }
    let restarted =
        |status: &Value| status["containerStatuses"][0]["restartCount"] == 1 && condition(status, "Ready") == "True";
    let status = node.status("a", "a restart", restarted).await;
    assert_eq!(status["phase"], "Running");
    let saved = node.stop().await;
    assert_eq!(saved.pods["a"].attempts["web"], 1, "a restarted kubelet goes on counting");
}

#[tokio::test]
async fn a_bridge_removed_by_hand_is_asked_for() {
    let dir = tempfile::tempdir().expect("dir");
    let (runtime, mut node) = hollow_node(&dir, Saved::default(), RETURN_WAIT).await;
    runtime.remove_networks().await.expect("removed");
    node.assign(true, &[("pods", &pod("a", sample()))]).await;
    let asked = tokio::time::timeout(Duration::from_secs(60), node.shared.bridge_missed.notified()).await;
    asked.expect("the bridge is missed");
    runtime.ensure_bridge(&hollow().1).await.expect("made again");
    node.ready("a").await;
    node.stop().await;
}
