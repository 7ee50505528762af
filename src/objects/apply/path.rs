//! One step of a path into an object, as `managedFields` writes it (`f:name`, `k:{"name":"c"}`, `v:"x"`, `i:0`) and as
//! messages do (`.name`, `[name="c"]`, `[="x"]`, `[0]`).

use std::fmt;

use serde_json::{Map, Value};

/// What a key or an item of a set is. The order is that in which Kubernetes lists them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scalar {
    Integer(i128),
    /// By its JSON text: floats have no order of their own.
    Float(String),
    Text(String),
    Bool(bool),
    Null,
}

impl Scalar {
    /// None for lists and maps.
    pub fn of(value: &Value) -> Option<Scalar> {
        Some(match value {
            Value::Null => Scalar::Null,
            Value::Bool(flag) => Scalar::Bool(*flag),
            Value::String(text) => Scalar::Text(text.clone()),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => Scalar::Integer(number.into()),
                (_, Some(number)) => Scalar::Integer(number.into()),
                _ => Scalar::Float(number.to_string()),
            },
            Value::Array(_) | Value::Object(_) => return None,
        })
    }
}

/// The JSON of the value.
impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scalar::Integer(number) => number.fmt(f),
            Scalar::Float(text) => f.write_str(text),
            Scalar::Text(text) => Value::from(text.as_str()).fmt(f),
            Scalar::Bool(flag) => flag.fmt(f),
            Scalar::Null => f.write_str("null"),
        }
    }
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    /// A member of a map.
    Field(String),
    /// The item of a list that has these keys, which are in the order of their names.
    Key(Vec<(String, Scalar)>),
    /// This item of a set.
    Value(Scalar),
    /// The item at a place. Nothing here makes such steps; entries of others may have them.
    Index(i64),
}

impl Element {
    pub fn field(name: &str) -> Element {
        Element::Field(name.to_owned())
    }

    /// Reads the form of `managedFields`. None is a kind of step that this version does not know: it is left out.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Option<Element>, String> {
        let bad = || format!("{text:?} is no step of a path");
        let json = |text: &str| serde_json::from_str::<Value>(text).map_err(|_| bad());
        let (kind, rest) = text.split_once(':').filter(|(kind, _)| kind.len() == 1).ok_or_else(bad)?;
        Ok(Some(match kind {
            "f" => Element::field(rest),
            "v" => Element::Value(Scalar::of(&json(rest)?).ok_or_else(bad)?),
            "i" => Element::Index(rest.parse().map_err(|_| bad())?),
            "k" => {
                let Value::Object(keys) = json(rest)? else { return Err(bad()) };
                let mut keys = keys
                    .into_iter()
                    .map(|(name, value)| Some((name, Scalar::of(&value)?)))
                    .collect::<Option<Vec<_>>>()
                    .ok_or_else(bad)?;
                keys.sort();
                Element::Key(keys)
            }
            _ => return Ok(None),
        }))
    }

    /// The form of `managedFields`.
    pub fn name(&self) -> String {
        match self {
            Element::Field(name) => format!("f:{name}"),
            Element::Value(value) => format!("v:{value}"),
            Element::Index(at) => format!("i:{at}"),
            Element::Key(keys) => {
                let json: Vec<String> =
                    keys.iter().map(|(name, value)| format!("{}:{value}", Value::from(name.as_str()))).collect();
                format!("k:{{{}}}", json.join(","))
            }
        }
    }
}

/// The form of messages.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Element::Field(name) => write!(f, ".{name}"),
            Element::Value(value) => write!(f, "[={value}]"),
            Element::Index(at) => write!(f, "[{at}]"),
            Element::Key(keys) => {
                let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(f, "[{}]", keys.join(","))
            }
        }
    }
}

/// A path as messages write it: `.spec.containers[name="c"].image`.
pub(super) fn display(path: &[Element]) -> String {
    path.iter().map(Element::to_string).collect()
}

/// The path of fields with these names.
pub(super) fn fields(names: &[&str]) -> Vec<Element> {
    names.iter().map(|name| Element::field(name)).collect()
}

/// The map at the root of a JSON value, or why there is none.
pub(super) fn object<'a>(value: &'a Value, what: &str) -> Result<&'a Map<String, Value>, String> {
    value.as_object().ok_or_else(|| format!("{what} must be an object"))
}
