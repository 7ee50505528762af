//! Roles and their bindings, and CertificateSigningRequest.

use serde_json::{Value, json};

use super::{Part, check_changes, check_defaults, check_refused, check_rows, created, merge, object};

const GROUP: &str = "rbac.authorization.k8s.io";

#[test]
fn defaults() {
    let subjects = json!({"subjects": [{"kind": "User", "name": "a"}, {"kind": "ServiceAccount", "name": "b"}]});
    check_defaults(&[
        ("rolebindings", json!({}), "/roleRef", json!({"apiGroup": GROUP, "kind": "Role", "name": "r"})),
        (
            "rolebindings",
            subjects,
            "/subjects",
            json!([{"apiGroup": GROUP, "kind": "User", "name": "a"}, {"kind": "ServiceAccount", "name": "b"}]),
        ),
        ("clusterroles", json!({"metadata": {"name": "system:node"}}), "/metadata/name", json!("system:node")),
        (
            "roles",
            json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}),
            "/rules/0/apiGroups",
            json!([""]),
        ),
        (
            "clusterroles",
            json!({"rules": [{"nonResourceURLs": ["/healthz"], "verbs": ["get"]}]}),
            "/status",
            Value::Null,
        ),
        // Who asks, the server knows better than the client.
        (
            "certificatesigningrequests",
            json!({"spec": {"username": "admin", "groups": ["system:masters"]}}),
            "/spec/username",
            Value::Null,
        ),
        ("certificatesigningrequests", json!({"status": {"certificate": "eA=="}}), "/status", json!({})),
    ]);
}

#[test]
fn refused() {
    let rule = |rule: Value| json!({ "rules": [rule] });
    let subject = |subject: Value| json!({ "subjects": [subject] });
    let spec = |spec: Value| json!({ "spec": spec });
    check_refused(&[
        (
            "roles",
            rule(json!({"apiGroups": [""], "resources": ["pods"]})),
            "rules[0].verbs: Required value: verbs must contain at least one value",
        ),
        (
            "roles",
            rule(json!({"verbs": ["get"], "resources": ["pods"]})),
            "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
        ),
        (
            "roles",
            rule(json!({"verbs": ["get"], "apiGroups": [""]})),
            "rules[0].resources: Required value: resource rules must supply at least one resource",
        ),
        (
            "roles",
            rule(json!({"verbs": ["get"], "nonResourceURLs": ["/x"]})),
            "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs",
        ),
        (
            "clusterroles",
            rule(json!({"verbs": ["get"], "nonResourceURLs": ["/x"], "resources": ["pods"]})),
            "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: rules cannot apply to both regular resources and non-resource URLs",
        ),
        (
            "clusterroles",
            json!({"aggregationRule": {}}),
            "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector",
        ),
        ("roles", json!({"metadata": {"name": "a/b"}}), "metadata.name: Invalid value: \"a/b\": may not contain '/'"),
        (
            "rolebindings",
            json!({"roleRef": {"kind": "User"}}),
            "roleRef.kind: Unsupported value: \"User\": supported values: \"ClusterRole\", \"Role\"",
        ),
        (
            "clusterrolebindings",
            json!({"roleRef": {"kind": "Role"}}),
            "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
        ),
        ("rolebindings", json!({"roleRef": {"name": ""}}), "roleRef.name: Required value"),
        ("rolebindings", json!({"roleRef": {"apiGroup": "apps"}}), "roleRef.apiGroup: Unsupported value: \"apps\""),
        (
            "rolebindings",
            subject(json!({"kind": "Robot", "name": "r"})),
            "subjects[0].kind: Unsupported value: \"Robot\"",
        ),
        ("rolebindings", subject(json!({"kind": "User"})), "subjects[0].name: Required value"),
        (
            "clusterrolebindings",
            subject(json!({"kind": "ServiceAccount", "name": "a"})),
            "subjects[0].namespace: Required value",
        ),
        (
            "rolebindings",
            subject(json!({"kind": "ServiceAccount", "name": "a", "apiGroup": GROUP})),
            "subjects[0].apiGroup: Unsupported value: \"rbac.authorization.k8s.io\": supported values: \"\"",
        ),
        ("certificatesigningrequests", spec(json!({"signerName": null})), "spec.signerName: Required value"),
        (
            "certificatesigningrequests",
            spec(json!({"signerName": "signer"})),
            "spec.signerName: Invalid value: \"signer\": must be a fully qualified domain and path of the form 'example.com/signer-name'",
        ),
        (
            "certificatesigningrequests",
            spec(json!({"usages": ["walking"]})),
            "spec.usages[0]: Unsupported value: \"walking\"",
        ),
        ("certificatesigningrequests", spec(json!({"usages": []})), "spec.usages: Required value"),
        (
            "certificatesigningrequests",
            spec(json!({"usages": ["any", "any"]})),
            "spec.usages[1]: Duplicate value: \"any\"",
        ),
        (
            "certificatesigningrequests",
            spec(json!({"request": "eA=="})),
            "spec.request: Invalid value: \"eA==\": PEM block type must be CERTIFICATE REQUEST",
        ),
        (
            "certificatesigningrequests",
            spec(json!({"expirationSeconds": 599})),
            "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 600 seconds (10 minutes)",
        ),
    ]);
}

