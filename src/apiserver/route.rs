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

/// `/apis/<group>/<version>[/namespaces/<namespace>]/<resource>[/<name>[/<subresource>]]`; behind `proxy` any path follows.
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
    /// What follows `proxy`, as it was sent: empty, or a path that begins with a slash.
    pub rest: String,
}

impl Route {
    /// `watch` says whether the query asks to watch.
    pub fn parse(method: &Method, path: &str, watch: bool) -> Route {
        let whole = path;
        let (path, rest) = split_proxy(path);
        let segments: Option<Vec<String>> =
            path.trim_matches('/').split('/').map(|segment| decode(segment).filter(|s| !s.is_empty())).collect();
        let resource = segments.and_then(|segments| Resource::parse(method, segments, watch));
        match resource {
            Some(resource) => Route::Resource(Resource { rest: rest.to_owned(), ..resource }),
            None => {
                let verb = if method == Method::HEAD { "get".into() } else { method.as_str().to_lowercase() };
                Route::Path { verb, path: whole.to_owned() }
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
            // A WebSocket opens with GET what SPDY opens with POST, and both act.
            ("GET" | "POST", false) if out.opens_stream() => "create",
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

    /// Whether it is `pods/exec` or the like.
    pub fn opens_stream(&self) -> bool {
        let stream = matches!(self.subresource.as_str(), "exec" | "attach" | "portforward");
        stream && self.group.is_empty() && self.resource == "pods"
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

/// Parts `/api/v1[/namespaces/<namespace>]/<resource>/<name>/proxy` from what follows it.
fn split_proxy(path: &str) -> (&str, &str) {
    let below = |skipped: usize| {
        let mut slashes = path.match_indices('/').map(|(at, _)| at).skip(skipped);
        let from = slashes.next()?;
        let to = slashes.next().unwrap_or(path.len());
        (&path[from..to] == "/proxy").then(|| path.split_at(to))
    };
    let found = if path.starts_with("/api/v1/namespaces/") { below(6) } else { None };
    found.or_else(|| if path.starts_with("/api/v1/") { below(4) } else { None }).unwrap_or((path, ""))
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
            ("GET", "/api/v1/namespaces/a/pods/p/log/x", "path"),
            ("GET", "/api/v1/namespaces/a/pods/p/exec", "create /v1 a pods/exec p"),
            ("POST", "/api/v1/namespaces/a/pods/p/portforward", "create /v1 a pods/portforward p"),
            ("GET", "/apis/x/v1/namespaces/a/pods/p/exec", "get x/v1 a pods/exec p"),
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

    #[test]
    fn behind_a_proxy_any_path_follows() {
        for (method, path, want) in [
            ("GET", "/api/v1/namespaces/a/pods/p/proxy", "get a pods/proxy p "),
            ("GET", "/api/v1/namespaces/a/pods/p/proxy/", "get a pods/proxy p /"),
            (
                "PATCH",
                "/api/v1/namespaces/a/services/https:s:web/proxy/x//y%2Fz/",
                "patch a services/proxy https:s:web /x//y%2Fz/",
            ),
            ("OPTIONS", "/api/v1/namespaces/a/pods/p:80/proxy/proxy", "unknown a pods/proxy p:80 /proxy"),
            ("GET", "/api/v1/nodes/n/proxy/metrics", "get  nodes/proxy n /metrics"),
            ("GET", "/api/v1/namespaces/proxy/pods", "list proxy pods  "),
            ("GET", "/api/v1/namespaces/a/pods/proxy", "get a pods proxy "),
        ] {
            let Route::Resource(r) = Route::parse(&method.parse().unwrap_or_default(), path, false) else {
                panic!("{path}")
            };
            assert_eq!(
                format!("{} {} {} {} {}", r.verb, r.namespace, r.path(), r.name, r.rest),
                want,
                "{method} {path}"
            );
        }
    }
}
