//! PersistentVolume, PersistentVolumeClaim and StorageClass.

use serde_json::{Value, json};

use super::{check_changes, check_defaults, check_refused, check_rows};

#[test]
fn defaults() {
    check_defaults(&[
        ("persistentvolumes", json!({}), "/spec/persistentVolumeReclaimPolicy", json!("Retain")),
        ("persistentvolumes", json!({}), "/spec/volumeMode", json!("Filesystem")),
        ("persistentvolumes", json!({}), "/status", json!({"phase": "Pending"})),
        (
            "persistentvolumes",
            json!({"spec": {"capacity": {"storage": "1024Mi"}}}),
            "/spec/capacity/storage",
            json!("1Gi"),
        ),
        ("persistentvolumeclaims", json!({}), "/spec/volumeMode", json!("Filesystem")),
        ("persistentvolumeclaims", json!({"status": {"phase": "Bound"}}), "/status", json!({"phase": "Pending"})),
        (
            "persistentvolumeclaims",
            json!({"spec": {"dataSource": {"kind": "PersistentVolumeClaim", "name": "old"}}}),
            "/spec/dataSourceRef",
            json!({"kind": "PersistentVolumeClaim", "name": "old"}),
        ),
        // Empty is another thing than not said: no class at all, not the default one.
        ("persistentvolumeclaims", json!({"spec": {"storageClassName": ""}}), "/spec/storageClassName", json!("")),
        ("storageclasses", json!({}), "/reclaimPolicy", json!("Delete")),
        (
            "storageclasses",
            json!({"volumeBindingMode": "WaitForFirstConsumer"}),
            "/volumeBindingMode",
            json!("WaitForFirstConsumer"),
        ),
        ("storageclasses", json!({}), "/volumeBindingMode", json!("Immediate")),
    ]);
}

#[test]
fn refused() {
    let spec = |spec: Value| json!({ "spec": spec });
    check_refused(&[
        ("persistentvolumes", spec(json!({"hostPath": null})), "spec: Required value: must specify a volume type"),
        (
            "persistentvolumes",
            spec(json!({"nfs": {"server": "a", "path": "/b"}})),
            "spec.nfs: Forbidden: may not specify more than 1 volume type",
        ),
        ("persistentvolumes", spec(json!({"accessModes": []})), "spec.accessModes: Required value"),
        (
            "persistentvolumes",
            spec(json!({"accessModes": ["ReadWrite"]})),
            "spec.accessModes: Unsupported value: \"ReadWrite\": supported values: \"ReadOnlyMany\"",
        ),
        (
            "persistentvolumes",
            spec(json!({"accessModes": ["ReadWriteOncePod", "ReadOnlyMany"]})),
            "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
        ),
        ("persistentvolumes", spec(json!({"capacity": null})), "spec.capacity: Required value"),
        (
            "persistentvolumes",
            spec(json!({"capacity": {"storage": "0"}})),
            "spec.capacity[storage]: Invalid value: \"0\": must be greater than zero",
        ),
        ("persistentvolumes", spec(json!({"capacity": {"cpu": "1"}})), "spec.capacity: Unsupported value: "),
        (
            "persistentvolumes",
            spec(json!({"persistentVolumeReclaimPolicy": "Burn"})),
            "spec.persistentVolumeReclaimPolicy: Unsupported value: \"Burn\"",
        ),
        (
            "persistentvolumes",
            spec(json!({"hostPath": null, "local": {"path": "/disk"}})),
            "spec.nodeAffinity: Required value: Local volume requires node affinity",
        ),
        (
            "persistentvolumes",
            spec(json!({"hostPath": {"path": "/a/../b"}})),
            "spec.hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
        ),
        (
            "persistentvolumeclaims",
            spec(json!({"accessModes": null})),
            "spec.accessModes: Required value: at least 1 access mode is required",
        ),
        ("persistentvolumeclaims", spec(json!({"resources": null})), "spec.resources[storage]: Required value"),
        (
            "persistentvolumeclaims",
            spec(json!({"resources": {"requests": {"storage": "-1"}}})),
            "spec.resources[storage]: Invalid value: \"-1\": must be greater than zero",
        ),
        (
            "persistentvolumeclaims",
            spec(json!({"volumeMode": "Tape"})),
            "spec.volumeMode: Unsupported value: \"Tape\": supported values: \"Block\", \"Filesystem\"",
        ),
        ("storageclasses", json!({"provisioner": null}), "provisioner: Required value"),
        (
            "storageclasses",
            json!({"reclaimPolicy": "Recycle"}),
            "reclaimPolicy: Unsupported value: \"Recycle\": supported values: \"Delete\", \"Retain\"",
        ),
        ("storageclasses", json!({"volumeBindingMode": "Later"}), "volumeBindingMode: Unsupported value: \"Later\""),
        (
            "storageclasses",
            json!({"parameters": {"": "x"}}),
            "parameters: Invalid value: \"\": field can not be empty.",
        ),
    ]);
}

