//! Files of a stopped master are cut off or changed in the middle. Then it must serve again (what can be built anew is), or
//! refuse to start and mark itself; one that refuses is replaced with the command that it names.

use std::time::{Duration, Instant};

use anyhow::Result;
use async_trait::async_trait;

use super::{Nemesis, Strike};
use crate::run::stage::{Prefer, Stage};
use crate::run::targets::{Signal, quoted};

/// How long a damaged master may take to serve or to refuse.
const SAYS_WITHIN: Duration = Duration::from_secs(60);
const LOOK_LIMIT: Duration = Duration::from_secs(1);
const WHOLE_WITHIN: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct Damage {
    victim: Option<String>,
}

/// Cuts or changes one file of a directory, the largest of its kind: `dice` says how.
fn script(data_dir: &str, dice: u64) -> (String, &'static str) {
    let (dir, part) = if dice.is_multiple_of(2) { ("log", "its log") } else { ("state", "its state") };
    let dir = quoted(&format!("{data_dir}/{dir}"));
    let pick = format!(
        "file=$(find {dir} -type f \\( -name '*.log' -o -name '*.sst' \\) -size +0 -printf '%s %p\\n' | sort -n | tail -n 1 | cut -d' ' -f2-); [ -n \"$file\" ]"
    );
    let size = "size=$(stat -c %s \"$file\")";
    let act = if dice % 4 < 2 {
        "truncate -s $((size / 2)) \"$file\"".to_owned()
    } else {
        "printf '\\377\\000\\377\\000' | dd of=\"$file\" bs=1 seek=$((size / 2)) conv=notrunc status=none".to_owned()
    };
    (format!("{pick} && {size} && {act}"), part)
}

#[async_trait]
impl Nemesis for Damage {
    async fn strike(&mut self, stage: &mut Stage) -> Result<Option<Strike>> {
        // Its cure needs a majority of the others.
        stage.whole(WHOLE_WITHIN).await?;
        let leader = stage.leader();
        let Some(victim) = stage.take_master(Prefer::Any) else { return Ok(None) };
        self.victim = Some(victim.clone());
        stage.target.signal(&victim, Signal::Kill).await?;
        let dice = stage.random.between(0, 4);
        let (script, part) = script(&stage.target.data_dir(&victim), dice);
        let how = if dice % 4 < 2 { "cut off" } else { "changed" };
        let leads = leader.as_ref() == Some(&victim);
        let damaged = stage.target.shell(&victim, &script).await.is_ok();
        let what = if damaged { format!("a file of {part} {how}") } else { format!("{part} holds no file yet") };
        stage.damaged.insert(victim.clone());
        stage.target.start(&victim).await?;
        Ok(Some(Strike { what: format!("{victim} killed, {what}"), leader: leads, came_off: damaged }))
    }

    async fn heal(&mut self, stage: &mut Stage) -> Result<()> {
        let Some(victim) = self.victim.clone() else { return Ok(()) };
        let serves = serves_or_says(stage, &victim).await;
        if let Err(error) = &serves {
            // A finding, and replaced all the same.
            stage.history.found(format!("{victim}, whose files were damaged, does not say so: {error:#}"));
        }
        if !serves.unwrap_or(false) {
            replace(stage, &victim).await?;
        }
        stage.free(&victim);
        self.victim = None;
        Ok(())
    }
}

/// Waits until a damaged master serves, or has marked its disk; whether it serves.
async fn serves_or_says(stage: &Stage, victim: &str) -> Result<bool> {
    let since = Instant::now();
    loop {
        let served = stage.serve(&[victim.to_owned()], LOOK_LIMIT).await;
        match served {
            Ok(()) => return Ok(true),
            Err(_) if is_quarantined(stage, victim).await => return Ok(false),
            Err(error) if since.elapsed() > SAYS_WITHIN => return Err(error),
            Err(_) => {}
        }
    }
}

/// Whether the product has marked a master's disk as one that must not be used.
pub async fn is_quarantined(stage: &Stage, master: &str) -> bool {
    let mark = quoted(&format!("{}/quarantine", stage.target.data_dir(master)));
    stage.target.shell(master, &format!("test -e {mark}")).await.is_ok()
}

/// What the product prints as the cure.
pub async fn replace(stage: &mut Stage, victim: &str) -> Result<()> {
    stage.target.signal(victim, Signal::Kill).await?;
    let (program, dir) = (quoted(&stage.target.program(victim)), quoted(&stage.target.data_dir(victim)));
    stage.target.shell(victim, &format!("{program} cluster replace --no-start --data-dir {dir}")).await?;
    stage.damaged.remove(victim);
    stage.target.start(victim).await?;
    stage.serve(&[victim.to_owned()], WHOLE_WITHIN).await?;
    // What was put aside is not needed, and disks are small.
    let aside = format!("rm -rf {dir}/replaced-*");
    stage.target.shell(victim, &aside).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_damage_one_file() {
        let dir = tempfile::tempdir().expect("dir");
        for part in ["log", "state"] {
            std::fs::create_dir(dir.path().join(part)).expect("dir");
        }
        let path = dir.path().join("log/000004.log");
        for (dice, part) in [(0, "log"), (2, "log")] {
            std::fs::write(&path, "0123456789".repeat(10)).expect("write");
            std::fs::write(dir.path().join("log/small.log"), "x").expect("write");
            let (script, _) = script(&dir.path().display().to_string(), dice);
            let status = std::process::Command::new("sh").args(["-c", &script]).status().expect("sh");
            assert!(status.success(), "{script}");
            let left = std::fs::read(&path).expect("read");
            assert!(
                if dice == 0 { left.len() == 50 } else { left.len() == 100 && left[50] == 0xFF },
                "{part}: {left:?}"
            );
            assert_eq!(std::fs::read(dir.path().join("log/small.log")).expect("read"), b"x");
        }
        let (script, _) = script(&dir.path().display().to_string(), 1);
        assert!(
            !std::process::Command::new("sh").args(["-c", &script]).status().expect("sh").success(),
            "no file there"
        );
    }
}
