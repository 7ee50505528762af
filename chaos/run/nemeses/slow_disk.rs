//! A disk whose syncs take long, by what is preloaded into the process.

use anyhow::Result;
use async_trait::async_trait;

use super::{Nemesis, Strike};
use crate::run::stage::{Prefer, Stage};
use crate::run::targets::{SYNC_FILE, quoted};

const SYNC_MS: (u64, u64) = (20, 800);

#[derive(Default)]
pub struct SlowDisk {
    victim: Option<String>,
}

#[async_trait]
impl Nemesis for SlowDisk {
    async fn strike(&mut self, stage: &mut Stage) -> Result<Option<Strike>> {
        let leader = stage.leader();
        let Some(victim) = stage.take_master(Prefer::Any) else { return Ok(None) };
        self.victim = Some(victim.clone());
        let ms = stage.random.between(SYNC_MS.0, SYNC_MS.1);
        let file = quoted(&format!("{}/{SYNC_FILE}", stage.target.data_dir(&victim)));
        stage.target.shell(&victim, &format!("echo {ms} > {file}")).await?;
        let leads = leader.as_ref() == Some(&victim);
        Ok(Some(Strike::at(format!("each sync of {victim} takes {ms} ms longer"), leads)))
    }

    async fn heal(&mut self, stage: &mut Stage) -> Result<()> {
        if let Some(victim) = &self.victim {
            let file = quoted(&format!("{}/{SYNC_FILE}", stage.target.data_dir(victim)));
            stage.target.shell(victim, &format!("rm -f {file}")).await?;
            stage.free(victim);
        }
        self.victim = None;
        Ok(())
    }
}
