//! `hactl cluster …`: making a cluster of machines and looking after it. The calls go to any master over gRPC with the
//! admin's certificate; what they mean is the masters' business.

mod certs;
mod init;
mod join;
pub mod kubeconfig;
mod leave;
mod members;
mod next;
pub mod prepare;
mod recover;
pub mod recovery_key;
mod replace;
mod secrets;
mod snapshot;
mod status;
mod token;
mod unit;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use rpc::pb;
use rpc::pb::cluster_client::ClusterClient;
use tonic::transport::Channel;

use super::credentials::{Access, DATA_DIR, foreign};

/// The longest a master may take to answer one call.
const CALL_LIMIT: Duration = Duration::from_secs(15);

#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Make a new cluster with this machine as its first master
    Init(Box<init::Init>),
    /// Add this machine to a cluster, as master, node or both
    Join(Box<join::Join>),
    /// Show masters and nodes, who leads, and what is wrong
    Status(status::Show),
    /// Tokens that let machines join
    #[command(subcommand)]
    Token(token::Verb),
    /// Print the path of the kubeconfig that commands use, or write a new one
    Kubeconfig(kubeconfig::Write),
    /// Save, check and restore everything the cluster is
    #[command(subcommand)]
    Snapshot(snapshot::Verb),
    /// The key that snapshots are encrypted to
    #[command(subcommand)]
    RecoveryKey(recovery_key::Verb),
    /// Go on with this one master when the majority is lost for good
    Recover(recover::Recover),
    /// Take a master out of the cluster, alive or dead
    Remove(members::Remove),
    /// Put this machine in the place of a dead master: after a lost disk, or one whose data is damaged
    Replace(Box<replace::Replace>),
    /// Let another master lead
    TransferLeadership(members::Transfer),
    /// The key that Secrets are sealed with
    #[command(subcommand)]
    Secrets(secrets::Verb),
    /// Certificates: show them, make new ones, make new issuers
    #[command(subcommand)]
    Certs(certs::Verb),
    /// Undo a join: take this machine out of its cluster and remove its data
    Leave(leave::Leave),
}

impl Verb {
    pub async fn run(self) -> Result<()> {
        match self {
            Verb::Init(verb) => verb.run().await,
            Verb::Join(verb) => verb.run().await,
            Verb::Status(verb) => verb.run().await,
            Verb::Token(verb) => verb.run().await,
            Verb::Kubeconfig(verb) => verb.run(),
            Verb::Snapshot(verb) => verb.run().await,
            Verb::RecoveryKey(verb) => verb.run().await,
            Verb::Recover(verb) => verb.run().await,
            Verb::Remove(verb) => verb.run().await,
            Verb::Replace(verb) => verb.run().await,
            Verb::TransferLeadership(verb) => verb.run().await,
            Verb::Secrets(verb) => verb.run().await,
            Verb::Certs(verb) => verb.run().await,
            Verb::Leave(verb) => verb.run().await,
        }
    }
}

/// Which data dir a command prepares.
#[derive(Clone, Debug, clap::Args)]
pub struct DataDir {
    /// Where this machine keeps its data
    #[arg(long, value_name = "DIR", default_value = DATA_DIR, env = "HACTL_DATA_DIR", hide_env = true)]
    pub data_dir: PathBuf,
}

/// The masters, to be called with the admin's certificate.
pub async fn masters(access: &Access) -> Result<rpc::client::Masters> {
    let (addresses, tls) = access.masters().await?.tls()?;
    Ok(rpc::client::Masters::new(addresses, tls))
}

/// Connects to any master.
pub async fn connect(access: &Access) -> Result<ClusterClient<Channel>> {
    let (_, channel) = masters(access).await?.connect().await.map_err(|error| {
        let away = "is `hactl run` running on the masters? (`systemctl status hactl`, `hactl local status`)";
        let cure = foreign(&error.to_string()).unwrap_or(away);
        anyhow::Error::new(error).context(cure)
    })?;
    Ok(ClusterClient::new(channel))
}

/// `host:port` of a master that answers.
pub async fn living(access: &Access) -> Result<String> {
    Ok(masters(access).await?.connect().await?.0)
}

/// The message a master answered with, as an error.
pub fn refused(status: tonic::Status) -> anyhow::Error {
    match status.code() {
        tonic::Code::Unavailable | tonic::Code::DeadlineExceeded => {
            anyhow::anyhow!(
                "the masters cannot do this now: {}; try again, or look at `hactl cluster status`",
                status.message()
            )
        }
        _ => match foreign(status.message()) {
            Some(cure) => anyhow::anyhow!("{cure}: {}", status.message()),
            None => anyhow::anyhow!("{}", status.message()),
        },
    }
}

pub fn timed<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL_LIMIT);
    request
}

pub async fn status_of(access: &Access) -> Result<pb::ClusterStatusResponse> {
    let mut client = connect(access).await?;
    Ok(client.status(timed(pb::ClusterStatusRequest {})).await.map_err(refused)?.into_inner())
}

/// The name of the master that leads.
pub fn leader_name(status: &pb::ClusterStatusResponse) -> Option<String> {
    let info = status.members.iter().filter_map(|member| member.member.as_ref());
    info.into_iter().find(|info| status.leader != 0 && info.id == status.leader).map(|info| info.name.clone())
}

pub async fn revoke_token(access: &Access, id: &str) -> Result<()> {
    let mut client = connect(access).await?;
    client.revoke_token(timed(pb::RevokeTokenRequest { id: id.to_owned() })).await.map_err(refused)?;
    Ok(())
}

pub async fn create_token(access: &Access, master: bool, node: bool, ttl: Duration, why: &str) -> Result<String> {
    let mut client = connect(access).await?;
    let request = pb::CreateTokenRequest { master, node, ttl_seconds: ttl.as_secs(), description: why.to_owned() };
    Ok(client.create_token(timed(request)).await.map_err(refused)?.into_inner().token)
}
