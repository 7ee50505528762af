//! A rolling upgrade, one master a strike: it is stopped as planned and started with another program.

use anyhow::Result;
use async_trait::async_trait;

use super::{Nemesis, Strike};
use crate::run::stage::{Prefer, Stage};
use crate::run::targets::Signal;

pub struct Upgrade;

#[async_trait]
impl Nemesis for Upgrade {
    async fn strike(&mut self, stage: &mut Stage) -> Result<Option<Strike>> {
        let Some(program) = stage.upgrade_to.clone() else { return Ok(None) };
        let leader = stage.leader();
        let Some(victim) = stage.take_master(Prefer::Any) else { return Ok(None) };
        let stopped = stage.target.signal(&victim, Signal::Terminate).await;
        let exchanged = stage.target.exchange(&victim, &program);
        let started = stage.target.start(&victim).await;
        stage.free(&victim);
        stopped.and(exchanged).and(started)?;
        let leads = leader.as_ref() == Some(&victim);
        Ok(Some(Strike::at(format!("{victim} runs {} now", program.display()), leads)))
    }

    /// An upgrade is not taken back.
    async fn heal(&mut self, _stage: &mut Stage) -> Result<()> {
        Ok(())
    }
}
