//! Who owns what after all other writes.

use super::*;

/// What `kubectl apply` of the documented nginx Deployment leaves.
#[test]
fn a_creation_owns_what_was_sent_and_defaulted() {
    let new = deployment("kubectl-client-side-apply").creates(json!({
        "metadata": {"annotations": {(LAST_APPLIED): "{}"}},
        "spec": {
            "progressDeadlineSeconds": 600, "replicas": 2, "revisionHistoryLimit": 10,
            "selector": {"matchLabels": {"app": "nginx"}},
            "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}, "type": "RollingUpdate"},
            "template": {
                "metadata": {"creationTimestamp": null, "labels": {"app": "nginx"}},
                "spec": {
                    "containers": [{
                        "image": "nginx:1.14.2", "imagePullPolicy": "IfNotPresent", "name": "nginx",
                        "ports": [{"containerPort": 80, "protocol": "TCP"}], "resources": {},
                        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                    }],
                    "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
                    "securityContext": {}, "terminationGracePeriodSeconds": 30,
                },
            },
        },
        "status": {"replicas": 0},
    }));
    let fields = json!({
        "f:metadata": {"f:annotations": {".": {}, "f:kubectl.kubernetes.io/last-applied-configuration": {}}},
        "f:spec": {
            "f:progressDeadlineSeconds": {}, "f:replicas": {}, "f:revisionHistoryLimit": {}, "f:selector": {},
            "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}, "f:maxUnavailable": {}}, "f:type": {}},
            "f:template": {
                "f:metadata": {"f:creationTimestamp": {}, "f:labels": {".": {}, "f:app": {}}},
                "f:spec": {
                    "f:containers": {"k:{\"name\":\"nginx\"}": {
                        ".": {}, "f:image": {}, "f:imagePullPolicy": {}, "f:name": {},
                        "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {
                            ".": {}, "f:containerPort": {}, "f:protocol": {}}},
                        "f:resources": {}, "f:terminationMessagePath": {}, "f:terminationMessagePolicy": {}}},
                    "f:dnsPolicy": {}, "f:restartPolicy": {}, "f:schedulerName": {}, "f:securityContext": {},
                    "f:terminationGracePeriodSeconds": {},
                },
            },
        },
    });
    check_owned(&new, &[("kubectl-client-side-apply/Update", fields)]);
}

#[test]
fn who_writes_owns_and_others_lose() {
    let live = config_map("one").creates(json!({"data": {"a": "1", "b": "1", "c": "1"}}));
    let new = config_map("two").at(1).patches(&live, json!({"data": {"a": "2", "b": null, "d": "1"}}));
    check_owned(
        &new,
        &[
            ("one/Update", json!({"f:data": {".": {}, "f:c": {}}})),
            ("two/Update", json!({"f:data": {"f:a": {}, "f:d": {}}})),
        ],
    );
    // More of the same manager is added to what it has.
    let new = config_map("two").at(2).patches(&new, json!({"data": {"c": "2"}}));
    check_owned(
        &new,
        &[("one/Update", json!({"f:data": {}})), ("two/Update", json!({"f:data": {"f:a": {}, "f:c": {}, "f:d": {}}}))],
    );
    // Who has nothing left is gone.
    let new = config_map("two").at(3).patches(&new, json!({"data": null}));
    check_owned(&new, &[]);
}

#[test]
fn entries_differ_by_operation_version_and_subresource() {
    let by = deployment("m");
    let live = by.applies(None, json!({"spec": {"replicas": 1}}));
    let live = by.at(1).patches(&live, json!({"spec": {"paused": true}}));
    let live = by.of("status").at(2).patches(&live, json!({"status": {"replicas": 1}}));
    check_owned(
        &live,
        &[
            ("m/Apply", json!({"f:spec": {"f:replicas": {}}})),
            ("m/Update", json!({"f:spec": {"f:paused": {}}})),
            ("m/Update/status", json!({"f:status": {"f:replicas": {}}})),
        ],
    );
    let times: Vec<&str> = meta::list(&live, MANAGED_FIELDS).iter().map(|entry| meta::text(entry, &["time"])).collect();
    assert_eq!(times, ["2023-11-14T22:13:20Z", "2023-11-14T22:13:21Z", "2023-11-14T22:13:22Z"]);
}

