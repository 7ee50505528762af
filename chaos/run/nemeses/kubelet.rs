//! A node's process, kubelet and proxy, is killed or stopped while the engine and its containers run on.

use anyhow::Result;
use async_trait::async_trait;

use super::{Nemesis, Strike};
use crate::run::stage::Stage;
use crate::run::targets::Signal;

#[derive(Default)]
pub struct Kubelet {
    victim: Option<(String, Signal)>,
}

#[async_trait]
impl Nemesis for Kubelet {
    async fn strike(&mut self, stage: &mut Stage) -> Result<Option<Strike>> {
        let Some(victim) = stage.take_node() else { return Ok(None) };
        let signal = if stage.random.between(0, 2) == 0 { Signal::Kill } else { Signal::Stop };
        self.victim = Some((victim.clone(), signal));
        stage.target.signal(&victim, signal).await?;
        let done = if signal == Signal::Kill { "killed" } else { "stopped" };
        Ok(Some(Strike::at(format!("the kubelet of {victim} is {done}, its containers run on"), false)))
    }

    async fn heal(&mut self, stage: &mut Stage) -> Result<()> {
        if let Some((victim, signal)) = &self.victim {
            match signal {
                Signal::Stop => stage.target.signal(victim, Signal::Continue).await?,
                _ => stage.target.start(victim).await?,
            }
            stage.free(victim);
        }
        self.victim = None;
        Ok(())
    }
}
