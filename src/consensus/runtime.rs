//! The thread that consensus runs on, and the peer port with it, so that nothing else in the process delays a heartbeat.
//!
//! One thread, without the scheduler of many: its tasks wake each other without a system call, which is most of what an
//! idle member does. Where it may (root, `CAP_SYS_NICE`), it goes before the other threads of this process, and before others of its
//! control group: with all cores kept busy by merges of tables, a leader's lease would lapse for want of its turn.

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

const NAME: &str = "hactl-consensus";
/// Files are opened, read and measured on these.
const BLOCKING_THREADS: usize = 4;
/// As `nice` counts: 0 is anybody's, -20 the first.
const NICE: i32 = -10;

/// Ends, with all its tasks, when it is dropped.
pub struct Runtime {
    handle: Handle,
    /// Never sent to: that it is gone is the sign.
    running: oneshot::Sender<()>,
    /// Likewise: gone once no task is left.
    over: oneshot::Receiver<()>,
}

impl Runtime {
    pub fn start() -> Result<Self, std::io::Error> {
        let runtime = Builder::new_current_thread()
            .max_blocking_threads(BLOCKING_THREADS)
            // A thread begins as the one that starts it: these and what they start, such as merges, are nothing special.
            .on_thread_start(|| nice(0))
            .thread_name(NAME)
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        let (running, ended) = oneshot::channel();
        let (left, over) = oneshot::channel::<()>();
        std::thread::Builder::new().name(NAME.into()).spawn(move || {
            nice(NICE);
            let _ = runtime.block_on(ended);
            runtime.shutdown_background();
            drop(left);
        })?;
        Ok(Self { handle, running, over })
    }

    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Ends, and waits until every task is gone with all that it held.
    pub async fn end(self) {
        drop(self.running);
        let _ = self.over.await;
    }
}

/// Of this thread.
fn nice(value: i32) {
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), value) {
        tracing::debug!(%error, value, "a thread keeps its priority");
    }
}
