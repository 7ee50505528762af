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
    let pod = |spec: Value| {
        let mut pod = json!({"metadata": {"name": "p", "namespace": "default"}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
        objects::patch::merge(&mut pod, &json!({ "spec": spec })).expect("an object");
        create(&world, ("", "pods"), pod).expect("admitted")
    };
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
    let made = pod(json!({"serviceAccountName": "robot"}));
    assert_eq!(made["spec"]["serviceAccount"], json!("robot"));
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
