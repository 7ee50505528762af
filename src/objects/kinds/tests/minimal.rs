//! The least of each kind that is valid.

use serde_json::{Value, json};

use super::Kind;
use crate::patch;

const REQUEST_PEM: &str =
    "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUFBPQotLS0tLUVORCBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K";

pub(super) fn of(kind: &Kind) -> Value {
    let mut object = json!({"metadata": {"name": "x"}});
    if kind.namespaced {
        object["metadata"]["namespace"] = "n".into();
    }
    patch::merge(&mut object, &rest(kind.plural)).expect("an object");
    object
}

fn pod(restart: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "x"}},
        "spec": {"containers": [{"name": "c", "image": "i:1"}], "restartPolicy": restart},
    })
}

fn rest(plural: &str) -> Value {
    let workload = json!({"spec": {"selector": {"matchLabels": {"app": "x"}}, "template": pod("Always")}});
    match plural {
        "certificatesigningrequests" => json!({"spec": {
            "request": REQUEST_PEM, "signerName": "example.com/signer", "usages": ["client auth"]}}),
        "clusterrolebindings" => json!({"roleRef": {"kind": "ClusterRole", "name": "r"}}),
        "rolebindings" => json!({"roleRef": {"kind": "Role", "name": "r"}}),
        "controllerrevisions" => json!({"revision": 1, "data": {"a": 1}}),
        "cronjobs" => json!({"spec": {
            "schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": pod("Never")}}}}),
        "daemonsets" | "deployments" | "replicasets" | "statefulsets" => workload,
        "endpointslices" => json!({"addressType": "IPv4", "endpoints": []}),
        "events" => json!({"involvedObject": {"namespace": "n"}}),
        "horizontalpodautoscalers" => json!({"spec": {
            "maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}}),
        "ingressclasses" => json!({"spec": {"controller": "example.com/controller"}}),
        "ingresses" => json!({"spec": {
            "defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}}}),
        "jobs" => json!({"spec": {"template": pod("Never")}}),
        "networkpolicies" => json!({"spec": {"podSelector": {}}}),
        "persistentvolumeclaims" => json!({"spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
        "persistentvolumes" => json!({"spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/data"}}}),
        "pods" => json!({"spec": {"containers": [{"name": "c", "image": "i:1"}]}}),
        "podtemplates" => json!({"template": pod("Always")}),
        "priorityclasses" => json!({"value": 1000}),
        "replicationcontrollers" => json!({"spec": {"template": pod("Always")}}),
        "runtimeclasses" => json!({"handler": "runc"}),
        "services" => json!({"spec": {"ports": [{"port": 80}]}}),
        "storageclasses" => json!({"provisioner": "example.com/disks"}),
        _ => json!({}),
    }
}
