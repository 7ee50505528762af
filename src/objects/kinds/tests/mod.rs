//! Tables over all kinds: decoding, defaults, validation, updates, printed rows. A file here per group of kinds.

mod apps;
mod authorization;
mod autoscaling;
mod batch;
mod every;
mod limits;
mod minimal;
mod networking;
mod storage;
mod views;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Kind, Kinds, Part};
use crate::meta;

fn kind(group: &str, plural: &str) -> &'static Kind {
    Kinds::builtin().by_resource(group, plural).expect("a built-in kind")
}

fn pods() -> &'static Kind {
    kind("", "pods")
}

fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec})
}

/// A pod of one container `c` with further members.
fn with_container(extra: Value) -> Value {
    let mut container = json!({"name": "c", "image": "i:1"});
    merge(&mut container, extra);
    pod(json!({"containers": [container]}))
}

fn merge(into: &mut Value, extra: Value) {
    crate::patch::merge(into, &extra).expect("an object");
}

fn deployment(extra: Value) -> Value {
    let mut object = json!({
        "metadata": {"name": "web", "namespace": "n"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "i:1"}]},
            },
        },
    });
    merge(&mut object, extra);
    object
}

fn service(spec: Value) -> Value {
    json!({"metadata": {"name": "s", "namespace": "n"}, "spec": spec})
}

/// The object as a create leaves it, and what is wrong with it.
fn created(kind: &Kind, mut object: Value) -> (Value, Vec<String>) {
    kind.decode(&mut object).expect("types fit");
    kind.default(&mut object);
    meta::set(&mut object, &["metadata", "uid"], "u1".into());
    kind.prepare_create(&mut object);
    let errors = kind.validate(&object, None).iter().map(ToString::to_string).collect();
    (object, errors)
}

/// The minimal object of a kind with further members.
fn object(plural: &str, extra: Value) -> (&'static Kind, Value) {
    let kind = Kinds::builtin().all().find(|kind| kind.plural == plural).expect("a built-in kind");
    let mut object = minimal::of(kind);
    merge(&mut object, extra);
    (kind, object)
}

/// What a create fills in: kind, members beyond the minimal object, and what then stands where.
fn check_defaults(cases: &[(&str, Value, &str, Value)]) {
    for (plural, extra, path, expected) in cases {
        let (kind, object) = object(plural, extra.clone());
        let (object, errors) = created(kind, object);
        assert_eq!(object.pointer(path).unwrap_or(&Value::Null), expected, "{plural} {path}");
        assert_eq!(errors, Vec::<String>::new(), "{plural}");
    }
}

/// What is refused: kind, members beyond the minimal object, and the beginning of an error.
fn check_refused(cases: &[(&str, Value, &str)]) {
    for (plural, extra, expected) in cases {
        let (kind, object) = object(plural, extra.clone());
        let (_, errors) = created(kind, object);
        assert!(errors.iter().any(|error| error.starts_with(expected)), "{plural}: {expected}\nnot in {errors:#?}");
    }
}

/// What may change: kind, what is different from the minimal object and what then changes, and the beginning of the
/// error, empty where there is none.
fn check_changes(cases: &[(&str, Value, Value, &str)]) {
    for (plural, extra, change, expected) in cases {
        let (kind, object) = object(plural, extra.clone());
        let (mut old, _) = created(kind, object);
        // A create gives a status of its own.
        merge(&mut old, json!({"status": extra.get("status")}));
        let mut new = old.clone();
        merge(&mut new, change.clone());
        kind.default(&mut new);
        kind.prepare_update(&mut new, &old, Part::Main);
        let errors: Vec<String> = kind.validate(&new, Some(&old)).iter().map(ToString::to_string).collect();
        if expected.is_empty() {
            assert_eq!(errors, Vec::<String>::new(), "{plural} {change}");
        } else {
            assert!(errors.iter().any(|error| error.starts_with(expected)), "{plural}: {expected}\nnot in {errors:#?}");
        }
    }
}

