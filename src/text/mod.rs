//! Text to tokens and back: tokenizer, chat template, stream decoding, stop strings. No tensors.
