//! Bad links: each master loses a part of the packets that come from the others.

use anyhow::Result;
use async_trait::async_trait;

use super::partition::{Undo, mend};
use super::{Nemesis, Strike};
use crate::run::stage::Stage;

/// Of a hundred packets, from and to.
const LOST: (u64, u64) = (5, 35);

#[derive(Default)]
pub struct Loss {
    undo: Undo,
}

/// The script that makes a machine lose so many of a hundred packets from these addresses, and the one that undoes it.
pub fn rules(table: &str, percent: u64, addresses: &[String]) -> (String, String) {
    let (act, undo) = super::partition::rules(table, addresses);
    (act.replace(" counter drop", &format!(" numgen random mod 100 < {percent} counter drop")), undo)
}

/// Makes every master lose so many of a hundred packets that come from other machines.
pub async fn lose(stage: &mut Stage, percent: u64, undo: &mut Undo) -> Result<()> {
    let table = format!("hactl_chaos_loss_{:x}", stage.random.draw() & 0xFFFF);
    let machines: Vec<_> = stage.masters().into_iter().chain(stage.target.nodes()).collect();
    for machine in &machines {
        let others = machines.iter().filter(|other| other.name != machine.name);
        let (act, back) = rules(&table, percent, &others.map(|other| other.address.clone()).collect::<Vec<_>>());
        undo.push((machine.name.clone(), back));
        stage.target.shell(&machine.name, &act).await?;
    }
    Ok(())
}

#[async_trait]
impl Nemesis for Loss {
    async fn strike(&mut self, stage: &mut Stage) -> Result<Option<Strike>> {
        let percent = stage.random.between(LOST.0, LOST.1);
        lose(stage, percent, &mut self.undo).await?;
        Ok(Some(Strike::at(format!("{percent} % of the packets between machines are lost"), false)))
    }

    async fn heal(&mut self, stage: &mut Stage) -> Result<()> {
        mend(&*stage.target, &mut self.undo).await
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn some_packets_are_dropped() {
        let (act, undo) = super::rules("t", 30, &["10.0.0.1".to_owned()]);
        assert!(act.contains("ip saddr { 10.0.0.1 } numgen random mod 100 < 30 counter drop"), "{act}");
        assert!(undo.contains("table inet t"), "{undo}");
    }
}
