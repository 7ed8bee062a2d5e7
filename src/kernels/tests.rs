//! Products and attention against plain f64, one row against many, threads and instruction sets against each other.

use super::*;
use crate::limits::PAGE_POSITIONS;

/// Without optimisation every vector operation is a call: a few shapes only.
const THOROUGH: bool = !cfg!(debug_assertions);

/// A small generator, so that every test makes its own data from a seed.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1)
    }

    pub(super) fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Uniform in -1..1.
    pub(super) fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

pub(super) fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    (0..len).map(|_| random.float()).collect()
}

pub(super) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// n rows of k elements of a format: random quants, scales of moderate size.
pub(super) fn random_blocks(format: ElementFormat, n: usize, k: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut data: Vec<u8> = (0..n * format.row_bytes(k).unwrap()).map(|_| random.next() as u8).collect();
    let halves: &[usize] = match format {
        ElementFormat::F32 | ElementFormat::BF16 => &[],
        ElementFormat::F16 | ElementFormat::Q4_0 | ElementFormat::Q5_0 | ElementFormat::Q8_0 => &[0],
        ElementFormat::Q4_1 | ElementFormat::Q5_1 | ElementFormat::Q4_K | ElementFormat::Q5_K => &[0, 2],
        ElementFormat::Q2_K => &[80, 82],
        ElementFormat::Q3_K => &[108],
        ElementFormat::Q6_K => &[208],
    };
    for block in data.chunks_exact_mut(format.block_bytes()) {
        for at in halves {
            block[*at..at + 2].copy_from_slice(&half::f16::from_f32(random.float() * 0.02).to_le_bytes());
        }
        match format {
            ElementFormat::F32 => block.copy_from_slice(&(random.float() * 0.1).to_le_bytes()),
            ElementFormat::BF16 => {
                block.copy_from_slice(&half::bf16::from_f32(random.float() * 0.1).to_le_bytes())
            }
            _ => {}
        }
    }
    data
}

/// Runs `work` with every instruction set and 1, 2 and 3 threads. Results with one instruction set must agree in every
/// bit, and those of AVX2 and AVX-512; one result of each comes back.
pub(super) fn check_isas(work: impl Fn(&Cpu) -> Vec<f32>) -> Vec<Vec<f32>> {
    let mut results: Vec<Vec<f32>> = Vec::new();
    for isa in Isa::available() {
        let first = work(&Cpu::new(isa, 1));
        for threads in [2, 3] {
            assert!(bits(&work(&Cpu::new(isa, threads))) == bits(&first), "{isa:?}, {threads} threads");
        }
        results.push(first);
    }
    for pair in results.get(1..).unwrap_or_default().windows(2) {
        assert!(bits(&pair[0]) == bits(&pair[1]), "AVX2 and AVX-512 differ");
    }
    results
}

fn multiply(cpu: &Cpu, w: &PackedMatrix, x: &[f32], rows: usize, precision: Precision) -> Vec<f32> {
    let mut activations = Activations::new(precision);
    activations.set(cpu, x, rows, w.k());
    let stride = w.n() + 3;
    let mut y = vec![7.0; rows * stride];
    product(cpu, w, &activations, &mut y, stride);
    assert!(y.chunks(stride).all(|row| row[w.n()..].iter().all(|value| *value == 7.0)), "wrote past n");
    y.chunks(stride).flat_map(|row| row[..w.n()].to_vec()).collect()
}

