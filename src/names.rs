//! What names of vectors, personas, soft prompts and catalogue entries may look like.

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
}
