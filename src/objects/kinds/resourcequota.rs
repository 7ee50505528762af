//! ResourceQuota: how much a namespace may ask for, altogether or of the pods in some scope.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceQuota;
use serde_json::{Value, json};

use super::{Column, Kind, Rules, Typed, amount, printed};
use crate::{At, Errors, meta, names, quantity};

/// Counted in whole objects.
const COUNTS: &[&str] = &[
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];
const COMPUTE: &[&str] = &["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];
const STORAGE: &[&str] =
    &["ephemeral-storage", "limits.ephemeral-storage", "requests.ephemeral-storage", "requests.storage"];
const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];
/// Scopes that have no object in common.
const OPPOSITES: &[[&str; 2]] = &[["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];

static COLUMNS: &[Column] = &[
    printed::NAME,
    printed::column(
        "Request",
        "string",
        0,
        "Request represents a minimum amount of cpu/memory that a container may consume.",
    ),
    printed::column(
        "Limit",
        "string",
        0,
        "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.",
    ),
    printed::AGE,
];

pub(super) const KIND: Kind = Kind {
    kind: "ResourceQuota",
    plural: "resourcequotas",
    singular: "resourcequota",
    short_names: &["quota"],
    status: true,
    columns: COLUMNS,
    rules: Rules {
        typed: Typed::of::<ResourceQuota>(),
        default: |object| amount::canonical(object, &["spec", "hard"]),
        validate,
        create: |object| meta::set(object, &["status"], json!({})),
        row,
        ..Rules::NONE
    },
    ..Kind::BASE
};

fn is_standard(resource: &str) -> bool {
    let plain = resource.strip_prefix("requests.").unwrap_or(resource);
    [COUNTS, COMPUTE, STORAGE].iter().any(|names| names.contains(&resource)) || plain.starts_with("hugepages-")
}

fn validate(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let spec = new.field("spec");
    let hard = spec.field("hard");
    for (name, at) in hard.entries() {
        errors.extend(names::qualified_name(name).into_iter().map(|message| at.invalid_value(name, message)));
        if !name.contains('/') && !is_standard(name) {
            errors.push(at.invalid_value(name, "must be a standard resource for quota"));
        }
        let Some(amount) = amount::quantity(&at, errors) else { continue };
        if amount.is_negative() {
            errors.push(at.invalid("must be greater than or equal to 0"));
        }
        if COUNTS.contains(&name) && !amount.is_whole() {
            errors.push(at.invalid("must be an integer"));
        }
    }
    let scopes = spec.field("scopes");
    let named: Vec<&str> = scopes.items().map(|scope| scope.text()).collect();
    validate_scopes(&scopes, &named, &hard, errors);
    let expressions = spec.fields(&["scopeSelector", "matchExpressions"]);
    let named: Vec<&str> = expressions.items().map(|one| one.field("scopeName").text()).collect();
    validate_scopes(&expressions, &named, &hard, errors);
    for at in expressions.items() {
        expression(&at, errors);
    }
    if let Some(old) = old {
        scopes.immutable(&old.fields(&["spec", "scopes"]), errors);
    }
}

fn validate_scopes(at: &At<'_>, scopes: &[&str], hard: &At<'_>, errors: &mut Errors) {
    for scope in scopes {
        if !SCOPES.contains(scope) {
            errors.push(at.invalid("unsupported scope"));
        }
        if hard.entries().any(|(resource, _)| is_standard(resource) && !covers(scope, resource)) {
            errors.push(at.invalid("unsupported scope applied to resource"));
        }
    }
    if OPPOSITES.iter().any(|pair| pair.iter().all(|scope| scopes.contains(scope))) {
        errors.push(at.invalid("conflicting scopes"));
    }
}

/// Whether a resource is one of what the scope picks: of pods, or of claims.
fn covers(scope: &str, resource: &str) -> bool {
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ if SCOPES.contains(&scope) => resource == "pods" || COMPUTE.contains(&resource),
        _ => true,
    }
}

fn expression(at: &At<'_>, errors: &mut Errors) {
    let (operator, values) = (at.field("operator"), at.field("values"));
    let valued = matches!(at.field("scopeName").text(), "PriorityClass" | "VolumeAttributesClass");
    if !valued && operator.text() != "Exists" {
        errors.push(operator.invalid(
            "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity",
        ));
    }
    match operator.text() {
        "In" | "NotIn" if values.is_empty() => errors
            .push(values.required("must be at least one value when `operator` is 'In' or 'NotIn' for scope selector")),
        "In" | "NotIn" => {}
        "Exists" | "DoesNotExist" if !values.is_empty() => errors
            .push(values.invalid("must be no value when `operator` is 'Exists' or 'DoesNotExist' for scope selector")),
        "Exists" | "DoesNotExist" => {}
        _ => errors.push(operator.invalid("not a valid selector operator")),
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let used = meta::strings(object, &["status", "used"]);
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (resource, hard) in meta::strings(object, &["status", "hard"]) {
        let used = used.get(&resource).map_or("0".to_owned(), |used| quantity::canonical(used));
        let cell = format!("{resource}: {used}/{}", quantity::canonical(&hard));
        if resource.starts_with("limits.") { limits.push(cell) } else { requests.push(cell) }
    }
    vec![printed::name(object), requests.join(", ").into(), limits.join(", ").into(), printed::age(object, now)]
}
