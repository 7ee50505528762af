//! POST `serviceaccounts/<name>/token`: a token of that ServiceAccount.

use axum::body::Body;
use axum::response::Response;
use control::tokens::{self, Bound, Refused, SECONDS_DEFAULT, Wanted};
use http::StatusCode;
use objects::kinds::reviews::TOKEN_REQUEST;
use objects::{FieldError, Reason, meta};
use serde_json::{Value, json};

use crate::query::{Sent, WriteOptions};
use crate::server::Call;
use crate::status::{Failure, Result};
use crate::{body, read, reviews};

pub async fn issue(call: &Call, body: Body) -> Result<Response> {
    let options = WriteOptions::parse(&call.query, &call.headers, Sent::Create)?;
    let bytes = body::read(call, body).await?;
    let parsed = body::decode(&call.headers, &bytes)?;
    let (mut request, unknown) = reviews::decode(&TOKEN_REQUEST, parsed.value)?;
    let warnings = body::judge(options.field_validation, &parsed.duplicates, &unknown)?;
    check_place(call, &request)?;
    let keys = call.server.config.tokens.as_ref();
    let keys = keys.ok_or_else(|| Failure::unavailable("this server issues no tokens"))?;

    let wanted = wanted(call, &request);
    let root = read::at(call.replica(), crate::query::Version::Newest).await?;
    let mut cx = call.server.context();
    let id = cx.uid();
    let claims = tokens::issue(&wanted, &call.user, &root, cx.now, id).map_err(|refused| refusal(call, refused))?;
    let said = serde_json::to_vec(&claims).map_err(Failure::internal)?;
    let token = if options.dry_run { String::new() } else { keys.sign(&said, &root).map_err(Failure::unavailable)? };

    meta::set(
        &mut request,
        &["metadata"],
        json!({
            "name": call.resource.name, "namespace": call.resource.namespace, "creationTimestamp": cx.time(),
        }),
    );
    meta::set(&mut request, &["spec", "audiences"], json!(claims.aud));
    meta::set(&mut request, &["spec", "expirationSeconds"], wanted.seconds.into());
    let end = jiff::Timestamp::from_second(claims.exp).map_err(Failure::internal)?;
    let status = json!({"token": token, "expirationTimestamp": meta::format_time(end)});
    meta::set(&mut request, &["status"], status);
    call.plain(warnings)?.json(StatusCode::CREATED, request.to_string().into_bytes())
}

fn check_place(call: &Call, request: &Value) -> Result<()> {
    let mut errors = Vec::new();
    for (field, what, own) in
        [("name", "name", call.resource.name.as_str()), ("namespace", "namespace", call.resource.namespace.as_str())]
    {
        let given = meta::text(request, &["metadata", field]);
        if !given.is_empty() && given != own {
            let why = format!("must match the service account {what} if specified");
            let error = FieldError::new(format!("metadata.{field}"), Reason::Invalid, why);
            errors.push(error.with_value(given.into()));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(Failure::invalid_review(&TOKEN_REQUEST, &call.resource.name, &errors)) }
}

fn wanted(call: &Call, request: &Value) -> Wanted {
    let audiences = meta::list(request, &["spec", "audiences"]);
    let bound = meta::at(request, &["spec", "boundObjectRef"]).map(|bound| {
        let text = |field: &str| meta::text(bound, &[field]).to_owned();
        Bound { api_version: text("apiVersion"), kind: text("kind"), name: text("name"), uid: text("uid") }
    });
    Wanted {
        namespace: call.resource.namespace.clone(),
        account: call.resource.name.clone(),
        audiences: audiences.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect(),
        seconds: meta::int(request, &["spec", "expirationSeconds"]).unwrap_or(SECONDS_DEFAULT),
        bound,
    }
}

fn refusal(call: &Call, refused: Refused) -> Failure {
    match refused {
        Refused::Invalid(errors) => Failure::invalid_review(&TOKEN_REQUEST, "", &errors),
        Refused::BadRequest(why) => Failure::bad_request(why),
        Refused::Forbidden(why) => Failure::forbidden(call.kind, &call.resource.name, why),
        Refused::Missing(key) => Failure::missing(&key),
        Refused::Replaced { kind, name, why } => Failure::replaced(&kind, &name, &why),
    }
}
