//! Work on single rows, and the division of rows among threads.

use super::elementwise::{Activation, Add, Apply, Norm};
use super::pool::Disjoint;
use super::rotary::Turn;
use super::{Cpu, Isa, Rotary};

/// Values that one task takes; with less work than two of these the caller does it alone.
const TASK_VALUES: usize = 1 << 14;

/// Calls `work(r, parts)` for each of `rows` rows, in any order, on all threads; `parts` are row r of each buffer
/// `[rows, its width]`.
pub fn each_row<const N: usize>(
    cpu: &Cpu,
    rows: usize,
    buffers: [&mut [f32]; N],
    work: impl Fn(usize, [&mut [f32]; N]) + Sync,
) {
    let widths = widths(rows, &buffers);
    let buffers = buffers.map(Disjoint::new);
    run_rows(cpu, rows, widths.iter().sum(), |row| {
        // SAFETY: each row is visited once.
        work(row, unsafe { parts(&buffers, &widths, row) });
    });
}

/// The widths of buffers `[rows, width]`.
pub(super) fn widths<const N: usize>(rows: usize, buffers: &[&mut [f32]; N]) -> [usize; N] {
    let mut widths = [0; N];
    for (width, buffer) in widths.iter_mut().zip(buffers) {
        assert!(buffer.len().is_multiple_of(rows.max(1)), "{rows} rows in {} values", buffer.len());
        *width = buffer.len() / rows.max(1);
    }
    widths
}

/// Row `row` of each buffer.
/// # Safety
/// Nobody else has this row.
#[allow(clippy::mut_from_ref)]
pub(super) unsafe fn parts<'a, const N: usize>(
    buffers: &'a [Disjoint<'_, f32>; N],
    widths: &[usize; N],
    row: usize,
) -> [&'a mut [f32]; N] {
    // SAFETY: the caller's word.
    std::array::from_fn(|i| unsafe { buffers[i].part(row * widths[i], widths[i]) })
}

/// Calls `work(row)` for all rows; `values` is what a row costs.
pub(super) fn run_rows(cpu: &Cpu, rows: usize, values: usize, work: impl Fn(usize) + Sync) {
    for_row_ranges(cpu, rows, values, |from, len| (from..from + len).for_each(&work));
}

/// Calls `work(first row, rows)` for ranges that cover all rows; `values` is what a row costs.
pub(super) fn for_row_ranges(cpu: &Cpu, rows: usize, values: usize, work: impl Fn(usize, usize) + Sync) {
    if rows == 0 {
        return;
    }
    let tasks = rows.div_ceil((TASK_VALUES / values.max(1)).max(1));
    // Even shares: sixteen rows are not fourteen and two.
    let per_task = rows.div_ceil(tasks);
    cpu.pool.run(rows.div_ceil(per_task), &|task| {
        let from = task * per_task;
        work(from, per_task.min(rows - from));
    });
}

/// out = x / sqrt(mean(x^2) + eps) * weight; all three have one length.
pub fn norm_row(isa: Isa, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    assert!(x.len() == weight.len() && out.len() == x.len(), "norm of {} by {}", x.len(), weight.len());
    isa.run(Norm { x: Some(x), weight, eps, out });
}

/// [`norm_row`] in place, of one vector after another, each as long as `weight`.
pub fn norm_rows_in_place(isa: Isa, x: &mut [f32], weight: &[f32], eps: f32) {
    assert!(x.len().is_multiple_of(weight.len().max(1)), "norm of {} by {}", x.len(), weight.len());
    isa.run(Norm { x: None, weight, eps, out: x });
}

/// x += y. Both have one length.
pub fn add_row(isa: Isa, x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len());
    isa.run(Add { x, y });
}

/// out = silu(gate) * up. All three have one length.
pub fn silu_mul_row(isa: Isa, gate: &[f32], up: &[f32], out: &mut [f32]) {
    gate_mul(isa, Activation::Silu, gate, up, out);
}

/// out = gelu(gate) * up with the tanh form of GELU. All three have one length.
pub fn gelu_tanh_mul_row(isa: Isa, gate: &[f32], up: &[f32], out: &mut [f32]) {
    gate_mul(isa, Activation::GeluTanh, gate, up, out);
}

fn gate_mul(isa: Isa, activation: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert!(gate.len() == out.len() && up.len() == out.len(), "{} {} {}", gate.len(), up.len(), out.len());
    isa.run(Apply { activation, gate: Some(gate), up: Some(up), out });
}

/// Turns the first `2 cos.len()` coordinates of each head of `x`, `[heads, d_head]`, in place:
/// (a, b) -> (a cos - b sin, b cos + a sin).
pub fn rotary_row(isa: Isa, x: &mut [f32], d_head: usize, cos: &[f32], sin: &[f32], style: Rotary) {
    assert!(x.len().is_multiple_of(d_head) && 2 * cos.len() <= d_head && cos.len() == sin.len());
    isa.run(Turn { x, d_head, cos, sin, style });
}
