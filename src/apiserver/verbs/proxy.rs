//! `pods/proxy` and `services/proxy`: any HTTP request, carried to a port of a pod through a link to its node.
//!
//! Not here: `https:` and upgrades behind the proxy, which are refused; nothing is rewritten in what comes back.
//!
//! **Invariant:** what proves to this server who the user is goes no further.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version, header};
use hyper_util::rt::TokioIo;
use objects::meta;
use serde_json::Value;

use super::target::Target;
use crate::config::{PodRef, StreamError};
use crate::link::{Asked, Session};
use crate::query;
use crate::read;
use crate::server::Call;
use crate::status::{Failure, Result};
use crate::streams::over_link;

/// What concerns one connection, and who the user is here.
const NOT_PASSED_ON: &[&str] = &[
    "authorization",
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
const IMPERSONATION: &str = "impersonate-";
/// The label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Where a pod says no port.
const PORT: u16 = 80;

/// `[https:]name[:port]`
#[derive(Debug, PartialEq, Eq)]
struct Name<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

impl<'a> Name<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => return None,
        };
        (matches!(scheme, "" | "http" | "https") && !name.is_empty()).then_some(Self { scheme, name, port })
    }
}

pub async fn proxy(call: &Call, parts: Parts, body: Body) -> Result<Response> {
    let resource = &call.resource;
    if resource.rest.is_empty() && matches!(parts.method, Method::GET | Method::HEAD) {
        return moved(&parts.uri);
    }
    if call.headers.contains_key(header::UPGRADE) {
        return Err(Failure::bad_request("this server passes no upgrades on through a proxy yet"));
    }
    let invalid = || Failure::bad_request(format!("invalid {} request {:?}", resource.resource, resource.name));
    let name = Name::parse(&resource.name).ok_or_else(invalid)?;
    if name.scheme == "https" {
        return Err(Failure::bad_request("this server speaks no HTTPS to pods yet: leave `https:` out"));
    }
    let (pod, port) = match resource.resource.as_str() {
        "pods" => pod(call, &name).await?,
        _ => service(call, &name).await?,
    };
    let asked =
        Asked { verb: resource.verb.to_owned(), resource: resource.resource.clone(), name: resource.name.clone() };
    let host = format!("{}:{port}", name.name);
    let request = outgoing(call, &parts, &host, body)?;
    let session = Session::Connect { port, asked: Some(asked) };
    let opened = call.server.config.streams.open(&call.user, pod, session).await;
    let io = TokioIo::new(over_link(opened.map_err(unreachable)?));
    let broken = |error: hyper::Error| Failure::no_answer(format!("error trying to reach service: {error}"));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(broken)?;
    // Ends with the answer's body, or with whoever reads it.
    tokio::spawn(connection);
    let mut response = sender.send_request(request).await.map_err(broken)?.map(Body::new);
    *response.version_mut() = Version::HTTP_11;
    strip(response.headers_mut());
    Ok(response)
}

fn unreachable(error: StreamError) -> Failure {
    match error {
        StreamError::Forbidden(why) => Failure::denied(why),
        other => Failure::no_answer(format!("error trying to reach service: {other}")),
    }
}

/// As Kubernetes does, so that relative links of a root page lead back here.
fn moved(uri: &Uri) -> Result<Response> {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let place = HeaderValue::from_str(&format!("{}/{query}", uri.path())).map_err(Failure::internal)?;
    Ok((StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, place)]).into_response())
}

fn outgoing(call: &Call, parts: &Parts, host: &str, body: Body) -> Result<Request<Body>> {
    let path = if call.resource.rest.is_empty() { "/" } else { &call.resource.rest };
    let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = format!("{path}{query}").parse().map_err(|_| Failure::bad_request("the path is no path"))?;
    let mut headers = call.headers.clone();
    strip(&mut headers);
    headers.insert(header::HOST, HeaderValue::from_str(host).map_err(Failure::internal)?);
    *request.headers_mut() = headers;
    Ok(request)
}

/// Takes out what is not passed on, and what `Connection` names beside it.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let gone = |name: &HeaderName| {
        NOT_PASSED_ON.contains(&name.as_str()) || name.as_str().starts_with(IMPERSONATION) || named.contains(name)
    };
    let gone: Vec<HeaderName> = headers.keys().filter(|name| gone(name)).cloned().collect();
    for name in gone {
        headers.remove(name);
    }
}

async fn pod(call: &Call, name: &Name<'_>) -> Result<(PodRef, u16)> {
    let target = Target::named(call, name.name).await?;
    let port = match name.port {
        "" => first_port(&target.object),
        text => {
            text.parse().map_err(|_| Failure::bad_request(format!("invalid port {text:?} of pod {}", name.name)))?
        }
    };
    Ok((target.pod, port))
}

fn first_port(pod: &Value) -> u16 {
    let containers = meta::list(pod, &["spec", "containers"]).iter();
    let mut ports = containers.flat_map(|container| meta::list(container, &["ports"]));
    ports.find_map(|port| port_number(&port["containerPort"])).unwrap_or(PORT)
}

fn port_number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0)
}

