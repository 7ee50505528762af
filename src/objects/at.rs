//! A value and where it stands in its object: what validation walks with, so that every error names its path.

use serde_json::Value;

use crate::{FieldError, Reason};

static NULL: Value = Value::Null;

/// The errors found so far.
pub type Errors = Vec<FieldError>;

/// A place in an object: its path and the value there (null where there is none).
#[derive(Clone, Debug)]
pub struct At<'a> {
    pub path: String,
    pub value: &'a Value,
}

impl<'a> At<'a> {
    /// The object itself.
    pub fn root(value: &'a Value) -> Self {
        Self { path: String::new(), value }
    }

    pub fn new(path: impl Into<String>, value: &'a Value) -> Self {
        Self { path: path.into(), value }
    }

    /// The member `name`, present or not.
    pub fn field(&self, name: &str) -> At<'a> {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        At { path, value: self.value.get(name).unwrap_or(&NULL) }
    }

    /// A member reached over several names.
    pub fn fields(&self, names: &[&str]) -> At<'a> {
        names.iter().fold(self.clone(), |at, name| at.field(name))
    }

    /// An entry of a map: `metadata.labels[app]`.
    pub fn key(&self, key: &str) -> At<'a> {
        At { path: format!("{}[{key}]", self.path), value: self.value.get(key).unwrap_or(&NULL) }
    }

    /// The items of a list; none where there is no list.
    pub fn items(&self) -> impl Iterator<Item = At<'a>> + use<'a> {
        let path = self.path.clone();
        let list: &'a [Value] = self.value.as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().enumerate().map(move |(i, value)| At { path: format!("{path}[{i}]"), value })
    }

    /// The entries of a map; none where there is no map.
    pub fn entries(&self) -> impl Iterator<Item = (&'a str, At<'a>)> + use<'a> {
        let path = self.path.clone();
        self.value
            .as_object()
            .into_iter()
            .flatten()
            .map(move |(key, value)| (key.as_str(), At { path: format!("{path}[{key}]"), value }))
    }

    pub fn len(&self) -> usize {
        match self.value {
            Value::Array(list) => list.len(),
            Value::Object(map) => map.len(),
            _ => 0,
        }
    }

    /// Absent, null, "", [], {}, false or 0: what Go calls the zero value, and clients send for "not set".
    pub fn is_empty(&self) -> bool {
        crate::meta::is_empty(self.value)
    }

    pub fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    pub fn text(&self) -> &'a str {
        self.value.as_str().unwrap_or("")
    }

    pub fn int(&self) -> Option<i64> {
        self.value.as_i64()
    }

    pub fn bool(&self) -> bool {
        self.value.as_bool().unwrap_or(false)
    }

    pub fn error(&self, reason: Reason, message: impl Into<String>) -> FieldError {
        FieldError::new(self.path.clone(), reason, message)
    }

    pub fn required(&self, message: impl Into<String>) -> FieldError {
        self.error(Reason::Required, message)
    }

    pub fn forbidden(&self, message: impl Into<String>) -> FieldError {
        self.error(Reason::Forbidden, message)
    }

    pub fn invalid(&self, message: impl Into<String>) -> FieldError {
        self.error(Reason::Invalid, message).with_value(self.value.clone())
    }

    /// An error about a value that does not stand in the object as such, like a map's key.
    pub fn invalid_value(&self, value: impl Into<Value>, message: impl Into<String>) -> FieldError {
        self.error(Reason::Invalid, message).with_value(value.into())
    }

    pub fn duplicate(&self, value: impl Into<Value>) -> FieldError {
        self.error(Reason::Duplicate, "").with_value(value.into())
    }

    pub fn unsupported(&self, supported: &[&str]) -> FieldError {
        let list: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        self.error(Reason::NotSupported, format!("supported values: {}", list.join(", ")))
            .with_value(self.value.clone())
    }

    pub fn too_long(&self, bytes_max: usize) -> FieldError {
        self.error(Reason::TooLong, format!("may not be more than {bytes_max} bytes"))
    }

    /// One of `supported`; absent or "" is `Required` where `required`.
    pub fn one_of(&self, supported: &[&str], required: bool, errors: &mut Errors) {
        match self.text() {
            "" if required => errors.push(self.required("")),
            "" => {}
            text if supported.contains(&text) => {}
            _ => errors.push(self.unsupported(supported)),
        }
    }

    /// Not below zero, where set.
    pub fn non_negative(&self, errors: &mut Errors) {
        if self.int().is_some_and(|n| n < 0) {
            errors.push(self.invalid("must be greater than or equal to 0"));
        }
    }

    /// Equal to what it was.
    pub fn immutable(&self, old: &At<'_>, errors: &mut Errors) {
        let same = crate::meta::alike(self.value, old.value) || (self.is_empty() && old.is_empty());
        if !same {
            errors.push(self.invalid("field is immutable"));
        }
    }
}
