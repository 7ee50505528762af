//! Tokens of ServiceAccounts: asked for, shown, reviewed, and refused once what they name is gone.

use apiserver::TokenKeys;
use control::authz::User;
use http::StatusCode;
use serde_json::{Value, json};
use state::State;

use super::{Answer, Api, PODS};

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const PREFIX: &str = "signed:";

/// Signs by a prefix that no other text has.
pub struct Keys;

impl TokenKeys for Keys {
    fn sign(&self, claims: &[u8], _: &State) -> Result<String, String> {
        Ok(format!("{PREFIX}{}", String::from_utf8_lossy(claims)))
    }

    fn verify(&self, token: &str, _: &State) -> Option<Vec<u8>> {
        token.strip_prefix(PREFIX).map(|claims| claims.as_bytes().to_vec())
    }

    fn public(&self, _: &State) -> (Value, &'static str) {
        (json!({"keys": [{"kid": "k"}]}), "ES256")
    }
}

impl Api {
    async fn account(&self, name: &str) {
        let made = self.post(ACCOUNTS, json!({"metadata": {"name": name}})).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    }

    async fn token(&self, name: &str, spec: Value) -> String {
        let answer = self.request(name, spec).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        answer.body["status"]["token"].as_str().expect("a token").to_owned()
    }

    async fn request(&self, name: &str, spec: Value) -> Answer {
        self.post(&format!("{ACCOUNTS}/{name}/token"), json!({"spec": spec})).await
    }

    /// Who one is by a token; nobody if it is refused.
    async fn by(&self, token: &str) -> Option<Value> {
        let bearer = format!("Bearer {token}");
        let answer = self.send("POST", WHO, &[("authorization", &bearer)], b"{}".to_vec()).await;
        match answer.status {
            StatusCode::CREATED => Some(answer.body["status"]["userInfo"].clone()),
            status => {
                assert_eq!(status, StatusCode::UNAUTHORIZED, "{}", answer.text);
                None
            }
        }
    }

    async fn pod_of(&self, name: &str, account: &str) -> String {
        let spec = json!({"serviceAccountName": account, "containers": [{"name": "c", "image": "i"}]});
        let made = self.post(PODS, json!({"metadata": {"name": name}, "spec": spec})).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
        made.body["metadata"]["uid"].as_str().expect("a uid").to_owned()
    }
}

#[tokio::test]
async fn a_token_makes_its_bearer_the_service_account() {
    let mut api = Api::new().await;
    api.account("app").await;
    let answer = api.request("app", json!({})).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    assert_eq!(answer.body["kind"], "TokenRequest");
    assert_eq!(answer.body["spec"]["expirationSeconds"], 3600);
    assert_eq!(answer.body["spec"]["audiences"], json!([control::tokens::ISSUER]));
    assert_eq!(answer.body["status"]["expirationTimestamp"], "2026-01-01T01:00:00Z");
    let token = answer.body["status"]["token"].as_str().expect("a token").to_owned();
    let elsewhere = api.token("app", json!({"audiences": ["vault"]})).await;
    let before = api.replica.root().revision();
    assert!(!api.token("app", json!({})).await.is_empty());
    assert_eq!(api.replica.root().revision(), before, "nothing is stored");

    let admin = api.user.take();
    let user = api.by(&token).await.expect("it counts");
    assert_eq!(user["username"], "system:serviceaccount:default:app");
    let groups = json!(["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]);
    assert_eq!(user["groups"], groups);
    assert_eq!(api.by(&elsewhere).await, None, "it is for others");
    assert_eq!(api.by("signed:{}").await, None);
    assert_eq!(api.by("unsigned").await, None);
    // A refused token is refused everywhere, also where anybody may look.
    let bad = api.send("GET", "/version", &[("authorization", "Bearer unsigned")], Vec::new()).await;
    assert_eq!(bad.status, StatusCode::UNAUTHORIZED);
    // Whom the certificate names counts first.
    api.user = admin.clone();
    assert_eq!(api.by(&token).await.expect("an admin")["username"], "admin");

    let gone = api.delete(&format!("{ACCOUNTS}/app"), json!(null)).await;
    assert_eq!(gone.status, StatusCode::OK, "{}", gone.text);
    api.user = None;
    assert_eq!(api.by(&token).await, None, "the account is gone");
    api.user = admin;
    api.account("app").await;
    api.user = None;
    assert_eq!(api.by(&token).await, None, "another account of that name");
}

#[tokio::test]
async fn a_token_ends_with_the_pod_it_is_bound_to() {
    let mut api = Api::new().await;
    api.account("app").await;
    api.account("other").await;
    let uid = api.pod_of("p", "app").await;
    let bound = |uid: &str| json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid}});
    let token = api.token("app", bound(&uid)).await;
    for (account, spec, code, message) in [
        ("gone", json!({}), 404, "serviceaccounts \"gone\" not found"),
        ("other", bound(&uid), 400, "different serviceaccount name"),
        ("app", bound("old"), 409, "does not match the UID in record"),
        ("app", json!({"expirationSeconds": 599}), 422, "may not specify a duration less than 10 minutes"),
        ("app", json!({"expirationSeconds": (1_i64 << 32) + 1}), 422, "larger than 2^32 seconds"),
        ("app", json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "gone"}}), 404, "pods \"gone\""),
        ("app", json!({"boundObjectRef": {"apiVersion": "v1", "kind": "ConfigMap", "name": "p"}}), 400, "cannot bind"),
    ] {
        let answer = api.request(account, spec.clone()).await;
        assert_eq!(answer.status.as_u16(), code, "{spec}: {}", answer.text);
        assert!(answer.text.replace('\\', "").contains(message), "{}", answer.text);
    }
    let admin = api.user.take();
    let user = api.by(&token).await.expect("it counts");
    assert_eq!(user["extra"]["authentication.kubernetes.io/pod-uid"], json!([uid]));
    api.user = admin;
    api.delete(&format!("{PODS}/p"), json!({"gracePeriodSeconds": 0})).await;
    api.user = None;
    assert_eq!(api.by(&token).await, None, "the pod is gone");
}

