//! Kubernetes' protobuf bodies, made into JSON. Every kind at once: a small decoder driven by a table of messages.
//!
//! ```text
//! "k8s\0" Unknown { typeMeta { apiVersion, kind }, raw, … } ──schema──▶ { "apiVersion", "kind", … }
//! ```
//!
//! The published descriptors cannot tell a pointer from a value, and values are on the wire even when zero. So empty strings
//! are dropped (but for the few pointers where they mean something), and zero numbers and false where Go holds an
//! optional field by value; the table marks both. Answers are never protobuf: every client that sends it accepts JSON.
//!
//! **Invariant:** no input makes the decoder panic, recurse deeper than [`DEPTH_MAX`], or allocate more than a small
//! multiple of the body.

mod decode;
mod scalar;
mod schema;

pub use decode::{Error, decode};

/// The first four bytes of every body.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// Messages nested deeper are refused; schemas of custom resources are the deepest that occur.
const DEPTH_MAX: u32 = 64;
