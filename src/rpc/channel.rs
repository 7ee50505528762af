//! gRPC channels over the transport seam with our own TLS.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::transport::{Transport, connect_tls};

/// Where a channel leads and how.
#[derive(Clone)]
pub struct Target {
    pub transport: Arc<dyn Transport>,
    pub tls: Arc<ClientConfig>,
    /// host:port.
    pub address: String,
    /// The name that the server's certificate must carry.
    pub name: String,
    pub connect_limit: Duration,
    /// Pings this often while calls are open, and gives the connection up when one is not answered in the same time.
    pub keep_alive: Duration,
}

impl Target {
    fn endpoint(&self) -> Endpoint {
        // The scheme only has to keep tonic from setting up TLS of its own; the authority is not looked at.
        Endpoint::from_static("http://hactl")
            .http2_keep_alive_interval(self.keep_alive)
            .keep_alive_timeout(self.keep_alive)
            .initial_stream_window_size(Some(1 << 20))
            .initial_connection_window_size(Some(4 << 20))
    }

    fn connector(
        &self,
    ) -> impl tower::Service<
        Uri,
        Response = TokioIo<tokio_rustls::client::TlsStream<crate::transport::Io>>,
        Error = std::io::Error,
        Future: Send,
    > + Send
    + 'static {
        let target = self.clone();
        service_fn(move |_: Uri| {
            let target = target.clone();
            async move {
                let Target { transport, tls, address, name, connect_limit, .. } = target;
                connect_tls(&transport, &address, &name, tls, connect_limit).await.map(TokioIo::new)
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
