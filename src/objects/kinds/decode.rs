//! Passing a client's object through its typed struct, which knows the fields there are and the types of their values.

use schemars::{JsonSchema, SchemaGenerator};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{FieldError, Reason, meta};

/// What the typed struct of a kind knows.
#[derive(Clone, Copy)]
pub(super) struct Typed {
    /// Passes an object through it.
    pub pass: fn(&Value) -> Result<Value, FieldError>,
    /// Defines its schema; the name it has.
    pub schema: fn(&mut SchemaGenerator) -> Option<String>,
}

impl Typed {
    pub const NONE: Typed = Typed { pass: |value| Ok(value.clone()), schema: |_| None };

    pub const fn of<T: DeserializeOwned + Serialize + JsonSchema>() -> Self {
        Self { pass: typed::<T>, schema: define::<T> }
    }
}

fn define<T: JsonSchema>(generator: &mut SchemaGenerator) -> Option<String> {
    generator.subschema_for::<T>();
    Some(T::schema_name().into_owned())
}

/// Passes a value through `T`, naming the path of a value that does not fit.
fn typed<T: DeserializeOwned + Serialize>(value: &Value) -> Result<Value, FieldError> {
    let object: T = serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { String::new() } else { path };
        FieldError::new(path, Reason::TypeInvalid, error.inner().to_string())
    })?;
    serde_json::to_value(object).map_err(|error| FieldError::new("", Reason::TypeInvalid, error.to_string()))
}

/// [`Kind::decode`](super::Kind::decode) for one version of a kind.
pub(super) fn decode(
    object: &mut Value,
    api_version: &str,
    kind: &str,
    typed: Typed,
) -> Result<Vec<String>, FieldError> {
    drop_nulls(object);
    if !object.is_object() {
        return Err(FieldError::new("", Reason::TypeInvalid, "must be an object"));
    }
    meta::set(object, &["apiVersion"], api_version.into());
    meta::set(object, &["kind"], kind.into());
    let known = (typed.pass)(object).map_err(|mut error| {
        let place = if error.field.is_empty() { String::new() } else { format!("{}: ", error.field) };
        error.message =
            format!("{kind} in version {api_version:?} cannot be handled as a {kind}: {place}{}", error.message);
        error
    })?;
    let mut unknown = Vec::new();
    prune(object, &known, "", &mut unknown);
    Ok(unknown)
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Keeps of `input` what `known` has too, with `known`'s leaves; names the rest.
fn prune(input: &mut Value, known: &Value, path: &str, unknown: &mut Vec<String>) {
    match (input, known) {
        (Value::Object(input), Value::Object(known)) => input.retain(|key, value| {
            let place = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match known.get(key) {
                Some(known) => {
                    prune(value, known, &place, unknown);
                    true
                }
                None => {
                    unknown.push(place);
                    false
                }
            }
        }),
        (Value::Array(input), Value::Array(known)) if input.len() == known.len() => {
            for (i, (value, known)) in input.iter_mut().zip(known).enumerate() {
                prune(value, known, &format!("{path}[{i}]"), unknown);
            }
        }
        (input, known) => *input = known.clone(),
    }
}
