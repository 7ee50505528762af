//! In place of the library `base2histogram`, which openraft counts the sizes of its batches with: the names that openraft
//! uses, over one bucket per power of two.
//!
//! At its first use the library makes tables for all sixteen of its resolutions, 26 MB that stay resident, though openraft
//! takes the default one and shows it only with its feature `runtime-stats`, which is off here. That was most of an idle
//! master's memory. Remove this crate once the library makes its tables one by one.

use std::fmt;
use std::marker::PhantomData;

const BUCKETS: usize = u64::BITS as usize + 1;

/// Counts per power of two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    /// Bucket `b` counts the values below 2^b and not below half of that.
    counts: Box<[u64; BUCKETS]>,
    of: PhantomData<T>,
}

/// Upper ends of the buckets that the percentiles lie in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[samples: {}, P50: {}, P90: {}, P99: {}]", self.samples, self.p50, self.p90, self.p99)
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Histogram<T> {
    pub fn new() -> Self {
        Self { counts: Box::new([0; BUCKETS]), of: PhantomData }
    }

    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    pub fn record_n(&mut self, value: u64, count: u64) {
        self.counts[(u64::BITS - value.leading_zeros()) as usize] += count;
    }

    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub fn percentile_stats(&self) -> PercentileStats {
        let samples = self.total();
        let at = |per_mille: u64| {
            let mut left = (samples * per_mille).div_ceil(1000).max(1);
            let reached = |count: &u64| {
                left = left.saturating_sub(*count);
                left == 0
            };
            let bucket = self.counts.iter().position(reached).unwrap_or(0);
            if bucket == BUCKETS - 1 { u64::MAX } else { (1 << bucket) - 1 }
        };
        PercentileStats {
            samples,
            p0_1: at(1),
            p1: at(10),
            p5: at(50),
            p10: at(100),
            p50: at(500),
            p90: at(900),
            p99: at(990),
            p99_9: at(999),
        }
    }
}

/// Named histograms, a line each.
#[derive(Clone, Debug, Default)]
pub struct AsciiChart(Vec<(String, PercentileStats)>);

impl AsciiChart {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn add(mut self, name: impl Into<String>, histogram: Histogram) -> Self {
        self.0.push((name.into(), histogram.percentile_stats()));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, stats) in &self.0 {
            writeln!(f, "{name}: n={} p50={} p99={}", stats.samples, stats.p50, stats.p99)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_upper_ends_of_their_buckets() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats(), PercentileStats::default());
        histogram.record(0);
        histogram.record_n(5, 8);
        histogram.record(u64::MAX);
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p1, stats.p50, stats.p90, stats.p99), (10, 0, 7, 7, u64::MAX));
        assert_eq!(AsciiChart::new().add("x", histogram).to_string(), format!("x: n=10 p50=7 p99={}\n", u64::MAX));
    }
}
