//! EndpointSlices of Services with a selector: which pods answer, and whether they are ready.
//!
//! Services without selector are their author's, `default/kubernetes` is [`super::bootstrap`]'s. Turning slices into
//! rules is the proxy's work.
//!
//! **Invariant:** an endpoint stays in the slice it is in; a change of one pod writes one slice.

use std::collections::BTreeMap;
use std::sync::Arc;

use objects::{meta, selector::LabelSelector};
use serde_json::{Map, Value, json};
use state::{Command, Event, Expect, Key, Record, State};

use crate::{Context, Plan, Row, emit, json, record};

use super::keys_of;

const GROUP: &str = "discovery.k8s.io";
const ENDPOINTS_MAX: usize = 100;
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";

pub const ROW: Row = Row {
    name: "endpointslice",
    watches: &[("", "services"), ("", "pods"), (GROUP, "endpointslices")],
    keys,
    plan,
    resync: |root| keys_of(root, "", "services"),
};

fn keys(root: &State, event: &Event) -> Vec<Key> {
    match event.key.resource.as_str() {
        "services" => vec![event.key.clone()],
        "endpointslices" => [&event.old, &event.new]
            .into_iter()
            .flatten()
            .filter_map(|slice| root.by_uid(emit::controller_of(slice)?))
            .filter(|key| key.resource == "services")
            .cloned()
            .collect(),
        _ => services_of_pod(root, event),
    }
}

