//! OpenAPI v3: per kind its schema, which `kubectl explain` shows, and its operations, of which kubectl needs a `patch` that names
//! the kind and the `fieldValidation` parameter.
//!
//! A document is written when it is asked for first: they are large, and most are never asked for.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use objects::Kinds;
use objects::schemas::Of;
use serde_json::{Map, Value, json};

use crate::discovery::{etag, hash};
use crate::query::Query;
use crate::served::{self, Served};
use crate::status::{Failure, Result};

const PATCH_MEDIA: &[&str] = &[
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// The index and one document per group and version.
pub struct OpenApi {
    index: Bytes,
    /// By `api/v1`, `apis/apps/v1`.
    documents: BTreeMap<String, Document>,
}

struct Document {
    served: Vec<Served>,
    body: OnceLock<Bytes>,
}

impl Document {
    fn body(&self) -> &Bytes {
        self.body.get_or_init(|| document(&self.served).to_string().into())
    }
}

impl OpenApi {
    /// `build` names the program: another one's documents have other addresses.
    pub fn new(kinds: &'static Kinds, build: &str) -> Self {
        let mut groups: BTreeMap<String, Vec<Served>> = BTreeMap::new();
        for row in served::all(kinds) {
            groups.entry(row.root()).or_default().push(row);
        }
        let paths: Map<String, Value> = groups
            .keys()
            .map(|root| {
                let url = format!("/openapi/v3/{root}?hash={:016X}", hash(format!("{build} {root}").as_bytes()));
                (root.clone(), json!({"serverRelativeURL": url}))
            })
            .collect();
        let documents =
            groups.into_iter().map(|(root, served)| (root, Document { served, body: OnceLock::new() })).collect();
        Self { index: Bytes::from(json!({"paths": paths}).to_string()), documents }
    }

    /// The answer, if the path is one of OpenAPI's that is served; `/openapi/v2` is not.
    pub fn answer(&self, path: &str, query: &Query, headers: &HeaderMap) -> Option<Result<Response>> {
        let rest = path.strip_prefix("/openapi/v3")?;
        let body = match rest.trim_matches('/') {
            "" => &self.index,
            root => self.documents.get(root)?.body(),
        };
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
        if !accept.contains("application/json") && !accept.contains("*/*") {
            return Some(Err(Failure::not_acceptable("application/json")));
        }
        Some(Ok(send(body, query.has("hash"), headers)))
    }
}

fn send(body: &Bytes, hashed: bool, headers: &HeaderMap) -> Response {
    let tag = etag(body);
    let same = headers.get(header::IF_NONE_MATCH).is_some_and(|given| *given == tag);
    let mut response = Response::new(if same { Body::empty() } else { Body::from(body.clone()) });
    if same {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let out = response.headers_mut();
    out.insert(header::ETAG, tag);
    out.insert(header::VARY, HeaderValue::from_static("Accept"));
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // A hashed address names these bytes for ever.
    let cache = if hashed { "public, immutable" } else { "no-cache, private" };
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    response
}

fn document(rows: &[Served]) -> Value {
    let mut paths = Map::new();
    for row in rows {
        let place = if row.namespaced { "namespaces/{namespace}/" } else { "" };
        let collection = format!("/{}/{place}{}", row.root(), row.plural);
        let object = format!("{collection}/{{name}}");
        let operations = |actions: &[(&str, &str)]| -> Map<String, Value> {
            let there = actions.iter().filter(|(verb, _)| row.has(verb));
            there.map(|(_, action)| (method(action).to_owned(), operation(row.schema, action))).collect()
        };
        for (path, actions) in [
            (collection, &[("list", "list"), ("create", "post")][..]),
            (object.clone(), &[("get", "get"), ("update", "put"), ("patch", "patch"), ("delete", "delete")]),
        ] {
            let operations = operations(actions);
            if !operations.is_empty() {
                paths.insert(path, operations.into());
            }
        }
        if row.has_status() {
            paths.insert(format!("{object}/status"), json!({"patch": operation(row.schema, "patch")}));
        }
    }
    let here = |of: &Of| rows.first().is_some_and(|row| (row.group, row.version) == (of.place().0, of.place().1));
    let schemas = rows.iter().map(|row| row.schema).chain(served::bodies().into_iter().filter(here));
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": format!("v{}.{}.0", crate::health::MAJOR, crate::health::MINOR)},
        "paths": paths,
        "components": {"schemas": objects::schemas::schemas(schemas)},
    })
}

fn method(action: &str) -> &str {
    if action == "list" { "get" } else { action }
}

fn operation(of: Of, action: &str) -> Value {
    let (group, version, kind) = of.place();
    let mut out = json!({
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
        "responses": {"200": {"description": "OK"}},
    });
    if matches!(action, "post" | "put" | "patch") {
        let parameter =
            |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
        out["parameters"] = ["dryRun", "fieldManager", "fieldValidation"].into_iter().map(parameter).collect();
    }
    if action == "patch" {
        let content: Map<String, Value> =
            PATCH_MEDIA.iter().map(|media| ((*media).to_owned(), json!({"schema": {"type": "object"}}))).collect();
        out["requestBody"] = json!({"content": content, "required": true});
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_can_be_patched_with_field_validation() {
        let openapi = OpenApi::new(Kinds::builtin(), "1");
        for row in served::all(Kinds::builtin()) {
            let document: Value = serde_json::from_slice(openapi.documents[&row.root()].body()).unwrap_or_default();
            let wanted = if row.has("patch") { "patch" } else { "post" };
            let found = document["paths"].as_object().into_iter().flatten().any(|(_, path)| {
                let operation = &path[wanted];
                operation["x-kubernetes-group-version-kind"]["kind"] == row.kind
                    && operation["parameters"]
                        .as_array()
                        .is_some_and(|all| all.iter().any(|p| p["name"] == "fieldValidation"))
            });
            assert!(found, "{:?}", row.schema);
        }
    }
}
