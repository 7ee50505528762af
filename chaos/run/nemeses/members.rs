//! A master's machine is lost for good: a new member takes its place, as on a machine whose disk was lost.

use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;

use super::damage::replace;
use super::{Nemesis, Strike};
use crate::run::stage::{Prefer, Stage};
use crate::run::targets::{Signal, quoted};

const WHOLE_WITHIN: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct Members {
    victim: Option<String>,
}

#[async_trait]
impl Nemesis for Members {
    async fn strike(&mut self, stage: &mut Stage) -> Result<Option<Strike>> {
        stage.whole(WHOLE_WITHIN).await?;
        let leader = stage.leader();
        let Some(victim) = stage.take_master(Prefer::Any) else { return Ok(None) };
        self.victim = Some(victim.clone());
        stage.target.signal(&victim, Signal::Kill).await?;
        let dir = stage.target.data_dir(&victim);
        let lost = quoted(&format!("{dir}/state"));
        stage.target.shell(&victim, &format!("rm -rf {lost} {}", quoted(&format!("{dir}/log")))).await?;
        let leads = leader.as_ref() == Some(&victim);
        Ok(Some(Strike::at(format!("{victim} killed, its databases lost; a new member takes its place"), leads)))
    }

    async fn heal(&mut self, stage: &mut Stage) -> Result<()> {
        let Some(victim) = self.victim.clone() else { return Ok(()) };
        replace(stage, &victim).await?;
        stage.free(&victim);
        self.victim = None;
        Ok(())
    }
}
