//! What one port takes on at once: connections, handshakes, and how long a connection may be silent.
//!
//! What a single request or user may take stands in `apiserver`; here it is about callers that nobody knows yet.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// The bounds of a port; for the API's the settings `api-…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortLimits {
    /// Open connections (`api-connections`), from one address (`api-connections-per-address`).
    pub connections: usize,
    pub connections_per_address: usize,
    /// TLS handshakes under way (`api-handshakes`); one address gets half of them.
    pub handshakes: usize,
    /// A handshake that takes longer is given up (`api-handshake-time`).
    pub handshake_time: Duration,
    /// The head of a request that takes longer to come, and a connection that never asks (`api-header-time`).
    pub header_time: Duration,
    /// A connection without a request for this long is closed (`api-idle`).
    pub idle: Duration,
    /// A connection whose client takes nothing of an answer for this long is closed (`api-stalled`).
    pub stalled: Duration,
    /// Requests, watches and node streams of one connection (`api-streams`).
    pub streams: u32,
}

impl Default for PortLimits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_address: 4_000,
            handshakes: 256,
            handshake_time: Duration::from_secs(10),
            header_time: Duration::from_secs(30),
            idle: Duration::from_secs(300),
            stalled: Duration::from_secs(60),
            streams: 2_000,
        }
    }
}

impl PortLimits {
    /// Of the port for the other masters, who are few, certified, and keep their connections.
    pub fn peers() -> Self {
        Self { connections_per_address: 10_000, idle: Duration::MAX, stalled: Duration::MAX, ..Self::default() }
    }

    /// In `/metrics`, what no pool of seats or turns shows: seconds, or a count.
    pub fn publish(&self) {
        for (setting, bound) in [
            ("api-handshake-time", self.handshake_time.as_secs_f64()),
            ("api-header-time", self.header_time.as_secs_f64()),
            ("api-idle", self.idle.as_secs_f64()),
            ("api-stalled", self.stalled.as_secs_f64()),
            ("api-streams", f64::from(self.streams)),
        ] {
            metrics::gauge!("hactl_bound", "setting" => setting).set(bound);
        }
    }
}

/// Per address, how many wait or shake hands, and its own turns.
type Addresses = HashMap<IpAddr, (usize, Arc<Semaphore>)>;

/// Turns at shaking hands: so many at once, half of them for one address. The others wait.
#[derive(Clone, Debug)]
pub(crate) struct Turns {
    setting: &'static str,
    all: Arc<Semaphore>,
    each: usize,
    addresses: Arc<Mutex<Addresses>>,
}

/// A turn, over when dropped.
pub(crate) struct Turn {
    _of_address: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
    place: Place,
}

/// A place in the line of an address.
struct Place {
    turns: Turns,
    from: IpAddr,
}

impl Turns {
    pub fn new(setting: &'static str, turns: usize) -> Self {
        if !setting.is_empty() {
            metrics::gauge!("hactl_bound", "setting" => setting).set(turns as f64);
        }
        Self {
            setting,
            all: Arc::new(Semaphore::new(turns.clamp(1, Semaphore::MAX_PERMITS))),
            each: turns.div_ceil(2).clamp(1, Semaphore::MAX_PERMITS),
            addresses: Arc::default(),
        }
    }

    /// Waits for a turn.
    pub async fn wait(&self, from: IpAddr) -> Turn {
        let own = {
            let mut addresses = self.addresses();
            let (waiting, own) = addresses.entry(from).or_insert_with(|| (0, Arc::new(Semaphore::new(self.each))));
            *waiting += 1;
            own.clone()
        };
        let place = Place { turns: self.clone(), from };
        let of_address = own.acquire_owned().await.expect("turns are never closed");
        let of_all = self.all.clone().acquire_owned().await.expect("turns are never closed");
        self.count(1.0);
        Turn { _of_address: of_address, _of_all: of_all, place }
    }

    fn addresses(&self) -> MutexGuard<'_, Addresses> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, by: f64) {
        if !self.setting.is_empty() {
            metrics::gauge!("hactl_bound_used", "setting" => self.setting).increment(by);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.place.turns.count(-1.0);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut addresses = self.turns.addresses();
        if let Some((waiting, _)) = addresses.get_mut(&self.from) {
            *waiting -= 1;
            if *waiting == 0 {
                addresses.remove(&self.from);
            }
        }
    }
}

/// How many requests of one connection are open, and how many there were.
#[derive(Clone, Debug, Default)]
pub(crate) struct Activity(Arc<watch::Sender<(usize, u64)>>);

/// One open request; closed when dropped.
pub(crate) struct Open(Activity);

impl Activity {
    pub fn begin(&self) -> Open {
        self.0.send_modify(|(open, ever)| {
            *open += 1;
            *ever += 1;
        });
        Open(self.clone())
    }

    /// Returns if no request at all came within this time.
    pub async fn none_within(&self, limit: Duration) {
        let mut seen = self.0.subscribe();
        let came = tokio::time::timeout(limit, seen.wait_for(|(_, ever)| *ever > 0)).await.is_ok();
        if came {
            std::future::pending::<()>().await;
        }
    }

    /// Returns when no request was open for so long.
    pub async fn idle_for(&self, limit: Duration) {
        let mut seen = self.0.subscribe();
        loop {
            // The sender lives as long as `self`.
            let Ok((_, ever)) = seen.wait_for(|(open, _)| *open == 0).await.map(|seen| *seen) else { return };
            if tokio::time::timeout(limit, seen.wait_for(|(_, now)| *now != ever)).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.0.send_modify(|(open, _)| *open -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const TWO: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[tokio::test(start_paused = true)]
    async fn one_address_never_takes_every_turn() {
        let turns = Turns::new("", 4);
        let held = [turns.wait(ONE).await, turns.wait(ONE).await];
        let wait = Duration::from_secs(1);
        assert!(tokio::time::timeout(wait, turns.wait(ONE)).await.is_err(), "half is its share");
        let other = tokio::time::timeout(wait, turns.wait(TWO)).await;
        assert!(other.is_ok(), "another address gets in");
        drop((held, other));
        assert!(turns.addresses().is_empty(), "nothing is kept of those who left");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_only_without_open_requests() {
        let limit = Duration::from_secs(60);
        let activity = Activity::default();
        let open = activity.begin();
        assert!(tokio::time::timeout(limit * 3, activity.idle_for(limit)).await.is_err(), "one is open");
        let from = tokio::time::Instant::now();
        let idle = tokio::spawn({
            let activity = activity.clone();
            async move { activity.idle_for(limit).await }
        });
        drop(open);
        tokio::time::sleep(limit / 2).await;
        drop(activity.begin());
        idle.await.expect("ends");
        assert_eq!(from.elapsed(), limit * 3 / 2, "a short request counts too");
    }
}
