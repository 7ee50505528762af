//! A master is away for longer than its certificate lives, and comes back. Certificates are made short-lived by settings for
//! the whole run, so that all others renew theirs under load.

use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;

use super::{Nemesis, Strike};
use crate::run::stage::{Prefer, Stage};
use crate::run::targets::Signal;

/// Of certificates in such a run.
pub const LIFE: Duration = Duration::from_secs(15);

#[derive(Default)]
pub struct Certificates {
    victim: Option<(String, tokio::time::Instant)>,
}

#[async_trait]
impl Nemesis for Certificates {
    async fn strike(&mut self, stage: &mut Stage) -> Result<Option<Strike>> {
        let Some(life) = stage.certificate_life else { return Ok(None) };
        let leader = stage.leader();
        let Some(victim) = stage.take_master(Prefer::Follower) else { return Ok(None) };
        stage.target.signal(&victim, Signal::Kill).await?;
        let leads = leader.as_ref() == Some(&victim);
        let what = format!("{victim} is away for longer than its certificate lives ({} s)", life.as_secs());
        self.victim = Some((victim, tokio::time::Instant::now() + life));
        Ok(Some(Strike::at(what, leads)))
    }

    async fn heal(&mut self, stage: &mut Stage) -> Result<()> {
        if let Some((victim, ended)) = &self.victim {
            tokio::time::sleep_until(*ended).await;
            stage.target.start(victim).await?;
            stage.free(victim);
        }
        self.victim = None;
        Ok(())
    }
}
