//! `hactl cluster …`: making a cluster of machines and looking after it. The calls go to any master over gRPC with the
//! admin's certificate; what they mean is the masters' business.

mod init;
mod join;
pub mod kubeconfig;
mod leave;
pub mod prepare;
mod status;
mod token;
mod unit;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use rpc::pb;
use rpc::pb::cluster_client::ClusterClient;
use tonic::transport::Channel;

use super::credentials::{Access, DATA_DIR, Masters};

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
    /// Print the path of the admin's kubeconfig, or write a new one
    Kubeconfig(kubeconfig::Write),
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

/// Connects to any master.
pub async fn connect(access: &Access) -> Result<ClusterClient<Channel>> {
    let Masters { addresses, issuer_pem, certificate_pem, key_pem } = access.masters().await?;
    let credential = rpc::pki::Credential { certificate_pem, key_pem };
    let certificate = rpc::tls::Certificate::new(&credential, "admin's")?;
    let tls = rpc::tls::api_client(&issuer_pem, Some(&certificate))?;
    let (_, channel) = rpc::client::Masters::new(addresses, tls)
        .connect()
        .await
        .context("is `hactl run` running on the masters? (`systemctl status hactl`, `hactl local status`)")?;
    Ok(ClusterClient::new(channel))
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
        _ => anyhow::anyhow!("{}", status.message()),
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

pub async fn create_token(access: &Access, master: bool, node: bool, ttl: Duration, why: &str) -> Result<String> {
    let mut client = connect(access).await?;
    let request = pb::CreateTokenRequest { master, node, ttl_seconds: ttl.as_secs(), description: why.to_owned() };
    Ok(client.create_token(timed(request)).await.map_err(refused)?.into_inner().token)
}
