//! Discovery: what is served, in the aggregated form (v2, v2beta1) and the legacy one, all from the table of what is served.
//!
//! The form is chosen by `Accept`, and clients tell it by the Content-Type of the answer, not by the body. Everything is
//! written once at start; `ETag` saves the rest.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use objects::Kinds;
use serde_json::{Value, json};

use crate::served::{self, Served};
use crate::status::{Failure, Result};
use crate::usage;

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

/// One group and its versions, the preferred one first.
struct Group {
    name: &'static str,
    versions: Vec<&'static str>,
}

fn groups(served: &[Served]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for Served { group, version, .. } in served {
        match groups.iter_mut().find(|known| known.name == *group) {
            None => groups.push(Group { name: group, versions: vec![version] }),
            Some(known) if !known.versions.contains(version) => known.versions.push(version),
            Some(_) => {}
        }
    }
    groups
}

impl Discovery {
    pub fn new(kinds: &'static Kinds) -> Self {
        let served = served::all(kinds);
        let all = groups(&served);
        let (core, groups): (Vec<&Group>, Vec<&Group>) = all.iter().partition(|group| group.name.is_empty());
        let mut legacy = BTreeMap::new();
        let mut put = |path: String, value: &Value| legacy.insert(path, Document::new(value, "application/json"));
        put(
            "/api".into(),
            &json!({
                "kind": "APIVersions", "versions": ["v1"],
                "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}],
            }),
        );
        let entries: Vec<Value> = groups.iter().map(|group| group_entry(group)).collect();
        let every: Vec<Value> = entries.iter().cloned().chain([usage::group_entry()]).collect();
        put("/apis".into(), &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": every}));
        for (group, entry) in groups.iter().zip(&entries) {
            let mut entry = entry.clone();
            entry["kind"] = "APIGroup".into();
            entry["apiVersion"] = "v1".into();
            put(format!("/apis/{}", group.name), &entry);
        }
        for group in &all {
            for version in &group.versions {
                put(format!("/{}", served::root(group.name, version)), &resource_list(&served, group.name, version));
            }
        }
        put(format!("/apis/{}", usage::GROUP), &usage::group());
        put(format!("/apis/{}/{}", usage::GROUP, usage::VERSION), &usage::resource_list());
        let mut aggregated = BTreeMap::new();
        for (version, media) in [("v2", V2), ("v2beta1", V2BETA1)] {
            for (path, groups) in [("/api", &core), ("/apis", &groups)] {
                let mut items: Vec<Value> = groups.iter().map(|group| aggregated_group(&served, group)).collect();
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

fn at<'a>(served: &'a [Served], group: &'a str, version: &'a str) -> impl Iterator<Item = &'a Served> {
    served.iter().filter(move |row| row.group == group && row.version == version)
}

fn group_entry(group: &Group) -> Value {
    let entry = |version: &str| json!({"groupVersion": format!("{}/{version}", group.name), "version": version});
    let versions: Vec<Value> = group.versions.iter().map(|version| entry(version)).collect();
    json!({"name": group.name, "preferredVersion": versions[0], "versions": versions})
}

fn resource_list(served: &[Served], group: &str, version: &str) -> Value {
    let mut resources = Vec::new();
    for row in at(served, group, version) {
        let mut out = json!({
            "name": row.plural, "singularName": row.singular, "namespaced": row.namespaced,
            "kind": row.kind, "verbs": row.verbs,
        });
        if !row.short_names.is_empty() {
            out["shortNames"] = json!(row.short_names);
        }
        if !row.categories.is_empty() {
            out["categories"] = json!(row.categories);
        }
        if !row.storage.is_empty() {
            out["storageVersionHash"] = storage_hash(&row.storage).into();
        }
        resources.push(out);
        for sub in &row.subresources {
            let mut out = json!({
                "name": format!("{}/{}", row.plural, sub.name), "singularName": "", "namespaced": row.namespaced,
                "kind": sub.kind, "verbs": sub.verbs,
            });
            if (sub.group, sub.version) != (row.group, row.version) {
                out["group"] = sub.group.into();
                out["version"] = sub.version.into();
            }
            resources.push(out);
        }
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources})
}

/// Tells clients when a resource moves to another storage version.
fn storage_hash(storage: &str) -> String {
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, hash(storage.as_bytes()).to_be_bytes())
}

fn aggregated_group(served: &[Served], group: &Group) -> Value {
    let metadata = if group.name.is_empty() { json!({}) } else { json!({"name": group.name}) };
    let versions: Vec<Value> = group
        .versions
        .iter()
        .map(|version| {
            let resources: Vec<Value> = at(served, group.name, version).map(aggregated_resource).collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        })
        .collect();
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(row: &Served) -> Value {
    let response = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let subs: Vec<Value> = row
        .subresources
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
        "resource": row.plural,
        "responseKind": response(row.group, row.version, row.kind),
        "scope": if row.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": row.singular,
        "verbs": row.verbs,
    });
    for (field, names) in [("shortNames", row.short_names), ("categories", row.categories)] {
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
