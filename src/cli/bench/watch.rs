//! `hactl bench watch`: many watchers, a steady rate of writes, and how long each event takes to arrive.
//!
//! ```text
//!   writer ──PUT configmap i──▶ master ──event──▶ the `per-event` watchers of configmap i, spread over the connections
//!     └ number and time of sending stand in the object ┘        └▶ time of arrival − time of sending
//! ```
//!
//! A latency runs from the sending of the write, so it contains the write itself; `after_ack` runs from the write's
//! answer, which is the nearest a client comes to the commit.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::super::credentials::Access;
use super::http::{Connection, Masters};
use super::kv::run_name;
use super::load::{self, Measured, micros};
use super::options::Load;
use super::report::{Report, ms};

/// How long the last events may take to arrive.
const DRAIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Watches opened at a time.
const OPENERS: usize = 64;
/// An event longer than this is none of ours.
const LINE_MAX: usize = 4 << 20;
/// Objects that are written in turn where every watcher sees all.
const WHOLE: usize = 100;
const STAMP: &[u8] = b"\"stamp\":\"";

/// Watch many objects through the Kubernetes API while others change
#[derive(Debug, clap::Args)]
pub struct Watch {
    /// How many watches are open
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub watchers: u32,
    /// How many of them each write concerns
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub per_event: u32,
    /// Each watch follows all objects, as an informer does: each write concerns every watcher
    #[arg(long, conflicts_with = "per_event")]
    pub whole: bool,
    /// Writes per second; --clients limits how many are under way at a time
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: u32,
    #[command(flatten)]
    pub load: Load,
    #[command(flatten)]
    pub access: Access,
}

/// Times of one run, in microseconds after its start.
struct Clock {
    start: Instant,
    /// When each write was answered; 0: not yet.
    acked: Vec<AtomicU64>,
    arrived: AtomicU64,
    seen: Mutex<Seen>,
}

struct Seen {
    from_send: Measured,
    after_ack: hdrhistogram::Histogram<u64>,
    /// Arrived before the write was answered here: its number and when.
    early: Vec<(u64, u64)>,
}

impl Clock {
    fn now(&self) -> u64 {
        micros(self.start.elapsed())
    }

    /// One event: the write's number and the time it was sent.
    fn arrive(&self, number: u64, sent: u64) {
        let now = self.now();
        self.arrived.fetch_add(1, Ordering::Relaxed);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        load::record(&mut seen.from_send.latencies, now.saturating_sub(sent));
        match self.acked.get(number as usize).map(|acked| acked.load(Ordering::Relaxed)) {
            Some(0) => seen.early.push((number, now)),
            Some(acked) => load::record(&mut seen.after_ack, now.saturating_sub(acked)),
            None => {}
        }
    }
}

impl Watch {
    fn objects(&self) -> usize {
        if self.whole { WHOLE } else { self.watchers.div_ceil(self.per_event) as usize }
    }

    /// Whose name a watcher asks for.
    fn selector(&self, watcher: usize) -> String {
        match self.whole {
            true => String::new(),
            false => format!("&fieldSelector=metadata.name%3D{}", name(watcher / self.per_event as usize)),
        }
    }

    pub async fn run(self) -> Result<()> {
        let (masters, stop) = (Masters::find(&self.load, &self.access).await?, load::interrupted()?);
        let first = masters.connect(0).await?;
        let namespace = format!("bench-{}", run_name());
        first.create_namespace(&namespace).await?;
        let measured = self.measure(&masters, &first, &namespace, &stop).await;
        let cleared = first.delete_namespace(&namespace).await;
        let (measured, more) = measured?;
        let mut report = Report::new("watch", measured, masters.endpoints);
        report.more = more;
        report.print(&self.load)?;
        cleared
    }

