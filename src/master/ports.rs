//! The two ports: accept, TLS, identity, and then gRPC or HTTP by content type. One loop serves both.
//!
//! **Invariant:** every request carries the verified [`Identity`] of its connection, put there before any handler.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use control::authz::User;
use http::header::CONTENT_TYPE;
use http::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rpc::Identity;
use rpc::tls::Identifier;
use rpc::transport::{Io, Listener, Transport};
use rustls::ServerConfig;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::Error;

/// Connections of one port; one more waits in the kernel's queue.
const CONNECTIONS_MAX: usize = 10_000;
/// A client that does not finish its handshake, or its request's head, within this is dropped.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// Half-open HTTP/2 connections are noticed within twice this.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Watches and node streams of one client share a connection.
const STREAMS_MAX: u32 = 2_000;
/// How long open requests may take to end at shutdown.
const DRAIN_LIMIT: Duration = Duration::from_millis(1_500);
/// Pause after `accept` failed: most likely no file descriptor is free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whether a caller is let in at all; the reason if not.
pub type Admitted = Arc<dyn Fn(&Identity) -> Result<(), String> + Send + Sync>;

/// What answers on a port.
#[derive(Clone)]
pub struct Handlers {
    pub grpc: axum::Router,
    /// Absent on the peer port.
    pub http: Option<axum::Router>,
    /// Whether the holder of a node certificate is still that Node.
    pub admitted: Admitted,
}

/// A bound port.
pub struct Port {
    listener: Box<dyn Listener>,
    tls: TlsAcceptor,
    identifier: Identifier,
}

/// Which port, for messages.
#[derive(Clone, Copy)]
pub struct Which {
    pub what: &'static str,
    pub setting: &'static str,
}

pub const API: Which = Which { what: "API", setting: "--listen-api" };
pub const PEER: Which = Which { what: "peer", setting: "--listen-peer" };

impl Port {
    /// # Errors
    /// When the address is taken or not this machine's, naming the setting.
    pub async fn bind(
        transport: &Arc<dyn Transport>,
        which: Which,
        address: &str,
        tls: Arc<ServerConfig>,
        identifier: Identifier,
    ) -> Result<Self, Error> {
        let listener = transport.listen(address).await.map_err(|source| Error::Port {
            what: which.what,
            setting: which.setting,
            address: address.to_owned(),
            source,
        })?;
        Ok(Self { listener, tls: TlsAcceptor::from(tls), identifier })
    }

    /// # Errors
    /// When the system cannot say.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_address()
    }

    /// Serves until `shutdown`, then lets open requests end for a moment.
    pub async fn serve(self, handlers: Handlers, shutdown: CancellationToken) {
        let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let connections = TaskTracker::new();
        loop {
            let Ok(permit) = free.clone().acquire_owned().await else { break };
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (tls, identifier) = (self.tls.clone(), self.identifier.clone());
            let (handlers, shutdown) = (handlers.clone(), shutdown.clone());
            connections.spawn(async move {
                let _permit = permit;
                serve_connection(stream, tls, identifier, handlers, shutdown).await;
            });
        }
        connections.close();
        let _ = tokio::time::timeout(DRAIN_LIMIT, connections.wait()).await;
    }
}

async fn serve_connection(
    stream: Io,
    tls: TlsAcceptor,
    identifier: Identifier,
    handlers: Handlers,
    shutdown: CancellationToken,
) {
    let stream = match tokio::time::timeout(HANDSHAKE_LIMIT, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake failed");
            return;
        }
        Err(_) => return,
    };
    let Some(identity) = identifier.identify(stream.get_ref().1.peer_certificates()) else {
        tracing::debug!("a verified certificate names nobody");
        return;
    };
    let asked = CancellationToken::new();
    let first = asked.clone();
    let service = hyper::service::service_fn(move |request| {
        first.cancel();
        answer(request, identity.clone(), handlers.clone())
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20);
    let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // Until hyper knows the protocol it waits for ever; whoever never asks must not hold one of the connections.
    let mute = async {
        if tokio::time::timeout(HEAD_LIMIT, asked.cancelled()).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = mute => return,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
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
        Identity::Peer { .. } | Identity::Anonymous => User::anonymous(),
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
