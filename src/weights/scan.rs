//! Looks for NaN and infinity in the floats of a stored tensor: its elements or its blocks' scales.

use crate::format::ElementFormat;

/// Byte position of the first value that is not finite; `data` is whole blocks of `format`.
pub(super) fn non_finite(format: ElementFormat, data: &[u8]) -> Option<usize> {
    match format {
        ElementFormat::F32 => find::<4>(data, |bytes| !f32::from_le_bytes(bytes).is_finite()),
        ElementFormat::BF16 => find::<2>(data, |bytes| u16::from_le_bytes(bytes) & 0x7f80 == 0x7f80),
        ElementFormat::F16 => find::<2>(data, not_finite_half),
        quantised => {
            let scales = scale_places(quantised);
            data.chunks_exact(quantised.block_bytes()).enumerate().find_map(|(index, block)| {
                let place =
                    scales.iter().find(|place| half_at(block, **place).is_some_and(not_finite_half))?;
                Some(index * quantised.block_bytes() + place)
            })
        }
    }
}

/// Where the half floats of a block are, in bytes from its start.
const fn scale_places(format: ElementFormat) -> &'static [usize] {
    match format {
        ElementFormat::F32 | ElementFormat::F16 | ElementFormat::BF16 => &[],
        ElementFormat::Q4_0 | ElementFormat::Q5_0 | ElementFormat::Q8_0 => &[0],
        ElementFormat::Q4_1 | ElementFormat::Q5_1 | ElementFormat::Q4_K | ElementFormat::Q5_K => &[0, 2],
        ElementFormat::Q2_K => &[80, 82],
        ElementFormat::Q3_K => &[108],
        ElementFormat::Q6_K => &[208],
    }
}

fn half_at(block: &[u8], place: usize) -> Option<[u8; 2]> {
    block.get(place..)?.first_chunk().copied()
}

/// All exponent bits of an IEEE half are set.
fn not_finite_half(bytes: [u8; 2]) -> bool {
    u16::from_le_bytes(bytes) & 0x7c00 == 0x7c00
}

/// Looks at 4 KiB at a time without leaving early, which the compiler turns into vector code; then finds the place.
fn find<const N: usize>(data: &[u8], bad: impl Fn([u8; N]) -> bool) -> Option<usize> {
    for (index, part) in data.chunks(4096).enumerate() {
        let (values, _) = part.as_chunks::<N>();
        if values.iter().fold(false, |any, value| any | bad(*value)) {
            let place = values.iter().position(|value| bad(*value))?;
            return Some(index * 4096 + place * N);
        }
    }
    None
}
