//! When which nemesis strikes and is undone: drawn from the seed, several at once. Every nemesis of the scenario has its turn
//! before any strikes again, so that a short run has seen them all. While one cannot be undone, none strikes: what its cure
//! needs, a majority say, may be in the way of another.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::history::Fault;
use super::nemeses::{Nemesis, Row, Strike, is_quarantined, replace};
use super::stage::Stage;

/// Between two strikes, in milliseconds.
const PAUSE_MS: (u64, u64) = (300, 2_500);
/// What could not be undone is tried again for so long after all else is undone.
const UNDO_WITHIN: Duration = Duration::from_secs(120);
const UNDO_PAUSE: Duration = Duration::from_millis(500);

struct Active {
    row: &'static Row,
    nemesis: Box<dyn Nemesis>,
    until: Instant,
    fault: usize,
    /// It could not be undone so far: what it needs may be in the way of another fault.
    troubled: bool,
    /// Since when it cannot be undone though no other fault is left.
    stuck: Option<Instant>,
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
                self.undo(stage, due).await?;
                continue;
            }
            if next <= Instant::now() {
                mend(stage).await;
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
        while let Some(due) = self.active.iter().map(|active| active.until).min() {
            // What was not due yet ends now; what could not be undone waits for its next turn.
            if self.active.iter().all(|active| active.troubled) {
                tokio::time::sleep_until(due).await;
            }
            let first = self.active.iter().enumerate().min_by_key(|(_, active)| (active.troubled, active.until));
            let first = first.map_or(0, |(at, _)| at);
            self.undo(stage, first).await?;
        }
        Ok(())
    }

    /// The next one that may strike now.
    fn choose(&mut self, stage: &mut Stage) -> Option<&'static Row> {
        let full = self.active.len() >= self.at_once;
        if full || self.active.iter().any(|active| active.row.alone || active.troubled) {
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

    /// Undoes the one at this place, if it can be undone by now.
    async fn undo(&mut self, stage: &mut Stage, at: usize) -> Result<()> {
        let mut active = self.active.swap_remove(at);
        let Err(error) = active.nemesis.heal(stage).await else {
            stage.history.undone(active.fault);
            return Ok(());
        };
        let now = Instant::now();
        let stuck = if self.active.is_empty() { *active.stuck.get_or_insert(now) } else { now };
        if now - stuck > UNDO_WITHIN {
            return Err(error).context(format!("cannot undo {}", active.row.name));
        }
        (active.until, active.troubled) = (now + UNDO_PAUSE, true);
        self.active.push(active);
        Ok(())
    }

    async fn strike(&mut self, stage: &mut Stage) -> Result<()> {
        let Some(row) = self.choose(stage) else { return Ok(()) };
        let mut nemesis = (row.make)();
        let begun = stage.history.now();
        let strike = match nemesis.strike(stage).await {
            Ok(Some(strike)) => strike,
            Ok(None) => return Ok(()),
            // What it did before it failed must be undone all the same.
            Err(error) => Strike::missed(format!("did not come off: {error:#}")),
        };
        let Strike { what, leader, came_off } = strike;
        eprintln!("{:>8.1} s  {}: {what}", begun as f64 / 1e6, row.name);
        let fault = stage.history.strike(Fault { nemesis: row.name, what, begun, ended: None, leader, came_off });
        let lasts = Duration::from_millis(stage.random.between(row.lasts.0, row.lasts.1 + 1));
        self.active.push(Active { row, nemesis, until: Instant::now() + lasts, fault, troubled: false, stuck: None });
        Ok(())
    }
}

/// Masters that no fault has and whose damage showed only now are replaced, as the product says; how many were. What cannot be
/// replaced yet is tried again next time.
pub async fn mend(stage: &mut Stage) -> usize {
    let mut mended = 0;
    for victim in stage.silent() {
        let begun = stage.history.now();
        if !is_quarantined(stage, &victim).await {
            continue;
        }
        if stage.damaged.insert(victim.clone()) {
            stage.history.found(format!("{victim} refuses its disk, which no fault has damaged"));
        }
        let replaced = replace(stage, &victim).await;
        let came_off = replaced.is_ok();
        mended += usize::from(came_off);
        let what = match replaced {
            Ok(()) => format!("{victim} found the damage of before, and is replaced"),
            Err(error) => format!("{victim} found the damage of before, and cannot be replaced: {error:#}"),
        };
        eprintln!("{:>8.1} s  damage: {what}", begun as f64 / 1e6);
        let fault = Fault { nemesis: "damage", what, begun, ended: None, leader: false, came_off };
        let fault = stage.history.strike(fault);
        stage.history.undone(fault);
    }
    mended
}
