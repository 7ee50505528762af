//! The HTTP contract over a store in memory: verbs, refusals, lists, watches, forms.

mod admission;
mod apply;
mod audit;
mod deletion;
mod reviews;
mod signers;
mod streams;
mod tokens;
mod usage;
mod views;

use std::sync::Arc;

use apiserver::{Check, Config, Health, Link, LogOptions, LogStream, PodRef, Session, StreamError, Streams};
use axum::body::Body;
use bytes::Bytes;
use control::authz::{MASTERS, User};
use futures::StreamExt;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

struct Node;

impl Health for Node {
    fn live(&self) -> Vec<Check> {
        Vec::new()
    }

    fn ready(&self) -> Vec<Check> {
        vec![Check { name: "leader", result: Err("none is known".into()) }]
    }
}

#[async_trait::async_trait]
impl Streams for Node {
    async fn logs(&self, _: &User, pod: PodRef, options: LogOptions) -> Result<LogStream, StreamError> {
        let text = format!("{} {} {} {:?}", pod.name, pod.node, options.container, options.tail_lines);
        let said = futures::stream::iter([Ok(Bytes::from(text))]);
        // A pod that says no more, and does not end.
        Ok(if options.follow { said.chain(futures::stream::pending()).boxed() } else { said.boxed() })
    }

    async fn open(&self, _: &User, pod: PodRef, session: Session) -> Result<Link, StreamError> {
        streams::open(pod, session)
    }
}

/// A server with the namespace `default`, and whoever asks.
struct Api {
    router: axum::Router,
    replica: replica::Replica,
    shutdown: tokio_util::sync::CancellationToken,
    user: Option<User>,
    /// What was written to the audit log.
    lines: Arc<audit::Lines>,
}

struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    body: Value,
    text: String,
}

impl Api {
    async fn new() -> Self {
        let api = Self::over(replica::memory::start());
        let made = api.post("/api/v1/namespaces", json!({"metadata": {"name": "default"}})).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
        api
    }

    fn over(replica: replica::Replica) -> Self {
        Self::bounded(replica, apiserver::Limits::default())
    }

    fn bounded(replica: replica::Replica, limits: apiserver::Limits) -> Self {
        Self::telling(replica, limits, Arc::new(()))
    }

    fn telling(replica: replica::Replica, limits: apiserver::Limits, usages: Arc<dyn apiserver::Usages>) -> Self {
        let shutdown = tokio_util::sync::CancellationToken::new();
        let lines = Arc::new(audit::Lines::default());
        let config = Config {
            replica: replica.clone(),
            settings: Arc::default(),
            streams: Arc::new(Node),
            usages,
            tokens: Some(Arc::new(tokens::Keys)),
            audit: Some(lines.clone()),
            health: Arc::new(Node),
            metrics: None,
            limits,
            now: Arc::new(|| "2026-01-01T00:00:00Z".parse().expect("a time")),
            seed: 1,
            version: "0.1.0".into(),
            commit: String::new(),
            shutdown: shutdown.clone(),
        };
        let user = Some(User::authenticated("admin", vec![MASTERS.into()]));
        Self { router: apiserver::service(config), replica, shutdown, user, lines }
    }

    async fn raw(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(path);
        for (key, value) in headers {
            request = request.header(*key, *value);
        }
        let mut request = request.body(Body::from(body)).expect("a request");
        if let Some(user) = &self.user {
            request.extensions_mut().insert(user.clone());
        }
        self.router.clone().oneshot(request).await.expect("infallible")
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        let response = self.raw(method, path, headers, body).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let body = serde_json::from_slice(&bytes).unwrap_or_default();
        Answer { status: parts.status, headers: parts.headers, body, text }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], Vec::new()).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, &[("content-type", "application/json")], body.to_string().into_bytes()).await
    }

    async fn put(&self, path: &str, body: Value) -> Answer {
        // No Content-Type: that means JSON.
        self.send("PUT", path, &[], body.to_string().into_bytes()).await
    }

    async fn patch(&self, path: &str, kind: &str, body: Value) -> Answer {
        let media = format!("application/{kind}");
        self.send("PATCH", path, &[("content-type", &media)], body.to_string().into_bytes()).await
    }

    async fn delete(&self, path: &str, body: Value) -> Answer {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.send("DELETE", path, &[], body).await
    }

    async fn config_map(&self, name: &str, data: Value) -> Answer {
        let labels = json!({"name": name});
        self.post(MAPS, json!({"metadata": {"name": name, "labels": labels}, "data": data})).await
    }

    async fn pod(&self, name: &str) -> Answer {
        self.post(PODS, json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}}))
            .await
    }
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn deployment(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": "i:1"}]},
            },
        },
    })
}

