//! The bounds of the API: how much one request, one user and all together may take. Each is a setting with a name, and
//! shows in `/metrics` under that name with its value, its use and its refusals.
//!
//! ```text
//! request ─┬─ health, version                       never refused: they wait for nothing
//!          ├─ a node, or an administrator's look at status and metrics ─▶ seats of their own, then those of all
//!          ├─ anyone else                                               ─▶ seats of all, so many per user
//!          └─ watch, followed log, exec and the like ─▶ a seat among the requests until it begins, then one among its own kind
//! ```
//!
//! A seat is held until the last byte of the answer is on its way, so that a client that reads slowly spends its own share.
//! Whoever finds no seat is told so at once (429) and nothing waits in a queue here.
//!
//! **Invariant:** a user can take at most its own bound, and ordinary users together never what is kept for nodes.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use control::authz::{MASTERS, NODES, User};
use http_body::{Frame, SizeHint};

use crate::query::Query;
use crate::route::Route;
use crate::status::{Failure, Result};

/// The bounds of the API server; the settings `api-…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one request body (`api-body`).
    pub body_bytes: usize,
    /// Requests in flight (`api-requests`), of one user (`api-requests-per-user`), and kept for nodes and administrators'
    /// looks at status (`api-requests-system`).
    pub requests: usize,
    pub requests_per_user: usize,
    pub requests_system: usize,
    /// Open watches (`api-watches`), of one user (`api-watches-per-user`).
    pub watches: usize,
    pub watches_per_user: usize,
    /// Open streams of nodes: followed logs, exec, attach, port-forward (`api-logs`), of one user (`api-logs-per-user`).
    pub logs: usize,
    pub logs_per_user: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 3 << 20,
            requests: 600,
            requests_per_user: 300,
            requests_system: 200,
            watches: 20_000,
            watches_per_user: 12_000,
            logs: 1_000,
            logs_per_user: 200,
        }
    }
}

