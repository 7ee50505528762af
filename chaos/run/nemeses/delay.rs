//! Slow links: what masters send each other goes through a relay in each machine's namespace, which passes bytes on late.
//! Connections of before are broken, so that all go through it; and again when it is taken away.

use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;

use super::{Nemesis, Strike};
use crate::run::relay::MARK;
use crate::run::stage::Stage;
use crate::run::targets::{Machine, quoted};

const TABLE: &str = "hactl_chaos_delay";
/// One way, in milliseconds.
const DELAY_MS: (u64, u64) = (2, 60);
/// Relays listen from this port on, one for each other machine.
const PORTS: u16 = 45_000;
/// A relay that was forgotten ends by itself.
const AT_MOST: Duration = Duration::from_secs(600);

#[derive(Default)]
pub struct Delay {
    struck: Vec<String>,
}

/// Relays of a machine run while this file is there.
fn flag(data_dir: &str) -> String {
    quoted(&format!("{data_dir}/chaos-relay"))
}

/// The script that puts relays to the others on a machine, and the one that undoes it.
fn scripts(chaos: &str, data_dir: &str, others: &[Machine], ms: u64) -> (String, String) {
    let flag = flag(data_dir);
    let mut act = format!("touch {flag}; ");
    let (mut redirects, mut breaks) = (String::new(), String::new());
    for (number, other) in (PORTS..).zip(others) {
        let Some((address, port)) = other.peer.rsplit_once(':') else { continue };
        act.push_str(&format!(
            "(setsid {} relay --listen 127.0.0.1:{number} --to {} --delay-ms {ms} --while {flag} --seconds {} \
             >/dev/null 2>&1 </dev/null &); ",
            quoted(chaos),
            other.peer,
            AT_MOST.as_secs()
        ));
        // What is redirected has another address when it comes to the second chain: only connections of before are broken there.
        let what = format!("ip daddr {address} tcp dport {port} meta mark != {MARK}");
        redirects.push_str(&format!("{what} counter dnat ip to 127.0.0.1:{number}; "));
        breaks.push_str(&format!("{what} counter reject with tcp reset; "));
    }
    let rules = format!(
        "table inet {TABLE} {{ \
         chain nat {{ type nat hook output priority -100; {redirects} }}; \
         chain out {{ type filter hook output priority 0; {breaks} }}; }}"
    );
    act.push_str(&format!("nft {}", quoted(&rules)));
    (act, format!("rm -f {flag}; nft delete table inet {TABLE} 2>/dev/null || true"))
}

#[async_trait]
impl Nemesis for Delay {
    async fn strike(&mut self, stage: &mut Stage) -> Result<Option<Strike>> {
        let ms = stage.random.between(DELAY_MS.0, DELAY_MS.1);
        let chaos = std::env::current_exe()?.display().to_string();
        let masters = stage.masters();
        for master in &masters {
            let others: Vec<Machine> = masters.iter().filter(|other| other.name != master.name).cloned().collect();
            self.struck.push(master.name.clone());
            stage
                .target
                .shell(&master.name, &scripts(&chaos, &stage.target.data_dir(&master.name), &others, ms).0)
                .await?;
        }
        Ok(Some(Strike::at(format!("what masters tell each other takes {ms} ms longer, each way"), false)))
    }

    async fn heal(&mut self, stage: &mut Stage) -> Result<()> {
        for master in &self.struck {
            stage.target.shell(master, &scripts("", &stage.target.data_dir(master), &[], 0).1).await?;
        }
        self.struck.clear();
        Ok(())
    }
}
