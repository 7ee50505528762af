//! GET and LIST of `metrics.k8s.io`: what nodes told, of those Nodes and pods that are in the store, with their labels.
//!
//! As with Kubernetes' metrics-server, a node or pod of which nothing is known is absent.

use std::time::Duration;

use axum::response::Response;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use objects::quantity::{self, Quantity};
use serde_json::{Value, json};
use state::{Key, Record, State};

use crate::negotiate::{self, Form};
use crate::query::{Query, Selectors};
use crate::respond::Answer;
use crate::route;
use crate::server::Server;
use crate::status::{Failure, Result};
use crate::usage::{GROUP, NodeUsage, PodUsage, Resource, UsageQuery, Used, VERSION};

pub async fn usage(server: &Server, asked: &route::Resource, query: &Query, headers: &HeaderMap) -> Result<Response> {
    let resource = Resource::ALL.into_iter().find(|known| known.plural() == asked.resource);
    let resource = resource.filter(|_| asked.version == VERSION).ok_or_else(Failure::no_such_path)?;
    let placed = resource.namespaced() || asked.namespace.is_empty();
    let one = !asked.name.is_empty();
    if !placed || !asked.subresource.is_empty() || (one && resource.namespaced() && asked.namespace.is_empty()) {
        return Err(Failure::no_such_path());
    }
    if !matches!(asked.verb, "get" | "list") {
        return Err(Failure::method_not_allowed());
    }
    let accepted = negotiate::accepted(headers, true)?;
    // What is measured is Nodes and pods, and is found by their labels and fields.
    let kind = server.kinds.by_resource("", resource.plural()).ok_or_else(Failure::no_such_path)?;
    let wanted = Wanted { asked, selectors: Selectors::of(kind, None, query)? };
    if !server.config.replica.leadership().borrow().serving {
        return Err(Failure::without_leader("this master has not confirmed a leader yet, or lost it"));
    }
    let asked_for = UsageQuery { pods: resource == Resource::Pods, namespace: asked.namespace.clone() };
    let nodes = server.config.usages.usages(&asked_for).await;
    let root = server.config.replica.root();
    let now = (server.config.now)();
    let mut items = match resource {
        Resource::Nodes => node_items(&nodes, &root, &wanted, now),
        Resource::Pods => pod_items(&nodes, &root, &wanted, now),
    };
    items.sort_by(|a, b| a.place.cmp(&b.place));
    let body = match accepted.form {
        Form::Table(version) => table(&items, version),
        Form::Metadata(version) if one => {
            let item = items.first().ok_or_else(|| Failure::unknown_object(GROUP, resource.plural(), &asked.name))?;
            partial(item, version)
        }
        Form::Metadata(version) => json!({
            "kind": "PartialObjectMetadataList", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": {},
            "items": items.iter().map(|item| partial(item, version)).collect::<Vec<_>>(),
        }),
        Form::Object if one => items.first().map(|item| item.object(resource)).unwrap_or_default(),
        Form::Object => json!({
            "kind": format!("{}List", resource.kind()), "apiVersion": format!("{GROUP}/{VERSION}"), "metadata": {},
            "items": items.iter().map(|item| item.object.clone()).collect::<Vec<_>>(),
        }),
    };
    if one && items.is_empty() {
        return Err(Failure::unknown_object(GROUP, resource.plural(), &asked.name));
    }
    let answer = Answer { headers, encoding: accepted.encoding, warnings: Vec::new() };
    answer.json(StatusCode::OK, body.to_string().into_bytes())
}

/// Which objects.
struct Wanted<'a> {
    asked: &'a route::Resource,
    selectors: Selectors,
}

impl Wanted<'_> {
    fn fits(&self, namespace: &str, name: &str, record: &Record) -> bool {
        (self.asked.name.is_empty() || self.asked.name == name)
            && (self.asked.namespace.is_empty() || self.asked.namespace == namespace)
            && self.selectors.matches(record)
    }
}

/// One object, and what a Table shows of it.
struct Item {
    place: (String, String),
    object: Value,
    used: Used,
    window: Duration,
}

impl Item {
    /// On its own it says what it is.
    fn object(&self, resource: Resource) -> Value {
        let mut object = json!({"kind": resource.kind(), "apiVersion": format!("{GROUP}/{VERSION}")});
        if let (Some(object), Some(fields)) = (object.as_object_mut(), self.object.as_object()) {
            object.extend(fields.clone());
        }
        object
    }
}

fn node_items(nodes: &[NodeUsage], root: &State, wanted: &Wanted<'_>, now: Timestamp) -> Vec<Item> {
    let items = nodes.iter().filter_map(|node| {
        let record = root.get(&Key::node(&node.node)).filter(|record| record.header.uid == node.uid)?;
        wanted.fits("", &node.node, record).then(|| Item {
            place: (String::new(), node.node.clone()),
            object: json!({
                "metadata": metadata("", &node.node, record, now),
                "timestamp": second(node.taken),
                "window": go_duration(node.window),
                "usage": amounts(node.used),
            }),
            used: node.used,
            window: node.window,
        })
    });
    items.collect()
}

