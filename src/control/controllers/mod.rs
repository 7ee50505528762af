//! The table of controllers. To add one: a file here and a row in [`ALL`].

use crate::Row;

/// Every controller, in the order a new leader looks at them first.
pub const ALL: &[Row] = &[];
