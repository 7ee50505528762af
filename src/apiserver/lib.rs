//! The Kubernetes HTTP contract over a replica: routing, content types, discovery, OpenAPI, verbs, watch.
//!
//! [`service`] gives a router that answers as an API server of Kubernetes v1.36. It expects the caller's identity as the
//! request extension [`control::authz::User`]; who terminated TLS and how is not its business. It knows no Raft, no
//! Docker and no session: the store is a [`replica::Replica`], and what reaches into a node is a [`Streams`].
//!
//! **Invariant:** verbs are generic over the table of kinds; there is no handler per kind.

mod config;
pub mod protobuf;

pub use config::{Check, Config, Health, LogOptions, LogStream, PodRef, StreamError, Streams};

/// The whole API as one router. Requests must carry the extension `control::authz::User`; without it they are anonymous.
pub fn service(config: Config) -> axum::Router {
    let _ = config;
    axum::Router::new()
}