#[test]
fn changes() {
    let size = |size: &str| json!({"spec": {"resources": {"requests": {"storage": size}}}});
    let bound = json!({"spec": {"volumeName": "v", "resources": {"requests": {"storage": "3Gi"}}},
        "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}});
    let immutable = "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
    check_changes(&[
        (
            "persistentvolumes",
            json!({}),
            json!({"spec": {"hostPath": {"path": "/other"}}}),
            "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation",
        ),
        ("persistentvolumes", json!({}), json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}}), ""),
        ("persistentvolumes", json!({}), json!({"spec": {"claimRef": {"name": "c", "namespace": "n"}}}), ""),
        (
            "persistentvolumes",
            json!({}),
            json!({"spec": {"volumeMode": "Block"}}),
            "spec.volumeMode: Invalid value: \"Block\": field is immutable",
        ),
        ("persistentvolumeclaims", json!({}), size("2Gi"), immutable),
        ("persistentvolumeclaims", json!({}), json!({"spec": {"volumeName": "v"}}), ""),
        (
            "persistentvolumeclaims",
            json!({"spec": {"volumeName": "v"}}),
            json!({"spec": {"volumeName": "w"}}),
            immutable,
        ),
        ("persistentvolumeclaims", json!({}), json!({"spec": {"storageClassName": "fast"}}), ""),
        (
            "persistentvolumeclaims",
            json!({"spec": {"storageClassName": "a"}}),
            json!({"spec": {"storageClassName": "b"}}),
            immutable,
        ),
        (
            "persistentvolumeclaims",
            json!({"spec": {"storageClassName": ""}}),
            json!({"spec": {"storageClassName": null}}),
            immutable,
        ),
        ("persistentvolumeclaims", bound.clone(), size("4Gi"), ""),
        ("persistentvolumeclaims", bound.clone(), size("2Gi"), ""),
        (
            "persistentvolumeclaims",
            bound.clone(),
            size("1Gi"),
            "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity",
        ),
        ("persistentvolumeclaims", bound, json!({"spec": {"accessModes": ["ReadOnlyMany"]}}), immutable),
        (
            "storageclasses",
            json!({}),
            json!({"parameters": {"a": "b"}}),
            "parameters: Forbidden: updates to parameters are forbidden.",
        ),
        (
            "storageclasses",
            json!({}),
            json!({"provisioner": "example.com/other"}),
            "provisioner: Forbidden: updates to provisioner are forbidden.",
        ),
        (
            "storageclasses",
            json!({}),
            json!({"reclaimPolicy": "Retain"}),
            "reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden.",
        ),
        (
            "storageclasses",
            json!({}),
            json!({"volumeBindingMode": "WaitForFirstConsumer"}),
            "volumeBindingMode: Invalid value: \"WaitForFirstConsumer\": field is immutable",
        ),
        ("storageclasses", json!({}), json!({"allowVolumeExpansion": true}), ""),
    ]);
}

#[test]
fn rows() {
    check_rows(&[
        (
            "persistentvolumes",
            json!({"spec": {"accessModes": ["ReadWriteMany", "ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "fast",
                "claimRef": {"namespace": "n", "name": "c"}}, "status": {"phase": "Bound"}}),
            json!(["x", "1Gi", "RWO,RWX", "Retain", "Bound", "n/c", "fast", "<unset>", "", "60m", "<unset>"]),
        ),
        (
            "persistentvolumeclaims",
            json!({"status": {"phase": "Pending"}}),
            json!(["x", "Pending", "", "", "", "", "<unset>", "60m", "<unset>"]),
        ),
        (
            "persistentvolumeclaims",
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"volumeName": "v", "storageClassName": "fast", "volumeMode": "Block"},
                "status": {"phase": "Bound", "capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOncePod"]}}),
            json!(["x", "Terminating", "v", "2Gi", "RWOP", "fast", "<unset>", "60m", "Block"]),
        ),
        ("storageclasses", json!({}), json!(["x", "example.com/disks", "Delete", "Immediate", false, "60m"])),
        (
            "storageclasses",
            json!({"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "allowVolumeExpansion": true}),
            json!(["x (default)", "example.com/disks", "Delete", "Immediate", true, "60m"]),
        ),
    ]);
}
