//! The Docker engine of a node is killed; only one that the target started itself.

use anyhow::Result;
use async_trait::async_trait;

use super::{Nemesis, Strike};
use crate::run::stage::Stage;

#[derive(Default)]
pub struct Docker {
    victim: Option<String>,
}

#[async_trait]
impl Nemesis for Docker {
    async fn strike(&mut self, stage: &mut Stage) -> Result<Option<Strike>> {
        let Some(victim) = stage.take_node() else { return Ok(None) };
        self.victim = Some(victim.clone());
        stage.target.engine(&victim, false).await?;
        Ok(Some(Strike::at(format!("the Docker engine of {victim} is killed"), false)))
    }

    async fn heal(&mut self, stage: &mut Stage) -> Result<()> {
        if let Some(victim) = &self.victim {
            stage.target.engine(victim, true).await?;
            stage.free(victim);
        }
        self.victim = None;
        Ok(())
    }
}
