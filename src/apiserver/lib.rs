//! The Kubernetes HTTP contract over a replica: routing, content types, discovery, OpenAPI, verbs, watch.
//!
//! [`service`] gives a router that answers as an API server of Kubernetes v1.36. It expects whom the client's certificate
//! names as the request extension [`control::authz::User`]; who terminated TLS and how is not its business. Without one it
//! looks for the token of a ServiceAccount. It knows no Raft, no Docker and no session: the store is a [`replica::Replica`],
//! what reaches into a node is a [`Streams`], and what nodes use tells a [`Usages`].
//!
//! ```text
//! request ─ route ─ authn ─ authorize ─┬─ path: health, discovery, OpenAPI
//!                                      ├─ reviews: who may do what, who is whose
//!                                      └─ verbs ─┬─ get, list, watch: bytes of records, copied
//!                                                ├─ exec, attach, portforward: another protocol on the connection (streams)
//!                                                └─ decode, default, mutate, default, validate, propose (write.rs)
//! ```
//!
//! **Invariant:** verbs are generic over the table of kinds; there is no handler per kind.

mod audit;
mod authn;
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
mod reviews;
mod route;
mod rows;
mod served;
mod server;
mod shape;
mod spdy;
mod status;
mod streams;
mod usage;
mod verbs;
mod watch;
mod write;
pub mod yaml;

use std::sync::Arc;

pub use config::{Audit, Check, Config, Health, LogOptions, LogStream, PodRef, StreamError, Streams, TokenKeys};
pub use limits::{Full, Limits, Pool, Seat, until_sent};
pub use link::{Asked, Input, Inputs, Link, Output, Outputs, Session, Stdio};
pub use respond::Finite;
pub use streams::Connection;
pub use usage::{NodeUsage, PodUsage, UsageQuery, Usages, Used};

/// The whole API as one router. A request without the extension `control::authz::User` and without a token is anonymous.
pub fn service(config: Config) -> axum::Router {
    let server = Arc::new(server::Server::new(config));
    axum::Router::new().fallback(move |request: axum::extract::Request| {
        let server = server.clone();
        async move { server.handle(request).await }
    })
}
