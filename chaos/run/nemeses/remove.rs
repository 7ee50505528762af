//! A master is taken out of the cluster while it runs, and its emptied machine joins again, as a new member.

use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;

use super::{Nemesis, Strike};
use crate::run::stage::{Prefer, Stage};
use crate::run::targets::Signal;

const WHOLE_WITHIN: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct Remove {
    victim: Option<String>,
}

#[async_trait]
impl Nemesis for Remove {
    async fn strike(&mut self, stage: &mut Stage) -> Result<Option<Strike>> {
        stage.whole(WHOLE_WITHIN).await?;
        let leader = stage.leader();
        let Some(victim) = stage.take_master(Prefer::Any) else { return Ok(None) };
        self.victim = Some(victim.clone());
        stage.target.hactl(&["cluster", "remove", &victim]).await?;
        stage.target.signal(&victim, Signal::Kill).await?;
        let leads = leader.as_ref() == Some(&victim);
        Ok(Some(Strike::at(format!("{victim} is removed, and joins anew"), leads)))
    }

    async fn heal(&mut self, stage: &mut Stage) -> Result<()> {
        let Some(victim) = self.victim.clone() else { return Ok(()) };
        if stage.is_member(&victim).await? {
            // It was refused: nothing was changed.
            stage.free(&victim);
            self.victim = None;
            return Ok(());
        }
        stage.target.join_anew(&victim).await?;
        stage.damaged.remove(&victim);
        stage.serve(std::slice::from_ref(&victim), WHOLE_WITHIN).await?;
        stage.free(&victim);
        self.victim = None;
        Ok(())
    }
}
