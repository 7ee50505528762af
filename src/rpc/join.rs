//! The joiner's half of trust on first use: fetch the issuers over an unverified connection, compare them with the
//! token's pin, and only then connect again, verified by them. The secret travels on the second connection alone.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::channel::Target;
use crate::pb::IssuersRequest;
use crate::pb::cluster_client::ClusterClient;
use crate::pki::Bundles;
use crate::tls;
use crate::token::Token;
use crate::transport::{Tcp, Transport};

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const KEEP_ALIVE: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "cannot reach a master at {address}: {cause}; check the address (host:port of the API, 6443 unless changed) and firewalls between"
    )]
    Unreachable { address: String, cause: String },
    #[error(
        "{address} is not a master of the cluster this token was made for (its issuers differ from the token's pin); the secret was \
         not sent. Check the address, and take a token of that cluster from `hactl cluster token create`"
    )]
    WrongCluster { address: String },
    #[error(
        "the cluster at {address} has other issuers than when this token was made (`hactl cluster certs rotate-issuers`), so the token \
         proves it no longer; the secret was not sent. Make a new one with `hactl cluster token create` and revoke this one"
    )]
    OtherIssuers { address: String },
    #[error(transparent)]
    Pki(#[from] crate::pki::Error),
}

/// A verified channel to the master at `address`, and the issuers that the token pins.
///
/// # Errors
/// [`Error::WrongCluster`] or [`Error::OtherIssuers`] before anything secret is sent. Which of the two rests on the word of
/// whoever answers there.
pub async fn connect(address: &str, token: &Token) -> Result<(Channel, Bundles), Error> {
    let transport: Arc<dyn Transport> = Arc::new(Tcp);
    let unreachable = |cause: String| Error::Unreachable { address: address.to_owned(), cause };
    let target = |tls: Arc<rustls::ClientConfig>| Target {
        transport: transport.clone(),
        tls: tls.into(),
        address: address.to_owned(),
        name: tls::API_NAME.to_owned(),
        connect_limit: CONNECT_LIMIT,
        keep_alive: KEEP_ALIVE,
        bulk: false,
        severed: CancellationToken::new(),
    };
    let unverified = target(tls::unverified_client()?).connect().await.map_err(|e| unreachable(e.to_string()))?;
    let shown = ClusterClient::new(unverified)
        .issuers(IssuersRequest { token_id: token.id.clone(), pin: token.pin.clone() })
        .await
        .map_err(|status| unreachable(status.message().to_owned()))?
        .into_inner();
    let bundles = Bundles { peer: shown.peer_issuer_pem, node: shown.node_issuer_pem, client: shown.client_issuer_pem };
    if bundles.pin().ok().as_deref() != Some(token.pin.as_str()) {
        let address = address.to_owned();
        return Err(if shown.token_known { Error::OtherIssuers { address } } else { Error::WrongCluster { address } });
    }
    let verified = target(tls::api_client(&bundles.client, None)?);
    let channel = verified.connect().await.map_err(|e| unreachable(e.to_string()))?;
    Ok((channel, bundles))
}
