//! Runs of segments, as in `want=0-3,7`.

use std::fmt;

use crate::{
    digest::SEGMENT_BYTES,
    limits::{FILE_BYTES_MAX, RUNS_MAX},
};

/// Segment numbers in ascending runs, both ends included.
///
/// Invariant: runs ascend, do not touch or overlap, and there are at most [`RUNS_MAX`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SegmentRuns {
    runs: Vec<(u64, u64)>,
}

impl SegmentRuns {
    /// The first [`RUNS_MAX`] runs of ascending segment numbers.
    #[must_use]
    pub fn collect(segments: impl IntoIterator<Item = u64>) -> Self {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for segment in segments {
            let full = runs.len() == RUNS_MAX;
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == segment => *last = segment,
                _ if full => break,
                _ => runs.push((segment, segment)),
            }
        }
        Self { runs }
    }

    /// Reads `0-3,7`. `None` if it is anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for run in text.split(',') {
            let (first, last) = run.split_once('-').unwrap_or((run, run));
            let (first, last) = (super::arguments::number(first)?, super::arguments::number(last)?);
            let ascends = runs.last().is_none_or(|&(_, before)| before + 1 < first);
            if runs.len() == RUNS_MAX || last > FILE_BYTES_MAX / SEGMENT_BYTES {
                return None;
            }
            if first > last || !ascends {
                return None;
            }
            runs.push((first, last));
        }
        Some(Self { runs })
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The runs, both ends included.
    pub fn runs(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.runs.iter().copied()
    }

    /// The highest segment number.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        self.runs.last().map(|&(_, last)| last)
    }

    /// Every segment number. The count is bounded only by the file's size, not by the line's.
    pub fn segments(&self) -> impl Iterator<Item = u64> + '_ {
        self.runs.iter().flat_map(|&(first, last)| first..=last)
    }
}

impl fmt::Display for SegmentRuns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.runs.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_survive_the_wire() {
        let runs = SegmentRuns::collect([0, 1, 2, 7, 9, 10]);
        assert_eq!(runs.to_string(), "0-2,7,9-10");
        assert_eq!(SegmentRuns::parse("0-2,7,9-10"), Some(runs));
    }

    #[test]
    fn what_does_not_ascend_is_refused() {
        for bad in ["", "3-1", "5,4", "1-3,3", "1,2", "-1", "1-", "a", "+1", "99999999999999"] {
            assert_eq!(SegmentRuns::parse(bad), None, "{bad}");
        }
    }
}
