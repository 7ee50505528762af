//! What every runtime must do, run against the hollow one and against Docker.

use std::time::Duration;

use futures::StreamExt;

use super::docker::Docker;
use super::hollow::Hollow;
use super::*;
use crate::images;

/// A subnet that parallel tests do not share, in a range for documentation and tests.
pub fn subnet(of: &str) -> ipnet::Ipv4Net {
    let digest = ring::digest::digest(&ring::digest::SHA256, of.as_bytes());
    let (a, b) = (digest.as_ref()[0], digest.as_ref()[1]);
    format!("198.{}.{a}.{}/28", 18 + (b & 1), b & 0xf0).parse().expect("a network")
}

fn labels(pod: &str, container: &str) -> BTreeMap<String, String> {
    [(label::POD_UID, pod), (label::CONTAINER, container), (label::ATTEMPT, "0")]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

async fn until(runtime: &dyn Runtime, id: &str, state: State) -> Container {
    let mut events = runtime.events().await.expect("events");
    loop {
        let all = runtime.list(None).await.expect("a list");
        if let Some(found) = all.into_iter().find(|c| c.id == id && c.state == state) {
            return found;
        }
        let next = tokio::time::timeout(Duration::from_secs(20), events.next()).await;
        assert!(next.is_ok_and(|event| event.is_some()), "{id} never became {state:?}");
    }
}

async fn contract(runtime: &dyn Runtime, hash: &str) {
    assert_eq!(runtime.list(None).await.expect("a list"), []);
    let sample = "hactl.local/sample:1";
    for image in [images::sandbox(), sample.to_owned()] {
        images::load(runtime, &image).await.expect("loaded");
        images::load(runtime, &image).await.expect("loaded again");
        assert!(runtime.image(&image).await.expect("an answer").is_some());
    }
    assert_eq!(runtime.image("hactl.local/none:1").await.expect("an answer"), None);
    assert!(runtime.pull("hactl.invalid/none:1", None).await.is_err());

    let bridge = crate::network::bridge(hash, hash, subnet(hash));
    runtime.ensure_bridge(&bridge).await.expect("a bridge");
    runtime.ensure_bridge(&bridge).await.expect("the same bridge");
    let address = Ipv4Addr::from(u32::from(bridge.subnet.network()) + 5);
    let sandbox = Spec {
        name: format!("{hash}_sandbox"),
        image: images::sandbox(),
        labels: labels("pod-a", label::SANDBOX),
        hostname: "pod-a".to_owned(),
        network: Network::Bridge { name: bridge.name.clone(), address },
        ..Spec::default()
    };
    let id = runtime.create(&sandbox).await.expect("created");
    assert!(matches!(runtime.create(&sandbox).await, Err(Error::Conflict(_))), "a name is taken once");
    let app = Spec {
        name: format!("{hash}_app"),
        image: sample.to_owned(),
        labels: labels("pod-a", "app"),
        network: Network::Of(id.clone()),
        memory: Some(64 << 20),
        cpu_shares: Some(100),
        ..Spec::default()
    };
    let app_id = runtime.create(&app).await.expect("created");
    assert!(runtime.start(&app_id).await.is_err(), "no network before the sandbox runs");
    runtime.remove(&app_id).await.expect("removed");
    let events = runtime.events().await.expect("events");
    runtime.start(&id).await.expect("started");
    runtime.start(&id).await.expect("started once more");
    // What happened just before may be told again.
    let told = events.filter(|event| futures::future::ready(event.action == "start"));
    let event = tokio::time::timeout(Duration::from_secs(10), Box::pin(told).next()).await;
    assert_eq!(event.expect("an event in time").expect("an event").pod_uid, "pod-a");
    let app_id = runtime.create(&app).await.expect("created anew");
    runtime.start(&app_id).await.expect("started");
    let seen = until(runtime, &app_id, State::Running).await;
    assert_eq!((seen.label(label::CONTAINER), seen.attempt()), ("app", 0));
    assert!(seen.started.is_some() && seen.finished.is_none());
    let used = runtime.usage(&[id.clone(), app_id.clone()]).await.expect("counted");
    assert!(used.len() == 2 && used.values().all(|used| used.memory_bytes > 0), "{used:?}");

    let second = Spec { name: format!("{hash}_second"), labels: labels("pod-b", label::SANDBOX), ..sandbox.clone() };
    let second_id = runtime.create(&second).await.expect("created");
    let refused = runtime.start(&second_id).await.expect_err("an address is used once");
    assert!(refused.to_string().contains("Address already in use"), "{refused}");
    assert!(!runtime.free_address(&bridge.name, address).await.expect("an answer"), "its holder runs");
    runtime.remove(&second_id).await.expect("removed");

    let missing = Spec { image: "hactl.local/none:1".to_owned(), name: format!("{hash}_missing"), ..app.clone() };
    assert!(matches!(runtime.create(&missing).await, Err(Error::NotFound(_))));
    assert_eq!(runtime.list(Some("pod-a")).await.expect("a list").len(), 2);
    assert_eq!(runtime.list(Some("pod-b")).await.expect("a list").len(), 0);

    runtime.signal(&app_id, "SIGTERM").await.expect("signalled");
    let ended = until(runtime, &app_id, State::Exited).await;
    assert_eq!(ended.exit_code, 0);
    assert_eq!(runtime.usage(std::slice::from_ref(&app_id)).await.expect("counted").len(), 0, "it has ended");
    runtime.signal(&app_id, "SIGTERM").await.expect("nothing to signal");
    runtime.signal(&id, "SIGKILL").await.expect("killed");
    assert_eq!(until(runtime, &id, State::Exited).await.exit_code, 137);
    for id in [&app_id, &id, &app_id] {
        runtime.remove(id).await.expect("removed");
    }
    runtime.signal(&id, "SIGKILL").await.expect("nothing to kill");
    assert_eq!(runtime.list(None).await.expect("a list"), []);
    runtime.remove_networks().await.expect("removed");
    let lost = match runtime.create(&sandbox).await {
        Ok(id) => {
            let started = runtime.start(&id).await.expect_err("there is no network");
            runtime.remove(&id).await.expect("removed");
            started
        }
        Err(error) => error,
    };
    assert!(matches!(&lost, Error::NotFound(message) if message.contains("network")), "{lost:?}");
}

#[tokio::test]
async fn hollow() {
    contract(&Hollow::new("c", "n"), "00000001").await;
}

#[tokio::test]
async fn docker() {
    let cluster = uuid::Uuid::new_v4().to_string();
    let docker = Docker::new("", &cluster, "contract");
    contract(&docker, &crate::podspec::short_hash(&cluster, "contract")).await;
    let logs = docker.logs("hactl-no-such-container", &LogQuery::default()).await;
    let first = logs.expect("a stream").next().await;
    assert!(matches!(first, Some(Err(Error::NotFound(_)))), "{first:?}");
}

#[tokio::test]
async fn an_engine_that_is_down_is_named_with_its_cure() {
    let docker = Docker::new("unix:///nonexistent/docker.sock", "c", "n");
    let Err(Error::Down(text)) = docker.list(None).await else { panic!("an engine where none is") };
    assert!(text.contains("/nonexistent/docker.sock") && text.contains("systemctl start docker"), "{text}");
}

#[tokio::test]
async fn a_pod_network_that_overlaps_is_refused_with_its_cure() {
    let clusters = [uuid::Uuid::new_v4().to_string(), uuid::Uuid::new_v4().to_string()];
    let engines = clusters.each_ref().map(|cluster| Docker::new("", cluster, "n"));
    let hashes = clusters.each_ref().map(|cluster| crate::podspec::short_hash(cluster, "n"));
    let shared = subnet(&clusters[0]);
    let bridge = |at: usize| crate::network::bridge(&clusters[at], &hashes[at], shared);
    engines[0].ensure_bridge(&bridge(0)).await.expect("the first");
    let refused = engines[1].ensure_bridge(&bridge(1)).await;
    let foreign = engines[1].ensure_bridge(&Bridge { name: bridge(0).name, ..bridge(1) }).await;
    for engine in &engines {
        engine.remove_networks().await.expect("removed");
    }
    let Err(Error::Refused(text)) = refused else { panic!("{refused:?}") };
    assert!(text.contains("overlaps") && text.contains("--cluster-cidr"), "{text}");
    assert!(matches!(foreign, Err(Error::Conflict(_))), "a network of another cluster is left alone: {foreign:?}");
}

/// Processes in the container's control group.
fn processes(id: &str) -> usize {
    let all = std::fs::read_dir("/proc").expect("/proc").flatten();
    let groups = all.filter_map(|entry| std::fs::read_to_string(entry.path().join("cgroup")).ok());
    groups.filter(|groups| groups.contains(id)).count()
}

#[tokio::test]
async fn a_command_that_times_out_is_ended() {
    let cluster = uuid::Uuid::new_v4().to_string();
    let docker = Docker::new("", &cluster, "n");
    images::load(&docker, &images::sandbox()).await.expect("loaded");
    let name = format!("{}_probed", crate::podspec::short_hash(&cluster, "n"));
    let spec = Spec { name, image: images::sandbox(), labels: labels("p", label::SANDBOX), ..Spec::default() };
    let id = docker.create(&spec).await.expect("created");
    docker.start(&id).await.expect("started");
    let refused = docker.exec(&id, &["/pause".to_owned()], Duration::from_secs(1)).await;
    let ended = async {
        while processes(&id) != 1 {
            tokio::task::yield_now().await;
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(20), ended).await;
    let alive = docker.list(None).await.expect("a list").first().map(|container| container.state);
    docker.remove(&id).await.expect("removed");
    assert!(matches!(&refused, Err(Error::Refused(text)) if text.contains("timed out")), "{refused:?}");
    assert!(ended.is_ok(), "the command runs on");
    assert_eq!(alive, Some(State::Running), "its container is left alone");
}

#[tokio::test]
async fn a_command_whose_streams_are_dropped_runs_until_it_is_ended() {
    let cluster = uuid::Uuid::new_v4().to_string();
    let docker = Docker::new("", &cluster, "n");
    images::load(&docker, &images::sandbox()).await.expect("loaded");
    let name = format!("{}_spoken_to", crate::podspec::short_hash(&cluster, "n"));
    let spec = Spec { name, image: images::sandbox(), labels: labels("p", label::SANDBOX), ..Spec::default() };
    let id = docker.create(&spec).await.expect("created");
    docker.start(&id).await.expect("started");
    let stdio = Stdio { stdin: true, stdout: true, ..Stdio::default() };
    let exec = docker.create_exec(&id, &["/pause".to_owned()], stdio).await.expect("prepared");
    drop(docker.start_exec(&exec, stdio).await.expect("started"));
    let until = |count: usize| {
        let id = id.clone();
        let reached = async move {
            while processes(&id) != count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), reached)
    };
    let ran = until(2).await;
    docker.end_exec(&id, &exec).await.expect("ended");
    let ended = until(1).await;
    let code = tokio::time::timeout(Duration::from_secs(20), docker.wait_exec(&exec)).await;
    docker.end_exec(&id, &exec).await.expect("nothing to end");
    docker.remove(&id).await.expect("removed");
    assert!(ran.is_ok(), "it runs on without its streams");
    assert!(ended.is_ok(), "and no longer once it was ended");
    assert_eq!(code.expect("it has ended"), Ok(137));
}
