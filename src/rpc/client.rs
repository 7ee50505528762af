//! A client of the API port that knows all masters: it dials any, and moves on when one fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ClientConfig;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::channel::Target;
use crate::tls::Live;
use crate::transport::{Tcp, Transport};

/// A master that does not take a connection within this is passed over.
pub const CONNECT_LIMIT: Duration = Duration::from_millis(500);
/// Half-open connections are noticed within twice this.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
#[error("no master can be reached: {}", .0.join("; "))]
pub struct Unreachable(pub Vec<String>);

/// Cheap to clone; clones share the addresses and the place in them.
#[derive(Clone)]
pub struct Masters {
    transport: Arc<dyn Transport>,
    tls: Live<ClientConfig>,
    addresses: Arc<ArcSwap<Vec<String>>>,
    next: Arc<AtomicUsize>,
}

impl Masters {
    /// `addresses` are host:port of API ports; `tls` is a [`crate::tls::api_client`].
    pub fn new(addresses: Vec<String>, tls: Arc<ClientConfig>) -> Self {
        Self::over(Arc::new(Tcp), addresses, tls)
    }

    pub fn over(transport: Arc<dyn Transport>, addresses: Vec<String>, tls: Arc<ClientConfig>) -> Self {
        let addresses = Arc::new(ArcSwap::from_pointee(addresses));
        Self { transport, tls: tls.into(), addresses, next: Arc::new(AtomicUsize::new(0)) }
    }

    /// How connections are made from now on.
    pub fn set_tls(&self, tls: Arc<ClientConfig>) {
        self.tls.replace(tls);
    }

    pub fn addresses(&self) -> Arc<Vec<String>> {
        self.addresses.load_full()
    }

    /// What the masters say they are; an empty list changes nothing.
    pub fn set_addresses(&self, addresses: Vec<String>) {
        if !addresses.is_empty() {
            self.addresses.store(Arc::new(addresses));
        }
    }

    /// Begins with another master next time: the present one answers, but badly.
    pub fn move_on(&self) {
        self.next.fetch_add(1, Ordering::Relaxed);
    }

    /// Connects to the first master that takes it, beginning where the last call ended well; each is tried once.
    ///
    /// # Errors
    /// Names every master with its reason.
    pub async fn connect(&self) -> Result<(String, Channel), Unreachable> {
        let addresses = self.addresses();
        let mut reasons = Vec::new();
        for _ in 0..addresses.len() {
            let place = self.next.load(Ordering::Relaxed);
            let address = &addresses[place % addresses.len()];
            match self.connect_to(address).await {
                Ok(channel) => return Ok((address.clone(), channel)),
                Err(error) => {
                    reasons.push(error.to_string());
                    // Unless another call moved on already.
                    let _ = self.next.compare_exchange(place, place + 1, Ordering::Relaxed, Ordering::Relaxed);
                }
            }
        }
        if reasons.is_empty() {
            reasons.push("no address is known".to_owned());
        }
        Err(Unreachable(reasons))
    }

    /// Connects to one given master.
    ///
    /// # Errors
    /// The connection's or the handshake's, with the address.
    pub async fn connect_to(&self, address: &str) -> std::io::Result<Channel> {
        let target = Target {
            transport: self.transport.clone(),
            tls: self.tls.clone(),
            address: address.to_owned(),
            name: crate::tls::API_NAME.to_owned(),
            connect_limit: CONNECT_LIMIT,
            keep_alive: KEEP_ALIVE,
            bulk: false,
            severed: CancellationToken::new(),
        };
        target.connect().await
    }
}