/// Printed rows: kind, members beyond the minimal object, and the cells, the wide ones too. It is an hour old.
fn check_rows(cases: &[(&str, Value, Value)]) {
    let now: Timestamp = "2026-01-01T01:00:00Z".parse().expect("a time");
    for (plural, extra, expected) in cases {
        let (kind, mut object) = object(plural, extra.clone());
        merge(&mut object, json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}}));
        assert_eq!(&Value::from(kind.row(&object, now)), expected, "{plural}");
    }
}

#[test]
fn decoding_names_the_place() {
    for (kind, object, field, text) in [
        (
            kind("apps", "deployments"),
            json!({"spec": {"replicas": "three"}}),
            "spec.replicas",
            "Deployment in version \"apps/v1\" cannot be handled as a Deployment: spec.replicas: invalid type: string \"three\", expected i32",
        ),
        (
            pods(),
            json!({"spec": {"containers": [{"ports": [{"containerPort": "x"}]}]}}),
            "spec.containers[0].ports[0].containerPort",
            "expected i32",
        ),
        (pods(), json!({"spec": {"containers": {}}}), "spec.containers", "expected a sequence"),
        (pods(), json!({"metadata": {"labels": {"a": 1}}}), "metadata.labels.a", "expected a string"),
    ] {
        let mut object = object;
        let error = kind.decode(&mut object).expect_err("wrong type");
        assert_eq!(error.field, field);
        assert!(error.message.contains(text), "{error}");
    }
    let mut object = with_container(json!({"imagee": "x", "resources": {"limits": {"cpu": 1}}}));
    assert_eq!(pods().decode(&mut object).as_deref(), Ok(&["spec.containers[0].imagee".to_owned()][..]));
    assert_eq!(object["spec"]["containers"][0]["resources"]["limits"]["cpu"], json!("1"), "a number is a quantity");
}

#[test]
fn defaults_of_a_pod() {
    let (object, errors) = created(
        pods(),
        with_container(json!({
            "resources": {"limits": {"cpu": "0.5", "memory": "1024Ki"}},
            "ports": [{"containerPort": 80}],
            "readinessProbe": {"httpGet": {"port": 80}},
            "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        })),
    );
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(
        object["spec"],
        json!({
            "containers": [{
                "name": "c",
                "image": "i:1",
                "resources": {
                    "limits": {"cpu": "500m", "memory": "1Mi"},
                    "requests": {"cpu": "500m", "memory": "1Mi"},
                },
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "readinessProbe": {
                    "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
                    "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
                },
                "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name", "apiVersion": "v1"}}}],
                "imagePullPolicy": "IfNotPresent",
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }],
            "restartPolicy": "Always",
            "dnsPolicy": "ClusterFirst",
            "schedulerName": "default-scheduler",
            "terminationGracePeriodSeconds": 30,
            "securityContext": {},
            "enableServiceLinks": true,
        })
    );
    assert_eq!(object["status"], json!({"phase": "Pending", "qosClass": "Guaranteed"}));
    assert_eq!(object["metadata"]["generation"], json!(1));
    let mut again = object.clone();
    pods().default(&mut again);
    assert_eq!(again, object, "defaulting twice changes nothing");
}

#[test]
fn defaults_of_others() {
    for (kind, object, path, expected) in [
        (kind("apps", "deployments"), deployment(json!({})), "/spec/replicas", json!(1)),
        (kind("apps", "deployments"), deployment(json!({"spec": {"replicas": 0}})), "/spec/replicas", json!(0)),
        (
            kind("apps", "deployments"),
            deployment(json!({})),
            "/spec/strategy",
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}),
        ),
        (kind("apps", "deployments"), deployment(json!({})), "/spec/progressDeadlineSeconds", json!(600)),
        (kind("apps", "deployments"), deployment(json!({})), "/spec/template/spec/dnsPolicy", json!("ClusterFirst")),
        (kind("apps", "deployments"), deployment(json!({})), "/spec/template/spec/enableServiceLinks", Value::Null),
        (kind("apps", "deployments"), deployment(json!({"status": {"replicas": 9}})), "/status", json!({})),
        (
            kind("", "services"),
            service(json!({"ports": [{"port": 80}]})),
            "/spec",
            json!({"ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}], "type": "ClusterIP",
                "sessionAffinity": "None", "internalTrafficPolicy": "Cluster"}),
        ),
        (
            kind("", "secrets"),
            json!({"metadata": {"name": "s", "namespace": "n"}, "stringData": {"a": "b"}}),
            "/data",
            json!({"a": "Yg=="}),
        ),
        (kind("", "namespaces"), json!({"metadata": {"name": "x"}}), "/status", json!({"phase": "Active"})),
    ] {
        let (object, _) = created(kind, object);
        assert_eq!(object.pointer(path).unwrap_or(&Value::Null), &expected, "{kind:?} {path}");
    }
}

