//! Why a configuration is not applied.

use super::managers::{Entry, Managers};
use super::path::{self, Element};
use super::set::FieldSet;

/// Why a configuration is not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// It is none (400).
    #[error("{0}")]
    Malformed(String),
    /// Others own what it would change (409).
    #[error("{}", describe(.0))]
    Conflicts(Vec<Conflict>),
}

/// A field that another manager owns with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// As messages name it: `"kubectl-client-side-apply" using apps/v1`.
    pub manager: String,
    pub path: Vec<Element>,
}

impl Conflict {
    /// The message of the cause, whose reason is `FieldManagerConflict`.
    pub fn message(&self) -> String {
        format!("conflict with {}", self.manager)
    }

    /// `.spec.replicas`
    pub fn field(&self) -> String {
        path::display(&self.path)
    }
}

fn describe(conflicts: &[Conflict]) -> String {
    if let [conflict] = conflicts {
        return format!("Apply failed with 1 conflict: {}: {}", conflict.message(), conflict.field());
    }
    let mut lines = Vec::new();
    for (at, conflict) in conflicts.iter().enumerate() {
        if at == 0 || conflicts[at - 1].manager != conflict.manager {
            lines.push(format!("conflicts with {}:", conflict.manager));
        }
        lines.push(format!("- {}", conflict.field()));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

/// What `others` own of the fields that are written.
pub(super) fn conflicts(others: &Managers, written: &FieldSet) -> Vec<Conflict> {
    let mut others: Vec<&Entry> = others.entries().collect();
    others.sort_by_key(|entry| entry.who());
    let of = |entry: &Entry| {
        let manager = entry.who();
        let paths = entry.fields.intersection(written).paths();
        paths.into_iter().map(move |path| Conflict { manager: manager.clone(), path })
    };
    others.into_iter().flat_map(of).collect()
}
