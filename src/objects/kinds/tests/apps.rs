//! DaemonSet, StatefulSet, ControllerRevision, ReplicationController and PodTemplate.

use serde_json::json;

use super::{check_changes, check_defaults, check_refused, check_rows, created, merge, object};
use crate::meta;

#[test]
fn defaults() {
    let strategy = "/spec/updateStrategy";
    let claims = json!({"spec": {"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1024Mi"}}}}]}});
    check_defaults(&[
        (
            "daemonsets",
            json!({}),
            strategy,
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}),
        ),
        (
            "daemonsets",
            json!({"spec": {"updateStrategy": {"type": "OnDelete"}}}),
            strategy,
            json!({"type": "OnDelete"}),
        ),
        ("daemonsets", json!({}), "/spec/revisionHistoryLimit", json!(10)),
        ("daemonsets", json!({}), "/status/desiredNumberScheduled", json!(0)),
        ("daemonsets", json!({}), "/spec/template/spec/dnsPolicy", json!("ClusterFirst")),
        ("statefulsets", json!({}), strategy, json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})),
        ("statefulsets", json!({}), "/spec/podManagementPolicy", json!("OrderedReady")),
        ("statefulsets", json!({}), "/spec/replicas", json!(1)),
        (
            "statefulsets",
            json!({}),
            "/spec/persistentVolumeClaimRetentionPolicy",
            json!({"whenDeleted": "Retain", "whenScaled": "Retain"}),
        ),
        (
            "statefulsets",
            claims.clone(),
            "/spec/volumeClaimTemplates/0",
            json!({
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": "data"},
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "resources": {"requests": {"storage": "1Gi"}},
                    "volumeMode": "Filesystem",
                },
                "status": {"phase": "Pending"},
            }),
        ),
        ("statefulsets", json!({}), "/status", json!({"replicas": 0, "availableReplicas": 0})),
        ("replicationcontrollers", json!({}), "/spec/selector", json!({"app": "x"})),
        ("replicationcontrollers", json!({"spec": {"replicas": 0}}), "/spec/replicas", json!(0)),
        ("replicationcontrollers", json!({}), "/metadata/labels", json!({"app": "x"})),
        ("podtemplates", json!({}), "/template/spec/schedulerName", json!("default-scheduler")),
    ]);
}

#[test]
fn refused() {
    let rolling = |rolling| json!({"spec": {"updateStrategy": {"rollingUpdate": rolling}}});
    check_refused(&[
        (
            "daemonsets",
            json!({"spec": {"selector": {"matchLabels": {"app": "y"}}}}),
            "spec.template.metadata.labels: Invalid value: {\"app\":\"x\"}: `selector` does not match template `labels`",
        ),
        (
            "daemonsets",
            json!({"spec": {"selector": {"matchLabels": null}}}),
            "spec.selector: Invalid value: {}: empty selector is invalid for daemonset",
        ),
        (
            "daemonsets",
            rolling(json!({"maxSurge": 1})),
            "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero",
        ),
        (
            "daemonsets",
            rolling(json!({"maxUnavailable": "0%"})),
            "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
        ),
        (
            "daemonsets",
            rolling(json!({"maxUnavailable": "101%"})),
            "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
        ),
        (
            "daemonsets",
            json!({"spec": {"updateStrategy": {"type": "Recreate"}}}),
            "spec.updateStrategy.type: Unsupported value: \"Recreate\"",
        ),
        (
            "daemonsets",
            json!({"spec": {"template": {"spec": {"restartPolicy": "Never"}}}}),
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
        ),
        (
            "daemonsets",
            json!({"spec": {"template": {"spec": {"activeDeadlineSeconds": 5}}}}),
            "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in DaemonSet is not Supported",
        ),
        (
            "statefulsets",
            json!({"metadata": {"name": "a.b"}}),
            "metadata.name: Invalid value: \"a.b\": a lowercase RFC 1123 label",
        ),
        (
            "statefulsets",
            json!({"spec": {"podManagementPolicy": "Random"}}),
            "spec.podManagementPolicy: Unsupported value: \"Random\"",
        ),
        (
            "statefulsets",
            rolling(json!({"partition": -1})),
            "spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            "statefulsets",
            json!({"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": {"partition": 1}}}}),
            "spec.updateStrategy.rollingUpdate: Invalid value: {\"partition\":1}: only allowed for updateStrategy 'RollingUpdate'",
        ),
        (
            "statefulsets",
            json!({"spec": {"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Keep"}}}),
            "spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: \"Keep\"",
        ),
        ("controllerrevisions", json!({"data": null}), "data: Required value: data is mandatory"),
        (
            "controllerrevisions",
            json!({"revision": -1}),
            "revision: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            "replicationcontrollers",
            json!({"spec": {"selector": {"app": "y"}}}),
            "spec.template.metadata.labels: Invalid value: {\"app\":\"x\"}: `selector` does not match template `labels`",
        ),
        (
            "replicationcontrollers",
            json!({"spec": {"template": {"metadata": {"labels": null}}}}),
            "spec.selector: Required value",
        ),
        ("replicationcontrollers", json!({"spec": {"template": null}}), "spec.template: Required value"),
        ("podtemplates", json!({"template": null}), "template: Required value"),
        (
            "podtemplates",
            json!({"template": {"spec": {"containers": [{"name": "C"}]}}}),
            "template.spec.containers[0].name: Invalid",
        ),
    ]);
}

