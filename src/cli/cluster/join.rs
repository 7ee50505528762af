//! `hactl cluster join`.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::super::credentials::{Access, FILE};
use super::super::installation::Installation;
use super::super::progress::Progress;
use super::super::settings::Flags;
use super::{DataDir, init, prepare};

/// How long a new master may take to catch up and vote.
const VOTES_WITHIN: Duration = Duration::from_secs(600);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Add this machine to a cluster, as master, node or both
#[derive(Debug, clap::Args)]
pub struct Join {
    /// `host:port` of any master
    address: String,
    /// What `hactl cluster token create` or `init` printed
    #[arg(long, value_name = "TOKEN", env = "HACTL_TOKEN", hide_env = true, hide_env_values = true)]
    token: String,
    /// Become a master
    #[arg(long)]
    master: bool,
    /// Run pods (the default without --master)
    #[arg(long)]
    node: bool,
    /// Its name [default: the host name]
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// Of a master: the address or name that others reach this machine at [default: that of its default route]
    #[arg(long, value_name = "HOST")]
    advertise: Option<String>,
    /// Become the server instead of installing a systemd unit (the default where systemd does not run)
    #[arg(long)]
    foreground: bool,
    #[command(flatten)]
    data_dir: DataDir,
    #[command(flatten)]
    flags: Flags,
}

impl Join {
    pub async fn run(self) -> Result<()> {
        let settings = self.flags.resolve(&Default::default())?;
        let name = init::own_name(self.node_name.as_deref())?;
        let data_dir = std::path::absolute(&self.data_dir.data_dir)?;
        init::check(&data_dir, self.foreground)?;
        let master = match self.master {
            true => Some(init::addresses(self.advertise.as_deref(), &settings)?),
            false => None,
        };
        let address = if self.address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
            self.address.clone()
        } else {
            format!("{}:6443", self.address)
        };
        // Before anything is said or made: most often it was not copied whole.
        rpc::token::Token::parse(&self.token)?;
        let progress = Progress::start(format!("joining by {address}"));
        let installation = prepare::join(prepare::Join {
            data_dir: data_dir.clone(),
            name: name.clone(),
            address,
            token: self.token.clone(),
            master,
            node: (self.node || !self.master).then(|| name.clone()),
            replaces: None,
            flags: self.flags.clone(),
        })
        .await?;
        progress.done("joined");
        init::serve(&data_dir, &installation, self.foreground, &self.flags, announce(&data_dir, &installation)).await
    }
}

/// Of a master: waits until it votes. A node says itself what it does.
pub async fn announce(data_dir: &Path, installation: &Installation) -> Result<()> {
    let Some(role) = &installation.master else {
        println!("{} joined cluster {} as node", installation.name, installation.cluster_id);
        return Ok(());
    };
    let access = Access::of(data_dir.join(FILE));
    let mut progress = Progress::start("waiting until this master votes");
    let since = Instant::now();
    loop {
        match super::status_of(&access).await {
            Ok(status) => {
                let own = |member: &&rpc::pb::MemberStatus| {
                    member.member.as_ref().is_some_and(|info| info.id == role.member_id) && member.voter
                };
                if status.members.iter().any(|member| own(&member)) {
                    break;
                }
                progress.detail("it catches up");
            }
            Err(_) => progress.detail("the masters do not answer yet"),
        }
        if since.elapsed() > VOTES_WITHIN {
            bail!("this master does not vote yet; look at `hactl cluster status` and `journalctl -u hactl`");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    progress.done("it votes");
    println!("{} is a master of cluster {}", installation.name, installation.cluster_id);
    println!("kubeconfig: {}", data_dir.join(FILE).display());
    Ok(())
}
