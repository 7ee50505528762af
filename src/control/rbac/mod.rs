//! Authorization by RBAC as Kubernetes has it: what roles and bindings allow ([`Index`]), that nobody grants more than he
//! holds ([`escalation`]), the roles and bindings every cluster has ([`defaults`]), and what acting as another asks for
//! ([`impersonation`]). Who needs no role (masters, nodes) stands in [`crate::authz`].
//!
//! ```text
//! Role, ClusterRole ───────── rules ──────────┐
//! RoleBinding, ClusterRoleBinding ─ places ───┴─▶ Index ── allows(user, attributes) ─▶ Decision
//!        state, at a revision                       follows the changes since
//! ```
//!
//! **Invariant:** rules only ever allow. What is not known (a role that is gone, a subject of an unknown kind) allows
//! nothing, so an incomplete index refuses more, never less.

pub mod covers;
pub mod defaults;
pub mod escalation;
pub mod impersonation;
mod index;
mod rule;
pub mod signers;
#[cfg(test)]
pub(crate) mod testing;

pub use index::{Decision, Index, RoleRef, Rules};
pub use rule::Rule;

/// The API group of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";
pub const ROLES: &str = "roles";
pub const CLUSTER_ROLES: &str = "clusterroles";
pub const ROLE_BINDINGS: &str = "rolebindings";
pub const CLUSTER_ROLE_BINDINGS: &str = "clusterrolebindings";
