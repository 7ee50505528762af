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
use objects::{Kind, Kinds};
use serde_json::{Map, Value, json};

use crate::discovery::{etag, hash};
use crate::query::Query;
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
    kinds: Vec<&'static Kind>,
    body: OnceLock<Bytes>,
}

impl Document {
    fn body(&self) -> &Bytes {
        self.body.get_or_init(|| document(&self.kinds).to_string().into())
    }
}

impl OpenApi {
    /// `build` names the program: another one's documents have other addresses.
    pub fn new(kinds: &'static Kinds, build: &str) -> Self {
        let mut groups: BTreeMap<String, Vec<&'static Kind>> = BTreeMap::new();
        for kind in kinds.all() {
            groups.entry(root_of(kind)).or_default().push(kind);
        }
        let paths: Map<String, Value> = groups
            .keys()
            .map(|root| {
                let url = format!("/openapi/v3/{root}?hash={:016X}", hash(format!("{build} {root}").as_bytes()));
                (root.clone(), json!({"serverRelativeURL": url}))
            })
            .collect();
        let documents =
            groups.into_iter().map(|(root, kinds)| (root, Document { kinds, body: OnceLock::new() })).collect();
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

fn root_of(kind: &Kind) -> String {
    if kind.group.is_empty() {
        format!("api/{}", kind.version)
    } else {
        format!("apis/{}/{}", kind.group, kind.version)
    }
}

fn document(kinds: &[&Kind]) -> Value {
    let mut paths = Map::new();
    for kind in kinds {
        let place = if kind.namespaced { "namespaces/{namespace}/" } else { "" };
        let collection = format!("/{}/{place}{}", root_of(kind), kind.plural);
        let object = format!("{collection}/{{name}}");
        paths.insert(collection, json!({"get": operation(kind, "list"), "post": operation(kind, "post")}));
        let whole = json!({
            "get": operation(kind, "get"),
            "put": operation(kind, "put"),
            "patch": operation(kind, "patch"),
            "delete": operation(kind, "delete"),
        });
        paths.insert(object.clone(), whole);
        if kind.status {
            paths.insert(format!("{object}/status"), json!({"patch": operation(kind, "patch")}));
        }
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": format!("v{}.{}.0", crate::health::MAJOR, crate::health::MINOR)},
        "paths": paths,
        "components": {"schemas": objects::schemas::schemas(kinds.iter().copied())},
    })
}

fn operation(kind: &Kind, action: &str) -> Value {
    let mut out = json!({
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
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
        for kind in Kinds::builtin().all() {
            let document: Value = serde_json::from_slice(openapi.documents[&root_of(kind)].body()).unwrap_or_default();
            let found = document["paths"].as_object().into_iter().flatten().any(|(_, path)| {
                let patch = &path["patch"];
                patch["x-kubernetes-group-version-kind"]["kind"] == kind.kind
                    && patch["parameters"]
                        .as_array()
                        .is_some_and(|all| all.iter().any(|p| p["name"] == "fieldValidation"))
            });
            assert!(found, "{kind:?}");
        }
    }
}
