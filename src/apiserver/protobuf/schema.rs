//! The table of messages, parsed once from `schema.txt` (which `generate.py` makes and explains).

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    String,
    Integer,
    Bool,
    Double,
    Bytes,
    /// Index into [`Schema::messages`].
    Message(usize),
}

/// How often, and where, it appears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    One,
    Repeated,
    /// From string keys.
    Map,
    /// JSON flattens the message into its parent.
    Inline,
    /// Zero on the wire means unset.
    ZeroIsUnset,
    /// An empty string means something.
    KeepEmpty,
}

#[derive(Debug)]
pub struct Field {
    pub tag: u32,
    pub name: &'static str,
    pub kind: Type,
    pub shape: Shape,
}

#[derive(Debug)]
pub struct Message {
    /// `core/v1.Pod`
    pub name: &'static str,
    /// In tag order.
    pub fields: Vec<Field>,
}

impl Message {
    pub fn field(&self, tag: u32) -> Option<&Field> {
        self.fields.binary_search_by_key(&tag, |field| field.tag).ok().map(|at| &self.fields[at])
    }
}

#[derive(Debug, Default)]
pub struct Schema {
    pub messages: Vec<Message>,
    by_name: BTreeMap<&'static str, usize>,
    /// Names in lower case: the structs spell `CsiDriver` what the API calls `CSIDriver`.
    by_kind: BTreeMap<String, usize>,
    /// `rbac.authorization.k8s.io/v1` to `rbac/v1`
    packages: BTreeMap<&'static str, &'static str>,
}

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema::parse(include_str!("schema.txt")));

impl Schema {
    pub fn get() -> &'static Schema {
        &SCHEMA
    }

    /// The message of a kind. Kinds of the machinery itself (DeleteOptions, Status) may come under any group's version.
    pub fn kind(&self, api_version: &str, kind: &str) -> Option<&Message> {
        let package = self.packages.get(api_version)?;
        let kind = kind.to_lowercase();
        let at =
            self.by_kind.get(&format!("{package}.{kind}")).or_else(|| self.by_kind.get(&format!("meta/v1.{kind}")))?;
        Some(&self.messages[*at])
    }

    fn parse(text: &'static str) -> Schema {
        let mut schema = Schema::default();
        let lines = || text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(' '));
        for mut words in lines() {
            match words.next() {
                Some("group") => {
                    schema.packages.insert(words.next().unwrap_or(""), words.next().unwrap_or(""));
                }
                Some(name) => {
                    schema.by_name.insert(name, schema.messages.len());
                    schema.by_kind.insert(name.to_lowercase(), schema.messages.len());
                    schema.messages.push(Message { name, fields: Vec::new() });
                }
                None => {}
            }
        }
        for mut words in lines() {
            let Some(&at) = words.next().and_then(|name| schema.by_name.get(name)) else { continue };
            let mut fields: Vec<Field> = words.filter_map(|word| schema.field(word)).collect();
            fields.sort_by_key(|field| field.tag);
            schema.messages[at].fields = fields;
        }
        schema
    }

    fn field(&self, word: &'static str) -> Option<Field> {
        let mut parts = word.splitn(3, ':');
        let (tag, name, kind) = (parts.next()?, parts.next()?, parts.next()?);
        let bare = kind.trim_end_matches(['*', '%', '~', '?', '!']);
        let shape = match &kind[bare.len()..] {
            "*" => Shape::Repeated,
            "%" => Shape::Map,
            "~" => Shape::Inline,
            "?" => Shape::ZeroIsUnset,
            "!" => Shape::KeepEmpty,
            _ => Shape::One,
        };
        let kind = match bare {
            "s" => Type::String,
            "i" => Type::Integer,
            "b" => Type::Bool,
            "d" => Type::Double,
            "y" => Type::Bytes,
            message => Type::Message(*self.by_name.get(message)?),
        };
        Some(Field { tag: tag.parse().ok()?, name, kind, shape })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_understood() {
        let schema = Schema::get();
        let mut lines = 0;
        for line in include_str!("schema.txt").lines().filter(|l| !l.starts_with('#') && !l.starts_with("group ")) {
            let mut words = line.split(' ');
            let name = words.next().unwrap_or("");
            let message = &schema.messages[schema.by_name[name]];
            assert_eq!(message.fields.len(), words.count(), "{name}");
            lines += 1;
        }
        assert!(lines > 500);
        assert_eq!(schema.kind("apps/v1", "Deployment").map(|m| m.name), Some("apps/v1.Deployment"));
        assert_eq!(schema.kind("policy/v1", "DeleteOptions").map(|m| m.name), Some("meta/v1.DeleteOptions"));
        assert!(schema.kind("v1", "Nothing").is_none());
    }
}
