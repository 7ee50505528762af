//! Cases over all rules, on a small cluster.

use objects::{Kinds, meta};
use serde_json::{Value, json};

use super::{Denied, Operation, Request, mutate, validate};
use crate::authz::User;
use crate::harness::World;

/// Admits one write as the API server does; the object as it would be written.
fn admit(
    world: &World,
    user: &User,
    operation: Operation,
    resource: (&str, &str),
    object: Value,
    old: Option<&Value>,
    seed: u64,
) -> Result<Value, Denied> {
    let kind = Kinds::builtin().by_resource(resource.0, resource.1).expect("a built-in kind");
    let mut object = object;
    kind.default(&mut object);
    let mut request =
        Request { kind, operation, object: &mut object, old, user, now: world.now, seed, settings: &world.settings };
    mutate(&mut request, &world.root)?;
    kind.default(request.object);
    let once = request.object.clone();
    mutate(&mut request, &world.root)?;
    assert_eq!(*request.object, once, "admitting twice changes nothing");
    let errors = kind.validate(request.object, old);
    if operation != Operation::Delete && !errors.is_empty() {
        return Err(Denied::Invalid(errors));
    }
    validate(&request, &world.root)?;
    Ok(object)
}

fn admin() -> User {
    User::authenticated("admin", vec!["system:masters".into()])
}

fn create(world: &World, resource: (&str, &str), object: Value) -> Result<Value, Denied> {
    admit(world, &admin(), Operation::Create, resource, object, None, 7)
}

fn service(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec})
}

