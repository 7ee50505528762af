//! What every cluster has: four namespaces, two PriorityClasses, the Service `kubernetes` with the masters behind it, and in every namespace
//! the ServiceAccount `default` and the ConfigMap `kube-root-ca.crt`. Made when missing, the last two mended when edited.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use objects::kinds::SYSTEM_PRIORITIES;
use serde_json::{Value, json};
use state::{Command, Event, Key, State};

use super::endpointslice::{MANAGED_BY, SERVICE_NAME};
use crate::{Context, Plan, Row, emit, json, record};

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
const ROOT_CA: &str = "kube-root-ca.crt";
const SERVICE: &str = "kubernetes";
const PRIORITIES: (&str, &str) = ("scheduling.k8s.io", "priorityclasses");
/// The masters are not in the state, so their addresses are compared this often.
const ROUND: Duration = Duration::from_secs(10);

pub const ROW: Row = Row {
    name: "bootstrap",
    watches: &[
        ("", "namespaces"),
        ("", "services"),
        ("", "serviceaccounts"),
        ("", "configmaps"),
        ("discovery.k8s.io", "endpointslices"),
        PRIORITIES,
    ],
    keys,
    plan,
    resync: |root| {
        let mut keys = vec![Key::namespace("")];
        keys.extend(super::keys_of(root, "", "namespaces"));
        keys
    },
};

fn keys(_root: &State, event: &Event) -> Vec<Key> {
    let key = &event.key;
    match key.resource.as_str() {
        "namespaces" if event.new.is_none() && NAMESPACES.contains(&key.name.as_str()) => vec![Key::namespace("")],
        "priorityclasses" if event.new.is_none() => vec![Key::namespace("")],
        "namespaces" => vec![key.clone()],
        "serviceaccounts" if key.name == "default" => vec![Key::namespace(&key.namespace)],
        "configmaps" if key.name == ROOT_CA => vec![Key::namespace(&key.namespace)],
        "services" | "endpointslices" if key.namespace == "default" && key.name.starts_with(SERVICE) => {
            vec![Key::namespace("default")]
        }
        _ => Vec::new(),
    }
}

fn plan(root: &State, key: &Key, cx: &mut Context) -> Plan {
    let mut plan = Plan::default();
    if key.name.is_empty() {
        for name in NAMESPACES.iter().filter(|name| root.get(&Key::namespace(**name)).is_none()) {
            let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
            plan.commands.extend(emit::create(root, "", "namespaces", namespace, cx));
        }
        priority_classes(root, cx, &mut plan.commands);
        return plan;
    }
    let Some(_) = root.get(key).filter(|namespace| namespace.header.deletion_ms == 0) else { return plan };
    service_account(root, &key.name, cx, &mut plan.commands);
    root_ca(root, &key.name, cx, &mut plan.commands);
    if key.name == "default" {
        api_service(root, cx, &mut plan.commands);
        api_endpoints(root, cx, &mut plan.commands);
        plan.look_again(ROUND);
    }
    plan
}

/// The classes of what the cluster cannot do without.
fn priority_classes(root: &State, cx: &mut Context, out: &mut Vec<Command>) {
    for (name, value) in SYSTEM_PRIORITIES {
        if root.get(&Key::new(PRIORITIES.0, PRIORITIES.1, "", *name)).is_some() {
            continue;
        }
        let description = match *name {
            "system-node-critical" => "Used for system critical pods that must not be moved from their current node.",
            _ => {
                "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary."
            }
        };
        let class = json!({
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": { "name": name },
            "value": value,
            "description": description,
        });
        out.extend(emit::create(root, PRIORITIES.0, PRIORITIES.1, class, cx));
    }
}

fn service_account(root: &State, namespace: &str, cx: &mut Context, out: &mut Vec<Command>) {
    if root.get(&Key::new("", "serviceaccounts", namespace, "default")).is_none() {
        let account = json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": { "name": "default", "namespace": namespace },
        });
        out.extend(emit::create(root, "", "serviceaccounts", account, cx));
    }
}

fn root_ca(root: &State, namespace: &str, cx: &mut Context, out: &mut Vec<Command>) {
    if cx.settings.root_ca_pem.is_empty() {
        return;
    }
    let data = json!({ "ca.crt": cx.settings.root_ca_pem });
    let key = Key::new("", "configmaps", namespace, ROOT_CA);
    match root.get(&key) {
        Some(present) => {
            let mut map = record::parse(present);
            json::set(&mut map, "data", data);
            out.extend(emit::update(&key, present, &map));
        }
        None => {
            let map = json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {
                    "name": ROOT_CA,
                    "namespace": namespace,
                    "annotations": {
                        "kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.",
                    },
                },
                "data": data,
            });
            out.extend(emit::create(root, "", "configmaps", map, cx));
        }
    }
}

