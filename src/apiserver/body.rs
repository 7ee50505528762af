//! Reading a request body: its limit, its encoding, and the strictness about unknown and duplicate fields.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;

use crate::json;
use crate::negotiate::{self, BodyKind};
use crate::protobuf;
use crate::query::FieldValidation;
use crate::server::Call;
use crate::status::{Failure, Result};

/// A body that dribbles in more slowly is given up.
const BODY_TIME_MAX: Duration = Duration::from_secs(60);
/// More than this many unknown or duplicate fields are not reported one by one.
const WARNINGS_MAX: usize = 20;

/// The whole body; larger ones than the bound (`api-body`) are answered with 413.
pub async fn read(call: &Call, body: Body) -> Result<Bytes> {
    read_within(call.server.config.limits.body_bytes, body).await
}

/// The same of a request that is no [`Call`].
pub async fn read_within(bytes_max: usize, body: Body) -> Result<Bytes> {
    let read = tokio::time::timeout(BODY_TIME_MAX, Limited::new(body, bytes_max).collect());
    let Ok(read) = read.await else {
        return Err(Failure::timeout(format!("the request body did not arrive within {} s", BODY_TIME_MAX.as_secs())));
    };
    match read {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Failure::too_large(format!("Request entity too large: limit is {bytes_max} (setting api-body)")))
        }
        Err(error) => Err(Failure::bad_request(format!("the request body could not be read: {error}"))),
    }
}

/// Decodes an object and the paths of its duplicate fields.
pub fn decode(headers: &HeaderMap, bytes: &[u8]) -> Result<json::Parsed> {
    let parsed = match negotiate::body_kind(headers)? {
        BodyKind::Json => json::parse_json(bytes)
            .map_err(|error| Failure::bad_request(format!("the body of the request is not valid JSON: {error}")))?,
        BodyKind::Yaml => json::parse_yaml(bytes)
            .map_err(|error| Failure::bad_request(format!("the body of the request is not valid YAML: {error}")))?,
        BodyKind::Protobuf => {
            let value = protobuf::decode(bytes).map_err(|error| Failure::bad_request(error.to_string()))?;
            json::Parsed { value, duplicates: Vec::new() }
        }
    };
    if !parsed.value.is_object() {
        return Err(Failure::bad_request("the body of the request is not an object"));
    }
    Ok(parsed)
}

/// What strictness makes of unknown and duplicate fields: a refusal, or warnings.
pub fn judge(validation: FieldValidation, duplicates: &[String], unknown: &[String]) -> Result<Vec<String>> {
    let duplicates = duplicates.iter().map(|path| format!("duplicate field {path:?}"));
    let found: Vec<String> =
        duplicates.chain(unknown.iter().map(|path| format!("unknown field {path:?}"))).take(WARNINGS_MAX).collect();
    match validation {
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Warn => Ok(found),
        FieldValidation::Strict if found.is_empty() => Ok(found),
        FieldValidation::Strict => Err(Failure::bad_request(format!("strict decoding error: {}", found.join(", ")))),
    }
}

/// The options of a DELETE: of the body, where there is one, else of the query.
pub fn optional(headers: &HeaderMap, bytes: &[u8]) -> Result<Option<Value>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    decode(headers, bytes).map(|parsed| Some(parsed.value))
}