#[test]
fn what_is_invalid() {
    let volumes = |volumes: Value| pod(json!({"containers": [{"name": "c", "image": "i"}], "volumes": volumes}));
    let metadata = |metadata: Value| {
        let mut object = with_container(json!({}));
        merge(&mut object, json!({"metadata": metadata}));
        object
    };
    let deployments = kind("apps", "deployments");
    let services = kind("", "services");
    let cases: &[(&Kind, Value, &str)] = &[
        (
            pods(),
            metadata(json!({"name": "Web"})),
            "metadata.name: Invalid value: \"Web\": a lowercase RFC 1123 subdomain must",
        ),
        (pods(), metadata(json!({"name": null})), "metadata.name: Required value: name or generateName is required"),
        (pods(), metadata(json!({"labels": {"a b": "c"}})), "metadata.labels: Invalid value: \"a b\": name part must"),
        (pods(), metadata(json!({"labels": {"a": "-"}})), "metadata.labels: Invalid value: \"-\": a valid label must"),
        (
            pods(),
            metadata(json!({"annotations": {"/x": "c"}})),
            "metadata.annotations: Invalid value: \"/x\": prefix part must be non-empty",
        ),
        (
            pods(),
            metadata(json!({"finalizers": ["x"]})),
            "metadata.finalizers: Invalid value: \"x\": name is neither a standard finalizer",
        ),
        (pods(), pod(json!({"containers": []})), "spec.containers: Required value"),
        (
            pods(),
            with_container(json!({"name": "C"})),
            "spec.containers[0].name: Invalid value: \"C\": a lowercase RFC 1123 label must",
        ),
        (pods(), with_container(json!({"image": null})), "spec.containers[0].image: Required value"),
        (
            pods(),
            with_container(json!({"image": " x"})),
            "spec.containers[0].image: Invalid value: \" x\": must not have leading or trailing whitespace",
        ),
        (
            pods(),
            with_container(json!({"imagePullPolicy": "Sometimes"})),
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ),
        (
            pods(),
            with_container(json!({"ports": [{"containerPort": 70000}]})),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            pods(),
            with_container(json!({"ports": [{"containerPort": 1, "protocol": "ICMP"}]})),
            "spec.containers[0].ports[0].protocol: Unsupported value: \"ICMP\"",
        ),
        (
            pods(),
            with_container(
                json!({"ports": [{"containerPort": 1, "hostPort": 9}, {"containerPort": 2, "hostPort": 9}]}),
            ),
            "spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//9\"",
        ),
        (
            pods(),
            with_container(json!({"env": [{"name": "A=B"}]})),
            "spec.containers[0].env[0].name: Invalid value: \"A=B\"",
        ),
        (
            pods(),
            with_container(
                json!({"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}),
            ),
            "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
        ),
        (
            pods(),
            with_container(json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}}]})),
            "error converting fieldPath: field label not supported: status.phase",
        ),
        (
            pods(),
            with_container(json!({"volumeMounts": [{"name": "v", "mountPath": "/x"}]})),
            "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
        ),
        (
            pods(),
            with_container(json!({"resources": {"limits": {"cpu": "1x"}}})),
            "spec.containers[0].resources.limits[cpu]: Invalid value: \"1x\": quantities must match",
        ),
        (
            pods(),
            with_container(json!({"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}})),
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ),
        (
            pods(),
            with_container(json!({"livenessProbe": {}})),
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        (
            pods(),
            with_container(json!({"livenessProbe": {"tcpSocket": {"port": 1}, "successThreshold": 2}})),
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        (
            pods(),
            with_container(json!({"lifecycle": {"preStop": {"exec": {"command": ["x"]}}}})),
            "spec.containers[0].lifecycle: Forbidden: lifecycle hooks are not run yet",
        ),
        (
            pods(),
            volumes(json!([{"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}}])),
            "may not specify more than 1 volume type",
        ),
        (pods(), volumes(json!([{"name": "v"}, {"name": "v"}])), "spec.volumes[1].name: Duplicate value: \"v\""),
        (
            pods(),
            volumes(json!([{"name": "v", "hostPath": {"path": "/a/../b"}}])),
            "spec.volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
        ),
        (
            pods(),
            volumes(json!([{"name": "v", "configMap": {"name": "x", "defaultMode": 512}}])),
            "spec.volumes[0].configMap.defaultMode: Invalid value: 512",
        ),
        (deployments, deployment(json!({"spec": {"selector": null}})), "spec.selector: Required value"),
        (
            deployments,
            deployment(json!({"spec": {"selector": {"matchLabels": null}}})),
            "spec.selector: Invalid value: {}: empty selector is invalid for deployment",
        ),
        (
            deployments,
            deployment(json!({"spec": {"selector": {"matchLabels": {"app": "db"}}}})),
            "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
        ),
        (
            deployments,
            deployment(json!({"spec": {"replicas": -1}})),
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            deployments,
            deployment(json!({"spec": {"template": {"spec": {"restartPolicy": "Never"}}}})),
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
        ),
        (
            deployments,
            deployment(json!({"spec": {"template": {"spec": {"hostNetwork": true}}}})),
            "spec.template.spec.hostNetwork: Forbidden: ",
        ),
        (
            deployments,
            deployment(json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}}})),
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0",
        ),
        (
            deployments,
            deployment(json!({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}}})),
            "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
        ),
        (
            deployments,
            deployment(json!({"spec": {"progressDeadlineSeconds": 5, "minReadySeconds": 5}})),
            "spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds",
        ),
        (services, service(json!({})), "spec.ports: Required value"),
        (services, service(json!({"ports": [{"port": 80}, {"port": 81}]})), "spec.ports[0].name: Required value"),
        (
            services,
            service(json!({"ports": [{"port": 80, "nodePort": 30000}]})),
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ),
        (services, service(json!({"type": "ExternalName"})), "spec.externalName: Required value"),
        (
            services,
            service(json!({"type": "Internal", "ports": [{"port": 80}]})),
            "spec.type: Unsupported value: \"Internal\"",
        ),
        (
            kind("", "configmaps"),
            json!({"metadata": {"name": "c", "namespace": "n"}, "data": {"": "x"}}),
            "data[]: Invalid value: \"\": a valid config key must",
        ),
        (
            kind("", "secrets"),
            json!({"metadata": {"name": "c", "namespace": "n"}, "type": "kubernetes.io/tls", "data": {"tls.crt": ""}}),
            "data[tls.key]: Required value",
        ),
        (
            kind("", "namespaces"),
            json!({"metadata": {"name": "a.b"}}),
            "metadata.name: Invalid value: \"a.b\": a lowercase RFC 1123 label",
        ),
        (
            kind("", "namespaces"),
            json!({"metadata": {"name": "a", "namespace": "b"}}),
            "metadata.namespace: Forbidden: not allowed on this type",
        ),
        (
            kind("", "nodes"),
            json!({"metadata": {"name": "a"}, "spec": {"taints": [{"key": "a", "effect": "Never"}]}}),
            "spec.taints[0].effect: Unsupported value: \"Never\"",
        ),
        (
            kind("discovery.k8s.io", "endpointslices"),
            json!({"metadata": {"name": "a", "namespace": "n"}, "addressType": "IPv4", "endpoints": [{"addresses": ["x"]}]}),
            "endpoints[0].addresses[0]: Invalid value: \"x\": must be a valid IPv4 address",
        ),
        (
            kind("coordination.k8s.io", "leases"),
            json!({"metadata": {"name": "a", "namespace": "n"}, "spec": {"leaseDurationSeconds": 0}}),
            "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
        ),
    ];
    for (kind, object, expected) in cases {
        let (_, errors) = created(kind, object.clone());
        assert!(errors.iter().any(|error| error.contains(expected)), "{expected}\nnot in {errors:#?}");
    }
}

#[test]
fn what_passes() {
    for (kind, object) in [
        (
            pods(),
            with_container(
                json!({"ports": [{"name": "http", "containerPort": 80}], "env": [{"name": "A", "value": ""}]}),
            ),
        ),
        (
            pods(),
            pod(json!({
                "containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/x", "readOnly": true}]}],
                "volumes": [{"name": "v"}, {"name": "w", "secret": {"secretName": "s", "items": [{"key": "k", "path": "a/b"}]}}],
                "tolerations": [{"operator": "Exists"}, {"key": "a", "value": "b", "effect": "NoExecute", "tolerationSeconds": 3}],
                "initContainers": [], "imagePullSecrets": [], "securityContext": {}, "nodeSelector": {"kubernetes.io/os": "linux"},
            })),
        ),
        (kind("apps", "deployments"), deployment(json!({"spec": {"strategy": {"type": "Recreate"}}}))),
        (kind("apps", "replicasets"), deployment(json!({}))),
        (kind("", "services"), service(json!({"clusterIP": "None", "selector": {"a": "b"}}))),
        (kind("", "services"), service(json!({"type": "ExternalName", "externalName": "a.example"}))),
        (
            kind("", "services"),
            service(json!({"type": "NodePort", "ports": [
            {"name": "a", "port": 80, "targetPort": "http", "nodePort": 30001}, {"name": "b", "port": 80, "protocol": "UDP", "nodePort": 30001}]})),
        ),
        (
            kind("", "events"),
            json!({"metadata": {"name": "e", "namespace": "n"}, "involvedObject": {"namespace": "n"}}),
        ),
        (
            kind("", "events"),
            json!({"metadata": {"name": "e", "namespace": "default"}, "involvedObject": {"kind": "Node", "name": "a"}}),
        ),
    ] {
        let (_, errors) = created(kind, object);
        assert_eq!(errors, Vec::<String>::new(), "{kind:?}");
    }
}

