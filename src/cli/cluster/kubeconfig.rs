//! `hactl cluster kubeconfig`: on a master, whose issuer keys sign the admin's certificate.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::super::credentials::FILE;
use super::super::installation::Installation;
use super::super::run;
use super::super::settings::Flags;
use super::DataDir;

/// Print the path of the admin's kubeconfig, or write a new one
#[derive(Debug, clap::Args)]
pub struct Write {
    /// Write a new one, with a new certificate, to this file (mode 0600)
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The server it names [default: this master], such as a name with several addresses
    #[arg(long, value_name = "URL", requires = "output")]
    server: Option<String>,
    #[command(flatten)]
    data_dir: DataDir,
}

impl Write {
    pub fn run(self) -> Result<()> {
        let data_dir = &self.data_dir.data_dir;
        let Some(output) = &self.output else {
            let own = data_dir.join(FILE);
            if !own.exists() {
                bail!(
                    "{} does not exist: this machine is no master; run this on a master, with -o FILE to make one to take away",
                    own.display()
                );
            }
            println!("{}", own.display());
            return Ok(());
        };
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
        println!("{}", output.display());
        Ok(())
    }
}