#[tokio::test]
async fn refusals_are_worded_as_in_kubernetes() {
    let api = Api::new().await;
    api.config_map("a", json!({})).await;
    let elsewhere = json!({"metadata": {"name": "b", "namespace": "other"}});
    let strict = format!("{MAPS}?fieldValidation=Strict");
    let stale = json!({"metadata": {"name": "a", "resourceVersion": "1"}});
    let lease = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l";
    for (method, path, body, code, reason, message) in [
        ("GET", "/nowhere", json!(null), 404, "NotFound", "could not find the requested resource"),
        ("GET", "/api/v1/namespaces/default/nothings", json!(null), 404, "NotFound", "could not find"),
        ("GET", "/apis/apps/v2/deployments", json!(null), 404, "NotFound", "could not find"),
        ("GET", "/api/v1/namespaces/default/pods/x", json!(null), 404, "NotFound", "pods \"x\" not found"),
        ("GET", "/openapi/v2", json!(null), 404, "NotFound", "could not find"),
        ("PUT", MAPS, json!({}), 405, "MethodNotAllowed", "does not allow this method"),
        ("DELETE", "/api/v1/namespaces", json!(null), 405, "MethodNotAllowed", "does not allow this method"),
        ("POST", "/api/v1/configmaps", json!({}), 405, "MethodNotAllowed", "does not allow"),
        (
            "POST",
            "/api/v1/namespaces/gone/configmaps",
            json!({"metadata": {"name": "x"}}),
            404,
            "NotFound",
            "namespaces \"gone\" not found",
        ),
        ("POST", MAPS, json!({"metadata": {"name": "a"}}), 409, "AlreadyExists", "configmaps \"a\" already exists"),
        ("POST", MAPS, elsewhere, 400, "BadRequest", "does not match the namespace"),
        (
            "POST",
            MAPS,
            json!({"kind": "Pod", "metadata": {"name": "x"}}),
            400,
            "BadRequest",
            "does not match the expected kind",
        ),
        (
            "POST",
            MAPS,
            json!({"metadata": {"name": "x"}, "data": 5}),
            400,
            "BadRequest",
            "cannot be handled as a ConfigMap",
        ),
        ("POST", MAPS, json!({"metadata": {}}), 422, "Invalid", "name or generateName is required"),
        (
            "POST",
            &strict,
            json!({"metadata": {"name": "x"}, "date": {}}),
            400,
            "BadRequest",
            "strict decoding error: unknown field \"date\"",
        ),
        (
            "PUT",
            "/api/v1/namespaces/default/configmaps/a",
            stale,
            409,
            "Conflict",
            "the object has been modified; please apply your changes to the latest version and try again",
        ),
        (
            "PUT",
            "/api/v1/namespaces/default/configmaps/b",
            json!({"metadata": {"name": "b"}}),
            404,
            "NotFound",
            "configmaps \"b\" not found",
        ),
        ("PUT", lease, json!({"metadata": {"name": "l", "resourceVersion": "9"}}), 404, "NotFound", "not found"),
        (
            "DELETE",
            "/api/v1/namespaces/default/configmaps/a",
            json!({"preconditions": {"uid": "no"}}),
            409,
            "Conflict",
            "the UID in the precondition (no)",
        ),
        ("DELETE", "/api/v1/namespaces/default", json!(null), 403, "Forbidden", "may not be deleted"),
        (
            "GET",
            "/api/v1/pods?fieldSelector=spec.nothing=1",
            json!(null),
            400,
            "BadRequest",
            "field label not supported",
        ),
        ("GET", "/api/v1/pods?labelSelector=a%20b", json!(null), 400, "BadRequest", "unable to parse labelSelector"),
        (
            "GET",
            "/api/v1/pods?resourceVersion=999&resourceVersionMatch=Never",
            json!(null),
            422,
            "Invalid",
            "resourceVersionMatch",
        ),
        ("GET", "/api/v1/pods?watch=1&sendInitialEvents=true", json!(null), 422, "Invalid", "sendInitialEvents"),
        (
            "POST",
            "/api/v1/namespaces/default/configmaps?dryRun=Some",
            json!({"metadata": {"name": "x"}}),
            400,
            "BadRequest",
            "dryRun",
        ),
    ] {
        let sent = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let answer = api.send(method, path, &[], sent).await;
        let what = format!("{method} {path} {body}: {}", answer.text);
        assert_eq!(answer.status.as_u16(), code, "{what}");
        assert_eq!(answer.body["kind"], "Status", "{what}");
        assert_eq!(answer.body["reason"], reason, "{what}");
        assert_eq!(answer.body["code"], code, "{what}");
        assert!(answer.body["message"].as_str().is_some_and(|m| m.contains(message)), "{what}");
    }
    let large = vec![b' '; 3 * 1024 * 1024 + 1];
    assert_eq!(api.send("POST", MAPS, &[], large).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    for (media, code) in [("application/cbor", 415), ("text/plain", 415)] {
        assert_eq!(api.send("POST", MAPS, &[("content-type", media)], b"{}".to_vec()).await.status.as_u16(), code);
    }
    let apply = api.patch(&format!("{MAPS}/a"), "apply-patch+cbor", json!({})).await;
    assert_eq!((apply.status.as_u16(), apply.body["reason"].as_str()), (415, Some("UnsupportedMediaType")));
    let picky = api.send("GET", MAPS, &[("accept", "text/html")], Vec::new()).await;
    assert_eq!(picky.status, StatusCode::NOT_ACCEPTABLE);
}

#[tokio::test]
async fn kinds_of_every_group_are_kept_explained_and_warned_of() {
    let api = Api::new().await;
    let template = json!({
        "metadata": {"labels": {"a": "b"}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]},
    });
    let job = json!({"metadata": {"name": "j"}, "spec": {"template": template}});
    let made = api.post("/apis/batch/v1/namespaces/default/jobs", job).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    assert_eq!(made.body["spec"]["completions"], 1, "{}", made.text);
    let warned = made.headers.get("warning").and_then(|text| text.to_str().ok()).unwrap_or_default();
    assert!(warned.contains("hactl keeps this Job and does not act on it yet"), "{warned}");
    let uid = &made.body["metadata"]["uid"];
    assert_eq!(&made.body["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"], uid);
    let index = api.get("/openapi/v3").await;
    for root in ["api/v1", "apis/apps/v1", "apis/batch/v1", "apis/rbac.authorization.k8s.io/v1"] {
        let url = index.body["paths"][root]["serverRelativeURL"].as_str().unwrap_or_default().to_owned();
        let document = api.get(&url).await;
        assert_eq!(document.status, StatusCode::OK, "{root}");
        let schemas = document.body["components"]["schemas"].as_object().map_or(0, serde_json::Map::len);
        assert!(schemas > 5, "{root} has {schemas} schemas");
    }
}