/// Products of `rows` rows against f64; single rows and fewer rows against all.
fn check_product(format: ElementFormat, n: usize, k: usize, precision: Precision) {
    let data = random_blocks(format, n, k, (n + k) as u64);
    let mut values = vec![0.0; n * k];
    dequantize(format, &data, &mut values).unwrap();
    let w = PackedMatrix::pack(format, n, k, &data, precision).unwrap();
    // More than two blocks of sixteen, with a rest that the matrix units take and, for fewer rows, one that they leave.
    let rows = if THOROUGH { 43 } else { 19 };
    let x = random(rows * k, 99);
    let results = check_isas(|cpu| {
        let all = multiply(cpu, &w, &x, rows, precision);
        for some in 1..rows {
            let part = multiply(cpu, &w, &x[..some * k], some, precision);
            assert!(bits(&part) == bits(&all[..some * n]), "{format} [{n}, {k}]: {some} rows of {rows}");
        }
        let last = multiply(cpu, &w, &x[(rows - 1) * k..], 1, precision);
        assert!(bits(&last) == bits(&all[(rows - 1) * n..]), "{format} [{n}, {k}]: the last row alone");
        all
    });
    for (place, y) in results[0].iter().enumerate() {
        let (x, w) = (&x[place / n * k..][..k], &values[place % n * k..][..k]);
        let terms = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
        let expected: f64 = terms.clone().sum();
        let magnitude: f64 = terms.map(f64::abs).sum();
        // int8: each activation is off by at most amax / 254, uniformly; f32: rounding only.
        let weights: f64 = w.iter().map(|w| f64::from(*w).powi(2)).sum();
        let bound = match precision {
            // bf16: each activation is off by at most 2^-9 of itself.
            Precision::Int8 if format == ElementFormat::BF16 => magnitude / 512.0,
            Precision::Int8 => 1e-6 * magnitude + 5.0 * weights.sqrt() / 254.0,
            Precision::F32 => 2e-6 * magnitude,
        };
        for result in &results {
            let error = (f64::from(result[place]) - expected).abs();
            assert!(
                error <= bound,
                "{format} [{n}, {k}] {precision:?}: {} {expected} {bound}",
                result[place]
            );
        }
        assert!((f64::from(*y) - f64::from(results[results.len() - 1][place])).abs() <= 1e-5 * magnitude);
    }
}

#[test]
fn products_agree_with_f64_and_with_themselves() {
    for format in ElementFormat::ALL {
        for k in [32usize, 96, 256, 576, 640, 768, 896, 1536] {
            if !k.is_multiple_of(format.block_len()) || !THOROUGH && k != 256 {
                continue;
            }
            for n in if THOROUGH { vec![16, 17, 48] } else { vec![17] } {
                check_product(format, n, k, Precision::Int8);
                check_product(format, n, k, Precision::F32);
            }
        }
    }
    for format in [ElementFormat::F32, ElementFormat::F16, ElementFormat::BF16] {
        check_product(format, 33, 37, Precision::F32);
    }
}

/// Longest integers: 8-bit weights of -128 and 127 against activations of 127 and -127 would saturate 16-bit sums.
#[test]
fn extreme_values_do_not_saturate() {
    let one = half::f16::ONE.to_le_bytes();
    let (n, k) = (16, 64);
    for (weight, sign) in [(-128i8, 1.0f32), (127, 1.0), (-128, -1.0), (127, -1.0)] {
        let block: Vec<u8> = one.into_iter().chain([weight as u8; 32]).collect();
        let w = PackedMatrix::pack(ElementFormat::Q8_0, n, k, &block.repeat(n * k / 32), Precision::Int8)
            .unwrap();
        for isa in Isa::available() {
            let y = multiply(&Cpu::new(isa, 1), &w, &vec![sign * 127.0; k], 1, Precision::Int8);
            assert!(y.iter().all(|y| *y == f32::from(weight) * sign * 127.0 * k as f32), "{isa:?} {y:?}");
        }
    }
    // Q6_K: quants and scales of the largest size, all of one sign.
    for (quant_byte, q) in [(0x00u8, -32.0f32), (0xff, 31.0)] {
        let mut block = vec![quant_byte; 192];
        block.extend([0x80u8; 16]);
        block.extend(one);
        let w = PackedMatrix::pack(ElementFormat::Q6_K, n, 256, &block.repeat(n), Precision::Int8).unwrap();
        for isa in Isa::available() {
            let y = multiply(&Cpu::new(isa, 1), &w, &[-127.0; 256], 1, Precision::Int8);
            assert!(y.iter().all(|y| *y == q * -128.0 * -127.0 * 256.0), "{isa:?} {y:?}");
        }
    }
}

