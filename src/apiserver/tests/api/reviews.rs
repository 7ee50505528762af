//! Reviews: who may do what, and who is who; none is stored.

use control::authz::{MASTERS, User};
use http::StatusCode;
use serde_json::{Value, json};

use super::{Answer, Api};

const OWN: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
const OF_ANOTHER: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
const LOCAL: &str = "/apis/authorization.k8s.io/v1/namespaces/default/localsubjectaccessreviews";
const RULES: &str = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

fn resource(verb: &str, resource: &str) -> Value {
    json!({"resourceAttributes": {"namespace": "default", "verb": verb, "resource": resource}})
}

fn path(verb: &str, path: &str) -> Value {
    json!({"nonResourceAttributes": {"verb": verb, "path": path}})
}

fn status(answer: &Answer) -> &Value {
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    &answer.body["status"]
}

impl Api {
    /// `jane` may get and list pods in `default`.
    async fn with_jane() -> Self {
        let mut api = Self::new().await;
        let group = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
        let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]);
        let role = api.post(&format!("{group}/roles"), json!({"metadata": {"name": "reader"}, "rules": rules})).await;
        assert_eq!(role.status, StatusCode::CREATED, "{}", role.text);
        let binding = json!({
            "metadata": {"name": "jane-reads"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}],
        });
        let bound = api.post(&format!("{group}/rolebindings"), binding).await;
        assert_eq!(bound.status, StatusCode::CREATED, "{}", bound.text);
        api.user = Some(User::authenticated("jane", vec!["dev".into()]));
        api
    }

    fn as_admin(&mut self) {
        self.user = Some(User::authenticated("admin", vec![MASTERS.into()]));
    }
}

#[tokio::test]
async fn everyone_may_ask_what_he_may() {
    let api = Api::with_jane().await;
    let before = api.replica.root().revision();
    for (spec, allowed) in [
        (resource("get", "pods"), true),
        (resource("list", "pods"), true),
        (resource("delete", "pods"), false),
        (resource("get", "secrets"), false),
        (json!({"resourceAttributes": {"namespace": "kube-system", "verb": "get", "resource": "pods"}}), false),
        (json!({"resourceAttributes": {"verb": "get", "resource": "pods"}}), false),
        (path("get", "/version"), true),
        (path("get", "/metrics"), false),
    ] {
        let answer = api.post(OWN, json!({"spec": spec})).await;
        assert_eq!(status(&answer)["allowed"], allowed, "{spec}");
        assert_eq!(answer.body["kind"], "SelfSubjectAccessReview");
        assert_eq!(answer.body["spec"], spec);
    }
    let why = api.post(OWN, json!({"spec": resource("get", "pods")})).await;
    assert_eq!(
        status(&why)["reason"],
        "RBAC: allowed by RoleBinding \"jane-reads/default\" of Role \"reader\" to User \"jane\""
    );
    assert_eq!(api.replica.root().revision(), before, "nothing is stored");
    for (method, path, code) in [
        ("GET", OWN.to_owned(), 403),
        ("POST", format!("{OWN}/x"), 405),
        ("POST", "/apis/authorization.k8s.io/v1/namespaces/default/selfsubjectaccessreviews".to_owned(), 404),
        ("POST", "/apis/authorization.k8s.io/v1beta1/selfsubjectaccessreviews".to_owned(), 404),
    ] {
        let answer = api.send(method, &path, &[], b"{}".to_vec()).await;
        assert_eq!(answer.status.as_u16(), code, "{method} {path}: {}", answer.text);
    }
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let body = json!({"spec": resource("get", "pods")}).to_string().into_bytes();
    assert_eq!(api.send("POST", OWN, &table, body).await.status, StatusCode::NOT_ACCEPTABLE);
}

#[tokio::test]
async fn a_review_comes_as_protobuf_too() {
    use k8s_pb::api::authorization::v1 as pb;
    use prost::Message as _;
    let api = Api::with_jane().await;
    let attributes = pb::ResourceAttributes {
        namespace: Some("default".into()),
        verb: Some("list".into()),
        group: Some(String::new()),
        version: Some("*".into()),
        resource: Some("pods".into()),
        subresource: Some(String::new()),
        name: Some(String::new()),
        ..Default::default()
    };
    let review = pb::SelfSubjectAccessReview {
        metadata: Some(Default::default()),
        spec: Some(pb::SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            non_resource_attributes: None,
        }),
        status: Some(pb::SubjectAccessReviewStatus { allowed: Some(false), ..Default::default() }),
    };
    let review = review.encode_to_vec();
    let field = |tag: u32, bytes: &[u8]| {
        let mut out = Vec::new();
        prost::encoding::encode_key(tag, prost::encoding::WireType::LengthDelimited, &mut out);
        prost::encoding::encode_varint(bytes.len() as u64, &mut out);
        out.extend_from_slice(bytes);
        out
    };
    let meta = [field(1, b"authorization.k8s.io/v1"), field(2, b"SelfSubjectAccessReview")].concat();
    let body = [b"k8s\0".to_vec(), field(1, &meta), field(2, &review)].concat();
    let protobuf = [("content-type", "application/vnd.kubernetes.protobuf")];
    let answer = api.send("POST", OWN, &protobuf, body).await;
    assert_eq!(status(&answer)["allowed"], true, "{}", answer.text);
}

