//! Links that lose a tenth of all packets, on machines whose cores are all busy: no pod may be moved.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;

use super::{Bench, Found, node_killed};
use crate::run::nemeses::loss;
use crate::run::nemeses::partition::{Undo, mend};

const LOST_PERCENT: u64 = 10;

/// Threads that keep every core busy until dropped.
struct Busy {
    stop: Arc<AtomicBool>,
}

impl Busy {
    fn new() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..cores {
            let stop = stop.clone();
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self { stop }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

pub async fn measure(bench: &mut Bench) -> Result<Found> {
    let probe = bench.probe();
    bench.session.accepted().await?;
    node_killed::deployed(bench).await?;
    bench.settled().await?;
    let uids = |bench: &Bench| -> BTreeSet<String> {
        bench.session.stage.history.record().pods.iter().map(|seen| seen.uid.clone()).collect()
    };
    let before = uids(bench);
    let busy = Busy::new();
    let mut undo = Undo::new();
    loss::lose(&mut bench.session.stage, LOST_PERCENT, &mut undo).await?;
    tokio::time::sleep(bench.duration).await;
    drop(busy);
    mend(&*bench.session.stage.target, &mut undo).await?;
    bench.settled().await?;
    probe.end("a writer").await?;
    let moved = uids(bench).difference(&before).count();
    let words = format!(
        "{moved} of {} pods moved in {} s of {LOST_PERCENT} % loss with every core busy",
        before.len(),
        bench.duration.as_secs()
    );
    Ok(Found { words, good: moved == 0 && !before.is_empty() })
}
