//! The reasons behind `/livez` and `/readyz`.

use std::sync::Arc;

use apiserver::{Check, Health};

use crate::service::Shared;

pub struct MasterHealth {
    pub shared: Arc<Shared>,
}

impl Health for MasterHealth {
    fn live(&self) -> Vec<Check> {
        Vec::new()
    }

    fn without_leader(&self) -> String {
        crate::standing::without_leader(&self.shared)
    }

    fn ready(&self) -> Vec<Check> {
        let now = self.shared.replica.leadership().borrow().clone();
        let leader = match now.leader {
            Some(_) => Ok(()),
            None => Err("no leader: too few masters are up or reach each other".to_owned()),
        };
        let serving = if now.serving {
            Ok(())
        } else {
            Err("no leader was confirmed within the last 10 s, or what was committed before the start is still being applied"
                .to_owned())
        };
        vec![
            Check { name: "leader", result: leader },
            Check { name: "caught-up", result: serving },
            Check {
                name: "state",
                result: self.shared.consensus.quarantined().map_or(Ok(()), |why| Err(format!("this master {why}"))),
            },
            Check {
                name: "disk",
                result: self.shared.consensus.disk_problem().map_or(Ok(()), |why| Err(format!("this master {why}"))),
            },
        ]
    }
}
