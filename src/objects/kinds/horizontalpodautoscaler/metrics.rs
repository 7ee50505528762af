//! What an autoscaler measures, and how much of it a pod should have.

use crate::kinds::amount;
use crate::{At, Errors};

/// Metric types, and the field that says more of each.
pub(super) const SOURCES: &[(&str, &str)] = &[
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];

pub(super) fn validate(metric: &At<'_>, errors: &mut Errors) {
    let kind = metric.field("type");
    if kind.is_empty() {
        errors.push(kind.required("must specify a metric source type"));
    }
    let expected = SOURCES.iter().find(|(name, _)| *name == kind.text()).map(|(_, field)| *field);
    match expected {
        Some(field) if !metric.field(field).is_set() => {
            errors.push(metric.field(field).required("must populate information for the given metric source"));
        }
        None if !kind.is_empty() => {
            let types: Vec<&str> = SOURCES.iter().map(|(name, _)| *name).collect();
            errors.push(kind.unsupported(&types));
        }
        _ => {}
    }
    for (name, field) in SOURCES {
        let source = metric.field(field);
        if !source.is_set() {
            continue;
        }
        if Some(*field) != expected {
            errors.push(source.forbidden("must populate the given metric source only"));
        }
        validate_source(name, &source, errors);
    }
}

fn validate_source(kind: &str, source: &At<'_>, errors: &mut Errors) {
    let target = source.field("target");
    validate_target(&target, errors);
    let has = |field| target.field(field).is_set();
    match kind {
        "Resource" | "ContainerResource" => {
            named(&source.field("name"), "must specify a resource name", errors);
            if kind == "ContainerResource" {
                named(&source.field("container"), "must specify a container", errors);
            }
            match (has("averageUtilization"), has("averageValue")) {
                (false, false) => errors.push(
                    target
                        .field("averageUtilization")
                        .required("must set either a target raw value or a target utilization"),
                ),
                (true, true) => errors.push(
                    target
                        .field("averageValue")
                        .forbidden("may not set both a target raw value and a target utilization"),
                ),
                _ => {}
            }
            return;
        }
        "Pods" => {
            if !has("averageValue") {
                errors.push(target.field("averageValue").required("must specify a positive target averageValue"));
            }
        }
        _ => match (has("value"), has("averageValue")) {
            (false, false) => errors.push(
                target.field("averageValue").required("must set either a target value for metric or a per-pod target"),
            ),
            (true, true) if kind == "External" => errors.push(
                target.field("value").forbidden("may not set both a target value for metric and a per-pod target"),
            ),
            _ => {}
        },
    }
    if kind == "Object" {
        super::reference(&source.field("describedObject"), errors);
    }
    named(&source.fields(&["metric", "name"]), "must specify a metric name", errors);
}

fn named(at: &At<'_>, message: &str, errors: &mut Errors) {
    if at.is_empty() {
        errors.push(at.required(message));
    }
}

fn validate_target(target: &At<'_>, errors: &mut Errors) {
    let kind = target.field("type");
    match kind.text() {
        "" => errors.push(kind.required("must specify a metric target type")),
        "Utilization" | "Value" | "AverageValue" => {}
        _ => errors.push(kind.invalid("must be either Utilization, Value, or AverageValue")),
    }
    for field in ["value", "averageValue"] {
        let at = target.field(field);
        if at.is_set() && amount::quantity(&at, errors).is_some_and(|n| n.is_zero() || n.is_negative()) {
            errors.push(at.invalid("must be positive"));
        }
    }
    let utilization = target.field("averageUtilization");
    if utilization.int().is_some_and(|n| n < 1) {
        errors.push(utilization.invalid("must be greater than 0"));
    }
}
