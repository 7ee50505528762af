//! What outlives one opening of the disk: opens it, and opens it again after it failed.
//!
//! ```text
//!   open ──▶ run ──a write or sync failed──▶ hand over, close ──▶ room on the disk? ──▶ open ──▶ …
//!                                                                      └─ the data cannot be trusted: quarantine, stop
//! ```
//!
//! openraft takes every storage error for the end of its core. What a failed write or sync left behind is only known from
//! disk, so nothing of the failed opening is used again: log and state are read anew, and what was applied but not yet
//! written comes back from the log. Readers go on with the last root meanwhile; it never goes back.
//!
//! **Invariant:** at most one opening of the disk at a time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rand::rngs::StdRng;
use replica::hub::Hub;
use replica::{Backend, Leadership, Term};
use state::{Command, Outcome, Revision, State};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Error;
use crate::disk::Disk;
use crate::node::{Config, Inner, open};
use crate::quarantine;
use crate::state_machine::Published;
use crate::storage::Storage;
use crate::transport::PeerTransport;

/// Between two tries to open a disk that failed. After a calm time the pauses begin anew.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(15);
const CALM: Duration = Duration::from_secs(60);
/// What handing leadership over may take before the disk is closed.
const HAND_OVER: Duration = Duration::from_secs(2);

/// What every opening of one member's disk is given.
#[derive(Clone)]
pub(crate) struct Lasting {
    pub config: Config,
    pub transport: Arc<dyn PeerTransport>,
    pub storage: Arc<dyn Storage>,
    pub disk: Arc<Disk>,
    pub leadership: Arc<watch::Sender<Leadership>>,
    /// Of proposal ids, which must never come again: whoever repeats one is told what became of the first.
    pub random: Arc<Mutex<StdRng>>,
}

/// The present opening, and what is known between two.
pub(crate) struct Slot {
    now: ArcSwap<Inner>,
    pub published: Arc<Published>,
    pub disk: Arc<Disk>,
    leadership: watch::Receiver<Leadership>,
    /// Why the disk is closed.
    trouble: Mutex<Option<String>>,
    /// Why it will not be opened again.
    over: watch::Sender<Option<String>>,
    stopping: watch::Sender<bool>,
    /// Held while the disk is opened or closed.
    opening: tokio::sync::Mutex<()>,
}

impl Slot {
    /// Opens the disk for the first time.
    pub async fn open(lasting: Lasting) -> Result<Arc<Self>, Error> {
        let (storage, data_dir) = (lasting.storage.clone(), lasting.config.data_dir.clone());
        let disk = lasting.disk.clone();
        let looked = lasting.storage.place().call(move || {
            quarantine::check(storage.as_ref(), &data_dir)?;
            disk.look();
            Ok::<_, Error>(())
        });
        looked.await??;
        let inner = match open(lasting.clone(), None).await {
            Ok(inner) => inner,
            Err(error) => return Err(marked(&lasting, error).await),
        };
        let slot = Arc::new(Self {
            published: inner.published.clone(),
            now: ArcSwap::new(inner),
            disk: lasting.disk.clone(),
            leadership: lasting.leadership.subscribe(),
            trouble: Mutex::default(),
            over: watch::Sender::new(None),
            stopping: watch::Sender::new(false),
            opening: tokio::sync::Mutex::default(),
        });
        tokio::spawn(Disk::watch(Arc::downgrade(&lasting.disk)));
        tokio::spawn(keep_open(slot.clone(), lasting));
        Ok(slot)
    }

    pub fn now(&self) -> Arc<Inner> {
        self.now.load_full()
    }

    /// Why the disk is closed, if it is.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why the state is shown to nobody any more.
    pub fn quarantined(&self) -> Option<String> {
        self.published.quarantined.get().cloned()
    }