/// The Services whose endpoints the change of a pod concerns.
fn services_of_pod(root: &State, event: &Event) -> Vec<Key> {
    if let (Some(old), Some(new)) = (&event.old, &event.new) {
        let seen = |pod: &Record| {
            let fields = ["status.podIP", "status.phase", "ready"].map(|name| emit::field(pod, name).to_owned());
            (fields, pod.header.labels.clone(), pod.header.deletion_ms != 0, pod.header.node.clone())
        };
        if seen(old) == seen(new) {
            return Vec::new();
        }
    }
    let concerns = |service: &Record| {
        let selector = selector_of(&record::parse(service));
        [&event.old, &event.new]
            .into_iter()
            .flatten()
            .any(|pod| selector.as_ref().is_some_and(|selector| emit::is_selected(selector, pod)))
    };
    let mut found: Vec<Key> = [&event.old, &event.new]
        .into_iter()
        .flatten()
        .flat_map(|pod| root.selecting("", "services", &event.key.namespace, &pod.header.labels))
        .filter(|(_, service)| concerns(service))
        .map(|(key, _)| key.clone())
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// The selector of a Service; `None` where it has none, or is only a name for another host.
fn selector_of(service: &Value) -> Option<LabelSelector> {
    let pairs = meta::strings(service, &["spec", "selector"]);
    let external = json::text(service, "spec.type") == "ExternalName";
    (!pairs.is_empty() && !external).then(|| LabelSelector::from_map(&pairs))
}

fn plan(root: &State, key: &Key, cx: &mut Context) -> Plan {
    let mut plan = Plan::default();
    let Some(present) = root.get(key) else { return plan };
    if present.header.deletion_ms != 0 {
        return plan;
    }
    let service = record::parse(present);
    let mut slices: Vec<(&Key, &Arc<Record>)> = root
        .owned_by(&present.header.uid)
        .filter(|key| key.group == GROUP && key.resource == "endpointslices")
        .filter_map(|key| Some((key, root.get(key)?)))
        .filter(|(_, slice)| slice.header.labels.get(MANAGED_BY).is_some_and(|manager| manager == MANAGER))
        .collect();
    let Some(selector) = selector_of(&service) else {
        plan.commands.extend(slices.into_iter().map(|(key, slice)| emit::remove(key, slice)));
        return plan;
    };

    if !present.header.fields.contains_key("selector") {
        // Written by a version that did not know the field by which pods find their Services.
        plan.commands.extend(emit::update(key, present, &service));
    }
    let mut groups = endpoints_by_ports(root, key, &service, &selector);
    if groups.is_empty() {
        // One empty slice says that the Service was seen.
        let ports = slices.first().map_or(json!([]), |(_, slice)| json::at(&record::parse(slice), "ports").clone());
        groups.insert(String::new(), (ports, Endpoints::new()));
    }
    for (_, (ports, mut wanted)) in groups {
        let (same, others): (Vec<_>, Vec<_>) =
            slices.into_iter().partition(|(_, slice)| json::at(&record::parse(slice), "ports") == &ports);
        slices = others;
        plan.commands.extend(fill(key, &service, &ports, same, &mut wanted, root, cx));
    }
    plan.commands.extend(slices.into_iter().map(|(key, slice)| emit::remove(key, slice)));
    plan
}

/// Endpoints by pod uid.
type Endpoints = BTreeMap<String, Value>;

/// The endpoints, grouped by the ports the Service's ports mean on them (a named port may differ from pod to pod).
fn endpoints_by_ports(
    root: &State,
    key: &Key,
    service: &Value,
    selector: &LabelSelector,
) -> BTreeMap<String, (Value, Endpoints)> {
    let publish_all = json::flag(service, "spec.publishNotReadyAddresses");
    let service_ports = json::items(service, "spec.ports");
    let named = service_ports.iter().any(|port| port.get("targetPort").is_some_and(Value::is_string));
    let headless = json::text(service, "spec.clusterIP") == "None";
    let mut groups: BTreeMap<String, (Value, Endpoints)> = BTreeMap::new();
    for (pod_key, pod) in emit::selected(root, ("", "pods"), &key.namespace, selector) {
        let address = emit::field(pod, "status.podIP");
        if address.is_empty() || emit::is_finished(pod) {
            continue;
        }
        // Names of ports and hosts stand only in the body.
        let object = if named || headless { record::parse(pod) } else { Value::Null };
        let ready = emit::field(pod, "ready") == "true";
        let terminating = pod.header.deletion_ms != 0;
        let mut endpoint = json!({
            "addresses": [address],
            "conditions": {
                "ready": publish_all || (ready && !terminating),
                "serving": ready,
                "terminating": terminating,
            },
            "nodeName": pod.header.node,
            "targetRef": {
                "kind": "Pod",
                "namespace": pod_key.namespace,
                "name": pod_key.name,
                "uid": pod.header.uid,
            },
        });
        let host = json::text(&object, "spec.hostname");
        if headless && !host.is_empty() && json::text(&object, "spec.subdomain") == key.name {
            endpoint["hostname"] = host.into();
        }
        let ports: Value = service_ports.iter().filter_map(|port| resolve(port, &object)).collect();
        let group = groups.entry(ports.to_string()).or_insert_with(|| (ports, Endpoints::new()));
        group.1.insert(pod.header.uid.clone(), endpoint);
    }
    groups
}

/// A Service's port on one pod; `None` where the pod has no port of that name.
fn resolve(port: &Value, pod: &Value) -> Option<Value> {
    let protocol = match json::text(port, "protocol") {
        "" => "TCP",
        protocol => protocol,
    };
    let number = match port.get("targetPort") {
        Some(Value::String(name)) => json::items(pod, "spec.containers")
            .iter()
            .flat_map(|container| json::items(container, "ports"))
            .find(|port| {
                json::text(port, "name") == name
                    && matches!(json::text(port, "protocol"), p if p == protocol || p.is_empty())
            })
            .and_then(|port| json::int(port, "containerPort"))?,
        Some(target) if target.as_i64().is_some_and(|number| number != 0) => target.as_i64()?,
        _ => json::int(port, "port")?,
    };
    let mut out = Map::new();
    out.insert("name".to_owned(), json::text(port, "name").into());
    out.insert("protocol".to_owned(), protocol.into());
    out.insert("port".to_owned(), number.into());
    if let Some(app) = port.get("appProtocol").filter(|app| !app.is_null()) {
        out.insert("appProtocol".to_owned(), app.clone());
    }
    Some(Value::Object(out))
}

/// Keeps endpoints where they are, fills gaps with new ones, makes slices for the rest and removes the empty.
fn fill(
    key: &Key,
    service: &Value,
    ports: &Value,
    present: Vec<(&Key, &Arc<Record>)>,
    wanted: &mut Endpoints,
    root: &State,
    cx: &mut Context,
) -> Vec<Command> {
    let mut kept: Vec<_> = present
        .into_iter()
        .map(|(key, record)| {
            let slice = record::parse(record);
            let endpoints: Vec<Value> = json::items(&slice, "endpoints")
                .iter()
                .filter_map(|endpoint| wanted.remove(json::text(endpoint, "targetRef.uid")))
                .collect();
            (key, record, slice, endpoints)
        })
        .collect();
    let mut rest: Vec<Value> = std::mem::take(wanted).into_values().collect();
    rest.sort_by(|a, b| json::text(a, "targetRef.name").cmp(json::text(b, "targetRef.name")));
    let mut rest = rest.into_iter();
    for (_, _, _, endpoints) in &mut kept {
        let room = ENDPOINTS_MAX.saturating_sub(endpoints.len());
        endpoints.extend(rest.by_ref().take(room));
    }
    let more: Vec<Value> = rest.collect();
    let none_wanted = more.is_empty() && kept.iter().all(|(_, _, _, endpoints)| endpoints.is_empty());
    let mut chunks: Vec<Vec<Value>> = more.chunks(ENDPOINTS_MAX).map(<[Value]>::to_vec).collect();
    if none_wanted && kept.is_empty() {
        chunks.push(Vec::new());
    }

    let mut commands = Vec::new();
    for (i, (slice_key, record, mut slice, endpoints)) in kept.into_iter().enumerate() {
        if endpoints.is_empty() && !(none_wanted && i == 0) {
            commands.push(emit::remove(slice_key, record));
            continue;
        }
        json::set(&mut slice, "endpoints", endpoints.into());
        json::set(&mut slice, "metadata.labels", labels(key, service));
        commands.extend(emit::update_spec(slice_key, record, &mut slice));
    }
    let made = chunks.into_iter().filter_map(|endpoints| new_slice(key, service, ports, endpoints, root, cx));
    commands.extend(made);
    commands
}

fn labels(key: &Key, service: &Value) -> Value {
    let mut labels = json::at(service, "metadata.labels").as_object().cloned().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), key.name.clone().into());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.into());
    if json::text(service, "spec.clusterIP") == "None" {
        labels.insert("service.kubernetes.io/headless".to_owned(), "".into());
    }
    Value::Object(labels)
}

