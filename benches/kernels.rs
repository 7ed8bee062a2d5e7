//! Speed of the kernels, in GB/s and GOP/s, beside what this machine reads and multiplies at best.
//!
//! `cargo bench --bench kernels -- [isa] [threads]`; the best of several runs is shown. Products of a few rows read
//! matrices that together are larger than any cache, one after the other, as a large model's weights are read: their GB/s
//! is also shown as a share of what reading alone reaches. Products of many rows have their GOP/s as a share of what the
//! units that they run on reach without memory.

use demeanor::format::ElementFormat;
use demeanor::kernels::{
    Activations, AttentionRow, AttentionShape, Cpu, Isa, KvFormat, KvLayer, PackedMatrix, Precision,
    attention, bf16_peak_of_matrix_units, bf16_peak_of_vectors, each_row, f32_peak_of_vectors,
    int8_peak_of_matrix_units, int8_peak_of_vectors, product, rms_norm, silu_mul_row,
};
use std::hint::black_box;
use std::time::{Duration, Instant};

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let isa = arguments.next().and_then(|name| Isa::parse(&name)).unwrap_or_else(Isa::detect);
    let threads = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(2);
    let cpu = Cpu::new(isa, threads);
    println!("{}, {} threads", cpu.isa.name(), cpu.pool.threads());
    let limits = Limits::measured(&cpu);
    println!("\n{:<26} {:>5} {:>10} {:>8} {:>8} {:>9}", "product", "rows", "us", "GB/s", "GOP/s", "of limit");
    for format in [
        ElementFormat::Q4_0,
        ElementFormat::Q4_1,
        ElementFormat::Q5_0,
        ElementFormat::Q5_1,
        ElementFormat::Q8_0,
        ElementFormat::Q4_K,
        ElementFormat::Q5_K,
        ElementFormat::Q6_K,
    ] {
        for (n, k) in [(2048, 2048), (2048, 8192)] {
            products_from_memory(&cpu, &limits, format, Precision::Int8, n, k);
        }
        for (n, k) in [(576usize, 576usize), (1536, 576), (576, 1536), (2048, 2048)] {
            let k = k.next_multiple_of(format.block_len());
            products(&cpu, &limits, format, Precision::Int8, n, k);
        }
    }
    for format in [ElementFormat::BF16, ElementFormat::F16, ElementFormat::F32] {
        products_from_memory(&cpu, &limits, format, Precision::Int8, 2048, 2048);
        products(&cpu, &limits, format, Precision::Int8, 2048, 2048);
    }
    products(&cpu, &limits, ElementFormat::Q4_1, Precision::F32, 2048, 2048);
    println!("\n{:<26} {:>5} {:>10} {:>8} {:>8}", "other", "rows", "us", "GB/s", "GOP/s");
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
    println!("{}", figures(name, rows, seconds, bytes, operations));
}

fn figures(name: &str, rows: usize, seconds: f64, bytes: usize, operations: usize) -> String {
    let (gigabytes, giga) = (bytes as f64 / seconds / 1e9, operations as f64 / seconds / 1e9);
    format!("{name:<26} {rows:>5} {:>10.1} {gigabytes:>8.1} {giga:>8.1}", seconds * 1e6)
}

/// Bytes that are read when memory is to be the limit.
const MEMORY: usize = 512 << 20;

/// What this machine does at best, all threads together.
struct Limits {
    /// Bytes per second.
    read: f64,
    /// int8 operations per second, with matrix units where the instruction set has them.
    int8: f64,
    /// bfloat16 operations per second of matrix units or, without them, of instructions for pairs.
    bf16: Option<f64>,
}

impl Limits {
    fn measured(cpu: &Cpu) -> Limits {
        for mib in [64, 256] {
            println!("read bandwidth, {mib:>3} MiB         {:>8.1} GB/s", read(cpu, mib << 20) / 1e9);
        }
        let read = read(cpu, MEMORY);
        println!("read bandwidth, {:>3} MiB         {:>8.1} GB/s", MEMORY >> 20, read / 1e9);
        let measured = |name: &str, peak: &dyn Fn(usize) -> Option<usize>| {
            let mut operations = peak(1)?;
            let seconds = best(|| operations = peak(100_000).unwrap_or(0));
            let per_second = operations as f64 / seconds;
            println!("{name:<31} {:>8.1} GOP/s", per_second / 1e9);
            Some(per_second)
        };
        let with_matrix_units = |peak: Option<usize>| peak.filter(|_| cpu.isa == Isa::Amx);
        let vectors = measured("int8, vectors", &|rounds| Some(int8_peak_of_vectors(cpu, rounds)));
        let units = measured("int8, matrix units, sums of 32", &|rounds| {
            with_matrix_units(int8_peak_of_matrix_units(cpu, rounds))
        });
        measured("f32, vectors", &|rounds| Some(f32_peak_of_vectors(cpu, rounds)));
        let pairs = measured("bf16, pairs in vectors", &|rounds| bf16_peak_of_vectors(cpu, rounds));
        let bf16 = measured("bf16, matrix units", &|rounds| {
            with_matrix_units(bf16_peak_of_matrix_units(cpu, rounds))
        });
        let bf16 = bf16.or(pairs);
        let int8 = units.or(vectors).unwrap_or(f64::NAN);
        Limits { read, int8, bf16 }
    }
}

