//! The load itself: so many clients, each with one request under way at a time, and what they measured.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use hdrhistogram::Histogram;
use tokio_util::sync::CancellationToken;

use super::options::Load;

/// After a request that failed, so that a server which is away is not asked in a busy loop.
const PAUSE: Duration = Duration::from_millis(20);
/// A request that takes longer counts as an error.
const LIMIT: Duration = Duration::from_secs(15);
/// Latencies are kept in microseconds, to three digits.
const DIGITS: u8 = 3;

/// One client.
pub trait Client: Send + 'static {
    /// One request; `number` differs for every request of the run. Returns the bytes of the answer that count.
    fn once(&mut self, number: u64) -> impl Future<Output = Result<u64>> + Send;
}

/// What came of a run.
#[derive(Debug)]
pub struct Measured {
    /// Microseconds.
    pub latencies: Histogram<u64>,
    pub errors: u64,
    pub first_error: Option<String>,
    pub bytes: u64,
    pub time: Duration,
}

impl Measured {
    pub fn new() -> Self {
        Self { latencies: histogram(), errors: 0, first_error: None, bytes: 0, time: Duration::ZERO }
    }

    pub fn note(&mut self, latency: Duration) {
        record(&mut self.latencies, micros(latency));
    }

    fn add(&mut self, other: Self) {
        // Both have the same digits and grow as needed.
        let _ = self.latencies.add(&other.latencies);
        self.errors += other.errors;
        self.bytes += other.bytes;
        self.first_error = self.first_error.take().or(other.first_error);
    }

    pub fn error(&mut self, error: impl std::fmt::Display) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| error.to_string());
    }
}

pub fn histogram() -> Histogram<u64> {
    let mut histogram = Histogram::new(DIGITS).expect("3 digits are allowed");
    histogram.auto(true);
    histogram
}

pub fn record(latencies: &mut Histogram<u64>, micros: u64) {
    // It grows as needed, so nothing is too long.
    let _ = latencies.record(micros);
}

pub fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Runs the clients for the warm-up and the measured time, or until the user interrupts.
///
/// # Errors
/// When not one request succeeded.
pub async fn run<C: Client>(load: &Load, clients: Vec<C>, stop: &CancellationToken) -> Result<Measured> {
    let counter = Arc::new(AtomicU64::new(0));
    let from = Instant::now() + load.warm_up;
    let until = from + load.duration;
    let mut tasks = tokio::task::JoinSet::new();
    for client in clients {
        tasks.spawn(one(client, counter.clone(), from, until, stop.clone()));
    }
    let mut all = Measured::new();
    while let Some(measured) = tasks.join_next().await {
        all.add(measured?);
    }
    all.time = Instant::now().saturating_duration_since(from).min(load.duration);
    if all.latencies.is_empty() {
        match &all.first_error {
            Some(error) => bail!("no request succeeded: {error}"),
            None => bail!("no request was answered within {:?}", load.duration),
        }
    }
    Ok(all)
}

async fn one<C: Client>(
    mut client: C,
    counter: Arc<AtomicU64>,
    from: Instant,
    until: Instant,
    stop: CancellationToken,
) -> Measured {
    let mut measured = Measured::new();
    loop {
        let sent = Instant::now();
        if sent >= until || stop.is_cancelled() {
            return measured;
        }
        let number = counter.fetch_add(1, Ordering::Relaxed);
        let answer = tokio::time::timeout(LIMIT, client.once(number)).await;
        let counts = sent >= from;
        let error = match answer {
            Ok(Ok(bytes)) if counts => {
                measured.note(sent.elapsed());
                measured.bytes += bytes;
                continue;
            }
            Ok(Ok(_)) => continue,
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => format!("no answer within {LIMIT:?}"),
        };
        if counts {
            measured.error(error);
        } else {
            measured.first_error.get_or_insert(error);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Cancelled when the user interrupts, so that what was written is still cleared up.
pub fn interrupted() -> Result<CancellationToken> {
    let stop = CancellationToken::new();
    super::super::run::cancel_on_signal(stop.clone())?;
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake(u64);

    impl Client for Fake {
        async fn once(&mut self, number: u64) -> Result<u64> {
            anyhow::ensure!(number % 2 == self.0 || self.0 > 1, "odd");
            tokio::task::yield_now().await;
            Ok(1)
        }
    }

    #[tokio::test]
    async fn a_run_counts_answers_and_errors() {
        let load = Load {
            clients: 2,
            value_size: 0,
            duration: Duration::from_millis(50),
            warm_up: Duration::ZERO,
            endpoints: vec![],
            connections: None,
            output: None,
        };
        let measured = run(&load, vec![Fake(2), Fake(2)], &CancellationToken::new()).await.expect("some succeed");
        assert_eq!(measured.latencies.len(), measured.bytes);
        assert_eq!(measured.errors, 0);
        let stopped = CancellationToken::new();
        stopped.cancel();
        assert!(run(&load, vec![Fake(2)], &stopped).await.is_err(), "nothing was measured");
    }
}
