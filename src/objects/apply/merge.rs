//! An applied configuration put into the live object: maps and lists with keys go into each other, all else is replaced.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::path::{self, Element};
use super::schema::{Items, Shape, Type};

/// Refuses lists whose items have no key, or one that another item has.
///
/// # Errors
/// What is wrong, with its path.
pub(super) fn check(of: Type<'_>, applied: &Value) -> Result<(), String> {
    check_at(of, applied, &mut Vec::new())
}

fn check_at(of: Type<'_>, applied: &Value, path: &mut Vec<Element>) -> Result<(), String> {
    match (of.shape([Some(applied)]), applied) {
        (Shape::Map, Value::Object(map)) => {
            for (name, value) in map {
                path.push(Element::field(name));
                check_at(of.member(name), value, path)?;
                path.pop();
            }
        }
        (Shape::List(items), Value::Array(list)) => {
            let mut seen = BTreeSet::new();
            for (at, item) in list.iter().enumerate() {
                let wrong = |error| format!("{}: element {at}: {error}", path::display(path));
                let element = items.element(item).map_err(wrong)?;
                if !seen.insert(element.clone()) {
                    return Err(format!("{}: duplicate entries for key {element}", path::display(path)));
                }
                path.push(element);
                check_at(items.of, item, path)?;
                path.pop();
            }
        }
        _ => {}
    }
    Ok(())
}

/// The live value with the applied one in it.
pub(super) fn merge(of: Type<'_>, live: &Value, applied: &Value) -> Value {
    match (of.shape([Some(live), Some(applied)]), live, applied) {
        (Shape::Map, Value::Object(live), Value::Object(applied)) => Value::Object(merge_maps(of, live, applied)),
        (Shape::List(items), Value::Array(live), Value::Array(applied)) => {
            Value::Array(merge_lists(items, live, applied))
        }
        // A null says nothing about what is in a map or a list.
        (Shape::Map, Value::Object(kept), Value::Null) if !kept.is_empty() => live.clone(),
        (Shape::List(_), Value::Array(kept), Value::Null) if !kept.is_empty() => live.clone(),
        _ => applied.clone(),
    }
}

fn merge_maps(of: Type<'_>, live: &Map<String, Value>, applied: &Map<String, Value>) -> Map<String, Value> {
    let merged = live.iter().map(|(name, value)| match applied.get(name) {
        Some(applied) => (name.clone(), merge(of.member(name), value, applied)),
        None => (name.clone(), value.clone()),
    });
    let added = applied.iter().filter(|(name, _)| !live.contains_key(*name));
    merged.chain(added.map(|(name, value)| (name.clone(), value.clone()))).collect()
}

/// Applied items come in the order in which they were applied; the others keep their place before the one they preceded.
/// Live items of which there are several of an applied key give way to it.
fn merge_lists(items: Items<'_>, live: &[Value], applied: &[Value]) -> Vec<Value> {
    let applied: Vec<(Element, &Value)> =
        applied.iter().filter_map(|item| Some((items.element(item).ok()?, item))).collect();
    let applied_elements: BTreeSet<&Element> = applied.iter().map(|(element, _)| element).collect();
    let live: Vec<(Option<Element>, &Value)> = live.iter().map(|item| (items.element(item).ok(), item)).collect();
    let mut by_element: BTreeMap<&Element, Vec<&Value>> = BTreeMap::new();
    for (element, item) in &live {
        if let Some(element) = element {
            by_element.entry(element).or_default().push(item);
        }
    }
    let mut merged = Vec::with_capacity(live.len() + applied.len());
    let mut rest = live.iter().peekable();
    let mut shared = applied.iter().map(|(element, _)| element).filter(|e| by_element.contains_key(e)).peekable();
    for (element, item) in &applied {
        while let Some((present, kept)) =
            rest.next_if(|(present, _)| present.is_none() || present.as_ref() != shared.peek().copied())
        {
            if present.as_ref().is_none_or(|present| !applied_elements.contains(present)) {
                merged.push((*kept).clone());
            }
        }
        let live = by_element.get(element).map(Vec::as_slice).unwrap_or_default();
        merged.push(if let [live] = live { merge(items.of, live, item) } else { (*item).clone() });
        if shared.next_if_eq(&element).is_some() {
            rest.next_if(|(present, _)| present.as_ref() == Some(element));
        }
    }
    let others = rest.filter(|(present, _)| present.as_ref().is_none_or(|e| !applied_elements.contains(e)));
    merged.extend(others.map(|(_, kept)| (*kept).clone()));
    merged
}