#[test]
fn updates_keep_what_they_may_not_change() {
    let deployments = kind("apps", "deployments");
    let (mut old, _) = created(deployments, deployment(json!({})));
    meta::stamp(&mut old, "u1", Timestamp::UNIX_EPOCH);
    merge(&mut old, json!({"status": {"replicas": 3}}));

    let mut new = old.clone();
    merge(
        &mut new,
        json!({"spec": {"replicas": 5}, "status": {"replicas": 9}, "metadata": {"uid": null, "creationTimestamp": null}}),
    );
    deployments.prepare_update(&mut new, &old, Part::Main);
    assert_eq!(new["status"]["replicas"], json!(3));
    assert_eq!(new["metadata"]["uid"], json!("u1"));
    assert_eq!(meta::generation(&new), 2);

    let mut new = old.clone();
    merge(&mut new, json!({"spec": {"replicas": 5}, "status": {"replicas": 9}}));
    deployments.prepare_update(&mut new, &old, Part::Status);
    assert_eq!((&new["status"]["replicas"], &new["spec"]["replicas"]), (&json!(9), &json!(1)));
    assert_eq!(meta::generation(&new), 1);

    let mut new = json!({"spec": {"replicas": 7}});
    deployments.prepare_update(&mut new, &old, Part::Scale);
    assert_eq!((&new["spec"]["replicas"], meta::generation(&new)), (&json!(7), 2));
    assert_eq!(new["spec"]["template"], old["spec"]["template"]);

    let mut same = old.clone();
    deployments.prepare_update(&mut same, &old, Part::Main);
    assert_eq!(same, old, "an update that changes nothing");
    assert_eq!(deployments.validate(&same, Some(&old)), Vec::new());

    merge(
        &mut same,
        json!({"spec": {"selector": {"matchLabels": {"app": "x"}}, "template": {"metadata": {"labels": {"app": "x"}}}}}),
    );
    let errors: Vec<String> = deployments.validate(&same, Some(&old)).iter().map(ToString::to_string).collect();
    assert_eq!(errors, ["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"x\"}}: field is immutable"]);
}

