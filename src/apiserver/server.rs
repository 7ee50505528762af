//! The path of one request: route, identity, authorization, verb; then metrics and the audit line.

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use control::Seeds;
use control::authz::{self, Attributes, Authorizer, User};
use control::seal::{self, Sealer};
use futures::FutureExt;
use http::{HeaderMap, Method, Request, StatusCode};
use objects::selector::FieldSelector;
use objects::{Kind, Kinds, View};
use serde_json::Value;
use state::Record;

use crate::audit::{Arrived, Pending, Who};
use crate::config::Config;
use crate::discovery::Discovery;
use crate::impersonate;
use crate::limits::{Gates, until_sent};
use crate::negotiate::{self, Encoding};
use crate::openapi::OpenApi;
use crate::query::Query;
use crate::respond::Answer;
use crate::route::{Resource, Route};
use crate::status::{Failure, Result};
use crate::watch::SharedFrames;
use crate::{audit, authn, health, reviews, usage, verbs};

/// What all requests share.
pub struct Server {
    pub config: Config,
    pub kinds: &'static Kinds,
    pub discovery: Discovery,
    pub openapi: OpenApi,
    pub frames: SharedFrames,
    gates: Gates,
    seeds: Seeds,
    pub authorizer: Authorizer,
}

/// One authorized request on one kind.
pub struct Call {
    pub server: Arc<Server>,
    pub kind: &'static Kind,
    /// The version asked for, where it is not the stored one.
    pub view: Option<&'static View>,
    pub resource: Resource,
    pub query: Query,
    pub headers: HeaderMap,
    pub user: User,
}

impl Server {
    pub fn new(config: Config) -> Self {
        let kinds = Kinds::builtin();
        Self {
            kinds,
            discovery: Discovery::new(kinds),
            openapi: OpenApi::new(kinds, &format!("{} {}", config.version, config.commit)),
            frames: SharedFrames::default(),
            gates: Gates::new(&config.limits),
            seeds: Seeds::new(config.seed),
            authorizer: Authorizer::default(),
            config,
        }
    }

    /// The time and a fresh seed for one decision.
    pub fn context(&self) -> control::Context {
        control::Context::new((self.config.now)(), self.seeds.draw(), self.config.settings.clone())
    }

    pub async fn handle(self: Arc<Self>, request: Request<Body>) -> Response {
        let start = tokio::time::Instant::now();
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let query = Query::parse(request.uri());
        let watch = query.as_ref().is_ok_and(|query| query.flag("watch"));
        let route = Route::parse(&method, &path, watch);
        let mut who = Who::default();
        let arrived = self.config.audit.as_ref().and_then(|_| {
            let mut context = self.context();
            Arrived::new(&route, &request, context.uid(), context.now)
        });
        let answer = match query {
            // A bug in one request must not take the connection with all its other requests along.
            Ok(query) => AssertUnwindSafe(self.answer(&route, &query, &mut who, request))
                .catch_unwind()
                .await
                .unwrap_or_else(|_| Err(Failure::internal("the request could not be carried out; the log says why"))),
            Err(failure) => Err(failure),
        };
        let response = answer.unwrap_or_else(|mut failure| {
            if failure.leaderless {
                failure.add(&self.config.health.without_leader());
            }
            failure.into_response()
        });
        record(&route, &who.user.name, response.status(), start.elapsed());
        match (&self.config.audit, arrived) {
            (Some(audit), Some(arrived)) => {
                let event = audit::event(&arrived, &route, &who, response.status());
                until_sent(response, Pending { audit: audit.clone(), now: self.config.now.clone(), event })
            }
            _ => response,
        }
    }

