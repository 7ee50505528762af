//! Making a cluster's first master, and joining one as master, node or both. Each writes its files only once everything
//! that can fail elsewhere has succeeded; what is written is `pki/`, `master.json` and the admin's kubeconfig.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rpc::pb;
use rpc::pki::{
    ApiName, Bundles, Credential, DataKeys, Dir, Issuers, Lifetimes, NodeName, PeerName, files, kubeconfig,
    signing_request, unix_now,
};
use rpc::token::Token;

use crate::config::{MasterFile, first_service_ip, host};
use crate::{Error, own};

/// The epoch of a cluster that was never restored.
const FIRST_EPOCH: u64 = 1;
/// The id of the member that makes the cluster.
pub(crate) const FIRST_MEMBER: u64 = 1;

/// How long a join is asked for whose answer does not come, and the pause between.
const JOIN_WITHIN: Duration = Duration::from_secs(30);
const JOIN_PAUSE: Duration = Duration::from_millis(500);

/// What the first master is made of.
#[derive(Clone, Debug)]
pub struct Create {
    pub data_dir: PathBuf,
    /// Where to write the administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    pub advertise_api: String,
    /// Further names and addresses of the API's certificate.
    pub api_names: Vec<String>,
    /// The name of the node on this machine, if it shall run pods too.
    pub node: Option<String>,
    pub settings: control::Settings,
    pub lifetimes: Lifetimes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    pub cluster_id: String,
    pub epoch: u64,
    pub member_id: u64,
    pub node_uid: Option<String>,
    /// Of a join token for this cluster.
    pub pin: String,
}

/// Prepares the first master: ids, issuers, certificates, kubeconfig. Consensus begins with the first [`crate::run`].
///
/// # Errors
/// When something cannot be written.
pub fn create(options: &Create) -> Result<Created, Error> {
    let now = unix_now();
    let cluster_id = uuid::Uuid::new_v4().to_string();
    let issuers = Issuers::create(&cluster_id, &options.lifetimes, now)?;
    let dir = Dir::of(&options.data_dir);
    let peer = own::peer(&issuers, &peer_name(&cluster_id, FIRST_EPOCH, FIRST_MEMBER), &options.lifetimes, now)?;
    let api = own::api(
        &issuers,
        &ApiName {
            member: FIRST_MEMBER,
            hosts: api_hosts(&options.advertise_api, &options.api_names),
            service_ip: first_service_ip(&options.settings),
        },
        &options.lifetimes,
        now,
    )?;
    let node_uid = options.node.as_ref().map(|_| uuid::Uuid::new_v4().to_string());
    let node = match (&options.node, &node_uid) {
        (Some(name), Some(uid)) => {
            let name = NodeName { cluster_id: cluster_id.clone(), name: name.clone(), uid: uid.clone() };
            Some(own::node(&issuers, &name, &options.lifetimes, now)?)
        }
        _ => None,
    };
    dir.write_issuers(&issuers)?;
    dir.write_data_keys(&DataKeys::generate()?)?;
    dir.write_credential(files::PEER, &peer)?;
    dir.write_credential(files::API, &api)?;
    if let Some(node) = node {
        dir.write_credential(files::NODE, &node)?;
    }
    let file =
        MasterFile { cluster_id: cluster_id.clone(), member_id: FIRST_MEMBER, members: Vec::new(), started: false };
    file.save(&options.data_dir)?;
    write_kubeconfig(
        &options.data_dir,
        &options.kubeconfig,
        &[server("hactl", &options.advertise_api)],
        &options.lifetimes,
    )?;
    let pin = issuers.bundles().pin()?;
    Ok(Created { cluster_id, epoch: FIRST_EPOCH, member_id: FIRST_MEMBER, node_uid, pin })
}

/// How one more machine joins.
#[derive(Clone, Debug)]
pub struct Join {
    pub data_dir: PathBuf,
    /// host:port of any master's API.
    pub address: String,
    pub token: String,
    /// As master: where it is reached.
    pub master: Option<JoinMaster>,
    /// As node: its name.
    pub node: Option<String>,
    pub version: String,
    /// Random, and the same when the join is tried again: the masters know the machine by it.
    pub nonce: String,
    /// As master: name or id of the dead one whose place it takes.
    pub replaces: Option<String>,
    /// The epoch that this machine knows the cluster to be in; 0: none.
    pub epoch: u64,
}

