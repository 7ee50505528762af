//! `metrics.k8s.io`: what nodes told, as objects.

use std::time::Duration;

use apiserver::{Limits, NodeUsage, PodUsage, UsageQuery, Usages, Used};

use super::*;

const NODES: &str = "/apis/metrics.k8s.io/v1beta1/nodes";
const PODS: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods";
const ALL_PODS: &str = "/apis/metrics.k8s.io/v1beta1/pods";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

struct Told(Vec<NodeUsage>);

#[async_trait::async_trait]
impl Usages for Told {
    async fn usages(&self, _: &UsageQuery) -> Vec<NodeUsage> {
        self.0.clone()
    }
}

fn used(cpu_nanos: u64, memory_bytes: u64) -> Used {
    Used { cpu_nanos, memory_bytes }
}

/// A node `n` with pods `a` and `b`, of which it told, and of a pod and a node that are not there any more.
async fn told() -> Api {
    let api = Api::new().await;
    let node = api.post("/api/v1/nodes", json!({"metadata": {"name": "n", "labels": {"zone": "x"}}})).await;
    assert_eq!(node.status, StatusCode::CREATED, "{}", node.text);
    let mut pods = Vec::new();
    for (name, tier, cpu) in [("b", "front", 250_000_000), ("a", "back", 1_000_001)] {
        let pod = json!({
            "metadata": {"name": name, "labels": {"tier": tier}},
            "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "i"}]},
        });
        let made = api.post("/api/v1/namespaces/default/pods", pod).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
        let containers = vec![("c".to_owned(), used(cpu, 5 << 20)), ("d".to_owned(), used(0, 4096))];
        pods.push(pod_usage(name, made.body["metadata"]["uid"].as_str().expect("a uid"), containers));
    }
    // Its place was taken by one of the same name.
    pods.push(pod_usage("a", "gone", Vec::new()));
    pods.push(pod_usage("never", "u", Vec::new()));
    let taken = "2025-12-31T23:59:50.5Z".parse().expect("a time");
    let window = Duration::from_millis(15_002);
    let uid = node.body["metadata"]["uid"].as_str().expect("a uid").to_owned();
    let n = NodeUsage { node: "n".into(), uid, taken, window, used: used(1_500_000_000, 3 << 30), pods };
    let gone = NodeUsage { node: "gone".into(), uid: "u".into(), pods: Vec::new(), ..n.clone() };
    Api::telling(api.replica, Limits::default(), Arc::new(Told(vec![gone, n])))
}

fn pod_usage(name: &str, uid: &str, containers: Vec<(String, Used)>) -> PodUsage {
    PodUsage { namespace: "default".into(), name: name.into(), uid: uid.into(), containers }
}

fn names(answer: &Answer) -> Vec<&str> {
    let items = answer.body["items"].as_array().expect("a list");
    items.iter().filter_map(|item| item["metadata"]["name"].as_str()).collect()
}

#[tokio::test]
async fn what_is_told_of_nodes_and_pods_that_are_there() {
    let api = told().await;
    let nodes = api.get(NODES).await;
    assert_eq!(
        nodes.body,
        json!({
            "kind": "NodeMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {},
            "items": [{
                "metadata": {"name": "n", "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"zone": "x"}},
                "timestamp": "2025-12-31T23:59:50Z", "window": "15.002s",
                "usage": {"cpu": "1500m", "memory": "3Gi"},
            }],
        }),
        "{}",
        nodes.text
    );
    let pod = api.get(&format!("{PODS}/a")).await;
    assert_eq!((&pod.body["kind"], &pod.body["metadata"]["namespace"]), (&json!("PodMetrics"), &json!("default")));
    assert_eq!(
        pod.body["containers"],
        json!([
            {"name": "c", "usage": {"cpu": "1000001n", "memory": "5Mi"}},
            {"name": "d", "usage": {"cpu": "0", "memory": "4Ki"}},
        ])
    );
    assert_eq!(names(&api.get(ALL_PODS).await), ["a", "b"]);
    for (query, want) in [
        ("labelSelector=tier%3Dfront", vec!["b"]),
        ("labelSelector=tier", vec!["a", "b"]),
        ("fieldSelector=metadata.name%3Da", vec!["a"]),
        ("labelSelector=tier%3Dnone", vec![]),
    ] {
        assert_eq!(names(&api.get(&format!("{PODS}?{query}")).await), want, "{query}");
    }
    assert_eq!(names(&api.get(&ALL_PODS.replace("/pods", "/namespaces/other/pods")).await), [""; 0]);
    let table = api.send("GET", PODS, &[("accept", TABLE)], Vec::new()).await;
    let cells: Vec<&Value> = table.body["rows"].as_array().expect("rows").iter().map(|row| &row["cells"]).collect();
    assert_eq!(cells, [&json!(["a", "1000001n", "5124Ki", "15.002s"]), &json!(["b", "250m", "5124Ki", "15.002s"])]);
    assert_eq!(table.body["rows"][0]["object"]["metadata"]["namespace"], "default");
}

#[tokio::test]
async fn what_is_not_there_or_not_allowed_is_refused() {
    let mut api = told().await;
    for (method, path, code) in [
        ("GET", format!("{NODES}/gone"), 404),
        ("GET", format!("{PODS}/never"), 404),
        ("GET", NODES.replace("nodes", "services"), 404),
        ("GET", NODES.replace("v1beta1", "v1"), 404),
        ("GET", format!("{NODES}?watch=true"), 405),
        ("POST", PODS.to_owned(), 405),
        ("DELETE", NODES.to_owned(), 405),
        ("GET", format!("{PODS}?labelSelector=%3D"), 400),
    ] {
        let answer = api.send(method, &path, &[], Vec::new()).await;
        assert_eq!(answer.status.as_u16(), code, "{method} {path}: {}", answer.text);
    }
    let missing = api.get(&format!("{PODS}/never")).await;
    assert_eq!(missing.body["message"], "pods.metrics.k8s.io \"never\" not found");
    api.user = Some(User::authenticated("someone", Vec::new()));
    assert_eq!(api.get(NODES).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn discovery_names_the_group_in_both_forms() {
    const V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let api = Api::new().await;
    let has = |list: &Value, at: &str| {
        list.as_array().is_some_and(|all| all.iter().any(|one| *one.pointer(at).expect("named") == "metrics.k8s.io"))
    };
    let groups = api.get("/apis").await;
    assert!(has(&groups.body["groups"], "/name"), "{}", groups.text);
    let aggregated = api.send("GET", "/apis", &[("accept", V2)], Vec::new()).await;
    assert!(has(&aggregated.body["items"], "/metadata/name"), "{}", aggregated.text);
    let resources = api.get("/apis/metrics.k8s.io/v1beta1").await;
    assert_eq!(resources.body["resources"][1]["kind"], "PodMetrics", "{}", resources.text);
    assert_eq!(api.get("/apis/metrics.k8s.io").await.body["preferredVersion"]["version"], "v1beta1");
    assert_eq!(api.get(NODES).await.body["items"], json!([]), "nobody told anything");
}
