//! Did you mean: the nearest of a few known words.

/// Longest word that is compared, bytes. No directive is near to a longer one.
const WORD_BYTES_MAX: usize = 48;

/// Returns the candidate that is nearest to the word, if it is near enough to be a slip.
///
/// Case does not count. A third of the letters, at least one, may differ. Of equally near
/// candidates the one wins that differs in separators only.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    if word.is_empty() || word.len() > WORD_BYTES_MAX {
        return None;
    }
    let word = word.to_ascii_lowercase();
    let near_enough = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| {
            let lower = candidate.to_ascii_lowercase();
            let letters = distance(&letters(&word), &letters(&lower));
            (distance(&word, &lower), letters, candidate)
        })
        .filter(|&(distance, ..)| distance <= near_enough)
        .min_by_key(|&(distance, letters, _)| (distance, letters))
        .map(|(.., candidate)| candidate)
}

/// Returns a word without its separators.
fn letters(word: &str) -> String {
    word.replace(['_', '-'], "")
}

/// Counts the letters to insert, delete, replace or swap with their neighbour to turn one word
/// into the other (the optimal string alignment distance).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=to.len()).collect();
    let mut last: Option<char> = None;
    for (row, a) in from.chars().enumerate() {
        let mut line = Vec::with_capacity(to.len() + 1);
        let mut left = row + 1;
        line.push(left);
        let mut last_to: Option<char> = None;
        for (column, &b) in to.iter().enumerate() {
            let diagonal = above.get(column).copied().unwrap_or(usize::MAX);
            let up = above.get(column + 1).copied().unwrap_or(usize::MAX);
            let mut cost = (diagonal + usize::from(a != b)).min(up + 1).min(left + 1);
            if last == Some(b) && last_to == Some(a) {
                let swapped = column.checked_sub(1).and_then(|at| before.get(at));
                cost = cost.min(swapped.map_or(usize::MAX, |swapped| swapped + 1));
            }
            line.push(cost);
            left = cost;
            last_to = Some(b);
        }
        before = std::mem::replace(&mut above, line);
        last = Some(a);
    }
    above.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_costs_one() {
        assert_eq!(distance("hash", "hash"), 0);
        assert_eq!(distance("hsah", "hash"), 1);
        assert_eq!(distance("has", "hash"), 1);
        assert_eq!(distance("haash", "hash"), 1);
        assert_eq!(distance("hush", "hash"), 1);
        assert_eq!(distance("", "hash"), 4);
        assert_eq!(distance("abc", ""), 3);
    }

    #[test]
    fn the_nearest_word_wins_and_a_strange_word_has_none() {
        let words = ["hash", "hash_tag", "timeout"];
        assert_eq!(nearest("hash_tga", words), Some("hash_tag"));
        assert_eq!(nearest("TIMEOUT", words), Some("timeout"));
        assert_eq!(nearest("fnv1a64", ["fnv1_64", "fnv1a_64"]), Some("fnv1a_64"));
        assert_eq!(nearest("foo", words), None);
        assert_eq!(nearest("", words), None);
        assert_eq!(nearest(&"a".repeat(4096), words), None);
    }
}