#[tokio::test]
async fn who_may_what_follows_roles_and_bindings() {
    let mut api = Api::new().await;
    const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
    const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    let role = json!({
        "metadata": {"name": "maps"},
        "rules": [
            {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "patch"]},
            {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "verbs": ["create"]},
        ],
    });
    assert_eq!(api.post(ROLES, role).await.status, StatusCode::CREATED);
    let binding = json!({
        "metadata": {"name": "eve"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "maps"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "eve"}],
    });
    let bound = api.post(BINDINGS, binding).await;
    assert_eq!(bound.status, StatusCode::CREATED, "{}", bound.text);
    api.config_map("a", json!({})).await;
    api.user = Some(User::authenticated("eve", vec![]));
    assert_eq!(api.get(&format!("{MAPS}/a")).await.status, StatusCode::OK);
    assert_eq!(api.get("/api/v1/namespaces/default/secrets").await.status, StatusCode::FORBIDDEN);
    // An apply that would create needs more than `patch`.
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}});
    let made = api.patch(&format!("{MAPS}/b?fieldManager=m"), "apply-patch+yaml", map).await;
    assert_eq!(made.status, StatusCode::FORBIDDEN, "{}", made.text);
    let more = json!({
        "metadata": {"name": "more"},
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}],
    });
    let refused = api.post(ROLES, more).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.text);
    assert!(refused.text.contains("is attempting to grant RBAC permissions not currently held"), "{}", refused.text);
}

#[tokio::test]
async fn who_acts_as_another_may_what_the_other_may() {
    let mut api = Api::new().await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let eve = [("impersonate-user", "eve"), ("impersonate-group", "dev")];
    let refused = api.send("GET", secrets, &eve, Vec::new()).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.text);
    assert!(refused.text.contains("User \\\"eve\\\" cannot list"), "{}", refused.text);
    let masters = [("impersonate-user", "eve"), ("impersonate-group", MASTERS)];
    assert_eq!(api.send("GET", secrets, &masters, Vec::new()).await.status, StatusCode::OK);
    let nobody = api.send("GET", secrets, &[("impersonate-group", "dev")], Vec::new()).await;
    assert_eq!(nobody.status, StatusCode::BAD_REQUEST, "{}", nobody.text);
    api.user = Some(User::authenticated("eve", vec![]));
    let refused = api.send("GET", "/apis", &[("impersonate-user", "admin")], Vec::new()).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.text);
    assert!(refused.text.contains("cannot impersonate resource"), "{}", refused.text);
}