fn pod_items(nodes: &[NodeUsage], root: &State, wanted: &Wanted<'_>, now: Timestamp) -> Vec<Item> {
    let all = nodes.iter().flat_map(|node| node.pods.iter().map(move |pod| (node, pod)));
    let items = all.filter_map(|(node, pod)| {
        let record = root.get(&Key::new("", "pods", &pod.namespace, &pod.name))?;
        let same = record.header.uid == pod.uid && record.header.node == node.node;
        (same && wanted.fits(&pod.namespace, &pod.name, record)).then(|| pod_item(node, pod, record, now))
    });
    items.collect()
}

fn pod_item(node: &NodeUsage, pod: &PodUsage, record: &Record, now: Timestamp) -> Item {
    let sum = |field: fn(&Used) -> u64| pod.containers.iter().map(|(_, used)| field(used)).fold(0, u64::saturating_add);
    let container = |(name, used): &(String, Used)| json!({"name": name, "usage": amounts(*used)});
    Item {
        place: (pod.namespace.clone(), pod.name.clone()),
        object: json!({
            "metadata": metadata(&pod.namespace, &pod.name, record, now),
            "timestamp": second(node.taken),
            "window": go_duration(node.window),
            "containers": pod.containers.iter().map(container).collect::<Vec<_>>(),
        }),
        used: Used { cpu_nanos: sum(|used| used.cpu_nanos), memory_bytes: sum(|used| used.memory_bytes) },
        window: node.window,
    }
}

fn metadata(namespace: &str, name: &str, record: &Record, now: Timestamp) -> Value {
    let mut metadata = json!({"name": name});
    if !namespace.is_empty() {
        metadata["namespace"] = namespace.into();
    }
    metadata["creationTimestamp"] = second(now).into();
    let labels: serde_json::Map<String, Value> =
        record.header.labels.iter().map(|(key, value)| (key.to_string(), value.to_string().into())).collect();
    if !labels.is_empty() {
        metadata["labels"] = labels.into();
    }
    metadata
}

fn amounts(used: Used) -> Value {
    json!({"cpu": cpu(used.cpu_nanos), "memory": memory(used.memory_bytes)})
}

fn cpu(nanos: u64) -> String {
    quantity::canonical(&format!("{nanos}n"))
}

fn memory(bytes: u64) -> String {
    Quantity::from_bytes(bytes.into()).to_string()
}

fn second(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

/// `15s`, `10.003s`, `1m0s`: as Go writes a duration.
fn go_duration(duration: Duration) -> String {
    let (minutes, rest) = (duration.as_secs() / 60, duration - Duration::from_secs(duration.as_secs() / 60 * 60));
    let mut seconds = format!("{}.{:03}", rest.as_secs(), rest.subsec_millis());
    seconds.truncate(seconds.trim_end_matches('0').trim_end_matches('.').len());
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// The columns of metrics-server's own Tables.
fn table(items: &[Item], version: &str) -> Value {
    let column = |name: &str, format: &str, description: &str| json!({"name": name, "type": "string", "format": format, "description": description, "priority": 0});
    let rows = items.iter().map(|item| {
        let cells =
            json!([item.place.1, cpu(item.used.cpu_nanos), memory(item.used.memory_bytes), go_duration(item.window)]);
        json!({"cells": cells, "object": partial(item, version)})
    });
    json!({
        "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": {},
        "columnDefinitions": [
            column("Name", "name", "Name of the resource"),
            column("cpu", "quantity", ""),
            column("memory", "quantity", ""),
            column("Window", "duration", ""),
        ],
        "rows": rows.collect::<Vec<_>>(),
    })
}

fn partial(item: &Item, version: &str) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": item.object["metadata"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_as_kubernetes_does() {
        for (nanos, want) in [(0, "0"), (1, "1n"), (1_000, "1u"), (12_345_678, "12345678n"), (1_500_000_000, "1500m")] {
            assert_eq!(cpu(nanos), want);
        }
        for (bytes, want) in [(0, "0"), (1000, "1k"), (12_288, "12Ki"), (3 << 20, "3Mi"), ((1 << 20) + 4096, "1028Ki")]
        {
            assert_eq!(memory(bytes), want);
        }
        for (ms, want) in
            [(15_000, "15s"), (10_003, "10.003s"), (500, "0.5s"), (60_000, "1m0s"), (3_661_500, "1h1m1.5s")]
        {
            assert_eq!(go_duration(Duration::from_millis(ms)), want);
        }
    }
}
