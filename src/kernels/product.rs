//! y = x W^T for packed weights: choice of the kernel and division of the work.

use super::activations::Activations;
use super::packed::{Form, PackedMatrix, STRIP, Storage};
use super::pool::Disjoint;
use super::simd::Simd;
use super::{Cpu, product_bf16, product_f32, product_int8};
use std::ops::Range;

/// Tasks for each thread, so that a thread that was interrupted does not hold up the others for long.
const TASKS_PER_THREAD: usize = 4;
/// From so many rows on tasks get smaller towards the end, so that no thread waits long for another. Fewer rows take long
/// for memory only, which reads long runs best.
const MANY_ROWS: usize = 8;
/// Strips of a task over a thread's share of what is left then.
const PART_OF_SHARE: usize = 3;
/// Activations of one task, in int8 or in bfloat16 of matrix units (vectors read twice as much), should stay in the
/// second-level cache beside a strip of weights.
const ACTIVATION_BYTES: usize = 512 << 10;

/// Bytes between the weights that are used and those of the same strip that are asked for meanwhile, where few rows use
/// them. The processor's own prefetching looks less far.
pub(super) const PREFETCH_AHEAD: usize = 8 << 10;

/// [`PREFETCH_AHEAD`] after byte `at` of some strips side by side: beyond their end come the next ones.
#[inline(always)]
pub(super) fn ahead(at: usize, strip_bytes: usize, strips: usize) -> usize {
    let next = at + PREFETCH_AHEAD;
    next + next / strip_bytes * (strips - 1) * strip_bytes
}

/// One output of a product: `y[r * y_stride + j]`, `j < n`.
pub(super) struct Output<'a> {
    w: &'a PackedMatrix,
    y: Disjoint<'a, f32>,
    y_stride: usize,
}

impl Output<'_> {
    /// Writes the 16 columns of a strip of row `row`, without the padding of the last strip.
    /// # Safety
    /// No other thread writes the same row and strip.
    #[inline(always)]
    pub(super) unsafe fn write<S: Simd>(&self, s: S, row: usize, strip: usize, values: S::F) {
        let columns = (self.w.n() - strip * STRIP).min(STRIP);
        // SAFETY: the caller's word; different strips and rows do not overlap as y_stride >= n. Sixteen values fit both
        // places that they are stored to.
        unsafe {
            let part = self.y.part(row * self.y_stride + strip * STRIP, columns);
            if columns == STRIP {
                return s.store(part.as_mut_ptr(), values);
            }
            let mut all = [0.0; STRIP];
            s.store(all.as_mut_ptr(), values);
            part.copy_from_slice(&all[..columns]);
        }
    }
}

/// `y[r * y_stride + j] = sum_k x[r, k] w[j, k]` for `j < n` and all rows of `x`.
pub fn product(cpu: &Cpu, w: &PackedMatrix, x: &Activations, y: &mut [f32], y_stride: usize) {
    product_many(cpu, &mut [(w, y, y_stride)], x);
}

/// Several products that read the same rows: `(w, y, y_stride)` each, as in [`product`].
pub fn product_many(cpu: &Cpu, parts: &mut [(&PackedMatrix, &mut [f32], usize)], x: &Activations) {
    if x.rows() == 0 {
        return;
    }
    let threads = cpu.pool.threads();
    let outputs: Vec<Output<'_>> =
        parts.iter_mut().map(|(w, y, y_stride)| output(w, x, y, *y_stride)).collect();
    let mut left: usize = outputs.iter().map(|y| y.w.strips() * row_panels(y.w, x).len()).sum();
    let fixed = task_strips(left, threads * TASKS_PER_THREAD);
    let mut tasks = Vec::with_capacity(64);
    for (part, y) in outputs.iter().enumerate() {
        for rows in row_panels(y.w, x) {
            let (mut start, end) = (0, y.w.strips());
            while start < end {
                let strips = match threads {
                    1 => end,
                    _ if x.rows() < MANY_ROWS => fixed,
                    _ => task_strips(left, threads * PART_OF_SHARE),
                };
                let strips = strips.min(end - start);
                tasks.push((part, start..start + strips, rows.clone()));
                start += strips;
                left -= strips;
            }
        }
    }
    cpu.pool.run(tasks.len(), &|task| {
        let (part, strips, rows) = tasks[task].clone();
        let y = &outputs[part];
        let w = y.w;
        // SAFETY: tasks of one output differ in their strips or in their rows.
        unsafe {
            match (form(w, x), &w.storage) {
                (Form::Int8, Storage::Tiles(layout)) => {
                    product_int8::run(cpu.isa, w, layout, x, y, strips, rows);
                }
                (Form::Bf16, _) => product_bf16::run(cpu.isa, w, x, y, strips, rows),
                _ => product_f32::run(cpu.isa, w, x, y, strips, rows),
            }
        }
    });
}

/// An even number, as products take two strips at a time.
fn task_strips(strips: usize, tasks: usize) -> usize {
    strips.div_ceil(tasks).next_multiple_of(2).max(2)
}

/// The form in which these weights and activations meet.
fn form(w: &PackedMatrix, x: &Activations) -> Form {
    if x.has(w.form()) { w.form() } else { Form::F32 }
}

fn output<'a>(w: &'a PackedMatrix, x: &Activations, y: &'a mut [f32], y_stride: usize) -> Output<'a> {
    assert_eq!(w.k(), x.k(), "a product over k");
    let needed = (x.rows() - 1) * y_stride + w.n();
    assert!(y_stride >= w.n() && y.len() >= needed, "y holds {} of {needed}, stride {y_stride}", y.len());
    Output { w, y: Disjoint::new(y), y_stride }
}

/// The rows that one task takes at a time.
fn row_panels(w: &PackedMatrix, x: &Activations) -> impl ExactSizeIterator<Item = Range<usize>> + use<> {
    let panel = match form(w, x) {
        Form::Int8 => (ACTIVATION_BYTES / x.k()).max(8).next_multiple_of(8),
        Form::Bf16 => (ACTIVATION_BYTES / 2 / x.k()).max(32).next_multiple_of(32),
        Form::F32 => product_f32::ROWS_MAX,
    };
    let rows = x.rows();
    (0..rows).step_by(panel).map(move |start| start..rows.min(start + panel))
}
