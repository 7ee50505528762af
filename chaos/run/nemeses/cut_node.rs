//! A node that no master can be reached from, and that none reaches: its pods run on, and are replaced elsewhere meanwhile.

use anyhow::Result;
use async_trait::async_trait;

use super::partition::{Undo, between, cut, mend};
use super::{Nemesis, Strike};
use crate::run::stage::Stage;

#[derive(Default)]
pub struct CutNode {
    victim: Option<String>,
    undo: Undo,
}

#[async_trait]
impl Nemesis for CutNode {
    async fn strike(&mut self, stage: &mut Stage) -> Result<Option<Strike>> {
        let Some(victim) = stage.take_node() else { return Ok(None) };
        self.victim = Some(victim.clone());
        let masters: Vec<String> = stage.masters().into_iter().map(|master| master.name).collect();
        let table = format!("hactl_chaos_node_{:x}", stage.random.draw() & 0xFFFF);
        cut(&*stage.target, &table, &between(std::slice::from_ref(&victim), &masters), &mut self.undo).await?;
        Ok(Some(Strike::at(format!("{victim} is cut off from all masters"), false)))
    }

    async fn heal(&mut self, stage: &mut Stage) -> Result<()> {
        mend(&*stage.target, &mut self.undo).await?;
        if let Some(victim) = self.victim.take() {
            stage.free(&victim);
        }
        Ok(())
    }
}