fn new_slice(
    key: &Key,
    service: &Value,
    ports: &Value,
    endpoints: Vec<Value>,
    root: &State,
    cx: &mut Context,
) -> Option<Command> {
    let base = format!("{}-", key.name);
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": meta::generated_name(&base, cx.draw()),
            "generateName": base,
            "namespace": key.namespace,
            "labels": labels(key, service),
            "ownerReferences": [meta::owner_reference(service)],
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": ports,
    });
    let mut command = emit::create(root, GROUP, "endpointslices", slice, cx).ok()?;
    command.expects.push(Expect::uid(key.clone(), meta::uid(service)));
    Some(command)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::{World, deployment, pod};

    fn service(port: Value) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": "web", "namespace": "default" },
            "spec": { "selector": { "app": "web" }, "ports": [port] },
        })
    }

    /// Pod, ready, terminating.
    type Seen = (String, bool, bool);

    /// The ports and endpoints of each slice of `web`.
    fn slices(world: &World) -> Vec<(Value, Vec<Seen>)> {
        let read = |endpoint: &Value| {
            let is = |name: &str| json::flag(endpoint, &format!("conditions.{name}"));
            (json::text(endpoint, "targetRef.name").to_owned(), is("ready"), is("terminating"))
        };
        world
            .list(GROUP, "endpointslices", "default")
            .into_iter()
            .filter(|(_, slice)| json::entry(slice, "metadata.labels", SERVICE_NAME) == Some("web"))
            .map(|(_, slice)| {
                let ports = json::items(&slice, "ports").iter().map(|port| port["port"].clone()).collect();
                (ports, json::items(&slice, "endpoints").iter().map(read).collect())
            })
            .collect()
    }

    #[test]
    fn endpoints_follow_the_pods() {
        let mut world = World::with_nodes(2);
        world.create("", "services", service(json!({ "port": 80, "targetPort": 8080 })));
        world.settle();
        assert_eq!(slices(&world), [(json!([]), vec![])], "seen, and empty");
        let web = world.create("apps", "deployments", deployment("web", 2));
        world.settle_quietly();
        let (ports, endpoints) = slices(&world).remove(0);
        assert_eq!(ports, json!([8080]));
        assert!(endpoints.len() == 2 && endpoints.iter().all(|(_, ready, terminating)| *ready && !terminating));
        // A pod on its way out is no longer ready, and still there.
        let going = world.pods().remove(0).0;
        world.delete(&going);
        while let Some(item) = world.waiting().first().cloned() {
            world.plan(&item);
        }
        assert!(slices(&world)[0].1.contains(&(going.name, false, true)), "{:?}", slices(&world));
        world.settle_quietly();
        world.delete(&web);
        world.settle_quietly();
        assert!(slices(&world)[0].1.is_empty());
        world.delete(&Key::new("", "services", "default", "web"));
        world.settle_quietly();
        assert!(slices(&world).is_empty());
    }

    #[test]
    fn named_ports_and_many_endpoints() {
        let mut world = World::with_nodes(3);
        world.create("", "services", service(json!({ "port": 80, "targetPort": "http" })));
        let with_port = |name: &str, number: i64| {
            let mut pod = pod(name, json!({}));
            pod["metadata"]["labels"] = json!({ "app": "web" });
            pod["spec"]["containers"][0]["ports"] = json!([{ "name": "http", "containerPort": number }]);
            pod
        };
        for i in 0..120 {
            world.create("", "pods", with_port(&format!("a{i}"), 8080));
        }
        world.create("", "pods", with_port("b", 9090));
        world.settle_quietly();
        let mut sizes: Vec<(String, usize)> =
            slices(&world).into_iter().map(|(ports, endpoints)| (ports.to_string(), endpoints.len())).collect();
        sizes.sort();
        assert_eq!(sizes, [("[8080]".into(), 20), ("[8080]".into(), 100), ("[9090]".into(), 1)]);
    }
}
