//! How a client asks for another protocol on its connection, and the answer that switches to it.

use std::future::Future;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::limits::Stay;
use crate::server::Call;
use crate::status::{Failure, Result};

/// One message of a client; what is in it is passed on in parts.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
const READ_BUFFER_BYTES: usize = 32 * 1024;

const SPDY: &str = "SPDY/3.1";
const SPDY_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// A connection that requests came by, as whoever accepted it follows it beyond HTTP. A request without one as an extension
/// is nobody's.
#[derive(Clone, Default)]
pub struct Connection {
    /// What still goes on on it.
    pub tasks: TaskTracker,
    /// Ends that.
    pub ended: CancellationToken,
}

/// What is spoken for one kind of stream, the best first.
pub struct Spoken {
    websocket: &'static [&'static str],
    spdy: &'static str,
}

pub const REMOTE_COMMAND: Spoken =
    Spoken { websocket: &["v5.channel.k8s.io", "v4.channel.k8s.io"], spdy: "v4.channel.k8s.io" };
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
pub const PORT_FORWARD: Spoken = Spoken { websocket: &[TUNNEL, "v4.channel.k8s.io"], spdy: "portforward.k8s.io" };

/// A connection that speaks what was asked for.
pub enum Switched {
    WebSocket(WebSocket),
    /// SPDY inside a WebSocket.
    Tunnel(WebSocket),
    Spdy(TokioIo<Upgraded>),
}

/// What a client asked for, and will get unless something speaks against it.
pub struct Offer {
    way: Way,
    connection: Connection,
    shutdown: CancellationToken,
}

enum Way {
    WebSocket(Box<WebSocketUpgrade>),
    Spdy { switch: OnUpgrade, protocol: &'static str },
}

impl Offer {
    /// # Errors
    /// When the request asks for no other protocol, or for none that is spoken.
    pub async fn read(call: &Call, mut parts: Parts, spoken: &Spoken) -> Result<Self> {
        parts.headers = call.headers.clone();
        let asked = parts.headers.get(header::UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let spdy = asked.eq_ignore_ascii_case(SPDY);
        if !spdy && !asked.eq_ignore_ascii_case("websocket") {
            return Err(Failure::bad_request("Upgrade request required: this is spoken over WebSocket or SPDY/3.1"));
        }
        let connection = parts.extensions.get::<Connection>().cloned().unwrap_or_default();
        let way = if spdy { spoken.spdy(&mut parts)? } else { spoken.websocket(&mut parts).await? };
        Ok(Self { way, connection, shutdown: call.server.config.shutdown.clone() })
    }

    /// Whether the client names the ports in the query: over SPDY its streams do.
    pub fn names_ports(&self) -> bool {
        matches!(&self.way, Way::WebSocket(upgrade) if upgrade.selected_protocol().is_some_and(|name| name != TUNNEL))
    }

    /// Answers 101, and runs the session on the connection until it, the connection or this server ends.
    pub fn switch<F, S>(self, session: S) -> Response
    where
        S: FnOnce(Switched) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let stay = Stay::default();
        let held = (stay.clone(), self.connection.tasks.token());
        let (ended, shutdown) = (self.connection.ended, self.shutdown);
        let run = move |switched: Switched| async move {
            let _held = held;
            tokio::select! {
                () = session(switched) => {}
                () = ended.cancelled() => {}
                () = shutdown.cancelled() => {}
            }
        };
        let mut response = match self.way {
            Way::WebSocket(upgrade) => {
                let tunnel = upgrade.selected_protocol().is_some_and(|protocol| protocol == TUNNEL);
                (*upgrade)
                    .max_message_size(MESSAGE_BYTES_MAX)
                    .max_frame_size(MESSAGE_BYTES_MAX)
                    .read_buffer_size(READ_BUFFER_BYTES)
                    .on_upgrade(move |socket| {
                        run(if tunnel { Switched::Tunnel(socket) } else { Switched::WebSocket(socket) })
                    })
            }
            Way::Spdy { switch, protocol } => {
                tokio::spawn(async move {
                    match switch.await {
                        Ok(upgraded) => run(Switched::Spdy(TokioIo::new(upgraded))).await,
                        Err(error) => tracing::debug!(%error, "a client did not go on with SPDY"),
                    }
                });
                switching(protocol)
            }
        };
        response.extensions_mut().insert(stay);
        response
    }
}

impl Spoken {
    async fn websocket(&self, parts: &mut Parts) -> Result<Way> {
        let upgrade = WebSocketUpgrade::from_request_parts(parts, &())
            .await
            .map_err(|rejection| Failure::bad_request(rejection.body_text()))?;
        // Only what is spoken is ever sent back: a client may put its bearer token beside it.
        let upgrade = upgrade.protocols(self.websocket.iter().copied());
        if upgrade.selected_protocol().is_none() {
            return Err(Failure::bad_request(format!(
                "unable to negotiate a subprotocol: this server speaks {}",
                self.websocket.join(", ")
            )));
        }
        Ok(Way::WebSocket(Box::new(upgrade)))
    }

    fn spdy(&self, parts: &mut Parts) -> Result<Way> {
        let offered = offered(&parts.headers);
        if !offered.iter().any(|protocol| protocol == self.spdy) {
            return Err(Failure::bad_request(format!(
                "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
                offered.join(" "),
                self.spdy
            )));
        }
        let switch = parts
            .extensions
            .remove::<OnUpgrade>()
            .ok_or_else(|| Failure::bad_request("unable to upgrade: the connection is not HTTP/1.1"))?;
        Ok(Way::Spdy { switch, protocol: self.spdy })
    }
}

/// One header for each, or several in one.
fn offered(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(SPDY_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|protocol| protocol.trim().to_owned()).collect()
}

fn switching(protocol: &'static str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(SPDY));
    headers.insert(SPDY_PROTOCOL, HeaderValue::from_static(protocol));
    response
}