/// Bytes per second that all threads read from a buffer in large pages, where the system gives them.
fn read(cpu: &Cpu, bytes: usize) -> f64 {
    let mut memory = memmap2::MmapMut::map_anon(bytes).expect("memory for the bench");
    #[cfg(target_os = "linux")]
    let _ = memory.advise(memmap2::Advice::HugePage);
    memory.fill(1);
    let parts: Vec<&[u8]> = memory.chunks(bytes.div_ceil(cpu.pool.threads())).collect();
    let seconds = best(|| {
        cpu.pool.run(parts.len(), &|part| {
            let mut sums = [0u8; 128];
            for values in parts[part].as_chunks::<128>().0 {
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum ^= value;
                }
            }
            black_box(sums);
        });
    });
    bytes as f64 / seconds
}

fn packed(format: ElementFormat, precision: Precision, n: usize, k: usize) -> PackedMatrix {
    let row_bytes = format.row_bytes(k).expect("k fits the format");
    let number = |i: usize| (i % 59) as f32 * 0.01 - 0.3;
    let data: Vec<u8> = match format {
        // Bytes of any kind would be numbers of any size.
        ElementFormat::F32 => (0..n * k).flat_map(|i| number(i).to_le_bytes()).collect(),
        ElementFormat::BF16 => {
            (0..n * k).flat_map(|i| half::bf16::from_f32(number(i)).to_le_bytes()).collect()
        }
        _ => (0..n * row_bytes).map(|i| (i * 37 % 59) as u8).collect(),
    };
    PackedMatrix::pack(format, n, k, &data, precision).expect("sizes fit")
}

fn activations(cpu: &Cpu, precision: Precision, rows: usize, k: usize) -> Activations {
    let x: Vec<f32> = (0..rows * k).map(|i| (i % 17) as f32 - 8.0).collect();
    let mut activations = Activations::new(precision);
    activations.set(cpu, &x, rows, k);
    activations
}

fn product_line(name: &str, rows: usize, seconds: f64, bytes: usize, operations: usize, share: f64) {
    println!("{} {:>7.0} %", figures(name, rows, seconds, bytes, operations), 100.0 * share);
}

/// Few rows, and weights that no cache holds.
fn products_from_memory(
    cpu: &Cpu,
    limits: &Limits,
    format: ElementFormat,
    precision: Precision,
    n: usize,
    k: usize,
) {
    let first = packed(format, precision, n, k);
    let bytes = first.bytes();
    let rest = (1..MEMORY.div_ceil(bytes)).map(|_| packed(format, precision, n, k));
    let matrices: Vec<PackedMatrix> = std::iter::once(first).chain(rest).collect();
    for rows in [1, 4, 16] {
        let x = activations(cpu, precision, rows, k);
        let mut y = vec![0.0; rows * n];
        let all = best(|| matrices.iter().for_each(|w| product(cpu, w, &x, black_box(&mut y), n)));
        let seconds = all / matrices.len() as f64;
        let name = format!("{format} [{n}, {k}], memory");
        product_line(&name, rows, seconds, bytes, 2 * n * k * rows, bytes as f64 / seconds / limits.read);
    }
}

/// Many rows.
fn products(cpu: &Cpu, limits: &Limits, format: ElementFormat, precision: Precision, n: usize, k: usize) {
    let w = packed(format, precision, n, k);
    for rows in [16, 128, 512] {
        let x = activations(cpu, precision, rows, k);
        let mut y = vec![0.0; rows * n];
        let seconds = best(|| product(cpu, &w, &x, black_box(&mut y), n));
        let operations = 2 * n * k * rows;
        let name = format!("{format} {precision:?} [{n}, {k}]");
        let limit = match (precision, format) {
            (Precision::F32, _) | (_, ElementFormat::F16 | ElementFormat::F32) => None,
            (_, ElementFormat::BF16) => limits.bf16,
            _ => Some(limits.int8),
        };
        match limit {
            Some(limit) => {
                product_line(&name, rows, seconds, w.bytes(), operations, operations as f64 / seconds / limit)
            }
            None => line(&name, rows, seconds, w.bytes(), operations),
        }
    }
}

/// Prompts, and the last row of each, with the heads of SmolLM2.
fn attentions(cpu: &Cpu) {
    let shape =
        AttentionShape { n_heads: 9, n_kv_heads: 3, d_head: 64, scale: 0.125, window: None, softcap: None };
    for (format, positions) in [KvFormat::F16, KvFormat::F32, KvFormat::Bf16, KvFormat::Q8]
        .into_iter()
        .flat_map(|format| [(format, 512u32), (format, 4096)])
    {
        let pages: Vec<u32> = (0..positions / 64).collect();
        let mut kv = KvLayer::new(pages.len(), 3, 64, format);
        let k: Vec<f32> = (0..192).map(|i| (i % 13) as f32 * 0.1 - 0.6).collect();
        (0..positions).for_each(|p| kv.write(p / 64, p as usize % 64, &k, &k));
        for first in [positions - 512, positions - 1] {
            let rows: Vec<AttentionRow<'_>> =
                (first..positions).map(|position| AttentionRow { position, pages: &pages }).collect();
            let q: Vec<f32> = (0..rows.len() * 576).map(|i| (i % 11) as f32 * 0.1 - 0.5).collect();
            let mut out = vec![0.0; q.len()];
            let seconds = best(|| attention(cpu, &shape, &kv, &rows, &q, black_box(&mut out)));
            let keys: usize = rows.iter().map(|row| row.position as usize + 1).sum();
            let bytes = pages.len() * KvLayer::bytes_per_page(3, 64, format);
            line(
                &format!("attention {format:?}, {positions} keys"),
                rows.len(),
                seconds,
                bytes,
                keys * 9 * 64 * 4,
            );
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
