//! Medians, intervals and differences of small samples.

/// Samples drawn again for an interval.
const DRAWS: usize = 2000;

/// The middle of some numbers.
pub fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.as_slice() {
        [] => f64::NAN,
        all if all.len() % 2 == 1 => all[middle],
        all => f64::midpoint(all[middle - 1], all[middle]),
    }
}

/// The least and the most.
pub fn ends(numbers: &[f64]) -> (f64, f64) {
    let least = numbers.iter().copied().fold(f64::INFINITY, f64::min);
    (least, numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max))
}

/// The interval that holds the median in 95 of 100 draws from the same numbers.
pub fn interval(numbers: &[f64]) -> (f64, f64) {
    bounds(|draw| median(&draw(numbers)))
}

/// The interval of the difference of two medians, the first less the second.
pub fn difference(first: &[f64], second: &[f64]) -> (f64, f64) {
    bounds(|draw| {
        let first = median(&draw(first));
        first - median(&draw(second))
    })
}

fn bounds(mut figure: impl FnMut(&mut dyn FnMut(&[f64]) -> Vec<f64>) -> f64) -> (f64, f64) {
    // Any numbers will do, and the same each time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = |numbers: &[f64]| -> Vec<f64> {
        let one = |_: &f64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            numbers[(state % numbers.len() as u64) as usize]
        };
        numbers.iter().map(one).collect()
    };
    let mut figures: Vec<f64> = (0..DRAWS).map(|_| figure(&mut draw)).collect();
    figures.sort_by(f64::total_cmp);
    (figures[DRAWS / 40], figures[DRAWS - 1 - DRAWS / 40])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_hold_the_median_and_differences_know_their_sign() {
        let slow: Vec<f64> = (0..20).map(|number| 50.0 + f64::from(number)).collect();
        let quick: Vec<f64> = slow.iter().map(|number| number - 40.0).collect();
        let (low, high) = interval(&slow);
        assert!(low <= median(&slow) && median(&slow) <= high && low < high);
        assert!(difference(&quick, &slow).1 < 0.0);
        assert!(difference(&slow, &quick).0 > 0.0);
        let (low, high) = difference(&slow, &slow);
        assert!(low <= 0.0 && high >= 0.0);
    }
}
