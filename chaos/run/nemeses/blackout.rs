//! All masters lose power at once.

use anyhow::Result;
use async_trait::async_trait;

use super::{Nemesis, Strike};
use crate::run::stage::Stage;
use crate::run::targets::Signal;

#[derive(Default)]
pub struct Blackout {
    victims: Vec<String>,
}

#[async_trait]
impl Nemesis for Blackout {
    async fn strike(&mut self, stage: &mut Stage) -> Result<Option<Strike>> {
        let Some(victims) = stage.take_all_masters() else { return Ok(None) };
        self.victims = stage.shuffled(victims);
        for victim in &self.victims {
            stage.target.signal(victim, Signal::Kill).await?;
        }
        Ok(Some(Strike::at(format!("kill -9 {}", self.victims.join(", ")), true)))
    }

    async fn heal(&mut self, stage: &mut Stage) -> Result<()> {
        for victim in &self.victims {
            stage.target.start(victim).await?;
        }
        for victim in std::mem::take(&mut self.victims) {
            stage.free(&victim);
        }
        Ok(())
    }
}
