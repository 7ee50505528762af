//! When which nemesis strikes and is undone: drawn from the seed, several at once. Every nemesis of the scenario has its turn
//! before any strikes again, so that a short run has seen them all.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::nemeses::{Nemesis, Row};
use super::stage::Stage;

/// Between two strikes, in milliseconds.
const PAUSE_MS: (u64, u64) = (300, 2_500);
/// What could not be undone is tried again for so long.
const UNDO_WITHIN: Duration = Duration::from_secs(120);
const UNDO_PAUSE: Duration = Duration::from_millis(500);

struct Active {
    row: &'static Row,
    nemesis: Box<dyn Nemesis>,
    until: Instant,
    fault: usize,
}

pub struct Conductor {
    rows: Vec<&'static Row>,
    /// Whose turn has not come in this round.
    bag: Vec<&'static Row>,
    at_once: usize,
    active: Vec<Active>,
}

impl Conductor {
    pub fn new(rows: Vec<&'static Row>, at_once: usize) -> Self {
        Self { rows, bag: Vec::new(), at_once, active: Vec::new() }
    }

    /// Lets faults happen for so long, or until it is enough, then undoes them all.
    ///
    /// # Errors
    /// When something could not be undone.
    pub async fn conduct(&mut self, stage: &mut Stage, duration: Duration, enough: &CancellationToken) -> Result<()> {
        let end = Instant::now() + duration;
        let mut next = Instant::now();
        while Instant::now() < end && !enough.is_cancelled() {
            if let Some(due) = self.active.iter().position(|active| active.until <= Instant::now()) {
                let active = self.active.swap_remove(due);
                undo(stage, active).await?;
                continue;
            }
            if next <= Instant::now() {
                self.strike(stage).await?;
                let pause = stage.random.between(PAUSE_MS.0, PAUSE_MS.1);
                next = Instant::now() + Duration::from_millis(pause);
            }
            let due = self.active.iter().map(|active| active.until).min().unwrap_or(end);
            tokio::select! {
                () = tokio::time::sleep_until(due.min(next).min(end)) => {}
                () = enough.cancelled() => {}
            }
        }
        for active in std::mem::take(&mut self.active) {
            undo(stage, active).await?;
        }
        Ok(())
    }

    /// The next one that may strike now.
    fn choose(&mut self, stage: &mut Stage) -> Option<&'static Row> {
        if self.active.len() >= self.at_once || self.active.iter().any(|active| active.row.alone) {
            return None;
        }
        if self.bag.is_empty() {
            self.bag = self.rows.clone();
        }
        let active = |name: &str| self.active.iter().any(|active| active.row.name == name);
        let may: Vec<usize> = (0..self.bag.len()).filter(|at| !active(self.bag[*at].name)).collect();
        let at = *stage.random.pick(&may)?;
        // Whoever must be alone waits, and keeps its turn.
        if self.bag[at].alone && !self.active.is_empty() {
            return None;
        }
        Some(self.bag.swap_remove(at))
    }

    async fn strike(&mut self, stage: &mut Stage) -> Result<()> {
        let Some(row) = self.choose(stage) else { return Ok(()) };
        let mut nemesis = (row.make)();
        let begun = stage.history.now();
        let (what, leader) = match nemesis.strike(stage).await {
            Ok(Some(strike)) => (strike.what, strike.leader),
            Ok(None) => return Ok(()),
            // What it did before it failed must be undone all the same.
            Err(error) => (format!("did not come off: {error:#}"), false),
        };
        eprintln!("{:>8.1} s  {}: {what}", begun as f64 / 1e6, row.name);
        let fault = stage.history.strike(row.name, what, begun, leader);
        let lasts = Duration::from_millis(stage.random.between(row.lasts.0, row.lasts.1 + 1));
        self.active.push(Active { row, nemesis, until: Instant::now() + lasts, fault });
        Ok(())
    }
}

async fn undo(stage: &mut Stage, mut active: Active) -> Result<()> {
    let since = Instant::now();
    while let Err(error) = active.nemesis.heal(stage).await {
        if since.elapsed() > UNDO_WITHIN {
            return Err(error).context(format!("cannot undo {}", active.row.name));
        }
        tokio::time::sleep(UNDO_PAUSE).await;
    }
    stage.history.undone(active.fault);
    Ok(())
}
