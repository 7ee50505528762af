//! Admission and quotas through the API: the words, the codes, and that a dry run is judged as a write is.

use http::StatusCode;
use serde_json::{Value, json};

use super::{Answer, Api, MAPS, PODS};

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";

impl Api {
    /// With the newest rules of the state.
    async fn newest() -> Self {
        let api = Self::new().await;
        let raise = state::RaiseVersion { version: state::VERSION };
        let command = state::Command {
            ops: vec![state::Op { kind: Some(state::op::Kind::RaiseVersion(raise)) }],
            ..state::Command::default()
        };
        assert_eq!(api.replica.propose(command).await.expect("applied").refusal, None);
        api
    }

    async fn quota(&self, name: &str, hard: Value) {
        let made = self.post(QUOTAS, json!({"metadata": {"name": name}, "spec": {"hard": hard}})).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
        assert!(made.headers.get("warning").is_none(), "it is acted on");
    }
}

#[track_caller]
fn refused(answer: &Answer, code: u16, reason: &str, message: &str) {
    let said = (answer.status.as_u16(), answer.body["reason"].as_str(), answer.body["message"].as_str());
    assert_eq!(said, (code, Some(reason), Some(message)), "{}", answer.text);
}

fn pod(name: &str, spec: Value) -> Value {
    let mut pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
    objects::patch::merge(&mut pod, &json!({ "spec": spec })).expect("an object");
    pod
}