#[test]
fn a_write_of_nothing_new_is_none() {
    let live = config_map("one").creates(json!({"data": {"a": "1"}}));
    assert_eq!(config_map("two").at(5).patches(&live, json!({"data": {"a": "1"}})), live);
}

#[test]
fn status_is_not_of_the_object_nor_the_object_of_status() {
    let live = deployment("m").creates(json!({"spec": {"replicas": 1}}));
    let both = json!({"spec": {"replicas": 2}, "status": {"replicas": 2}, "metadata": {"labels": {"a": "1"}}});
    let main = deployment("other").at(1).patches(&live, both.clone());
    assert_eq!(
        owned(&main)[0].1,
        json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}, "f:spec": {"f:replicas": {}}}).to_string()
    );
    let status = deployment("other").of("status").at(1).patches(&live, both);
    assert_eq!(
        owned(&status)[1].1,
        json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}, "f:status": {"f:replicas": {}}}).to_string()
    );
    assert_eq!(owned(&status)[0], ("m/Update".to_owned(), json!({"f:spec": {"f:replicas": {}}}).to_string()));
}

#[test]
fn a_nameless_manager_is_unknown() {
    check_owned(
        &config_map("").creates(json!({"data": {"a": "1"}})),
        &[("unknown/Update", json!({"f:data": {".": {}, "f:a": {}}}))],
    );
}

#[test]
fn clients_may_write_the_entries() {
    let live = config_map("one").applies(None, json!({"data": {"a": "1"}}));
    let entry = live["metadata"]["managedFields"][0].clone();
    let mine = |name: &str, value: Value| {
        let mut entry = entry.clone();
        entry[name] = value;
        json!([entry])
    };
    let was: &[(&str, Value)] = &[("one/Apply", json!({"f:data": {"f:a": {}}}))];
    let other: &[(&str, Value)] = &[("two/Apply", json!({"f:data": {"f:a": {}}}))];
    let cases = [
        // None, and none that can be read, leave them.
        (json!(null), was),
        (mine("operation", json!("Create")), was),
        (mine("apiVersion", json!("")), was),
        (mine("fieldsType", json!("FieldsV2")), was),
        (mine("fieldsV1", json!({"x": {}})), was),
        (json!([{}, {}]), was),
        (mine("manager", json!("two")), other),
        // A reset.
        (json!([]), &[]),
        (json!([{}]), &[]),
    ];
    for (sent, expect) in cases {
        let new = config_map("writer").patches(&live, json!({"metadata": {"managedFields": sent}}));
        check_owned(&new, expect);
        // Not with a subresource.
        let new = config_map("writer").of("status").patches(&live, json!({"metadata": {"managedFields": sent}}));
        check_owned(&new, was);
    }
}

#[test]
fn without_entries_none_are_kept_until_an_apply() {
    let live = config_map("one").applies(None, json!({"data": {"a": "1"}}));
    let reset = config_map("x").patches(&live, json!({"metadata": {"managedFields": [{}]}, "data": {"b": "1"}}));
    check_owned(&reset, &[]);
    let later = config_map("y").patches(&reset, json!({"data": {"b": "2"}}));
    check_owned(&later, &[]);
    let new = config_map("one").applies(later, json!({"data": {"b": "2"}}));
    assert_eq!(
        owned(&new).iter().map(|(who, _)| who.as_str()).collect::<Vec<_>>(),
        ["one/Apply", "before-first-apply/Update"]
    );
}

#[test]
fn old_updates_are_put_together() {
    let mut live = config_map("applier").applies(None, json!({"data": {"a": "1"}}));
    const NAMES: [&str; 13] = ["m0", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "m9", "m10", "m11", "m12"];
    for (second, name) in NAMES.into_iter().enumerate() {
        live = config_map(name).at(second as i64).patches(&live, json!({"data": {(name): "1"}}));
    }
    let owned = owned(&live);
    assert_eq!(owned.iter().filter(|(who, _)| who.ends_with("/Update")).count(), UPDATERS_MAX);
    assert_eq!(owned[0].0, "applier/Apply");
    assert_eq!(
        owned[1],
        (
            "ancient-changes/Update".to_owned(),
            json!({"f:data": {"f:m0": {}, "f:m1": {}, "f:m2": {}, "f:m3": {}}}).to_string()
        )
    );
    assert_eq!(live["metadata"]["managedFields"][1]["time"], json!("2023-11-14T22:13:23Z"));
}
