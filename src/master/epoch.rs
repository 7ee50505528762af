//! Beginning a new epoch: a cluster of one master, out of a snapshot file or of what a survivor holds. No process runs on
//! the data dir meanwhile.
//!
//! ```text
//!   snapshot file ─▶ restore ─┐
//!                             ├─▶ new epoch: members before removed, revision far ahead, history gone ─▶ log/, state/, pki/
//!   log/, state/  ─▶ recover ─┘
//! ```
//!
//! **Invariant:** an epoch is higher than every one before, also when the same snapshot is restored twice: nodes and
//! masters follow the highest and refuse all others.

use std::path::{Path, PathBuf};

use consensus::recovery;
use rpc::pki::{ApiName, Bundles, DataKeys, Dir, Issuers, Lifetimes, NodeName, PeerName, files, kubeconfig, unix_now};
use serde::{Deserialize, Serialize};
use state::{Command, EntryId, Key, Revision, State};

use crate::config::{MasterFile, first_service_ip};
use crate::records::{self, MemberRecord};
use crate::setup::{api_hosts, write_kubeconfig};
use crate::snapshot::Opened;
use crate::{Error, own, sessions};

pub use consensus::Member;
pub use consensus::recovery::Survey;

/// More revisions than a cluster can make in a second.
const REVISIONS_PER_S: u64 = 100_000;
/// Written while a recovery is under way; removed when it is complete.
const MARK: &str = "recovery.json";

/// The number of the next epoch. Seconds of the clock, so that two that began with the same one before differ; one more
/// than that where the clock is behind.
fn following(epoch: u64, now: i64) -> u64 {
    (epoch + 1).max(u64::try_from(now).unwrap_or(0))
}

/// How the restored master is reached, and what it is called.
#[derive(Clone, Debug)]
pub struct Restore {
    pub data_dir: PathBuf,
    pub kubeconfig: PathBuf,
    pub name: String,
    pub advertise_api: String,
    pub advertise_peer: String,
    /// Further names and addresses of the API's certificate.
    pub api_names: Vec<String>,
    /// The name of the node on this machine, if it shall run pods too.
    pub node: Option<String>,
    pub settings: control::Settings,
    pub lifetimes: Lifetimes,
}

/// What a new epoch began with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    pub cluster_id: String,
    pub epoch: u64,
    pub member_id: u64,
    pub node_uid: Option<String>,
    pub revision: Revision,
    pub objects: usize,
}

