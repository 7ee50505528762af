//! The audit log: who did what, one `audit.k8s.io/v1` Event of level Metadata per request, when its answer has been sent. Never a
//! body, never a credential.
//!
//! Looks at health, version, metrics and what is served are left out: they say nothing of anybody. Not here: where the lines
//! go ([`crate::Audit`]).

use std::net::IpAddr;
use std::sync::Arc;

use control::authz::User;
use http::{HeaderMap, Request, StatusCode, header};
use jiff::Timestamp;
use objects::meta;
use serde_json::{Value, json};

use crate::config::Audit;
use crate::route::Route;

/// What a client says of itself is cut to this.
const AGENT_BYTES_MAX: usize = 256;
/// Likewise the address of a request.
const URI_BYTES_MAX: usize = 4096;

/// One request, as far as it is known when it arrives.
pub struct Arrived {
    id: String,
    uri: String,
    agent: String,
    from: Option<IpAddr>,
    at: Timestamp,
}

/// Who made it, and what was decided.
#[derive(Clone, Default)]
pub struct Who {
    /// By certificate or token; without a name until that is known.
    pub user: User,
    /// Whom the request was made as, where that is another.
    pub acts_as: Option<User>,
    /// Why it was allowed, or not.
    pub decision: Option<(bool, String)>,
}

impl Arrived {
    /// `None` for what is not written down.
    pub fn new<B>(route: &Route, request: &Request<B>, id: String, at: Timestamp) -> Option<Self> {
        if let Route::Path { .. } = route {
            return None;
        }
        Some(Self {
            id,
            uri: cut(&request.uri().to_string(), URI_BYTES_MAX),
            agent: cut(text(request.headers(), &header::USER_AGENT), AGENT_BYTES_MAX),
            from: request.extensions().get::<IpAddr>().copied(),
            at,
        })
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn cut(text: &str, bytes_max: usize) -> String {
    text[..text.floor_char_boundary(bytes_max)].to_owned()
}

/// Writes the line when it is dropped: when the answer has been sent, or its client is gone.
pub struct Pending {
    pub audit: Arc<dyn Audit>,
    pub now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    pub event: Value,
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.event["stageTimestamp"] = meta::format_micro_time((self.now)()).into();
        self.audit.note(self.event.to_string());
    }
}

/// The Event, but for the time it ended.
pub fn event(arrived: &Arrived, route: &Route, who: &Who, status: StatusCode) -> Value {
    let Route::Resource(resource) = route else { return Value::Null };
    let mut event = json!({
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "Metadata",
        "auditID": arrived.id,
        "stage": "ResponseComplete",
        "requestURI": arrived.uri,
        "verb": resource.verb,
        "user": described(&who.user),
        "userAgent": arrived.agent,
        "objectRef": {"resource": resource.resource, "apiVersion": resource.version},
        "responseStatus": {"metadata": {}, "code": status.as_u16()},
        "requestReceivedTimestamp": meta::format_micro_time(arrived.at),
    });
    for (field, value) in [
        ("namespace", &resource.namespace),
        ("name", &resource.name),
        ("apiGroup", &resource.group),
        ("subresource", &resource.subresource),
    ] {
        if !value.is_empty() {
            event["objectRef"][field] = value.as_str().into();
        }
    }
    if let Some(from) = arrived.from {
        event["sourceIPs"] = json!([from.to_string()]);
    }
    if let Some(other) = &who.acts_as {
        event["impersonatedUser"] = described(other);
    }
    if let Some((allowed, reason)) = &who.decision {
        let decision = if *allowed { "allow" } else { "forbid" };
        event["annotations"] =
            json!({"authorization.k8s.io/decision": decision, "authorization.k8s.io/reason": reason});
    }
    event
}

/// A user as `UserInfo`.
pub fn described(user: &User) -> Value {
    let mut out = json!({"username": user.name});
    if !user.uid.is_empty() {
        out["uid"] = user.uid.as_str().into();
    }
    if !user.groups.is_empty() {
        out["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        out["extra"] = json!(user.extra);
    }
    out
}
