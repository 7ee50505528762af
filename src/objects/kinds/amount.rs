//! Amounts in objects: quantities, and numbers that may also be a percentage of something.

use serde_json::Value;

use crate::quantity::{self, Quantity};
use crate::{At, Errors, meta, names};

/// Writes the quantities of a map as Kubernetes prints them.
pub(super) fn canonical(object: &mut Value, path: &[&str]) {
    for (name, amount) in meta::strings(object, path) {
        let better = quantity::canonical(&amount);
        if better != amount {
            let place: Vec<&str> = path.iter().copied().chain([name.as_str()]).collect();
            meta::set(object, &place, better.into());
        }
    }
}

/// The quantity here; what is none is an error.
pub(super) fn quantity(at: &At<'_>, errors: &mut Errors) -> Option<Quantity> {
    match Quantity::parse(at.text()) {
        Ok(quantity) => Some(quantity),
        Err(message) => {
            errors.push(at.invalid(message));
            None
        }
    }
}

/// A quantity of some size, like that of a volume.
pub(super) fn positive_quantity(at: &At<'_>, errors: &mut Errors) {
    if quantity(at, errors).is_some_and(|amount| amount.is_zero() || amount.is_negative()) {
        errors.push(at.invalid("must be greater than zero"));
    }
}

/// A number that is not negative, or a percentage.
pub(super) fn int_or_percent(at: &At<'_>, errors: &mut Errors) {
    match at.value {
        Value::String(text) => errors.extend(names::percent(text).into_iter().map(|message| at.invalid(message))),
        _ => at.non_negative(errors),
    }
}

/// Not more than all of it, where it is a percentage.
pub(super) fn at_most_all(at: &At<'_>, errors: &mut Errors) {
    if percentage(at).is_some_and(|n| n > 100) {
        errors.push(at.invalid("must not be greater than 100%"));
    }
}

pub(super) fn is_zero(at: &At<'_>) -> bool {
    at.int() == Some(0) || percentage(at) == Some(0)
}

fn percentage(at: &At<'_>) -> Option<u64> {
    at.text().strip_suffix('%')?.parse().ok()
}