/// Seats of one kind: so many in all, so many per key (a user, an address), and some kept for the system.
#[derive(Clone, Debug)]
pub struct Pool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The settings that bound all and one key; the metrics' label.
    all: (&'static str, usize),
    each: (&'static str, usize),
    system: (&'static str, usize),
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    system: usize,
    each: HashMap<String, usize>,
}

/// The setting whose bound was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full(pub &'static str);

/// One place in a [`Pool`], given up when dropped.
#[derive(Debug)]
pub struct Seat {
    pool: Pool,
    /// `None`: among those of the system.
    key: Option<String>,
}

impl Pool {
    /// Bounds with the settings that name them in `/metrics`; unnamed ("") ones do not show there.
    pub fn new(all: (&'static str, usize), each: (&'static str, usize)) -> Self {
        Self::with_system(all, each, ("", 0))
    }

    /// With seats that only [`Pool::take_system`] may take.
    pub fn with_system(all: (&'static str, usize), each: (&'static str, usize), system: (&'static str, usize)) -> Self {
        for (setting, bound) in [all, each, system].into_iter().filter(|(setting, _)| !setting.is_empty()) {
            metrics::gauge!("hactl_bound", "setting" => setting).set(bound as f64);
        }
        Self(Arc::new(Inner { all, each, system, taken: Mutex::default() }))
    }

    /// A seat for this key.
    ///
    /// # Errors
    /// The setting whose bound is met.
    pub fn take(&self, key: &str) -> Result<Seat, Full> {
        let mut taken = self.taken();
        let of_key = taken.each.get(key).copied().unwrap_or(0);
        if of_key >= self.0.each.1 {
            return Err(self.full(self.0.each.0));
        }
        if taken.all >= self.0.all.1 {
            return Err(self.full(self.0.all.0));
        }
        taken.all += 1;
        match taken.each.get_mut(key) {
            Some(count) => *count += 1,
            None => drop(taken.each.insert(key.to_owned(), 1)),
        }
        self.show(self.0.all.0, taken.all);
        Ok(Seat { pool: self.clone(), key: Some(key.to_owned()) })
    }

    /// A seat of the system's own, or else one of all.
    ///
    /// # Errors
    /// The setting whose bound is met.
    pub fn take_system(&self, key: &str) -> Result<Seat, Full> {
        let mut taken = self.taken();
        if taken.system < self.0.system.1 {
            taken.system += 1;
            self.show(self.0.system.0, taken.system);
            return Ok(Seat { pool: self.clone(), key: None });
        }
        drop(taken);
        self.take(key)
    }

    /// How many seats are taken, the system's included.
    pub fn used(&self) -> usize {
        let taken = self.taken();
        taken.all + taken.system
    }

    fn give_back(&self, key: Option<&str>) {
        let mut taken = self.taken();
        let Some(key) = key else {
            taken.system -= 1;
            return self.show(self.0.system.0, taken.system);
        };
        taken.all -= 1;
        if let Some(count) = taken.each.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                taken.each.remove(key);
            }
        }
        self.show(self.0.all.0, taken.all);
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, setting: &'static str, used: usize) {
        if !setting.is_empty() {
            metrics::gauge!("hactl_bound_used", "setting" => setting).set(used as f64);
        }
    }

    fn full(&self, setting: &'static str) -> Full {
        if !setting.is_empty() {
            metrics::counter!("hactl_bound_refused_total", "setting" => setting).increment(1);
        }
        Full(setting)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.pool.give_back(self.key.as_deref());
    }
}

/// The pools of one API server.
pub(crate) struct Gates {
    requests: Pool,
    watches: Pool,
    logs: Pool,
}

/// What one request holds while it runs.
#[derive(Default)]
pub(crate) struct Seats {
    request: Option<Seat>,
    /// Of a watch or a stream of a node.
    long: Option<Seat>,
}

impl Gates {
    pub fn new(limits: &Limits) -> Self {
        metrics::gauge!("hactl_bound", "setting" => "api-body").set(limits.body_bytes as f64);
        Self {
            requests: Pool::with_system(
                ("api-requests", limits.requests),
                ("api-requests-per-user", limits.requests_per_user),
                ("api-requests-system", limits.requests_system),
            ),
            watches: Pool::new(("api-watches", limits.watches), ("api-watches-per-user", limits.watches_per_user)),
            logs: Pool::new(("api-logs", limits.logs), ("api-logs-per-user", limits.logs_per_user)),
        }
    }

    /// The seats that a request needs.
    pub fn enter(&self, route: &Route, query: &Query, user: &User) -> Result<Seats> {
        if is_probe(route) {
            return Ok(Seats::default());
        }
        let seat =
            if is_system(route, user) { self.requests.take_system(&user.name) } else { self.requests.take(&user.name) };
        let request = Some(seat.map_err(refuse)?);
        let long = match route {
            Route::Resource(resource) if resource.verb == "watch" => Some(&self.watches),
            Route::Resource(resource) if resource.subresource == "log" && query.flag("follow") => Some(&self.logs),
            Route::Resource(resource) if resource.opens_stream() => Some(&self.logs),
            _ => None,
        };
        let long = long.map(|pool| pool.take(&user.name).map_err(refuse)).transpose()?;
        Ok(Seats { request, long })
    }
}

impl Seats {
    /// Holds the request's seat, or that of its long-running kind, until the body has been sent, or what the connection
    /// is used for from now on has ended.
    pub fn until_sent(mut self, response: Response) -> Response {
        let Some(seat) = self.long.take().or_else(|| self.request.take()) else { return response };
        match response.extensions().get::<Stay>() {
            // It is filled once: each request has an answer of its own.
            Some(stay) => drop(stay.0.set(seat)),
            None => return until_sent(response, seat),
        }
        response
    }
}

/// Where the seat of a request is kept whose connection goes on to be used for something else.
#[derive(Clone, Default)]
pub(crate) struct Stay(Arc<OnceLock<Seat>>);

/// What only looks at what is at hand and answers at once, whoever asks.
fn is_probe(route: &Route) -> bool {
    let Route::Path { path, .. } = route else { return false };
    let root = path.trim_start_matches('/').split('/').next().unwrap_or("");
    matches!(root, "healthz" | "livez" | "readyz" | "version")
}

/// Traffic that keeps the cluster running, or shows how it does.
fn is_system(route: &Route, user: &User) -> bool {
    match route {
        _ if user.is_in(NODES) => true,
        Route::Path { .. } => user.is_in(MASTERS),
        Route::Resource(resource) => {
            let looks_at_nodes = resource.verb == "get" && resource.group.is_empty() && resource.resource == "nodes";
            user.is_in(MASTERS) && looks_at_nodes
        }
    }
}

fn refuse(full: Full) -> Failure {
    Failure::too_many_requests(format!(
        "too many requests, please try again later: the bound `{}` of this master is met",
        full.0
    ))
}

/// Keeps something until the body of an answer has been handed to the connection, or was given up.
pub fn until_sent<T: Send + Unpin + 'static>(response: Response, held: T) -> Response {
    response.map(|body| Body::new(Holding { body, _held: held }))
}

struct Holding<T> {
    body: Body,
    _held: T,
}

impl<T: Unpin> http_body::Body for Holding<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> Pool {
        Pool::with_system(("all", 3), ("each", 2), ("system", 1))
    }

    #[test]
    fn one_user_gets_its_share_and_all_together_the_whole() {
        let pool = pool();
        let first = pool.take("a").expect("a seat");
        let _second = pool.take("a").expect("a seat");
        assert_eq!(pool.take("a").expect_err("full"), Full("each"));
        let _third = pool.take("b").expect("a seat");
        assert_eq!(pool.take("c").expect_err("full"), Full("all"));
        drop(first);
        let _again = pool.take("a").expect("given back");
        assert_eq!(pool.used(), 3);
    }

    #[test]
    fn the_system_has_seats_that_nobody_else_takes() {
        let pool = pool();
        let _users: Vec<_> = ["a", "b", "c"].map(|user| pool.take(user).expect("a seat")).into();
        let own = pool.take_system("node").expect("its own");
        assert_eq!(pool.take_system("node").expect_err("full"), Full("all"));
        assert_eq!(pool.used(), 4);
        drop(own);
        assert_eq!(pool.take("d").expect_err("not for users"), Full("all"));
    }

    #[test]
    fn nothing_is_kept_of_those_who_left() {
        let pool = pool();
        drop((pool.take("a"), pool.take_system("n"), pool.take("b")));
        assert_eq!(pool.used(), 0);
        assert!(pool.taken().each.is_empty());
    }
}
