//! `hactl version`.

use anyhow::Result;

/// The Kubernetes release whose API hactl speaks.
pub const KUBERNETES: &str = "v1.36";

#[derive(Debug, clap::Args)]
pub struct Version {
    /// `json` for scripts
    #[arg(short, long, value_parser = ["json"])]
    output: Option<String>,
}

impl Version {
    pub fn run(self) -> Result<()> {
        let (version, commit) = (env!("CARGO_PKG_VERSION"), env!("HACTL_COMMIT"));
        if self.output.is_some() {
            println!("{}", serde_json::json!({ "version": version, "commit": commit, "kubernetes": KUBERNETES }));
        } else {
            println!("hactl {version} (commit {commit}), Kubernetes API {KUBERNETES}");
        }
        Ok(())
    }
}
