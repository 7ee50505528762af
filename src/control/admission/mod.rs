//! What is added to an object, or refused, before it is written: one ordered table of pure functions.
//!
//! A row sees one object and the root; it neither writes nor waits. Rules that must hold at the very moment of writing
//! (unique claims, living namespaces) are checked again by `apply`; a row here chooses or explains.
//!
//! **Invariant:** admitting an admitted object again changes nothing.

mod namespaces;
mod nodes;
mod pods;
mod services;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use objects::{FieldError, Kind};
use serde_json::Value;
use state::State;

use crate::Settings;
use crate::authz::User;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
}

/// One write. For a Delete, `object` is what is to be deleted.
pub struct Request<'a> {
    pub kind: &'a Kind,
    pub operation: Operation,
    pub object: &'a mut Value,
    pub old: Option<&'a Value>,
    pub user: &'a User,
    pub now: Timestamp,
    pub seed: u64,
    pub settings: &'a Settings,
}

/// Why a write is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Denied {
    /// 403: the message behind `<resource> "<name>" is forbidden: `.
    #[error("{0}")]
    Forbidden(String),
    /// 422.
    #[error("{}", objects::aggregate(.0))]
    Invalid(Vec<FieldError>),
}

type Mutate = fn(&mut Request<'_>, &State) -> Result<(), Denied>;
type Validate = fn(&Request<'_>, &State) -> Result<(), Denied>;

/// One rule.
struct Row {
    name: &'static str,
    /// The (group, resource) it is for; none means all.
    resources: &'static [(&'static str, &'static str)],
    operations: &'static [Operation],
    rule: Rule,
}

enum Rule {
    Mutate(Mutate),
    Validate(Validate),
}

use Operation::{Create, Delete, Update};

/// In the order they run; all that mutate run before any that validates.
static ROWS: &[Row] = &[
    Row {
        name: "namespace identity",
        resources: &[("", "namespaces")],
        operations: &[Create, Update],
        rule: Rule::Mutate(namespaces::identity),
    },
    Row {
        name: "service account",
        resources: &[("", "pods")],
        operations: &[Create],
        rule: Rule::Mutate(pods::service_account),
    },
    Row {
        name: "default tolerations",
        resources: &[("", "pods")],
        operations: &[Create],
        rule: Rule::Mutate(pods::default_tolerations),
    },
    Row { name: "priority", resources: &[("", "pods")], operations: &[Create], rule: Rule::Mutate(pods::priority) },
    Row {
        name: "service addresses",
        resources: &[("", "services")],
        operations: &[Create, Update],
        rule: Rule::Mutate(services::allocate),
    },
    Row {
        name: "node restriction",
        resources: &[],
        operations: &[Create, Update, Delete],
        rule: Rule::Validate(nodes::restrict),
    },
    Row {
        name: "namespace protection",
        resources: &[("", "namespaces")],
        operations: &[Delete],
        rule: Rule::Validate(namespaces::protect),
    },
];

impl Row {
    fn is_for(&self, request: &Request<'_>) -> bool {
        self.operations.contains(&request.operation)
            && (self.resources.is_empty() || self.resources.contains(&(request.kind.group, request.kind.plural)))
    }
}

/// Completes the object. Default it before and after. Returns warnings for the client.
///
/// # Errors
/// What forbids the write, or cannot be completed.
pub fn mutate(request: &mut Request<'_>, root: &State) -> Result<Vec<String>, Denied> {
    for row in ROWS {
        if let (true, Rule::Mutate(rule)) = (row.is_for(request), &row.rule) {
            rule(request, root)?;
        }
    }
    Ok(Vec::new())
}

/// Judges the completed object.
///
/// # Errors
/// What forbids the write.
pub fn validate(request: &Request<'_>, root: &State) -> Result<(), Denied> {
    for row in ROWS {
        if let (true, Rule::Validate(rule)) = (row.is_for(request), &row.rule) {
            rule(request, root)?;
        }
    }
    Ok(())
}

/// The names of the rules, in order, for documentation and metrics.
pub fn rules() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|row| row.name)
}
