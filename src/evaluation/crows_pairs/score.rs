//! The score of a pair: how much likelier the words that both sentences share are after the stereotyped group.
//!
//! Nangia et al. 2020 mask each shared word of a bidirectional model. A causal model reads left to right, so of the shared
//! tokens those behind the first difference are compared: they are the ones that the group words stand before.

/// Indices in `a` and in `b` of their longest common subsequence, ascending.
fn shared(a: &[u32], b: &[u32]) -> Vec<(usize, usize)> {
    let (n, m) = (a.len(), b.len());
    // `length[i][j]`: of a[i..] and b[j..].
    let mut length = vec![vec![0usize; m + 1]; n + 1];
    for i in (0..n).rev() {
        for j in (0..m).rev() {
            length[i][j] = match a[i] == b[j] {
                true => length[i + 1][j + 1] + 1,
                false => length[i + 1][j].max(length[i][j + 1]),
            };
        }
    }
    let (mut i, mut j, mut pairs) = (0, 0, Vec::new());
    while i < n && j < m {
        if a[i] == b[j] {
            pairs.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if length[i + 1][j] >= length[i][j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    pairs
}

/// Sum over the shared tokens behind the first difference of their log-probability in the first sentence minus that in the
/// second; `None` where there is no such token. `logprobs` go with the tokens.
pub fn score(tokens: [&[u32]; 2], logprobs: [&[f32]; 2]) -> Option<f64> {
    let [a, b] = tokens;
    let first = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let behind = shared(&a[first..], &b[first..]);
    if behind.is_empty() {
        return None;
    }
    let difference =
        |(i, j): &(usize, usize)| f64::from(logprobs[0][first + i]) - f64::from(logprobs[1][first + j]);
    Some(behind.iter().map(difference).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_tokens_behind_the_difference_count() {
        // "the old man sleeps ." and "the young tall man sleeps ."
        let (a, b) = ([1, 2, 3, 4, 5], [1, 6, 7, 3, 4, 5]);
        assert_eq!(shared(&a[1..], &b[1..]), [(1, 2), (2, 3), (3, 4)]);
        let logs_a = [-9.0, -1.0, -0.5, -0.25, -0.125];
        let logs_b = [-1.0, -1.0, -1.0, -1.0, -1.0, -1.0];
        // -0.5 - 0.25 - 0.125 against -3; the first token, before the difference, does not count.
        assert_eq!(score([&a, &b], [&logs_a, &logs_b]), Some(2.125));
        assert_eq!(score([&b, &a], [&logs_b, &logs_a]), Some(-2.125));
    }

    #[test]
    fn nothing_behind_the_difference_is_no_score() {
        assert_eq!(score([&[1, 2], &[1, 3]], [&[0.0; 2], &[0.0; 2]]), None);
        assert_eq!(score([&[1, 2], &[1, 2]], [&[0.0; 2], &[0.0; 2]]), None);
        assert_eq!(score([&[], &[1]], [&[], &[0.0]]), None);
    }
}