fn api_service(root: &State, cx: &mut Context, out: &mut Vec<Command>) {
    if root.get(&Key::new("", "services", "default", SERVICE)).is_some() {
        return;
    }
    let Some(address) = cx.settings.service_cidr.hosts().next() else { return };
    let target = cx.settings.masters.first().map_or(6443, SocketAddr::port);
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": SERVICE,
            "namespace": "default",
            "labels": { "component": "apiserver", "provider": "kubernetes" },
        },
        "spec": {
            "clusterIP": address.to_string(),
            "clusterIPs": [address.to_string()],
            "ports": [{ "name": "https", "protocol": "TCP", "port": 443, "targetPort": target }],
            "type": "ClusterIP",
        },
    });
    out.extend(emit::create(root, "", "services", service, cx));
}

/// One slice per port the masters listen on (they differ where several run on one machine).
fn api_endpoints(root: &State, cx: &mut Context, out: &mut Vec<Command>) {
    let mut by_port: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for master in &cx.settings.masters {
        by_port.entry(master.port()).or_default().push(master.ip().to_string());
    }
    if by_port.is_empty() {
        return;
    }
    let mut wanted: BTreeMap<String, (u16, Vec<String>)> = BTreeMap::new();
    for (i, (port, mut addresses)) in by_port.into_iter().enumerate() {
        addresses.sort();
        addresses.dedup();
        let name = if i == 0 { SERVICE.to_owned() } else { format!("{SERVICE}-{port}") };
        wanted.insert(name, (port, addresses));
    }
    for (key, slice) in root.list("discovery.k8s.io", "endpointslices", Some("default")) {
        let ours = slice.header.labels.get(SERVICE_NAME).is_some_and(|name| name == SERVICE)
            && !slice.header.labels.contains_key(MANAGED_BY);
        if ours && !wanted.contains_key(&key.name) {
            out.push(emit::remove(key, slice));
        }
    }
    for (name, (port, addresses)) in wanted {
        let endpoints: Vec<Value> = addresses
            .iter()
            .map(|address| json!({ "addresses": [address], "conditions": { "ready": true } }))
            .collect();
        let ports = json!([{ "name": "https", "port": port, "protocol": "TCP" }]);
        let key = Key::new("discovery.k8s.io", "endpointslices", "default", &name);
        match root.get(&key) {
            Some(present) => {
                let mut slice = record::parse(present);
                json::set(&mut slice, "endpoints", endpoints.into());
                json::set(&mut slice, "ports", ports);
                out.extend(emit::update_spec(&key, present, &mut slice));
            }
            None => {
                let slice = json!({
                    "apiVersion": "discovery.k8s.io/v1",
                    "kind": "EndpointSlice",
                    "metadata": { "name": name, "namespace": "default", "labels": { SERVICE_NAME: SERVICE } },
                    "addressType": "IPv4",
                    "endpoints": endpoints,
                    "ports": ports,
                });
                out.extend(emit::create(root, "discovery.k8s.io", "endpointslices", slice, cx));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::harness::World;

    #[test]
    fn what_every_cluster_has() {
        let mut world = World::new();
        world.settings.root_ca_pem = "PEM".into();
        world.take_office();
        world.settle_quietly();
        for name in NAMESPACES {
            assert!(world.root.get(&Key::namespace(name)).is_some(), "{name}");
            assert!(world.root.get(&Key::new("", "serviceaccounts", name, "default")).is_some(), "{name}");
        }
        let service = world.object(&Key::new("", "services", "default", SERVICE));
        assert_eq!(json::text(&service, "spec.clusterIP"), "10.96.0.1");
        for (name, value) in SYSTEM_PRIORITIES {
            let class = Key::new(PRIORITIES.0, PRIORITIES.1, "", *name);
            assert_eq!(world.object(&class)["value"], json!(value));
            world.remove(&class);
        }
        // Mended when edited, made again when deleted.
        let map = Key::new("", "configmaps", "kube-public", ROOT_CA);
        world.edit(&map, |map| map["data"]["ca.crt"] = "forged".into());
        world.remove(&Key::new("", "serviceaccounts", "default", "default"));
        world.settle_quietly();
        assert_eq!(json::entry(&world.object(&map), "data", "ca.crt"), Some("PEM"));
        assert!(world.root.get(&Key::new("", "serviceaccounts", "default", "default")).is_some());
        assert_eq!(world.root.list(PRIORITIES.0, PRIORITIES.1, None).count(), SYSTEM_PRIORITIES.len());
    }

    #[test]
    fn the_endpoints_follow_the_masters() {
        let mut world = World::new();
        world.settings.masters =
            vec![([192, 0, 2, 1], 6443).into(), ([192, 0, 2, 2], 6443).into(), ([192, 0, 2, 2], 7443).into()];
        world.advance(Duration::from_secs(20));
        let slices: Vec<(String, usize)> = world
            .list("discovery.k8s.io", "endpointslices", "default")
            .iter()
            .map(|(key, slice)| (key.name.clone(), json::items(slice, "endpoints").len()))
            .collect();
        assert_eq!(slices, [("kubernetes".into(), 2), ("kubernetes-7443".into(), 1)]);
        // All masters of a cluster on one machine.
        world.settings.masters = vec![([127, 0, 0, 1], 6443).into()];
        world.remove(&Key::new("discovery.k8s.io", "endpointslices", "default", SERVICE));
        world.advance(Duration::from_secs(20));
        assert_eq!(world.list("discovery.k8s.io", "endpointslices", "default").len(), 1);
        world.assert_nothing_to_plan();
    }
}
