//! `hactl cluster leave`: undoes a join. The cluster is told first, while this machine's roles still run; then they are
//! stopped, the pods removed, and at last the data.

use anyhow::{Context, Result};
use rpc::pb;
use rpc::pb::cluster_client::ClusterClient;
use rpc::pki;
use tonic::transport::Channel;

use super::super::credentials::{Access, FILE};
use super::super::installation::Installation;
use super::super::progress::{Progress, note};
use super::super::run;
use super::super::settings::Flags;
use super::{DataDir, unit};

/// Undo a join: take this machine out of its cluster and remove its data
#[derive(Debug, clap::Args)]
pub struct Leave {
    /// Remove this machine's data and pods although the cluster cannot be told
    #[arg(long)]
    force: bool,
    /// The kubeconfig of an administrator [default: this machine's own, or on a node its certificate]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<std::path::PathBuf>,
    #[command(flatten)]
    data_dir: DataDir,
}

impl Leave {
    pub async fn run(self) -> Result<()> {
        let data_dir = std::path::absolute(&self.data_dir.data_dir)?;
        let installation = Installation::load(&data_dir)?;
        if let Err(error) = self.tell(&installation).await {
            if !self.force {
                return Err(
                    error.context("nothing was changed; --force removes this machine's pods and data nevertheless")
                );
            }
            note(format!("the cluster does not know of it: {error:#}"));
        }
        let progress = Progress::start("stopping");
        unit::remove(&data_dir)?;
        run::stop(&data_dir).await?;
        progress.done("stopped");
        if let Some(node) = &installation.node {
            let progress = Progress::start("removing the pods of this machine");
            let settings = Flags::default().resolve(&installation.settings)?;
            let docker = settings.text("docker-host").unwrap_or_default();
            match kubelet::teardown(docker, &installation.cluster_id, &node.uid, &data_dir).await {
                Ok(()) => progress.done("removed"),
                Err(error) if self.force => {
                    note(format!(
                        "the pods stay: {error}. Once Docker runs, remove them by hand: \
                         docker rm -f $(docker ps -aq --filter label=hactl.io/node-uid={})",
                        node.uid
                    ));
                    kubelet::release_volumes(&data_dir)?;
                }
                Err(error) => {
                    return Err(anyhow::Error::new(error).context(
                        "cannot remove the pods of this machine; run this again when Docker runs, or with --force to leave them",
                    ));
                }
            }
        }
        match std::fs::remove_dir_all(&data_dir) {
            // A mount point, such as a container's volume: what was in it is gone.
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy && !Installation::exists(&data_dir) => {}
            result => result.with_context(|| format!("cannot remove {}", data_dir.display()))?,
        }
        println!("{} left cluster {}", installation.name, installation.cluster_id);
        Ok(())
    }

    async fn tell(&self, installation: &Installation) -> Result<()> {
        let mut client = self.connect(installation).await?;
        let request = pb::LeaveRequest {
            member_id: installation.master.as_ref().map_or(0, |master| master.member_id),
            node: installation.node.as_ref().map(|node| node.name.clone()).unwrap_or_default(),
        };
        let progress = Progress::start("leaving the cluster");
        match client.leave(super::timed(request)).await {
            Ok(_) => {}
            // A certificate counts for as long as its Node is there: nothing is left to be told.
            Err(status) if status.code() == tonic::Code::PermissionDenied && self.by_certificate(installation) => {
                note(format!("the cluster has forgotten this machine already: {}", status.message()));
            }
            Err(status) => return Err(super::refused(status)),
        }
        progress.done("left");
        Ok(())
    }

    fn own_kubeconfig(&self) -> std::path::PathBuf {
        self.data_dir.data_dir.join(FILE)
    }

    /// Whether this machine is only a node, which may remove itself with the certificate it has.
    fn by_certificate(&self, installation: &Installation) -> bool {
        self.kubeconfig.is_none() && installation.master.is_none() && !self.own_kubeconfig().exists()
    }

    async fn connect(&self, installation: &Installation) -> Result<ClusterClient<Channel>> {
        let node = match &installation.node {
            Some(node) if self.by_certificate(installation) => node,
            _ => {
                let path = self.kubeconfig.clone().unwrap_or_else(|| self.own_kubeconfig());
                return super::connect(&Access::of(path)).await;
            }
        };
        let data_dir = &self.data_dir.data_dir;
        let dir = pki::Dir::of(data_dir);
        let certificate = rpc::tls::Certificate::new(&dir.credential(pki::files::NODE)?, "node")?;
        let tls = rpc::tls::api_client(&dir.bundles()?.client, Some(&certificate))?;
        let mut addresses = kubelet::known_masters_of(data_dir);
        addresses
            .extend(node.masters.iter().filter(|address| !addresses.contains(address)).cloned().collect::<Vec<_>>());
        let (_, channel) = rpc::client::Masters::new(addresses, tls).connect().await?;
        Ok(ClusterClient::new(channel))
    }
}