#[test]
fn several_matrices_in_one_run() {
    let (k, rows) = (96, 5);
    let x = random(rows * k, 5);
    let matrices: Vec<PackedMatrix> =
        [(ElementFormat::Q4_1, 576), (ElementFormat::Q8_0, 17), (ElementFormat::F32, 192)]
            .into_iter()
            .map(|(format, n)| {
                PackedMatrix::pack(format, n, k, &random_blocks(format, n, k, 8), Precision::Int8).unwrap()
            })
            .collect();
    check_isas(|cpu| {
        let mut activations = Activations::new(Precision::Int8);
        activations.set(cpu, &x, rows, k);
        let mut outs: Vec<Vec<f32>> = matrices.iter().map(|w| vec![0.0; rows * w.n()]).collect();
        let mut parts: Vec<(&PackedMatrix, &mut [f32], usize)> =
            matrices.iter().zip(&mut outs).map(|(w, out)| (w, out.as_mut_slice(), w.n())).collect();
        product_many(cpu, &mut parts, &activations);
        for (w, out) in matrices.iter().zip(&outs) {
            assert_eq!(bits(out), bits(&multiply(cpu, w, &x, rows, Precision::Int8)));
        }
        outs.concat()
    });
}

/// Weights packed for rounded activations meet f32 ones as if they were packed for those.
#[test]
fn weights_for_rounded_activations_take_others_too() {
    let (n, k, rows) = (33, 96, 19);
    let x = random(rows * k, 3);
    for format in [ElementFormat::BF16, ElementFormat::Q4_1] {
        let data = random_blocks(format, n, k, 4);
        let pack = |precision| PackedMatrix::pack(format, n, k, &data, precision).unwrap();
        let (rounding, exact) = (pack(Precision::Int8), pack(Precision::F32));
        check_isas(|cpu| {
            let given = multiply(cpu, &rounding, &x, rows, Precision::F32);
            assert!(bits(&given) == bits(&multiply(cpu, &exact, &x, rows, Precision::F32)), "{format}");
            given
        });
    }
}

/// A row that is not finite spoils itself only, and visibly.
#[test]
fn damage_stays_in_its_row() {
    let (n, k, rows) = (16, 64, 19);
    for format in [ElementFormat::Q4_1, ElementFormat::BF16, ElementFormat::F16] {
        let w = PackedMatrix::pack(format, n, k, &random_blocks(format, n, k, 1), Precision::Int8).unwrap();
        let clean = random(rows * k, 2);
        let mut x = clean.clone();
        x[k + 40] = f32::NAN;
        for isa in Isa::available() {
            let cpu = Cpu::new(isa, 1);
            for rows in [3, rows] {
                let y = multiply(&cpu, &w, &x[..rows * k], rows, Precision::Int8);
                let expected = multiply(&cpu, &w, &clean[..rows * k], rows, Precision::Int8);
                assert!(y[n..2 * n].iter().all(|y| y.is_nan()), "{format} {isa:?}");
                assert!(bits(&y[..n]) == bits(&expected[..n]), "{format} {isa:?}");
                assert!(bits(&y[2 * n..]) == bits(&expected[2 * n..]), "{format} {isa:?}");
            }
        }
    }
}

/// A sequence with random keys and values, in pages of its own choice.
struct Sequence {
    pages: Vec<u32>,
    /// `[positions, n_kv_heads * d_head]`, as stored.
    k: Vec<f32>,
    v: Vec<f32>,
    q: Vec<f32>,
    format: KvFormat,
}

