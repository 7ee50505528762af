//! Leadership is handed over, as before work on the leader's machine.

use anyhow::Result;
use async_trait::async_trait;

use super::{Nemesis, Strike};
use crate::run::stage::Stage;

pub struct Transfer;

#[async_trait]
impl Nemesis for Transfer {
    async fn strike(&mut self, stage: &mut Stage) -> Result<Option<Strike>> {
        let Some(leader) = stage.leader() else { return Ok(None) };
        // With another fault at work nobody may be there to take over: the command says so, and nothing happened.
        Ok(Some(match stage.target.hactl(&["cluster", "transfer-leadership"]).await {
            Ok(printed) => Strike::at(format!("leadership handed over by {leader}: {}", printed.trim()), true),
            Err(error) => {
                let words = format!("{error:#}");
                Strike::missed(format!("{leader} could not hand over: {}", words.lines().last().unwrap_or_default()))
            }
        }))
    }

    async fn heal(&mut self, _stage: &mut Stage) -> Result<()> {
        Ok(())
    }
}
