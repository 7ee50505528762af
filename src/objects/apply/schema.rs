//! Which lists are sets or maps and which values have one owner as a whole, by kind: parsed once from `types.txt`, which
//! `generate.py` makes out of Kubernetes' own definitions.
//!
//! A value that does not fit its type is taken as one with one owner; whether it may be so is for validation to say.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::Value;

use super::path::{Element, Scalar};
use crate::Kind;

/// What a type is, as far as ownership goes. Types refer to each other by their place in the table.
#[derive(Debug)]
enum Node {
    /// What the value shows: a map with an owner per entry, an atomic list, a scalar.
    Plain,
    Atomic,
    Set,
    List {
        keys: Vec<Key>,
        items: usize,
    },
    /// By name; a member that is not there is plain.
    Struct(BTreeMap<&'static str, Member>),
}

#[derive(Clone, Copy, Debug)]
struct Member {
    of: usize,
    /// It is there wherever the struct is, be it empty.
    always: bool,
}

/// A key of a list that is a map.
#[derive(Debug)]
struct Key {
    name: &'static str,
    /// What an item without it has.
    default: Option<Scalar>,
}

const PLAIN: usize = 0;
const ATOMIC: usize = 1;
const SET: usize = 2;
/// The place of the first struct.
const STRUCTS: usize = 3;

static BUILTIN_TYPES: LazyLock<Schema> = LazyLock::new(|| Schema::parse(include_str!("types.txt")));

/// The types of all built-in kinds.
#[derive(Debug)]
pub struct Schema {
    nodes: Vec<Node>,
    /// By apiVersion and kind.
    kinds: BTreeMap<(&'static str, &'static str), usize>,
    /// An object of which nothing but the metadata is known.
    object: usize,
}

/// The type of a value.
#[derive(Clone, Copy, Debug)]
pub struct Type<'a> {
    schema: &'a Schema,
    node: &'a Node,
}

/// How to go on in a value.
pub(super) enum Shape<'a> {
    /// Not at all: it has one owner.
    Leaf,
    Map,
    List(Items<'a>),
}

/// A list whose items have owners of their own.
#[derive(Clone, Copy)]
pub(crate) struct Items<'a> {
    /// None: a set.
    keys: Option<&'a [Key]>,
    pub of: Type<'a>,
}

impl Schema {
    /// The type of a kind; of one that is not built in, what all objects have in common.
    pub fn kind(api_version: &str, kind: &str) -> Type<'static> {
        let schema: &'static Schema = &BUILTIN_TYPES;
        schema.at(schema.kinds.get(&(api_version, kind)).copied().unwrap_or(schema.object))
    }

    fn at(&self, node: usize) -> Type<'_> {
        Type { schema: self, node: &self.nodes[node] }
    }

    /// Every type that a member names has a line, or is plain.
    fn parse(text: &'static str) -> Schema {
        let lines: Vec<Vec<&str>> =
            text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(' ').collect()).collect();
        let (kinds, structs): (Vec<_>, Vec<_>) = lines.into_iter().partition(|words| words[0] == "kind");
        let places: BTreeMap<&str, usize> =
            structs.iter().enumerate().map(|(at, words)| (words[0], at + STRUCTS)).collect();
        let place = |name: &str| places.get(name).copied().unwrap_or(PLAIN);
        let mut nodes = vec![Node::Plain, Node::Atomic, Node::Set];
        nodes.extend(structs.iter().map(|_| Node::Plain));
        for words in &structs {
            let mut members = BTreeMap::new();
            for word in &words[1..] {
                let (name, rest) = word.split_at(word.find(['+', ':', '!', '=', '[']).unwrap_or(word.len()));
                let (always, rest) = rest.strip_prefix('+').map_or((false, rest), |rest| (true, rest));
                let of = match rest.split_at(rest.len().min(1)) {
                    ("!", _) => ATOMIC,
                    ("=", _) => SET,
                    ("[", rest) => {
                        let (keys, items) = rest.split_once(']').unwrap_or((rest, ""));
                        let keys = keys.split(',').map(Key::parse).collect();
                        nodes.push(Node::List { keys, items: place(items) });
                        nodes.len() - 1
                    }
                    (_, of) => place(of),
                };
                members.insert(name, Member { of, always });
            }
            nodes[place(words[0])] = Node::Struct(members);
        }
        let object = nodes.len();
        nodes.push(Node::Struct(BTreeMap::from([(
            "metadata",
            Member { of: place("meta/v1.ObjectMeta"), always: true },
        )])));
        let kinds = kinds.iter().filter(|words| words.len() == 4);
        let kinds = kinds.map(|words| ((words[1], words[2]), place(words[3]))).collect();
        Schema { nodes, kinds, object }
    }
}

