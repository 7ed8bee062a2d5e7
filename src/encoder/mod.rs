//! The sentence encoder: texts to vectors (BERT family, on candle).
