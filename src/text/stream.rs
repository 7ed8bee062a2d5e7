//! Text of a growing answer: tokens in, complete characters out.

use super::Tokenizer;
use std::sync::Arc;

/// Decodes token by token. The pieces, `finish` included, joined are `Tokenizer::decode` of all tokens: a sequence of
/// bytes that can no longer become a character turns into U+FFFD at once, one that still can is held back.
pub struct StreamDecoder {
    tokenizer: Arc<Tokenizer>,
    skip_special: bool,
    /// Control tokens that stand for their text all the same.
    shown: Arc<[u32]>,
    /// The beginning of a character; at most 3 bytes between calls.
    held: Vec<u8>,
}

impl StreamDecoder {
    /// Control tokens stand for nothing.
    pub fn new(tokenizer: Arc<Tokenizer>) -> StreamDecoder {
        StreamDecoder::showing(tokenizer, Arc::default())
    }

    /// Control tokens stand for nothing but for `shown`, which stand for their text.
    pub fn showing(tokenizer: Arc<Tokenizer>, shown: Arc<[u32]>) -> StreamDecoder {
        StreamDecoder { tokenizer, skip_special: true, shown, held: Vec::new() }
    }

    /// Control tokens stand for their text.
    pub fn with_specials(tokenizer: Arc<Tokenizer>) -> StreamDecoder {
        StreamDecoder { skip_special: false, ..StreamDecoder::new(tokenizer) }
    }

    /// Takes a token; gives the text that is certain now.
    pub fn push(&mut self, id: u32) -> String {
        if !(self.skip_special && self.tokenizer.is_special(id)) || self.shown.contains(&id) {
            self.held.extend(self.tokenizer.token_bytes(id).unwrap_or_default());
        }
        let complete = complete_len(&self.held);
        let text = String::from_utf8_lossy(&self.held[..complete]).into_owned();
        self.held.drain(..complete);
        text
    }

    /// The end: what was held back, as U+FFFD.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned()
    }
}

/// Length without the beginning of a character at the end.
fn complete_len(bytes: &[u8]) -> usize {
    let mut done = 0;
    loop {
        match std::str::from_utf8(&bytes[done..]) {
            Ok(_) => return bytes.len(),
            Err(error) => match error.error_len() {
                Some(len) => done += error.valid_up_to() + len,
                None => return done + error.valid_up_to(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn characters_wait_for_their_bytes() {
        let tokenizer = Arc::new(fixtures::byte_tokenizer());
        let mut stream = StreamDecoder::new(tokenizer);
        let mut push = |byte: u8| stream.push(u32::from(byte));
        // U+1F600 in four tokens, then a lone continuation byte, then a start that a letter breaks off.
        let pieces: Vec<String> = [0xf0, 0x9f, 0x98, 0x80, 0x80, 0xe2, b'a', 0xe2].map(&mut push).into();
        assert_eq!(pieces, ["", "", "", "\u{1f600}", "\u{fffd}", "", "\u{fffd}a", ""]);
        assert_eq!(stream.finish(), "\u{fffd}");
        assert_eq!(stream.finish(), "");
    }

    #[test]
    fn some_control_tokens_are_shown() {
        let tokenizer = Arc::new(fixtures::byte_tokenizer());
        let mut stream = StreamDecoder::showing(tokenizer, Arc::from([257]));
        assert_eq!([256, 257].map(|id| stream.push(id)), ["", "<|im_end|>"]);
    }

    proptest! {
        #[test]
        fn pieces_join_to_the_whole(ids in prop::collection::vec(0u32..262, 0..40), specials: bool) {
            let tokenizer = Arc::new(fixtures::byte_tokenizer());
            let start = if specials { StreamDecoder::with_specials } else { StreamDecoder::new };
            let mut stream = start(tokenizer.clone());
            let mut text: String = ids.iter().map(|&id| stream.push(id)).collect();
            text += &stream.finish();
            prop_assert_eq!(text, tokenizer.decode(&ids, !specials));
        }

        #[test]
        fn sentencepiece_pieces_join_too(ids in prop::collection::vec(0u32..300, 0..40)) {
            let tokenizer = Arc::new(fixtures::piece_tokenizer());
            let mut stream = StreamDecoder::new(tokenizer.clone());
            let mut text: String = ids.iter().map(|&id| stream.push(id)).collect();
            text += &stream.finish();
            prop_assert_eq!(text, tokenizer.decode(&ids, true));
        }
    }
}
