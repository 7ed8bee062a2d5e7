//! Names of vectors: which are allowed, and which known ones are near to an unknown one.

pub use crate::names::{NAME_BYTES_MAX, is_name_byte, is_name_start, is_valid_name};

/// The up to three known names nearest to `name`, nearest first, ties in alphabetical order. Names that share less than
/// half of their letters are not suggested.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut found: Vec<(usize, &str)> = known
        .into_iter()
        .map(|candidate| (edit_distance(name.as_bytes(), candidate.as_bytes()), candidate))
        .filter(|(distance, candidate)| 2 * distance <= name.len().max(candidate.len()))
        .collect();
    found.sort();
    found.dedup();
    found.into_iter().take(3).map(|(_, candidate)| candidate.to_owned()).collect()
}

/// Levenshtein distance, over bytes or characters as the caller likes.
pub fn edit_distance<T: PartialEq>(a: &[T], b: &[T]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, of_a) in a.iter().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, of_b) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(of_a != of_b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, distance) in
            [("", "abc", 3), ("warm", "warm", 0), ("wram", "warm", 2), ("cold", "bold", 1)]
        {
            assert_eq!(edit_distance(a.as_bytes(), b.as_bytes()), distance, "{a} {b}");
            assert_eq!(edit_distance(b.as_bytes(), a.as_bytes()), distance, "{b} {a}");
        }
    }

    #[test]
    fn suggestions() {
        let known = ["warm", "cold", "formal", "casual", "wary"];
        assert_eq!(nearest("wram", known), ["warm"]);
        assert_eq!(nearest("war", known), ["warm", "wary"]);
        assert_eq!(nearest("formall", known), ["formal"]);
        assert_eq!(nearest("zebra", known), Vec::<String>::new());
    }
}