    async fn answer(
        self: &Arc<Self>,
        route: &Route,
        query: &Query,
        who: &mut Who,
        request: Request<Body>,
    ) -> Result<Response> {
        let user = match authn::of_certificate(request.extensions().get::<User>()) {
            Some(user) => user.clone(),
            None => authn::of_token(self, request.headers()).await?.unwrap_or_else(User::anonymous),
        };
        who.user = user.clone();
        let seats = self.gates.enter(route, query, &user)?;
        if user.is_in(authz::UNAUTHENTICATED) && matches!(route, Route::Resource(_)) {
            // Whatever roles say: nobody reads or writes objects without saying who he is.
            return Err(Failure::unauthorized());
        }
        let user = self.act_as(user, request.headers())?;
        who.acts_as = Some(user.clone()).filter(|user| *user != who.user);
        self.authorize(route, query, &user, who)?;
        let response = match route {
            Route::Path { path, .. } => self.path(request.method(), path, query, request.headers())?,
            Route::Resource(resource) => self.resource(resource, query, user, request).await?,
        };
        Ok(seats.until_sent(response))
    }

    fn authorize(&self, route: &Route, query: &Query, user: &User, who: &mut Who) -> Result<()> {
        let attributes = match route {
            Route::Path { verb, path } => {
                Attributes { verb: verb.clone(), path: path.clone(), ..Attributes::default() }
            }
            Route::Resource(resource) => attributes(resource, query, resource.verb),
        };
        let decision = self.authorizer.decide(user, &attributes, &self.config.replica.root());
        who.decision = Some((decision.allowed, decision.reason));
        if decision.allowed { Ok(()) } else { self.permit(user, &attributes) }
    }

    /// Who the request is made as from here on.
    fn act_as(&self, user: User, headers: &HeaderMap) -> Result<User> {
        let requested = impersonate::requested(headers)?;
        if requested.is_empty() {
            return Ok(user);
        }
        for check in requested.checks().map_err(Failure::bad_request)? {
            self.permit(&user, &check)?;
        }
        tracing::info!(target: "audit", user = user.name, acts_as = requested.user, groups = ?requested.groups);
        Ok(requested.user())
    }

    fn permit(&self, user: &User, attributes: &Attributes) -> Result<()> {
        let anonymous = user.is_in(authz::UNAUTHENTICATED);
        self.authorizer
            .authorize(user, attributes, &self.config.replica.root())
            .map_err(|message| if anonymous { Failure::unauthorized() } else { Failure::denied(message) })
    }

    fn path(&self, method: &Method, path: &str, query: &Query, headers: &HeaderMap) -> Result<Response> {
        if let Some(response) = health::answer(self, path, query) {
            return Ok(response);
        }
        let served = match path.trim_end_matches('/') {
            "/api" | "/apis" | authn::CONFIGURATION | authn::KEY_SET => true,
            path => path.starts_with("/apis/") || path.starts_with("/api/") || path.starts_with("/openapi/"),
        };
        if served && method != Method::GET && method != Method::HEAD {
            return Err(Failure::method_not_allowed());
        }
        if let Some(response) = authn::discovery(self, path) {
            return response;
        }
        self.discovery
            .answer(path, headers)
            .or_else(|| self.openapi.answer(path, query, headers))
            .unwrap_or_else(|| Err(Failure::no_such_path()))
    }

    async fn resource(
        self: &Arc<Self>,
        resource: &Resource,
        query: &Query,
        user: User,
        request: Request<Body>,
    ) -> Result<Response> {
        if resource.group == usage::GROUP {
            return verbs::usage(self, resource, query, request.headers()).await;
        }
        let Resource { group, version, resource: plural, .. } = resource;
        if let Some(review) = self.kinds.review(group, version, plural) {
            self.check_serving()?;
            return reviews::answer(self, review, resource, query, &user, request).await;
        }
        let (kind, view) = self.kinds.by_version(group, version, plural).ok_or_else(Failure::no_such_path)?;
        self.check_serving()?;
        let (mut parts, body) = request.into_parts();
        let headers = std::mem::take(&mut parts.headers);
        let call =
            Call { server: self.clone(), kind, view, resource: resource.clone(), query: query.clone(), headers, user };
        verbs::dispatch(call, parts, body).await
    }

    /// Whether this master knows what was committed.
    pub fn check_serving(&self) -> Result<()> {
        let leadership = self.config.replica.leadership();
        if leadership.borrow().serving {
            return Ok(());
        }
        Err(Failure::without_leader("this master has not confirmed a leader yet, or lost it"))
    }
}

