//! POST: a new object.

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use objects::meta;
use serde_json::Value;
use state::{Expect, Op, Put, Refusal, State};

use crate::body;
use crate::query::{Sent, WriteOptions};
use crate::server::Call;
use crate::status::{Failure, Result};
use crate::write::{self, ATTEMPTS_MAX, Draft, Writer};

/// A generated name that is taken is drawn again this often.
const GENERATE_ATTEMPTS_MAX: usize = 8;

pub async fn create(call: &Call, body: Body) -> Result<Response> {
    let options = WriteOptions::parse(&call.query, &call.headers, Sent::Create)?;
    let bytes = body::read(call, body).await?;
    let parsed = body::decode(&call.headers, &bytes)?;
    let draft = write::decode(call, parsed.value, &parsed.duplicates, &options)?;
    let writer = Writer { manager: &options.manager, subresource: "", applies: false };
    store(call, draft, &writer, &options).await
}

/// Admits and stores a decoded object; also what an apply does to an absent name, and PUT with some kinds.
pub async fn store(call: &Call, draft: Draft, writer: &Writer<'_>, options: &WriteOptions) -> Result<Response> {
    let Draft { object: decoded, mut warnings } = draft;
    let base = meta::text(&decoded, &["metadata", "generateName"]).to_owned();
    let generated = meta::name(&decoded).is_empty() && !base.is_empty();
    if !meta::text(&decoded, &["metadata", "resourceVersion"]).is_empty() {
        return Err(Failure::bad_request("resourceVersion should not be set on objects to be created"));
    }
    let attempts = if generated { GENERATE_ATTEMPTS_MAX } else { ATTEMPTS_MAX };
    let mut attempt = 0;
    // The local root may be behind: only what a fresh one refuses is refused.
    let mut fresh = false;
    let mut warned = false;
    loop {
        attempt += 1;
        let mut cx = call.server.context();
        let mut object = decoded.clone();
        if generated {
            meta::generate_name(&mut object, cx.draw());
        }
        let name = meta::name(&object).to_owned();
        let root = write::root(call, fresh).await?;
        let more = match write::admit_create(call, &mut object, writer, &mut cx, &root) {
            Err(failure) if !fresh && matches!(failure.code, 403 | 404) => {
                fresh = true;
                continue;
            }
            admitted => admitted?,
        };
        if !std::mem::replace(&mut warned, true) {
            warnings.extend(more);
        }
        let put = write::put(call.kind, &object)?;
        if options.dry_run {
            precheck(call, &put, &root)?;
            return answer(call, StatusCode::CREATED, object, warnings);
        }
        let key = put.key.clone();
        let outcome = write::propose(call, &cx, vec![Expect::absent(key)], vec![Op::put(put.clone())]).await?;
        match outcome.refusal {
            None => {
                let revision = outcome.revisions.first().copied().unwrap_or(outcome.revision);
                let json = call.written(&write::stored(put, revision));
                return call.plain(warnings)?.json(StatusCode::CREATED, json);
            }
            // Another one drew the same name; or took the address that admission chose: choose again.
            Some(Refusal::AlreadyExists(_)) if generated && attempt < attempts => {}
            Some(Refusal::Claimed(_)) if attempt < attempts => {}
            Some(refusal) => return Err(write::refused(call, &name, refusal)),
        }
    }
}

/// What `apply` would refuse, for a dry run.
fn precheck(call: &Call, put: &Put, root: &State) -> Result<()> {
    if root.get(&put.key).is_some() {
        return Err(Failure::already_exists(call.kind, &put.key.name));
    }
    write::within_quota(call, put, root)
}

fn answer(call: &Call, status: StatusCode, object: Value, warnings: Vec<String>) -> Result<Response> {
    call.plain(warnings)?.json(status, call.shown(object).to_string().into_bytes())
}
