//! The transport seam: listen and connect. Everything between our own processes goes through it, so that a simulation
//! can put something else in the place of TCP.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

/// A bidirectional byte stream.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

pub type Io = Pin<Box<dyn Duplex>>;

#[async_trait::async_trait]
pub trait Transport: Send + Sync + 'static {
    /// `address` is host:port; port 0 takes a free one.
    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>>;
    async fn connect(&self, address: &str) -> io::Result<Io>;
}

#[async_trait::async_trait]
pub trait Listener: Send + Sync + 'static {
    async fn accept(&self) -> io::Result<(Io, SocketAddr)>;
    fn local_address(&self) -> io::Result<SocketAddr>;
}

/// TCP without delay, with keep-alive through hyper's pings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

#[async_trait::async_trait]
impl Transport for Tcp {
    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(TcpListener::bind(address).await?))
    }

    async fn connect(&self, address: &str) -> io::Result<Io> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Box::pin(stream))
    }
}

#[async_trait::async_trait]
impl Listener for TcpListener {
    async fn accept(&self) -> io::Result<(Io, SocketAddr)> {
        let (stream, from) = TcpListener::accept(self).await?;
        stream.set_nodelay(true)?;
        Ok((Box::pin(stream), from))
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }
}

/// Connects, and verifies the server by `name`.
///
/// # Errors
/// The connection's or the handshake's; `TimedOut` when both together take longer than `limit`.
pub async fn connect_tls(
    transport: &Arc<dyn Transport>,
    address: &str,
    name: &str,
    config: Arc<ClientConfig>,
    limit: Duration,
) -> io::Result<tokio_rustls::client::TlsStream<Io>> {
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let connected = tokio::time::timeout(limit, async {
        let stream = transport.connect(address).await?;
        TlsConnector::from(config).connect(name, stream).await
    });
    match connected.await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("{address} did not answer within {limit:?}"))),
    }
}
