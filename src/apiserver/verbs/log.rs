//! GET `pods/<name>/log`: finds the pod and its container, then streams what the node sends.

use axum::body::Body;
use axum::response::Response;
use futures::StreamExt;
use http::{HeaderValue, header};
use objects::meta;
use serde_json::Value;

use crate::config::{LogOptions, PodRef, StreamError};
use crate::query::Query;
use crate::query::Version;
use crate::read;
use crate::server::Call;
use crate::status::{Failure, Result};

/// The annotation that names the container meant when none is named.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

pub async fn log(call: &Call) -> Result<Response> {
    let root = read::at(call.replica(), Version::Newest).await?;
    let name = &call.resource.name;
    let record = root.get(&call.key()).ok_or_else(|| Failure::not_found(call.kind, name))?;
    let pod = control::record::parse(record);
    let options = options(&call.query, &pod, (call.server.config.now)())?;
    let target = PodRef {
        namespace: call.resource.namespace.clone(),
        name: name.clone(),
        uid: record.header.uid.clone(),
        node: record.header.node.clone(),
    };
    if target.node.is_empty() {
        return Err(Failure::bad_request(format!("pod {name} does not have a host assigned")));
    }
    let stream =
        call.server.config.streams.logs(&call.user, target, options).await.map_err(|error| failure(call, error))?;
    let shutdown = call.server.config.shutdown.clone();
    let stream = stream.take_until(async move { shutdown.cancelled().await });
    let mut response = Response::new(Body::from_stream(stream));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

fn options(query: &Query, pod: &Value, now: jiff::Timestamp) -> Result<LogOptions> {
    let since = match (query.number::<i64>("sinceSeconds")?, query.get("sinceTime")) {
        (Some(_), time) if !time.is_empty() => {
            return Err(Failure::bad_request("at most one of `sinceTime` or `sinceSeconds` may be specified"));
        }
        (Some(seconds), _) if seconds < 1 => {
            return Err(Failure::bad_request("sinceSeconds must be greater than 0"));
        }
        (Some(seconds), _) => now.checked_sub(jiff::SignedDuration::from_secs(seconds)).ok(),
        (None, "") => None,
        (None, time) => Some(time.parse().map_err(|_| Failure::bad_request(format!("sinceTime {time:?} is no time")))?),
    };
    let stream = match query.get("stream") {
        "" | "All" => String::new(),
        stream @ ("Stdout" | "Stderr") => {
            let why = format!("stream {stream:?} is not supported yet: nodes send both together");
            return Err(Failure::bad_request(why));
        }
        other => return Err(Failure::bad_request(format!("stream {other:?} is none of All, Stdout, Stderr"))),
    };
    Ok(LogOptions {
        container: container(query.get("container"), pod)?,
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        timestamps: query.flag("timestamps"),
        tail_lines: query.number("tailLines")?,
        limit_bytes: query.number("limitBytes")?,
        since,
        stream,
    })
}

/// The container that is meant; refuses what the pod does not have.
fn container(asked: &str, pod: &Value) -> Result<String> {
    let pod_name = meta::name(pod);
    let names = |field: &str| -> Vec<String> {
        meta::list(pod, &["spec", field]).iter().map(|c| meta::text(c, &["name"]).to_owned()).collect()
    };
    let (main, init) = (names("containers"), names("initContainers"));
    if asked.is_empty() {
        let preferred = meta::annotation(pod, DEFAULT_CONTAINER);
        if main.iter().any(|name| name == preferred) {
            return Ok(preferred.to_owned());
        }
        return match main.as_slice() {
            [only] => Ok(only.clone()),
            _ => {
                let mut message = format!(
                    "a container name must be specified for pod {pod_name}, choose one of: [{}]",
                    main.join(" ")
                );
                if !init.is_empty() {
                    message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
                }
                Err(Failure::bad_request(message))
            }
        };
    }
    let known = main.iter().chain(&init).chain(&names("ephemeralContainers")).any(|name| name == asked);
    if known {
        Ok(asked.to_owned())
    } else {
        Err(Failure::bad_request(format!("container {asked} is not valid for pod {pod_name}")))
    }
}

fn failure(call: &Call, error: StreamError) -> Failure {
    match error {
        StreamError::BadRequest(why) => Failure::bad_request(why),
        StreamError::NotFound(why) => Failure::gone_from_node(call.kind, &call.resource.name, &why),
        StreamError::Unavailable(why) => Failure::unavailable(why),
        StreamError::Forbidden(why) => Failure::denied(why),
        StreamError::Unreachable(why) | StreamError::Internal(why) => Failure::internal(why),
    }
}
