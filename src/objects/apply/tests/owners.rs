//! Who owns what after applies: sharing, conflicts, force, giving up, pruning; and what kubectl sends.

use super::*;

const KEY: &str = "some-key";

fn data(value: &str) -> Value {
    json!({"data": {(KEY): value}})
}

/// The example of the documentation.
#[test]
fn the_first_apply_owns_what_it_holds() {
    let config = json!({"metadata": {"labels": {"test-label": "test"}}, "data": {"key": "some value"}});
    let new = config_map("kubectl").applies(None, config);
    let entries = json!([{
        "manager": "kubectl",
        "operation": "Apply",
        "apiVersion": "v1",
        "time": "2023-11-14T22:13:20Z",
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:data": {"f:key": {}}, "f:metadata": {"f:labels": {"f:test-label": {}}}},
    }]);
    assert_eq!(new["metadata"]["managedFields"].to_string(), entries.to_string());
    assert_eq!(new["data"], json!({"key": "some value"}));
}

#[test]
fn conflicts_are_worded_as_kubernetes_words_them() {
    let live = deployment("kubectl-client-side-apply").creates(json!({"spec": {"replicas": 3, "paused": true}}));
    let live = deployment("hpa").of("scale").patches(&live, json!({"spec": {"replicas": 5}}));
    let live = deployment("flux").applies(live, json!({"spec": {"minReadySeconds": 1}}));
    let one = deployment("me").tries(Some(&live), json!({"spec": {"paused": false}})).unwrap_err();
    assert_eq!(
        one.to_string(),
        r#"Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using apps/v1: .spec.paused"#
    );
    let all = json!({"spec": {"paused": false, "replicas": 1, "minReadySeconds": 2, "progressDeadlineSeconds": 9}});
    let all = deployment("me").tries(Some(&live), all).unwrap_err();
    assert_eq!(
        all.to_string(),
        "Apply failed with 3 conflicts: conflicts with \"flux\":\n- .spec.minReadySeconds\nconflicts with \"hpa\" with \
         subresource \"scale\" using apps/v1:\n- .spec.replicas\nconflicts with \"kubectl-client-side-apply\" using \
         apps/v1:\n- .spec.paused"
    );
    let ApplyError::Conflicts(conflicts) = all else { panic!("{all}") };
    assert_eq!(conflicts[0].message(), r#"conflict with "flux""#);
    assert_eq!(conflicts[0].field(), ".spec.minReadySeconds");
}

#[test]
fn equal_values_are_shared_and_force_takes_away() {
    let live = config_map("one").applies(None, data("1"));
    let shared = config_map("two").at(1).applies(live.clone(), data("1"));
    let field = json!({"f:data": {"f:some-key": {}}});
    check_owned(&shared, &[("one/Apply", field.clone()), ("two/Apply", field.clone())]);
    // Neither may change it alone.
    assert_eq!(config_map("two").conflicts(&shared, data("2")), [r#"conflict with "one": .data.some-key"#]);
    let taken = config_map("two").at(2).forces(&shared, data("2"));
    check_owned(&taken, &[("two/Apply", field)]);
    assert_eq!(taken["data"], json!({(KEY): "2"}));
}

#[test]
fn who_gives_up_a_shared_field_leaves_it_and_the_last_one_removes_it() {
    let live = config_map("one").applies(None, json!({"data": {"a": "1", "b": "1"}}));
    let live = config_map("two").applies(live, json!({"data": {"a": "1"}}));
    let live = config_map("one").applies(live, json!({"data": {"b": "1"}}));
    assert_eq!(live["data"], json!({"a": "1", "b": "1"}));
    let live = config_map("two").applies(live, json!({}));
    assert_eq!(live["data"], json!({"b": "1"}));
    let live = config_map("one").applies(live, json!({}));
    assert_eq!((live.get("data"), meta::at(&live, MANAGED_FIELDS)), (None, None));
}

/// The documented way to hand replicas over to an autoscaler.
#[test]
fn ownership_is_transferred() {
    let config = |replicas: Value| {
        let mut config = json!({"spec": {"selector": {"matchLabels": {"app": "nginx"}}}});
        merge_into(&mut config, &json!({"spec": replicas}));
        config
    };
    let user = deployment("user");
    let live = user.applies(None, config(json!({"replicas": 3})));
    // Giving it up without an heir removes it.
    assert_eq!(user.applies(live.clone(), config(json!({}))).pointer("/spec/replicas"), None);
    let live = deployment("handover-to-hpa").at(1).applies(live, json!({"spec": {"replicas": 3}}));
    let live = user.at(2).applies(live, config(json!({})));
    assert_eq!(live["spec"]["replicas"], json!(3));
    let live = deployment("hpa").of("scale").at(3).patches(&live, json!({"spec": {"replicas": 5}}));
    check_owned(
        &live,
        &[
            ("user/Apply", json!({"f:spec": {"f:selector": {}}})),
            ("hpa/Update/scale", json!({"f:spec": {"f:replicas": {}}})),
        ],
    );
}

#[test]
fn an_update_takes_from_appliers_and_the_applier_conflicts() {
    let live = config_map("kubectl").applies(None, data("1"));
    let live = config_map("controller").at(1).patches(&live, data("2"));
    check_owned(&live, &[("controller/Update", json!({"f:data": {"f:some-key": {}}}))]);
    assert_eq!(
        config_map("kubectl").conflicts(&live, data("1")),
        [r#"conflict with "controller" using v1: .data.some-key"#]
    );
    // Having lost it, the applier's dropping it leaves it.
    assert_eq!(config_map("kubectl").applies(live, json!({}))["data"], json!({(KEY): "2"}));
}

#[test]
fn a_dropped_item_goes_but_for_what_others_own() {
    let one = deployment("one");
    let item = |rest: Value| {
        let mut item = json!({"name": "c"});
        merge_into(&mut item, &rest);
        containers(json!([{"name": "keep"}, item]))
    };
    let base = one.applies(None, item(json!({"image": "i", "args": ["a"]})));
    let dropped = containers(json!([{"name": "keep"}]));
    let rest = |object: &Value| object.pointer("/spec/template/spec/containers/1").cloned();
    assert_eq!(rest(&one.applies(base.clone(), dropped.clone())), None);

    // Another applier owns the item: what only the first owned goes.
    let live = deployment("two").applies(base.clone(), containers(json!([{"name": "c", "args": ["a"]}])));
    let live = one.applies(live, dropped.clone());
    assert_eq!(rest(&live), Some(json!({"name": "c", "args": ["a"]})));
    let fields = json!({"f:spec": {"f:template": {"f:spec": {"f:containers":
        {"k:{\"name\":\"c\"}": {".": {}, "f:args": {}, "f:name": {}}}}}}});
    assert_eq!(owned(&live)[1], ("two/Apply".to_owned(), fields.to_string()));

    // Somebody updated a field of it, and does not own the item: all of it goes, and with it that owner.
    let mut new = base.clone();
    new["spec"]["template"]["spec"]["containers"][1]["workingDir"] = json!("/");
    updated(Some(&base), &mut new, &deployment("updater").at(1).write());
    let live = one.applies(new, dropped);
    assert_eq!((rest(&live), owned(&live).len()), (None, 1));
}

#[test]
fn dropping_a_map_keeps_the_entries_of_others_and_of_nobody() {
    let one = config_map("one");
    let live = one.applies(None, json!({"data": {"a": "1", "b": "1"}}));
    let live = config_map("two").at(1).patches(&live, json!({"data": {"c": "1"}}));
    assert_eq!(one.applies(live, json!({}))["data"], json!({"c": "1"}));

    // Defaults have no owner; they go with the struct that holds them, and stay beside one's own field.
    let one = deployment("one");
    let mut live = one.applies(None, json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": 1}}, "replicas": 1}}));
    live["spec"]["strategy"]["type"] = json!("RollingUpdate");
    live["spec"]["paused"] = json!(false);
    assert_eq!(one.applies(live, json!({"spec": {"replicas": 1}}))["spec"], json!({"replicas": 1, "paused": false}));
}

/// An applier drops a struct of which another has written something since.
#[test]
fn a_dropped_struct_keeps_what_others_wrote() {
    let one = deployment("one");
    let applied = |strategy: Value| json!({"spec": {"replicas": 1, "strategy": strategy}});
    let without = json!({"spec": {"replicas": 1}});
    let written = json!({"type": "a", "rollingUpdate": {"maxSurge": 1}});
    let rest = json!({"rollingUpdate": {"maxSurge": 1}});
    // what the other wrote, what is applied then, what is left
    let cases = [
        (json!({}), without.clone(), None),
        (json!({}), applied(json!({})), Some(json!({}))),
        (written.clone(), without.clone(), Some(rest.clone())),
        (written.clone(), applied(json!({})), Some(rest.clone())),
        (written, applied(json!(null)), Some(rest)),
        (json!({"type": "b"}), without, Some(json!({"type": "b"}))),
        (json!({"type": "b"}), applied(json!(null)), Some(json!({"type": "b"}))),
    ];
    for (written, then, left) in cases {
        let live = one.applies(None, applied(json!({"type": "a"})));
        let live = deployment("two").at(1).patches(&live, json!({"spec": {"strategy": written}}));
        let new = one.applies(live, then.clone());
        assert_eq!(new.pointer("/spec/strategy").cloned(), left, "{written} {then}");
    }
}

/// Of a kind whose types nobody knows, every entry of a map has owners of its own.
#[test]
fn entries_of_unknown_kinds_are_kept_by_whoever_owns_them() {
    let by = |manager| By { api_version: "example.com/v1", kind: "Anything", ..config_map(manager) };
    let spec = |spec: Value| json!({"spec": spec});
    let one = by("apply-one");
    let live = one.applies(None, spec(json!({"a": {"b": {}}, "c": {"d": {}}})));
    let live = by("apply-two").applies(live, spec(json!({"a": {}, "c": {"d": {}}})));
    let live = by("controller-one").at(1).patches(&live, spec(json!({"a": {"b": {"c": {}}}, "c": {"d": {"e": {}}}})));
    let live = by("controller-two").at(1).patches(&live, spec(json!({"c": {"d": {"e": {"f": {}}}}})));
    let live = by("controller-one").at(1).patches(&live, spec(json!({"c": {"d": {"e": {"f": {"g": {}}}}}})));
    let new = one.applies(live, spec(json!({})));
    assert_eq!(new["spec"], json!({"c": {"d": {"e": {"f": {"g": {}}}}}}));
    check_owned(
        &new,
        &[
            ("apply-one/Apply", json!({"f:spec": {}})),
            ("apply-two/Apply", json!({"f:spec": {"f:a": {}, "f:c": {".": {}, "f:d": {}}}})),
            ("controller-one/Update", json!({"f:spec": {"f:c": {"f:d": {"f:e": {".": {}, "f:f": {"f:g": {}}}}}}})),
            ("controller-two/Update", json!({"f:spec": {"f:c": {"f:d": {"f:e": {"f:f": {}}}}}})),
        ],
    );
}

#[test]
fn a_deleted_item_frees_its_fields() {
    let live = deployment("one").applies(None, containers(json!([{"name": "a"}, {"name": "b"}])));
    let new = deployment("two").at(1).patches(&live, containers(json!([{"name": "a"}])));
    let fields = json!({"f:spec": {"f:template": {"f:spec": {"f:containers":
        {"k:{\"name\":\"a\"}": {".": {}, "f:name": {}}}}}}});
    check_owned(&new, &[("one/Apply", fields)]);
}

#[test]
fn an_apply_that_changes_nothing_keeps_its_time() {
    let one = config_map("one");
    let live = one.applies(None, data("1"));
    assert_eq!(one.at(9).applies(live.clone(), data("1")), live);
    assert_eq!(one.at(9).forces(&live, data("1")), live);
    let shared = config_map("two").at(5).applies(live, data("1"));
    assert_eq!(one.at(9).applies(shared.clone(), data("1")), shared);
    assert_eq!(config_map("two").at(9).applies(shared.clone(), data("1")), shared);
    let changed = one.at(9).forces(&shared, data("2"));
    assert_eq!(changed["metadata"]["managedFields"][0]["time"], json!("2023-11-14T22:13:29Z"));
}

/// Defaults and what the server owns come back after the apply; then nothing has changed either.
#[test]
fn a_write_that_changes_nothing_in_the_end_keeps_its_time() {
    let one = deployment("one");
    let live = one.applies(None, json!({"spec": {"replicas": 1}}));
    let mut live = live;
    meta::set(&mut live, &["metadata", "creationTimestamp"], "2020-01-01T00:00:00Z".into());
    let mut new =
        one.at(9).applies(live.clone(), json!({"metadata": {"creationTimestamp": null}, "spec": {"replicas": 1}}));
    assert_ne!(new, live);
    meta::copy(&mut new, &live, &["metadata", "creationTimestamp"]);
    keep_times(Some(&live), &mut new);
    assert_eq!(new, live);
}

#[test]
fn server_owned_metadata_has_no_owner() {
    let config = json!({"metadata": {"namespace": "default", "uid": "u", "resourceVersion": "7", "generation": 1,
        "creationTimestamp": null, "deletionTimestamp": null, "selfLink": "/x", "annotations": {"a": "b"}}});
    let new = config_map("m").applies(None, config);
    check_owned(&new, &[("m/Apply", json!({"f:metadata": {"f:annotations": {"f:a": {}}}}))]);
    // Nothing but these: no entry.
    assert_eq!(meta::at(&config_map("m").applies(None, json!({})), MANAGED_FIELDS), None);
}

#[test]
fn status_is_owned_by_writes_of_status_alone() {
    let both = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"replicas": 1}, "status": {"replicas": 1}});
    let live = deployment("m").applies(None, both.clone());
    check_owned(&live, &[("m/Apply", json!({"f:metadata": {"f:labels": {"f:a": {}}}, "f:spec": {"f:replicas": {}}}))]);
    let new = deployment("m").of("status").applies(live, both.clone());
    assert_eq!(
        owned(&new)[1],
        (
            "m/Apply/status".to_owned(),
            json!({"f:metadata": {"f:labels": {"f:a": {}}}, "f:status": {"f:replicas": {}}}).to_string()
        )
    );
    let new = deployment("m").of("scale").applies(None, both);
    check_owned(&new, &[("m/Apply/scale", json!({"f:spec": {"f:replicas": {}}}))]);
    // Of a kind without the subresource, status is a field like others.
    let new = config_map("m").applies(None, json!({"status": {"a": 1}}));
    check_owned(&new, &[("m/Apply", json!({"f:status": {"f:a": {}}}))]);
}

#[test]
fn an_object_without_owners_belongs_to_those_before() {
    let live = deployment("x").whole(
        &json!({"metadata": {"uid": "u", "labels": {"a": "1"}}, "spec": {"replicas": 3}, "status": {"replicas": 3}}),
    );
    let by = deployment("me");
    assert_eq!(
        by.conflicts(&live, json!({"spec": {"replicas": 1}})),
        [r#"conflict with "before-first-apply" using apps/v1: .spec.replicas"#]
    );
    let new = by.applies(live, json!({"spec": {"replicas": 3}}));
    check_owned(
        &new,
        &[
            ("me/Apply", json!({"f:spec": {"f:replicas": {}}})),
            (
                "before-first-apply/Update",
                json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}, "f:spec": {"f:replicas": {}}}),
            ),
        ],
    );
}

