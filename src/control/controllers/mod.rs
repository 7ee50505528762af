//! The table of controllers. To add one: a file here and a row in [`ALL`].

pub mod benchttl;
mod bootstrap;
mod clusterroles;
mod deployment;
mod endpointslice;
mod eventttl;
pub(crate) mod gc;
mod namespace;
pub(crate) mod node;
mod nodecidr;
mod podgc;
mod rbacdefaults;
mod replicaset;
mod resourcequota;
#[cfg(test)]
mod tests;

use state::{Key, State};

use crate::Row;

/// Every controller, in the order a new leader looks at them first.
pub const ALL: &[Row] = &[
    bootstrap::ROW,
    rbacdefaults::ROW,
    clusterroles::ROW,
    nodecidr::ROW,
    node::ROW,
    replicaset::ROW,
    deployment::ROW,
    endpointslice::ROW,
    resourcequota::ROW,
    namespace::ROW,
    gc::ROW,
    podgc::ROW,
    eventttl::ROW,
    benchttl::ROW,
];

/// Every key of a resource.
fn keys_of(root: &State, group: &str, resource: &str) -> Vec<Key> {
    root.list(group, resource, None).map(|(key, _)| key.clone()).collect()
}