#[derive(Clone, Debug)]
pub struct JoinMaster {
    pub name: String,
    pub advertise_api: String,
    pub advertise_peer: String,
    pub kubeconfig: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    pub cluster_id: String,
    pub epoch: u64,
    /// host:port of all masters' APIs.
    pub masters: Vec<String>,
    pub member_id: Option<u64>,
    pub node_uid: Option<String>,
    /// What all machines share, by the names of docs/settings.md.
    pub settings: std::collections::BTreeMap<String, String>,
}

/// Joins: verifies the cluster by the token's pin, has certificates signed, and writes them. A master becomes learner and
/// then voter by itself when it first runs.
///
/// # Errors
/// With the cause and the cure; nothing is written then. [`Error::Lost`] when it may have happened all the same.
pub async fn join(options: &Join) -> Result<Joined, Error> {
    let token = Token::parse(&options.token).map_err(|cause| Error::Invalid(cause.to_string()))?;
    let (peer_key, peer_csr) = signing_request()?;
    let (api_key, api_csr) = signing_request()?;
    let (node_key, node_csr) = signing_request()?;
    let master = options.master.as_ref();
    let request = pb::JoinRequest {
        token_id: token.id.clone(),
        token_secret: token.secret.clone(),
        master: master.is_some(),
        node: options.node.is_some(),
        name: options.node.clone().or_else(|| master.map(|m| m.name.clone())).unwrap_or_default(),
        member_name: master.map(|m| m.name.clone()).unwrap_or_default(),
        peer_address: master.map(|m| m.advertise_peer.clone()).unwrap_or_default(),
        api_address: master.map(|m| m.advertise_api.clone()).unwrap_or_default(),
        peer_csr_pem: if master.is_some() { peer_csr } else { String::new() },
        api_csr_pem: if master.is_some() { api_csr } else { String::new() },
        node_csr_pem: if options.node.is_some() { node_csr } else { String::new() },
        version: options.version.clone(),
        nonce: options.nonce.clone(),
        replaces: options.replaces.clone().unwrap_or_default(),
        epoch: options.epoch,
    };
    let answer = ask_to_join(options, &token, &request).await?;
    if answer.epoch < options.epoch {
        return Err(Error::Refused(of_before(answer.epoch, options.epoch)));
    }
    // Over the verified connection; they may be newer than those the token pins.
    let bundles = Bundles {
        peer: answer.peer_issuer_pem.clone(),
        node: answer.node_issuer_pem.clone(),
        client: answer.client_issuer_pem.clone(),
    };
    let dir = Dir::of(&options.data_dir);
    if let Some(master) = master {
        let keys: [String; 3] = serde_json::from_slice(&answer.master_secrets)
            .map_err(|cause| Error::Refused(format!("the master's answer makes no sense: {cause}")))?;
        dir.write_issuers(&Issuers::from_parts(&bundles, &keys)?)?;
        if !answer.previous_secrets.is_empty() {
            let keys: [String; 3] = serde_json::from_slice(&answer.previous_secrets)
                .map_err(|cause| Error::Refused(format!("the master's answer makes no sense: {cause}")))?;
            dir.write_other_keys(files::Other::Previous, Some(&keys))?;
        }
        if !answer.data_keys.is_empty() {
            dir.write_data_keys(&DataKeys::from_json(&answer.data_keys)?)?;
        }
        dir.write_credential(files::PEER, &credential(&answer.peer_certificate_pem, peer_key))?;
        dir.write_credential(files::API, &credential(&answer.api_certificate_pem, api_key))?;
        let file = MasterFile {
            cluster_id: answer.cluster_id.clone(),
            member_id: answer.member_id,
            members: answer.members.into_iter().map(Into::into).collect(),
            started: false,
        };
        file.save(&options.data_dir)?;
        let mut servers = vec![server("hactl", &master.advertise_api)];
        servers.extend(answer.api_addresses.iter().map(|address| server(&format!("hactl-{address}"), address)));
        write_kubeconfig(&options.data_dir, &master.kubeconfig, &servers, &Lifetimes::default())?;
    } else {
        dir.write_bundles(&bundles)?;
    }
    if options.node.is_some() {
        dir.write_credential(files::NODE, &credential(&answer.node_certificate_pem, node_key))?;
    }
    let mut settings: std::collections::BTreeMap<String, String> = answer.settings.into_iter().collect();
    if !answer.cluster_cidr.is_empty() {
        settings.insert("cluster-cidr".to_owned(), answer.cluster_cidr);
    }
    Ok(Joined {
        cluster_id: answer.cluster_id,
        epoch: answer.epoch,
        masters: answer.api_addresses,
        member_id: master.map(|_| answer.member_id),
        node_uid: options.node.as_ref().map(|_| answer.node_uid),
        settings,
    })
}

