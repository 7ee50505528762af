//! Channels to other members' peer port, and the check of who calls.
//!
//! Each member is reached by several connections, one per [`Lane`], so that neither a big append nor a snapshot delays a
//! heartbeat.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::ClientConfig;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::channel::Target;
use crate::identity::Identity;
use crate::pb::peer_client::PeerClient;
use crate::pki::PeerName;
use crate::tls::Live;
use crate::transport::Transport;
use crate::version;

const CLUSTER: &str = "hactl-cluster";
const EPOCH: &str = "hactl-epoch";
const MEMBER: &str = "hactl-member";
const REMOVED: &str = "hactl-removed";
const WIRE: &str = "hactl-wire";
const WIRE_NEEDS: &str = "hactl-wire-needs";
const CONNECT_LIMIT: Duration = Duration::from_millis(500);
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Above the largest batch of commands, which stays below 8 MiB.
const MESSAGE_MAX: usize = 16 << 20;

/// Which of the connections to a member a call takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Votes and heartbeats.
    Beat,
    Append,
    Snapshot,
    /// Proposals, read index, status.
    General,
    /// Streams of nodes. As fast as whoever reads them, so that the other end serves them apart from all else.
    Relay,
}

/// Who this member is, as its certificate says.
pub type Me = PeerName;

pub type Client = PeerClient<InterceptedService<Channel, Introduce>>;

/// Puts cluster, epoch, member and the version of the messages into the metadata of every call.
#[derive(Clone, Debug)]
pub struct Introduce {
    cluster_id: MetadataValue<Ascii>,
    epoch: MetadataValue<Ascii>,
    member: MetadataValue<Ascii>,
}

impl Introduce {
    fn new(me: &Me) -> Self {
        // A cluster id is a UUID; anything else cannot be said and is refused by the other side.
        let cluster_id = me.cluster_id.parse().unwrap_or_else(|_| MetadataValue::from_static(""));
        Self { cluster_id, epoch: me.epoch.into(), member: me.member.into() }
    }
}

impl Interceptor for Introduce {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert(CLUSTER, self.cluster_id.clone());
        metadata.insert(EPOCH, self.epoch.clone());
        metadata.insert(MEMBER, self.member.clone());
        metadata.insert(WIRE, version::WIRE.into());
        metadata.insert(WIRE_NEEDS, version::OLDEST.into());
        Ok(request)
    }
}

/// The channel of each member and lane, and the address it leads to.
type Channels = BTreeMap<(u64, Lane), (String, Channel)>;

/// Clients to other members. Cheap to clone.
#[derive(Clone)]
pub struct PeerClients {
    transport: Arc<dyn Transport>,
    tls: Live<ClientConfig>,
    me: Arc<Me>,
    channels: Arc<Mutex<Channels>>,
    /// What ends the connections to each member.
    severed: Arc<Mutex<BTreeMap<u64, CancellationToken>>>,
    /// The highest epoch that anybody has shown us.
    overtaken: Arc<watch::Sender<u64>>,
    /// When each member last said or answered anything.
    heard: Arc<Mutex<BTreeMap<u64, Instant>>>,
}

impl PeerClients {
    /// `tls` is a [`crate::tls::peer_client`].
    pub fn new(transport: Arc<dyn Transport>, tls: impl Into<Live<ClientConfig>>, me: Me) -> Self {
        Self {
            transport,
            tls: tls.into(),
            me: Arc::new(me),
            channels: Arc::default(),
            severed: Arc::default(),
            overtaken: Arc::new(watch::Sender::new(0)),
            heard: Arc::default(),
        }
    }

    pub fn me(&self) -> &Me {
        &self.me
    }

    /// A client of member `id` at `address` (host:port). The connection is made at the first call, and again when it
    /// broke; the same one serves all callers of a lane. Must be called within the runtime that shall drive it.
    pub fn client(&self, id: u64, address: &str, lane: Lane) -> Client {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = match channels.get(&(id, lane)) {
            Some((known, channel)) if known == address => channel.clone(),
            _ => {
                let name = PeerName::dns(&self.me.cluster_id, id);
                let severed = self.severed().entry(id).or_default().clone();
                let channel = Target { bulk: lane == Lane::Relay, ..self.target(address, name, severed) }.lazy();
                channels.insert((id, lane), (address.to_owned(), channel.clone()));
                channel
            }
        };
        self.over(channel)
    }