fn sequence(shape: &AttentionShape, positions: usize, first_page: u32, format: KvFormat) -> Sequence {
    let width = shape.n_kv_heads * shape.d_head;
    let round = |values: Vec<f32>| match format {
        KvFormat::F32 => values,
        KvFormat::Bf16 => values.into_iter().map(|x| half::bf16::from_f32(x).to_f32()).collect(),
        KvFormat::F16 => values.into_iter().map(|x| half::f16::from_f32(x).to_f32()).collect(),
        KvFormat::Q8 => {
            let blocks = values.chunks(shape.d_head).flat_map(|head| head.chunks(32));
            let back = |block: &[f32]| {
                let largest = block.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
                let scale = half::f16::from_f32(largest / 127.0).to_f32();
                let quant = move |x: &f32| (x * (1.0 / scale)).round_ties_even().clamp(-127.0, 127.0);
                block.iter().map(|x| scale * quant(x)).collect::<Vec<f32>>()
            };
            blocks.flat_map(back).collect()
        }
    };
    let count = positions.div_ceil(PAGE_POSITIONS) as u32;
    Sequence {
        pages: (0..count).map(|i| first_page + count - 1 - i).collect(),
        k: round(random(positions * width, 11).iter().map(|x| x * 2.0).collect()),
        v: round(random(positions * width, 12)),
        q: random(positions * shape.n_heads * shape.d_head, 13),
        format,
    }
}

fn write(kv: &mut KvLayer, sequence: &Sequence, positions: std::ops::Range<usize>) {
    let width = kv.n_kv_heads() * kv.d_head();
    for p in positions {
        let (k, v) = (&sequence.k[p * width..][..width], &sequence.v[p * width..][..width]);
        kv.write(sequence.pages[p / PAGE_POSITIONS], p % PAGE_POSITIONS, k, v);
    }
}

fn attend(
    cpu: &Cpu,
    shape: &AttentionShape,
    kv: &KvLayer,
    sequence: &Sequence,
    positions: &[usize],
) -> Vec<f32> {
    let width = shape.n_heads * shape.d_head;
    let rows: Vec<AttentionRow<'_>> =
        positions.iter().map(|p| AttentionRow { position: *p as u32, pages: &sequence.pages }).collect();
    let q: Vec<f32> = positions.iter().flat_map(|p| sequence.q[p * width..][..width].to_vec()).collect();
    let mut out = vec![0.0; q.len()];
    attention(cpu, shape, kv, &rows, &q, &mut out);
    out
}

fn naive(shape: &AttentionShape, sequence: &Sequence, p: usize, head: usize) -> Vec<f64> {
    let d = shape.d_head;
    let kv_head = head / (shape.n_heads / shape.n_kv_heads);
    let q = sequence.q[(p * shape.n_heads + head) * d..][..d].iter();
    let q: Vec<f32> = match sequence.format {
        KvFormat::Bf16 => q.map(|x| half::bf16::from_f32(*x * shape.scale).to_f32() / shape.scale).collect(),
        _ => q.copied().collect(),
    };
    let row = |values: &[f32], key: usize| values[(key * shape.n_kv_heads + kv_head) * d..][..d].to_vec();
    let first = shape.window.map_or(0, |window| (p + 1).saturating_sub(window as usize));
    let scores: Vec<f64> = (first..=p)
        .map(|key| {
            let products = q.iter().zip(row(&sequence.k, key)).map(|(q, k)| f64::from(*q) * f64::from(k));
            let score = products.sum::<f64>() * f64::from(shape.scale);
            shape.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
        })
        .collect();
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let mut out = vec![0.0; d];
    for (key, weight) in (first..=p).zip(weights) {
        for (out, v) in out.iter_mut().zip(row(&sequence.v, key)) {
            *out += weight / sum * f64::from(v);
        }
    }
    out
}

