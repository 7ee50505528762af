//! `hactl describe`: what the server knows of one object, on one page: its state, why it waits, whose it is, what is
//! below it, what happened.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::discovery::{Catalog, Resource};
use super::get::{TABLE, render};
use super::{Scope, encoded, json as told, read, request, selector_of};

/// Kinds that others own, each behind those that may own it.
const OWNED: [&str; 4] = ["replicasets.apps", "jobs.batch", "pods", "endpointslices.discovery.k8s.io"];

/// Show what is known of an object, on one page
#[derive(Debug, clap::Args)]
pub struct Describe {
    /// What to show: `deployment/web`, `pod web-1`
    #[arg(required = true, value_name = "RESOURCE NAME")]
    what: Vec<String>,
    #[command(flatten)]
    scope: Scope,
}

/// The server, and where on it.
struct Server<'a> {
    client: &'a kube::Client,
    catalog: &'a Catalog,
    namespace: &'a str,
}

impl Describe {
    pub async fn run(self) -> Result<()> {
        let client = self.scope.client().await?;
        let catalog = Catalog::load(&client).await?;
        let server = Server { client: &client, catalog: &catalog, namespace: self.scope.namespace(&client) };
        let mut pages = Vec::new();
        for (resource, name) in catalog.objects(&self.what)? {
            let page = server.page(resource, name).await;
            pages.push(page.with_context(|| format!("cannot describe {}", resource.label(name)))?);
        }
        print!("{}", pages.join("\n\n"));
        Ok(())
    }
}

impl Server<'_> {
    async fn page(&self, resource: &Resource, name: &str) -> Result<String> {
        let path = resource.object(self.namespace, name);
        let object = read(self.client, &path).await?;
        let row = self.table(&path).await?;
        let mut page = format!("{}\n", resource.label(name));
        for (title, text) in [("Namespace", resource.namespaced.then(|| self.namespace.to_owned()))]
            .into_iter()
            .chain(cells(&row))
            .chain([("Labels", labels(&object["metadata"]["labels"])), ("Owned by", self.owners(&object).await?)])
        {
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                page.push_str(&format!("{:<20}{text}\n", format!("{title}:")));
            }
        }
        let below = self.below(resource, &object).await?;
        for (title, text) in [
            ("Waits", bullets(&waits(&object))),
            ("Conditions", conditions(&object)),
            ("Below it", below),
            ("Events", self.events(&object).await?),
        ] {
            if !text.is_empty() {
                page.push_str(&format!("\n{title}:\n"));
                text.lines().for_each(|line| page.push_str(&format!("  {line}\n")));
            }
        }
        Ok(page)
    }

    async fn table(&self, path: &str) -> Result<Value> {
        told(self.client, request("GET", path, TABLE, None)?).await
    }

    /// From the nearest to the farthest: the controller, and its own.
    async fn owners(&self, object: &Value) -> Result<Option<String>> {
        let (mut names, mut owned) = (Vec::new(), object.clone());
        // No chain of controllers is that long; one that names itself must not be followed for ever.
        for _ in 0..OWNED.len() {
            let references = owned["metadata"]["ownerReferences"].as_array().map_or(&[][..], Vec::as_slice);
            let Some(owner) = references.iter().find(|owner| owner["controller"] == true).or(references.first()) else {
                break;
            };
            let Ok(resource) = self.catalog.of(owner) else { break };
            let name = owner["name"].as_str().unwrap_or_default().to_owned();
            names.push(resource.label(&name));
            // It may be gone already.
            let Ok(next) = read(self.client, &resource.object(self.namespace, &name)).await else { break };
            owned = next;
        }
        Ok((!names.is_empty()).then(|| names.join(", of ")))
    }

    /// What it owns, and what that owns; of a node its pods.
    async fn below(&self, resource: &Resource, object: &Value) -> Result<String> {
        if resource.plural == "nodes" {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let selector = encoded(&format!("spec.nodeName={name}"));
            let table = self.table(&format!("/api/v1/pods?fieldSelector={selector}")).await?;
            return Ok(render(&table, false, true, None, true));
        }
        let labels = object["spec"]["selector"]["matchLabels"].as_object();
        let selector =
            labels.map_or_else(String::new, |labels| format!("?labelSelector={}", encoded(&selector_of(labels))));
        let mut uids: BTreeSet<String> = object["metadata"]["uid"].as_str().map(str::to_owned).into_iter().collect();
        let mut text = Vec::new();
        for kind in OWNED {
            let Ok(resource) = self.catalog.named(kind) else { continue };
            let mut table = self.table(&format!("{}{selector}", resource.collection(Some(self.namespace)))).await?;
            let rows = table["rows"].as_array_mut().map(std::mem::take).unwrap_or_default();
            let rows: Vec<Value> = rows.into_iter().filter(|row| is_owned(row, &uids)).collect();
            uids.extend(rows.iter().filter_map(|row| row["object"]["metadata"]["uid"].as_str()).map(str::to_owned));
            table["rows"] = rows.into();
            text.push(render(&table, false, false, Some(&resource.label("")), true));
        }
        text.retain(|table| !table.is_empty());
        Ok(text.join("\n"))
    }

    async fn events(&self, object: &Value) -> Result<String> {
        let Some(uid) = object["metadata"]["uid"].as_str() else { return Ok(String::new()) };
        let events = self.catalog.named("events")?;
        let selector = encoded(&format!("involvedObject.uid={uid}"));
        let collection = events.collection(object["metadata"]["namespace"].as_str());
        let mut table = self.table(&format!("{collection}?includeObject=Object&fieldSelector={selector}")).await?;
        if let Some(rows) = table["rows"].as_array_mut() {
            rows.sort_by_key(|row| super::events::last_seen(&row["object"]));
        }
        Ok(render(&table, false, false, None, true))
    }
}

