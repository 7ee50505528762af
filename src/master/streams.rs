//! The way to nodes whose session another master holds: every other master is asked at once, the one that has it answers.
//!
//! **Invariant:** no frame passes through the thread of consensus, on either side: a log may come as fast as the network is.

use apiserver::StreamError;
use futures::stream::FuturesUnordered;
use futures::{StreamExt, future};
use rpc::pb;
use rpc::peer::{Lane, PeerClients};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::addresses::Addresses;
use crate::sessions::{Dialled, Relay};

/// Frames in flight towards a slow node.
const FRAMES_MAX: usize = 16;

pub struct PeerRelay {
    pub me: u64,
    pub peers: PeerClients,
    pub addresses: Addresses,
}

#[async_trait::async_trait]
impl Relay for PeerRelay {
    async fn open(&self, open: pb::StreamOpen) -> Result<Option<Dialled>, StreamError> {
        let others = self.addresses.members().into_iter().filter(|member| member.id != self.me);
        let mut asked: FuturesUnordered<_> = others
            .map(|member| {
                let mut client = self.peers.client(member.id, &member.peer_address, Lane::Relay);
                let first = pb::StreamFrame { open: Some(open.clone()), ..Default::default() };
                async move {
                    // The request ends with `down`.
                    let (down, frames) = mpsc::channel::<Result<pb::StreamFrame, Status>>(FRAMES_MAX);
                    let frames = ReceiverStream::new(frames).filter_map(|frame| future::ready(frame.ok()));
                    let up = client.relay(futures::stream::iter([first]).chain(frames)).await?;
                    Ok::<_, Status>(Dialled { up: up.into_inner().boxed(), down })
                }
            })
            .collect();
        let (mut denied, mut silent) = (None, None);
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(dialled) => return Ok(Some(dialled)),
                Err(status) if status.code() == tonic::Code::NotFound => {}
                // The node has a session there, and does not take up the stream.
                Err(status) if status.code() == tonic::Code::DeadlineExceeded => silent = Some(status),
                // Every master is asked, so a refusal ends it only where nobody else opens the stream.
                Err(status) if status.code() == tonic::Code::PermissionDenied => denied = Some(status),
                Err(status) => tracing::debug!(message = status.message(), "a master did not relay a stream"),
            }
        }
        match (denied, silent) {
            (Some(status), _) => Err(StreamError::Forbidden(status.message().to_owned())),
            (None, Some(status)) => Err(StreamError::Unreachable(status.message().to_owned())),
            (None, None) => Ok(None),
        }
    }
}
