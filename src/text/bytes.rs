//! How vocabularies spell bytes: GPT-2's printable alphabet and SentencePiece's `<0x0A>`.

/// The character that stands for a byte in a byte-level vocabulary: itself where it is printable, else the next free
/// one from U+0100 on.
pub(super) fn spell(byte: u8) -> char {
    match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        0..=b' ' => shifted(u32::from(byte)),
        0x7f..=0xa0 => shifted(u32::from(byte) - 0x7f + 0x21),
        0xad => shifted(0x43),
    }
}

fn shifted(by: u32) -> char {
    char::from_u32(0x100 + by).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The bytes of a token spelled in that alphabet; `None` if it has other characters.
pub(super) fn unspell(token: &str) -> Option<Vec<u8>> {
    token.chars().map(unspell_one).collect()
}

fn unspell_one(character: char) -> Option<u8> {
    match u32::from(character) {
        code @ 0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        code @ 0x121..=0x142 => u8::try_from(code - 0x121 + 0x7f).ok(),
        0x143 => Some(0xad),
        code => u8::try_from(code).ok().filter(|&byte| spell(byte) == character),
    }
}

/// The byte that `<0x0A>` names.
pub(super) fn byte_of(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    let plain = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    plain.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_character() {
        let all: String = (0..=255).map(spell).collect();
        assert_eq!(unspell(&all), Some((0..=255).collect()));
        assert_eq!(all.chars().collect::<std::collections::BTreeSet<_>>().len(), 256);
        for (byte, character) in
            [(b' ', 'Ġ'), (b'\n', 'Ċ'), (0xad, 'Ń'), (0x7f, 'ġ'), (0xa0, 'ł'), (b'a', 'a')]
        {
            assert_eq!(spell(byte), character);
        }
        assert_eq!(unspell("a b"), None);
    }

    #[test]
    fn sentencepiece_bytes() {
        for (token, byte) in [
            ("<0x0A>", Some(10)),
            ("<0xFF>", Some(255)),
            ("<0x1>", None),
            ("<0x+1>", None),
            ("<0x123>", None),
        ] {
            assert_eq!(byte_of(token), byte, "{token}");
        }
    }
}