#[tokio::test]
async fn who_may_not_is_told_so() {
    let mut api = Api::new().await;
    api.user = None;
    for (path, code) in [("/api/v1/pods", 401), ("/apis", 401), ("/metrics", 401), ("/version", 200), ("/livez", 200)] {
        assert_eq!(api.get(path).await.status.as_u16(), code, "{path}");
    }
    api.user = Some(User::authenticated("eve", vec![]));
    let refused = api.get("/api/v1/namespaces/default/secrets/s").await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(
        refused.body["message"],
        "secrets \"s\" is forbidden: User \"eve\" cannot get resource \"secrets\" in API group \"\" in the namespace \"default\""
    );
    assert_eq!(api.get("/apis").await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_object_lives() {
    let api = Api::new().await;
    let made = api.post(DEPLOYMENTS, deployment("web")).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    assert_eq!(made.body["metadata"]["generation"], 1);
    assert_eq!(made.body["metadata"]["creationTimestamp"], "2026-01-01T00:00:00Z");
    assert_eq!(made.body["spec"]["strategy"]["type"], "RollingUpdate");
    let one = format!("{DEPLOYMENTS}/web");
    assert_eq!(api.get(&one).await.body, made.body);

    // A write that changes nothing keeps the version; status is not the main resource's to write.
    let same = api.patch(&one, "merge-patch+json", json!({"status": {"replicas": 7}})).await;
    assert_eq!(same.body["metadata"]["resourceVersion"], made.body["metadata"]["resourceVersion"]);
    let status = api
        .patch(
            &format!("{one}/status"),
            "merge-patch+json",
            json!({"status": {"replicas": 7}, "spec": {"replicas": 9}}),
        )
        .await;
    assert_eq!((&status.body["status"]["replicas"], &status.body["spec"]["replicas"]), (&json!(7), &json!(2)));
    assert_eq!(status.body["metadata"]["generation"], 1);

    let strategic = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i:2"}]}}}});
    let patched = api.patch(&one, "strategic-merge-patch+json", strategic).await;
    assert_eq!(patched.body["spec"]["template"]["spec"]["containers"][0]["image"], "i:2");
    assert_eq!(patched.body["metadata"]["generation"], 2);
    let ops = json!([{"op": "test", "path": "/spec/replicas", "value": 2}, {"op": "replace", "path": "/spec/replicas", "value": 4}]);
    assert_eq!(api.patch(&one, "json-patch+json", ops.clone()).await.body["spec"]["replicas"], 4);
    assert_eq!(api.patch(&one, "json-patch+json", ops).await.status, StatusCode::UNPROCESSABLE_ENTITY);

    let scale = api.get(&format!("{one}/scale")).await;
    assert_eq!((&scale.body["kind"], &scale.body["spec"]["replicas"]), (&json!("Scale"), &json!(4)));
    assert_eq!(scale.body["status"], json!({"replicas": 7, "selector": "app=web"}));
    let scaled = api.patch(&format!("{one}/scale"), "merge-patch+json", json!({"spec": {"replicas": 5}})).await;
    assert_eq!((&scaled.body["kind"], &scaled.body["spec"]["replicas"]), (&json!("Scale"), &json!(5)));
    let mut stale = scale.body.clone();
    stale["spec"]["replicas"] = 6.into();
    assert_eq!(api.put(&format!("{one}/scale"), stale).await.status, StatusCode::CONFLICT);

    // Immutable, invalid: one cause per error.
    let invalid = api.patch(&one, "merge-patch+json", json!({"spec": {"replicas": -1}})).await;
    assert_eq!(invalid.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", invalid.text);
    assert_eq!(invalid.body["details"]["causes"][0]["field"], "spec.replicas");
    assert_eq!(invalid.body["details"]["kind"], "Deployment");

    let dry = api.delete(&format!("{one}?dryRun=All"), json!(null)).await;
    assert_eq!(dry.status, StatusCode::OK);
    let gone = api.delete(&one, json!({"propagationPolicy": "Background"})).await;
    assert_eq!(
        (&gone.body["status"], &gone.body["details"]["uid"]),
        (&json!("Success"), &made.body["metadata"]["uid"])
    );
    assert_eq!(api.get(&one).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn warnings_names_and_dry_runs() {
    let api = Api::new().await;
    let warned = api.post(MAPS, json!({"metadata": {"generateName": "x-"}, "date": {}})).await;
    assert_eq!(warned.status, StatusCode::CREATED, "{}", warned.text);
    assert_eq!(warned.headers["warning"], "299 - \"unknown field \\\"date\\\"\"");
    let name = warned.body["metadata"]["name"].as_str().unwrap_or("").to_owned();
    assert!(name.starts_with("x-") && name.len() == 7, "{name}");
    let twice = br#"{"metadata": {"name": "d"}, "data": {"k": "1", "k": "2"}}"#.to_vec();
    let strict = api.send("POST", &format!("{MAPS}?fieldValidation=Strict"), &[], twice).await;
    assert_eq!(strict.body["message"], "strict decoding error: duplicate field \"data.k\"");
    let dry = api.post(&format!("{MAPS}?dryRun=All"), json!({"metadata": {"name": "dry"}})).await;
    assert_eq!(dry.status, StatusCode::CREATED);
    assert_eq!(api.get(&format!("{MAPS}/dry")).await.status, StatusCode::NOT_FOUND);
    let yaml = b"metadata:\n  name: y\ndata: {k: v}\n".to_vec();
    let made =
        api.send("POST", MAPS, &[("content-type", "application/yaml"), ("accept", "application/yaml")], yaml).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    assert!(made.text.contains("k: v"), "{}", made.text);
    let lease = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l";
    let made = api.put(lease, json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "me"}})).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let blind = api.put(lease, json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "you"}})).await;
    assert_eq!(blind.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", blind.text);
}

#[tokio::test]
async fn recorded_protobuf_creates_objects() {
    let api = Api::new().await;
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/requests");
    for (file, path) in [
        ("create-namespace", "/api/v1/namespaces"),
        ("create-deployment", "/apis/apps/v1/namespaces/t133/deployments"),
        ("create-configmap", "/api/v1/namespaces/t133/configmaps"),
        ("create-secret", "/api/v1/namespaces/t133/secrets"),
    ] {
        let body = std::fs::read(directory.join(format!("kubectl-1.33-{file}.pb"))).expect("recorded");
        let headers = [
            ("content-type", "application/vnd.kubernetes.protobuf"),
            ("accept", "application/vnd.kubernetes.protobuf,application/json"),
        ];
        let made = api.send("POST", &format!("{path}?fieldValidation=Strict"), &headers, body).await;
        assert_eq!(made.status, StatusCode::CREATED, "{file}: {}", made.text);
    }
}