fn shapes() -> Vec<(AttentionShape, KvFormat)> {
    let shape = |n_heads, n_kv_heads, d_head, window, softcap| AttentionShape {
        n_heads,
        n_kv_heads,
        d_head,
        scale: 1.0 / (d_head as f32).sqrt(),
        window,
        softcap,
    };
    let all = vec![
        (shape(9, 3, 64, None, None), KvFormat::F32),
        (shape(9, 3, 64, None, None), KvFormat::F16),
        (shape(4, 1, 256, Some(100), None), KvFormat::F32),
        (shape(8, 1, 128, Some(64), Some(5.0)), KvFormat::F16),
        (shape(2, 2, 80, Some(1), None), KvFormat::F32),
        (shape(7, 1, 16, Some(513), Some(2.0)), KvFormat::F32),
        (shape(9, 3, 64, None, None), KvFormat::Q8),
        (shape(2, 1, 80, Some(100), None), KvFormat::Q8),
        (shape(9, 3, 64, None, None), KvFormat::Bf16),
        (shape(8, 1, 128, Some(64), Some(5.0)), KvFormat::Bf16),
        (shape(8, 2, 96, Some(513), None), KvFormat::Bf16),
        (shape(7, 1, 80, Some(1), None), KvFormat::Bf16),
    ];
    if THOROUGH { all } else { vec![all[3], all[5]] }
}

#[test]
fn attention_agrees_with_f64_and_rows_do_not_depend_on_company() {
    let all = [0, 1, 63, 64, 65, 127, 500, 510, 511, 512, 513, 640, 699, 700];
    let positions = if THOROUGH { all.to_vec() } else { vec![0, 63, 513] };
    for (shape, format) in shapes() {
        let sequence = sequence(&shape, 701, 2, format);
        let mut kv = KvLayer::new(20, shape.n_kv_heads, shape.d_head, format);
        write(&mut kv, &sequence, 0..701);
        let width = shape.n_heads * shape.d_head;
        // Weights in bfloat16 are off by 2^-9 of themselves, values are at most 1.
        let bound = if format == KvFormat::Bf16 { 4e-3 } else { 3e-6 };
        let results = check_isas(|cpu| {
            let all = attend(cpu, &shape, &kv, &sequence, &positions);
            for (i, p) in positions.iter().enumerate() {
                let alone = attend(cpu, &shape, &kv, &sequence, &[*p]);
                assert!(bits(&alone) == bits(&all[i * width..][..width]), "{shape:?}: position {p} alone");
            }
            all
        });
        for (i, p) in positions.iter().enumerate() {
            for head in 0..shape.n_heads {
                let expected = naive(&shape, &sequence, *p, head);
                for result in &results {
                    let given = &result[i * width + head * shape.d_head..][..shape.d_head];
                    for (given, expected) in given.iter().zip(&expected) {
                        let error = (f64::from(*given) - expected).abs();
                        assert!(error < bound, "{shape:?}: position {p}, head {head}: {given} {expected}");
                    }
                }
            }
        }
    }
}

/// A prompt in one step, and in chunks of 1, 7 and 50 rows with nothing but zeros beyond what is written.
#[test]
fn attention_of_a_whole_prompt_equals_chunks() {
    for (shape, format) in shapes() {
        let len = if THOROUGH { 150 } else { 66 };
        let sequence = sequence(&shape, len, 0, format);
        let width = shape.n_heads * shape.d_head;
        check_isas(|cpu| {
            let mut kv = KvLayer::new(4, shape.n_kv_heads, shape.d_head, format);
            write(&mut kv, &sequence, 0..len);
            let whole = attend(cpu, &shape, &kv, &sequence, &(0..len).collect::<Vec<_>>());
            for chunk in if THOROUGH { vec![1, 7, 50] } else { vec![50] } {
                sequence.pages.iter().for_each(|page| kv.zero_page(*page));
                for start in (0..len).step_by(chunk) {
                    let end = len.min(start + chunk);
                    write(&mut kv, &sequence, start..end);
                    let part = attend(cpu, &shape, &kv, &sequence, &(start..end).collect::<Vec<_>>());
                    assert!(
                        bits(&part) == bits(&whole[start * width..end * width]),
                        "{shape:?}: chunks of {chunk}"
                    );
                }
            }
            whole
        });
    }
}
