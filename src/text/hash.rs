//! A fast hash for look-ups whose keys come from a model's vocabulary, never from a client.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Looked up only: its order of iteration means nothing.
pub(super) type Lookup<K, V> = HashMap<K, V, BuildHasherDefault<Mixer>>;

/// Multiplies words of the key into the state. Merging asks for millions of pairs a second; the standard hash, made
/// against chosen keys, took two thirds of that time.
#[derive(Default)]
pub(super) struct Mixer(u64);

impl Mixer {
    fn mix(&mut self, word: u64) {
        // Odd, bits spread evenly: 2^64 over the golden ratio. The fold brings high bits, which depend on all, down.
        let product = u128::from(self.0.rotate_left(5) ^ word) * 0x9e37_79b9_7f4a_7c15;
        self.0 = product as u64 ^ (product >> 64) as u64;
    }
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.mix(u64::from(value) | 1 << 63);
    }

    fn write_u32(&mut self, value: u32) {
        self.mix(u64::from(value) | 1 << 62);
    }

    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::Hash;

    #[test]
    fn pairs_and_texts_spread() {
        let hash = |key: &dyn Fn(&mut Mixer)| {
            let mut mixer = Mixer::default();
            key(&mut mixer);
            mixer.finish()
        };
        let pairs = (0..256u64).flat_map(|a| (0..256u64).map(move |b| a << 32 | b));
        let texts = (0..65_536u32).map(|n| format!("▁{n}"));
        let mut buckets = [[0u32; 1024]; 3];
        for key in pairs {
            let value = hash(&|mixer| key.hash(mixer));
            buckets[0][(value & 1023) as usize] += 1;
            buckets[1][(value >> 54) as usize] += 1;
        }
        for text in texts {
            buckets[2][(hash(&|mixer| text.as_str().hash(mixer)) & 1023) as usize] += 1;
        }
        // 64 a bucket on average.
        for counts in buckets {
            assert!(counts.iter().all(|&count| count < 160), "{:?}", counts.iter().max());
        }
    }
}
