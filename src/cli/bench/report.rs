//! What a benchmark prints: a few lines for people, or one JSON object for scripts.

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::super::progress::count;
use super::load::Measured;
use super::options::Load;

/// One master's disk and the way to it.
#[derive(Clone, Debug, Serialize)]
pub struct Disk {
    pub endpoint: String,
    pub fsync_p50_ms: f64,
    pub fsync_p99_ms: f64,
    /// Of a small call that does nothing.
    pub round_trip_p50_ms: f64,
}

pub struct Report {
    pub name: &'static str,
    pub measured: Measured,
    pub disks: Vec<Disk>,
    pub endpoints: Vec<String>,
    /// More figures, by their name in JSON.
    pub more: Map<String, Value>,
}

/// Milliseconds with three digits behind the point, as microseconds were measured.
pub fn ms(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

fn quantiles(latencies: &Histogram<u64>) -> [(&'static str, f64); 5] {
    let at = |part: f64| ms(latencies.value_at_quantile(part));
    [
        ("p50_ms", at(0.5)),
        ("p90_ms", at(0.9)),
        ("p99_ms", at(0.99)),
        ("p999_ms", at(0.999)),
        ("max_ms", ms(latencies.max())),
    ]
}

fn ops_per_s(measured: &Measured) -> f64 {
    (measured.latencies.len() as f64 / measured.time.as_secs_f64().max(1e-9) * 10.0).round() / 10.0
}

/// What every benchmark says, by its name in JSON.
pub fn figures(measured: &Measured) -> Map<String, Value> {
    let mut out = Map::new();
    out.insert("ops".into(), measured.latencies.len().into());
    out.insert("seconds".into(), json!(measured.time.as_secs_f64()));
    out.insert("ops_per_s".into(), json!(ops_per_s(measured)));
    for (name, value) in quantiles(&measured.latencies) {
        out.insert(name.into(), json!(value));
    }
    out.insert("errors".into(), measured.errors.into());
    if let Some(error) = &measured.first_error {
        out.insert("first_error".into(), error.as_str().into());
    }
    if measured.bytes > 0 {
        let rate = measured.bytes as f64 / measured.time.as_secs_f64().max(1e-9);
        out.insert("bytes".into(), measured.bytes.into());
        out.insert("mb_per_s".into(), json!((rate / 1e5).round() / 10.0));
    }
    out
}

impl Report {
    pub fn new(name: &'static str, measured: Measured, endpoints: Vec<String>) -> Self {
        Self { name, measured, disks: Vec::new(), endpoints, more: Map::new() }
    }

    pub fn json(&self, load: &Load) -> Value {
        let mut out = Map::new();
        out.insert("bench".into(), self.name.into());
        out.extend(figures(&self.measured));
        out.insert("clients".into(), load.clients.into());
        out.insert("value_size".into(), load.value_size.into());
        out.insert("endpoints".into(), json!(self.endpoints));
        if let Some(disk) = self.middle_disk() {
            out.insert("fsync_p50_ms".into(), json!(disk.fsync_p50_ms));
            out.insert("fsync_p99_ms".into(), json!(disk.fsync_p99_ms));
            out.insert("round_trip_p50_ms".into(), json!(disk.round_trip_p50_ms));
            out.insert("disks".into(), json!(self.disks));
        }
        out.extend(self.more.clone());
        out.into()
    }

    /// Of an odd number of disks, the one that is as fast as a majority.
    fn middle_disk(&self) -> Option<&Disk> {
        let mut sorted: Vec<&Disk> = self.disks.iter().collect();
        sorted.sort_by(|a, b| a.fsync_p50_ms.total_cmp(&b.fsync_p50_ms));
        sorted.get(sorted.len() / 2).copied()
    }

    pub fn print(&self, load: &Load) -> Result<()> {
        if load.output.is_some() {
            println!("{}", serde_json::to_string_pretty(&self.json(load))?);
            return Ok(());
        }
        let measured = &self.measured;
        println!(
            "{}: {:.0} per second ({} in {:.1} s, {})",
            self.name,
            ops_per_s(measured),
            measured.latencies.len(),
            measured.time.as_secs_f64(),
            count(load.clients, "client")
        );
        if measured.bytes > 0 {
            println!("bytes:   {:.1} MB/s", measured.bytes as f64 / 1e6 / measured.time.as_secs_f64().max(1e-9));
        }
        let times: Vec<String> = quantiles(&measured.latencies)
            .iter()
            .map(|(name, value)| format!("{} {value:.2}", name.trim_end_matches("_ms").replace("p999", "p99.9")))
            .collect();
        println!("latency: {} (ms)", times.join("  "));
        match &measured.first_error {
            Some(error) => println!("errors:  {} (the first: {error})", measured.errors),
            None => println!("errors:  {}", measured.errors),
        }
        for (name, value) in &self.more {
            println!("{}: {value}", name.replace('_', " "));
        }
        for disk in &self.disks {
            println!(
                "disk:    {} fsync p50 {:.2}  p99 {:.2}, round trip p50 {:.2} (ms)",
                disk.endpoint, disk.fsync_p50_ms, disk.fsync_p99_ms, disk.round_trip_p50_ms
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn json_has_what_scripts_read() {
        let mut measured = Measured::new();
        (1..=1000).for_each(|ms| measured.note(Duration::from_millis(ms)));
        measured.time = Duration::from_secs(2);
        let disk =
            |fsync| Disk { endpoint: "a:1".into(), fsync_p50_ms: fsync, fsync_p99_ms: 9.0, round_trip_p50_ms: 0.1 };
        let mut report = Report::new("put", measured, vec!["a:1".into()]);
        report.disks = vec![disk(3.0), disk(1.0), disk(2.0)];
        let load = Load {
            clients: 4,
            value_size: 256,
            duration: Duration::from_secs(2),
            warm_up: Duration::ZERO,
            endpoints: vec![],
            connections: None,
            output: None,
        };
        let json = report.json(&load);
        assert_eq!((json["ops_per_s"].as_f64(), json["errors"].as_u64()), (Some(500.0), Some(0)));
        assert_eq!(json["fsync_p50_ms"].as_f64(), Some(2.0));
        for (name, about) in
            [("p50_ms", 500.0), ("p90_ms", 900.0), ("p99_ms", 990.0), ("p999_ms", 999.0), ("max_ms", 1000.0)]
        {
            let value = json[name].as_f64().expect("a number");
            assert!((value - about).abs() <= about / 500.0, "{name} {value}");
        }
    }
}
