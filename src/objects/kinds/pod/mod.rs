//! Pod: containers that share one address and one fate.

mod cells;
mod defaults;
mod references;
mod requests;
mod unsupported;
mod update;
mod validate;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{Fields, Kind, PROXY, Part, Rules, Subresource, Typed, spec_changed};
use crate::quantity::Quantity;
use crate::quota::{self, Uses};
use crate::{At, Errors, meta, patch};

pub(super) use defaults::default_spec;
pub use references::{References, pod_references};
pub use requests::{Amounts, amounts, pod_amounts};
pub(super) use validate::validate_spec;

/// Both ways of opening a stream: WebSocket comes by GET, SPDY by POST.
const STREAM: &[&str] = &["create", "get"];

pub(super) const KIND: Kind = Kind {
    kind: "Pod",
    plural: "pods",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    status: true,
    subresources: &[
        Subresource { name: "attach", verbs: STREAM, group: "", version: "v1", kind: "PodAttachOptions" },
        Subresource { name: "binding", verbs: &["create"], group: "", version: "v1", kind: "Binding" },
        Subresource { name: "eviction", verbs: &["create"], group: "policy", version: "v1", kind: "Eviction" },
        Subresource { name: "exec", verbs: STREAM, group: "", version: "v1", kind: "PodExecOptions" },
        Subresource { name: "log", verbs: &["get"], group: "", version: "v1", kind: "Pod" },
        Subresource { name: "portforward", verbs: STREAM, group: "", version: "v1", kind: "PodPortForwardOptions" },
        Subresource { name: "proxy", verbs: PROXY, group: "", version: "v1", kind: "PodProxyOptions" },
    ],
    selectable: &[
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.podIPs",
        "status.nominatedNodeName",
    ],
    graceful: true,
    columns: cells::COLUMNS,
    rules: Rules {
        typed: Typed::of::<Pod>(),
        default: defaults::default_pod,
        validate: |new, old, errors| validate(new, old, errors),
        create: |object| {
            let qos = qos_class(object.pointer("/spec").unwrap_or(&Value::Null));
            meta::set(object, &["status"], json!({"phase": "Pending", "qosClass": qos}));
        },
        update: |new, old, part| {
            if part == Part::Status && meta::text(new, &["status", "qosClass"]).is_empty() {
                meta::copy(new, old, &["status", "qosClass"]);
            }
        },
        generation: Some(spec_changed),
        fields,
        uses,
        row: cells::row,
        lists: &patch::POD,
        ..Rules::NONE
    },
    ..Kind::BASE
};

fn validate(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let spec = new.field("spec");
    validate_spec(&spec, errors);
    if let Some(old) = old {
        update::validate(&spec, &old.field("spec"), errors);
    }
}

/// The condition of one type.
fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    meta::list(pod, &["status", "conditions"]).iter().find(|condition| meta::text(condition, &["type"]) == kind)
}

fn fields(pod: &Value, fields: &mut Fields) {
    for (field, path) in [
        ("spec.nodeName", ["spec", "nodeName"]),
        ("spec.restartPolicy", ["spec", "restartPolicy"]),
        ("spec.schedulerName", ["spec", "schedulerName"]),
        ("spec.serviceAccountName", ["spec", "serviceAccountName"]),
        ("status.phase", ["status", "phase"]),
        ("status.podIP", ["status", "podIP"]),
        ("status.nominatedNodeName", ["status", "nominatedNodeName"]),
    ] {
        fields.insert(field.into(), meta::text(pod, &path).into());
    }
    fields.insert("spec.hostNetwork".into(), meta::flag(pod, &["spec", "hostNetwork"]).to_string());
    let ips: Vec<&str> = meta::list(pod, &["status", "podIPs"]).iter().map(|ip| meta::text(ip, &["ip"])).collect();
    fields.insert("status.podIPs".into(), ips.join(","));
    let ready = condition(pod, "Ready").filter(|condition| meta::text(condition, &["status"]) == "True");
    fields.insert("ready".into(), ready.is_some().to_string());
    if let Some(since) = ready.and_then(|condition| meta::time(condition, &["lastTransitionTime"])) {
        fields.insert("ready-since".into(), since.as_millisecond().to_string());
    }
    let gates = meta::list(pod, &["spec", "schedulingGates"]).len();
    if gates > 0 {
        fields.insert("scheduling-gates".into(), gates.to_string());
    }
    if let Some(priority) = meta::int(pod, &["spec", "priority"]).filter(|priority| *priority != 0) {
        fields.insert("priority".into(), priority.to_string());
    }
    requests::insert(pod, fields);
}

/// A pod that has ended takes nothing any more, but for its place among all pods.
fn uses(pod: &Value, uses: &mut Uses) {
    if qos_class(pod.get("spec").unwrap_or(&Value::Null)) == "BestEffort" {
        uses.word("BestEffort");
    }
    if meta::int(pod, &["spec", "activeDeadlineSeconds"]).is_some_and(|seconds| seconds >= 0) {
        uses.word("Terminating");
    }
    if has_affinity_across_namespaces(pod) {
        uses.word("CrossNamespacePodAffinity");
    }
    let class = meta::text(pod, &["spec", "priorityClassName"]);
    if !class.is_empty() {
        uses.word("PriorityClass");
        uses.word(format!("PriorityClass={class}"));
    }
    if matches!(meta::text(pod, &["status", "phase"]), "Succeeded" | "Failed") {
        return;
    }
    uses.add("pods", 1);
    for (resource, asked) in requests::asked(pod) {
        uses.add(format!("requests.{resource}"), quota::amount(&resource, &asked));
    }
    for resource in ["cpu", "ephemeral-storage", "memory"] {
        if let Some(limit) = pod_amounts(pod, "limits").get(resource) {
            uses.add(format!("limits.{resource}"), quota::amount(resource, limit));
        }
    }
}

fn has_affinity_across_namespaces(pod: &Value) -> bool {
    let across = |term: &Value| {
        !meta::list(term, &["namespaces"]).is_empty() || meta::at(term, &["namespaceSelector"]).is_some()
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let terms = |when: &str| meta::list(pod, &["spec", "affinity", kind, when]);
        terms("requiredDuringSchedulingIgnoredDuringExecution").iter().any(across)
            || terms("preferredDuringSchedulingIgnoredDuringExecution")
                .iter()
                .any(|term| across(term.get("podAffinityTerm").unwrap_or(&Value::Null)))
    })
}

/// Guaranteed: every container has cpu and memory limits equal to its requests. BestEffort: none has any. Else Burstable.
fn qos_class(spec: &Value) -> &'static str {
    let mut any = false;
    let mut guaranteed = true;
    for container in meta::list(spec, &["containers"]).iter().chain(meta::list(spec, &["initContainers"])) {
        for resource in ["cpu", "memory"] {
            let amount = |list| {
                Quantity::parse(meta::text(container, &["resources", list, resource])).ok().filter(|q| !q.is_zero())
            };
            let (limit, request) = (amount("limits"), amount("requests"));
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