impl Key {
    fn parse(text: &'static str) -> Key {
        let (name, default) = text.split_once('=').unwrap_or((text, ""));
        let default = serde_json::from_str(default).ok().and_then(|default| Scalar::of(&default));
        Key { name, default }
    }
}

/// What `x-kubernetes-list-type` says of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListType {
    Atomic,
    Set,
    /// By these keys.
    Map(Vec<&'static str>),
}

impl<'a> Type<'a> {
    pub fn of(kind: &Kind) -> Type<'static> {
        Schema::kind(&kind.api_version(), kind.kind)
    }

    /// What all objects have in common.
    pub(crate) fn object() -> Type<'static> {
        let schema: &'static Schema = &BUILTIN_TYPES;
        schema.at(schema.object)
    }

    /// One of which nothing is known.
    pub(crate) fn plain() -> Type<'static> {
        let schema: &'static Schema = &BUILTIN_TYPES;
        schema.at(PLAIN)
    }

    pub(crate) fn list_type(self) -> ListType {
        match self.node {
            Node::Set => ListType::Set,
            Node::List { keys, .. } => ListType::Map(keys.iter().map(|key| key.name).collect()),
            Node::Plain | Node::Atomic | Node::Struct(_) => ListType::Atomic,
        }
    }

    pub(crate) fn is_atomic(self) -> bool {
        matches!(self.node, Node::Atomic)
    }

    /// The type of a member of a map.
    pub(crate) fn member(self, name: &str) -> Type<'a> {
        match self.node {
            Node::Struct(members) => self.schema.at(members.get(name).map_or(PLAIN, |member| member.of)),
            _ => self.schema.at(PLAIN),
        }
    }

    /// Whether a struct always has this member, be it empty.
    pub(super) fn always_has(self, name: &str) -> bool {
        matches!(self.node, Node::Struct(members) if members.get(name).is_some_and(|member| member.always))
    }

    /// Whether the members of a map are fields of a struct rather than entries of their own.
    pub(super) fn is_struct(self) -> bool {
        matches!(self.node, Node::Struct(_))
    }

    /// The type of the items of a list.
    pub(crate) fn items(self) -> Option<Items<'a>> {
        match self.node {
            Node::Set => Some(Items { keys: None, of: self.schema.at(PLAIN) }),
            Node::List { keys, items } => Some(Items { keys: Some(keys), of: self.schema.at(*items) }),
            _ => None,
        }
    }

    /// How these values of the type are looked at together; nulls and absent ones go with any.
    pub(super) fn shape<'v>(self, values: impl IntoIterator<Item = Option<&'v Value>>) -> Shape<'a> {
        let (mut maps, mut lists, mut others) = (0, 0, 0);
        for value in values.into_iter().flatten() {
            match value {
                Value::Null => {}
                Value::Object(_) => maps += 1,
                Value::Array(_) => lists += 1,
                _ => others += 1,
            }
        }
        match (maps, lists, others, self.items()) {
            (1.., 0, 0, _) if matches!(self.node, Node::Plain | Node::Struct(_)) => Shape::Map,
            (0, 1.., 0, Some(items)) => Shape::List(items),
            _ => Shape::Leaf,
        }
    }

    /// The keys of a list that is a map, for comparison with other tables.
    #[cfg(test)]
    pub(crate) fn list_keys(self) -> Option<Vec<&'static str>> {
        self.items().map(|items| items.keys.unwrap_or_default().iter().map(|key| key.name).collect())
    }

    #[cfg(test)]
    pub(crate) fn descend(self, name: &str) -> Type<'a> {
        self.member(name)
    }

    #[cfg(test)]
    pub(crate) fn item_type(self) -> Option<Type<'a>> {
        self.items().map(|items| items.of)
    }
}

impl Items<'_> {
    /// By what an item is known.
    ///
    /// # Errors
    /// What is wrong with the item.
    pub fn element(&self, item: &Value) -> Result<Element, String> {
        let Some(keys) = self.keys else {
            return match (item, Scalar::of(item)) {
                (Value::Null, _) => {
                    Err("associative list without keys has an element that's an explicit null".to_owned())
                }
                (_, Some(value)) => Ok(Element::Value(value)),
                _ => Err("associative list without keys has an element that's no scalar".to_owned()),
            };
        };
        let Value::Object(item) = item else {
            return Err("associative list with keys may not have non-map elements".to_owned());
        };
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            let value = match item.get(key.name) {
                Some(value) => Scalar::of(value),
                None => key.default.clone(),
            };
            let Some(value) = value else {
                return Err(format!(
                    "associative list with keys has an element that omits key field {:?} (and doesn't have default value)",
                    key.name
                ));
            };
            found.push((key.name.to_owned(), value));
        }
        found.sort();
        Ok(Element::Key(found))
    }
}