/// A ready pod behind the Service, and its port.
async fn service(call: &Call, name: &Name<'_>) -> Result<(PodRef, u16)> {
    let root = read::at(call.replica(), query::Version::Newest).await?;
    let namespace = &call.resource.namespace;
    let key = control::record::key(call.kind, namespace, name.name);
    let record = root.get(&key).ok_or_else(|| Failure::not_found(call.kind, name.name))?;
    let port = service_port(&control::record::parse(record), name.port).ok_or_else(|| {
        Failure::no_answer(format!("no service port {:?} found for service {:?}", name.port, name.name))
    })?;
    let label = (SERVICE_NAME, name.name);
    let slices = root.labelled("discovery.k8s.io", "endpointslices", namespace, &[label]);
    let mut ready: Vec<(String, u16)> = Vec::new();
    for (_, slice) in slices {
        ready.extend(endpoints(&control::record::parse(slice), &port));
    }
    let none = || Failure::no_answer(format!("no endpoints available for service {:?}", name.name));
    if ready.is_empty() {
        return Err(none());
    }
    let chosen = (call.server.context().draw() % ready.len() as u64) as usize;
    let (pod, port) = ready.swap_remove(chosen);
    Ok((Target::named(call, &pod).await.map_err(|_| none())?.pod, port))
}

/// The name of the Service's port that is meant: by name, by number, or the only one.
fn service_port(service: &Value, asked: &str) -> Option<String> {
    let ports = meta::list(service, &["spec", "ports"]);
    let of = |port: &Value| meta::text(port, &["name"]).to_owned();
    if asked.is_empty() {
        return match ports {
            [only] => Some(of(only)),
            // As Kubernetes: the one without a name, of which there is none here.
            _ => None,
        };
    }
    let number: Option<u16> = asked.parse().ok();
    let meant = |port: &&Value| of(port) == asked || (number.is_some() && port_number(&port["port"]) == number);
    ports.iter().find(meant).map(of)
}

/// The pods of a slice that are ready, with the port of this name.
fn endpoints(slice: &Value, name: &str) -> Vec<(String, u16)> {
    let port = meta::list(slice, &["ports"]).iter().find(|port| meta::text(port, &["name"]) == name);
    let Some(port) = port.and_then(|port| port_number(&port["port"])) else { return Vec::new() };
    let ready = |endpoint: &&Value| {
        meta::at(endpoint, &["conditions", "ready"]).is_none_or(|ready| ready != &Value::Bool(false))
    };
    let pods = meta::list(slice, &["endpoints"])
        .iter()
        .filter(ready)
        .filter(|endpoint| meta::text(endpoint, &["targetRef", "kind"]) == "Pod")
        .map(|endpoint| meta::text(endpoint, &["targetRef", "name"]).to_owned());
    pods.map(|pod| (pod, port)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_with_scheme_and_port() {
        for (text, want) in [
            ("web", Some(("", "web", ""))),
            ("web:80", Some(("", "web", "80"))),
            ("https:web:", Some(("https", "web", ""))),
            ("http:web:named", Some(("http", "web", "named"))),
            ("ftp:web:80", None),
            (":80", None),
            ("a:b:c:d", None),
        ] {
            let got = Name::parse(text).map(|name| (name.scheme, name.name, name.port));
            assert_eq!(got, want, "{text}");
        }
    }

    #[test]
    fn nothing_of_the_connection_or_the_login_is_passed_on() {
        let mut headers = HeaderMap::new();
        for name in
            ["authorization", "connection", "x-private", "impersonate-user", "impersonate-extra-a", "te", "accept"]
        {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("x-private, close"));
        }
        strip(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }

    #[test]
    fn ports_of_services_and_endpoints() {
        let one = json!({"spec": {"ports": [{"port": 80}]}});
        let two = json!({"spec": {"ports": [{"name": "web", "port": 80}, {"name": "admin", "port": 81}]}});
        assert_eq!(service_port(&one, ""), Some(String::new()));
        assert_eq!(service_port(&one, "80"), Some(String::new()));
        assert_eq!(service_port(&two, ""), None);
        assert_eq!(service_port(&two, "81"), Some("admin".into()));
        assert_eq!(service_port(&two, "web"), Some("web".into()));
        assert_eq!(service_port(&two, "82"), None);
        let slice = json!({
            "ports": [{"name": "web", "port": 8080}],
            "endpoints": [
                {"targetRef": {"kind": "Pod", "name": "a"}, "conditions": {"ready": true}},
                {"targetRef": {"kind": "Pod", "name": "b"}, "conditions": {"ready": false}},
                {"targetRef": {"kind": "Pod", "name": "c"}},
                {"addresses": ["10.0.0.1"]},
            ],
        });
        assert_eq!(endpoints(&slice, "web"), [("a".to_owned(), 8080), ("c".to_owned(), 8080)]);
        assert!(endpoints(&slice, "admin").is_empty());
        assert_eq!(first_port(&json!({"spec": {"containers": [{}, {"ports": [{"containerPort": 9}]}]}})), 9);
        assert_eq!(first_port(&json!({"spec": {"containers": [{}]}})), PORT);
    }
}
