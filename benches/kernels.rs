//! Speed of the kernels, in GB/s and GOP/s, beside what this machine reads and multiplies at best.
//!
//! `cargo bench --bench kernels -- [isa] [threads]`; the best of several runs is shown.

use demeanor::format::ElementFormat;
use demeanor::kernels::{
    Activations, AttentionRow, AttentionShape, Cpu, Isa, KvFormat, KvLayer, PackedMatrix, Precision,
    attention, each_row, product, rms_norm, silu_mul_row,
};
use std::hint::black_box;
use std::time::{Duration, Instant};

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let isa = arguments.next().and_then(|name| Isa::parse(&name)).unwrap_or_else(Isa::detect);
    let threads = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(2);
    let cpu = Cpu::new(isa, threads);
    println!("{}, {} threads", cpu.isa.name(), cpu.pool.threads());
    limits(&cpu);
    println!("\n{:<30} {:>5} {:>10} {:>8} {:>8}", "product", "rows", "us", "GB/s", "GOP/s");
    for (format, precision) in [
        (ElementFormat::Q4_1, Precision::Int8),
        (ElementFormat::Q8_0, Precision::Int8),
        (ElementFormat::Q5_0, Precision::Int8),
        (ElementFormat::Q4_K, Precision::Int8),
        (ElementFormat::Q6_K, Precision::Int8),
        (ElementFormat::Q4_1, Precision::F32),
        (ElementFormat::F16, Precision::F32),
    ] {
        let shapes = [(576, 576), (1536, 576), (576, 1536), (49_152, 576)];
        for (n, k) in shapes.map(|(n, k): (usize, usize)| (n, k.next_multiple_of(format.block_len()))) {
            for rows in [1, 2, 16, 512] {
                if n < 10_000 || rows <= 2 {
                    products(&cpu, format, precision, n, k, rows);
                }
            }
        }
    }
    println!("\n{:<30} {:>5} {:>10} {:>8} {:>8}", "other", "rows", "us", "GB/s", "GOP/s");
    attentions(&cpu);
    elementwise(&cpu);
}

/// The shortest of the runs that fit a fifth of a second, at least three.
fn best(mut work: impl FnMut()) -> f64 {
    let (begin, mut best, mut runs) = (Instant::now(), f64::INFINITY, 0);
    while runs < 3 || begin.elapsed() < Duration::from_millis(200) {
        let start = Instant::now();
        work();
        best = best.min(start.elapsed().as_secs_f64());
        runs += 1;
    }
    best
}

fn line(name: &str, rows: usize, seconds: f64, bytes: usize, operations: usize) {
    let (gigabytes, giga) = (bytes as f64 / seconds / 1e9, operations as f64 / seconds / 1e9);
    println!("{name:<30} {rows:>5} {:>10.1} {gigabytes:>8.1} {giga:>8.1}", seconds * 1e6);
}

/// Read bandwidth over 256 MB, and int8 products of a matrix that stays in the second-level cache.
fn limits(cpu: &Cpu) {
    let data = vec![1u64; 32 << 20];
    let parts: Vec<&[u64]> = data.chunks(1 << 16).collect();
    let seconds = best(|| {
        cpu.pool.run(parts.len(), &|part| {
            black_box(parts[part].iter().fold(0, |sum: u64, value| sum.wrapping_add(*value)));
        });
    });
    println!("read bandwidth                 {:.1} GB/s", data.len() as f64 * 8.0 / seconds / 1e9);
    let (n, k, rows) = (256, 1024, 64);
    let seconds = time_product(cpu, ElementFormat::Q8_0, Precision::Int8, n, k, rows).0;
    println!("int8 products in cache         {:.1} GOP/s", (2 * n * k * rows) as f64 / seconds / 1e9);
}

fn time_product(
    cpu: &Cpu,
    format: ElementFormat,
    precision: Precision,
    n: usize,
    k: usize,
    rows: usize,
) -> (f64, usize) {
    let row_bytes = format.row_bytes(k).expect("k fits the format");
    let data: Vec<u8> = (0..n * row_bytes).map(|i| (i * 37 % 59) as u8).collect();
    let w = PackedMatrix::pack(format, n, k, &data, precision).expect("sizes fit");
    let x: Vec<f32> = (0..rows * k).map(|i| (i % 17) as f32 - 8.0).collect();
    let mut activations = Activations::new(precision);
    activations.set(cpu, &x, rows, k);
    let mut y = vec![0.0; rows * n];
    (best(|| product(cpu, &w, &activations, black_box(&mut y), n)), w.bytes())
}

fn products(cpu: &Cpu, format: ElementFormat, precision: Precision, n: usize, k: usize, rows: usize) {
    let (seconds, bytes) = time_product(cpu, format, precision, n, k, rows);
    line(&format!("{format} {precision:?} [{n}, {k}]"), rows, seconds, bytes, 2 * n * k * rows);
}

/// A prompt of 512, and the last row of one, with the heads of SmolLM2.
fn attentions(cpu: &Cpu) {
    let shape =
        AttentionShape { n_heads: 9, n_kv_heads: 3, d_head: 64, scale: 0.125, window: None, softcap: None };
    for format in [KvFormat::F16, KvFormat::F32] {
        let mut kv = KvLayer::new(8, 3, 64, format);
        let k: Vec<f32> = (0..192).map(|i| (i % 13) as f32 * 0.1 - 0.6).collect();
        (0..512).for_each(|p| kv.write(p / 64, p as usize % 64, &k, &k));
        let pages: Vec<u32> = (0..8).collect();
        for first in [0, 511u32] {
            let rows: Vec<AttentionRow<'_>> =
                (first..512).map(|position| AttentionRow { position, pages: &pages }).collect();
            let q: Vec<f32> = (0..rows.len() * 576).map(|i| (i % 11) as f32 * 0.1 - 0.5).collect();
            let mut out = vec![0.0; q.len()];
            let seconds = best(|| attention(cpu, &shape, &kv, &rows, &q, black_box(&mut out)));
            let keys: usize = rows.iter().map(|row| row.position as usize + 1).sum();
            let bytes = 8 * KvLayer::bytes_per_page(3, 64, format);
            line(&format!("attention {format:?}, 512 keys"), rows.len(), seconds, bytes, keys * 9 * 64 * 4);
        }
    }
}

fn elementwise(cpu: &Cpu) {
    for rows in [1, 512] {
        let (x, weight) = (vec![0.5; rows * 576], vec![1.0; 576]);
        let mut out = vec![0.0; x.len()];
        let seconds = best(|| rms_norm(cpu, &x, rows, 576, &weight, 1e-5, black_box(&mut out)));
        line("rms_norm 576", rows, seconds, x.len() * 8, x.len() * 4);
        let (gate, up) = (vec![0.5; rows * 1536], vec![1.5; rows * 1536]);
        let mut out = vec![0.0; gate.len()];
        let seconds = best(|| {
            each_row(cpu, rows, [black_box(&mut out)], |row, [out]| {
                let range = row * 1536..(row + 1) * 1536;
                silu_mul_row(cpu.isa, &gate[range.clone()], &up[range], out);
            })
        });
        line("silu_mul 1536", rows, seconds, gate.len() * 12, gate.len() * 15);
        let mut activations = Activations::new(Precision::Int8);
        let seconds = best(|| activations.set(cpu, black_box(&x), rows, 576));
        line("quantise 576", rows, seconds, x.len() * 9, x.len() * 3);
    }
}
