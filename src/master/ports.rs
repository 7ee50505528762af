//! The two ports: accept, TLS, identity, and then gRPC or HTTP by content type. One loop serves both.
//!
//! ```text
//! accept ─▶ a seat among the connections ─▶ ClientHello ─▶ a turn to shake hands ─▶ requests ─▶ idle: closed
//!           (in all, per address)           within a time   (in all, per address)    heads within a time
//! ```
//!
//! Nobody is known before the handshake, so that what comes before it is bounded by address: one address never takes all.
//!
//! A connection that announces bulk is served on another runtime, where the port has one: see [`Handlers::bulk`].
//!
//! **Invariant:** every request carries the verified [`Identity`] of its connection, put there before any handler.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use apiserver::Pool;
use axum::body::Body;
use control::authz::User;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rpc::Identity;
use rpc::pki::inspect;
use rpc::tls::{Identifier, Live};
use rpc::transport::{Io, Listener, Transport};
use rustls::ServerConfig;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio::time::error::Elapsed;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::Error;
use crate::bounds::{Activity, PortLimits, Turns};
use crate::stalls::{Socket, Stalls};

/// Half-open HTTP/2 connections are noticed within twice this.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// What one stream may have waiting for a client that does not read.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// What all streams of one connection may have sent that was not read yet. A node has one connection for all its logs and
/// programs: with the window of a stream on the API port, as many of them as a node opens keep no other waiting that is read.
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// All headers of one request.
const HEADER_BYTES_MAX: u32 = 64 * 1024;
/// How long open requests may take to end at shutdown.
const DRAIN_LIMIT: Duration = Duration::from_millis(1_500);
/// How long a caller that is let in no longer has to read why.
const SAY_LIMIT: Duration = Duration::from_millis(250);
/// How long open requests may go on after the certificate ended that their connection was opened with.
const ENDED_LIMIT: Duration = Duration::from_secs(2);
/// How long a connection is open by which a node may have its certificate renewed, or hear that it is let in no longer, and nothing
/// else.
const HEAR_LIMIT: Duration = Duration::from_secs(30);
/// Pause after `accept` failed: most likely no file descriptor is free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whether a caller is let in at all; the reason if not.
pub type Admitted = Arc<dyn Fn(&Identity) -> Result<(), String> + Send + Sync>;
/// Ends when a caller is let in no longer, with the reason; none: it is not from the beginning, and hears why with each request.
pub type Revoked = Arc<dyn Fn(&Identity) -> Option<BoxFuture<'static, String>> + Send + Sync>;

/// What answers on a port.
#[derive(Clone)]
pub struct Handlers {
    pub grpc: axum::Router,
    /// Absent on the peer port.
    pub http: Option<axum::Router>,
    /// Whether the holder of a node certificate is still that Node.
    pub admitted: Admitted,
    /// Its connections are closed then.
    pub revoked: Revoked,
    /// Where connections are served that announce bulk; none: where the port is. Only the system's signs that there is
    /// something to read or room to write come by the port's own runtime then.
    pub bulk: Option<Handle>,
}

/// A bound port.
pub struct Port {
    listener: Box<dyn Listener>,
    tls: Live<ServerConfig>,
    identifier: Identifier,
    limits: PortLimits,
    which: Which,
}

/// Which port, for messages.
#[derive(Clone, Copy)]
pub struct Which {
    pub what: &'static str,
    pub setting: &'static str,
    /// Whether settings name its bounds.
    bounded: bool,
    /// Whether a connection ends with the certificate that opened it.
    ends_with_certificate: bool,
    /// What one stream may have sent that was not read yet.
    stream_window_bytes: u32,
}