#[tokio::test]
async fn a_review_says_whose_a_token_is() {
    let mut api = Api::new().await;
    api.account("app").await;
    let token = api.token("app", json!({"audiences": ["vault", "other"]})).await;
    for (token, audiences, whose) in [
        (token.as_str(), json!(["vault", "third"]), Some(json!(["vault"]))),
        (&token, json!([]), None),
        (&token, json!(["third"]), None),
        ("forged", json!(["vault"]), None),
    ] {
        let answer = api.post(REVIEWS, json!({"spec": {"token": token, "audiences": audiences}})).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        let status = &answer.body["status"];
        match whose {
            Some(audiences) => {
                assert_eq!((&status["authenticated"], &status["audiences"]), (&json!(true), &audiences));
                assert_eq!(status["user"]["username"], "system:serviceaccount:default:app");
            }
            None => {
                assert_eq!(status["authenticated"], Value::Null, "{status}");
                assert!(status["error"].as_str().is_some_and(|why| why.contains("invalid bearer token")), "{status}");
            }
        }
    }
    assert_eq!(api.post(REVIEWS, json!({"spec": {}})).await.status, StatusCode::BAD_REQUEST);
    api.user = Some(User::authenticated("jane", vec![]));
    assert_eq!(api.post(REVIEWS, json!({"spec": {"token": token}})).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_node_gets_tokens_for_its_own_pods_only() {
    let mut api = Api::new().await;
    api.account("app").await;
    for name in ["n1", "n2"] {
        assert_eq!(api.post("/api/v1/nodes", json!({"metadata": {"name": name}})).await.status, StatusCode::CREATED);
    }
    let uid = api.pod_of("p", "app").await;
    let bind = json!({"target": {"kind": "Node", "name": "n1"}});
    assert_eq!(api.post(&format!("{PODS}/p/binding"), bind).await.status, StatusCode::CREATED);
    let bound = json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid}});
    for (node, spec, code) in [("n1", bound.clone(), 201), ("n1", json!({}), 403), ("n2", bound, 403)] {
        api.user = Some(User::node(node));
        let answer = api.request("app", spec.clone()).await;
        assert_eq!(answer.status.as_u16(), code, "{node} {spec}: {}", answer.text);
    }
}

#[tokio::test]
async fn verifiers_elsewhere_find_the_keys() {
    let mut api = Api::new().await;
    api.account("app").await;
    let token = api.token("app", json!({})).await;
    api.user = None;
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let configuration = api.send("GET", "/.well-known/openid-configuration", &headers, Vec::new()).await;
    assert_eq!(configuration.status, StatusCode::OK, "{}", configuration.text);
    assert_eq!(configuration.body["issuer"], control::tokens::ISSUER);
    assert!(configuration.body["jwks_uri"].as_str().is_some_and(|uri| uri.ends_with("/openid/v1/jwks")));
    let keys = api.send("GET", "/openid/v1/jwks", &headers, Vec::new()).await;
    assert_eq!(keys.headers["content-type"], "application/jwk-set+json");
    assert_eq!(keys.body, json!({"keys": [{"kid": "k"}]}));
    assert_eq!(api.send("POST", "/openid/v1/jwks", &headers, Vec::new()).await.status, StatusCode::FORBIDDEN);
    assert_eq!(api.get("/openid/v1/jwks").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn without_a_name_there_are_no_objects_whatever_roles_say() {
    let mut api = Api::new().await;
    let binding = json!({
        "metadata": {"name": "all"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:unauthenticated"}],
    });
    let bound = api.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await;
    assert_eq!(bound.status, StatusCode::CREATED, "{}", bound.text);
    api.user = None;
    for (path, code) in [("/version", 200), ("/livez", 200), ("/api", 200), (PODS, 401)] {
        assert_eq!(api.get(path).await.status.as_u16(), code, "{path}");
    }
}
