//! LimitRange: how much one pod, container or claim of a namespace may ask for, and gets when it asks for nothing.

use k8s_openapi::api::core::v1::LimitRange;
use serde_json::Value;

use super::{Kind, Rules, Typed, amount};
use crate::quantity::Quantity;
use crate::{At, Errors, meta, names};

const TYPES: &[&str] = &["Container", "PersistentVolumeClaim", "Pod"];
const AMOUNTS: &[&str] = &["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];
/// What may not be greater than what, and how a refusal words it: of the first field, unless `min` is it.
const ORDER: &[(&str, &str, &str, &str)] = &[
    ("min", "max", "min", "max value"),
    ("min", "defaultRequest", "defaultRequest", "default request value"),
    ("defaultRequest", "max", "defaultRequest", "max value"),
    ("defaultRequest", "default", "defaultRequest", "default limit value"),
    ("min", "default", "default", "default value"),
    ("default", "max", "default", "max value"),
];

pub(super) const KIND: Kind = Kind {
    kind: "LimitRange",
    plural: "limitranges",
    singular: "limitrange",
    short_names: &["limits"],
    create_on_update: true,
    rules: Rules { typed: Typed::of::<LimitRange>(), default, validate, ..Rules::NONE },
    ..Kind::BASE
};

fn default(object: &mut Value) {
    for limit in meta::list_mut(object, &["spec", "limits"]) {
        for field in AMOUNTS {
            amount::canonical(limit, &[field]);
        }
        if meta::text(limit, &["type"]) == "Container" {
            fill(limit, "default", "max");
            fill(limit, "defaultRequest", "default");
            fill(limit, "defaultRequest", "min");
        }
    }
}

/// What `field` does not say, `other` says.
fn fill(limit: &mut Value, field: &str, other: &str) {
    for (resource, amount) in meta::strings(limit, &[other]) {
        meta::set_absent(limit, &[field, &resource], amount.into());
    }
}

fn validate(new: &At<'_>, _old: Option<&At<'_>>, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for limit in new.fields(&["spec", "limits"]).items() {
        let kind = limit.field("type");
        errors.extend(names::qualified_name(kind.text()).into_iter().map(|message| kind.invalid(message)));
        if !kind.text().contains('/') && !TYPES.contains(&kind.text()) {
            errors.push(kind.invalid("must be a standard limit type or fully qualified"));
        }
        if seen.contains(&kind.text()) {
            errors.push(kind.duplicate(kind.text()));
        }
        seen.push(kind.text());
        validate_limit(&limit, kind.text(), errors);
    }
}

fn validate_limit(limit: &At<'_>, kind: &str, errors: &mut Errors) {
    for at in ["default", "defaultRequest"].map(|field| limit.field(field)) {
        if kind == "Pod" && !at.is_empty() {
            errors.push(at.forbidden("may not be specified when `type` is 'Pod'"));
        }
    }
    let bounded = ["min", "max"].iter().any(|field| limit.fields(&[field, "storage"]).is_set());
    if kind == "PersistentVolumeClaim" && !bounded {
        errors.push(limit.required("either minimum or maximum storage value is required, but neither was provided"));
    }
    let mut resources: Vec<&str> = Vec::new();
    for (resource, at) in AMOUNTS.iter().flat_map(|field| limit.field(field).entries()) {
        errors.extend(names::qualified_name(resource).into_iter().map(|m| at.invalid_value(resource, m)));
        amount::quantity(&at, errors);
        if !resources.contains(&resource) {
            resources.push(resource);
        }
    }
    for resource in resources {
        validate_order(limit, resource, errors);
    }
}

fn validate_order(limit: &At<'_>, resource: &str, errors: &mut Errors) {
    let amount = |field: &str| Quantity::parse(limit.fields(&[field, resource]).text()).ok();
    for (less, more, place, named) in ORDER {
        let (Some(less_amount), Some(more_amount)) = (amount(less), amount(more)) else { continue };
        if less_amount > more_amount {
            let first = match *less {
                "min" => "min value",
                "default" => "default value",
                _ => "default request value",
            };
            let message = format!("{first} {less_amount} is greater than {named} {more_amount}");
            errors.push(limit.field(place).key(resource).invalid(message));
        }
    }
    let at = limit.field("maxLimitRequestRatio").key(resource);
    if let Some(ratio) = amount("maxLimitRequestRatio") {
        if ratio < Quantity::from_value(1) {
            errors.push(at.invalid(format!("ratio {ratio} is less than 1")));
        }
        if let (Some(min), Some(max)) = (amount("min"), amount("max"))
            && exceeds(ratio, max, min)
        {
            errors.push(at.invalid(format!("ratio {ratio} is greater than max/min = {max}/{min}")));
        }
    }
}

/// Whether `ratio` is more than `max / min`, counted in thousandths.
fn exceeds(ratio: Quantity, max: Quantity, min: Quantity) -> bool {
    !min.is_zero() && ratio.milli().saturating_mul(min.milli()) > max.milli().saturating_mul(1000)
}
