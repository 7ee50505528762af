//! Which fields a value has, and which differ between two.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::path::Element;
use super::schema::{Items, Shape, Type};
use super::set::FieldSet;

/// What whoever applies this value claims: every leaf, every item of a list and every entry of a map, but no struct that
/// merely holds them.
pub(super) fn fields(of: Type<'_>, value: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    match (of.shape([Some(value)]), value) {
        (Shape::Map, Value::Object(map)) => {
            for (name, value) in map {
                let member = of.member(name);
                let is_in = !of.is_struct() || is_leaf(member, value);
                set.attach(Element::field(name), is_in, fields(member, value));
            }
        }
        (Shape::List(items), Value::Array(list)) => {
            for (element, same) in by_element(items, Some(list)) {
                let below = if let [item] = same[..] { fields(items.of, item) } else { FieldSet::default() };
                set.attach(element, true, below);
            }
        }
        _ => {}
    }
    set
}

fn is_leaf(of: Type<'_>, value: &Value) -> bool {
    matches!(of.shape([Some(value)]), Shape::Leaf) || value.as_object().is_some_and(Map::is_empty)
}

/// The items of a list by what they are known by. Stored lists may have several of one key; validation does not mind in
/// all of them. Items that are known by nothing are left out.
pub(super) fn by_element<'v>(items: Items<'_>, list: Option<&'v Vec<Value>>) -> BTreeMap<Element, Vec<&'v Value>> {
    let mut found: BTreeMap<Element, Vec<&Value>> = BTreeMap::new();
    for item in list.into_iter().flatten() {
        if let Ok(element) = items.element(item) {
            found.entry(element).or_default().push(item);
        }
    }
    found
}

fn of_element<'m, 'v>(items: &'m BTreeMap<Element, Vec<&'v Value>>, element: &Element) -> &'m [&'v Value] {
    items.get(element).map(Vec::as_slice).unwrap_or_default()
}

static EMPTY: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));
static NO_LIST: Value = Value::Null;

/// A member of a struct; where the struct is there and always has it, never none.
fn member<'v>(of: Type<'_>, map: Option<&'v Map<String, Value>>, name: &str) -> Option<&'v Value> {
    let map = map?;
    match map.get(name) {
        None if !of.always_has(name) => None,
        None => Some(if of.member(name).items().is_some() { &NO_LIST } else { &EMPTY }),
        present => present,
    }
}

/// The difference between two values. No path is in two of the sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    pub added: FieldSet,
    pub changed: FieldSet,
    pub removed: FieldSet,
}

impl Comparison {
    /// None is an object that is not there yet, or no more.
    pub fn between(of: Type<'_>, old: Option<&Value>, new: Option<&Value>) -> Comparison {
        let mut comparison = Comparison::default();
        comparison.look(of, &mut Vec::new(), old.or(Some(&EMPTY)), new.or(Some(&EMPTY)));
        comparison
    }

    /// The paths that have another value than before.
    pub fn written(&self) -> FieldSet {
        self.added.union(&self.changed)
    }

    /// The comparison of what `keep` keeps.
    pub fn of(self, keep: impl Fn(FieldSet) -> FieldSet) -> Comparison {
        Comparison { added: keep(self.added), changed: keep(self.changed), removed: keep(self.removed) }
    }

    fn look(&mut self, of: Type<'_>, path: &mut Vec<Element>, old: Option<&Value>, new: Option<&Value>) {
        let empty = old.is_none_or(is_hollow) && new.is_none_or(is_hollow);
        match of.shape([old, new]) {
            Shape::Map if !empty => {
                let (olds, news) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
                for name in olds.into_iter().flat_map(Map::keys) {
                    let (old, new) = (olds.and_then(|olds| olds.get(name)), member(of, news, name));
                    self.step(of.member(name), path, Element::field(name), old, new);
                }
                let added = |name: &&String| !olds.is_some_and(|olds| olds.contains_key(*name));
                for name in news.into_iter().flat_map(Map::keys).filter(added) {
                    let (old, new) = (member(of, olds, name), news.and_then(|news| news.get(name)));
                    self.step(of.member(name), path, Element::field(name), old, new);
                }
            }
            Shape::List(items) if !empty => {
                self.look_at_lists(items, path, old.and_then(Value::as_array), new.and_then(Value::as_array));
            }
            _ if old.is_some() && new.is_some() && old != new => return self.changed.insert(path),
            _ => {}
        }
        if old.is_none() {
            self.added.insert(path);
        } else if new.is_none() {
            self.removed.insert(path);
        }
    }

    fn step(
        &mut self,
        of: Type<'_>,
        path: &mut Vec<Element>,
        element: Element,
        old: Option<&Value>,
        new: Option<&Value>,
    ) {
        path.push(element);
        self.look(of, path, old, new);
        path.pop();
    }

    /// Items of which there are several of one key are looked at together, as one value.
    fn look_at_lists(
        &mut self,
        items: Items<'_>,
        path: &mut Vec<Element>,
        old: Option<&Vec<Value>>,
        new: Option<&Vec<Value>>,
    ) {
        let (olds, news) = (by_element(items, old), by_element(items, new));
        let added = news.keys().filter(|element| !olds.contains_key(*element));
        for element in olds.keys().chain(added) {
            let (old, new) = (of_element(&olds, element), of_element(&news, element));
            path.push(element.clone());
            match (old, new) {
                ([] | [_], [] | [_]) => self.look(items.of, path, old.first().copied(), new.first().copied()),
                ([_, _, ..], [_, _, ..]) if old != new => self.changed.insert(path),
                ([_, _, ..], [_, _, ..]) => {}
                ([_, _, ..], _) => {
                    self.look(items.of, path, None, new.first().copied());
                    self.removed.insert(path);
                }
                (_, _) => {
                    self.look(items.of, path, old.first().copied(), None);
                    self.added.insert(path);
                }
            }
            path.pop();
        }
    }
}

/// Null, or a list or map without items.
fn is_hollow(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}