#[tokio::test]
async fn pods_are_admitted_or_told_why_not() {
    let api = Api::newest().await;
    let dry = format!("{PODS}?dryRun=All");
    for path in [PODS, dry.as_str()] {
        let missing = api.post(path, pod("p", json!({"serviceAccountName": "robot"}))).await;
        let why = "pods \"p\" is forbidden: error looking up service account default/robot: serviceaccount \"robot\" not found";
        refused(&missing, 403, "Forbidden", why);
        let classless = api.post(path, pod("p", json!({"priorityClassName": "none"}))).await;
        refused(&classless, 403, "Forbidden", "pods \"p\" is forbidden: no PriorityClass with name none was found");
    }
    let made = api.post("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "robot"}})).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let made = api.post(PODS, pod("p", json!({"serviceAccountName": "robot"}))).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);

    let elsewhere = api.post("/api/v1/namespaces/none/pods", pod("p", json!({}))).await;
    refused(&elsewhere, 404, "NotFound", "namespaces \"none\" not found");
    let held = json!({"metadata": {"name": "going", "finalizers": ["example.com/x"]}});
    assert_eq!(api.post("/api/v1/namespaces", held).await.status, StatusCode::CREATED);
    assert_eq!(api.delete("/api/v1/namespaces/going", Value::Null).await.status, StatusCode::OK);
    let late = api.post("/api/v1/namespaces/going/pods", pod("p", json!({}))).await;
    let why = "pods \"p\" is forbidden: unable to create new content in namespace going because it is being terminated";
    refused(&late, 403, "Forbidden", why);
    assert_eq!(late.body["details"]["causes"][0]["reason"], "NamespaceTerminating");

    let range = json!({"metadata": {"name": "r"}, "spec": {"limits": [
        {"type": "Container", "default": {"cpu": "500m"}, "max": {"cpu": "1"}},
    ]}});
    let made = api.post("/api/v1/namespaces/default/limitranges", range).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let filled = api.post(&dry, pod("q", json!({}))).await;
    assert_eq!(filled.body["spec"]["containers"][0]["resources"]["limits"]["cpu"], "500m", "{}", filled.text);
    let resources = json!({"limits": {"cpu": "2"}});
    let large = json!({"containers": [{"name": "c", "image": "i:1", "resources": resources}]});
    let refusal = api.post(&dry, pod("q", large)).await;
    let why = "pods \"q\" is forbidden: maximum cpu usage per Container is 1, but limit is 2";
    refused(&refusal, 403, "Forbidden", why);

    let class = json!({"metadata": {"name": "high"}, "value": 1000});
    let made = api.post("/apis/scheduling.k8s.io/v1/priorityclasses", class).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let made = api.post(PODS, pod("high", json!({"priorityClassName": "high"}))).await;
    assert_eq!((made.status, &made.body["spec"]["priority"]), (StatusCode::CREATED, &json!(1000)), "{}", made.text);
    let warned = made.headers.get("warning").and_then(|text| text.to_str().ok()).unwrap_or_default();
    assert!(warned.contains("none is preempted for them yet"), "{warned}");
}

#[tokio::test]
async fn a_quota_is_exact_whoever_asks_at_once() {
    let api = Api::newest().await;
    api.quota("few", json!({"pods": "2", "configmaps": "3"})).await;
    let names: Vec<String> = (0..8).map(|i| format!("p{i}")).collect();
    let answers = futures::future::join_all(names.iter().map(|name| api.pod(name))).await;
    let made = answers.iter().filter(|answer| answer.status == StatusCode::CREATED).count();
    assert_eq!(made, 2);
    let (name, refusal) = names
        .iter()
        .zip(&answers)
        .find(|(_, answer)| answer.status != StatusCode::CREATED)
        .expect("more than two were asked for");
    let exceeded = "exceeded quota: few, requested: pods=1, used: pods=2, limited: pods=2";
    refused(refusal, 403, "Forbidden", &format!("pods {name:?} is forbidden: {exceeded}"));
    let dry = api.post(&format!("{PODS}?dryRun=All"), pod("dry", json!({}))).await;
    refused(&dry, 403, "Forbidden", &format!("pods \"dry\" is forbidden: {exceeded}"));
    // What goes makes room, and what has ended takes none.
    let there =
        names.iter().zip(&answers).find(|(_, answer)| answer.status == StatusCode::CREATED).expect("two were made").0;
    let ended = json!({"status": {"phase": "Succeeded"}});
    let status = api.patch(&format!("{PODS}/{there}/status"), "merge-patch+json", ended).await;
    assert_eq!(status.status, StatusCode::OK, "{}", status.text);
    assert_eq!(api.pod("next").await.status, StatusCode::CREATED);
    assert_eq!(api.pod("last").await.status, StatusCode::FORBIDDEN);
    for (name, code) in [("a", 201), ("b", 201), ("c", 201), ("d", 403)] {
        assert_eq!(api.config_map(name, json!({})).await.status.as_u16(), code, "{name}");
    }
    assert_eq!(api.delete(&format!("{MAPS}/a"), Value::Null).await.status, StatusCode::OK);
    assert_eq!(api.config_map("d", json!({})).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn changes_are_counted_and_requests_demanded() {
    let api = Api::newest().await;
    api.quota("q", json!({"services.nodeports": "1", "requests.cpu": "1"})).await;
    let nameless = api.post(PODS, pod("p", json!({}))).await;
    refused(&nameless, 403, "Forbidden", "pods \"p\" is forbidden: failed quota: q: must specify requests.cpu for: c");
    let asks =
        |cpu: &str| json!({"containers": [{"name": "c", "image": "i:1", "resources": {"requests": {"cpu": cpu}}}]});
    assert_eq!(api.post(PODS, pod("p", asks("700m"))).await.status, StatusCode::CREATED);
    let more = api.post(PODS, pod("q", asks("700m"))).await;
    let why = "exceeded quota: q, requested: requests.cpu=700m, used: requests.cpu=700m, limited: requests.cpu=1";
    refused(&more, 403, "Forbidden", &format!("pods \"q\" is forbidden: {why}"));

    const SERVICES: &str = "/api/v1/namespaces/default/services";
    let service =
        json!({"metadata": {"name": "s"}, "spec": {"ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}]}});
    assert_eq!(api.post(SERVICES, service).await.status, StatusCode::CREATED);
    let open = json!({"spec": {"type": "NodePort"}});
    for query in ["", "?dryRun=All"] {
        let opened = api.patch(&format!("{SERVICES}/s{query}"), "merge-patch+json", open.clone()).await;
        let why = "exceeded quota: q, requested: services.nodeports=2, used: services.nodeports=0, limited: services.nodeports=1";
        refused(&opened, 403, "Forbidden", &format!("services \"s\" is forbidden: {why}"));
    }
}