impl Which {
    /// The setting that names a bound in `/metrics`; "" where none does.
    fn bound(self, setting: &'static str) -> &'static str {
        if self.bounded { setting } else { "" }
    }

    /// How long a connection may last; none: for ever.
    fn holds(self, identity: &Identity, ends: Option<i64>, now: i64) -> Option<Duration> {
        if matches!(identity, Identity::LateNode { .. }) {
            return Some(HEAR_LIMIT);
        }
        let left = ends.filter(|_| self.ends_with_certificate)? - now;
        Some(Duration::from_secs(u64::try_from(left).unwrap_or(0)))
    }
}

pub const API: Which = Which {
    what: "API",
    setting: "--listen-api",
    bounded: true,
    ends_with_certificate: true,
    stream_window_bytes: 256 << 10,
};
/// Members are looked at with every call, and hold each other's connections busy: their certificates' end closes none.
pub const PEER: Which = Which {
    what: "peer",
    setting: "--listen-peer",
    bounded: false,
    ends_with_certificate: false,
    stream_window_bytes: 1 << 20,
};

impl Port {
    /// # Errors
    /// When the address is taken or not this machine's, naming the setting.
    pub async fn bind(
        transport: &Arc<dyn Transport>,
        which: Which,
        address: &str,
        tls: Live<ServerConfig>,
        identifier: Identifier,
        limits: PortLimits,
    ) -> Result<Self, Error> {
        let listener = transport.listen(address).await.map_err(|source| Error::Port {
            what: which.what,
            setting: which.setting,
            address: address.to_owned(),
            source,
        })?;
        Ok(Self { listener, tls, identifier, limits, which })
    }

    /// # Errors
    /// When the system cannot say.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_address()
    }

    /// Serves until `shutdown`, then lets open requests end for a moment.
    pub async fn serve(self, handlers: Handlers, shutdown: CancellationToken) {
        let limits = self.limits;
        let seats = Pool::new(
            (self.which.bound("api-connections"), limits.connections),
            (self.which.bound("api-connections-per-address"), limits.connections_per_address),
        );
        let turns = Turns::new(self.which.bound("api-handshakes"), limits.handshakes);
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            let (stream, from) = match accepted {
                Ok((stream, from)) => (stream, from.ip().to_canonical()),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let seat = match seats.take(&from.to_string()) {
                Ok(seat) => seat,
                Err(full) => {
                    tracing::debug!(%from, setting = full.0, "a connection is closed: the bound is met");
                    continue;
                }
            };
            let (tls, identifier, turns) = (self.tls.load(), self.identifier.clone(), turns.clone());
            let (handlers, shutdown, which) = (handlers.clone(), shutdown.clone(), self.which);
            connections.spawn(async move {
                let _seat = seat;
                let began = Instant::now();
                // Whoever has not said hello yet takes no turn, so that silent connections keep nobody waiting.
                let greeted = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
                let Some(greeted) = shaken(from, tokio::time::timeout(limits.handshake_time, greeted).await) else {
                    return;
                };
                let bulk = handlers.bulk.clone().filter(|_| rpc::tls::is_bulk(&greeted.client_hello()));
                let served = async move {
                    let left = limits.handshake_time.saturating_sub(began.elapsed());
                    let secured = tokio::time::timeout(left, shake_hands(greeted, from, tls, &turns)).await;
                    if let Some(stream) = shaken(from, secured) {
                        serve_connection(stream, identifier, handlers, limits, which, shutdown).await;
                    }
                };
                match bulk {
                    // Fails when that runtime ends, and the connection with it.
                    Some(runtime) => drop(runtime.spawn(served).await),
                    None => served.await,
                }
            });
        }
        connections.close();
        let _ = tokio::time::timeout(DRAIN_LIMIT, connections.wait()).await;
    }
}

async fn shake_hands(
    greeted: StartHandshake<Io>,
    from: IpAddr,
    tls: Arc<ServerConfig>,
    turns: &Turns,
) -> std::io::Result<TlsStream<Io>> {
    let _turn = turns.wait(from).await;
    greeted.into_stream(tls).await
}

/// What came of a part of a handshake that had so long.
fn shaken<T>(from: IpAddr, outcome: Result<std::io::Result<T>, Elapsed>) -> Option<T> {
    match outcome {
        Ok(Ok(done)) => return Some(done),
        Ok(Err(error)) => tracing::debug!(%from, %error, "TLS handshake failed"),
        Err(_) => tracing::debug!(%from, "TLS handshake took too long"),
    }
    None
}