#[tokio::test]
async fn deletion_marks_and_waits() {
    let api = Api::new().await;
    let node = api.post("/api/v1/nodes", json!({"metadata": {"name": "n"}})).await;
    assert_eq!(node.status, StatusCode::CREATED, "{}", node.text);
    for name in ["a", "b", "c"] {
        let made = api.pod(name).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    }
    // Unscheduled: at once.
    assert_eq!(api.delete(&format!("{PODS}/a"), json!(null)).await.body["status"], "Success");
    for name in ["b", "c"] {
        let bound = api.post(&format!("{PODS}/{name}/binding"), json!({"target": {"kind": "Node", "name": "n"}})).await;
        assert_eq!(bound.status, StatusCode::CREATED, "{}", bound.text);
    }
    let again = api.post(&format!("{PODS}/b/binding"), json!({"target": {"name": "m"}})).await;
    assert_eq!(again.status, StatusCode::CONFLICT, "{}", again.text);
    let marked = api.delete(&format!("{PODS}/b"), json!(null)).await;
    assert_eq!(marked.body["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(marked.body["metadata"]["deletionTimestamp"], "2026-01-01T00:00:30Z");
    let longer = api.delete(&format!("{PODS}/b"), json!({"gracePeriodSeconds": 60})).await;
    assert_eq!(longer.body["metadata"]["deletionGracePeriodSeconds"], 30);
    let shorter = api.delete(&format!("{PODS}/b?gracePeriodSeconds=5"), json!(null)).await;
    assert_eq!(shorter.body["metadata"]["deletionGracePeriodSeconds"], 5);
    assert_eq!(api.delete(&format!("{PODS}/b"), json!({"gracePeriodSeconds": 0})).await.body["status"], "Success");
    let evicted = api.post(&format!("{PODS}/c/eviction"), json!({"apiVersion": "policy/v1", "kind": "Eviction"})).await;
    assert_eq!(evicted.status, StatusCode::CREATED, "{}", evicted.text);
    assert!(api.get(&format!("{PODS}/c")).await.body["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(api.get(&format!("{PODS}/c/log?tailLines=3")).await.text, "c n c Some(3)");
    assert_eq!(api.get(&format!("{PODS}/c/log?container=x")).await.status, StatusCode::BAD_REQUEST);

    // Finalizers keep an object until they are gone.
    let held = json!({"metadata": {"name": "held", "finalizers": ["example.com/x"]}});
    api.post(MAPS, held).await;
    let one = format!("{MAPS}/held");
    assert!(api.delete(&one, json!(null)).await.body["metadata"]["deletionTimestamp"].is_string());
    let released = api.patch(&one, "merge-patch+json", json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(released.status, StatusCode::OK, "{}", released.text);
    assert_eq!(api.get(&one).await.status, StatusCode::NOT_FOUND);
    api.post(DEPLOYMENTS, deployment("owner")).await;
    let foreground = api.delete(&format!("{DEPLOYMENTS}/owner"), json!({"propagationPolicy": "Foreground"})).await;
    assert_eq!(foreground.body["metadata"]["finalizers"], json!(["foregroundDeletion"]));

    // A namespace is emptied by its controller; meanwhile it takes nothing new.
    api.post("/api/v1/namespaces", json!({"metadata": {"name": "old"}})).await;
    let leaving = api.delete("/api/v1/namespaces/old", json!(null)).await;
    assert_eq!(leaving.body["status"]["phase"], "Terminating");
    let late = api.post("/api/v1/namespaces/old/configmaps", json!({"metadata": {"name": "x"}})).await;
    assert_eq!(late.status, StatusCode::FORBIDDEN, "{}", late.text);
    assert_eq!(late.body["details"]["causes"][0]["reason"], "NamespaceTerminating");
    let finalized = api.put("/api/v1/namespaces/old/finalize", json!({"metadata": {"name": "old"}, "spec": {}})).await;
    assert_eq!(finalized.status, StatusCode::OK, "{}", finalized.text);
    assert_eq!(api.get("/api/v1/namespaces/old").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_is_too_large_is_refused_as_in_kubernetes() {
    let replica = Api::new().await.replica;
    let api = Api::bounded(replica, apiserver::Limits { body_bytes: 2 << 20, ..apiserver::Limits::default() });
    let large = |bytes: usize| json!({"text": "x".repeat(bytes)});
    let refused = |answer: &Answer, limit: &str| {
        let body = &answer.body;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{}", answer.text);
        assert_eq!((&body["reason"], &body["code"]), (&json!("RequestEntityTooLarge"), &json!(413)), "{body}");
        let message = body["message"].as_str().unwrap_or_default();
        assert!(message.starts_with(&format!("Request entity too large: limit is {limit}")), "{message}");
    };
    // The body of a request, whatever it is of.
    refused(&api.config_map("body", large(2 << 20)).await, "2097152 (setting api-body)");
    refused(&api.patch(&format!("{MAPS}/body"), "merge-patch+json", large(2 << 20)).await, "2097152");
    // An object, however it got so large.
    let with = |name: &str, bytes: usize| {
        let mut object = deployment(name);
        object["spec"]["template"]["spec"]["containers"][0]["args"] = json!(["x".repeat(bytes)]);
        object
    };
    refused(&api.post(DEPLOYMENTS, with("object", 1_600_000)).await, "1572864");
    let made = api.post(DEPLOYMENTS, with("grows", 1_000_000)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let more = json!({"metadata": {"annotations": {"more": "x".repeat(200_000)}},
        "spec": {"template": {"metadata": {"annotations": {"more": "x".repeat(200_000)}}}}});
    let one = format!("{DEPLOYMENTS}/grows");
    assert_eq!(api.patch(&one, "merge-patch+json", more.clone()).await.status, StatusCode::OK, "there is room yet");
    let args =
        json!([{"op": "add", "path": "/spec/template/spec/containers/0/command", "value": ["x".repeat(300_000)]}]);
    refused(&api.patch(&one, "json-patch+json", args).await, "1572864");
    assert_eq!(api.get(&one).await.body["spec"]["template"]["spec"]["containers"][0]["command"], Value::Null);
    assert_eq!(api.get(&format!("{DEPLOYMENTS}/object")).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn followed_logs_are_bounded_in_number_and_in_all_for_each_user() {
    let all = Api::new().await;
    all.post("/api/v1/nodes", json!({"metadata": {"name": "n"}})).await;
    let made = all
        .post(
            PODS,
            json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}}),
        )
        .await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let limits = apiserver::Limits { logs: 3, logs_per_user: 2, requests: 1, ..apiserver::Limits::default() };
    let mut api = Api::bounded(all.replica, limits);
    let one = format!("{PODS}/p/log");
    let follow = format!("{one}?follow=true");
    let user = |name: &str| Some(User::authenticated(name, vec![MASTERS.into()]));
    let refused = |answer: &Answer, setting: &str| {
        let body = &answer.body;
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{}", answer.text);
        assert_eq!(
            (&body["reason"], &answer.headers["retry-after"]),
            (&json!("TooManyRequests"), &"1".parse().expect("a header"))
        );
        assert!(body["message"].as_str().unwrap_or_default().contains(&format!("`{setting}`")), "{body}");
    };
    let mut open = Vec::new();
    for _ in 0..2 {
        let answer = api.raw("GET", &follow, &[], Vec::new()).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let mut body = answer.into_body().into_data_stream();
        assert!(body.next().await.is_some_and(|frame| frame.is_ok()), "it says something");
        open.push(body);
    }
    refused(&api.get(&follow).await, "api-logs-per-user");
    let plain = api.get(&one).await;
    assert_eq!(
        (plain.status, plain.text.as_str()),
        (StatusCode::OK, "p n c None"),
        "what is not followed is a request"
    );
    api.user = user("other");
    let last = api.raw("GET", &follow, &[], Vec::new()).await;
    assert_eq!(last.status(), StatusCode::OK, "another user has room");
    api.user = user("third");
    refused(&api.get(&follow).await, "api-logs");
    // Whoever goes gives the place back.
    drop(open);
    assert_eq!(api.raw("GET", &follow, &[], Vec::new()).await.status(), StatusCode::OK);
    drop(last);
}

#[tokio::test]
async fn lists_select_and_page() {
    let api = Api::new().await;
    for name in ["a", "b", "c", "d", "e"] {
        api.config_map(name, json!({})).await;
    }
    let names = |answer: &Answer| -> Vec<String> {
        answer.body["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|item| item["metadata"]["name"].as_str().unwrap_or("").to_owned())
            .collect()
    };
    let all = api.get(MAPS).await;
    assert_eq!((&all.body["kind"], names(&all).len()), (&json!("ConfigMapList"), 5));
    for (query, want) in [
        ("labelSelector=name%20in%20(a,c)", vec!["a", "c"]),
        ("labelSelector=name%3Db", vec!["b"]),
        ("labelSelector=name%3Db&limit=500", vec!["b"]),
        ("labelSelector=name%3Db,name%3Dc", vec![]),
        ("labelSelector=name%3Db&fieldSelector=metadata.name!=b", vec![]),
        ("fieldSelector=metadata.name!=a", vec!["b", "c", "d", "e"]),
        ("fieldSelector=metadata.name=b&resourceVersion=0", vec!["b"]),
    ] {
        assert_eq!(names(&api.get(&format!("{MAPS}?{query}")).await), want, "{query}");
    }
    let first = api.get(&format!("{MAPS}?limit=2")).await;
    assert_eq!(
        (names(&first), &first.body["metadata"]["remainingItemCount"]),
        (vec!["a".into(), "b".into()], &json!(3))
    );
    // Later pages show the state of the first one.
    api.delete(&format!("{MAPS}/c"), json!(null)).await;
    api.config_map("f", json!({})).await;
    let token = first.body["metadata"]["continue"].as_str().unwrap_or("").to_owned();
    let rest = api.get(&format!("{MAPS}?limit=9&continue={token}")).await;
    assert_eq!(names(&rest), ["c", "d", "e"], "{}", rest.text);
    assert_eq!(rest.body["metadata"]["resourceVersion"], first.body["metadata"]["resourceVersion"]);
    let version = first.body["metadata"]["resourceVersion"].as_str().unwrap_or("").to_owned();
    let exact = api.get(&format!("{MAPS}?resourceVersion={version}&resourceVersionMatch=Exact")).await;
    assert_eq!(names(&exact), ["a", "b", "c", "d", "e"]);

    // So does another master, under another leader: the token holds all there is to know, and history is the same.
    let (replica, controls) = replica::memory::start_controlled(state::State::clone(&api.replica.root()));
    controls.lead(7);
    let other = Api::over(replica);
    let rest = other.get(&format!("{MAPS}?limit=9&continue={token}")).await;
    assert_eq!(names(&rest), ["c", "d", "e"], "{}", rest.text);

    // Compacted: the token goes on only inconsistently.
    let compact = state::Command {
        ops: vec![state::Op {
            kind: Some(state::op::Kind::Compact(state::Compact { revision: api.replica.root().revision() })),
        }],
        ..state::Command::default()
    };
    assert!(api.replica.propose(compact).await.is_ok_and(|outcome| outcome.refusal.is_none()));
    let expired = api.get(&format!("{MAPS}?limit=2&continue={token}")).await;
    assert_eq!((expired.status, &expired.body["reason"]), (StatusCode::GONE, &json!("Expired")));
    let fresh = expired.body["metadata"]["continue"].as_str().unwrap_or("").to_owned();
    assert_eq!(names(&api.get(&format!("{MAPS}?continue={fresh}")).await), ["d", "e", "f"]);
    let watch = api.get(&format!("{MAPS}?watch=true&resourceVersion={version}")).await;
    assert_eq!((watch.status, &watch.body["reason"]), (StatusCode::GONE, &json!("Expired")));
}

#[tokio::test]
async fn tables_and_metadata() {
    const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    const PARTIAL: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let api = Api::new().await;
    api.config_map("a", json!({"k": "v"})).await;
    let table = api.send("GET", MAPS, &[("accept", TABLE)], Vec::new()).await.body;
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    assert_eq!(table["columnDefinitions"][0]["name"], "Name");
    assert_eq!(table["rows"][0]["cells"], json!(["a", 1, "0s"]));
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let whole = api.send("GET", &format!("{MAPS}?includeObject=Object"), &[("accept", TABLE)], Vec::new()).await.body;
    assert_eq!(whole["rows"][0]["object"]["data"], json!({"k": "v"}));
    let one = api.send("GET", &format!("{MAPS}/a"), &[("accept", TABLE)], Vec::new()).await.body;
    assert_eq!(one["rows"].as_array().map(Vec::len), Some(1));
    let partial = api.send("GET", MAPS, &[("accept", PARTIAL)], Vec::new()).await.body;
    assert_eq!(partial["kind"], "PartialObjectMetadataList");
    assert_eq!((&partial["items"][0]["metadata"]["name"], &partial["items"][0]["data"]), (&json!("a"), &json!(null)));
    let pods = api.send("GET", PODS, &[("accept", TABLE)], Vec::new()).await.body;
    let wide = pods["columnDefinitions"].as_array().into_iter().flatten().filter(|c| c["priority"] == 1).count();
    assert!(wide >= 4, "{pods}");
}

#[tokio::test]
async fn large_lists_are_streamed_and_compressed() {
    let api = Api::new().await;
    let text = "x".repeat(20_000);
    for i in 0..20 {
        api.config_map(&format!("m{i:02}"), json!({"k": text})).await;
    }
    let plain = api.get(MAPS).await;
    assert_eq!(plain.body["items"].as_array().map(Vec::len), Some(20));
    let packed = api.raw("GET", MAPS, &[("accept-encoding", "gzip")], Vec::new()).await;
    assert_eq!(packed.headers()["content-encoding"], "gzip");
    let bytes = packed.into_body().collect().await.expect("a body").to_bytes();
    let mut text = String::new();
    let mut decoder = flate2::read::GzDecoder::new(bytes.as_ref());
    std::io::Read::read_to_string(&mut decoder, &mut text).expect("gzip");
    assert_eq!(text, plain.text);
}

/// The next frames of a watch.
async fn frames(body: &mut axum::body::BodyDataStream, count: usize) -> Vec<Value> {
    let mut out = Vec::new();
    while out.len() < count {
        let chunk = body.next().await.expect("a frame").expect("no error");
        for line in chunk.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            out.push(serde_json::from_slice(line).expect("JSON"));
        }
    }
    out
}

fn brief(frames: &[Value]) -> Vec<String> {
    frames
        .iter()
        .map(|frame| {
            format!(
                "{} {}",
                frame["type"].as_str().unwrap_or(""),
                frame["object"]["metadata"]["name"].as_str().unwrap_or("-")
            )
        })
        .collect()
}

#[tokio::test]
async fn watches_show_every_change_once() {
    let api = Api::new().await;
    api.config_map("a", json!({})).await;
    let version = api.get(MAPS).await.body["metadata"]["resourceVersion"].as_str().unwrap_or("").to_owned();
    let watch = |query: String| {
        let api = &api;
        async move {
            let response = api.raw("GET", &format!("{MAPS}?watch=true&{query}"), &[], Vec::new()).await;
            assert_eq!(response.status(), StatusCode::OK, "{query}");
            response.into_body().into_data_stream()
        }
    };
    let mut after = watch(format!("resourceVersion={version}")).await;
    let mut fresh = watch(String::new()).await;
    let mut labelled = watch(format!("resourceVersion={version}&labelSelector=on")).await;
    let list = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut listed = watch(list.into()).await;

    let one = format!("{MAPS}/a");
    let on = api.patch(&one, "merge-patch+json", json!({"metadata": {"labels": {"on": "1"}}})).await;
    assert_eq!(on.status, StatusCode::OK, "{}", on.text);
    api.patch(&one, "merge-patch+json", json!({"metadata": {"labels": {"on": null}}})).await;
    api.config_map("b", json!({})).await;
    api.delete(&one, json!(null)).await;

    let got = frames(&mut after, 4).await;
    assert_eq!(brief(&got), ["MODIFIED a", "MODIFIED a", "ADDED b", "DELETED a"]);
    let revisions: Vec<u64> =
        got.iter().filter_map(|frame| frame["object"]["metadata"]["resourceVersion"].as_str()?.parse().ok()).collect();
    assert!(revisions.is_sorted_by(|a, b| a < b), "{revisions:?}");
    assert_eq!(revisions.last().copied(), Some(api.replica.root().revision()));
    assert_eq!(brief(&frames(&mut fresh, 5).await)[..2], ["ADDED a", "MODIFIED a"]);
    assert_eq!(brief(&frames(&mut labelled, 2).await), ["ADDED a", "DELETED a"]);
    let got = frames(&mut listed, 6).await;
    assert_eq!(brief(&got)[..3], ["ADDED a", "BOOKMARK -", "MODIFIED a"]);
    assert_eq!(got[1]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");

    // A watch resumes anywhere in history, and ends cleanly when the server does.
    let mut resumed = watch(format!("resourceVersion={}", revisions[1])).await;
    assert_eq!(brief(&frames(&mut resumed, 2).await), ["ADDED b", "DELETED a"]);
    api.shutdown.cancel();
    for stream in [after, fresh, labelled, listed, resumed] {
        assert_eq!(stream.count().await, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn watches_end_in_time_with_a_bookmark() {
    const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let api = Api::new().await;
    let path = format!("{MAPS}?watch=true&resourceVersion=1&allowWatchBookmarks=true&timeoutSeconds=90");
    let response = api.raw("GET", &path, &[], Vec::new()).await;
    let text = response.into_body().collect().await.expect("a clean end").to_bytes();
    let lines: Vec<Value> = text
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .map(|l| serde_json::from_slice(l).expect("JSON"))
        .collect();
    assert_eq!(brief(&lines), ["BOOKMARK -", "BOOKMARK -"]);
    let future = api.get("/api/v1/pods?resourceVersion=999").await;
    assert_eq!(future.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(future.body["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    api.config_map("a", json!({})).await;
    let path = format!("{MAPS}?watch=true&timeoutSeconds=1");
    let answer = api.send("GET", &path, &[("accept", TABLE)], Vec::new()).await;
    assert_eq!(answer.body["object"]["kind"], "Table", "{}", answer.text);
    assert_eq!(answer.body["object"]["rows"][0]["cells"][0], "a");
}

#[tokio::test]
async fn discovery_version_and_health() {
    const V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
    let api = Api::new().await;
    let version = api.get("/version").await.body;
    assert_eq!((&version["major"], &version["minor"]), (&json!("1"), &json!("36")));
    assert_eq!(version["gitVersion"], "v1.36.0+hactl-0.1.0");
    let aggregated = api.send("GET", "/apis", &[("accept", V2)], Vec::new()).await;
    assert_eq!(aggregated.body["kind"], "APIGroupDiscoveryList");
    let apps =
        aggregated.body["items"].as_array().into_iter().flatten().find(|g| g["metadata"]["name"] == "apps").cloned();
    let resources = apps.unwrap_or_default()["versions"][0]["resources"].clone();
    let deployments = resources.as_array().into_iter().flatten().find(|r| r["resource"] == "deployments").cloned();
    assert_eq!(deployments.unwrap_or_default()["shortNames"], json!(["deploy"]));
    let core = api.get("/api/v1").await.body;
    let eviction = core["resources"].as_array().into_iter().flatten().find(|r| r["name"] == "pods/eviction").cloned();
    let eviction = eviction.unwrap_or_default();
    assert_eq!((&eviction["group"], &eviction["version"]), (&json!("policy"), &json!("v1")));
    assert_eq!(api.get("/apis").await.body["kind"], "APIGroupList");
    let index = api.get("/openapi/v3").await.body;
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap_or("").to_owned();
    let document = api.get(&url).await;
    assert_eq!(document.headers["cache-control"], "public, immutable");
    assert_eq!(api.get("/livez").await.text, "ok");
    let ready = api.get("/readyz?verbose").await;
    assert_eq!(ready.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(ready.text, "[+]ping ok\n[-]leader failed: none is known\nreadyz check failed\n");
    assert_eq!(api.get("/readyz/ping").await.status, StatusCode::OK);
}