/// What a joiner is told that knows of a later epoch than the master it asks.
pub(crate) fn of_before(epoch: u64, known: u64) -> String {
    format!(
        "the cluster went on in epoch {known}, as this machine knows, and the master that was asked is of epoch {epoch}: stop that one, and \
         ask a master of the later epoch"
    )
}

/// Asks until there is an answer: the masters recognise a machine that asks again.
async fn ask_to_join(options: &Join, token: &Token, request: &pb::JoinRequest) -> Result<pb::JoinResponse, Error> {
    let mut lost = None;
    let since = Instant::now();
    while since.elapsed() < JOIN_WITHIN {
        let channel = match (rpc::join::connect(&options.address, token).await, lost.take()) {
            (Ok((channel, _)), _) => channel,
            (Err(_), Some(lost)) => return Err(lost),
            (Err(error), None) => return Err(error.into()),
        };
        let mut client = pb::cluster_client::ClusterClient::new(channel);
        match client.join(request.clone()).await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) => match status.code() {
                tonic::Code::Unavailable
                | tonic::Code::DeadlineExceeded
                | tonic::Code::Cancelled
                | tonic::Code::Unknown
                | tonic::Code::Internal => lost = Some(Error::Lost(status.message().to_owned())),
                _ => return Err(Error::Refused(status.message().to_owned())),
            },
        }
        tokio::time::sleep(JOIN_PAUSE).await;
    }
    Err(lost.unwrap_or_else(|| Error::Lost("no answer".to_owned())))
}

/// Where the API servers of the masters are that a stopped or damaged one knew of last, as `host:port`; none where that is lost
/// too. Blocks.
pub fn noted_masters(data_dir: &Path) -> Vec<String> {
    consensus::recovery::members(data_dir).into_iter().map(|member| member.api_address).collect()
}

/// Signs a fresh administrator's certificate with this master's issuers and writes a kubeconfig of these servers.
///
/// # Errors
/// When this is no master's data dir, or something cannot be written.
pub fn write_kubeconfig(
    data_dir: &Path,
    path: &Path,
    servers: &[kubeconfig::Server],
    lifetimes: &Lifetimes,
) -> Result<(), Error> {
    let issuers = Dir::of(data_dir).issuers()?;
    let credential = kubeconfig::admin_credential(&issuers, lifetimes, unix_now())?;
    let bundles: Bundles = issuers.bundles();
    Ok(kubeconfig::write(path, kubeconfig::ADMIN_USER, servers, &credential, &bundles)?)
}

fn server(context: &str, address: &str) -> kubeconfig::Server {
    kubeconfig::Server { context: context.to_owned(), url: format!("https://{address}"), tls_name: None }
}

fn credential(certificate_pem: &str, key_pem: String) -> Credential {
    Credential { certificate_pem: certificate_pem.to_owned(), key_pem }
}

fn peer_name(cluster_id: &str, epoch: u64, member: u64) -> PeerName {
    PeerName { cluster_id: cluster_id.to_owned(), epoch, member }
}

/// The hosts of an API certificate.
pub(crate) fn api_hosts(advertise_api: &str, further: &[String]) -> Vec<String> {
    std::iter::once(host(advertise_api).to_owned()).chain(further.iter().cloned()).collect()
}