async fn serve_connection(
    stream: TlsStream<Io>,
    identifier: Identifier,
    handlers: Handlers,
    limits: PortLimits,
    which: Which,
    shutdown: CancellationToken,
) {
    let (now, chain) = (rpc::pki::unix_now(), stream.get_ref().1.peer_certificates());
    let Some(identity) = identifier.identify(chain, now) else {
        tracing::debug!("a verified certificate names nobody, or has just ended");
        return;
    };
    let holds = which.holds(&identity, chain.and_then(<[_]>::first).and_then(|leaf| inspect::ends(leaf)), now);
    let (revoked, holds) = match (handlers.revoked)(&identity) {
        Some(revoked) => (revoked, holds),
        None => (std::future::pending().boxed(), Some(HEAR_LIMIT)),
    };
    let holds = over(holds);
    tokio::pin!(revoked, holds);
    let caller = identity.clone();
    let activity = Activity::default();
    let stalls = Stalls::default();
    let (requests, answers) = (activity.clone(), stalls.clone());
    let beyond = apiserver::Connection::default();
    let switched = beyond.clone();
    let _ends = beyond.ended.clone().drop_guard();
    let service = hyper::service::service_fn(move |mut request: Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(switched.clone());
        let open = requests.begin();
        let answer = answer(request, identity.clone(), handlers.clone());
        let answers = answers.clone();
        async move { Ok::<_, Infallible>(answers.watch(apiserver::until_sent(answer.await?, open))) }
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(limits.header_time);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .max_concurrent_streams(limits.streams)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_header_list_size(HEADER_BYTES_MAX)
        .initial_stream_window_size(which.stream_window_bytes)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    let connection = server.serve_connection_with_upgrades(TokioIo::new(Socket::new(stream, limits.stalled)), service);
    tokio::pin!(connection);
    // Until hyper knows the protocol it waits for ever; whoever never asks must not hold one of the connections.
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = activity.none_within(limits.header_time) => return,
        why = &mut revoked => {
            tracing::info!(%caller, %why, "its connection is closed");
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(SAY_LIMIT, connection).await;
            return;
        }
        () = &mut holds => {
            tracing::debug!(%caller, "its certificate has ended, or it is not let in: its connection is closed");
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(ENDED_LIMIT, connection).await;
            return;
        }
        () = stalls.longer_than(limits.stalled) => {
            metrics::counter!("hactl_api_stalled_total").increment(1);
            tracing::info!("a connection is closed: its client takes nothing of an answer (setting api-stalled)");
            return;
        }
        () = activity.idle_for(limits.idle) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
    // It may have been switched to another protocol: what speaks that ends as a connection does, and is waited for as one.
    beyond.tasks.close();
    tokio::select! {
        () = beyond.tasks.wait() => return,
        why = revoked => tracing::info!(%caller, %why, "its stream is closed"),
        () = holds => tracing::debug!(%caller, "its certificate has ended: its stream is closed"),
        () = shutdown.cancelled() => {}
    }
    beyond.ended.cancel();
    beyond.tasks.wait().await;
}

/// Waits for so long, or for ever.
async fn over(holds: Option<Duration>) {
    match holds {
        Some(holds) => tokio::time::sleep(holds).await,
        None => std::future::pending().await,
    }
}

async fn answer(
    mut request: Request<hyper::body::Incoming>,
    identity: Identity,
    handlers: Handlers,
) -> Result<Response<Body>, Infallible> {
    let content_type = request.headers().get(CONTENT_TYPE).map(http::HeaderValue::as_bytes);
    let grpc = content_type.is_some_and(|kind| kind.starts_with(b"application/grpc"));
    let refusal = (handlers.admitted)(&identity).err();
    let http = match (grpc, handlers.http, refusal) {
        (true, _, None) => None,
        (true, _, Some(reason)) => return Ok(tonic::Status::permission_denied(reason).into_http()),
        (false, Some(http), None) => Some(http),
        (false, Some(_), Some(reason)) => return Ok(unauthorized(&reason)),
        (false, None, _) => {
            let mut response = Response::new(Body::from("this port is for masters only\n"));
            *response.status_mut() = http::StatusCode::NOT_FOUND;
            return Ok(response);
        }
    };
    let router = match http {
        Some(http) => {
            request.extensions_mut().insert(user(&identity));
            http
        }
        None => {
            request.extensions_mut().insert(identity);
            handlers.grpc
        }
    };
    router.oneshot(request).await
}

/// Whom the API server sees.
fn user(identity: &Identity) -> User {
    match identity {
        Identity::User { name, groups } => User::authenticated(name.clone(), groups.clone()),
        Identity::Node { name, .. } => User::node(name),
        Identity::Peer { .. } | Identity::LateNode { .. } | Identity::Anonymous => User::anonymous(),
    }
}

fn unauthorized(reason: &str) -> Response<Body> {
    let status = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": reason, "reason": "Unauthorized", "code": 401,
    });
    let mut response = Response::new(Body::from(status.to_string()));
    *response.status_mut() = http::StatusCode::UNAUTHORIZED;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}
