//! Keeps a data dir from taking part that must not: one of an epoch that is over, a copy of a member that runs, and an old
//! copy of a member. Each of them would break a promise that the cluster has made.
//!
//! ```text
//!   before the ports are taken   does somebody answer at our own address?            a copy runs
//!   before they are served       what do the others say of our epoch, and our log?   overtaken; an old copy
//!   while running                whoever refuses us for our epoch; our own address   overtaken; a copy runs
//! ```
//!
//! Members that come back together ask each other before they serve, so none of them can be elected before it has asked.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use consensus::Consensus;
use rpc::pb;
use rpc::peer::{Client, Lane, PeerClients, epoch_of};
use tonic::Status;

use crate::Config;
use crate::service::Shared;

/// How long an answer is waited for before a start goes on: masters that start together do not answer each other yet.
const ASK_LIMIT: Duration = Duration::from_millis(300);
/// How often a running master looks who answers at its address.
const LOOK_EVERY: Duration = Duration::from_secs(5);

async fn ask(mut client: Client) -> Result<pb::MemberStatusResponse, Option<Status>> {
    match tokio::time::timeout(ASK_LIMIT, client.member_status(pb::MemberStatusRequest {})).await {
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
            Err(Some(status)) => {
                if let Some(epoch) = epoch_of(&status).filter(|epoch| *epoch > config.epoch) {
                    return Err(overtaken(&config.data_dir, &config.cluster_id, config.epoch, epoch));
                }
            }
            // A leader of an earlier term may know of entries that a later one took back.
            Ok(said)
                if said.role == "leader" && said.term >= own.term && said.acknowledged_index > own.last_log_index =>
            {
                return Err(format!(
                    "{} had synced its log up to entry {} once, as {} knows, but the log in {} ends at {}: this is an old copy, which \
                     must not take part any more. Remove the member on another master, empty the data dir (`hactl cluster leave \
                     --force --data-dir {3}`) and join this machine again",
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

/// Runs until this master must not go on, and says why.
pub async fn watch(shared: Arc<Shared>) -> String {
    let config = &shared.config;
    let mut overtaken_by = shared.peers.overtaken();
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            Ok(epoch) = overtaken_by.wait_for(|epoch| *epoch > config.epoch) => {
                return overtaken(&config.data_dir, &config.cluster_id, config.epoch, *epoch);
            }
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

fn overtaken(data_dir: &Path, cluster_id: &str, epoch: u64, now: u64) -> String {
    format!(
        "cluster {cluster_id} went on in epoch {now} without this member, by `hactl cluster recover` or `snapshot restore`; {} is of \
         epoch {epoch} and must not take part any more. Empty it (`hactl cluster leave --force --data-dir {0}`) and join this \
         machine again (`hactl cluster join … --master`)",
        data_dir.display()
    )
}