/// Makes an empty data dir that of the only master of the snapshot's cluster, in a new epoch. Blocks.
///
/// # Errors
/// When the snapshot's parts do not fit each other or the disk refuses.
pub fn restore(options: &Restore, opened: Opened) -> Result<Begun, Error> {
    let Opened { header, manifest, mut state } = opened;
    if state.version() > state::VERSION {
        return Err(Error::Invalid(format!(
            "the snapshot follows rules of version {}, this hactl knows {}; use the hactl that saved it or a newer one",
            state.version(),
            state::VERSION
        )));
    }
    let now = jiff::Timestamp::now();
    let seconds = now.as_second();
    let epoch = following(header.epoch, seconds);
    let bundles =
        Bundles { peer: manifest.peer_issuer_pem, node: manifest.node_issuer_pem, client: manifest.client_issuer_pem };
    let keys: [String; 3] = serde_json::from_slice(&manifest.master_secrets)
        .map_err(|cause| Error::Invalid(format!("the issuers' keys in the snapshot make no sense: {cause}")))?;
    let issuers = Issuers::from_parts(&bundles, &keys)?;

    let record = MemberRecord {
        name: options.name.clone(),
        peer_address: options.advertise_peer.clone(),
        api_address: options.advertise_api.clone(),
        removed: false,
        joiner: String::new(),
    };
    let mut commands = vec![records::remove_members(&state, None, now)];
    let (member_id, registered) = records::registration(&state, &record, now);
    commands.push(registered);
    let node_uid = match &options.node {
        None => None,
        Some(name) => Some(own_node(&state, name, now, &mut commands)?),
    };

    let dir = Dir::of(&options.data_dir);
    dir.write_issuers(&issuers)?;
    if !manifest.data_keys.is_empty() {
        dir.write_data_keys(&DataKeys::from_json(&manifest.data_keys)?)?;
    }
    let peer = PeerName { cluster_id: header.cluster_id.clone(), epoch, member: member_id };
    dir.write_credential(files::PEER, &own::peer(&issuers, &peer, &options.lifetimes, seconds)?)?;
    let api = ApiName {
        member: member_id,
        hosts: api_hosts(&options.advertise_api, &options.api_names),
        service_ip: first_service_ip(&options.settings),
    };
    dir.write_credential(files::API, &own::api(&issuers, &api, &options.lifetimes, seconds)?)?;
    if let (Some(name), Some(uid)) = (&options.node, &node_uid) {
        let name = NodeName { cluster_id: header.cluster_id.clone(), name: name.clone(), uid: uid.clone() };
        dir.write_credential(files::NODE, &own::node(&issuers, &name, &options.lifetimes, seconds)?)?;
    }

    // A second restore of the same file must not give out the first one's revisions again.
    let age = u64::try_from(seconds.saturating_sub(header.created)).unwrap_or(0);
    let ahead = state::EPOCH_AHEAD + age.saturating_mul(REVISIONS_PER_S);
    let at = EntryId { term: state.applied().term + 1, index: state.applied().index + 1 };
    state.forget_history(0);
    let member =
        Member { id: member_id, name: record.name, peer_address: record.peer_address, api_address: record.api_address };
    let state = recovery::found(
        &options.data_dir,
        &header.cluster_id,
        member,
        state,
        recovery::Beginning { at, ahead },
        &commands,
    )?;
    let file = MasterFile { cluster_id: header.cluster_id.clone(), member_id, members: Vec::new(), started: true };
    file.save(&options.data_dir)?;
    let server = kubeconfig::Server {
        context: "hactl".to_owned(),
        url: format!("https://{}", options.advertise_api),
        tls_name: None,
    };
    write_kubeconfig(&options.data_dir, &options.kubeconfig, &[server], &options.lifetimes)?;
    Ok(Begun {
        cluster_id: header.cluster_id,
        epoch,
        member_id,
        node_uid,
        revision: state.revision(),
        objects: state.len(),
    })
}

/// The uid of this machine's node: the one it had, so that its containers are still its own, or a new one.
fn own_node(state: &State, name: &str, now: jiff::Timestamp, commands: &mut Vec<Command>) -> Result<String, Error> {
    if let Some(node) = state.get(&Key::node(name)) {
        return Ok(node.header.uid.clone());
    }
    let uid = uuid::Uuid::new_v4().to_string();
    commands.push(sessions::new_node(name, &uid, now).map_err(|refused| Error::Invalid(refused.1))?);
    Ok(uid)
}

/// What the data dir of a stopped master holds. Blocks.
///
/// # Errors
/// When another member owns it, or it is damaged.
pub fn survey(data_dir: &Path, cluster_id: &str, member_id: u64) -> Result<Survey, Error> {
    Ok(recovery::survey(data_dir, cluster_id, member_id)?)
}

#[derive(Serialize, Deserialize)]
struct Mark {
    epoch: u64,
}

/// Whether a recovery of this data dir was interrupted: nothing may start on it before it was completed.
pub fn is_interrupted(data_dir: &Path) -> bool {
    data_dir.join(MARK).exists()
}