    /// A client of whichever member of the cluster has this address now. Its connection ends with it.
    pub fn whoever(&self, address: &str) -> Client {
        let name = PeerName::any_dns(&self.me.cluster_id);
        self.over(self.target(address, name, CancellationToken::new()).lazy())
    }

    fn severed(&self) -> MutexGuard<'_, BTreeMap<u64, CancellationToken>> {
        self.severed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn target(&self, address: &str, name: String, severed: CancellationToken) -> Target {
        Target {
            transport: self.transport.clone(),
            tls: self.tls.clone(),
            address: address.to_owned(),
            name,
            connect_limit: CONNECT_LIMIT,
            keep_alive: KEEP_ALIVE,
            bulk: false,
            severed,
        }
    }

    fn over(&self, channel: Channel) -> Client {
        PeerClient::with_interceptor(channel, Introduce::new(&self.me))
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX)
    }

    /// Notes a refusal for what it says of our epoch.
    pub fn refused(&self, status: &Status) {
        if let Some(epoch) = epoch_of(status) {
            self.heard_of_epoch(epoch);
        }
    }

    /// Notes that the cluster is in this epoch.
    pub fn heard_of_epoch(&self, epoch: u64) {
        self.overtaken.send_if_modified(|highest| std::mem::replace(highest, epoch.max(*highest)) < epoch);
    }

    /// The highest epoch that another member refused us for, or that was heard of otherwise; 0: none did.
    pub fn overtaken(&self) -> watch::Receiver<u64> {
        self.overtaken.subscribe()
    }

    /// A member called or answered just now.
    pub fn note_heard(&self, id: u64) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Instant::now());
    }

    /// How long ago a member last called or answered; `None`: not since this process began.
    pub fn heard(&self, id: u64) -> Option<Duration> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.get(&id).map(|at| at.elapsed())
    }

    /// Ends the connections to a member that left, with all that is open on them.
    pub fn forget(&self, id: u64) {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.retain(|(member, _), _| *member != id);
        if let Some(severed) = self.severed().remove(&id) {
            severed.cancel();
        }
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

/// Checks a call on the peer port: certificate and metadata name the same member, of our cluster and epoch. The epoch of
/// the certificate may be older: it was issued before a recovery and is renewed later.
///
/// # Errors
/// `PERMISSION_DENIED` with the difference in words; `FAILED_PRECONDITION` when the two do not understand each other.
pub fn check(metadata: &MetadataMap, identity: &Identity, cluster_id: &str, epoch: u64) -> Result<u64, Status> {
    let denied = |message: String| Err(Status::permission_denied(message));
    let Identity::Peer { cluster_id: theirs, epoch: certified, member } = identity else {
        return denied(format!("{identity} is no master; this port is for masters only"));
    };
    if theirs != cluster_id {
        return denied(format!("you belong to cluster {theirs}, this is {cluster_id}"));
    }
    let said = |name| metadata.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if said(CLUSTER) != cluster_id {
        return denied(format!("you ask for cluster `{}`, this is {cluster_id}", said(CLUSTER)));
    }
    if said(MEMBER).parse() != Ok(*member) {
        return denied(format!("you say to be member `{}`, your certificate says {member}", said(MEMBER)));
    }
    let number = |name| said(name).parse().unwrap_or_default();
    version::check(&format!("member {member}"), number(WIRE), number(WIRE_NEEDS))
        .map_err(Status::failed_precondition)?;
    if said(EPOCH).parse() != Ok(epoch) || *certified > epoch {
        let mut status =
            Status::permission_denied(format!("you are in epoch `{}`, this cluster in {epoch}", said(EPOCH)));
        status.metadata_mut().insert(EPOCH, epoch.into());
        return Err(status);
    }
    Ok(*member)
}

/// To a member that was taken out of the cluster, which is for ever.
pub fn removed(member: u64) -> Status {
    let mut status = Status::permission_denied(format!(
        "member {member} was removed from this cluster; `hactl cluster leave` on its machine, then join again"
    ));
    status.metadata_mut().insert(REMOVED, member.into());
    status
}

/// Whether a member refused us because this one was removed.
pub fn is_removed(status: &Status, member: u64) -> bool {
    let named = status.metadata().get(REMOVED).and_then(|value| value.to_str().ok()?.parse().ok());
    named == Some(member)
}

/// The epoch that a member is in which refused us for ours.
pub fn epoch_of(status: &Status) -> Option<u64> {
    status.metadata().get(EPOCH)?.to_str().ok()?.parse().ok()
}
