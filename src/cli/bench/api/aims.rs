//! What is aimed at, and what is said beside each figure: `good`, `MISSED`, or nothing where the load was a smaller one than
//! the aim speaks of.

use std::fmt::Write;

use serde::Serialize;

use super::super::load::Measured;
use super::super::report::ms;
use super::informer::Followed;

const STORE_FACTOR: f64 = 1.5;
const CREATES_MIN: f64 = 5_000.0;
const READS_MIN: f64 = 20_000.0;
const CONNECTIONS: u32 = 64;
const INFORMER_MAX_S: f64 = 1.0;
const PODS: u32 = 10_000;
const WATCH_MAX_MS: f64 = 50.0;
const EVENTS_PER_S: u32 = 1000;
/// A load generator that falls behind by more has not put the load on.
const LOAD_MIN: f64 = 0.95;
const RESIDENT_MAX: u64 = 250 << 20;

/// How many in a second, and how long each took.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
}

impl Rate {
    pub fn of(measured: &Measured) -> Self {
        Self {
            per_s: measured.latencies.len() as f64 / measured.time.as_secs_f64().max(1e-9),
            p50_ms: ms(measured.latencies.value_at_quantile(0.5)),
            p99_ms: ms(measured.latencies.value_at_quantile(0.99)),
        }
    }
}

/// Latencies from a write's answer, which is as near as a client comes to its commit, and from its sending.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    pub asked_per_s: u32,
    pub per_s: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub from_send_p99_ms: f64,
}

/// All that was measured.
#[derive(Debug, Default)]
pub struct Found {
    pub connections: u32,
    pub creates: Option<Rate>,
    pub reads: Option<Rate>,
    pub store: Option<Rate>,
    pub watch: Option<Watched>,
    /// With what was followed, and how many.
    pub informer: Option<(Followed, String, usize)>,
    /// The largest server's bytes, and the pods it holds.
    pub resident: Option<(u64, u32)>,
}

/// One line.
#[derive(Debug, Serialize)]
pub struct Row {
    name: String,
    figure: String,
    value: f64,
    aim: String,
    /// Absent: the aim does not speak of this load.
    #[serde(skip_serializing_if = "Option::is_none")]
    good: Option<bool>,
    note: String,
}

impl Row {
    fn new(name: &str, value: f64, figure: String) -> Self {
        Self { name: name.to_owned(), figure, value, aim: String::new(), good: None, note: String::new() }
    }

    fn at_least(mut self, aim: f64, unit: &str, counts: bool) -> Self {
        self.aim = format!(">= {aim:.0}{unit}");
        self.good = counts.then_some(self.value >= aim);
        self
    }

    fn at_most(mut self, aim: f64, unit: &str, counts: bool) -> Self {
        self.aim = format!("<= {}{unit}", (aim * 10.0).round() / 10.0);
        self.good = counts.then_some(self.value <= aim);
        self
    }

    fn note(mut self, note: String) -> Self {
        self.note = note;
        self
    }
}