fn is_owned(row: &Value, uids: &BTreeSet<String>) -> bool {
    let owners = row["object"]["metadata"]["ownerReferences"].as_array().map_or(&[][..], Vec::as_slice);
    owners.iter().any(|owner| owner["uid"].as_str().is_some_and(|uid| uids.contains(uid)))
}

/// All columns of the only row but its name.
fn cells(table: &Value) -> Vec<(&str, Option<String>)> {
    let columns = table["columnDefinitions"].as_array().map_or(&[][..], Vec::as_slice);
    let cells = columns.iter().enumerate().skip(1).map(|(at, column)| {
        let text = match &table["rows"][0]["cells"][at] {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        (column["name"].as_str().unwrap_or_default(), text.filter(|text| text != "<none>"))
    });
    cells.collect()
}

fn labels(labels: &Value) -> Option<String> {
    let none = Map::new();
    Some(selector_of(labels.as_object().unwrap_or(&none)))
}

fn bullets(lines: &[String]) -> String {
    lines.iter().map(|line| format!("- {line}\n")).collect()
}

fn conditions(object: &Value) -> String {
    let conditions = object["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    let cell = |condition: &Value, field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    let row = |condition: &Value| {
        let cells = ["type", "status", "reason", "message"].map(|field| cell(condition, field));
        json!({"cells": cells})
    };
    let columns = ["Type", "Status", "Reason", "Message"].map(|name| json!({"name": name}));
    let rows: Vec<Value> = conditions.iter().map(row).collect();
    render(&json!({"columnDefinitions": columns, "rows": rows}), false, false, None, true)
}

/// Why it is not as it shall be, in the words of who tried.
fn waits(object: &Value) -> Vec<String> {
    let mut why = Vec::new();
    if let Some(since) = object["metadata"]["deletionTimestamp"].as_str() {
        let holders = object["metadata"]["finalizers"].as_array().map_or(&[][..], Vec::as_slice);
        let holders: Vec<&str> = holders.iter().filter_map(Value::as_str).collect();
        let held = if holders.is_empty() { String::new() } else { format!("; held by {}", holders.join(", ")) };
        why.push(format!("it is being deleted since {since}{held}"));
    }
    for condition in object["status"]["conditions"].as_array().into_iter().flatten() {
        // Of most conditions True is well, of these False.
        let kind = condition["type"].as_str().unwrap_or_default();
        let bad = if kind.ends_with("Pressure") || kind.ends_with("Failure") { "True" } else { "False" };
        let succeeded = object["status"]["phase"] == "Succeeded";
        if condition["status"] == bad && !succeeded {
            let text = |field: &str| condition[field].as_str().unwrap_or_default();
            let message = if text("message").is_empty() { text("reason") } else { text("message") };
            why.push(format!("{kind}: {message}"));
        }
    }
    for list in ["initContainerStatuses", "containerStatuses"] {
        for container in object["status"][list].as_array().into_iter().flatten() {
            let waiting = &container["state"]["waiting"];
            let Some(reason) = waiting["reason"].as_str() else { continue };
            let message = waiting["message"].as_str().map_or_else(String::new, |message| format!(": {message}"));
            why.push(format!("container {}: {reason}{message}", container["name"].as_str().unwrap_or_default()));
        }
    }
    why
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_an_object_waits() {
        let pod = json!({
            "metadata": {"name": "p"},
            "status": {
                "phase": "Pending",
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes are available"},
                    {"type": "Initialized", "status": "True"},
                ],
                "containerStatuses": [
                    {"name": "c", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}},
                    {"name": "d", "state": {"running": {}}},
                ],
            },
        });
        assert_eq!(
            waits(&pod),
            ["PodScheduled: 0/2 nodes are available", "container c: ImagePullBackOff: no such image"]
        );
        let node = json!({"status": {"conditions": [
            {"type": "MemoryPressure", "status": "False", "message": "enough"},
            {"type": "Ready", "status": "True"},
        ]}});
        assert!(waits(&node).is_empty());
        let held = json!({"metadata": {"deletionTimestamp": "t", "finalizers": ["a", "b"]}});
        assert_eq!(waits(&held), ["it is being deleted since t; held by a, b"]);
        let done = json!({"status": {"phase": "Succeeded", "conditions": [{"type": "Ready", "status": "False"}]}});
        assert!(waits(&done).is_empty());
    }

    #[test]
    fn cells_become_lines() {
        let table = json!({
            "columnDefinitions": [{"name": "Name"}, {"name": "Ready"}, {"name": "IP"}, {"name": "Restarts"}],
            "rows": [{"cells": ["p", "1/1", "<none>", 3]}],
        });
        assert_eq!(
            cells(&table),
            [("Ready", Some("1/1".to_owned())), ("IP", None), ("Restarts", Some("3".to_owned()))]
        );
    }
}