#[test]
fn changes() {
    let label =
        json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}}}});
    check_changes(&[
        ("daemonsets", json!({}), label.clone(), "spec.selector: Invalid value"),
        ("daemonsets", json!({}), json!({"spec": {"minReadySeconds": 5}}), ""),
        (
            "statefulsets",
            json!({}),
            json!({"spec": {"serviceName": "other"}}),
            "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', ",
        ),
        ("statefulsets", json!({"spec": {"serviceName": ""}}), json!({"spec": {"serviceName": null}}), ""),
        ("statefulsets", json!({}), label.clone(), "spec: Forbidden: updates to statefulset spec"),
        (
            "statefulsets",
            json!({}),
            json!({"spec": {"replicas": 3, "minReadySeconds": 1, "updateStrategy": {"rollingUpdate": {"partition": 2}}}}),
            "",
        ),
        (
            "controllerrevisions",
            json!({}),
            json!({"data": {"a": 2}}),
            "data: Invalid value: {\"a\":2}: field is immutable",
        ),
        ("controllerrevisions", json!({}), json!({"revision": 2}), ""),
        (
            "replicationcontrollers",
            json!({}),
            json!({"spec": {"selector": {"a": "b"}, "template": {"metadata": {"labels": {"a": "b"}}}}}),
            "",
        ),
        ("podtemplates", json!({}), json!({"template": {"spec": {"hostname": "h"}}}), ""),
    ]);
}

#[test]
fn rows() {
    let owner = json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "u", "controller": true}]);
    check_rows(&[
        (
            "daemonsets",
            json!({"spec": {"template": {"spec": {"nodeSelector": {"disk": "ssd"}}}}, "status": {"desiredNumberScheduled": 5,
                "currentNumberScheduled": 4, "numberReady": 3, "updatedNumberScheduled": 2, "numberAvailable": 1}}),
            json!(["x", 5, 4, 3, 2, 1, "disk=ssd", "60m", "c", "i:1", "app=x"]),
        ),
        (
            "statefulsets",
            json!({"spec": {"replicas": 3}, "status": {"readyReplicas": 2}}),
            json!(["x", "2/3", "60m", "c", "i:1"]),
        ),
        ("controllerrevisions", json!({}), json!(["x", "<none>", 1, "60m"])),
        (
            "controllerrevisions",
            json!({"metadata": {"ownerReferences": owner}}),
            json!(["x", "statefulset.apps/db", 1, "60m"]),
        ),
        (
            "replicationcontrollers",
            json!({"spec": {"replicas": 3, "selector": {"app": "x"}}, "status": {"replicas": 2, "readyReplicas": 1}}),
            json!(["x", 3, 2, 1, "60m", "c", "i:1", "app=x"]),
        ),
        ("podtemplates", json!({}), json!(["x", "c", "i:1", "app=x"])),
    ]);
}

/// The pods of a StatefulSet mount its claims as volumes.
#[test]
fn claims_are_volumes() {
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}});
    let mounts = json!([{"name": "data", "mountPath": "/data"}]);
    let containers = json!([{"name": "c", "image": "i:1", "volumeMounts": mounts}]);
    for (claims, expected) in [
        (json!([claim]), Vec::new()),
        (json!([]), vec!["spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"data\"".to_owned()]),
    ] {
        let spec = json!({"volumeClaimTemplates": claims, "template": {"spec": {"containers": containers}}});
        let (kind, object) = object("statefulsets", json!({"spec": spec}));
        assert_eq!(created(kind, object).1, expected);
    }
}

#[test]
fn scales() {
    for plural in ["statefulsets", "replicationcontrollers"] {
        let (kind, object) = object(plural, json!({"spec": {"replicas": 3}}));
        let (mut object, _) = created(kind, object);
        merge(&mut object, json!({"status": {"replicas": 2}}));
        let scale = kind.scale(&object);
        assert_eq!(scale["spec"], json!({"replicas": 3}), "{plural}");
        assert_eq!(scale["status"], json!({"replicas": 2, "selector": "app=x"}), "{plural}");
        assert_eq!(meta::name(&scale), "x");
    }
}
