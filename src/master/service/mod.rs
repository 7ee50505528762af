//! The gRPC services of both ports. Each method first says who may call it.

pub mod bench;
pub mod cluster;
pub mod join;
pub mod node;
pub mod peer;
pub mod snapshots;
pub mod status;

use std::sync::Arc;

use consensus::Consensus;
use control::authz::Authorizer;
use replica::Replica;
use rpc::Identity;
use rpc::pb;
use rpc::peer::PeerClients;
use tonic::{Request, Status};

use crate::Config;
use crate::addresses::Addresses;
use crate::keys::Keyring;
use crate::leader::Heard;
use crate::rotate::Rotations;
use crate::sessions::Sessions;
use crate::trust::Trust;

/// What the services share.
pub struct Shared {
    pub config: Config,
    pub consensus: Consensus,
    pub agreement: crate::agreement::Agreement,
    pub replica: Replica,
    pub peers: PeerClients,
    pub sessions: Sessions,
    pub heard: Heard,
    pub addresses: Addresses,
    pub trust: Arc<Trust>,
    pub keys: Arc<Keyring>,
    pub rotations: Rotations,
    /// For what another master authorized already.
    pub authorizer: Authorizer,
    pub now: Arc<dyn Fn() -> jiff::Timestamp + Send + Sync>,
    /// Of this process, drawn at its start: tells it from another that runs on a copy of its data dir.
    pub incarnation: u64,
    /// With automatic snapshots.
    pub trouble: crate::snapshot::auto::Trouble,
    /// For work that takes long: calls on the peer port arrive on consensus' own runtime, whose one thread must never wait.
    pub runtime: tokio::runtime::Handle,
}

impl Shared {
    pub fn now(&self) -> jiff::Timestamp {
        (self.now)()
    }

    /// Seconds since 1970.
    pub fn unix(&self) -> i64 {
        self.now().as_second()
    }

    /// The members as of now, where a moment ago will not do: whoever is told them or judged by them acts on it.
    pub fn members(&self) -> Vec<pb::MemberInfo> {
        self.addresses.set(crate::upkeep::members(&self.consensus));
        self.addresses.members()
    }
}

/// Who calls, as the port found out.
pub fn caller<T>(request: &Request<T>) -> Identity {
    request.extensions().get::<Identity>().cloned().unwrap_or(Identity::Anonymous)
}

fn admin<T>(request: &Request<T>) -> Result<(), Status> {
    let identity = caller(request);
    if identity.is_admin() {
        return Ok(());
    }
    Err(Status::permission_denied(format!(
        "{identity} may not do this; use an administrator's kubeconfig (group system:masters)"
    )))
}