#[test]
fn a_new_version_of_a_kind_is_the_same_applier() {
    let mut live = config_map("one").applies(None, data("1"));
    live["metadata"]["managedFields"][0]["apiVersion"] = json!("v1beta1");
    let new = config_map("one").applies(live, json!({"data": {"other": "1"}}));
    assert_eq!(new["data"], json!({"other": "1"}));
    check_owned(&new, &[("one/Apply", json!({"f:data": {"f:other": {}}}))]);
}

/// A Deployment that `kubectl apply` made, with its annotation.
fn client_side(config: &Value) -> Value {
    let by = deployment("kubectl-client-side-apply");
    let mut object = config.clone();
    let annotation = format!("{}\n", by.whole(config));
    meta::set(&mut object, &["metadata", "annotations", LAST_APPLIED], annotation.into());
    by.creates(object)
}

#[test]
fn kubectl_takes_over_what_it_applied_client_side() {
    let live = client_side(&json!({"spec": {"replicas": 3, "paused": true}}));
    let config = json!({"spec": {"replicas": 2, "paused": true}});
    // Others conflict, and so does kubectl over what has changed since.
    assert_eq!(
        deployment("me").conflicts(&live, config.clone()),
        [r#"conflict with "kubectl-client-side-apply" using apps/v1: .spec.replicas"#]
    );
    let scaled = deployment("hpa").at(1).patches(&live, json!({"spec": {"replicas": 9}}));
    assert_eq!(
        deployment("kubectl").conflicts(&scaled, config.clone()),
        [r#"conflict with "hpa" using apps/v1: .spec.replicas"#]
    );
    let new = deployment("kubectl").at(2).applies(live, config.clone());
    assert_eq!(new["spec"], json!({"replicas": 2, "paused": true}));
    let (kubectl, rest) = (&owned(&new)[0], &owned(&new)[1]);
    assert_eq!(
        *kubectl,
        ("kubectl/Apply".to_owned(), json!({"f:spec": {"f:paused": {}, "f:replicas": {}}}).to_string())
    );
    assert!(!rest.1.contains("replicas") && rest.1.contains("paused"), "{rest:?}");
    // The annotation follows, for the client that goes back.
    let kept: Value = serde_json::from_str(meta::annotation(&new, LAST_APPLIED)).unwrap();
    assert_eq!(kept["spec"], config["spec"]);
}

/// The three requests of `kubectl apply --server-side` to an object of client-side apply, and the apply after them.
#[test]
fn kubectl_migrates_an_object() {
    let config = json!({"spec": {"replicas": 3, "paused": true}});
    let kubectl = deployment("kubectl").at(1);
    let live = kubectl.applies(client_side(&config), config.clone());
    // It saves the annotation for itself.
    let annotation = json!({"metadata": {"annotations": {(LAST_APPLIED): meta::annotation(&live, LAST_APPLIED)}}});
    let live = deployment("kubectl-last-applied").at(1).applies(live, annotation);
    // It moves the fields of client-side apply to its own entry with a JSON patch.
    let mut entries: Vec<Value> = live["metadata"]["managedFields"].as_array().unwrap().clone();
    assert_eq!(entries.len(), 3);
    entries.retain(|entry| entry["operation"] == "Apply");
    let ops = json!([{"op": "replace", "path": "/metadata/managedFields", "value": entries}]);
    let mut new = live.clone();
    crate::patch::json_patch(&mut new, &ops).unwrap();
    updated(Some(&live), &mut new, &kubectl.write());
    assert_eq!(
        owned(&new).iter().map(|(who, _)| who.as_str()).collect::<Vec<_>>(),
        ["kubectl/Apply", "kubectl-last-applied/Apply"]
    );
    // From now on a dropped field goes.
    let new = kubectl.at(2).applies(new, json!({"spec": {"replicas": 3}}));
    assert_eq!(new["spec"], json!({"replicas": 3}));
    assert!(meta::annotation(&new, LAST_APPLIED).contains("replicas"));
    assert!(!meta::annotation(&new, LAST_APPLIED).contains("paused"));
}