    pub async fn measure(
        &self,
        masters: &Masters,
        first: &Connection,
        namespace: &str,
        stop: &CancellationToken,
    ) -> Result<(Measured, serde_json::Map<String, Value>)> {
        let path = format!("/api/v1/namespaces/{namespace}/configmaps");
        let filling = "x".repeat(self.load.value_size as usize);
        first.create_all(&path, self.objects(), |number| object(number, "-", &filling)).await?;
        let at = first.json(Method::GET, &format!("{path}?limit=1"), None).await?;
        let revision = at["metadata"]["resourceVersion"].as_str().unwrap_or("0").to_owned();

        let writes = u64::from(self.rate) * (self.load.duration.as_secs() + 1);
        let clock = Arc::new(Clock {
            start: Instant::now(),
            acked: (0..writes).map(|_| AtomicU64::new(0)).collect(),
            arrived: AtomicU64::new(0),
            seen: Mutex::new(Seen { from_send: Measured::new(), after_ack: load::histogram(), early: Vec::new() }),
        });
        let mut connections = Vec::new();
        for number in 0..self.load.connections(masters.endpoints.len()) {
            connections.push(masters.connect(number).await?);
        }
        let ended = CancellationToken::new();
        let watchers = futures::stream::iter(0..self.watchers as usize)
            .map(|number| {
                let connection = connections[number % connections.len()].clone();
                let path = format!("{path}?watch=1&resourceVersion={revision}{}", self.selector(number));
                let (clock, ended, whole) = (clock.clone(), ended.clone(), self.whole);
                async move {
                    let answer = connection.ask(Method::GET, &path, None).await?;
                    anyhow::Ok(tokio::spawn(follow(answer.into_body(), clock, ended, whole)))
                }
            })
            .buffer_unordered(OPENERS);
        let watchers: Vec<_> = watchers.collect().await;
        let watchers: Vec<_> = watchers.into_iter().collect::<Result<_>>().context("cannot open all watches")?;

        let (written, errors, time) = self.write(first, &path, &filling, &clock, stop).await;
        let seen_by = if self.whole { self.watchers } else { self.per_event.min(self.watchers) };
        let expected = written * u64::from(seen_by);
        let drained = Instant::now();
        while clock.arrived.load(Ordering::Relaxed) < expected && drained.elapsed() < DRAIN {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        ended.cancel();
        for watcher in watchers {
            watcher.await?.context("a watch ended early")?;
        }
        let mut seen = clock.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut measured = std::mem::replace(&mut seen.from_send, Measured::new());
        for (number, arrived) in std::mem::take(&mut seen.early) {
            let acked = clock.acked[number as usize].load(Ordering::Relaxed);
            load::record(&mut seen.after_ack, if acked == 0 { 0 } else { arrived.saturating_sub(acked) });
        }
        measured.time = time;
        if let Some(error) = errors.first() {
            errors.iter().for_each(|_| measured.error(error));
        }
        let mut more = serde_json::Map::new();
        let after = |part| json!(ms(seen.after_ack.value_at_quantile(part)));
        more.insert("watchers".into(), self.watchers.into());
        more.insert("connections".into(), connections.len().into());
        more.insert("writes_per_s".into(), json!((written as f64 / time.as_secs_f64()).round()));
        more.insert("events_expected".into(), expected.into());
        more.insert("events_arrived".into(), clock.arrived.load(Ordering::Relaxed).into());
        more.insert("after_ack_p50_ms".into(), after(0.5));
        more.insert("after_ack_p99_ms".into(), after(0.99));
        more.insert("after_ack_max_ms".into(), json!(ms(seen.after_ack.max())));
        Ok((measured, more))
    }

    /// Writes at the rate: how many were answered, what went wrong, and how long it took.
    async fn write(
        &self,
        connection: &Connection,
        path: &str,
        filling: &str,
        clock: &Arc<Clock>,
        stop: &CancellationToken,
    ) -> (u64, Vec<String>, Duration) {
        let begun = Instant::now();
        let slots = Arc::new(tokio::sync::Semaphore::new(self.load.clients as usize));
        let mut tasks = tokio::task::JoinSet::new();
        let mut number = 0;
        let (mut written, mut errors) = (0, Vec::new());
        let mut count = |answer: Result<(), anyhow::Error>| match answer {
            Ok(()) => written += 1,
            Err(error) => errors.push(format!("{error:#}")),
        };
        while begun.elapsed() < self.load.duration && !stop.is_cancelled() && number < clock.acked.len() as u64 {
            let due = begun + Duration::from_secs_f64(number as f64 / f64::from(self.rate));
            tokio::time::sleep_until(due.into()).await;
            let Ok(slot) = slots.clone().acquire_owned().await else { break };
            let which = number as usize % self.objects();
            let (connection, clock, path) = (connection.clone(), clock.clone(), format!("{path}/{}", name(which)));
            let object = object(which, &format!("{number}/{}", clock.now()), filling);
            tasks.spawn(async move {
                let answer = connection.json(Method::PUT, &path, Some(&object)).await;
                clock.acked[number as usize].store(clock.now(), Ordering::Relaxed);
                drop(slot);
                answer.map(drop)
            });
            number += 1;
            while let Some(Ok(answer)) = tasks.try_join_next() {
                count(answer);
            }
        }
        while let Some(Ok(answer)) = tasks.join_next().await {
            count(answer);
        }
        (written, errors, begun.elapsed())
    }
}

fn name(number: usize) -> String {
    format!("bench-{number:07}")
}

fn object(number: usize, stamp: &str, filling: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name(number)},
        "data": {"filling": filling, "stamp": stamp},
    })
}

/// Reads one watch until the end of the run. `whole`: there are others' events among ours.
///
/// # Errors
/// When the server ends it before, or sends an ERROR event.
async fn follow(
    mut body: hyper::body::Incoming,
    clock: Arc<Clock>,
    ended: CancellationToken,
    whole: bool,
) -> Result<()> {
    let mut line = Vec::new();
    loop {
        let frame = tokio::select! {
            () = ended.cancelled() => return Ok(()),
            frame = body.frame() => frame,
        };
        let frame = frame.context("the server ended it")??;
        let Some(data) = frame.data_ref() else { continue };
        line.extend_from_slice(data);
        while let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            match stamp(&line[..end]) {
                Some((number, sent)) => clock.arrive(number, sent),
                None if whole => {}
                None => bail!("an event of no write: {}", String::from_utf8_lossy(&line[..end.min(200)])),
            }
            line.drain(..=end);
        }
        anyhow::ensure!(line.len() < LINE_MAX, "an event longer than {LINE_MAX} bytes");
    }
}

/// Number and time of the write that an event shows.
fn stamp(line: &[u8]) -> Option<(u64, u64)> {
    let at = line.windows(STAMP.len()).position(|window| window == STAMP)? + STAMP.len();
    let rest = &line[at..];
    let text = std::str::from_utf8(&rest[..rest.iter().position(|byte| *byte == b'"')?]).ok()?;
    let (number, sent) = text.split_once('/')?;
    Some((number.parse().ok()?, sent.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_tells_which_write_it_is_of() {
        let line = br#"{"type":"MODIFIED","object":{"data":{"filling":"x","stamp":"17/2003"}}}"#;
        assert_eq!(stamp(line), Some((17, 2003)));
        assert_eq!(stamp(br#"{"data":{"stamp":"-"}}"#), None);
        assert_eq!(stamp(b"{}"), None);
    }
}
