//! A wall clock that jumps, for one process, by what is preloaded into it. The machine's own clock is never touched.

use anyhow::Result;
use async_trait::async_trait;

use super::{Nemesis, Strike};
use crate::run::stage::{Prefer, Stage};
use crate::run::targets::{CLOCK_FILE, quoted};

/// By up to so many milliseconds, either way: seconds as often as an hour.
const STEPS_MS: [u64; 4] = [300, 5_000, 60_000, 3_600_000];

#[derive(Default)]
pub struct Clock {
    victim: Option<String>,
}

#[async_trait]
impl Nemesis for Clock {
    async fn strike(&mut self, stage: &mut Stage) -> Result<Option<Strike>> {
        let leader = stage.leader();
        let Some(victim) = stage.take_master(Prefer::Any) else { return Ok(None) };
        self.victim = Some(victim.clone());
        let most = stage.random.pick(&STEPS_MS).copied().unwrap_or(1_000);
        let ms = stage.random.between(most / 2, most);
        let sign = if stage.random.between(0, 2) == 0 { "-" } else { "" };
        let file = quoted(&format!("{}/{CLOCK_FILE}", stage.target.data_dir(&victim)));
        stage.target.shell(&victim, &format!("echo {sign}{ms} > {file}")).await?;
        let leads = leader.as_ref() == Some(&victim);
        Ok(Some(Strike::at(format!("the clock of {victim} jumps by {sign}{ms} ms"), leads)))
    }

    async fn heal(&mut self, stage: &mut Stage) -> Result<()> {
        if let Some(victim) = &self.victim {
            let file = quoted(&format!("{}/{CLOCK_FILE}", stage.target.data_dir(victim)));
            stage.target.shell(victim, &format!("rm -f {file}")).await?;
            stage.free(victim);
        }
        self.victim = None;
        Ok(())
    }
}
