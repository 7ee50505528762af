//! The way up: how a session reaches a master. [`Masters`] dials; a simulation of many nodes has another.

use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt as _};
use rpc::client::Masters;
use rpc::pb;
use rpc::pb::node_session_client::NodeSessionClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Largest message: a full assignment with its Secrets and ConfigMaps.
const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// What a master says in a session.
pub type Downs = BoxStream<'static, Result<pb::MasterMessage, Status>>;

#[async_trait]
pub trait Uplink: Send + Sync + 'static {
    /// Opens a session with the next master that takes one: its address, and what it says.
    ///
    /// # Errors
    /// Why none did, in words.
    async fn open(&self, up: mpsc::Receiver<pb::NodeMessage>) -> Result<(String, Downs), String>;

    /// Begins with another master next time.
    fn move_on(&self);

    fn addresses(&self) -> Vec<String>;

    /// What the masters say they are.
    fn set_addresses(&self, addresses: Vec<String>);

    /// Dials the connections of streams (exec, logs); none where there are no such streams.
    fn dialler(&self) -> Option<Masters>;
}

#[async_trait]
impl Uplink for Masters {
    async fn open(&self, up: mpsc::Receiver<pb::NodeMessage>) -> Result<(String, Downs), String> {
        let (address, channel) = self.connect().await.map_err(|error| error.to_string())?;
        let mut client = NodeSessionClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let session = client.session(ReceiverStream::new(up)).await;
        let response = session.map_err(|status| format!("{address}: {}", status.message()))?;
        Ok((address, response.into_inner().boxed()))
    }

    fn move_on(&self) {
        Masters::move_on(self);
    }

    fn addresses(&self) -> Vec<String> {
        Masters::addresses(self).to_vec()
    }

    fn set_addresses(&self, addresses: Vec<String>) {
        Masters::set_addresses(self, addresses);
    }

    fn dialler(&self) -> Option<Masters> {
        Some(self.clone())
    }
}