fn attributes(resource: &Resource, query: &Query, verb: &str) -> Attributes {
    Attributes {
        verb: verb.into(),
        group: resource.group.clone(),
        resource: resource.resource.clone(),
        subresource: resource.subresource.clone(),
        namespace: resource.namespace.clone(),
        name: resource.name.clone(),
        path: String::new(),
        fields: FieldSelector::parse(query.get("fieldSelector")).unwrap_or_default(),
    }
}

impl Call {
    /// Whether the user may make the object that an update finds absent.
    ///
    /// # Errors
    /// When not.
    pub fn may_create(&self) -> Result<()> {
        self.server.permit(&self.user, &attributes(&self.resource, &self.query, "create"))
    }

    pub fn replica(&self) -> &replica::Replica {
        &self.server.config.replica
    }

    /// The key of the named object.
    pub fn key(&self) -> state::Key {
        control::record::key(self.kind, &self.resource.namespace, &self.resource.name)
    }

    pub fn sealer(&self) -> Option<&dyn Sealer> {
        self.server.config.settings.sealer.as_deref()
    }

    /// A record as it is served: Secrets lie sealed in the store.
    pub fn opened<'a>(&self, record: &'a Record) -> Result<Cow<'a, Record>> {
        seal::open(record, self.sealer()).map_err(Failure::internal)
    }

    /// A stored object in the version asked for.
    pub fn shown(&self, mut object: Value) -> Value {
        if let Some(view) = self.view {
            view.show(&mut object);
        }
        object
    }

    /// The same of a record, as bytes.
    pub fn written(&self, record: &Record) -> Vec<u8> {
        match self.view {
            None => record.json(),
            Some(_) => self.shown(control::record::parse(record)).to_string().into_bytes(),
        }
    }

    /// An answer whose body is no list and no Table.
    pub fn plain(&self, warnings: Vec<String>) -> Result<Answer<'_>> {
        Ok(self.answer(negotiate::accepted(&self.headers, false)?.encoding, warnings))
    }

    pub fn answer(&self, encoding: Encoding, warnings: Vec<String>) -> Answer<'_> {
        Answer { headers: &self.headers, encoding, warnings }
    }
}

/// Counts and times the request, and writes who did what. Never a body, never a secret.
fn record(route: &Route, user: &str, status: StatusCode, elapsed: std::time::Duration) {
    let (verb, resource) = match route {
        Route::Resource(resource) => (resource.verb, label(resource)),
        Route::Path { .. } => ("path", String::new()),
    };
    let code = status.as_u16();
    metrics::counter!(
        "apiserver_request_total", "verb" => verb, "resource" => resource.clone(), "code" => code.to_string()
    )
    .increment(1);
    if verb != "watch" {
        metrics::histogram!("apiserver_request_duration_seconds", "verb" => verb, "resource" => resource)
            .record(elapsed.as_secs_f64());
    }
    let Route::Resource(r) = route else { return };
    let ms = elapsed.as_millis() as u64;
    // Reading is not news, unless it is of secrets or was refused.
    let read = matches!(verb, "get" | "list" | "watch") && r.resource != "secrets" && !matches!(code, 401 | 403);
    if read {
        tracing::debug!(target: "audit", user, verb, group = r.group, resource = r.path(), namespace = r.namespace, name = r.name, code, ms);
    } else {
        tracing::info!(target: "audit", user, verb, group = r.group, resource = r.path(), namespace = r.namespace, name = r.name, code, ms);
    }
}

/// `pods/log`; empty for what is not served, since names that clients invent must not become labels.
fn label(resource: &Resource) -> String {
    let Resource { group, version, resource: plural, .. } = resource;
    if Kinds::builtin().review(group, version, plural).is_some() {
        return plural.clone();
    }
    let Some((kind, _)) = Kinds::builtin().by_version(group, version, plural) else { return String::new() };
    let sub = resource.subresource.as_str();
    let known = matches!(sub, "" | "status" | "scale") || kind.subresources.iter().any(|row| row.name == sub);
    if known { resource.path() } else { String::new() }
}
