//! What names of vectors, personas, soft prompts and catalogue entries may look like, and which of them are near to each other.

/// Longest name in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// Whether `name` matches `[a-z0-9][a-z0-9._-]{0,63}`. Such a name is also a safe file stem on every system.
pub fn is_valid_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= NAME_BYTES_MAX
        && is_name_start(bytes[0])
        && bytes.iter().all(|&byte| is_name_byte(byte))
}

/// Whether a name may begin with this byte.
pub fn is_name_start(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Whether a name may contain this byte.
pub fn is_name_byte(byte: u8) -> bool {
    is_name_start(byte) || matches!(byte, b'.' | b'_' | b'-')
}

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
    fn names() {
        for name in ["warm", "a", "0.8", "warm.cold", "x_y-z", &"a".repeat(64)] {
            assert!(is_valid_name(name), "{name}");
        }
        for name in ["", ".a", "-a", "_a", "Warm", "a b", "a/b", "é", "a\\b", &"a".repeat(65)] {
            assert!(!is_valid_name(name), "{name}");
        }
    }

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
