//! What only pods have: binding and eviction.

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use objects::meta;
use serde_json::{Value, json};
use state::{Expect, Op, Refusal};

use super::delete::{self, DeleteOptions};
use crate::body;
use crate::query::{self, Sent, WriteOptions};
use crate::server::Call;
use crate::status::{Failure, Result};
use crate::write::{self, ATTEMPTS_MAX};

/// POST `pods/<name>/binding`: gives an unbound pod its node, for schedulers outside of hactl.
pub async fn bind(call: &Call, body: Body) -> Result<Response> {
    let options = WriteOptions::parse(&call.query, &call.headers, Sent::Create)?;
    let bytes = body::read(call, body).await?;
    let binding = body::decode(&call.headers, &bytes)?.value;
    let node = meta::text(&binding, &["target", "name"]).to_owned();
    let target = meta::text(&binding, &["target", "kind"]);
    if node.is_empty() || !matches!(target, "" | "Node") {
        return Err(Failure::bad_request("a Binding must have a target of kind Node with a name"));
    }
    for attempt in 1.. {
        let root = write::root(call, true).await?;
        let key = call.key();
        let name = &call.resource.name;
        let record = root.get(&key).ok_or_else(|| Failure::not_found(call.kind, name))?;
        let uid = meta::uid(&binding);
        if !uid.is_empty() && uid != record.header.uid {
            return Err(Failure::conflict(
                call.kind,
                name,
                format!("the pod's uid is {}, not {uid}", record.header.uid),
            ));
        }
        if record.header.deletion_ms != 0 {
            return Err(Failure::conflict(
                call.kind,
                name,
                format!("pod {name} is being deleted, cannot be assigned to a host"),
            ));
        }
        let cx = call.server.context();
        let pod = bound(control::record::parse(record), &binding, &node, &cx);
        let put = write::put(call.kind, &pod)?;
        if options.dry_run {
            break;
        }
        let expects = vec![Expect::revision(key, record.revision)];
        match write::propose(call, &cx, expects, vec![Op::put(put)]).await?.refusal {
            None => break,
            Some(Refusal::Conflict(_)) if attempt < ATTEMPTS_MAX => {}
            Some(refusal) => return Err(write::refused(call, name, refusal)),
        }
    }
    created(call)
}

fn bound(mut pod: Value, binding: &Value, node: &str, cx: &control::Context) -> Value {
    meta::set(&mut pod, &["spec", "nodeName"], node.into());
    for (key, value) in meta::annotations(binding) {
        meta::set(&mut pod, &["metadata", "annotations", &key], value.into());
    }
    let mut conditions = meta::list(&pod, &["status", "conditions"]).to_vec();
    conditions.retain(|condition| condition["type"] != "PodScheduled");
    conditions.push(json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": cx.time()}));
    meta::set(&mut pod, &["status", "conditions"], conditions.into());
    pod
}

/// POST `pods/<name>/eviction`: a deletion that disruption budgets may refuse, once there are any.
pub async fn evict(call: &Call, body: Body) -> Result<Response> {
    let bytes = body::read(call, body).await?;
    let eviction = body::decode(&call.headers, &bytes)?.value;
    let name = meta::name(&eviction);
    if !name.is_empty() && name != call.resource.name {
        return Err(Failure::bad_request("name in URL does not match name in Eviction object"));
    }
    let inner = meta::at(&eviction, &["deleteOptions"]).cloned().unwrap_or_else(|| json!({}));
    let mut options = DeleteOptions::parse(&call.query, Some(&inner))?;
    options.dry_run |= query::dry_run(call.query.all("dryRun"))?;
    delete::remove(call, &call.key(), &options).await?;
    created(call)
}

fn created(call: &Call) -> Result<Response> {
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    call.plain(Vec::new())?.json(StatusCode::CREATED, body.to_string().into_bytes())
}
