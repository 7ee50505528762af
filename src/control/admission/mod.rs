//! What is added to an object, or refused, before it is written: one ordered table of pure functions.
//!
//! A row sees one object and the root; it neither writes nor waits. Rules that must hold at the very moment of writing
//! (unique claims, living namespaces) are checked again by `apply`; a row here chooses or explains.
//!
//! **Invariant:** admitting an admitted object again changes nothing.

mod classes;
mod limits;
mod namespaces;
mod nodes;
mod pods;
mod priorities;
mod quotas;
mod services;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use objects::{FieldError, Kind};
use serde_json::Value;
use state::State;

use crate::Settings;
use crate::authz::User;

pub use quotas::wording as exceeded;

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
    /// 404: there is no namespace of this name.
    #[error("namespaces {0:?} not found")]
    NoNamespace(String),
    /// 403, with a cause of its own: the namespace of this name is being deleted.
    #[error("unable to create new content in namespace {0} because it is being terminated")]
    Terminating(String),
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

/// In the order they run, which is that of Kubernetes' plugins; all that mutate run before any that validates.
static ROWS: &[Row] = &[
    Row { name: "namespace lifecycle", resources: &[], operations: &[Create], rule: Rule::Mutate(namespaces::lives) },
    Row {
        name: "namespace identity",
        resources: &[("", "namespaces")],
        operations: &[Create, Update],
        rule: Rule::Mutate(namespaces::identity),
    },
    Row { name: "limit defaults", resources: &[PODS], operations: &[Create], rule: Rule::Mutate(limits::default) },
    Row {
        name: "service account",
        resources: &[PODS],
        operations: &[Create],
        rule: Rule::Mutate(pods::service_account),
    },
    Row { name: "priority", resources: &[PODS], operations: &[Create, Update], rule: Rule::Mutate(priorities::of_pod) },
    Row {
        name: "default tolerations",
        resources: &[PODS],
        operations: &[Create],
        rule: Rule::Mutate(pods::default_tolerations),
    },
    Row {
        name: "default storage class",
        resources: &[CLAIMS],
        operations: &[Create],
        rule: Rule::Mutate(classes::of_storage),
    },
    Row {
        name: "default ingress class",
        resources: &[("networking.k8s.io", "ingresses")],
        operations: &[Create],
        rule: Rule::Mutate(classes::of_ingress),
    },
    Row {
        name: "service addresses",
        resources: &[("", "services")],
        operations: &[Create, Update],
        rule: Rule::Mutate(services::allocate),
    },
    Row {
        name: "namespace protection",
        resources: &[("", "namespaces")],
        operations: &[Delete],
        rule: Rule::Validate(namespaces::protect),
    },
    Row {
        name: "limits",
        resources: &[PODS, CLAIMS],
        operations: &[Create, Update],
        rule: Rule::Validate(limits::judge),
    },
    Row {
        name: "node restriction",
        resources: &[],
        operations: &[Create, Update, Delete],
        rule: Rule::Validate(nodes::restrict),
    },
    Row {
        name: "default priority",
        resources: &[("scheduling.k8s.io", "priorityclasses")],
        operations: &[Create, Update],
        rule: Rule::Validate(priorities::one_default),
    },
    Row { name: "quota", resources: &[PODS], operations: &[Create], rule: Rule::Validate(quotas::constrain) },
];

const PODS: (&str, &str) = ("", "pods");
const CLAIMS: (&str, &str) = ("", "persistentvolumeclaims");

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
    Ok(priorities::warning(request).into_iter().collect())
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
