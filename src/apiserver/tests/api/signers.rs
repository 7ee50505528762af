//! Who approves a CertificateSigningRequest needs its signer's word as well.

use control::authz::User;
use http::StatusCode;
use serde_json::json;

use super::Api;

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

#[tokio::test]
async fn an_approver_needs_the_signers_word() {
    let mut api = Api::new().await;
    let pem = "-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n";
    let request = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pem);
    let spec = json!({"request": request, "signerName": "example.com/web", "usages": ["client auth"]});
    let made = api.post(REQUESTS, json!({"metadata": {"name": "r"}, "spec": spec})).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let all = json!({"apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests/approval",
        "certificatesigningrequests/status"], "verbs": ["update", "patch"]});
    let signers = |verb: &str, name: &str| json!({"apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "resourceNames": [name], "verbs": [verb]});
    for (user, rules) in [
        ("clerk", json!([all])),
        ("other", json!([all, signers("approve", "example.com/mail")])),
        ("approver", json!([all, signers("approve", "example.com/*")])),
        ("signer", json!([all, signers("sign", "example.com/web")])),
    ] {
        let role = api.post(&format!("{RBAC}/clusterroles"), json!({"metadata": {"name": user}, "rules": rules})).await;
        assert_eq!(role.status, StatusCode::CREATED, "{}", role.text);
        let binding = json!({
            "metadata": {"name": user},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        });
        let bound = api.post(&format!("{RBAC}/clusterrolebindings"), binding).await;
        assert_eq!(bound.status, StatusCode::CREATED, "{}", bound.text);
    }
    let approved = json!({"status": {"conditions": [
        {"type": "Approved", "status": "True", "reason": "r", "message": "m"}]}});
    let certificate = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    let certificate = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, certificate);
    let signed = json!({"status": {"certificate": certificate}});
    for (user, part, body, code) in [
        ("clerk", "approval", &approved, 403),
        ("other", "approval", &approved, 403),
        ("signer", "approval", &approved, 403),
        ("approver", "approval", &approved, 200),
        ("approver", "status", &signed, 403),
        ("signer", "status", &signed, 200),
    ] {
        api.user = Some(User::authenticated(user, vec![]));
        let answer = api.patch(&format!("{REQUESTS}/r/{part}"), "merge-patch+json", body.clone()).await;
        assert_eq!(answer.status.as_u16(), code, "{user} {part}: {}", answer.text);
        if code == 403 {
            let text = answer.text.replace('\\', "");
            assert!(text.contains("requests with signerName \"example.com/web\""), "{text}");
        }
    }
}
