//! What an apply makes of lists and maps.

use super::*;

fn names(object: &Value) -> Vec<String> {
    let list = object.pointer("/spec/template/spec/containers").and_then(Value::as_array).cloned().unwrap_or_default();
    list.iter().map(|item| meta::name(&json!({"metadata": item})).to_owned()).collect()
}

fn named(names: &str) -> Value {
    containers(names.chars().map(|name| json!({"name": name.to_string()})).collect())
}

#[test]
fn applied_items_come_in_applied_order() {
    // live, applied by another manager, merged
    let cases = [
        ("abc", "abc", "abc"),
        ("abc", "b", "abc"),
        ("abc", "cxa", "bcxa"),
        ("abc", "xa", "xabc"),
        ("abc", "x", "abcx"),
        ("abcd", "db", "acdb"),
        ("", "ba", "ba"),
    ];
    for (live, applied, merged) in cases {
        let live = deployment("one").applies(None, named(live));
        let new = deployment("two").applies(live, named(applied));
        assert_eq!(names(&new).concat(), merged, "{applied}");
        assert_eq!(names(&deployment("two").applies(new, named(applied))).concat(), merged, "again {applied}");
    }
}

#[test]
fn items_are_merged_by_their_keys() {
    let live = deployment("one").applies(
        None,
        containers(json!([{"name": "c", "image": "i:1", "ports": [{"containerPort": 53, "name": "dns"}]}])),
    );
    let new = deployment("two").applies(
        live,
        containers(json!([{"name": "c", "args": ["a"], "ports": [
            {"containerPort": 53, "protocol": "TCP", "hostPort": 53},
            {"containerPort": 53, "protocol": "UDP"},
        ]}])),
    );
    let merged = json!([{"name": "c", "image": "i:1", "ports": [
        {"containerPort": 53, "name": "dns", "protocol": "TCP", "hostPort": 53},
        {"containerPort": 53, "protocol": "UDP"},
    ], "args": ["a"]}]);
    assert_eq!(new["spec"]["template"]["spec"]["containers"], merged);
}

