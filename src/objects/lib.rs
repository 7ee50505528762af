//! What ONE object means: the table of kinds with their defaults, validation, selectable fields and printed columns;
//! label and field selectors, quantities, what quotas count, schedules, the patch types and server-side apply.
//!
//! Objects are JSON values here: a client's fields survive exactly as it sent them, whatever this version knows of them.
//! The typed structs of `k8s-openapi` say which fields and types exist ([`Kind::decode`]); nothing else uses them.
//! Rules that need a second object stand in `control` (admission) or in `state` (apply).
//!
//! ```text
//! decode ─▶ default ─▶ (admission) ─▶ default ─▶ prepare_create | prepare_update ─▶ validate ─▶ fields, claims
//! ```
//!
//! **Invariant:** every function is a pure function of its arguments; no clock, no randomness, no hash order.

pub mod apply;
mod at;
mod error;
pub mod kinds;
pub mod meta;
pub mod names;
pub mod patch;
pub mod quantity;
pub mod quota;
pub mod schedule;
pub mod schemas;
pub mod selector;

pub use at::{At, Errors};
pub use error::{FieldError, Reason, aggregate};
pub use kinds::{Column, Kind, Kinds, Part, Requester, Review, Subresource, View};
