//! A file that takes all the space on a master's small file system.

use anyhow::Result;
use async_trait::async_trait;

use super::{Nemesis, Strike};
use crate::run::stage::{Prefer, Stage};
use crate::run::targets::quoted;

/// Left free, in KiB: sometimes nothing, sometimes less than a master wants to have.
const LEFT_KIB: (u64, u64) = (0, 4_096);

#[derive(Default)]
pub struct DiskFull {
    victim: Option<String>,
}

fn filler(stage: &Stage, machine: &str) -> String {
    quoted(&format!("{}/chaos-filler", stage.target.data_dir(machine)))
}

#[async_trait]
impl Nemesis for DiskFull {
    async fn strike(&mut self, stage: &mut Stage) -> Result<Option<Strike>> {
        let leader = stage.leader();
        let Some(victim) = stage.take_master(Prefer::Any) else { return Ok(None) };
        self.victim = Some(victim.clone());
        let left = stage.random.between(LEFT_KIB.0, LEFT_KIB.1);
        let (file, dir) = (filler(stage, &victim), quoted(&stage.target.data_dir(&victim)));
        let script = format!(
            "free=$(df --output=avail -k {dir} | tail -n 1); more=$((free - {left})); \
             [ $more -le 0 ] || fallocate -l ${{more}}KiB {file}"
        );
        stage.target.shell(&victim, &script).await?;
        let leads = leader.as_ref() == Some(&victim);
        Ok(Some(Strike::at(format!("{left} KiB are left on the disk of {victim}"), leads)))
    }

    async fn heal(&mut self, stage: &mut Stage) -> Result<()> {
        if let Some(victim) = &self.victim {
            stage.target.shell(victim, &format!("rm -f {}", filler(stage, victim))).await?;
            stage.free(victim);
        }
        self.victim = None;
        Ok(())
    }
}