/// Makes a survivor the only member of a new epoch, with everything in its log. Blocks. Can be repeated until
/// [`complete`], which comes when the caller has written down the new epoch too.
///
/// # Errors
/// When the disk refuses; a repetition goes on where this ended.
pub fn recover(
    data_dir: &Path,
    epoch: u64,
    member: Member,
    survey: Survey,
    cluster_id: &str,
    lifetimes: &Lifetimes,
) -> Result<Begun, Error> {
    let now = jiff::Timestamp::now();
    let epoch = following(epoch, now.as_second());
    let mark = serde_json::to_vec(&Mark { epoch }).map_err(|cause| Error::Invalid(cause.to_string()))?;
    files::write_private(&data_dir.join(MARK), &mark)?;

    let dir = Dir::of(data_dir);
    let peer = PeerName { cluster_id: cluster_id.to_owned(), epoch, member: member.id };
    dir.write_credential(files::PEER, &own::peer(&dir.issuers()?, &peer, lifetimes, now.as_second())?)?;
    let beginning = recovery::Beginning { at: survey.next_position(), ahead: state::EPOCH_AHEAD };
    let commands = [records::remove_members(&survey.state, Some(member.id), now)];
    let member_id = member.id;
    let state = recovery::found(data_dir, cluster_id, member, survey.state, beginning, &commands)?;
    let file = MasterFile { cluster_id: cluster_id.to_owned(), member_id, members: Vec::new(), started: true };
    file.save(data_dir)?;
    Ok(Begun {
        cluster_id: cluster_id.to_owned(),
        epoch,
        member_id,
        node_uid: None,
        revision: state.revision(),
        objects: state.len(),
    })
}

/// The last step of a recovery.
///
/// # Errors
/// When the disk refuses.
pub fn complete(data_dir: &Path) -> Result<(), Error> {
    let path = data_dir.join(MARK);
    std::fs::remove_file(&path)
        .and_then(|()| std::fs::File::open(data_dir)?.sync_all())
        .map_err(|source| Error::File { path, source })
}

/// Which other members answer. One that refuses us lives too.
pub struct Answered {
    pub member: Member,
    pub voter: bool,
    pub lives: bool,
    /// What it said, where that says more.
    pub message: String,
}

/// Asks all other members of a survey whether they live, with a certificate made for this, since that on disk may be over.
///
/// # Errors
/// When this is no master's data dir.
pub async fn ask_others(
    data_dir: &Path,
    me: &PeerName,
    survey: &Survey,
    lifetimes: &Lifetimes,
) -> Result<Vec<Answered>, Error> {
    let issuers = Dir::of(data_dir).issuers()?;
    let credential = own::peer(&issuers, me, lifetimes, unix_now())?;
    let certificate = rpc::tls::Certificate::new(&credential, files::PEER)?;
    let tls = rpc::tls::peer_client(&certificate, &issuers.bundles())?;
    let peers = rpc::peer::PeerClients::new(std::sync::Arc::new(rpc::transport::Tcp), tls, me.clone());
    let others = survey.members.iter().filter(|member| member.id != me.member).map(|member| {
        let peers = peers.clone();
        async move {
            let mut client = peers.client(member.id, &member.peer_address, rpc::peer::Lane::General);
            let asked = client.member_status(rpc::pb::MemberStatusRequest::default());
            let (lives, message) = match tokio::time::timeout(ASK_LIMIT, asked).await {
                Ok(Ok(_)) => (true, String::new()),
                Ok(Err(status)) if rpc::channel::NeverConnected::is_behind(&status) => {
                    (false, "cannot be reached".into())
                }
                Ok(Err(status)) if status.code() == tonic::Code::Unavailable => (false, status.message().to_owned()),
                Ok(Err(status)) => (true, status.message().to_owned()),
                Err(_) => (false, format!("does not answer within {} s", ASK_LIMIT.as_secs())),
            };
            Answered { voter: survey.voters.contains(&member.id), member: member.clone(), lives, message }
        }
    });
    Ok(futures::future::join_all(others).await)
}

const ASK_LIMIT: std::time::Duration = std::time::Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_higher_than_every_one_before() {
        assert_eq!(following(1, 1_700_000_000), 1_700_000_000);
        assert_eq!(following(1_700_000_000, 1_700_000_000), 1_700_000_001, "within a second");
        assert_eq!(following(1_700_000_000, -5), 1_700_000_001, "the clock is behind");
    }
}
