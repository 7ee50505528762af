//! What a request asks for, from its method and path alone: the resource path and its verb, or a path of no resource.
//!
//! Nothing is looked up here, so that authorization can come before any answer about what exists.

use http::Method;

/// A parsed request line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    Resource(Resource),
    /// `/api`, `/apis`, `/apis/<group>`, `/api/v1`, `/openapi/…`, `/version`, health, metrics, and whatever is unknown.
    Path {
        verb: String,
        path: String,
    },
}

/// `/apis/<group>/<version>[/namespaces/<namespace>]/<resource>[/<name>[/<subresource>]]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, or the lower-case method.
    pub verb: &'static str,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub name: String,
    pub subresource: String,
}

impl Route {
    /// `watch` says whether the query asks to watch.
    pub fn parse(method: &Method, path: &str, watch: bool) -> Route {
        let segments: Option<Vec<String>> =
            path.trim_matches('/').split('/').map(|segment| decode(segment).filter(|s| !s.is_empty())).collect();
        let resource = segments.and_then(|segments| Resource::parse(method, segments, watch));
        match resource {
            Some(resource) => Route::Resource(resource),
            None => {
                let verb = if method == Method::HEAD { "get".into() } else { method.as_str().to_lowercase() };
                Route::Path { verb, path: path.to_owned() }
            }
        }
    }
}

impl Resource {
    fn parse(method: &Method, segments: Vec<String>, watch: bool) -> Option<Self> {
        let mut segments = segments.into_iter();
        let mut out = Resource::default();
        match segments.next()?.as_str() {
            "api" => out.version = segments.next()?,
            "apis" => {
                out.group = segments.next()?;
                out.version = segments.next()?;
            }
            _ => return None,
        }
        let mut rest: Vec<String> = segments.collect();
        // `/namespaces/<name>/status` is the Namespace; `/namespaces/<namespace>/pods` is not.
        let below_namespace = rest.len() > 2
            && rest[0] == "namespaces"
            && !(out.group.is_empty() && rest.len() == 3 && ["status", "finalize"].contains(&rest[2].as_str()));
        if below_namespace {
            out.namespace = rest.remove(1);
            rest.remove(0);
        }
        if rest.len() > 3 {
            return None;
        }
        let mut rest = rest.into_iter();
        out.resource = rest.next()?;
        out.name = rest.next().unwrap_or_default();
        out.subresource = rest.next().unwrap_or_default();
        out.verb = match (method.as_str(), out.name.is_empty()) {
            ("GET" | "HEAD", true) if watch => "watch",
            ("GET" | "HEAD", true) => "list",
            ("GET" | "HEAD", false) => "get",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", true) => "deletecollection",
            ("DELETE", false) => "delete",
            _ => "unknown",
        };
        Some(out)
    }

    /// `pods/log`, as discovery, metrics and refusals write it.
    pub fn path(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }
}

/// Undoes percent-encoding; `None` where the result is no UTF-8.
pub fn decode(segment: &str) -> Option<String> {
    if !segment.contains('%') {
        return Some(segment.to_owned());
    }
    let bytes = segment.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            let hex = segment.get(at + 1..at + 3)?;
            out.push(u8::from_str_radix(hex, 16).ok()?);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_verbs() {
        for (method, path, want) in [
            ("GET", "/api/v1/namespaces/a/pods", "list /v1 a pods "),
            ("GET", "/api/v1/pods", "list /v1  pods "),
            ("POST", "/apis/apps/v1/namespaces/a/deployments", "create apps/v1 a deployments "),
            ("PATCH", "/apis/apps/v1/namespaces/a/deployments/w/scale", "patch apps/v1 a deployments/scale w"),
            ("GET", "/api/v1/namespaces", "list /v1  namespaces "),
            ("GET", "/api/v1/namespaces/a", "get /v1  namespaces a"),
            ("PUT", "/api/v1/namespaces/a/finalize", "update /v1  namespaces/finalize a"),
            ("PATCH", "/api/v1/namespaces/a/status", "patch /v1  namespaces/status a"),
            ("DELETE", "/api/v1/nodes", "deletecollection /v1  nodes "),
            ("DELETE", "/api/v1/nodes/n%2d1", "delete /v1  nodes n-1"),
            ("GET", "/api/v1/namespaces/a/pods/p/log", "get /v1 a pods/log p"),
            ("GET", "/api/v1", "path"),
            ("GET", "/apis/apps", "path"),
            ("GET", "/apis/apps/v1", "path"),
            ("GET", "/healthz", "path"),
            ("GET", "/api/v1/namespaces/a/pods/p/proxy/x/y", "path"),
        ] {
            let got = match Route::parse(&method.parse().unwrap_or_default(), path, false) {
                Route::Path { .. } => "path".to_owned(),
                Route::Resource(r) => {
                    format!("{} {}/{} {} {} {}", r.verb, r.group, r.version, r.namespace, r.path(), r.name)
                }
            };
            assert_eq!(got, want, "{method} {path}");
        }
    }
}
