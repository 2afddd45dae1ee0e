//! What one phase of load amounted to.
//!
//! Times are in microseconds in histograms of three digits, from 1 µs to a minute.
//! Invariant: every request that was started is in `latency` or in `failures`, never in both.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

const LONGEST_US: u64 = 60_000_000;

/// One answered request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    /// From when it was due to its last byte.
    pub(crate) latency_us: u64,
    /// From when it was due to the first byte of the body.
    pub(crate) first_byte_us: u64,
    /// Server-sent events, `[DONE]` included; 0 for JSON.
    pub(crate) events: u64,
    /// Bytes of the body.
    pub(crate) bytes: u64,
}

/// The sum of a phase.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    latency: Option<Histogram<u64>>,
    first_byte: Option<Histogram<u64>>,
    /// Over all answers.
    pub(crate) events: u64,
    /// Over all answers.
    pub(crate) bytes: u64,
    /// What went wrong, and how often.
    pub(crate) failures: BTreeMap<String, u64>,
    /// How long it took.
    pub(crate) seconds: f64,
    /// CPU seconds of the target meanwhile; 0 without a process.
    pub(crate) cpu_seconds: f64,
    /// The target's resident memory near the end, in MiB.
    pub(crate) resident_mib: f64,
}

impl Tally {
    /// Nothing yet.
    ///
    /// # Errors
    /// When the histograms cannot be made.
    pub(crate) fn empty() -> Result<Self> {
        let histogram =
            || Histogram::new_with_max(LONGEST_US, 3).context("failed to make a histogram");
        Ok(Self { latency: Some(histogram()?), first_byte: Some(histogram()?), ..Self::default() })
    }

    /// Adds an answer.
    pub(crate) fn record(&mut self, record: Record) {
        for (histogram, value) in
            [(&mut self.latency, record.latency_us), (&mut self.first_byte, record.first_byte_us)]
        {
            if let Some(histogram) = histogram {
                histogram.saturating_record(value);
            }
        }
        self.events += record.events;
        self.bytes += record.bytes;
    }

    /// Adds a failure.
    pub(crate) fn fail(&mut self, why: &str) {
        self.fail_many(why, 1);
    }

    /// Adds several of the same kind.
    pub(crate) fn fail_many(&mut self, why: &str, count: usize) {
        if count > 0 {
            let sum = self.failures.entry(why.to_owned()).or_default();
            *sum = sum.saturating_add(count.try_into().unwrap_or(u64::MAX));
        }
    }

    /// Answers.
    pub(crate) fn answered(&self) -> f64 {
        float(self.latency.as_ref().map_or(0, Histogram::len))
    }

    /// Failures.
    pub(crate) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Answers per second.
    pub(crate) fn rate(&self) -> f64 {
        self.answered() / self.seconds
    }

    /// The latency below which this share of the answers is, in ms.
    pub(crate) fn latency_ms(&self, percentile: f64) -> f64 {
        at(self.latency.as_ref(), percentile)
    }

    /// The same, to the first byte of the body.
    pub(crate) fn first_byte_ms(&self, percentile: f64) -> f64 {
        at(self.first_byte.as_ref(), percentile)
    }

    /// The target's CPU microseconds per answer.
    pub(crate) fn cpu_us_per_request(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.answered()
    }

    /// The target's CPU microseconds per event of a stream.
    pub(crate) fn cpu_us_per_event(&self) -> f64 {
        self.cpu_seconds * 1e6 / float(self.events)
    }

    /// Bytes of a body, on average.
    pub(crate) fn bytes_each(&self) -> f64 {
        float(self.bytes) / self.answered()
    }

    /// Events of a stream, on average.
    pub(crate) fn events_each(&self) -> f64 {
        float(self.events) / self.answered()
    }
}

fn at(histogram: Option<&Histogram<u64>>, percentile: f64) -> f64 {
    float(histogram.map_or(0, |histogram| histogram.value_at_percentile(percentile))) / 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "counts of a phase are far below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_per_answer() {
        let mut tally = Tally::empty().unwrap();
        for latency_us in [1000, 3000] {
            tally.record(Record { latency_us, first_byte_us: 500, events: 5, bytes: 10 });
        }
        tally.fail("reset");
        (tally.seconds, tally.cpu_seconds) = (2.0, 0.001);
        assert_eq!((tally.answered(), tally.rate(), tally.failed()), (2.0, 1.0, 1));
        assert!((tally.latency_ms(99.0) - 3.0).abs() < 0.01);
        assert!((tally.cpu_us_per_request() - 500.0).abs() < 0.01);
        assert!((tally.cpu_us_per_event() - 100.0).abs() < 0.01);
    }
}
