//! What nodes ask of a master. Everything a node may do hangs on its certificate: name and uid come from there.

use std::sync::Arc;

use futures::StreamExt;
use rpc::Identity;
use rpc::pb::{self, node_session_server::NodeSession};
use rpc::pki::NodeName;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Shared, caller};

/// The metadata in which a node names the stream that it dialled for.
const STREAM: &str = "hactl-stream";

pub struct NodeService(pub Arc<Shared>);

impl NodeService {
    fn node<T>(&self, request: &Request<T>) -> Result<(String, String), Status> {
        match caller(request) {
            Identity::Node { cluster_id, name, uid } if cluster_id == self.0.config.cluster_id => Ok((name, uid)),
            Identity::Node { cluster_id, .. } => Err(Status::permission_denied(format!(
                "you are a node of cluster {cluster_id}, this is {}",
                self.0.config.cluster_id
            ))),
            other => Err(Status::permission_denied(format!("{other} is no node"))),
        }
    }
}

#[tonic::async_trait]
impl NodeSession for NodeService {
    type SessionStream = ReceiverStream<Result<pb::MasterMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<pb::NodeMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (name, uid) = self.node(&request)?;
        let messages = self.0.sessions.open(name, uid, request.into_inner()).await?;
        Ok(Response::new(messages))
    }

    type StreamStream = ReceiverStream<Result<pb::StreamFrame, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<pb::StreamFrame>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let (name, _) = self.node(&request)?;
        let id = request.metadata().get(STREAM).and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
        let frames = self.0.sessions.dialled(&name, &id, request.into_inner().boxed())?;
        Ok(Response::new(frames))
    }

    async fn renew_certificate(
        &self,
        request: Request<pb::RenewRequest>,
    ) -> Result<Response<pb::RenewResponse>, Status> {
        let (name, uid) = self.node(&request)?;
        let name = NodeName { cluster_id: self.0.config.cluster_id.clone(), name, uid };
        let life = self.0.config.lifetimes.node;
        let certificate_pem = self
            .0
            .issuers
            .issue_node(&request.into_inner().csr_pem, &name, life, self.0.unix())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let issuers_pem = self.0.bundles.client.clone();
        Ok(Response::new(pb::RenewResponse { certificate_pem, issuers_pem }))
    }
}
