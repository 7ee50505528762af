//! A whole cluster as processes of this binary on this machine, for trying, developing and testing.
//!
//! ```text
//! D/local.json          names and ports, chosen once          D/admin.kubeconfig  names the forwarder, then each master
//! D/recovery.key        what `cluster init` would show once
//! D/<name>/hactl.json   what joined, as on a real machine     D/<name>/hactl.log  its output
//! D/<name>/process.json pid and start time                    D/forwarder/        the TCP forwarder
//! ```
//!
//! **Invariant:** each process is what a real machine runs, `hactl run --data-dir D/<name>`; nothing in a role knows that
//! the cluster is local.

mod forward;
mod layout;
mod ports;
mod process;
mod status;
mod stop;
mod up;

use std::path::PathBuf;

use anyhow::Result;
use tokio_util::sync::CancellationToken;

pub use layout::{Layout, Master};
pub use status::collect;
pub use stop::{kill, start, start_and_wait};

#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Start a cluster in the background and return when it is ready; running it again is harmless
    Up(up::Up),
    /// Stop all its processes and pods
    Down(stop::Down),
    /// `kill -9` one process: the power plug of one machine
    Kill(stop::Kill),
    /// Start a killed process again, and wait until it serves
    Start(stop::Start),
    /// Show its processes
    Status(status::Show),
    /// The forwarder process
    #[command(hide = true)]
    Forward(Forward),
}

/// Which local cluster.
#[derive(Clone, Debug, clap::Args)]
pub struct Dir {
    /// The cluster's directory [default: ~/.hactl/local]
    #[arg(long, value_name = "DIR", env = "HACTL_LOCAL_DIR", hide_env = true)]
    dir: Option<PathBuf>,
}

impl Dir {
    pub fn path(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(Layout::default_dir)
    }

    pub fn load(&self) -> Result<Layout> {
        Layout::load(&self.path())
    }
}

#[derive(Debug, clap::Args)]
pub struct Forward {
    #[command(flatten)]
    dir: Dir,
}

impl Verb {
    pub async fn run(self) -> Result<()> {
        match self {
            Verb::Up(verb) => verb.run().await,
            Verb::Down(verb) => verb.run().await,
            Verb::Kill(verb) => verb.run().await,
            Verb::Start(verb) => verb.run().await,
            Verb::Status(verb) => verb.run().await,
            Verb::Forward(verb) => {
                let shutdown = CancellationToken::new();
                super::run::cancel_on_signal(shutdown.clone())?;
                forward::run(verb.dir.path(), shutdown).await
            }
        }
    }
}
