//! `down`, `kill` and `start` of a local cluster.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rpc::pki;

use super::super::cluster;
use super::super::credentials::Access;
use super::super::installation::Installation;
use super::super::progress::{Progress, note};
use super::super::settings::Flags;
use super::layout::{Layout, Master};
use super::{Dir, up};

/// How long a process may take until it serves; a master with a large state reads it first.
const SERVES_WITHIN: Duration = Duration::from_secs(60);
/// A node that has lived for so long is not about to end for its own reasons; without a leader it is not waited for longer.
const SETTLED_AFTER: Duration = Duration::from_secs(3);
/// The pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

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

/// Start a killed process again, and wait until it serves
#[derive(Debug, clap::Args)]
pub struct Start {
    /// `master-1`, `node-2`
    name: String,
    /// Return at once, whatever becomes of it
    #[arg(long, env = "HACTL_LOCAL_NO_WAIT", hide_env = true)]
    no_wait: bool,
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
        let process = layout.process(&self.name);
        if let Some(pid) = process.pid() {
            note(format!("{} runs already (pid {pid})", self.name));
            return Ok(());
        }
        if self.no_wait {
            start(&layout, &self.name)?;
        } else {
            start_and_wait(&layout, &self.name).await?;
        }
        note(format!("{} started; its log: {}", self.name, process.log().display()));
        Ok(())
    }
}

/// `kill -9` by name. False: it was dead already.
pub fn kill(layout: &Layout, name: &str) -> Result<bool> {
    layout.process(name).kill()
}

/// Starts the process of one machine and waits until it serves: a master answers, a node has a session with one.
///
/// # Errors
/// Why it ended, or that it takes long.
pub async fn start_and_wait(layout: &Layout, name: &str) -> Result<()> {
    let process = layout.process(name);
    let (said, since) = (process.log_length(), Instant::now());
    let mut progress = Progress::start(format!("starting {name}"));
    start(layout, name)?;
    let master = layout.plan.masters.iter().find(|master| master.name == name);
    loop {
        let found = match master {
            Some(master) => answers(layout, master).await,
            None => has_session(layout, name, since.elapsed()).await,
        };
        // Before what was found out is believed: on its port somebody else may answer.
        if process.pid().is_none() {
            drop(progress);
            bail!("{name} ended: {} (its log: {})", process.last_words(said), process.log().display());
        }
        let missing = match found {
            Ok(does) => {
                progress.done(does);
                return Ok(());
            }
            Err(missing) => missing,
        };
        if since.elapsed() > SERVES_WITHIN {
            drop(progress);
            bail!(
                "{name} runs and does not serve after {} s ({missing}); it said last: {} (its log: {})",
                SERVES_WITHIN.as_secs(),
                process.last_words(said),
                process.log().display()
            );
        }
        progress.detail(&missing);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// That this master takes connections, or what is missing until it does.
async fn answers(layout: &Layout, master: &Master) -> Result<&'static str, String> {
    let address = format!("127.0.0.1:{}", master.api);
    let connected = async {
        // Without credentials of ours, which may have ended.
        let bundles = pki::Dir::of(&layout.data_dir(&master.name)).bundles()?;
        let tls = rpc::tls::api_client(&bundles.client, None)?;
        anyhow::Ok(rpc::client::Masters::new(vec![address.clone()], tls).connect_to(&address).await.map(drop)?)
    };
    connected.await.map(|()| "serves").map_err(|_| "it does not answer yet".to_owned())
}

/// That a master has a session of this node, or what is missing until one does; without a leader there is nobody to have one.
async fn has_session(layout: &Layout, name: &str, since: Duration) -> Result<&'static str, String> {
    let status = cluster::status_of(&Access::of(layout.kubeconfig())).await.ok();
    let status = status.filter(|status| cluster::leader_name(status).is_some());
    let Some(status) = status else {
        let settled = since >= SETTLED_AFTER;
        return settled.then_some("runs, and no master leads").ok_or_else(|| "no master leads".to_owned());
    };
    let sessions = status.members.iter().filter_map(|member| member.status.as_ref()).flat_map(|own| &own.nodes);
    let found = sessions.into_iter().any(|node| node == name);
    found.then_some("serves").ok_or_else(|| "no master has a session of it yet".to_owned())
}

/// Starts the process of one machine.
///
/// # Errors
/// When the machine never joined, or its data is gone.
pub fn start(layout: &Layout, name: &str) -> Result<i32> {
    let data_dir = layout.data_dir(name);
    if !Installation::exists(&data_dir) {
        bail!("{name} has no data any more; `hactl local up --dir {}` makes it anew", layout.dir.display());
    }
    Installation::load(&data_dir)?;
    up::start_machine(layout, name)
}
