//! `hactl cluster leave`: undoes a join. The cluster is told first, while this machine's roles still run; then they are
//! stopped, the pods removed, and at last the data.

use anyhow::{Context, Result};
use rpc::pb;

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
    /// The kubeconfig of an administrator, on a machine that is only a node
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<std::path::PathBuf>,
    #[command(flatten)]
    data_dir: DataDir,
}

impl Leave {
    pub async fn run(self) -> Result<()> {
        let data_dir = self.data_dir.data_dir.clone();
        let installation = Installation::load(&data_dir)?;
        if let Err(error) = self.tell(&installation).await {
            if !self.force {
                return Err(error.context(
                    "the cluster could not be told, so nothing was changed; --force removes this machine's data nevertheless",
                ));
            }
            note(format!("the cluster could not be told: {error:#}"));
        }
        let progress = Progress::start("stopping");
        unit::remove()?;
        run::stop(&data_dir).await?;
        progress.done("stopped");
        if let Some(node) = &installation.node {
            let progress = Progress::start("removing the pods of this machine");
            let settings = Flags::default().resolve(&installation.settings)?;
            let docker = settings.text("docker-host").unwrap_or_default();
            kubelet::teardown(docker, &installation.cluster_id, &node.uid, &data_dir)
                .await
                .context("cannot remove the pods; is Docker running?")?;
            progress.done("removed");
        }
        std::fs::remove_dir_all(&data_dir).with_context(|| format!("cannot remove {}", data_dir.display()))?;
        println!("{} left cluster {}", installation.name, installation.cluster_id);
        Ok(())
    }

    async fn tell(&self, installation: &Installation) -> Result<()> {
        let own = self.data_dir.data_dir.join(FILE);
        let access = match &self.kubeconfig {
            Some(path) => Access::of(path),
            None if own.exists() => Access::of(own),
            None => Access { data_dir: self.data_dir.data_dir.clone(), ..Access::default() },
        };
        let mut client = super::connect(&access).await?;
        let request = pb::LeaveRequest {
            member_id: installation.master.as_ref().map_or(0, |master| master.member_id),
            node: installation.node.as_ref().map(|node| node.name.clone()).unwrap_or_default(),
        };
        let progress = Progress::start("leaving the cluster");
        client.leave(super::timed(request)).await.map_err(super::refused)?;
        progress.done("left");
        Ok(())
    }
}