    fn set_trouble(&self, trouble: Option<String>) {
        metrics::gauge!("hactl_disk_failed").set(f64::from(u8::from(trouble.is_some())));
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    fn end(&self, why: &Error) {
        self.set_trouble(Some(why.to_string()));
        self.over.send_replace(Some(why.to_string()));
    }

    /// Waits until the disk will not be opened again, and says why.
    pub async fn over(&self) -> String {
        let mut over = self.over.subscribe();
        let why = over.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        why.unwrap_or_else(|| "stopped".into())
    }

    /// Nothing is opened again from now on.
    pub fn begin_to_stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Ends for good.
    pub async fn stop(&self, flush: bool) {
        self.begin_to_stop();
        let _opening = self.opening.lock().await;
        self.now().close(flush).await;
    }

    fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }
}

/// The error with its cure; a member whose data cannot be trusted is marked.
async fn marked(lasting: &Lasting, error: Error) -> Error {
    let Error::Corrupt(why) = error else { return error };
    let (storage, config) = (lasting.storage.clone(), lasting.config.clone());
    let place = storage.place();
    let marked = place.call(move || quarantine::mark(storage.as_ref(), &config.data_dir, &config.member, &why)).await;
    marked.map_or_else(|error| error, Error::Corrupt)
}

/// Opens the disk again whenever it failed.
async fn keep_open(slot: Arc<Slot>, lasting: Lasting) {
    let mut pause = PAUSE_MIN;
    loop {
        let opened = Instant::now();
        let why = slot.now().failure().await;
        if slot.is_stopping() {
            return;
        }
        if let Some(why) = slot.published.beyond.get() {
            tracing::error!("{why}");
            slot.set_trouble(Some(why.clone()));
            slot.over.send_replace(Some(why.clone()));
            return;
        }
        tracing::error!("{why}; the disk is closed and opened again");
        slot.set_trouble(Some(format!("had to close its disk: {why}; it is opened again as soon as that works")));
        {
            let _opening = slot.opening.lock().await;
            let inner = slot.now();
            let _ = tokio::time::timeout(HAND_OVER, inner.transfer_away()).await;
            inner.close(true).await;
        }
        if let Some(why) = slot.disk.damage() {
            let error = marked(&lasting, Error::Corrupt(why.to_owned())).await;
            slot.end(&error);
            return;
        }
        if opened.elapsed() > CALM {
            pause = PAUSE_MIN;
        }
        loop {
            let disk = slot.disk.clone();
            let _ = lasting.storage.place().call(move || disk.release()).await;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            let _opening = slot.opening.lock().await;
            if slot.is_stopping() {
                return;
            }
            let mut stopping = slot.stopping.subscribe();
            let opened = tokio::select! {
                opened = open(lasting.clone(), Some(slot.published.clone())) => opened,
                _ = stopping.wait_for(|stopping| *stopping) => return,
            };
            match opened {
                Ok(inner) => {
                    tracing::warn!("the disk is open again");
                    slot.now.store(inner);
                    slot.set_trouble(None);
                    break;
                }
                Err(error @ (Error::Corrupt(_) | Error::Mismatch(_))) => {
                    let error = marked(&lasting, error).await;
                    slot.end(&error);
                    return;
                }
                Err(error) => {
                    tracing::error!("the disk cannot be opened: {error}; trying on");
                    slot.set_trouble(Some(format!("cannot open its disk: {error}; it tries on")));
                }
            }
        }
    }
}

#[async_trait::async_trait]
impl Backend for Slot {
    async fn propose(&self, command: Command) -> Result<Outcome, replica::Error> {
        self.now().propose(command).await
    }

    async fn propose_as_leader(&self, term: Term, command: Command) -> Result<Outcome, replica::Error> {
        self.now().propose_as_leader(term, command).await
    }

    async fn read(&self) -> Result<Arc<State>, replica::Error> {
        self.now().read().await
    }

    fn root(&self) -> Arc<State> {
        self.published.root.load_full()
    }

    fn applied(&self) -> watch::Receiver<Revision> {
        self.published.revision.subscribe()
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    fn hub(&self) -> &Hub {
        &self.published.hub
    }
}