#[test]
fn changes() {
    check_changes(&[
        ("roles", json!({}), json!({"rules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]}), ""),
        (
            "rolebindings",
            json!({}),
            json!({"roleRef": {"name": "other"}}),
            "roleRef: Invalid value: {\"kind\":\"Role\",\"name\":\"other\",\"apiGroup\":\"rbac.authorization.k8s.io\"}: cannot change roleRef",
        ),
        ("clusterrolebindings", json!({}), json!({"roleRef": {"name": "other"}}), "roleRef: Invalid value"),
        ("clusterrolebindings", json!({}), json!({"subjects": [{"kind": "Group", "name": "g"}]}), ""),
    ]);
}

#[test]
fn rows() {
    let subjects = json!([{"kind": "User", "name": "a"}, {"kind": "User", "name": "b"}, {"kind": "Group", "name": "g"},
        {"kind": "ServiceAccount", "namespace": "n", "name": "s"}]);
    check_rows(&[
        ("roles", json!({}), json!(["x", "2026-01-01T00:00:00Z"])),
        ("clusterroles", json!({}), json!(["x", "2026-01-01T00:00:00Z"])),
        ("rolebindings", json!({"subjects": subjects}), json!(["x", "Role/r", "60m", "a, b", "g", "n/s"])),
        ("clusterrolebindings", json!({}), json!(["x", "ClusterRole/r", "60m", "", "", ""])),
        (
            "certificatesigningrequests",
            json!({"spec": {"username": "me"}}),
            json!(["x", "60m", "example.com/signer", "me", "<none>", "Pending"]),
        ),
        (
            "certificatesigningrequests",
            json!({"spec": {"expirationSeconds": 86400}, "status": {"certificate": "eA==", "conditions": [{"type": "Approved"}]}}),
            json!(["x", "60m", "example.com/signer", "", "24h", "Approved,Issued"]),
        ),
    ]);
}

/// An approver decides, a signer issues; neither can do the other's, and nobody changes what was asked for.
#[test]
fn each_writes_its_part_of_a_signing_request() {
    let (kind, object) = object("certificatesigningrequests", json!({}));
    let (old, _) = created(kind, object);
    let mut wish = old.clone();
    let conditions = json!([{"type": "Approved", "status": "True"}, {"type": "Failed", "status": "True"}]);
    merge(&mut wish, json!({"spec": {"usages": ["any"]}, "status": {"certificate": "eA==", "conditions": conditions}}));
    let written = |part| {
        let mut new = wish.clone();
        kind.prepare_update(&mut new, &old, part);
        assert_eq!(new["spec"], old["spec"], "{part:?}");
        assert_eq!(kind.validate(&new, Some(&old)), Vec::new(), "{part:?}");
        new
    };
    assert_eq!(written(Part::Main), old);
    assert_eq!(written(Part::Approval)["status"], json!({ "conditions": conditions }));
    assert_eq!(written(Part::Status)["status"], json!({"certificate": "eA==", "conditions": [conditions[1]]}));

    let approved = written(Part::Approval);
    let mut denied = approved.clone();
    denied["status"]["conditions"] = json!([{"type": "Denied", "status": "True"}]);
    kind.prepare_update(&mut denied, &approved, Part::Approval);
    let errors: Vec<String> = kind.validate(&denied, Some(&approved)).iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "status.conditions: Forbidden: updates may not remove a condition of type \"Approved\"",
            "status.conditions: Forbidden: updates may not remove a condition of type \"Failed\"",
        ]
    );
}
