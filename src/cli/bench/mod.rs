//! `hactl bench …`: measuring a real cluster.

mod failover;
mod writer;

use anyhow::Result;

#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Kill the leader of a local cluster again and again and measure how long no write is accepted
    Failover(failover::Failover),
}

impl Verb {
    pub async fn run(self) -> Result<()> {
        match self {
            Verb::Failover(verb) => verb.run().await,
        }
    }
}
