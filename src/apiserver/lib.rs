//! The Kubernetes HTTP contract over a replica: routing, content types, discovery, OpenAPI, verbs, watch.
//!
//! [`service`] gives a router that answers as an API server of Kubernetes v1.36. It expects the caller's identity as the
//! request extension [`control::authz::User`]; who terminated TLS and how is not its business. It knows no Raft, no
//! Docker and no session: the store is a [`replica::Replica`], and what reaches into a node is a [`Streams`].
//!
//! ```text
//! request ─ route ─ authorize ─┬─ path: health, discovery, OpenAPI
//!                              └─ verbs ─┬─ get, list, watch: bytes of records, copied
//!                                        ├─ exec, attach, portforward: another protocol on the connection (streams)
//!                                        └─ decode, default, mutate, default, validate, propose (write.rs)
//! ```
//!
//! **Invariant:** verbs are generic over the table of kinds; there is no handler per kind.

mod body;
mod config;
mod discovery;
mod health;
mod impersonate;
mod json;
mod limits;
mod link;
mod negotiate;
mod openapi;
pub mod protobuf;
mod query;
mod read;
mod respond;
mod route;
mod rows;
mod server;
mod shape;
mod spdy;
mod status;
mod streams;
mod verbs;
mod watch;
mod write;
pub mod yaml;

use std::sync::Arc;

pub use config::{Check, Config, Health, LogOptions, LogStream, PodRef, StreamError, Streams};
pub use limits::{Full, Limits, Pool, Seat, until_sent};
pub use link::{Asked, Input, Inputs, Link, Output, Outputs, Session, Stdio};
pub use respond::Finite;
pub use streams::Connection;

/// The whole API as one router. A request without the extension `control::authz::User` is anonymous.
pub fn service(config: Config) -> axum::Router {
    let server = Arc::new(server::Server::new(config));
    axum::Router::new().fallback(move |request: axum::extract::Request| {
        let server = server.clone();
        async move { server.handle(request).await }
    })
}