#[tokio::test]
async fn what_another_may_is_for_those_who_may_ask() {
    let mut api = Api::with_jane().await;
    let of_jane = |mut spec: Value| {
        spec["user"] = "jane".into();
        json!({"spec": spec})
    };
    let refused = api.post(OF_ANOTHER, of_jane(resource("get", "pods"))).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.text);
    api.as_admin();
    for path in [OF_ANOTHER, LOCAL] {
        for (verb, allowed) in [("get", true), ("delete", false)] {
            let answer = api.post(path, of_jane(resource(verb, "pods"))).await;
            assert_eq!(status(&answer)["allowed"], allowed, "{path} {verb}");
        }
    }
    let nodes = json!({"user": "system:node:n", "groups": ["system:nodes", "system:authenticated"]});
    for (attributes, allowed) in [
        (json!({"verb": "get", "resource": "nodes", "name": "n"}), true),
        (json!({"verb": "get", "resource": "nodes", "name": "other"}), false),
        (
            json!({"verb": "list", "resource": "pods", "fieldSelector": {"requirements": [
                {"key": "spec.nodeName", "operator": "In", "values": ["n"]}]}}),
            true,
        ),
        (json!({"verb": "list", "resource": "pods"}), false),
    ] {
        let mut spec = nodes.clone();
        spec["resourceAttributes"] = attributes.clone();
        let answer = api.post(OF_ANOTHER, json!({"spec": spec})).await;
        assert_eq!(status(&answer)["allowed"], allowed, "{attributes}");
    }
    let both = json!({"user": "jane", "resourceAttributes": {"verb": "get"}, "nonResourceAttributes": {"verb": "get"}});
    let elsewhere = json!({"user": "jane", "resourceAttributes": {"verb": "get", "namespace": "kube-system"}});
    for (path, spec, message) in [
        (OF_ANOTHER, json!({"user": "jane"}), "exactly one of nonResourceAttributes or resourceAttributes"),
        (OF_ANOTHER, both, "cannot be specified in combination with resourceAttributes"),
        (OF_ANOTHER, resource("get", "pods"), "at least one of user or group must be specified"),
        (LOCAL, elsewhere, "must match metadata.namespace"),
        (LOCAL, json!({"user": "jane", "nonResourceAttributes": {"verb": "get"}}), "disallowed on this kind"),
    ] {
        let answer = api.post(path, json!({"spec": spec})).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{spec}: {}", answer.text);
        assert!(answer.text.contains(message), "{}", answer.text);
    }
}

#[tokio::test]
async fn the_rules_that_hold_for_someone() {
    let mut api = Api::with_jane().await;
    let rules = api.post(RULES, json!({"spec": {"namespace": "default"}})).await;
    let rules = status(&rules);
    let pods = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]});
    assert!(rules["resourceRules"].as_array().is_some_and(|list| list.contains(&pods)), "{rules}");
    let version = rules["nonResourceRules"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|rule| rule["nonResourceURLs"].as_array().is_some_and(|list| list.contains(&json!("/version"))));
    assert!(version, "{rules}");
    assert_eq!(rules["incomplete"], false);
    assert_eq!(api.post(RULES, json!({"spec": {}})).await.status, StatusCode::BAD_REQUEST);
    api.user = Some(User::node("n"));
    let of_node = api.post(RULES, json!({"spec": {"namespace": "default"}})).await;
    assert_eq!(status(&of_node)["incomplete"], true);
}

#[tokio::test]
async fn one_learns_who_one_is() {
    let mut api = Api::with_jane().await;
    let who = api.post(WHO, json!({})).await;
    let jane = json!({"username": "jane", "groups": ["dev", "system:authenticated"]});
    assert_eq!(status(&who)["userInfo"], jane);
    api.as_admin();
    let headers = [("impersonate-user", "jane"), ("impersonate-extra-scopes", "view")];
    let who = api.send("POST", WHO, &headers, b"{}".to_vec()).await;
    let info = json!({"username": "jane", "groups": ["system:authenticated"], "extra": {"scopes": ["view"]}});
    assert_eq!(status(&who)["userInfo"], info);
}

#[tokio::test]
async fn discovery_shows_them() {
    let api = Api::new().await;
    let list = api.get("/apis/authorization.k8s.io/v1").await.body;
    let rows: Vec<(Value, Value, Value)> = list["resources"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|row| (row["name"].clone(), row["namespaced"].clone(), row["verbs"].clone()))
        .collect();
    let row = |name: &str, namespaced: bool| (json!(name), json!(namespaced), json!(["create"]));
    assert_eq!(
        rows,
        [
            row("localsubjectaccessreviews", true),
            row("selfsubjectaccessreviews", false),
            row("selfsubjectrulesreviews", false),
            row("subjectaccessreviews", false),
        ]
    );
    let core = api.get("/api/v1").await.body;
    let token = core["resources"].as_array().into_iter().flatten().find(|row| row["name"] == "serviceaccounts/token");
    let token = token.cloned().unwrap_or_default();
    assert_eq!((&token["group"], &token["kind"]), (&json!("authentication.k8s.io"), &json!("TokenRequest")));
    let document = api.get("/openapi/v3/apis/authentication.k8s.io/v1").await.body;
    let schemas = &document["components"]["schemas"];
    for kind in ["TokenReview", "SelfSubjectReview", "TokenRequest"] {
        assert!(schemas[format!("io.k8s.api.authentication.v1.{kind}")].is_object(), "{kind}");
    }
}
