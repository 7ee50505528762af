//! The disk under this member: whether it has room, and how fast it syncs.
//!
//! ```text
//!   free space   ──────────── watermark ─────────────── reserve file gone ──── none
//!                 all is well  │ full: nothing is proposed, no entry is taken,  │ a write fails: the disk is opened again,
//!                              │ leadership goes elsewhere                      │ with the room that the reserve file held
//! ```
//!
//! A file of a quarter of the watermark is kept beside the databases. When a write fails all the same it goes, so that
//! what is in memory can be written and the databases opened.
//!
//! **Invariant:** a full member goes on answering heartbeats and votes; it only takes nothing new, and so falls behind with reads.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use crate::storage::Storage;

/// How often the free space is looked at, and how seldom what our own files take.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const SIZES_EVERY: u32 = 15;
/// Part of the watermark that must be free above it before all is well again, and that the reserve file takes.
const HYSTERESIS: u64 = 8;
const RESERVE: u64 = 4;
/// Syncs are remembered for so long, and no more of them.
const REMEMBERED: Duration = Duration::from_secs(60);
const REMEMBERED_MAX: usize = 50;

pub struct Disk {
    storage: Arc<dyn Storage>,
    data_dir: PathBuf,
    /// Bytes; 0: the space is not watched.
    watermark: u64,
    full: AtomicBool,
    free: AtomicU64,
    reserved: AtomicBool,
    /// Why the log cannot be trusted, found while it was in use.
    damage: OnceLock<String>,
    pub syncs: Syncs,
}

impl Disk {
    pub fn new(storage: Arc<dyn Storage>, data_dir: &Path, watermark: u64) -> Arc<Self> {
        Arc::new(Self {
            storage,
            data_dir: data_dir.to_path_buf(),
            watermark,
            full: AtomicBool::new(false),
            free: AtomicU64::new(u64::MAX),
            reserved: AtomicBool::new(false),
            damage: OnceLock::new(),
            syncs: Syncs::default(),
        })
    }

    /// Why this member takes nothing new, if so.
    pub fn full(&self) -> Option<String> {
        self.full.load(Ordering::Relaxed).then(|| {
            format!(
                "has a full disk: {} MiB are free for {}, at least {} MiB are needed (setting disk-reserve). It takes no writes \
                 until there is more space: remove what does not belong there, or make the file system larger",
                self.free.load(Ordering::Relaxed) >> 20,
                self.data_dir.display(),
                (self.watermark + self.watermark / HYSTERESIS) >> 20
            )
        })
    }

    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Notes that the log is damaged: it is never opened again.
    pub fn note_damage(&self, why: &str) {
        // The first is the cause.
        let _ = self.damage.set(why.to_owned());
    }

    pub fn damage(&self) -> Option<&str> {
        self.damage.get().map(String::as_str)
    }

    fn reserve_file(&self) -> PathBuf {
        self.data_dir.join("reserve")
    }

    /// Bytes on disk of log, state and snapshots; what state and snapshots share counts as the state's. Blocks.
    pub fn sizes(&self) -> [u64; 3] {
        let parts = ["log", "state", "snapshots"];
        let sizes = match self.storage.bytes(&parts.map(|part| self.data_dir.join(part))) {
            Ok(sizes) => sizes,
            Err(error) => {
                tracing::warn!("cannot tell what {} takes: {error}", self.data_dir.display());
                return [0; 3];
            }
        };
        let sizes = [0, 1, 2].map(|at| sizes.get(at).copied().unwrap_or_default());
        for (part, bytes) in parts.into_iter().zip(sizes) {
            metrics::gauge!("hactl_disk_used_bytes", "part" => part).set(bytes as f64);
        }
        sizes
    }

    /// Looks at the free space. Blocks.
    pub fn look(&self) {
        if self.watermark == 0 {
            return;
        }
        let free = match self.storage.free(&self.data_dir) {
            Ok(free) => free,
            Err(error) => {
                tracing::warn!("cannot tell the free space of {}: {error}", self.data_dir.display());
                return;
            }
        };
        self.free.store(free, Ordering::Relaxed);
        let enough = self.watermark + self.watermark / HYSTERESIS;
        let full = if self.is_full() { free < enough } else { free < self.watermark };
        if self.full.swap(full, Ordering::Relaxed) != full {
            match self.full() {
                Some(why) => tracing::error!("this member {why}"),
                None => tracing::warn!("the disk has {} MiB free: this member takes writes again", free >> 20),
            }
        }
        metrics::gauge!("hactl_disk_free_bytes").set(free as f64);
        metrics::gauge!("hactl_disk_full").set(f64::from(u8::from(full)));
        let slowest = self.syncs.figures().map_or(0.0, |figures| figures.p50.as_secs_f64());
        metrics::gauge!("hactl_disk_sync_median_seconds").set(slowest);
        let size = self.watermark / RESERVE;
        if !self.reserved.load(Ordering::Relaxed) && free > enough + size {
            match self.storage.reserve(&self.reserve_file(), size) {
                Ok(()) => self.reserved.store(true, Ordering::Relaxed),
                Err(error) => tracing::warn!("cannot set {} bytes of disk aside: {error}", size),
            }
        }
    }

