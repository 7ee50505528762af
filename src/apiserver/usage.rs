//! What nodes and pods use: the seam to whoever knows it, and how discovery names the group `metrics.k8s.io`.
//!
//! Its objects are of no kind of the store: they are figures of a moment, made for each answer.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

pub const GROUP: &str = "metrics.k8s.io";
pub const VERSION: &str = "v1beta1";
const VERBS: &[&str] = &["get", "list"];

/// Lately, on the average.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Billionths of a processor.
    pub cpu_nanos: u64,
    pub memory_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeUsage {
    pub node: String,
    /// Of the Node, so that a successor of its name gets none of its figures.
    pub uid: String,
    pub taken: Timestamp,
    /// Over which processor time was measured.
    pub window: Duration,
    pub used: Used,
    pub pods: Vec<PodUsage>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodUsage {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// By name.
    pub containers: Vec<(String, Used)>,
}

/// Which figures are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageQuery {
    /// With the nodes' pods.
    pub pods: bool,
    /// Of this namespace only; empty: of all.
    pub namespace: String,
}

/// The way to what nodes told the masters.
#[async_trait::async_trait]
pub trait Usages: Send + Sync + 'static {
    /// Of every node that told something lately, in any order. Never waits for long: what is not known then is left out.
    async fn usages(&self, query: &UsageQuery) -> Vec<NodeUsage>;
}

/// Where there are no nodes, nothing is known of any.
#[async_trait::async_trait]
impl Usages for () {
    async fn usages(&self, _: &UsageQuery) -> Vec<NodeUsage> {
        Vec::new()
    }
}

/// One of the two resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    Nodes,
    Pods,
}

impl Resource {
    pub const ALL: [Self; 2] = [Self::Nodes, Self::Pods];

    pub fn plural(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Pods => "pods",
        }
    }

    pub fn kind(self) -> &'static str {
        match self {
            Self::Nodes => "NodeMetrics",
            Self::Pods => "PodMetrics",
        }
    }

    pub fn namespaced(self) -> bool {
        self == Self::Pods
    }
}

/// As `/apis` lists it.
pub fn group_entry() -> Value {
    let version = json!({"groupVersion": format!("{GROUP}/{VERSION}"), "version": VERSION});
    json!({"name": GROUP, "versions": [version], "preferredVersion": version})
}

pub fn group() -> Value {
    let mut group = group_entry();
    group["kind"] = "APIGroup".into();
    group["apiVersion"] = "v1".into();
    group
}

pub fn resource_list() -> Value {
    let row = |resource: Resource| {
        json!({
            "name": resource.plural(), "singularName": "", "namespaced": resource.namespaced(),
            "kind": resource.kind(), "verbs": VERBS,
        })
    };
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{GROUP}/{VERSION}"),
        "resources": Resource::ALL.map(row),
    })
}

pub fn aggregated_group() -> Value {
    let row = |resource: Resource| {
        json!({
            "resource": resource.plural(),
            "responseKind": {"group": GROUP, "version": VERSION, "kind": resource.kind()},
            "scope": if resource.namespaced() { "Namespaced" } else { "Cluster" },
            "singularResource": "",
            "verbs": VERBS,
        })
    };
    let version = json!({"version": VERSION, "resources": Resource::ALL.map(row), "freshness": "Current"});
    json!({"metadata": {"name": GROUP}, "versions": [version]})
}
