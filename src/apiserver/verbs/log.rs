//! GET `pods/<name>/log`: finds the pod and its container, then streams what the node sends.

use axum::body::Body;
use axum::response::Response;
use futures::StreamExt;
use http::{HeaderValue, header};

use super::target::{Target, failure};
use crate::config::LogOptions;
use crate::query::Query;
use crate::server::Call;
use crate::status::{Failure, Result};

pub async fn log(call: &Call) -> Result<Response> {
    let target = Target::of(call).await?;
    let options = options(&call.query, &target, (call.server.config.now)())?;
    let stream =
        call.server.config.streams.logs(&call.user, target.pod, options).await.map_err(|error| failure(call, error))?;
    let shutdown = call.server.config.shutdown.clone();
    let stream = stream.take_until(async move { shutdown.cancelled().await });
    let mut response = Response::new(Body::from_stream(stream));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

fn options(query: &Query, target: &Target, now: jiff::Timestamp) -> Result<LogOptions> {
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
        container: target.container(query.get("container"))?,
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        timestamps: query.flag("timestamps"),
        tail_lines: query.number("tailLines")?,
        limit_bytes: query.number("limitBytes")?,
        since,
        stream,
    })
}
