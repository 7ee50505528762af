//! The verbs, generic over the table of kinds: which function answers which method on which part of an object.

mod collection;
mod create;
mod delete;
mod get;
mod list;
mod log;
mod pods;
mod proxy;
mod streams;
mod target;
mod token;
mod update;
mod usage;

pub use usage::usage;

use axum::body::Body;
use axum::response::Response;
use http::request::Parts;

use crate::server::Call;
use crate::status::{Failure, Result};
use crate::watch;

/// Finds the function of one request. `parts` lack the headers, which are the call's.
pub async fn dispatch(call: Call, parts: Parts, body: Body) -> Result<Response> {
    let resource = &call.resource;
    if !call.kind.namespaced && !resource.namespace.is_empty() {
        return Err(Failure::no_such_path());
    }
    let named = !resource.name.is_empty();
    let placed = !call.kind.namespaced || !resource.namespace.is_empty();
    if named && !placed {
        return Err(Failure::no_such_path());
    }
    let verb = resource.verb;
    match resource.subresource.as_str() {
        "" => match (verb, named) {
            ("list", false) => list::list(&call).await,
            ("watch", false) => watch::watch(call).await,
            ("get", true) => get::get(&call).await,
            ("create", false) if placed => create::create(&call, body).await,
            ("update" | "patch", true) => update::write(&call, body).await,
            ("delete", true) => delete::delete(&call, body).await,
            ("deletecollection", false) if placed && call.kind.deletes_collections() => {
                collection::delete(call, body).await
            }
            _ => Err(Failure::method_not_allowed()),
        },
        "status" if call.kind.status => part(&call, body).await,
        "scale" if call.kind.scale => part(&call, body).await,
        sub if call.kind.subresources.iter().any(|row| row.name == sub) => match (call.kind.plural, sub, verb) {
            ("pods", "log", "get") => log::log(&call).await,
            ("pods", "exec" | "attach", "create") => streams::remote(&call, parts).await,
            ("pods", "portforward", "create") => streams::forward(&call, parts).await,
            ("pods" | "services", "proxy", _) => proxy::proxy(&call, parts, body).await,
            ("pods", "binding", "create") => pods::bind(&call, body).await,
            ("pods", "eviction", "create") => pods::evict(&call, body).await,
            ("serviceaccounts", "token", "create") => token::issue(&call, body).await,
            ("namespaces", "finalize", "update") => update::write(&call, body).await,
            ("certificatesigningrequests", "approval", _) => part(&call, body).await,
            _ => Err(Failure::method_not_allowed()),
        },
        _ => Err(Failure::no_such_path()),
    }
}

/// `status` and `scale` of an object.
async fn part(call: &Call, body: Body) -> Result<Response> {
    match call.resource.verb {
        "get" => get::get(call).await,
        "update" | "patch" => update::write(call, body).await,
        _ => Err(Failure::method_not_allowed()),
    }
}
