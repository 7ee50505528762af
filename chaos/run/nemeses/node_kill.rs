//! A node's machine dies, with its pods; later it is there again, without them.

use anyhow::Result;
use async_trait::async_trait;

use super::{Nemesis, Strike};
use crate::run::stage::Stage;

#[derive(Default)]
pub struct NodeKill {
    victim: Option<String>,
}

#[async_trait]
impl Nemesis for NodeKill {
    async fn strike(&mut self, stage: &mut Stage) -> Result<Option<Strike>> {
        let Some(victim) = stage.take_node() else { return Ok(None) };
        self.victim = Some(victim.clone());
        stage.target.lose_node(&victim).await?;
        Ok(Some(Strike::at(format!("{victim} dies with its pods"), false)))
    }

    async fn heal(&mut self, stage: &mut Stage) -> Result<()> {
        if let Some(victim) = &self.victim {
            stage.target.start(victim).await?;
            stage.free(victim);
        }
        self.victim = None;
        Ok(())
    }
}
