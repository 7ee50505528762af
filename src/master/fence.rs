//! Keeps a data dir from taking part that must not: one of an epoch that is over, one of a member that was removed, a copy of
//! a member that runs, and an old copy of a member. Each of them would break a promise that the cluster has made.
//!
//! ```text
//!   before the ports are taken   does somebody answer at our own address?            a copy runs
//!   before they are served       what do the others say of us, our epoch, our log?   removed; overtaken; an old copy
//!   while running                whoever refuses us for our epoch, calls us from a
//!                                higher one, or proves one (nodes do); our address   overtaken; a copy runs
//! ```
//!
//! Whoever is overtaken ends, and writes that down.
//!
//! Members that come back together ask each other before they serve, so none of them can be elected before it has asked.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use consensus::Consensus;
use rpc::Identity;
use rpc::pb;
use rpc::peer::{Client, Lane, PeerClients, epoch_of, is_removed};
use rpc::pki::{files, inspect};
use tonic::Status;

use crate::service::Shared;
use crate::trust::Trust;
use crate::{Config, Error};

/// How long an answer is waited for before a start goes on: masters that start together do not answer each other yet.
const ASK_LIMIT: Duration = Duration::from_millis(300);
/// How often a running master looks who answers at its address.
const LOOK_EVERY: Duration = Duration::from_secs(5);

async fn ask(mut client: Client) -> Result<pb::MemberStatusResponse, Option<Status>> {
    match tokio::time::timeout(ASK_LIMIT, client.member_status(pb::MemberStatusRequest::default())).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(Some(status)),
        Err(_) => Err(None),
    }
}

/// Nobody answers at our own address before we do.
///
/// # Errors
/// When a process of the same member id runs there.
pub async fn alone(peers: &PeerClients, config: &Config) -> Result<(), String> {
    if config.advertise_peer.ends_with(":0") {
        return Ok(());
    }
    let answer = ask(peers.client(config.member_id, &config.advertise_peer, Lane::General)).await;
    // A connection to a process that ends just now must not be kept for later.
    peers.forget(config.member_id);
    match answer {
        Ok(_) => Err(copied(config, &config.advertise_peer)),
        Err(_) => Ok(()),
    }
}

/// What the other members say of us, before this one serves.
///
/// # Errors
/// When this data dir must not take part, with the cure.
pub async fn welcome(consensus: &Consensus, peers: &PeerClients, config: &Config) -> Result<(), String> {
    let others =
        consensus.members().into_iter().map(|known| known.member).filter(|member| member.id != config.member_id);
    let asked = others.map(|member| async move {
        // Another member may have that address by now; whoever it is, it knows the epoch.
        ask(peers.whoever(&member.peer_address)).await
    });
    let answers = futures::future::join_all(asked).await;
    let own = consensus.status().await.map_err(|error| error.to_string())?;
    for answer in answers {
        match answer {
            Err(Some(status)) if is_removed(&status, config.member_id) => return Err(removed(config)),
            Err(Some(status)) => {
                if let Some(epoch) = epoch_of(&status).filter(|epoch| *epoch > config.epoch) {
                    remember(config, epoch);
                    return Err(overtaken(&config.data_dir, &config.cluster_id, config.epoch, epoch));
                }
            }
            // A leader of an earlier term may know of entries that a later one took back.
            Ok(said)
                if said.role == "leader" && said.term >= own.term && said.acknowledged_index > own.last_log_index =>
            {
                return Err(format!(
                    "{} had synced its log up to entry {} once, as {} knows, but the log in {} ends at {}: this is an old copy, which \
                     must not take part any more. A new member takes its place: `hactl cluster replace --data-dir {3}`",
                    config.name,
                    said.acknowledged_index,
                    said.name,
                    config.data_dir.display(),
                    own.last_log_index
                ));
            }
            Ok(_) | Err(None) => {}
        }
    }
    Ok(())
}

/// What this member shows of its epoch, and what others show it of theirs. The proof is a certificate of the peer issuer,
/// which only a master of that epoch was given: a node can hand it on, and nobody can invent one.
#[derive(Clone)]
pub struct Epochs {
    pub trust: Arc<Trust>,
    pub cluster_id: String,
    pub peers: PeerClients,
}

