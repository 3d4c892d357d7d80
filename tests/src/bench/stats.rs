//! Medians, and how far they can be trusted.

use crate::drill::random::Random;

/// How often the bootstrap draws.
const DRAWS: usize = 2_000;

/// With fewer values than this an interval would say less than the extremes do.
const ENOUGH: usize = 6;

/// The middle of the values; of an even number the mean of both.
pub(super) fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// Where the median lies with a probability of 95 %, by bootstrap (percentiles of resampled medians, always the same draws);
/// the extremes, if there are too few values for that.
pub(super) fn interval(values: &[f64]) -> (f64, f64) {
    if values.len() < ENOUGH {
        let sorted = sorted(values);
        return (sorted.first().copied().unwrap_or(f64::NAN), sorted.last().copied().unwrap_or(f64::NAN));
    }
    let mut random = Random::new(1);
    let mut medians: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let drawn: Vec<f64> = values.iter().map(|_| random.pick(values)).collect();
            median(&drawn)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    (medians[DRAWS * 25 / 1_000], medians[DRAWS * 975 / 1_000])
}

/// The smallest value that so many in a thousand do not exceed (nearest rank).
pub(super) fn quantile(values: &[f64], per_mille: usize) -> f64 {
    let sorted = sorted(values);
    let rank = (sorted.len() * per_mille).div_ceil(1_000).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::{interval, median, quantile};

    #[test]
    fn the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(quantile(&values, 500), 50.0);
        assert_eq!(quantile(&values, 990), 99.0);
        assert_eq!(quantile(&values, 999), 100.0);
        assert_eq!(quantile(&values[..1], 990), 1.0);
    }

    #[test]
    fn an_interval_holds_the_median_and_grows_with_the_spread() {
        let narrow: Vec<f64> = (0..40).map(|n| 100.0 + f64::from(n % 5)).collect();
        let wide: Vec<f64> = (0..40).map(|n| 100.0 + 10.0 * f64::from(n % 5)).collect();
        let ((a, b), (c, d)) = (interval(&narrow), interval(&wide));
        assert!(a <= median(&narrow) && median(&narrow) <= b, "{a} {b}");
        assert!(c <= median(&wide) && median(&wide) <= d, "{c} {d}");
        assert!(d - c > b - a, "{a} {b} {c} {d}");
    }

    #[test]
    fn few_values_show_their_extremes() {
        assert_eq!(interval(&[2.0, 9.0, 4.0]), (2.0, 9.0));
    }
}
