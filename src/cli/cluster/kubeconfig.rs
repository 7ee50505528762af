//! `hactl cluster kubeconfig`: the file that commands use, or a new one, made on a master, whose issuer keys sign the
//! admin's certificate.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::super::credentials::Access;
use super::super::installation::Installation;
use super::super::run;
use super::super::settings::Flags;

/// Print the path of the kubeconfig that commands use, or write a new one
#[derive(Debug, clap::Args)]
pub struct Write {
    /// On a master: write a new one, with a new certificate, to this file (mode 0600)
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The server it names [default: this master], such as a name with several addresses
    #[arg(long, value_name = "URL", requires = "output")]
    server: Option<String>,
    #[command(flatten)]
    access: Access,
}

impl Write {
    pub fn run(self) -> Result<()> {
        let Some(output) = &self.output else {
            let used = self.access.path()?;
            std::fs::metadata(&used).with_context(|| format!("cannot use {}", used.display()))?;
            println!("{}", std::path::absolute(used)?.display());
            return Ok(());
        };
        let data_dir = &self.access.data_dir();
        let installation = Installation::load(data_dir)?;
        let master = installation.master.context("this machine is no master; run this on a master")?;
        let url = self.server.unwrap_or_else(|| format!("https://{}", master.advertise_api));
        let server = rpc::pki::kubeconfig::Server {
            context: "hactl".to_owned(),
            url,
            // Every master's certificate carries this name, whatever address a user reaches it by.
            tls_name: Some(rpc::tls::API_NAME.to_owned()),
        };
        let lifetimes = run::lifetimes(&Flags::default().resolve(&installation.settings)?)?;
        master::write_kubeconfig(data_dir, output, &[server], &lifetimes)?;
        println!("{}", std::path::absolute(output)?.display());
        Ok(())
    }
}