#[test]
fn namespaces() {
    let world = World::new();
    let made = create(&world, ("", "namespaces"), json!({"metadata": {"name": "shop"}})).expect("admitted");
    assert_eq!(made["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "shop"}));
    assert_eq!(made["spec"]["finalizers"], json!(["kubernetes"]));
    for (name, good) in [("shop", true), ("default", false), ("kube-system", false), ("kube-public", false)] {
        let object = json!({"metadata": {"name": name}});
        let result = admit(&world, &admin(), Operation::Delete, ("", "namespaces"), object, None, 1);
        assert_eq!(result.is_ok(), good, "{name}");
    }
}

#[test]
fn pods() {
    let world = World::new();
    let pod = |spec: Value| create(&world, ("", "pods"), pod(spec)).expect("admitted");
    let made = pod(json!({}));
    assert_eq!(made["spec"]["serviceAccountName"], json!("default"));
    assert_eq!(made["spec"]["priority"], json!(0));
    assert_eq!(
        made["spec"]["tolerations"],
        json!([
            {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5},
            {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5},
        ])
    );
    for (tolerations, count) in [
        (json!([{"operator": "Exists"}]), 1),
        (json!([{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}]), 2),
        (json!([{"key": "x", "operator": "Exists", "effect": "NoSchedule"}]), 3),
    ] {
        let made = pod(json!({ "tolerations": tolerations }));
        assert_eq!(meta::list(&made, &["spec", "tolerations"]).len(), count, "{made}");
    }
}

fn pod(spec: Value) -> Value {
    let mut pod = json!({"metadata": {"name": "p", "namespace": "default"}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
    objects::patch::merge(&mut pod, &json!({ "spec": spec })).expect("an object");
    pod
}

#[track_caller]
fn refused(result: Result<Value, Denied>, why: &str) {
    match result {
        Ok(made) => panic!("admitted, not refused because {why:?}: {made}"),
        Err(denied) => assert_eq!(denied.to_string(), why),
    }
}

#[test]
fn objects_are_made_in_living_namespaces() {
    let mut world = World::new();
    let gone = world.create("", "namespaces", json!({"metadata": {"name": "gone", "finalizers": ["example.com/x"]}}));
    world.settle();
    world.delete(&gone);
    let map = |namespace: &str| json!({"metadata": {"name": "m", "namespace": namespace}});
    for (namespace, denied) in [
        ("default", None),
        ("none", Some(Denied::NoNamespace("none".into()))),
        ("gone", Some(Denied::Terminating("gone".into()))),
    ] {
        assert_eq!(create(&world, ("", "configmaps"), map(namespace)).err(), denied);
        let update =
            admit(&world, &admin(), Operation::Update, ("", "configmaps"), map(namespace), Some(&map(namespace)), 1);
        assert!(update.is_ok(), "{update:?}");
    }
}

#[test]
fn pods_run_as_accounts_that_exist() {
    let mut world = World::new();
    let robot = || pod(json!({"serviceAccountName": "robot"}));
    refused(
        create(&world, ("", "pods"), robot()),
        "error looking up service account default/robot: serviceaccount \"robot\" not found",
    );
    world.create("", "serviceaccounts", json!({"metadata": {"name": "robot", "namespace": "default"}}));
    let made = create(&world, ("", "pods"), robot()).expect("admitted");
    assert_eq!(made["spec"]["serviceAccount"], json!("robot"));
    assert_eq!(made["spec"]["volumes"], Value::Null, "no token is mounted that no kubelet honours");
    // A namespace so young that its account is still on its way.
    let young = json!({"metadata": {"name": "young"}});
    world.create("", "namespaces", young);
    let mut first = pod(json!({}));
    first["metadata"]["namespace"] = "young".into();
    assert_eq!(create(&world, ("", "pods"), first).expect("admitted")["spec"]["serviceAccountName"], json!("default"));
    // What the account pulls with is the pod's, and so refused as long as no kubelet pulls with it.
    let account = json!({"metadata": {"name": "puller", "namespace": "default"}, "imagePullSecrets": [{"name": "s"}]});
    world.create("", "serviceaccounts", account);
    refused(
        create(&world, ("", "pods"), pod(json!({"serviceAccountName": "puller"}))),
        "spec.imagePullSecrets: Forbidden: images are pulled with the Docker Engine's own credentials yet",
    );
}

#[test]
fn priority_comes_of_a_class() {
    let mut world = World::new();
    let class = |name: &str, value: i64, default: bool| json!({"metadata": {"name": name}, "value": value, "globalDefault": default, "preemptionPolicy": "Never"});
    let classes = ("scheduling.k8s.io", "priorityclasses");
    let of = |world: &World, spec: Value| create(world, ("", "pods"), pod(spec));
    let said = |made: &Value| (made["spec"]["priorityClassName"].clone(), made["spec"]["priority"].clone());
    assert_eq!(said(&of(&world, json!({})).expect("admitted")), (Value::Null, json!(0)));
    world.create(classes.0, classes.1, class("high", 1000, false));
    let high = of(&world, json!({"priorityClassName": "high"})).expect("admitted");
    assert_eq!((said(&high), &high["spec"]["preemptionPolicy"]), ((json!("high"), json!(1000)), &json!("Never")));
    assert!(of(&world, json!({"priorityClassName": "high", "priority": 1000})).is_ok(), "as its class says");
    refused(of(&world, json!({"priorityClassName": "none"})), "no PriorityClass with name none was found");
    refused(
        of(&world, json!({"priority": 5})),
        "the integer value of priority (5) must not be provided in pod spec; priority admission controller computed 0 from the given PriorityClass name",
    );
    refused(
        of(&world, json!({"priorityClassName": "high", "preemptionPolicy": "PreemptLowerPriority"})),
        "the string value of PreemptionPolicy (PreemptLowerPriority) must not be provided in pod spec; priority admission controller computed Never from the given PriorityClass name",
    );
    // The cluster's own are there even where their objects are not.
    world.remove(&state::Key::new(classes.0, classes.1, "", "system-node-critical"));
    let critical = of(&world, json!({"priorityClassName": "system-node-critical"})).expect("admitted");
    assert_eq!(said(&critical), (json!("system-node-critical"), json!(2_000_001_000)));
    // One class may be that of all who name none.
    let usual = create(&world, classes, class("usual", 7, true)).expect("admitted");
    world.create(classes.0, classes.1, usual.clone());
    assert_eq!(said(&of(&world, json!({})).expect("admitted")), (json!("usual"), json!(7)));
    refused(
        create(&world, classes, class("another", 8, true)),
        "PriorityClass usual is already marked as default. Only one default can exist",
    );
    assert!(admit(&world, &admin(), Operation::Update, classes, usual.clone(), Some(&usual), 1).is_ok());
    // An update that leaves out what was chosen keeps it.
    let mut plain = high.clone();
    for field in ["priority", "preemptionPolicy"] {
        meta::remove(&mut plain, &["spec", field]);
    }
    assert_eq!(
        admit(&world, &admin(), Operation::Update, ("", "pods"), plain, Some(&high), 1).expect("admitted"),
        high
    );
}

fn range(limits: Value) -> Value {
    json!({"metadata": {"name": "r", "namespace": "default"}, "spec": {"limits": limits}})
}

#[test]
fn containers_get_what_limit_ranges_say() {
    let mut world = World::new();
    let limits =
        json!([{"type": "Container", "default": {"cpu": "2", "memory": "1Gi"}, "defaultRequest": {"cpu": "1"}}]);
    world.create("", "limitranges", range(limits));
    let made = create(&world, ("", "pods"), pod(json!({}))).expect("admitted");
    let resources = json!({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}});
    assert_eq!(made["spec"]["containers"][0]["resources"], resources);
    assert_eq!(
        made["metadata"]["annotations"],
        json!({"kubernetes.io/limit-ranger": "LimitRanger plugin set: cpu, memory request for container c; cpu, memory limit for container c"})
    );
    let asks = json!({"containers": [{"name": "c", "image": "i:1", "resources": {"requests": {"cpu": "3"}, "limits": {"cpu": "4"}}}]});
    let made = create(&world, ("", "pods"), pod(asks)).expect("admitted");
    let resources = json!({"limits": {"cpu": "4", "memory": "1Gi"}, "requests": {"cpu": "3", "memory": "1Gi"}});
    assert_eq!(made["spec"]["containers"][0]["resources"], resources);
}

#[test]
fn limit_ranges_refuse() {
    let asks = |requests: Value, limits: Value| json!({"name": "c", "image": "i:1", "resources": {"requests": requests, "limits": limits}});
    let cpu = |amount: &str| json!({"cpu": amount});
    for (limit, containers, why) in [
        (
            json!({"type": "Container", "max": cpu("1")}),
            json!([asks(cpu("1"), cpu("2"))]),
            "maximum cpu usage per Container is 1, but limit is 2",
        ),
        (
            json!({"type": "Pod", "max": cpu("1")}),
            json!([asks(cpu("1"), json!({}))]),
            "maximum cpu usage per Pod is 1.  No limit is specified",
        ),
        (
            json!({"type": "Pod", "min": cpu("1")}),
            json!([asks(json!({}), json!({}))]),
            "minimum cpu usage per Pod is 1.  No request is specified",
        ),
        (
            json!({"type": "Container", "min": cpu("500m")}),
            json!([asks(cpu("100m"), cpu("1"))]),
            "minimum cpu usage per Container is 500m, but request is 100m",
        ),
        (
            json!({"type": "Container", "maxLimitRequestRatio": cpu("2")}),
            json!([asks(cpu("1"), cpu("3"))]),
            "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000",
        ),
        (
            json!({"type": "Container", "maxLimitRequestRatio": cpu("2")}),
            json!([asks(json!({}), json!({}))]),
            "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
        ),
        (
            json!({"type": "Pod", "max": {"cpu": "1", "memory": "1Gi"}}),
            json!([
                asks(cpu("1"), json!({"cpu": "1", "memory": "1Gi"})),
                asks(cpu("1"), json!({"cpu": "1", "memory": "1Gi"}))
            ]),
            "[maximum cpu usage per Pod is 1, but limit is 2, maximum memory usage per Pod is 1Gi, but limit is 2Gi]",
        ),
    ] {
        let mut world = World::new();
        world.create("", "limitranges", range(json!([limit])));
        let mut containers = containers;
        for (i, container) in containers.as_array_mut().into_iter().flatten().enumerate() {
            container["name"] = format!("c{i}").into();
        }
        refused(create(&world, ("", "pods"), pod(json!({ "containers": containers }))), why);
    }
}

fn claim(class: Value, storage: &str) -> Value {
    let mut claim = json!({
        "metadata": {"name": "c", "namespace": "default"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}},
    });
    if !class.is_null() {
        claim["spec"]["storageClassName"] = class;
    }
    claim
}

#[test]
fn limit_ranges_bound_claims() {
    const CLAIMS: (&str, &str) = ("", "persistentvolumeclaims");
    let mut world = World::new();
    let limit = json!({"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}});
    let mut bound = claim(json!("c"), "3Gi");
    meta::set(&mut bound, &["status"], json!({"phase": "Bound", "capacity": {"storage": "3Gi"}}));
    Kinds::builtin().by_resource("", CLAIMS.1).expect("a kind").default(&mut bound);
    world.create("", "limitranges", range(json!([limit])));
    assert!(create(&world, CLAIMS, claim(json!("c"), "2Gi")).is_ok());
    refused(
        create(&world, CLAIMS, claim(json!("c"), "3Gi")),
        "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi",
    );
    refused(
        create(&world, CLAIMS, claim(json!("c"), "1Mi")),
        "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi",
    );
    // One that was there before lives on; what it grows to must fit.
    let update = |new: Value| admit(&world, &admin(), Operation::Update, CLAIMS, new, Some(&bound), 1);
    assert_eq!(update(bound.clone()), Ok(bound.clone()));
    let mut larger = bound.clone();
    meta::set(&mut larger, &["spec", "resources", "requests", "storage"], "4Gi".into());
    refused(update(larger), "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 4Gi");
}

#[test]
fn the_newest_default_class_is_taken() {
    let mut world = World::new();
    let storage = |name: &str| {
        json!({
            "metadata": {"name": name, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
            "provisioner": "example.com/disk",
        })
    };
    let class = |world: &World, class: Value| {
        let made = create(world, ("", "persistentvolumeclaims"), claim(class, "1Gi")).expect("admitted");
        made["spec"]["storageClassName"].clone()
    };
    assert_eq!(class(&world, Value::Null), Value::Null);
    world.create("storage.k8s.io", "storageclasses", storage("z"));
    world.advance(std::time::Duration::from_secs(5));
    world.create("storage.k8s.io", "storageclasses", storage("b"));
    world.create("storage.k8s.io", "storageclasses", storage("a"));
    assert_eq!(class(&world, Value::Null), json!("a"));
    assert_eq!(class(&world, json!("")), json!(""), "no class is a choice");
    assert_eq!(class(&world, json!("x")), json!("x"));

    let ingress = |annotations: Value| {
        json!({
            "metadata": {"name": "i", "namespace": "default", "annotations": annotations},
            "spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}},
        })
    };
    let classes = ("networking.k8s.io", "ingressclasses");
    let default = json!({"ingressclass.kubernetes.io/is-default-class": "true"});
    let made = json!({"metadata": {"name": "web", "annotations": default}, "spec": {"controller": "example.com/web"}});
    world.create(classes.0, classes.1, made);
    let class = |annotations| {
        let made = create(&world, ("networking.k8s.io", "ingresses"), ingress(annotations)).expect("admitted");
        made["spec"]["ingressClassName"].clone()
    };
    assert_eq!(class(json!({})), json!("web"));
    assert_eq!(class(json!({"kubernetes.io/ingress.class": "old"})), Value::Null);
}

#[test]
fn quotas_must_be_told_what_pods_ask_for() {
    let mut world = World::new();
    let hard = json!({"cpu": "9", "limits.memory": "9Gi", "pods": "9"});
    let quota =
        json!({"metadata": {"name": "q", "namespace": "default"}, "spec": {"hard": hard, "scopes": ["NotBestEffort"]}});
    world.create("", "resourcequotas", quota);
    assert!(create(&world, ("", "pods"), pod(json!({}))).is_ok(), "not in its scope");
    let container = |name: &str, resources: Value| json!({"name": name, "image": "i:1", "resources": resources});
    let containers = json!([
        container("a", json!({"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}})),
        container("b", json!({"limits": {"memory": "1Gi"}})),
        container("c", json!({})),
    ]);
    refused(
        create(&world, ("", "pods"), pod(json!({ "containers": containers }))),
        "failed quota: q: must specify cpu for: b,c; limits.memory for: c",
    );
    let beyond = |name: &str, asked, taken, limit| state::Beyond { name: name.into(), asked, taken, limit };
    let parts = vec![beyond("cpu", 1500, 0, 1000), beyond("requests.memory", 1 << 30, 512 << 20, 1 << 30)];
    assert_eq!(
        super::exceeded(&state::Exceeded { by: "q".into(), parts }),
        "exceeded quota: q, requested: cpu=1500m,requests.memory=1Gi, used: cpu=0,requests.memory=512Mi, limited: cpu=1,requests.memory=1Gi"
    );
}

#[test]
fn service_addresses() {
    let mut world = World::new();
    let made = create(&world, ("", "services"), service("a", json!({"ports": [{"port": 80}]}))).expect("admitted");
    let ip: std::net::Ipv4Addr = meta::text(&made, &["spec", "clusterIP"]).parse().expect("an address");
    assert!(world.settings.service_cidr.contains(&ip));
    assert_eq!(made["spec"]["clusterIPs"], json!([ip.to_string()]));
    assert_eq!(made["spec"]["ipFamilyPolicy"], json!("SingleStack"));
    assert_eq!(
        create(&world, ("", "services"), service("a", json!({"ports": [{"port": 80}]}))).expect("admitted"),
        made,
        "the same seed chooses the same address"
    );
    world.create("", "services", made);
    // The address is taken now, for others but not for its holder.
    let again = create(&world, ("", "services"), service("b", json!({"ports": [{"port": 80}]}))).expect("admitted");
    assert_ne!(again["spec"]["clusterIP"], json!(ip.to_string()));
    for (spec, expected) in [
        (json!({"clusterIP": ip.to_string(), "ports": [{"port": 80}]}), "provided IP is already allocated"),
        (json!({"clusterIP": "192.0.2.1", "ports": [{"port": 80}]}), "does not match the current range"),
        (json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}), "30000-32767"),
        (
            json!({"type": "ExternalName", "externalName": "a.example", "clusterIP": "None"}),
            "may not be set for ExternalName",
        ),
    ] {
        let error = create(&world, ("", "services"), service("c", spec)).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
    let headless = create(&world, ("", "services"), service("d", json!({"clusterIP": "None"}))).expect("admitted");
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
}

#[test]
fn node_ports_come_and_go_with_the_type() {
    let mut world = World::new();
    let spec = json!({"type": "NodePort", "ports": [{"name": "t", "port": 53}, {"name": "u", "port": 53, "protocol": "UDP"}, {"name": "x", "port": 80}]});
    let made = create(&world, ("", "services"), service("a", spec)).expect("admitted");
    let ports = |service: &Value| -> Vec<i64> {
        meta::list(service, &["spec", "ports"]).iter().filter_map(|port| meta::int(port, &["nodePort"])).collect()
    };
    let first = ports(&made);
    assert_eq!(first.len(), 3);
    assert_eq!(first[0], first[1], "one port number serves both protocols");
    assert!(first.iter().all(|port| (30000..=32767).contains(port)));
    world.create("", "services", made.clone());

    let update = |new: Value| {
        admit(&world, &admin(), Operation::Update, ("", "services"), new, Some(&made), 9).expect("admitted")
    };
    let mut applied = service("a", json!({"type": "NodePort", "ports": [{"name": "t", "port": 53}]}));
    meta::copy(&mut applied, &made, &["metadata"]);
    let kept = update(applied);
    assert_eq!(ports(&kept), [first[0]]);
    assert_eq!(kept["spec"]["clusterIP"], made["spec"]["clusterIP"]);

    let mut inner = made.clone();
    meta::set(&mut inner, &["spec", "type"], "ClusterIP".into());
    meta::remove(&mut inner, &["spec", "externalTrafficPolicy"]);
    assert_eq!(ports(&update(inner)), Vec::<i64>::new());

    let mut outer = made.clone();
    for (path, value) in [("type", json!("ExternalName")), ("externalName", json!("a.example"))] {
        meta::set(&mut outer, &["spec", path], value);
    }
    for path in ["externalTrafficPolicy", "internalTrafficPolicy"] {
        meta::remove(&mut outer, &["spec", path]);
    }
    let outer = update(outer);
    assert_eq!(meta::text(&outer, &["spec", "clusterIP"]), "");
    let services = Kinds::builtin().by_resource("", "services").expect("a built-in kind");
    assert_eq!(services.claims(&outer), Vec::<String>::new());

    let taken = service("b", json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": first[2]}]}));
    let error = create(&world, ("", "services"), taken).expect_err("taken").to_string();
    assert!(error.contains("provided port is already allocated"), "{error}");
}

#[test]
fn a_full_range_says_so() {
    let mut world = World::new();
    world.settings.service_cidr = "10.9.0.0/30".parse().expect("a network");
    let one = create(&world, ("", "services"), service("a", json!({"ports": [{"port": 80}]}))).expect("admitted");
    assert_eq!(one["spec"]["clusterIP"], json!("10.9.0.2"), "the first address is the API's, the last the broadcast's");
    world.create("", "services", one);
    let error = create(&world, ("", "services"), service("b", json!({"ports": [{"port": 80}]}))).expect_err("full");
    assert!(error.to_string().contains("range is full"), "{error}");
}

#[test]
fn a_node_labels_itself_as_the_kubelet_does() {
    let world = World::with_nodes(1);
    let node = User::node("node-1");
    let labelled = |labels: Value| json!({"metadata": {"name": "node-1", "labels": labels}});
    for (label, good) in [
        ("kubernetes.io/hostname", true),
        ("node.kubernetes.io/instance-type", true),
        ("kubelet.kubernetes.io/anything", true),
        ("a.node.kubernetes.io/x", true),
        ("topology.kubernetes.io/zone", true),
        ("disk", true),
        ("example.com/disk", true),
        ("notkubernetes.io/x", true),
        ("node-role.kubernetes.io/control-plane", false),
        ("kubernetes.io/role", false),
        ("scheduling.k8s.io/x", false),
        ("node-restriction.kubernetes.io/pci", false),
        ("example.com.node-restriction.kubernetes.io/pci", false),
    ] {
        let (with, without) = (labelled(json!({label: "x"})), labelled(json!({})));
        let judge = |user: &User, operation, object: &Value, old: Option<&Value>| {
            admit(&world, user, operation, ("", "nodes"), object.clone(), old, 1).is_ok()
        };
        assert_eq!(judge(&node, Operation::Create, &with, None), good, "{label}");
        assert_eq!(judge(&node, Operation::Update, &with, Some(&without)), good, "{label}");
        assert_eq!(judge(&node, Operation::Update, &without, Some(&with)), good, "{label}");
        assert!(judge(&node, Operation::Update, &with, Some(&with)), "{label} stays");
        assert!(judge(&admin(), Operation::Update, &with, Some(&without)), "{label}");
    }
}

#[test]
fn nodes_touch_only_what_is_theirs() {
    let world = World::with_nodes(2);
    let node = User::node("node-1");
    let pod = |bound: &str| json!({"metadata": {"name": "p", "namespace": "default"}, "spec": {"nodeName": bound, "containers": [{"name": "c", "image": "i"}]}});
    let named = |name: &str| json!({"metadata": {"name": name}});
    let lease = |namespace: &str, name: &str| json!({"metadata": {"name": name, "namespace": namespace}});
    let tainted = json!({"metadata": {"name": "node-1"}, "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}});
    let leases = ("coordination.k8s.io", "leases");
    use Operation::{Create, Delete, Update};
    for (operation, resource, object, old, good) in [
        (Create, ("", "nodes"), named("node-1"), None, true),
        (Create, ("", "nodes"), named("node-2"), None, false),
        (Update, ("", "nodes"), named("node-1"), Some(tainted.clone()), false),
        (Update, ("", "nodes"), tainted.clone(), Some(tainted), true),
        (Create, ("", "pods"), pod("node-1"), None, false),
        (Delete, ("", "pods"), pod("node-1"), None, true),
        (Delete, ("", "pods"), pod("node-2"), None, false),
        (Create, leases, lease("kube-node-lease", "node-1"), None, true),
        (Create, leases, lease("kube-node-lease", "node-2"), None, false),
        (Create, leases, lease("default", "node-1"), None, false),
    ] {
        let result = admit(&world, &node, operation, resource, object.clone(), old.as_ref(), 1);
        assert_eq!(result.is_ok(), good, "{operation:?} {resource:?} {object}: {result:?}");
    }
}