    /// Before the databases are opened, which writes too: a disk with less room than the reserve gives it up. Blocks.
    pub fn make_room(&self) {
        let scarce = self.storage.free(&self.data_dir).is_ok_and(|free| free < self.watermark / RESERVE);
        if scarce {
            self.release();
        }
    }

    /// Gives up the reserve, so that what must be written can be. Blocks.
    pub fn release(&self) {
        if self.watermark > 0 {
            self.reserved.store(false, Ordering::Relaxed);
            if let Err(error) = self.storage.reserve(&self.reserve_file(), 0) {
                tracing::warn!("cannot give up the reserved disk space: {error}");
            }
            self.look();
        }
    }

    /// Looks once a second, for as long as anybody else holds the disk.
    pub async fn watch(disk: std::sync::Weak<Self>) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut turn = 0_u32;
        loop {
            look.tick().await;
            let Some(disk) = disk.upgrade() else { return };
            let place = disk.storage.place();
            let measured = turn.is_multiple_of(SIZES_EVERY);
            turn = turn.wrapping_add(1);
            let look = move || {
                disk.look();
                if measured {
                    disk.sizes();
                }
            };
            let Ok(()) = place.call(look).await else { return };
        }
    }
}

/// How long syncs of the log took lately.
#[derive(Default)]
pub struct Syncs(Mutex<Times>);

#[derive(Default)]
struct Times {
    /// When each ended, and how long it took.
    done: VecDeque<(Instant, Duration)>,
    under_way: Option<Instant>,
}

/// Of the syncs of the last minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncFigures {
    pub count: u64,
    pub p50: Duration,
    pub p99: Duration,
    pub max: Duration,
}

impl Syncs {
    fn lock(&self) -> MutexGuard<'_, Times> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn begin(&self) {
        self.lock().under_way = Some(Instant::now());
    }

    pub fn end(&self) {
        let mut times = self.lock();
        let now = Instant::now();
        let Some(began) = times.under_way.take() else { return };
        if times.done.len() >= REMEMBERED_MAX {
            times.done.pop_front();
        }
        times.done.push_back((now, now - began));
    }

    /// `None` when nothing was synced. One that hangs counts with the time it has taken so far.
    pub fn figures(&self) -> Option<SyncFigures> {
        let mut all: Vec<Duration> = {
            let mut times = self.lock();
            let now = Instant::now();
            while times.done.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > REMEMBERED) {
                times.done.pop_front();
            }
            let longest = times.done.iter().map(|(_, took)| *took).max().unwrap_or_default();
            let hangs = times.under_way.map(|began| now - began).filter(|took| *took > longest);
            times.done.iter().map(|(_, took)| *took).chain(hangs).collect()
        };
        all.sort_unstable();
        let at = |part: usize| all.get(all.len() * part / 100).copied();
        Some(SyncFigures { count: all.len() as u64, p50: at(50)?, p99: at(99)?, max: *all.last()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::sim::Sim;

    #[test]
    fn full_below_the_watermark_until_there_is_clearly_more() {
        let sim = Sim::new();
        let disk = Disk::new(Arc::new(sim.clone()), Path::new("/d"), 80 << 20);
        let cases = [(81, false), (79, true), (81, true), (89, true), (90, false), (81, false), (0, true)];
        for (free, full) in cases {
            sim.set_free(free << 20);
            disk.look();
            assert_eq!(disk.is_full(), full, "{free} MiB");
        }
        let why = disk.full().expect("full");
        assert!(why.contains("0 MiB are free") && why.contains("90 MiB") && why.contains("disk-reserve"), "{why}");
    }

    #[tokio::test(start_paused = true)]
    async fn syncs_of_the_last_minute_and_one_that_hangs() {
        let syncs = Syncs::default();
        assert_eq!(syncs.figures(), None);
        for ms in [1, 2, 3, 500] {
            syncs.begin();
            tokio::time::advance(Duration::from_millis(ms)).await;
            syncs.end();
        }
        let figures = syncs.figures().expect("four");
        assert_eq!(
            (figures.count, figures.p50, figures.max),
            (4, Duration::from_millis(3), Duration::from_millis(500))
        );
        tokio::time::advance(REMEMBERED * 2).await;
        assert_eq!(syncs.figures(), None);
        syncs.begin();
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(syncs.figures().expect("one").p50, Duration::from_secs(7));
    }
}
