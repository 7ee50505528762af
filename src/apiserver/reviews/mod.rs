//! Reviews: questions that are answered and forgotten. Who may do what ([`access`]), who somebody is ([`identity`]).
//!
//! A review takes the same path as an object that is created, up to the point where that would be stored.

mod access;
mod identity;

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use control::authz::User;
use http::{Request, StatusCode};
use objects::{Review, meta};
use serde_json::Value;

use crate::query::{Query, Sent, WriteOptions};
use crate::respond::Answer;
use crate::route::Resource;
use crate::server::Server;
use crate::status::{Failure, Result};
use crate::{body, negotiate, write};

/// One question, decoded.
struct Question<'a> {
    server: &'a Server,
    review: &'static Review,
    /// Of the path; empty where the kind has none.
    namespace: &'a str,
    /// Who asks.
    user: &'a User,
    object: Value,
}

pub async fn answer(
    server: &Arc<Server>,
    review: &'static Review,
    resource: &Resource,
    query: &Query,
    user: &User,
    request: Request<Body>,
) -> Result<Response> {
    if review.namespaced == resource.namespace.is_empty() {
        return Err(Failure::no_such_path());
    }
    if !resource.name.is_empty() || resource.verb != "create" {
        return Err(Failure::method_not_allowed());
    }
    let (parts, body) = request.into_parts();
    let headers = parts.headers;
    let options = WriteOptions::parse(query, &headers, Sent::Create)?;
    let bytes = body::read_within(server.config.limits.body_bytes, body).await?;
    let parsed = body::decode(&headers, &bytes)?;
    let (mut object, unknown) = decode(review, parsed.value)?;
    let warnings = body::judge(options.field_validation, &parsed.duplicates, &unknown)?;
    meta::remove(&mut object, &["status"]);
    let question = Question { server, review, namespace: &resource.namespace, user, object };
    let status = match review.kind {
        "SelfSubjectReview" => identity::of_oneself(&question),
        "TokenReview" => identity::of_a_token(&question).await?,
        "SelfSubjectRulesReview" => access::rules(&question)?,
        _ => access::decided(&question)?,
    };
    let mut object = question.object;
    meta::set(&mut object, &["status"], status);
    let encoding = negotiate::accepted(&headers, false)?.encoding;
    let answer = Answer { headers: &headers, encoding, warnings };
    answer.json(StatusCode::CREATED, object.to_string().into_bytes())
}

/// Passes a body through its type; the paths of unknown fields.
pub fn decode(review: &'static Review, mut object: Value) -> Result<(Value, Vec<String>)> {
    write::check_kind(&review.api_version(), review.kind, &object)?;
    let unknown = review.decode(&mut object).map_err(|error| Failure::bad_request(error.message))?;
    Ok((object, unknown))
}
