//! Observers: what masters say of themselves (`/metrics`), where pods are, and, when all is quiet, everything that API and
//! engines show.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::StreamExt as _;
use http::Request;
use k8s_openapi::api::core::v1::Pod;
use kube::core::WatchEvent;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::clients::{Door, Doors, revision};
use super::history::{History, PodSeen, Rest, Seat, Shown};
use super::laws::pods::doubles as doubled;
use super::stage::Stage;
use super::targets::Target;
use super::workloads;

const LOOK_EVERY: Duration = Duration::from_millis(100);
const LOOK_AT_ENGINES_EVERY: Duration = Duration::from_secs(2);
const LOOK_LIMIT: Duration = Duration::from_millis(1000);
const LOOK_AGAIN: Duration = Duration::from_millis(300);
/// Labels by which containers on an engine are ours.
const CLUSTER_LABEL: &str = "hactl.io/cluster";
const POD_LABEL: &str = "hactl.io/pod-uid";
const CONTAINER_LABEL: &str = "hactl.io/container";
const SANDBOX: &str = "-sandbox-";
/// Groups whose objects stand in no store, or in another group too.
const OTHER_GROUPS: [&str; 2] = ["metrics.k8s.io", "events.k8s.io"];

/// Notes who leads, whenever that changes, until stopped.
pub async fn seats(door: Door, history: &History, stop: CancellationToken) {
    let mut last: Option<Seat> = None;
    let same =
        |one: &Seat, other: &Seat| (one.answers, one.leads, one.term) == (other.answers, other.leads, other.term);
    while !stop.is_cancelled() {
        let seat = seat(&door, history).await;
        // What changed is looked at twice: figures are set one after the other, and read so.
        if !last.as_ref().is_some_and(|last| same(last, &seat))
            && (!seat.leads || same(&seat, &self::seat(&door, history).await))
        {
            history.record().seats.push(seat.clone());
            last = Some(seat);
        }
        tokio::select! { () = tokio::time::sleep(LOOK_EVERY) => {}, () = stop.cancelled() => {} }
    }
}

async fn seat(door: &Door, history: &History) -> Seat {
    let text = door.text("/metrics", LOOK_LIMIT).await;
    let metric = |name: &str| {
        let text = text.as_deref().unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or_default()
    };
    Seat {
        at: history.now(),
        master: door.master.clone(),
        answers: text.is_ok(),
        leads: metric("hactl_raft_is_leader") > 0.5,
        term: metric("hactl_raft_term") as u64,
    }
}

