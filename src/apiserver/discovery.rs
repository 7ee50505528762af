//! Discovery: what is served, in the aggregated form (v2, v2beta1) and the legacy one, all from the table of kinds.
//!
//! The form is chosen by `Accept`, and clients tell it by the Content-Type of the answer, not by the body. Everything is
//! written once at start; `ETag` saves the rest.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use objects::{Kind, Kinds};
use serde_json::{Value, json};

use crate::status::{Failure, Result};
use crate::usage;

const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const DELETE_COLLECTION: &str = "deletecollection";
const PART_VERBS: &[&str] = &["get", "patch", "update"];
const V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const V2BETA1: &str = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

/// One document, ready to send.
struct Document {
    body: Bytes,
    etag: HeaderValue,
    media: &'static str,
}

impl Document {
    fn new(value: &Value, media: &'static str) -> Self {
        let body = Bytes::from(value.to_string());
        Self { etag: etag(&body), body, media }
    }

    fn answer(&self, headers: &HeaderMap) -> Response {
        let same = headers.get(header::IF_NONE_MATCH).is_some_and(|tag| *tag == self.etag);
        let mut response = Response::new(if same { Body::empty() } else { Body::from(self.body.clone()) });
        if same {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let out = response.headers_mut();
        out.insert(header::ETAG, self.etag.clone());
        out.insert(header::VARY, HeaderValue::from_static("Accept"));
        out.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
        out.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.media));
        response
    }
}

/// A strong tag of the bytes; equal on every master of one version.
pub fn etag(body: &[u8]) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{:016X}\"", hash(body))).unwrap_or_else(|_| HeaderValue::from_static("\"0\""))
}

pub fn hash(body: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    hasher.finish()
}

/// All documents by path: legacy ones, and the aggregated ones of `/api` and `/apis`.
pub struct Discovery {
    legacy: BTreeMap<String, Document>,
    aggregated: BTreeMap<(&'static str, &'static str), Document>,
}

impl Discovery {
    pub fn new(kinds: &Kinds) -> Self {
        let mut groups: Vec<&'static str> = Vec::new();
        for kind in kinds.all() {
            if !kind.group.is_empty() && !groups.contains(&kind.group) {
                groups.push(kind.group);
            }
        }
        let mut legacy = BTreeMap::new();
        let mut put = |path: String, value: &Value| legacy.insert(path, Document::new(value, "application/json"));
        put(
            "/api".into(),
            &json!({
                "kind": "APIVersions", "versions": ["v1"],
                "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}],
            }),
        );
        put("/api/v1".into(), &resource_list(kinds, ""));
        let entries: Vec<Value> = groups.iter().map(|group| group_entry(kinds, group)).collect();
        let all: Vec<Value> = entries.iter().cloned().chain([usage::group_entry()]).collect();
        put("/apis".into(), &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": all}));
        for (group, entry) in groups.iter().zip(&entries) {
            let mut entry = entry.clone();
            entry["kind"] = "APIGroup".into();
            entry["apiVersion"] = "v1".into();
            put(format!("/apis/{group}"), &entry);
            put(format!("/apis/{group}/{}", version_of(kinds, group)), &resource_list(kinds, group));
        }
        put(format!("/apis/{}", usage::GROUP), &usage::group());
        put(format!("/apis/{}/{}", usage::GROUP, usage::VERSION), &usage::resource_list());
        let mut aggregated = BTreeMap::new();
        for (version, media) in [("v2", V2), ("v2beta1", V2BETA1)] {
            for (path, groups) in [("/api", &[""][..]), ("/apis", &groups)] {
                let mut items: Vec<Value> = groups.iter().map(|group| aggregated_group(kinds, group)).collect();
                if path == "/apis" {
                    items.push(usage::aggregated_group());
                }
                let list = json!({
                    "kind": "APIGroupDiscoveryList",
                    "apiVersion": format!("apidiscovery.k8s.io/{version}"),
                    "metadata": {},
                    "items": items,
                });
                aggregated.insert((version, path), Document::new(&list, media));
            }
        }
        Self { legacy, aggregated }
    }

    /// The answer, if the path is one of discovery's.
    pub fn answer(&self, path: &str, headers: &HeaderMap) -> Option<Result<Response>> {
        let path = path.trim_end_matches('/');
        let legacy = self.legacy.get(path)?;
        for form in forms(headers) {
            match form {
                Some(version) => {
                    let found = self.aggregated.iter().find(|((v, p), _)| *v == version && *p == path);
                    if let Some((_, document)) = found {
                        return Some(Ok(document.answer(headers)));
                    }
                }
                None => return Some(Ok(legacy.answer(headers))),
            }
        }
        Some(Err(Failure::not_acceptable("application/json")))
    }
}

/// The forms a client takes, in its order: an aggregated version, or the legacy form.
fn forms(headers: &HeaderMap) -> Vec<Option<&'static str>> {
    let accepts: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    if accepts.is_empty() {
        return vec![None];
    }
    accepts
        .iter()
        .flat_map(|accept| accept.split(','))
        .filter_map(|clause| {
            let mut parts = clause.split(';').map(str::trim);
            let media = parts.next()?;
            if !matches!(media, "application/json" | "application/*" | "*/*") {
                return None;
            }
            let parameters: Vec<&str> = parts.collect();
            if !parameters.iter().any(|p| p.starts_with("as=") || p.starts_with("g=")) {
                return Some(None);
            }
            let aggregated =
                parameters.contains(&"g=apidiscovery.k8s.io") && parameters.contains(&"as=APIGroupDiscoveryList");
            // A client that asks for `profile=nopeer` is content without: there are no peers to leave out.
            match parameters.iter().find_map(|p| p.strip_prefix("v=")) {
                Some("v2") if aggregated => Some(Some("v2")),
                Some("v2beta1") if aggregated => Some(Some("v2beta1")),
                _ => None,
            }
        })
        .collect()
}

