//! DELETE of a collection: the matching objects, each as by a DELETE of its own.

use axum::body::Body;
use axum::response::Response;
use futures::{StreamExt, stream};
use http::StatusCode;
use serde_json::json;

use super::delete::{self, DeleteOptions};
use super::list;
use crate::body;
use crate::query::ListOptions;
use crate::server::Call;
use crate::status::Result;

/// Deletions under way at once.
const PARALLEL: usize = 16;

pub async fn delete(call: Call, body: Body) -> Result<Response> {
    let bytes = body::read(&call, body).await?;
    let options = DeleteOptions::parse(&call.query, body::optional(&call.headers, &bytes)?.as_ref())?;
    let page = list::page(&call, &ListOptions::parse(&call, false)?).await?;
    let keys: Vec<_> = page
        .records
        .iter()
        .map(|record| {
            let field = |name: &str| record.header.fields.get(name).unwrap_or("");
            control::record::key(call.kind, field("metadata.namespace"), field("metadata.name"))
        })
        .collect();
    let call_ref = &call;
    let options_ref = &options;
    let results: Vec<_> = stream::iter(keys)
        .map(|key| async move { delete::remove(call_ref, &key, options_ref).await })
        .buffer_unordered(PARALLEL)
        .collect()
        .await;
    for result in results {
        match result {
            // Somebody else was faster: it is gone, which is what was asked for.
            Err(failure) if failure.code == 404 => {}
            result => drop(result?),
        }
    }
    let details = json!({"group": call.kind.group, "kind": call.kind.plural});
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
    call.plain(Vec::new())?.json(StatusCode::OK, body.to_string().into_bytes())
}