/// Notes where each pod is, until stopped; every change of it is one sighting.
pub async fn pods(doors: Doors, namespace: String, history: &History, stop: CancellationToken) {
    let mut at = 0;
    let mut last = BTreeMap::new();
    while !stop.is_cancelled() {
        let door = &doors.0[at % doors.0.len()];
        at += 1;
        tokio::select! {
            _ = follow_pods(door, &namespace, history, &mut last) => {}
            () = stop.cancelled() => return,
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The last sighting of each pod, by uid.
type Sightings = BTreeMap<String, PodSeen>;

async fn follow_pods(door: &Door, namespace: &str, history: &History, last: &mut Sightings) -> Result<()> {
    let path = format!("/api/v1/namespaces/{namespace}/pods");
    let list = door.get(&path).await?;
    let pods: Vec<Pod> = serde_json::from_value(list["items"].clone())?;
    pods.into_iter().for_each(|pod| sighted(history, last, pod));
    let request = Request::get(format!("{path}?watch=1&resourceVersion={}", revision(&list))).body(Vec::new())?;
    let events = door.client().request_events::<Pod>(request).await?;
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        if let WatchEvent::Added(pod) | WatchEvent::Modified(pod) | WatchEvent::Deleted(pod) = event? {
            sighted(history, last, pod);
        }
    }
    Ok(())
}

fn sighted(history: &History, last: &mut Sightings, pod: Pod) {
    let node = pod.spec.and_then(|spec| spec.node_name).unwrap_or_default();
    let phase = pod.status.and_then(|status| status.phase).unwrap_or_default();
    let ending = pod.metadata.deletion_timestamp.is_some();
    let (uid, name) = (pod.metadata.uid.unwrap_or_default(), pod.metadata.name.unwrap_or_default());
    let seen = PodSeen { at: history.now(), uid, name, node, phase, ending };
    let known = |before: &PodSeen| (&before.node, &before.phase, before.ending) == (&seen.node, &seen.phase, ending);
    if !last.get(&seen.uid).is_some_and(known) {
        last.insert(seen.uid.clone(), seen.clone());
        history.record().pods.push(seen);
    }
}

/// Looks until all that must come to rest has, or until time is up; the laws judge what was seen last.
pub async fn rest(stage: &Stage, namespace: &str, within: Duration) -> Result<Rest> {
    let since = Instant::now();
    loop {
        let (quiet, looked) = match look(stage, namespace).await {
            Ok(rest) => {
                let (quiet, rest) = is_quiet(rest);
                (quiet, Ok(rest))
            }
            Err(error) => (false, Err(error)),
        };
        if quiet || since.elapsed() > within {
            return looked;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn is_quiet(rest: Rest) -> (bool, Rest) {
    let record = super::history::Record { rest, ..Default::default() };
    use super::laws::objects::judge as objects_are_well;
    use super::laws::rest::{no_orphans, replicas_are_reached, views_are_equal};
    let mut quiet = [views_are_equal, replicas_are_reached, no_orphans, objects_are_well].iter();
    (quiet.all(|law| law(&record).broken.is_empty()), record.rest)
}

async fn look(stage: &Stage, namespace: &str) -> Result<Rest> {
    let mut rest = Rest::default();
    let Some(door) = stage.doors.0.first() else { return Ok(rest) };
    // All masters are asked for one resource before any is asked for the next, so that their answers are of one moment.
    for (path, resource) in resources(door).await? {
        for (at, door) in stage.doors.0.iter().enumerate() {
            let list = door.get(&path).await.with_context(|| format!("{} does not list {path}", door.master))?;
            let view = rest.views.entry(door.master.clone()).or_default();
            for item in list["items"].as_array().map(Vec::as_slice).unwrap_or_default() {
                let meta = &item["metadata"];
                let name = format!("{path} {}/{}", text(&meta["namespace"]), text(&meta["name"]));
                view.insert(name, format!("{}@{}", text(&meta["uid"]), text(&meta["resourceVersion"])));
                if at == 0 {
                    rest.objects.push(shown(&resource, item));
                }
            }
        }
    }
    let pods = door.get("/api/v1/pods").await?;
    let pods = pods["items"].as_array().cloned().unwrap_or_default();
    let nodes = stage.target.nodes().len();
    let deployments = door.get(&format!("/apis/apps/v1/namespaces/{namespace}/deployments")).await?;
    for deployment in deployments["items"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let name = text(&deployment["metadata"]["name"]);
        let wanted = deployment["spec"]["replicas"].as_u64().unwrap_or(1);
        let template = &deployment["spec"]["template"]["metadata"]["labels"][workloads::TEMPLATE];
        let own = |pod: &&Value| {
            let labels = &pod["metadata"]["labels"];
            text(&pod["metadata"]["namespace"]) == namespace && text(&labels["app"]) == name
        };
        let right = |pod: &&Value| &pod["metadata"]["labels"][workloads::TEMPLATE] == template;
        let there = pods.iter().filter(own).count() as u64;
        let good = pods.iter().filter(own).filter(right).filter(|pod| nodes == 0 || is_ready(pod)).count() as u64;
        // One too many, or one of another template, is as wrong as one that is missing.
        rest.replicas.insert(name.to_owned(), (wanted, if there == wanted { good } else { there }));
    }
    for pod in pods.iter().filter(|pod| text(&pod["status"]["phase"]) == "Running") {
        rest.pods.insert(text(&pod["metadata"]["uid"]).to_owned(), text(&pod["metadata"]["name"]).to_owned());
    }
    containers(stage, &mut rest).await?;
    Ok(rest)
}

/// Path and plural of every resource that can be listed, by discovery.
async fn resources(door: &Door) -> Result<Vec<(String, String)>> {
    let mut bases = vec!["/api/v1".to_owned()];
    for group in door.get("/apis").await?["groups"].as_array().map(Vec::as_slice).unwrap_or_default() {
        if !OTHER_GROUPS.contains(&text(&group["name"])) {
            bases.push(format!("/apis/{}", text(&group["preferredVersion"]["groupVersion"])));
        }
    }
    let mut all = Vec::new();
    for base in bases {
        for resource in door.get(&base).await?["resources"].as_array().map(Vec::as_slice).unwrap_or_default() {
            let verbs = resource["verbs"].as_array().map(Vec::as_slice).unwrap_or_default();
            if verbs.iter().any(|verb| verb == "list") {
                let name = text(&resource["name"]);
                all.push((format!("{base}/{name}"), name.to_owned()));
            }
        }
    }
    Ok(all)
}

fn shown(resource: &str, item: &Value) -> Shown {
    let (meta, spec) = (&item["metadata"], &item["spec"]);
    let all = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut claims = Vec::new();
    match resource {
        "nodes" if !text(&spec["podCIDR"]).is_empty() => {
            claims.push(format!("the pod range {}", text(&spec["podCIDR"])));
        }
        "services" => {
            let ip = text(&spec["clusterIP"]);
            if !matches!(ip, "" | "None") {
                claims.push(format!("the ClusterIP {ip}"));
            }
            for port in all(&spec["ports"]).iter().filter(|port| port["nodePort"].is_number()) {
                claims.push(format!("the node port {}/{}", text(&port["protocol"]), port["nodePort"]));
            }
        }
        _ => {}
    }
    Shown {
        resource: resource.to_owned(),
        namespace: text(&meta["namespace"]).to_owned(),
        name: text(&meta["name"]).to_owned(),
        uid: text(&meta["uid"]).to_owned(),
        owners: all(&meta["ownerReferences"]).iter().map(|owner| text(&owner["uid"]).to_owned()).collect(),
        node: if resource == "pods" { text(&spec["nodeName"]).to_owned() } else { String::new() },
        claims,
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn is_ready(pod: &Value) -> bool {
    let all = pod["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
}

async fn containers(stage: &Stage, rest: &mut Rest) -> Result<()> {
    if stage.target.nodes().is_empty() {
        return Ok(());
    }
    let cluster = cluster_id(&*stage.target).await?;
    if let Some(containers) = running(&*stage.target, &cluster).await? {
        (rest.engines, rest.containers) = (true, containers);
    }
    Ok(())
}

async fn cluster_id(target: &dyn Target) -> Result<String> {
    let status: Value = serde_json::from_str(&target.hactl(&["cluster", "status", "-o", "json"]).await?)?;
    Ok(text(&status["clusterId"]).to_owned())
}

/// Living containers of this cluster: pod uid and name.
async fn running(target: &dyn Target, cluster: &str) -> Result<Option<Vec<(String, String)>>> {
    let filter = format!("label={CLUSTER_LABEL}={cluster}");
    let format = format!("{{{{.Label \"{POD_LABEL}\"}}}} {{{{.Label \"{CONTAINER_LABEL}\"}}}}");
    let lines = target.engines(&["ps", "--filter", &filter, "--format", &format]).await?;
    Ok(lines.map(|lines| lines.lines().filter_map(container).collect()))
}

/// Looks again and again for what runs twice, until stopped. An engine that is down shows nothing.
pub async fn doubles(target: Arc<dyn Target>, history: &History, stop: CancellationToken) {
    let mut cluster = None;
    while !stop.is_cancelled() {
        if cluster.is_none() {
            cluster = cluster_id(&*target).await.ok();
        }
        if let Some(cluster) = &cluster
            && let Ok(Some(containers)) = running(&*target, cluster).await
        {
            let found = doubled(&containers);
            let mut record = history.record();
            // Where nothing runs there is nothing to judge.
            record.looks += usize::from(!containers.is_empty());
            record.doubles.extend(found);
        }
        tokio::select! { () = tokio::time::sleep(LOOK_AT_ENGINES_EVERY) => {}, () = stop.cancelled() => {} }
    }
}

fn container(line: &str) -> Option<(String, String)> {
    let (uid, name) = line.trim().split_once(' ')?;
    Some((uid.to_owned(), if name == SANDBOX { String::new() } else { name.to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_objects_claim() {
        let service = serde_json::json!({
            "metadata": { "name": "a", "namespace": "d", "uid": "u", "ownerReferences": [{ "uid": "o" }] },
            "spec": { "clusterIP": "10.0.0.1", "ports": [{ "port": 1 }, { "protocol": "TCP", "nodePort": 30000 }] },
        });
        let one = shown("services", &service);
        assert_eq!(one.claims, ["the ClusterIP 10.0.0.1", "the node port TCP/30000"]);
        assert_eq!((one.name().as_str(), one.uid.as_str(), one.owners[0].as_str()), ("services d/a", "u", "o"));
        let headless = serde_json::json!({ "spec": { "clusterIP": "None" } });
        assert_eq!(shown("services", &headless).claims, Vec::<String>::new());
        let node = serde_json::json!({ "spec": { "podCIDR": "10.1.0.0/24" } });
        assert_eq!(shown("nodes", &node).claims, ["the pod range 10.1.0.0/24"]);
    }

    #[test]
    fn lines_of_docker_ps() {
        assert_eq!(container("u-1 -sandbox-"), Some(("u-1".into(), String::new())));
        assert_eq!(container("u-1 web"), Some(("u-1".into(), "web".into())));
        assert_eq!(container(""), None);
    }
}
