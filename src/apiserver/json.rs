//! JSON and YAML bodies into values, noticing what `serde_json::Value` forgets: a key that stands twice.

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// More duplicates are not told apart.
const DUPLICATES_MAX: usize = 20;
/// What a body may grow by in decoding, as aliases of YAML make it: this many times, and so many values and bytes more.
const GROWTH_MAX: usize = 4;
const GROWTH_FREE: usize = 64 * 1024;

/// A decoded body and the paths of the fields that stood more than once (the last one won).
#[derive(Debug, Default)]
pub struct Parsed {
    pub value: Value,
    pub duplicates: Vec<String>,
}

pub fn parse_json(bytes: &[u8]) -> Result<Parsed, String> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let parsed = run(&mut deserializer, bytes.len())?;
    deserializer.end().map_err(|error| error.to_string())?;
    Ok(parsed)
}

pub fn parse_yaml(bytes: &[u8]) -> Result<Parsed, String> {
    run(serde_yaml::Deserializer::from_slice(bytes), bytes.len())
}

fn run<'de, D: Deserializer<'de>>(deserializer: D, length: usize) -> Result<Parsed, String> {
    let seen = RefCell::new(Vec::new());
    let left = Cell::new(length.saturating_mul(GROWTH_MAX).saturating_add(GROWTH_FREE));
    let seed = Seed { path: None, duplicates: &seen, left: &left };
    let value = seed.deserialize(deserializer).map_err(|error| error.to_string())?;
    Ok(Parsed { value, duplicates: seen.into_inner() })
}

/// Where the decoder stands: a chain up to the root, so that no string is built unless a duplicate is found.
#[derive(Clone, Copy)]
struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}")?;
        }
        match self.step {
            Step::Key(key) if self.parent.is_some() => write!(f, ".{key}"),
            Step::Key(key) => f.write_str(key),
            Step::Index(index) => write!(f, "[{index}]"),
        }
    }
}

#[derive(Clone, Copy)]
struct Seed<'a> {
    path: Option<&'a Path<'a>>,
    duplicates: &'a RefCell<Vec<String>>,
    /// How many more values and bytes of text there may be.
    left: &'a Cell<usize>,
}

impl Seed<'_> {
    fn spend<E: serde::de::Error>(&self, amount: usize) -> Result<(), E> {
        let left = self.left.get().checked_sub(amount);
        self.left.set(left.ok_or_else(|| E::custom("it is too large when its aliases are written out"))?);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.spend(1)?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number is not finite"))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.spend(value.len())?;
        Ok(value.into())
    }

    fn visit_string<E: serde::de::Error>(self, value: String) -> Result<Value, E> {
        self.spend(value.len())?;
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let path = Path { parent: self.path, step: Step::Index(list.len()) };
            match access.next_element_seed(Seed { path: Some(&path), ..self })? {
                Some(value) => list.push(value),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(Key(key)) = access.next_key()? {
            self.spend(key.len())?;
            let path = Path { parent: self.path, step: Step::Key(&key) };
            let value = access.next_value_seed(Seed { path: Some(&path), ..self })?;
            if map.contains_key(&key) && self.duplicates.borrow().len() < DUPLICATES_MAX {
                self.duplicates.borrow_mut().push(path.to_string());
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// A key; YAML may spell one as a number or a boolean.
struct Key(String);

impl<'de> serde::Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E>(self, value: &str) -> Result<Key, E> {
                Ok(Key(value.to_owned()))
            }

            fn visit_string<E>(self, value: String) -> Result<Key, E> {
                Ok(Key(value))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Key, E> {
                Ok(Key(value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Key, E> {
                Ok(Key(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Key, E> {
                Ok(Key(value.to_string()))
            }

            fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Key, E> {
                Err(E::custom("a key must be a string"))
            }
        }
        deserializer.deserialize_any(Text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn duplicates_are_named_and_the_last_one_wins() {
        let parsed = parse_json(br#"{"a": 1, "b": [{"c": 1, "c": 2}], "a": 3}"#).unwrap_or_default();
        assert_eq!(parsed.value, json!({"a": 3, "b": [{"c": 2}]}));
        assert_eq!(parsed.duplicates, ["b[0].c", "a"]);
        let parsed = parse_yaml(b"a: 1\nb: {x: yes, 8080: [1.5, null]}\n").unwrap_or_default();
        assert_eq!(parsed.value, json!({"a": 1, "b": {"x": "yes", "8080": [1.5, null]}}));
    }

    #[test]
    fn hostile_bodies_are_refused() {
        for body in ["", "{", "{} {}", "[1,]", &"[".repeat(100_000)] {
            assert!(parse_json(body.as_bytes()).is_err(), "{:?}", &body[..body.len().min(20)]);
        }
    }

    #[test]
    fn aliases_do_not_multiply() {
        let items = vec!["x"; 2000].join(",");
        let few = format!("a: &a [{items}]\nb: [*a, *a]\n");
        let many = format!("a: &a [{items}]\nb: [{}]\n", vec!["*a"; 2000].join(","));
        assert_eq!(parse_yaml(few.as_bytes()).unwrap_or_default().value["b"][1][1999], "x");
        assert!(parse_yaml(many.as_bytes()).is_err());
    }
}
