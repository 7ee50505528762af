//! `hactl version`, and `hactl --version`.

use anyhow::Result;

/// The Kubernetes release whose API hactl speaks.
macro_rules! kubernetes {
    () => {
        "v1.36"
    };
}

/// What `hactl --version` prints behind the program's name.
pub const LINE: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("HACTL_COMMIT"), "), Kubernetes API ", kubernetes!());

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
            println!("{}", serde_json::json!({ "version": version, "commit": commit, "kubernetes": kubernetes!() }));
        } else {
            println!("hactl {LINE}");
        }
        Ok(())
    }
}
