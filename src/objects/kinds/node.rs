//! Node: a machine that runs pods.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use super::{Column, Fields, Kind, Rules, Typed, printed};
use crate::{At, Errors, meta, names, patch, quantity};

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";

static COLUMNS: &[Column] = &[
    printed::NAME,
    printed::column("Status", "string", 0, "The status of the node"),
    printed::column("Roles", "string", 0, "The roles of the node"),
    printed::AGE,
    printed::column("Version", "string", 0, "Kubelet Version reported by the node."),
    printed::column("Internal-IP", "string", 1, "List of addresses reachable to the node."),
    printed::column("External-IP", "string", 1, "List of addresses reachable to the node."),
    printed::column("OS-Image", "string", 1, "OS Image reported by the node from /etc/os-release."),
    printed::column("Kernel-Version", "string", 1, "Kernel Version reported by the node from 'uname -r'."),
    printed::column(
        "Container-Runtime",
        "string",
        1,
        "ContainerRuntime Version reported by the node through runtime remote API.",
    ),
];

pub(super) const KIND: Kind = Kind {
    kind: "Node",
    plural: "nodes",
    singular: "node",
    short_names: &["no"],
    namespaced: false,
    status: true,
    selectable: &["spec.unschedulable"],
    columns: COLUMNS,
    rules: Rules {
        typed: Typed::of::<Node>(),
        default,
        validate,
        fields,
        claims,
        row,
        lists: &patch::NODE,
        ..Rules::NONE
    },
    ..Kind::BASE
};

fn default(object: &mut Value) {
    let cidr = meta::text(object, &["spec", "podCIDR"]).to_owned();
    if !cidr.is_empty() && meta::list(object, &["spec", "podCIDRs"]).is_empty() {
        meta::set(object, &["spec", "podCIDRs"], json!([cidr]));
    }
    for field in ["capacity", "allocatable"] {
        if let Some(Value::Object(amounts)) = object.pointer_mut(&format!("/status/{field}")) {
            for amount in amounts.values_mut() {
                let text = quantity::canonical(amount.as_str().unwrap_or(""));
                *amount = text.into();
            }
        }
    }
}

fn validate(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let spec = new.field("spec");
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for taint in spec.field("taints").items() {
        let (key, value, effect) = (taint.field("key"), taint.field("value"), taint.field("effect"));
        errors.extend(names::qualified_name(key.text()).into_iter().map(|message| key.invalid(message)));
        errors.extend(names::label_value(value.text()).into_iter().map(|message| value.invalid(message)));
        effect.one_of(&["NoSchedule", "PreferNoSchedule", "NoExecute"], true, errors);
        if seen.contains(&(key.text(), effect.text())) {
            let mut error = taint.duplicate(taint.value.clone());
            error.message = "taints must be unique by key and effect pair".to_owned();
            errors.push(error);
        }
        seen.push((key.text(), effect.text()));
    }
    for cidr in spec.field("podCIDRs").items() {
        if cidr.text().parse::<ipnet::IpNet>().is_err() {
            errors.push(cidr.invalid("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"));
        }
    }
    for list in ["capacity", "allocatable"] {
        for (_, amount) in new.fields(&["status", list]).entries() {
            if let Err(message) = quantity::Quantity::parse(amount.text()) {
                errors.push(amount.invalid(message));
            }
        }
    }
    let Some(old) = old.map(|old| old.field("spec")) else { return };
    for (field, message) in [
        ("podCIDR", "node updates may not change podCIDR except from \"\" to valid"),
        ("providerID", "node updates may not change providerID except from \"\" to valid"),
    ] {
        let (now, before) = (spec.field(field), old.field(field));
        if !before.is_empty() && before.value != now.value {
            errors.push(now.forbidden(message));
        }
    }
}

/// The status of one condition; "" where there is none.
fn condition<'a>(object: &'a Value, kind: &str) -> &'a str {
    let conditions = meta::list(object, &["status", "conditions"]);
    conditions.iter().find(|c| meta::text(c, &["type"]) == kind).map_or("", |c| meta::text(c, &["status"]))
}

fn fields(object: &Value, fields: &mut Fields) {
    fields.insert("spec.unschedulable".into(), meta::flag(object, &["spec", "unschedulable"]).to_string());
    let ready = match condition(object, "Ready") {
        "True" => "true",
        "False" => "false",
        _ => "unknown",
    };
    fields.insert("ready".into(), ready.into());
    fields.insert("spec.podCIDR".into(), meta::text(object, &["spec", "podCIDR"]).into());
}

fn claims(object: &Value) -> Vec<String> {
    match meta::text(object, &["spec", "podCIDR"]) {
        "" => Vec::new(),
        cidr => vec![format!("podcidr/{cidr}")],
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut status = vec![match condition(object, "Ready") {
        "" => "Unknown",
        "True" => "Ready",
        _ => "NotReady",
    }];
    if meta::flag(object, &["spec", "unschedulable"]) {
        status.push("SchedulingDisabled");
    }
    let mut roles: Vec<String> = Vec::new();
    for (key, value) in meta::labels(object) {
        match key.strip_prefix(ROLE_PREFIX) {
            Some(role) if !role.is_empty() => roles.push(role.to_owned()),
            None if key == ROLE_LABEL && !value.is_empty() => roles.push(value),
            _ => {}
        }
    }
    roles.sort();
    roles.dedup();
    let address = |kind: &str| {
        let all = meta::list(object, &["status", "addresses"]);
        let found = all.iter().find(|a| meta::text(a, &["type"]) == kind);
        printed::or_none(found.map_or("", |a| meta::text(a, &["address"])).to_owned())
    };
    let info = |field: &str| match meta::text(object, &["status", "nodeInfo", field]) {
        "" => Value::from("<unknown>"),
        text => text.into(),
    };
    vec![
        printed::name(object),
        status.join(",").into(),
        printed::or_none(roles.join(",")),
        printed::age(object, now),
        meta::text(object, &["status", "nodeInfo", "kubeletVersion"]).into(),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}
