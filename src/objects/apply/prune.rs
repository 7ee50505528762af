//! What an applier owned and applies no more goes from the object, unless somebody else owns it.

use serde_json::Value;

use super::compare::fields;
use super::path::Element;
use super::schema::{Shape, Type};
use super::set::FieldSet;

/// The merged object without what `last` owned, but for what `owned` (the sets of all managers, the applier's new one
/// among them) has.
///
/// A struct goes when all of it goes. An item of a list or an entry of a map goes with everything in it when nobody owns
/// the item itself, though somebody own a field of it; when somebody does, only what nobody owns goes.
pub(super) fn prune(of: Type<'_>, merged: Value, last: &FieldSet, owned: &FieldSet) -> Value {
    if last.difference(owned).is_empty() {
        return merged;
    }
    let last = with_structs(of, last);
    let all = with_structs(of, &fields(of, &merged));
    let mut kept = with_structs(of, &fields(of, &without(of, &merged, &last)));
    kept.extend(&with_structs(of, owned));
    // All that was the applier's and nobody's now, with whatever nobody owns around it: too much.
    let kept = without(of, &merged, &all.difference(&kept));
    let kept = with_structs(of, &fields(of, &kept));
    without(of, &merged, &all.difference(&kept).intersection(&last))
}

/// The set with the structs on the way to its paths.
fn with_structs(of: Type<'_>, set: &FieldSet) -> FieldSet {
    set.mapped(|element, is_in, below| match element {
        Element::Field(name) => {
            let is_in = is_in || (of.is_struct() && !below.is_empty());
            (is_in, with_structs(of.member(name), below))
        }
        _ => (is_in, of.items().map_or_else(|| below.clone(), |items| with_structs(items.of, below))),
    })
}

/// The value without these paths; null where nothing is left of a map or a list.
fn without(of: Type<'_>, value: &Value, gone: &FieldSet) -> Value {
    let rest = |of: Type<'_>, element: &Element, value: &Value| match gone.below(element) {
        _ if gone.has_step(element) => None,
        Some(gone) => Some(without(of, value, gone)),
        None => Some(value.clone()),
    };
    match (of.shape([Some(value)]), value) {
        (Shape::Map, Value::Object(map)) => {
            let kept = map
                .iter()
                .filter_map(|(name, value)| Some((name.clone(), rest(of.member(name), &Element::field(name), value)?)));
            let kept: serde_json::Map<_, _> = kept.collect();
            if kept.is_empty() { Value::Null } else { Value::Object(kept) }
        }
        (Shape::List(items), Value::Array(list)) => {
            let kept = list.iter().filter_map(|item| match items.element(item) {
                Ok(element) => rest(items.of, &element, item),
                Err(_) => Some(item.clone()),
            });
            let kept: Vec<Value> = kept.collect();
            if kept.is_empty() { Value::Null } else { Value::Array(kept) }
        }
        _ => value.clone(),
    }
}