fn of_group<'a>(kinds: &'a Kinds, group: &'a str) -> impl Iterator<Item = &'a Kind> {
    kinds.all().filter(move |kind| kind.group == group)
}

fn version_of(kinds: &Kinds, group: &str) -> &'static str {
    of_group(kinds, group).next().map_or("v1", |kind| kind.version)
}

fn group_entry(kinds: &Kinds, group: &str) -> Value {
    let version = version_of(kinds, group);
    let entry = json!({"groupVersion": format!("{group}/{version}"), "version": version});
    json!({"name": group, "versions": [entry], "preferredVersion": entry})
}

/// A subresource as both forms show it.
struct Sub {
    name: &'static str,
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    verbs: &'static [&'static str],
}

fn subresources(kind: &Kind) -> Vec<Sub> {
    let mut out: Vec<Sub> = kind
        .subresources
        .iter()
        .map(|sub| Sub { name: sub.name, group: sub.group, version: sub.version, kind: sub.kind, verbs: sub.verbs })
        .collect();
    if kind.scale {
        out.push(Sub { name: "scale", group: "autoscaling", version: "v1", kind: "Scale", verbs: PART_VERBS });
    }
    if kind.status {
        out.push(Sub { name: "status", group: kind.group, version: kind.version, kind: kind.kind, verbs: PART_VERBS });
    }
    out.sort_by_key(|sub| sub.name);
    out
}

fn verbs(kind: &Kind) -> Vec<&'static str> {
    VERBS.iter().copied().filter(|verb| *verb != DELETE_COLLECTION || kind.deletes_collections()).collect()
}

fn resource_list(kinds: &Kinds, group: &str) -> Value {
    let mut resources = Vec::new();
    for kind in of_group(kinds, group) {
        let mut row = json!({
            "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced,
            "kind": kind.kind, "verbs": verbs(kind),
        });
        if !kind.short_names.is_empty() {
            row["shortNames"] = json!(kind.short_names);
        }
        if !kind.categories.is_empty() {
            row["categories"] = json!(kind.categories);
        }
        row["storageVersionHash"] = storage_hash(kind).into();
        resources.push(row);
        for sub in subresources(kind) {
            let mut row = json!({
                "name": format!("{}/{}", kind.plural, sub.name), "singularName": "", "namespaced": kind.namespaced,
                "kind": sub.kind, "verbs": sub.verbs,
            });
            if (sub.group, sub.version) != (kind.group, kind.version) {
                row["group"] = sub.group.into();
                row["version"] = sub.version.into();
            }
            resources.push(row);
        }
    }
    let version = version_of(kinds, group);
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources})
}

/// Tells clients when a resource moves to another storage version.
fn storage_hash(kind: &Kind) -> String {
    let hash = hash(format!("{}/{}/{}", kind.group, kind.version, kind.kind).as_bytes());
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, hash.to_be_bytes())
}

fn aggregated_group(kinds: &Kinds, group: &str) -> Value {
    let resources: Vec<Value> = of_group(kinds, group).map(aggregated_resource).collect();
    let metadata = if group.is_empty() { json!({}) } else { json!({"name": group}) };
    let version = json!({"version": version_of(kinds, group), "resources": resources, "freshness": "Current"});
    json!({"metadata": metadata, "versions": [version]})
}

fn aggregated_resource(kind: &Kind) -> Value {
    let response = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let subs: Vec<Value> = subresources(kind)
        .iter()
        .map(|sub| {
            json!({
                "subresource": sub.name,
                "responseKind": response(sub.group, sub.version, sub.kind),
                "verbs": sub.verbs,
            })
        })
        .collect();
    let mut out = json!({
        "resource": kind.plural,
        "responseKind": response(kind.group, kind.version, kind.kind),
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": verbs(kind),
    });
    for (field, names) in [("shortNames", kind.short_names), ("categories", kind.categories)] {
        if !names.is_empty() {
            out[field] = json!(names);
        }
    }
    if !subs.is_empty() {
        out["subresources"] = subs.into();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_follows_the_accept_header() {
        let discovery = Discovery::new(Kinds::builtin());
        let both = format!("{V2},{V2BETA1},application/json");
        let peer =
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList;profile=nopeer,application/json";
        for (path, accept, want) in [
            ("/api", both.as_str(), Some(V2)),
            ("/apis", peer, Some(V2)),
            ("/apis", V2BETA1, Some(V2BETA1)),
            ("/apis", "application/json", Some("application/json")),
            ("/apis", "*/*", Some("application/json")),
            ("/apis/apps/v1", V2, None),
            ("/apis/apps/v1", "application/json, */*", Some("application/json")),
            ("/api/v1", both.as_str(), Some("application/json")),
        ] {
            let mut headers = HeaderMap::new();
            headers
                .insert(header::ACCEPT, HeaderValue::from_str(accept).unwrap_or_else(|_| HeaderValue::from_static("")));
            let got = discovery.answer(path, &headers).and_then(Result::ok);
            let media = got.as_ref().and_then(|r| r.headers().get(header::CONTENT_TYPE)).and_then(|v| v.to_str().ok());
            assert_eq!(media, want, "{path} {accept}");
            if let Some(tag) = got.and_then(|r| r.headers().get(header::ETAG).cloned()) {
                headers.insert(header::IF_NONE_MATCH, tag);
                let again = discovery.answer(path, &headers).and_then(Result::ok).map(|r| r.status());
                assert_eq!(again, Some(StatusCode::NOT_MODIFIED), "{path} {accept}");
            }
        }
        assert!(discovery.answer("/apis/nothing", &HeaderMap::new()).is_none());
    }
}
