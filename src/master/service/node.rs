//! What nodes ask of a master. Everything a node may do hangs on its certificate: name and uid come from there.

use std::sync::Arc;

use futures::StreamExt;
use rpc::Identity;
use rpc::pb::{self, node_session_server::NodeSession};
use rpc::pki::NodeName;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Shared, caller};
use crate::sessions::check_node;

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
            late @ Identity::LateNode { .. } => Err(Status::permission_denied(format!("{late} must renew it first"))),
            other => Err(Status::permission_denied(format!("{other} is no node"))),
        }
    }

    /// One whose certificate ended lately may ask for a new one, as long as its Node is there: the port has looked.
    fn renewing<T>(&self, request: &Request<T>) -> Result<(String, String), Status> {
        match caller(request) {
            Identity::LateNode { cluster_id, name, uid } if cluster_id == self.0.config.cluster_id => Ok((name, uid)),
            _ => self.node(request),
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
        let late = matches!(caller(&request), Identity::LateNode { .. });
        let (name, uid) = self.renewing(&request)?;
        // Nobody else keeps one whose Node was deleted from getting a certificate that holds.
        let root = self.0.replica.read().await.map_err(|error| Status::unavailable(error.to_string()))?;
        check_node(&root, &name, &uid)?;
        tracing::info!(node = name, late, "a node's certificate is renewed");
        let name = NodeName { cluster_id: self.0.config.cluster_id.clone(), name, uid };
        let life = self.0.config.lifetimes.node;
        let issuers = self.0.trust.issuers();
        let certificate_pem = issuers
            .issue_node(&request.into_inner().csr_pem, &name, life, self.0.unix())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let issuers_pem = issuers.bundles().client;
        Ok(Response::new(pb::RenewResponse { certificate_pem, issuers_pem }))
    }
}