impl Epochs {
    /// Of our epoch.
    pub fn proof(&self) -> Vec<u8> {
        // Without it nothing is proved; the certificate itself is missed elsewhere.
        self.trust.dir().credential(files::PEER).map(|own| own.certificate_pem.into_bytes()).unwrap_or_default()
    }

    /// Somebody shows this.
    pub fn shown(&self, proof: &[u8]) {
        let Ok(pem) = std::str::from_utf8(proof) else { return };
        if pem.is_empty() {
            return;
        }
        match inspect::identity_of_pem(pem, &self.trust.bundles()) {
            Ok(Some(Identity::Peer { cluster_id, epoch, .. })) if cluster_id == self.cluster_id => {
                self.peers.heard_of_epoch(epoch);
            }
            _ => tracing::debug!("what was shown proves no epoch of this cluster"),
        }
    }
}

/// Written when this member was overtaken, so that it does not come back at the next start.
const MARK: &str = "overtaken.json";

#[derive(serde::Serialize, serde::Deserialize)]
struct Overtaken {
    epoch: u64,
}

/// A member that was told once stays away, also when nobody is there to tell it again.
///
/// # Errors
/// When it must not start.
pub fn remembered(config: &Config) -> Result<(), Error> {
    let path = config.data_dir.join(MARK);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(Error::File { path, source }),
    };
    let known: Overtaken = serde_json::from_slice(&bytes)
        .map_err(|cause| Error::Invalid(format!("{} is damaged: {cause}", path.display())))?;
    // A recovery from this member began a later one.
    if known.epoch <= config.epoch {
        return Ok(());
    }
    Err(Error::Invalid(overtaken(&config.data_dir, &config.cluster_id, config.epoch, known.epoch)))
}

fn remember(config: &Config, epoch: u64) {
    let path = config.data_dir.join(MARK);
    let written = serde_json::to_vec(&Overtaken { epoch })
        .map_err(|cause| cause.to_string())
        .and_then(|bytes| files::write_private(&path, &bytes).map_err(|cause| cause.to_string()));
    if let Err(cause) = written {
        tracing::error!("cannot write down in {} that epoch {epoch} has begun: {cause}", path.display());
    }
}

/// Waits until somebody shows that the cluster is in a higher epoch.
pub async fn overtaken_by(peers: &PeerClients, config: &Config) -> String {
    let epoch = peers.overtaken().wait_for(|epoch| *epoch > config.epoch).await.map(|epoch| *epoch);
    match epoch {
        Ok(epoch) => {
            remember(config, epoch);
            overtaken(&config.data_dir, &config.cluster_id, config.epoch, epoch)
        }
        // The sender lives as long as `peers`.
        Err(_) => std::future::pending().await,
    }
}

/// Runs until this master must not go on, and says why.
pub async fn watch(shared: Arc<Shared>) -> String {
    let config = &shared.config;
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            why = overtaken_by(&shared.peers, config) => return why,
            _ = look.tick() => {}
        }
        let answer = ask(shared.peers.client(config.member_id, &config.advertise_peer, Lane::General)).await;
        if answer.is_ok_and(|answer| answer.incarnation != shared.incarnation) {
            return copied(config, &config.advertise_peer);
        }
    }
}

fn copied(config: &Config, address: &str) -> String {
    format!(
        "another process runs as member {} ({}) and answers at {address}: {} is a copy of its data dir. One member must never run \
         twice. Remove the copy, and join this machine under an id of its own (`hactl cluster join`)",
        config.member_id,
        config.name,
        config.data_dir.display()
    )
}

fn removed(config: &Config) -> String {
    format!(
        "{} (member {}) was removed from cluster {} (`hactl cluster remove`, or another took its place); {} must not take part any \
         more. Empty it (`hactl cluster leave --force --data-dir {3}`) and join this machine again (`hactl cluster join … --master`)",
        config.name,
        config.member_id,
        config.cluster_id,
        config.data_dir.display()
    )
}

fn overtaken(data_dir: &Path, cluster_id: &str, epoch: u64, now: u64) -> String {
    format!(
        "cluster {cluster_id} went on in epoch {now} without this member, by `hactl cluster recover` or `snapshot restore`; {} is of \
         epoch {epoch} and must not take part any more. Empty it (`hactl cluster leave --force --data-dir {0}`) and join this \
         machine again (`hactl cluster join … --master`)",
        data_dir.display()
    )
}
