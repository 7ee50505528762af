//! All masters are lost with their disks, and the cluster begins anew from a snapshot that was saved a moment before. What was
//! acknowledged in between is gone, as the product says; all before must be there.

use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;

use super::{Nemesis, Strike};
use crate::run::history;
use crate::run::stage::Stage;
use crate::run::targets::Signal;

const WHOLE_WITHIN: Duration = Duration::from_secs(60);
/// Work goes on for so long after the snapshot, in milliseconds.
const LOST_MS: (u64, u64) = (0, 3_000);

#[derive(Default)]
pub struct Restore {
    victims: Vec<String>,
    snapshot: Option<tempfile::TempDir>,
}

const FILE: &str = "all.snapshot";

#[async_trait]
impl Nemesis for Restore {
    async fn strike(&mut self, stage: &mut Stage) -> Result<Option<Strike>> {
        stage.whole(WHOLE_WITHIN).await?;
        let dir = tempfile::tempdir()?;
        let saved = stage.history.now();
        let file = dir.path().join(FILE).display().to_string();
        stage.target.hactl(&["cluster", "snapshot", "save", &file]).await?;
        let pause = stage.random.between(LOST_MS.0, LOST_MS.1);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let Some(victims) = stage.take_all_masters() else { return Ok(None) };
        self.victims = stage.shuffled(victims);
        self.snapshot = Some(dir);
        let lost = stage.history.now();
        for victim in &self.victims {
            stage.target.signal(victim, Signal::Kill).await?;
        }
        stage.history.record().restores.push(history::Restore { saved, lost });
        let what = format!("all masters and their disks are lost; {} begins anew from a snapshot", self.victims[0]);
        Ok(Some(Strike::at(what, true)))
    }

    async fn heal(&mut self, stage: &mut Stage) -> Result<()> {
        let Some(dir) = &self.snapshot else { return Ok(()) };
        for victim in &self.victims {
            stage.target.signal(victim, Signal::Kill).await?;
        }
        stage.target.restore(&dir.path().join(FILE), &self.victims).await?;
        stage.serve(&self.victims, WHOLE_WITHIN).await?;
        for victim in std::mem::take(&mut self.victims) {
            stage.free(&victim);
        }
        self.snapshot = None;
        Ok(())
    }
}
