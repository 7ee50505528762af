//! A planned stop: SIGTERM, on which a leader hands over, and a start.

use anyhow::Result;
use async_trait::async_trait;

use super::{Nemesis, Strike};
use crate::run::stage::{Prefer, Stage};
use crate::run::targets::Signal;

#[derive(Default)]
pub struct Restart {
    victim: Option<String>,
}

#[async_trait]
impl Nemesis for Restart {
    async fn strike(&mut self, stage: &mut Stage) -> Result<Option<Strike>> {
        let leader = stage.leader();
        let Some(victim) = stage.take_master(Prefer::Any) else { return Ok(None) };
        self.victim = Some(victim.clone());
        stage.target.signal(&victim, Signal::Terminate).await?;
        let leads = leader.as_ref() == Some(&victim);
        Ok(Some(Strike::at(format!("SIGTERM {victim}"), leads)))
    }

    async fn heal(&mut self, stage: &mut Stage) -> Result<()> {
        if let Some(victim) = &self.victim {
            // Nothing is left to kill, unless the stop did not come off.
            stage.target.signal(victim, Signal::Kill).await?;
            stage.target.start(victim).await?;
            stage.free(victim);
        }
        self.victim = None;
        Ok(())
    }
}
