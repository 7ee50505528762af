//! A set of paths, and its JSON form `FieldsV1`.
//!
//! It is a tree. A path may be in the set without those above it and without those below it: whoever sets a label owns
//! the label, not the map of labels.
//!
//! **Invariant:** a node of the tree is in the set or has something below it that is.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::path::{self, Element};

/// The name of a node that is in the set and has others below it.
const SELF: &str = ".";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet(BTreeMap<Element, Node>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    /// The path that ends here is in the set.
    is_in: bool,
    below: FieldSet,
}

impl Node {
    fn is_empty(&self) -> bool {
        !self.is_in && self.below.is_empty()
    }
}

impl FieldSet {
    /// The set of these paths of fields.
    pub fn of(paths: &[&[&str]]) -> FieldSet {
        let mut set = FieldSet::default();
        for names in paths {
            set.insert(&path::fields(names));
        }
        set
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a path. The empty one is the whole object, which nobody owns.
    pub fn insert(&mut self, path: &[Element]) {
        let Some((last, parents)) = path.split_last() else { return };
        let mut here = self;
        for element in parents {
            here = &mut here.0.entry(element.clone()).or_default().below;
        }
        here.0.entry(last.clone()).or_default().is_in = true;
    }

    /// Adds one step with a whole set below it.
    pub(super) fn attach(&mut self, element: Element, is_in: bool, below: FieldSet) {
        let node = Node { is_in, below };
        if !node.is_empty() {
            self.0.insert(element, node);
        }
    }

    pub fn has(&self, path: &[Element]) -> bool {
        let Some((last, parents)) = path.split_last() else { return false };
        let parent = parents.iter().try_fold(self, |here, element| here.below(element));
        parent.is_some_and(|parent| parent.has_step(last))
    }

    /// Whether the path of this one step is in the set.
    pub(super) fn has_step(&self, element: &Element) -> bool {
        self.0.get(element).is_some_and(|node| node.is_in)
    }

    /// What the set has below a step; none where it has nothing there.
    pub(super) fn below(&self, element: &Element) -> Option<&FieldSet> {
        self.0.get(element).map(|node| &node.below).filter(|below| !below.is_empty())
    }

    pub fn union(&self, other: &FieldSet) -> FieldSet {
        let mut all = self.clone();
        all.extend(other);
        all
    }

    pub fn extend(&mut self, other: &FieldSet) {
        for (element, theirs) in &other.0 {
            match self.0.get_mut(element) {
                Some(node) => {
                    node.is_in |= theirs.is_in;
                    node.below.extend(&theirs.below);
                }
                None => {
                    self.0.insert(element.clone(), theirs.clone());
                }
            }
        }
    }

    pub fn intersection(&self, other: &FieldSet) -> FieldSet {
        self.joined(other, |node, other| Node {
            is_in: node.is_in && other.is_some_and(|other| other.is_in),
            below: other.map(|other| node.below.intersection(&other.below)).unwrap_or_default(),
        })
    }

    /// The paths that `other` has not. A path stays when only what is above or below it is taken away.
    pub fn difference(&self, other: &FieldSet) -> FieldSet {
        self.joined(other, |node, other| match other {
            Some(other) => Node { is_in: node.is_in && !other.is_in, below: node.below.difference(&other.below) },
            None => node.clone(),
        })
    }

    /// The paths that are neither in `other` nor below one that is.
    pub fn outside(&self, other: &FieldSet) -> FieldSet {
        self.joined(other, |node, other| match other {
            Some(other) if other.is_in => Node::default(),
            Some(other) => Node { is_in: node.is_in, below: node.below.outside(&other.below) },
            None => node.clone(),
        })
    }

    /// The paths that are in `other` or below one that is.
    pub fn inside(&self, other: &FieldSet) -> FieldSet {
        self.joined(other, |node, other| match other {
            Some(other) if other.is_in => node.clone(),
            Some(other) => Node { is_in: false, below: node.below.inside(&other.below) },
            None => Node::default(),
        })
    }

    /// The paths that have none below them.
    pub fn leaves(&self) -> FieldSet {
        self.mapped(|_, is_in, below| (is_in && below.is_empty(), below.leaves()))
    }

    /// A set of the same steps; of each, `change` says whether it is in and what is below.
    pub(super) fn mapped(&self, change: impl Fn(&Element, bool, &FieldSet) -> (bool, FieldSet)) -> FieldSet {
        let mut set = FieldSet::default();
        for (element, node) in &self.0 {
            let (is_in, below) = change(element, node.is_in, &node.below);
            set.attach(element.clone(), is_in, below);
        }
        set
    }

    fn joined(&self, other: &FieldSet, join: impl Fn(&Node, Option<&Node>) -> Node) -> FieldSet {
        let nodes = self.0.iter().map(|(element, node)| (element, join(node, other.0.get(element))));
        FieldSet(nodes.filter(|(_, node)| !node.is_empty()).map(|(element, node)| (element.clone(), node)).collect())
    }

    /// All paths: those that end at a level before those that go on.
    pub fn paths(&self) -> Vec<Vec<Element>> {
        let mut paths = Vec::new();
        self.collect(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect(&self, here: &mut Vec<Element>, paths: &mut Vec<Vec<Element>>) {
        for (element, _) in self.0.iter().filter(|(_, node)| node.is_in) {
            paths.push(here.iter().chain([element]).cloned().collect());
        }
        for (element, node) in &self.0 {
            here.push(element.clone());
            node.below.collect(here, paths);
            here.pop();
        }
    }

    /// Reads `FieldsV1`. Steps of a kind that this version does not know are left out.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_json(json: &Value) -> Result<FieldSet, String> {
        let mut set = FieldSet::default();
        for (name, value) in path::object(json, "a set of fields")?.iter().filter(|(name, _)| *name != SELF) {
            let is_said = path::object(value, name)?.contains_key(SELF);
            let Some(element) = Element::parse(name)? else { continue };
            let below = FieldSet::from_json(value)?;
            set.attach(element, is_said || below.is_empty(), below);
        }
        Ok(set)
    }

    /// The JSON form, in the order in which Kubernetes writes it.
    pub fn to_json(&self) -> Value {
        Value::Object(self.json(false))
    }

    fn json(&self, is_in: bool) -> Map<String, Value> {
        let own = (is_in && !self.is_empty()).then(|| (SELF.to_owned(), Value::Object(Map::new())));
        let steps = self.0.iter().map(|(element, node)| (element.name(), Value::Object(node.below.json(node.is_in))));
        own.into_iter().chain(steps).collect()
    }
}
