//! The values of stored elements, for every format: the reference that the packed forms are held to.

use super::blocks::{Block, rule};
use super::{KernelError, math::f16_to_f32};
use crate::format::ElementFormat;

/// Writes the values of `data` to `out`, exactly as the file means them. `data` holds `out.len()` elements.
pub fn dequantize(format: ElementFormat, data: &[u8], out: &mut [f32]) -> Result<(), KernelError> {
    let block_len = format.block_len();
    let row_length = || KernelError::RowLength { format, k: out.len(), block_len };
    let expected = format.row_bytes(out.len()).ok_or_else(row_length)?;
    if data.len() != expected {
        return Err(KernelError::DataLength { format, given: data.len(), expected });
    }
    let Some(rule) = rule(format) else {
        plain(format, data, out);
        return Ok(());
    };
    let mut block = Block::new();
    for (data, out) in data.chunks_exact(format.block_bytes()).zip(out.chunks_exact_mut(block_len)) {
        block.read(format, data);
        block.dequantize(rule, out);
    }
    Ok(())
}

fn plain(format: ElementFormat, data: &[u8], out: &mut [f32]) {
    let halves = data.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    match format {
        ElementFormat::F16 => out.iter_mut().zip(halves).for_each(|(out, half)| *out = f16_to_f32(half)),
        ElementFormat::BF16 => {
            out.iter_mut().zip(halves).for_each(|(out, half)| *out = f32::from_bits(u32::from(half) << 16));
        }
        _ => {
            for (out, four) in out.iter_mut().zip(data.chunks_exact(4)) {
                *out = f32::from_le_bytes([four[0], four[1], four[2], four[3]]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by `scripts/make_quant_fixtures.py`: for each format its GGUF id, the number of values and of bytes
    /// (u32), the bytes, then the values that gguf-py gives for them (f32).
    const FIXTURE: &[u8] = include_bytes!("../../tests/fixtures/quant_blocks.bin");

    #[test]
    fn every_format_gives_the_values_of_gguf_py() {
        let mut rest = FIXTURE;
        let mut take = |len: usize| {
            let (head, tail) = rest.split_at(len);
            rest = tail;
            head
        };
        let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
        for _ in ElementFormat::ALL {
            let format = ElementFormat::from_gguf_id(number(take(4))).unwrap();
            let (values, bytes) = (number(take(4)) as usize, number(take(4)) as usize);
            let data = take(bytes);
            let expected: Vec<u32> = take(4 * values).chunks(4).map(number).collect();
            let mut out = vec![0.0f32; values];
            dequantize(format, data, &mut out).unwrap();
            let given: Vec<u32> = out.iter().map(|value| value.to_bits()).collect();
            assert!(values >= 256 && given == expected, "{format}");
        }
        assert!(take(0).is_empty() && rest.is_empty());
    }

    #[test]
    fn wrong_sizes_are_errors_that_say_so() {
        let error = dequantize(ElementFormat::Q4_0, &[0; 17], &mut [0.0; 32]).unwrap_err();
        assert_eq!(error.to_string(), "Q4_0 data: 17 bytes given; 18 needed");
        let error = dequantize(ElementFormat::Q4_K, &[0; 144], &mut [0.0; 100]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Q4_K rows of 100 elements: the length must be a positive multiple of 256"
        );
    }
}