impl Found {
    pub fn rows(&self) -> Vec<Row> {
        let full = self.connections >= CONNECTIONS;
        let mut rows = Vec::new();
        if let Some(creates) = self.creates {
            let times = format!("p50 {:.1} ms, p99 {:.1} ms", creates.p50_ms, creates.p99_ms);
            let row = Row::new("creates", creates.per_s, format!("{:.0}/s", creates.per_s));
            rows.push(row.at_least(CREATES_MIN, "/s", full).note(times));
            let mut row = Row::new("create p99", creates.p99_ms, format!("{:.1} ms", creates.p99_ms));
            if let Some(store) = self.store {
                let own = format!("the store's own: {:.1} ms at {:.0}/s", store.p99_ms, store.per_s);
                row = row.at_most(STORE_FACTOR * store.p99_ms, " ms", true).note(own);
            }
            rows.push(row);
        }
        if let Some(reads) = self.reads {
            let times = format!("p50 {:.1} ms, p99 {:.1} ms", reads.p50_ms, reads.p99_ms);
            let row = Row::new("GETs", reads.per_s, format!("{:.0}/s", reads.per_s));
            rows.push(row.at_least(READS_MIN, "/s", full).note(times));
        }
        if let Some((followed, resource, count)) = &self.informer {
            let counts = *count >= PODS as usize && resource == "pods";
            for (name, seconds) in [("informer, list", Some(followed.list_s)), ("informer, watch", followed.watch_s)] {
                let note = format!("{count} {resource}");
                match seconds {
                    Some(seconds) => {
                        let row = Row::new(name, seconds, format!("{seconds:.2} s"));
                        rows.push(row.at_most(INFORMER_MAX_S, " s", counts).note(note));
                    }
                    None => rows.push(Row::new(name, f64::NAN, "-".into()).note("the server refuses it".into())),
                }
            }
        }
        if let Some(watch) = self.watch {
            let row = Row::new("watch p99", watch.p99_ms, format!("{:.1} ms", watch.p99_ms));
            let mut row = row.at_most(WATCH_MAX_MS, " ms", watch.asked_per_s >= EVENTS_PER_S).note(format!(
                "from the write's answer; p50 {:.1} ms; p99 from its sending {:.1} ms; {:.0} of {} events/s",
                watch.p50_ms, watch.from_send_p99_ms, watch.per_s, watch.asked_per_s
            ));
            // Too few events are no success.
            row.good = row.good.map(|good| good && watch.per_s >= LOAD_MIN * f64::from(watch.asked_per_s));
            rows.push(row);
        }
        if let Some((bytes, pods)) = self.resident {
            let megabytes = bytes as f64 / f64::from(1 << 20);
            let row = Row::new("resident", megabytes, format!("{megabytes:.0} MiB"));
            let aim = RESIDENT_MAX as f64 / f64::from(1 << 20);
            rows.push(row.at_most(aim, " MiB", pods >= PODS).note(format!("with {pods} pods")));
        }
        rows
    }
}

/// Columns, as a table of the API is printed.
pub fn print(rows: &[Row]) -> String {
    let verdict = |row: &Row| match row.good {
        Some(true) => "good",
        Some(false) => "MISSED",
        None => "",
    };
    let mut text = String::new();
    for row in rows {
        let line = format!("{:<17}{:>12}   {:<13}{:<8}{}", row.name, row.figure, row.aim, verdict(row), row.note);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_s: f64, p99_ms: f64) -> Option<Rate> {
        Some(Rate { per_s, p50_ms: 1.0, p99_ms })
    }

    fn watched(asked_per_s: u32, per_s: f64, p99_ms: f64) -> Option<Watched> {
        Some(Watched { asked_per_s, per_s, p50_ms: 1.0, p99_ms, from_send_p99_ms: 60.0 })
    }

    fn verdicts(found: &Found) -> Vec<(String, Option<bool>)> {
        found.rows().into_iter().map(|row| (row.name, row.good)).collect()
    }

    #[test]
    fn an_aim_is_met_missed_or_of_another_load() {
        let good = Found {
            connections: 64,
            creates: rate(5_000.0, 15.0),
            reads: rate(20_000.0, 1.0),
            store: rate(9_000.0, 10.0),
            watch: watched(1000, 990.0, 50.0),
            informer: Some((Followed { list_s: 1.0, watch_s: Some(0.5) }, "pods".into(), 10_000)),
            resident: Some((250 << 20, 10_000)),
        };
        assert!(verdicts(&good).iter().all(|(_, verdict)| *verdict == Some(true)), "{:?}", good.rows());
        let missed = Found {
            connections: 64,
            creates: rate(4_999.0, 15.1),
            reads: rate(19_999.0, 1.0),
            store: rate(9_000.0, 10.0),
            watch: watched(1000, 900.0, 1.0),
            informer: Some((Followed { list_s: 1.01, watch_s: Some(1.5) }, "pods".into(), 10_000)),
            resident: Some(((250 << 20) + 1, 10_000)),
        };
        assert!(verdicts(&missed).iter().all(|(_, verdict)| *verdict == Some(false)), "{:?}", missed.rows());
        let small = Found {
            connections: 4,
            creates: rate(9_000.0, 1.0),
            reads: rate(90_000.0, 1.0),
            store: None,
            watch: watched(10, 10.0, 1.0),
            informer: Some((Followed { list_s: 0.1, watch_s: None }, "pods".into(), 10)),
            resident: Some((1, 10)),
        };
        assert!(verdicts(&small).iter().all(|(_, verdict)| verdict.is_none()), "{:?}", small.rows());
        let text = print(&missed.rows());
        assert!(text.starts_with("creates                4999/s   >= 5000/s    MISSED  p50"), "{text}");
        assert!(text.contains("\ncreate p99            15.1 ms   <= 15 ms     MISSED  the store's own"), "{text}");
    }
}