#[test]
fn a_set_is_joined_and_an_atomic_list_replaced() {
    let live = config_map("one").applies(None, json!({"metadata": {"finalizers": ["a/a", "b/b"]}}));
    let new = config_map("two").applies(live, json!({"metadata": {"finalizers": ["b/b", "c/c"]}}));
    assert_eq!(new["metadata"]["finalizers"], json!(["a/a", "b/b", "c/c"]));
    let new = config_map("one").applies(new, json!({}));
    assert_eq!(new["metadata"]["finalizers"], json!(["b/b", "c/c"]));

    let tolerate = |keys: &[&str]| {
        let list: Vec<Value> = keys.iter().map(|key| json!({"key": key, "operator": "Exists"})).collect();
        json!({"spec": {"template": {"spec": {"tolerations": list}}}})
    };
    let live = deployment("one").applies(None, tolerate(&["a", "b"]));
    assert_eq!(
        deployment("two").conflicts(&live, tolerate(&["c"])),
        [r#"conflict with "one": .spec.template.spec.tolerations"#]
    );
    let new = deployment("two").forces(&live, tolerate(&["c"]));
    assert_eq!(new.pointer("/spec/template/spec/tolerations/0/key"), Some(&json!("c")));
    check_owned(&new, &[("two/Apply", json!({"f:spec": {"f:template": {"f:spec": {"f:tolerations": {}}}}}))]);
}

#[test]
fn an_atomic_map_has_one_owner() {
    let select = |key: &str| json!({"spec": {"selector": {(key): "x"}}});
    let live = service("one").applies(None, select("a"));
    assert_eq!(service("two").conflicts(&live, select("b")), [r#"conflict with "one": .spec.selector"#]);
    assert_eq!(service("one").applies(live, select("b"))["spec"]["selector"], json!({"b": "x"}));
}

#[test]
fn lists_without_keys_or_with_one_twice_are_refused() {
    let env = |env: Value| containers(json!([{"name": "c", "env": env}]));
    let port = |ports: Value| json!({"spec": {"ports": ports}});
    let cases = [
        (
            deployment("m"),
            env(json!([{"name": "A"}, {"name": "B"}, {"name": "A"}])),
            r#".spec.template.spec.containers[name="c"].env: duplicate entries for key [name="A"]"#,
        ),
        (
            deployment("m"),
            env(json!([{"value": "1"}])),
            r#".spec.template.spec.containers[name="c"].env: element 0: associative list with keys has an element that omits key field "name" (and doesn't have default value)"#,
        ),
        (
            service("m"),
            port(json!([{"port": 80}, {"port": 80, "protocol": "TCP"}])),
            r#".spec.ports: duplicate entries for key [port=80,protocol="TCP"]"#,
        ),
        (
            service("m"),
            port(json!([80])),
            ".spec.ports: element 0: associative list with keys may not have non-map elements",
        ),
        (
            service("m"),
            json!({"metadata": {"finalizers": ["a/a", "a/a"]}}),
            r#".metadata.finalizers: duplicate entries for key [="a/a"]"#,
        ),
        (
            service("m"),
            json!({"metadata": {"finalizers": [null]}}),
            ".metadata.finalizers: element 0: associative list without keys has an element that's an explicit null",
        ),
        (
            service("m"),
            json!({"apiVersion": "v2"}),
            "Incorrect version specified in apply patch. Specified patch version: v2, expected: v1",
        ),
        (service("m"), json!({"metadata": {"managedFields": []}}), "metadata.managedFields must be nil"),
    ];
    for (by, config, message) in cases {
        assert_eq!(by.tries(None, config), Err(ApplyError::Malformed(message.to_owned())));
    }
    assert!(matches!(apply(None, &json!([]), &service("m").write(), false), Err(ApplyError::Malformed(_))));
}

/// Two variables of one name are valid in a Pod, so a live object may have them.
#[test]
fn live_duplicates_have_one_owner_and_give_way() {
    let env = |env: Value| containers(json!([{"name": "c", "env": env}]));
    let live = deployment("one")
        .creates(env(json!([{"name": "A", "value": "1"}, {"name": "A", "value": "2"}, {"name": "B"}])));
    let fields = &owned(&live)[0].1;
    assert!(fields.contains(r#""k:{\"name\":\"A\"}":{},"k:{\"name\":\"B\"}":{".":{}"#), "{fields}");
    let two = deployment("two");
    assert!(two.tries(Some(&live), env(json!([{"name": "B"}]))).is_ok());
    let config = env(json!([{"name": "A", "value": "3"}]));
    assert_eq!(
        two.conflicts(&live, config.clone()),
        [r#"conflict with "one" using apps/v1: .spec.template.spec.containers[name="c"].env[name="A"]"#]
    );
    let new = two.forces(&live, config);
    let variables = new.pointer("/spec/template/spec/containers/0/env").unwrap();
    assert_eq!(variables, &json!([{"name": "A", "value": "3"}, {"name": "B"}]));
}

#[test]
fn nulls_own_and_empty() {
    let live = deployment("one").applies(None, json!({"spec": {"replicas": 3, "paused": true}}));
    // A null is another value.
    assert_eq!(
        deployment("two").conflicts(&live, json!({"spec": {"replicas": null}})),
        [r#"conflict with "one": .spec.replicas"#]
    );
    let new = deployment("two").forces(&live, json!({"spec": {"replicas": null}}));
    assert_eq!(new["spec"], json!({"paused": true}));
    check_owned(
        &new,
        &[("one/Apply", json!({"f:spec": {"f:paused": {}}})), ("two/Apply", json!({"f:spec": {"f:replicas": {}}}))],
    );
    // It says nothing about what is in a map.
    let live = config_map("one").applies(None, json!({"metadata": {"labels": {"a": "1"}}}));
    let new = config_map("two").applies(live, json!({"metadata": {"labels": null}}));
    assert_eq!(new["metadata"]["labels"], json!({"a": "1"}));
}

#[test]
fn empty_maps_and_structs_are_owned() {
    let volume = json!({"spec": {"template": {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}}});
    let new = deployment("m").applies(None, volume);
    let fields = json!({"f:spec": {"f:template": {"f:spec": {"f:volumes":
        {"k:{\"name\":\"v\"}": {".": {}, "f:emptyDir": {}, "f:name": {}}}}}}});
    check_owned(&new, &[("m/Apply", fields)]);
}
