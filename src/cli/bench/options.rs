//! What all benchmarks are told.

use std::time::Duration;

use super::super::settings::units;

/// How much load, for how long, on whom.
#[derive(Clone, Debug, clap::Args)]
pub struct Load {
    /// How many requests are under way at a time
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub clients: u32,
    /// Bytes of each value
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub value_size: u32,
    /// How long is measured, in seconds or as 10s, 1m
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub duration: Duration,
    /// Load that is not measured, before that
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration_or_none)]
    pub warm_up: Duration,
    /// The servers, host:port each [default: all masters]. One client asks the leader if it is among them
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',')]
    pub endpoints: Vec<String>,
    /// Connections that the clients share [default: one per endpoint]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub connections: Option<u32>,
    /// `json` for scripts
    #[arg(short, long, value_parser = ["json"])]
    pub output: Option<String>,
}

/// Which objects a load reads or writes.
#[derive(Clone, Debug, clap::Args)]
pub struct Keys {
    /// How many different keys
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=4_000_000))]
    pub keys: u64,
    /// Write every key once before measuring (`get` always does)
    #[arg(long)]
    pub fill: bool,
    /// Leave the objects there; they expire an hour later
    #[arg(long)]
    pub keep: bool,
}

pub fn duration(text: &str) -> Result<Duration, String> {
    match text.parse::<u32>() {
        Ok(seconds) if seconds > 0 => Ok(Duration::from_secs(u64::from(seconds))),
        Ok(_) => Err("it must be above zero".to_owned()),
        Err(_) => units::duration(text),
    }
}

/// As [`duration`], or nothing at all: `0`, `0s`.
fn duration_or_none(text: &str) -> Result<Duration, String> {
    match text.trim_end_matches(char::is_alphabetic) {
        "0" => Ok(Duration::ZERO),
        _ => duration(text),
    }
}

impl Load {
    /// `host:port` of each endpoint; `https://` before it is fine.
    pub fn addresses(&self) -> Vec<String> {
        let bare = |text: &String| {
            text.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/').to_owned()
        };
        self.endpoints.iter().map(bare).collect()
    }

    pub fn connections(&self, endpoints: usize) -> usize {
        self.connections.map_or(endpoints.max(1), |connections| connections as usize)
    }
}
