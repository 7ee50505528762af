//! Who owns what of an object: `metadata.managedFields`.
//!
//! **Invariant:** no two entries are of the same manager, operation, version and subresource, and none is empty.

use std::cmp::Ordering;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::set::FieldSet;
use crate::meta;

/// More entries of updates than these are put together, the oldest first.
pub const UPDATERS_MAX: usize = 10;
/// The manager of the entries put together.
const ANCIENT: &str = "ancient-changes";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// What one manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub manager: String,
    pub operation: Operation,
    pub api_version: String,
    /// Empty for the object itself.
    pub subresource: String,
    pub time: Option<Timestamp>,
    pub fields: FieldSet,
}

impl Entry {
    /// Whether both are the same manager's. Who applies is the same in all versions.
    pub fn is_of(&self, other: &Entry) -> bool {
        (&self.manager, self.operation, &self.subresource) == (&other.manager, other.operation, &other.subresource)
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// How messages name the manager: `"kubectl" with subresource "status" using apps/v1`.
    pub fn who(&self) -> String {
        let mut who = Value::from(self.manager.as_str()).to_string();
        if !self.subresource.is_empty() {
            who += &format!(" with subresource {}", Value::from(self.subresource.as_str()));
        }
        if self.operation == Operation::Update {
            who += &format!(" using {}", self.api_version);
        }
        who
    }

    fn from_json(json: &Value) -> Result<Entry, String> {
        let text = |name| meta::text(json, &[name]);
        let operation = match text("operation") {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return Err("operation must be `Apply` or `Update`".to_owned()),
        };
        if text("apiVersion").is_empty() {
            return Err("apiVersion must not be empty".to_owned());
        }
        if text("fieldsType") != "FieldsV1" {
            return Err(format!("invalid fieldsType {:?}", text("fieldsType")));
        }
        let fields = meta::at(json, &["fieldsV1"]).map(FieldSet::from_json).transpose()?.unwrap_or_default();
        Ok(Entry {
            manager: text("manager").to_owned(),
            operation,
            api_version: text("apiVersion").to_owned(),
            subresource: text("subresource").to_owned(),
            time: meta::time(json, &["time"]),
            fields,
        })
    }

    fn to_json(&self) -> Value {
        let mut json = Map::new();
        let mut put = |name: &str, value: &str| {
            if !value.is_empty() {
                json.insert(name.to_owned(), value.into());
            }
        };
        put("manager", &self.manager);
        put("operation", self.operation.name());
        put("apiVersion", &self.api_version);
        put("time", &self.time.map(meta::format_time).unwrap_or_default());
        put("fieldsType", "FieldsV1");
        json.insert("fieldsV1".to_owned(), self.fields.to_json());
        if !self.subresource.is_empty() {
            json.insert("subresource".to_owned(), self.subresource.as_str().into());
        }
        Value::Object(json)
    }

    /// The order of the list.
    fn order(&self, other: &Entry) -> Ordering {
        fn key(entry: &Entry) -> (Operation, i64, &str, &str, &str) {
            let second = entry.time.map_or(0, Timestamp::as_second);
            (entry.operation, second, &entry.manager, &entry.api_version, &entry.subresource)
        }
        key(self).cmp(&key(other))
    }
}

/// The entries of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Managers(Vec<Entry>);

impl Managers {
    /// Reads the list. What is no list is an empty one.
    ///
    /// # Errors
    /// What is wrong with an entry.
    pub fn from_json(json: Option<&Value>) -> Result<Managers, String> {
        let mut managers = Managers::default();
        for entry in json.and_then(Value::as_array).into_iter().flatten() {
            managers.put(Entry::from_json(entry)?);
        }
        Ok(managers)
    }

    /// None where there are no entries.
    pub fn to_json(&self) -> Option<Value> {
        let mut entries: Vec<&Entry> = self.0.iter().collect();
        entries.sort_by(|a, b| a.order(b));
        (!entries.is_empty()).then(|| entries.iter().map(|entry| entry.to_json()).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter()
    }

    /// Sets an entry; an empty one takes its manager away.
    pub fn put(&mut self, entry: Entry) {
        self.take(&entry);
        if !entry.fields.is_empty() {
            self.0.push(entry);
        }
    }

    /// Takes the entry of the same manager out.
    pub fn take(&mut self, of: &Entry) -> Option<Entry> {
        let at = self.0.iter().position(|entry| entry.is_of(of))?;
        Some(self.0.remove(at))
    }

    /// Adds to what the manager owns already.
    pub fn add(&mut self, mut entry: Entry) {
        if let Some(old) = self.take(&entry) {
            entry.fields.extend(&old.fields);
        }
        self.put(entry);
    }

    /// Takes these fields from all.
    pub fn give_up(&mut self, fields: &FieldSet) {
        for entry in &mut self.0 {
            entry.fields = entry.fields.difference(fields);
        }
        self.0.retain(|entry| !entry.fields.is_empty());
    }

    /// All that anybody owns.
    pub fn owned(&self) -> FieldSet {
        let mut owned = FieldSet::default();
        for entry in &self.0 {
            owned.extend(&entry.fields);
        }
        owned
    }

    /// Puts the oldest updates of a version together until there are no more than [`UPDATERS_MAX`], or one per version.
    pub fn cap(&mut self) {
        let is_update = |entry: &&Entry| entry.operation == Operation::Update;
        while self.0.iter().filter(is_update).count() > UPDATERS_MAX {
            self.0.sort_by(Entry::order);
            let same = |a: &Entry, b: &Entry| a.operation == b.operation && a.api_version == b.api_version;
            let younger = self.0.iter().enumerate().position(|(at, entry)| {
                entry.operation == Operation::Update && self.0[..at].iter().any(|older| same(older, entry))
            });
            let Some(younger) = younger.map(|at| self.0.remove(at)) else { return };
            let Some(older) = self.0.iter().position(|older| same(older, &younger)) else { return };
            let mut both = Entry { manager: ANCIENT.to_owned(), subresource: String::new(), ..younger };
            both.fields.extend(&self.0.remove(older).fields);
            self.add(both);
        }
    }
}
