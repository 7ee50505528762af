//! `hactl cluster secrets rotate-key`, and how any rotation is followed.

use anyhow::Result;
use rpc::pb;
use rpc::pb::rotate_request::What;

use super::super::credentials::Access;
use super::super::progress::note;

#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Seal every Secret with a new key; the old one is forgotten once nothing needs it
    RotateKey(RotateKey),
}

/// Seal every Secret with a new key
#[derive(Debug, clap::Args)]
pub struct RotateKey {
    #[command(flatten)]
    access: Access,
}

impl Verb {
    pub async fn run(self) -> Result<()> {
        let Verb::RotateKey(verb) = self;
        follow(&verb.access, What::DataKey).await?;
        println!("Secrets are sealed with a new key");
        Ok(())
    }
}

/// Asks for a rotation and shows its steps until it is done.
pub async fn follow(access: &Access, what: What) -> Result<()> {
    let mut client = super::connect(access).await?;
    let request = pb::RotateRequest { what: what.into() };
    let mut steps = client.rotate(request).await.map_err(super::refused)?.into_inner();
    while let Some(progress) = steps.message().await.map_err(super::refused)? {
        if progress.done {
            return Ok(());
        }
        note(&progress.step);
    }
    anyhow::bail!("the leader went away in the middle; run the same command again, it goes on from there")
}
