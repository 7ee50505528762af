//! gRPC channels over the transport seam with our own TLS.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::tls::{Live, for_bulk};
use crate::transport::{Transport, connect_tls};

/// What one stream may be sent that was not read yet.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// All streams of a connection together: so many that nobody reads keep no other waiting.
const CONNECTION_WINDOW_BYTES: u32 = 64 * STREAM_WINDOW_BYTES;

/// A connection could not be made: what was to be sent over it certainly reached nobody. Inside the error's `io::Error`,
/// whose kind alone does not tell it from a connection that broke later.
#[derive(Debug)]
pub struct NeverConnected(std::io::Error);

impl NeverConnected {
    fn wrap(error: std::io::Error) -> std::io::Error {
        std::io::Error::new(error.kind(), Self(error))
    }

    /// Whether one is among an error's causes.
    pub fn is_behind(error: &(dyn std::error::Error + 'static)) -> bool {
        let mut cause = Some(error);
        while let Some(error) = cause {
            let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            if error.is::<Self>() || inner.is_some_and(|inner| inner.is::<Self>()) {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

impl std::fmt::Display for NeverConnected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for NeverConnected {}

/// Where a channel leads and how.
#[derive(Clone)]
pub struct Target {
    pub transport: Arc<dyn Transport>,
    pub tls: Live<ClientConfig>,
    /// host:port.
    pub address: String,
    /// The name that the server's certificate must carry.
    pub name: String,
    pub connect_limit: Duration,
    /// Pings this often while calls are open, and gives the connection up when one is not answered in the same time.
    pub keep_alive: Duration,
    /// Whether its connections carry bulk: see [`crate::tls::for_bulk`].
    pub bulk: bool,
    /// Ends its connections, whatever streams are open on them.
    pub severed: CancellationToken,
}

/// A connection that a token ends from outside.
struct Severable<S> {
    stream: S,
    severed: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<S> Severable<S> {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.severed.as_mut().poll(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "this end gave the other up")),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Severable<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Severable<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Target {
    fn endpoint(&self) -> Endpoint {
        // The scheme only has to keep tonic from setting up TLS of its own; the authority is not looked at.
        Endpoint::from_static("http://hactl")
            .http2_keep_alive_interval(self.keep_alive)
            .keep_alive_timeout(self.keep_alive)
            .initial_stream_window_size(Some(STREAM_WINDOW_BYTES))
            .initial_connection_window_size(Some(CONNECTION_WINDOW_BYTES))
    }

    fn connector(
        &self,
    ) -> impl tower::Service<
        Uri,
        Response = TokioIo<Severable<tokio_rustls::client::TlsStream<crate::transport::Io>>>,
        Error = std::io::Error,
        Future: Send,
    > + Send
    + 'static {
        let target = self.clone();
        service_fn(move |_: Uri| {
            let target = target.clone();
            async move {
                let Target { transport, tls, address, name, connect_limit, bulk, severed, .. } = target;
                let tls = if bulk { for_bulk(&tls.load()) } else { tls.load() };
                let connected = connect_tls(&transport, &address, &name, tls, connect_limit).await;
                let severed = Box::pin(severed.cancelled_owned());
                connected.map(|stream| TokioIo::new(Severable { stream, severed })).map_err(NeverConnected::wrap)
            }
        })
    }

    /// A channel that connects when it is first used, and again when it broke.
    pub fn lazy(&self) -> Channel {
        self.endpoint().connect_with_connector_lazy(self.connector())
    }

    /// A connected channel.
    ///
    /// # Errors
    /// The connection's or the handshake's.
    pub async fn connect(&self) -> std::io::Result<Channel> {
        // tonic wraps the cause several times; only the innermost says something.
        self.endpoint().connect_with_connector(self.connector()).await.map_err(|error| {
            let mut cause: &(dyn std::error::Error + 'static) = &error;
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            std::io::Error::other(format!("{}: {cause}", self.address))
        })
    }
}