#[test]
fn a_service_changes_its_type() {
    let services = kind("", "services");
    let (old, _) = created(services, service(json!({"type": "LoadBalancer", "ports": [{"port": 80}]})));
    for (to, kept) in [
        ("NodePort", &["externalTrafficPolicy", "internalTrafficPolicy"][..]),
        ("ClusterIP", &["internalTrafficPolicy"]),
        ("ExternalName", &[]),
    ] {
        let mut new = old.clone();
        merge(&mut new, json!({"spec": {"type": to, "externalName": "a.example"}}));
        services.prepare_update(&mut new, &old, Part::Main);
        let policies = ["externalTrafficPolicy", "internalTrafficPolicy", "allocateLoadBalancerNodePorts"];
        let found: Vec<&str> =
            policies.into_iter().filter(|field| meta::at(&new, &["spec", field]).is_some()).collect();
        assert_eq!(found, kept, "{to}");
    }
}

#[test]
fn living_pods_hardly_change() {
    let (mut old, _) = created(pods(), with_container(json!({})));
    meta::stamp(&mut old, "u1", Timestamp::UNIX_EPOCH);
    for (change, good) in [
        (json!({"metadata": {"labels": {"a": "b"}}}), true),
        (
            json!({"spec": {"containers": [{"image": "i:2", "name": "c", "imagePullPolicy": "IfNotPresent",
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File", "resources": {}}]}}),
            true,
        ),
        (json!({"spec": {"tolerations": [{"key": "a", "operator": "Exists"}]}}), true),
        (json!({"spec": {"restartPolicy": "Never"}}), false),
        (json!({"spec": {"containers": [{"image": "i:1", "name": "d"}]}}), false),
        (json!({"metadata": {"uid": "other"}}), false),
    ] {
        let mut new = old.clone();
        merge(&mut new, change.clone());
        pods().prepare_update(&mut new, &old, Part::Main);
        let errors = pods().validate(&new, Some(&old));
        assert_eq!(errors.is_empty(), good, "{change}: {errors:?}");
    }
    let mut deleted = old.clone();
    pods().mark_deleted(&mut deleted, Timestamp::UNIX_EPOCH, Some(30));
    assert_eq!(meta::text(&deleted, &["metadata", "deletionTimestamp"]), "1970-01-01T00:00:30Z");
    assert_eq!(meta::generation(&deleted), 2);
}

#[test]
fn printed_rows() {
    let now: Timestamp = "2026-01-01T01:00:00Z".parse().expect("a time");
    let born = json!({"creationTimestamp": "2026-01-01T00:00:00Z", "name": "x"});
    let with = |object: Value| {
        let mut object = object;
        let mut metadata = born.clone();
        merge(&mut metadata, object.get("metadata").cloned().unwrap_or(json!({})));
        meta::set(&mut object, &["metadata"], metadata);
        object
    };
    let node = json!({
        "metadata": {"labels": {"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": ""}},
        "spec": {"unschedulable": true},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
            "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "Debian", "kernelVersion": "6", "containerRuntimeVersion": "docker://20"}},
    });
    for (kind, object, expected) in [
        (
            kind("", "nodes"),
            node,
            json!([
                "x",
                "Ready,SchedulingDisabled",
                "control-plane,worker",
                "60m",
                "v1.36.0",
                "10.0.0.1",
                "<none>",
                "Debian",
                "6",
                "docker://20"
            ]),
        ),
        (
            kind("", "nodes"),
            json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}),
            json!(["x", "NotReady", "<none>", "60m", "", "<none>", "<none>", "<unknown>", "<unknown>", "<unknown>"]),
        ),
        (
            kind("apps", "deployments"),
            deployment(
                json!({"spec": {"replicas": 3}, "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2}}),
            ),
            json!(["web", "2/3", 3, 2, "60m", "c", "i:1", "app=web"]),
        ),
        (
            kind("apps", "replicasets"),
            deployment(json!({"spec": {"replicas": 3}, "status": {"replicas": 2}})),
            json!(["web", 3, 2, 0, "60m", "c", "i:1", "app=web"]),
        ),
        (
            kind("", "services"),
            json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.7", "ports": [{"port": 80, "nodePort": 30000, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}], "selector": {"a": "b"}}}),
            json!(["x", "NodePort", "10.96.0.7", "<none>", "80:30000/TCP,53/UDP", "60m", "a=b"]),
        ),
        (
            kind("", "services"),
            json!({"spec": {"type": "LoadBalancer"}}),
            json!(["x", "LoadBalancer", "<none>", "<pending>", "<none>", "60m", "<none>"]),
        ),
        (kind("", "configmaps"), json!({"data": {"a": "b"}, "binaryData": {"c": "ZA=="}}), json!(["x", 2, "60m"])),
        (kind("", "secrets"), json!({"type": "Opaque", "data": {"a": "b"}}), json!(["x", "Opaque", 1, "60m"])),
        (kind("", "namespaces"), json!({"status": {"phase": "Active"}}), json!(["x", "Active", "60m"])),
        (
            kind("", "events"),
            json!({"type": "Warning", "reason": "Bad", "message": "m\n", "count": 3, "involvedObject": {"kind": "Pod", "name": "p"}, "source": {"component": "kubelet", "host": "n"},
            "firstTimestamp": "2026-01-01T00:30:00Z", "lastTimestamp": "2026-01-01T00:59:00Z"}),
            json!(["60s", "Warning", "Bad", "pod/p", "", "kubelet, n", "m", "30m", 3, "x"]),
        ),
        (
            kind("discovery.k8s.io", "endpointslices"),
            json!({"addressType": "IPv4", "ports": [{"port": 80}], "endpoints": [{"addresses": ["1.1.1.1"]}, {"addresses": ["1.1.1.2"]}, {"addresses": ["1.1.1.3"]}, {"addresses": ["1.1.1.4"]}]}),
            json!(["x", "IPv4", "80", "1.1.1.1,1.1.1.2,1.1.1.3 + 1 more...", "60m"]),
        ),
        (kind("coordination.k8s.io", "leases"), json!({"spec": {"holderIdentity": "me"}}), json!(["x", "me", "60m"])),
        (kind("", "serviceaccounts"), json!({}), json!(["x", 0, "60m"])),
    ] {
        assert_eq!(Value::from(kind.row(&with(object), now)), expected, "{kind:?}");
    }
}

#[test]
fn claims_and_fields() {
    let services = kind("", "services");
    let object = service(
        json!({"clusterIP": "10.96.0.7", "ports": [{"port": 80, "nodePort": 30000, "protocol": "UDP"}], "type": "NodePort"}),
    );
    assert_eq!(services.claims(&object), ["clusterip/10.96.0.7", "nodeport/UDP/30000"]);
    assert_eq!(services.claims(&service(json!({"clusterIP": "None"}))), Vec::<String>::new());
    assert_eq!(kind("", "nodes").claims(&json!({"spec": {"podCIDR": "10.244.3.0/24"}})), ["podcidr/10.244.3.0/24"]);
    let object = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"nodeName": "a"}, "status": {"phase": "Running",
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:00:02Z"}]}});
    let fields = pods().fields(&object);
    for (field, expected) in [
        ("metadata.name", "p"),
        ("spec.nodeName", "a"),
        ("status.phase", "Running"),
        ("ready", "true"),
        ("ready-since", "2000"),
        ("spec.hostNetwork", "false"),
    ] {
        assert_eq!(fields.get(field).map(String::as_str), Some(expected), "{field}");
    }
    let selector = crate::selector::FieldSelector::parse("status.phase=Running").expect("parses");
    assert_eq!(pods().check_field_selector(&selector), Ok(()));
    assert_eq!(
        kind("", "nodes").check_field_selector(&selector),
        Err("field label not supported: status.phase".to_owned())
    );
}
