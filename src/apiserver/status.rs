//! Refusals as Kubernetes words them: HTTP code, reason, message, details. Clients branch on the reason.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use objects::{FieldError, Kind, Review};
use serde_json::{Map, Value, json};

/// One refused request. Turns into a `Status` body.
#[derive(Clone, Debug)]
pub struct Failure {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
    details: Box<Map<String, Value>>,
    /// `metadata.continue`, of an expired token.
    token: Option<String>,
    /// Send `Retry-After: 1`: the client repeats the request by itself.
    retry: bool,
    /// For want of a leader, perhaps: what this master knows of the others belongs to it.
    pub leaderless: bool,
}

pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: Box::default(),
            token: None,
            retry: false,
            leaderless: false,
        }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// A refusal by the rules of authorization, which word the whole message.
    pub fn denied(message: impl Into<String>) -> Self {
        Self::new(403, "Forbidden", message)
    }

    /// A refusal by admission.
    pub fn forbidden(kind: &Kind, name: &str, why: impl std::fmt::Display) -> Self {
        let message = format!("{} {name:?} is forbidden: {why}", kind.qualified_plural());
        Self::new(403, "Forbidden", message).about(kind, name)
    }

    /// An unknown path.
    pub fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    pub fn not_found(kind: &Kind, name: &str) -> Self {
        Self::named(404, "NotFound", kind, name, "not found")
    }

    /// Of a resource that no kind of the store stands for.
    pub fn unknown_object(group: &str, plural: &str, name: &str) -> Self {
        let mut failure = Self::new(404, "NotFound", format!("{plural}.{group} {name:?} not found"));
        failure.details = object(json!({"name": name, "group": group, "kind": plural}));
        failure
    }

    /// What another object names is not there.
    pub fn missing(key: &state::Key) -> Self {
        let mut failure = Self::new(404, "NotFound", format!("{} {:?} not found", key.resource, key.name));
        failure.details = object(json!({"name": key.name, "kind": key.resource}));
        failure
    }

    /// The same, where a reference names an object that was made anew since.
    pub fn replaced(kind: &str, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {kind} {name:?}: {why}");
        let mut failure = Self::new(409, "Conflict", message);
        failure.details = object(json!({"name": name, "kind": kind}));
        failure
    }

    /// A binding names it, and it is not there.
    pub fn role_missing(message: impl Into<String>) -> Self {
        Self::new(404, "NotFound", message)
    }

    /// The store has it, its node has not.
    pub fn gone_from_node(kind: &Kind, name: &str, why: &str) -> Self {
        Self::new(404, "NotFound", why).about(kind, name)
    }

    pub fn namespace_missing(name: &str) -> Self {
        let mut failure = Self::new(404, "NotFound", format!("namespaces {name:?} not found"));
        failure.details = object(json!({"name": name, "kind": "namespaces"}));
        failure
    }

    pub fn namespace_terminating(kind: &Kind, name: &str, namespace: &str) -> Self {
        let message = format!(
            "{} {name:?} is forbidden: unable to create new content in namespace {namespace} because it is being terminated",
            kind.qualified_plural()
        );
        Self::new(403, "Forbidden", message).about(kind, name).cause(
            "NamespaceTerminating",
            format!("namespace {namespace} is being terminated"),
            "metadata.namespace",
        )
    }

    pub fn method_not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    pub fn not_acceptable(served: &str) -> Self {
        Self::new(406, "NotAcceptable", format!("only the following media types are accepted: {served}"))
    }

    pub fn already_exists(kind: &Kind, name: &str) -> Self {
        Self::named(409, "AlreadyExists", kind, name, "already exists")
    }

    /// A stale resourceVersion.
    pub fn modified(kind: &Kind, name: &str) -> Self {
        Self::conflict(
            kind,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    pub fn conflict(kind: &Kind, name: &str, why: impl std::fmt::Display) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", kind.qualified_plural());
        Self::new(409, "Conflict", message).about(kind, name)
    }

    /// Others own what a configuration would change; each is a cause.
    pub fn apply_conflict(message: impl Into<String>) -> Self {
        Self::new(409, "Conflict", message)
    }

    /// History no longer reaches back that far. `token` continues an inconsistent list.
    pub fn expired(message: impl Into<String>, token: Option<String>) -> Self {
        Self { token, ..Self::new(410, "Expired", message) }
    }

    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(413, "RequestEntityTooLarge", message)
    }

    /// A bound of this server is met: certainly nothing happened, and a client that waits as told gets through.
    pub fn too_many_requests(message: impl Into<String>) -> Self {
        Self { retry: true, ..Self::new(429, "TooManyRequests", message) }
    }

    pub fn unsupported_media(message: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// Failed validation: one cause per error.
    pub fn invalid(kind: &Kind, name: &str, errors: &[FieldError]) -> Self {
        Self::invalid_as(&kind.qualified_kind(), (kind.group, kind.kind), name, errors)
    }

    /// Failed validation of options: `ListOptions` and the like.
    pub fn invalid_options(what: &'static str, errors: &[FieldError]) -> Self {
        Self::invalid_as(&format!("{what}.meta.k8s.io"), ("meta.k8s.io", what), "", errors)
    }

    /// A review, or a request for a token, that makes no sense.
    pub fn invalid_review(review: &Review, name: &str, errors: &[FieldError]) -> Self {
        let qualified = format!("{}.{}", review.kind, review.group);
        Self::invalid_as(&qualified, (review.group, review.kind), name, errors)
    }

    fn invalid_as(qualified: &str, (group, kind): (&str, &str), name: &str, errors: &[FieldError]) -> Self {
        let message = format!("{qualified} {name:?} is invalid: {}", objects::aggregate(errors));
        let mut failure = Self::new(422, "Invalid", message);
        let causes: Vec<Value> = errors
            .iter()
            .map(|error| json!({"reason": error.reason.cause(), "message": error.body(), "field": error.field}))
            .collect();
        failure.details = object(json!({"name": name, "group": group, "kind": kind, "causes": causes}));
        drop_empty(&mut failure.details);
        failure
    }

    pub fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(422, "Invalid", message)
    }

    pub fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {message}"))
    }

    /// Certainly nothing happened: the client tries again by itself.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { retry: true, ..Self::new(503, "ServiceUnavailable", message) }
    }

    /// What is behind a proxy does not answer. The client must not repeat the request by itself: something may have happened.
    pub fn no_answer(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// The same as `unavailable`, for want of a leader.
    pub fn without_leader(message: impl Into<String>) -> Self {
        Self { leaderless: true, ..Self::unavailable(message) }
    }

    /// Says more, behind what it says already.
    pub fn add(&mut self, more: &str) {
        if !more.is_empty() {
            self.message.push_str(&format!("; {more}"));
        }
    }

    /// The store is over its quota. Not 429 or 503, which clients repeat by themselves: only deleting something helps. Not
    /// 403 either, which says that the user lacks a right.
    pub fn insufficient_storage(message: impl Into<String>) -> Self {
        Self::new(507, "InsufficientStorage", message)
    }

    /// Something may have happened, or the time is over: no `Retry-After`, since clients repeat blindly on it.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(504, "Timeout", message)
    }

    /// A resourceVersion from the future.
    pub fn future_revision(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let mut failure = Self::new(504, "Timeout", message).cause(
            "ResourceVersionTooLarge",
            "Too large resource version".into(),
            "",
        );
        failure.details.insert("retryAfterSeconds".into(), 1.into());
        failure
    }

    fn named(code: u16, reason: &'static str, kind: &Kind, name: &str, what: &str) -> Self {
        Self::new(code, reason, format!("{} {name:?} {what}", kind.qualified_plural())).about(kind, name)
    }

    pub fn about(mut self, kind: &Kind, name: &str) -> Self {
        let causes = self.details.remove("causes");
        self.details = object(json!({"name": name, "group": kind.group, "kind": kind.plural}));
        drop_empty(&mut self.details);
        self.details.extend(causes.map(|causes| ("causes".to_owned(), causes)));
        self
    }

    pub fn cause(mut self, reason: &str, message: String, field: &str) -> Self {
        let mut cause = object(json!({"reason": reason, "message": message, "field": field}));
        drop_empty(&mut cause);
        if let Value::Array(causes) = self.details.entry("causes").or_insert_with(|| json!([])) {
            causes.push(Value::Object(*cause));
        }
        self
    }

    /// The `Status` object.
    pub fn body(&self) -> Value {
        let mut details = self.details.clone();
        if self.retry {
            details.insert("retryAfterSeconds".into(), 1.into());
        }
        let mut body = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
        });
        if let Some(token) = &self.token {
            body["metadata"]["continue"] = token.as_str().into();
        }
        if !details.is_empty() {
            body["details"] = Value::Object(*details);
        }
        body["code"] = self.code.into();
        body
    }
}

impl From<replica::Error> for Failure {
    fn from(error: replica::Error) -> Self {
        match error {
            replica::Error::Unavailable(_) => Self::without_leader(error.to_string()),
            replica::Error::Unknown(_) => Self { leaderless: true, ..Self::timeout(error.to_string()) },
            replica::Error::Deposed(_) => Self::without_leader(error.to_string()),
            replica::Error::TooLarge(_) => Self::too_large(error.to_string()),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, self.body().to_string()).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.retry {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// The `Status` of success: what DELETE answers when the object is gone.
pub fn success(kind: &Kind, name: &str, uid: &str) -> Value {
    let mut details = object(json!({"name": name, "group": kind.group, "kind": kind.plural, "uid": uid}));
    drop_empty(&mut details);
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": *details})
}

fn object(value: Value) -> Box<Map<String, Value>> {
    match value {
        Value::Object(map) => Box::new(map),
        _ => Box::default(),
    }
}

fn drop_empty(map: &mut Map<String, Value>) {
    map.retain(|_, value| value.as_str() != Some("") && value.as_array().is_none_or(|list| !list.is_empty()));
}
