//! A master that stands still and goes on later, with everything it believed before.

use anyhow::Result;
use async_trait::async_trait;

use super::{Nemesis, Strike};
use crate::run::stage::{Prefer, Stage};
use crate::run::targets::Signal;

#[derive(Default)]
pub struct Pause {
    victim: Option<String>,
}

#[async_trait]
impl Nemesis for Pause {
    async fn strike(&mut self, stage: &mut Stage) -> Result<Option<Strike>> {
        let leader = stage.leader();
        let Some(victim) = stage.take_master(Prefer::Any) else { return Ok(None) };
        self.victim = Some(victim.clone());
        stage.target.signal(&victim, Signal::Stop).await?;
        let leads = leader.as_ref() == Some(&victim);
        Ok(Some(Strike::at(format!("SIGSTOP {victim}"), leads)))
    }

    async fn heal(&mut self, stage: &mut Stage) -> Result<()> {
        if let Some(victim) = &self.victim {
            stage.target.signal(victim, Signal::Continue).await?;
            stage.free(victim);
        }
        self.victim = None;
        Ok(())
    }
}
