//! `down`, `kill` and `start` of a local cluster.

use anyhow::{Context, Result};

use super::super::installation::Installation;
use super::super::progress::{Progress, note};
use super::super::settings::Flags;
use super::layout::Layout;
use super::{Dir, up};

/// Stop all its processes and pods
#[derive(Debug, clap::Args)]
pub struct Down {
    #[command(flatten)]
    dir: Dir,
    /// Remove its data as well
    #[arg(long)]
    delete: bool,
}

/// `kill -9` one process
#[derive(Debug, clap::Args)]
pub struct Kill {
    /// `master-1`, `node-2`
    name: String,
    /// Of a node: its containers too, as if the machine had died
    #[arg(long)]
    with_pods: bool,
    #[command(flatten)]
    dir: Dir,
}

/// Start a killed process again
#[derive(Debug, clap::Args)]
pub struct Start {
    /// `master-1`, `node-2`
    name: String,
    #[command(flatten)]
    dir: Dir,
}

impl Down {
    pub async fn run(self) -> Result<()> {
        let path = self.dir.path();
        if !Layout::exists(&path) {
            note(format!("there is no local cluster in {}; nothing to do", path.display()));
            return Ok(());
        }
        let layout = Layout::load(&path)?;
        let _lock = up::lock(&layout.dir)?;
        let mut progress = Progress::start("stopping the cluster");
        // Nodes first, so that no kubelet starts again what is being removed; then all masters at once.
        let nodes: Vec<String> = layout.plan.nodes.iter().map(|node| node.name.clone()).collect();
        let masters: Vec<String> = layout.plan.masters.iter().map(|master| master.name.clone()).collect();
        for names in [&nodes, &masters] {
            for name in names {
                layout.process(name).ask_to_stop()?;
            }
            for name in names {
                progress.detail(name);
                layout.process(name).stop()?;
            }
        }
        layout.forwarder().stop()?;
        for name in &nodes {
            progress.detail(&format!("the pods of {name}"));
            teardown(&layout, name).await?;
        }
        progress.done("stopped");
        if self.delete {
            std::fs::remove_dir_all(&layout.dir)
                .with_context(|| format!("cannot remove {}; are you root?", layout.dir.display()))?;
            note(format!("removed {}", layout.dir.display()));
        } else {
            note(format!(
                "its data stays in {}; `hactl local up` continues, `down --delete` removes it",
                path.display()
            ));
        }
        Ok(())
    }
}

/// Removes a node's containers, network and rules from the engine; nothing where the node never joined.
async fn teardown(layout: &Layout, name: &str) -> Result<()> {
    let data_dir = layout.data_dir(name);
    if !Installation::exists(&data_dir) {
        return Ok(());
    }
    let installation = Installation::load(&data_dir)?;
    let Some(node) = &installation.node else { return Ok(()) };
    let docker = docker_host(&installation)?;
    kubelet::teardown(&docker, &installation.cluster_id, &node.uid, &data_dir)
        .await
        .with_context(|| format!("cannot remove the pods of {name}; is Docker running?"))
}

fn docker_host(installation: &Installation) -> Result<String> {
    let settings = Flags::default().resolve(&installation.settings)?;
    Ok(settings.text("docker-host").unwrap_or_default().to_owned())
}

impl Kill {
    pub async fn run(self) -> Result<()> {
        let layout = self.dir.load()?;
        layout.check_name(&self.name)?;
        anyhow::ensure!(
            !self.with_pods || layout.is_node(&self.name),
            "{} is a master and has no pods; leave out --with-pods",
            self.name
        );
        let killed = kill(&layout, &self.name)?;
        note(format!("{} {}", self.name, if killed { "killed" } else { "was dead already" }));
        if self.with_pods {
            let installation = Installation::load(&layout.data_dir(&self.name))?;
            let Some(node) = &installation.node else { return Ok(()) };
            let docker = docker_host(&installation)?;
            let count = kubelet::kill_containers(&docker, &installation.cluster_id, &node.uid).await?;
            note(format!("{count} of its containers killed"));
        }
        Ok(())
    }
}

impl Start {
    pub async fn run(self) -> Result<()> {
        let layout = self.dir.load()?;
        layout.check_name(&self.name)?;
        let before = layout.process(&self.name).pid();
        let pid = start(&layout, &self.name)?;
        note(match before {
            Some(_) => format!("{} runs already (pid {pid})", self.name),
            None => format!("{} started; its log: {}", self.name, layout.process(&self.name).log().display()),
        });
        Ok(())
    }
}

/// `kill -9` by name. False: it was dead already.
pub fn kill(layout: &Layout, name: &str) -> Result<bool> {
    layout.process(name).kill()
}

/// Starts the process of one machine.
///
/// # Errors
/// When the machine never joined.
pub fn start(layout: &Layout, name: &str) -> Result<i32> {
    let data_dir = layout.data_dir(name);
    Installation::load(&data_dir)?;
    up::start_machine(layout, name)
}
