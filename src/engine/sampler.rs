//! Draws the next token from logits: a pure function of logits, history, settings, seed, choice and token index.

use super::request::{Sampling, TokenLogprob};
use crate::constraint::Mask;
use crate::kernels::{self, Cpu};
use crate::model::TokenId;
use crate::statistics::mix;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Tokens whose probability is below this part of the best one's (e^-30) are never drawn; together they hold less than
/// 1e-8.
const WEIGHT_MIN: f32 = 9.357_623e-14;

/// Neighbouring tokens that are looked at together.
const GROUP: usize = 64;

/// What a sequence remembers for penalties.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    /// Times each token was generated.
    generated: BTreeMap<TokenId, u32>,
}

impl History {
    pub fn push(&mut self, id: TokenId) {
        *self.generated.entry(id).or_default() += 1;
    }
}

/// What came before a draw.
#[derive(Clone, Copy)]
pub(super) struct Past<'a> {
    pub history: &'a History,
    /// Prompt and generated tokens, for the repetition window.
    pub tokens: &'a [TokenId],
    /// Generated tokens: the index of the one to draw.
    pub generated: u32,
}

/// Draws the next token of a choice among those that `mask` allows (at least one). `logits` is `[vocab_size]` and may be
/// changed.
pub(super) fn draw(
    cpu: &Cpu,
    logits: &mut [f32],
    sampling: &Sampling,
    past: Past,
    mask: Option<&Mask>,
) -> TokenId {
    let Past { history, tokens, generated: index } = past;
    if let Some(mask) = mask {
        ban(logits, mask);
    }
    adjust(logits, sampling, history, tokens);
    if let Some(mask) = mask
        && logits.iter().all(|logit| *logit == f32::NEG_INFINITY)
        && let Some(id) = mask.tokens().next()
    {
        // The client's bias bans all that its constraint allows.
        return id;
    }
    if sampling.temperature == 0.0 {
        return kernels::argmax(cpu.isa, logits) as TokenId;
    }
    let total = kernels::softmax_weights(cpu, logits, sampling.temperature);
    let Candidates { mut list, total } = candidates(logits, total, sampling);
    let mass = uniform(sampling.seed, sampling.choice, index) * total;
    match shortest(&mut list, mass) {
        (0, _) => kernels::argmax(cpu.isa, logits) as TokenId,
        (len, _) => list[len - 1].0,
    }
}

/// Leaves what the mask allows.
fn ban(logits: &mut [f32], mask: &Mask) {
    for (id, logit) in (0..).zip(logits) {
        if !mask.allows(id) {
            *logit = f32::NEG_INFINITY;
        }
    }
}

/// Bias and penalties, in place.
fn adjust(logits: &mut [f32], sampling: &Sampling, history: &History, tokens: &[TokenId]) {
    for (id, bias) in &sampling.logit_bias {
        if let Some(logit) = logits.get_mut(*id as usize) {
            *logit += bias;
        }
    }
    if sampling.repetition_penalty != 1.0 {
        let from = tokens.len().saturating_sub(sampling.repetition_window as usize);
        let mut window = tokens[from..].to_vec();
        window.sort_unstable();
        window.dedup();
        for id in window {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit = match *logit > 0.0 {
                    true => *logit / sampling.repetition_penalty,
                    false => *logit * sampling.repetition_penalty,
                };
            }
        }
    }
    if sampling.presence_penalty != 0.0 || sampling.frequency_penalty != 0.0 {
        for (id, count) in &history.generated {
            if let Some(logit) = logits.get_mut(*id as usize) {
                *logit -= sampling.presence_penalty + sampling.frequency_penalty * *count as f32;
            }
        }
    }
}

/// Tokens that may be drawn, in no order.
struct Candidates {
    list: Vec<(TokenId, f32)>,
    /// Their weights together.
    total: f64,
}

/// The tokens that the filters leave. `weights` are probabilities but for a factor, the best one's is 1; `total` is
/// their sum.
fn candidates(weights: &[f32], total: f64, sampling: &Sampling) -> Candidates {
    let share = f64::from(sampling.top_p);
    let of_all = sampling.top_k == 0 && sampling.typical_p >= 1.0;
    let mut floor = WEIGHT_MIN;
    if of_all {
        // Tokens below the second bound hold together less than what top_p leaves out, so none of them is kept. Most of a
        // vocabulary is below it.
        let left_out = (1.0 - share) * total / weights.len() as f64;
        floor = floor.max(sampling.min_p).max((0.999 * left_out) as f32);
    }
    let mut list: Vec<(TokenId, f32)> = Vec::with_capacity(1024);
    // Most groups of tokens hold none to keep, which vectors find out faster than a loop over tokens.
    for (group, first) in weights.chunks(GROUP).zip((0..).step_by(GROUP)) {
        if group.iter().fold(false, |any, weight| any | (*weight >= floor)) {
            list.extend((first..).zip(group.iter().copied()).filter(|(_, weight)| *weight >= floor));
        }
    }
    let top_k = sampling.top_k as usize;
    if top_k > 0 && top_k < list.len() {
        list.select_nth_unstable_by(top_k - 1, descending);
        list.truncate(top_k);
    }
    if sampling.typical_p < 1.0 {
        keep_typical(&mut list, f64::from(sampling.typical_p));
    }
    // Before top_p counts only where no token was filtered out.
    let mut total = if of_all { total } else { total_of(&list) };
    if share < 1.0 {
        let (kept, sum) = shortest(&mut list, share * total);
        list.truncate(kept);
        total = sum;
    }
    if sampling.min_p > 0.0 {
        let best = list.iter().fold(0.0, |best: f32, (_, weight)| best.max(*weight));
        list.retain(|(_, weight)| *weight >= best * sampling.min_p);
        total = total_of(&list);
    }
    Candidates { list, total }
}

fn total_of(list: &[(TokenId, f32)]) -> f64 {
    list.iter().map(|(_, weight)| f64::from(*weight)).sum()
}

/// Brings to the front what is needed of a list, from the largest weight down with ties in ascending id, to hold at least
/// `mass`, its last entry at its end: gives length and sum, at least one entry if there is one. Weights are from
/// [`WEIGHT_MIN`] to 1.
///
/// Only weights near the border are compared with each other: a flat distribution has a hundred thousand before it.
fn shortest(list: &mut [(TokenId, f32)], mass: f64) -> (usize, f64) {
    let (mut from, mut to, mut sum) = (0, list.len(), 0.0);
    if list.len() > SORTED_MAX {
        let mut held = [0.0; STEPS];
        for (_, weight) in list.iter() {
            held[step_of(*weight)] += f64::from(*weight);
        }
        let last = held.iter().rposition(|held| *held > 0.0).unwrap_or(0);
        let mut border = 0;
        while border < last && (held[border] == 0.0 || sum + held[border] < mass) {
            sum += held[border];
            border += 1;
        }
        from = bring(list, 0, |weight| step_of(weight) < border);
        to = bring(list, from, |weight| step_of(weight) == border);
    }
    list[from..to].sort_unstable_by(descending);
    continued(&list[..to], mass, from, sum)
}

/// Goes on from a beginning of so many entries that hold `sum` until it holds `mass`, and at least one entry.
fn continued(list: &[(TokenId, f32)], mass: f64, mut len: usize, mut sum: f64) -> (usize, f64) {
    while len < list.len() && (len == 0 || sum < mass) {
        sum += f64::from(list[len].1);
        len += 1;
    }
    (len, sum)
}

/// Lists up to this length are sorted as they are.
const SORTED_MAX: usize = 128;
/// Bits of a weight that do not count for its step: 32 steps from one power of two to the next.
const STEP_BITS: u32 = f32::MANTISSA_DIGITS - 1 - 5;
/// Steps from 1 down to [`WEIGHT_MIN`].
const STEPS: usize = ((1f32.to_bits() - WEIGHT_MIN.to_bits()) >> STEP_BITS) as usize + 1;

/// Larger weights have lower steps.
fn step_of(weight: f32) -> usize {
    ((1f32.to_bits().saturating_sub(weight.to_bits()) >> STEP_BITS) as usize).min(STEPS - 1)
}

/// Exchanges entries from index `from` on so that the `wanted` ones come first; gives the index after them.
fn bring(list: &mut [(TokenId, f32)], from: usize, wanted: impl Fn(f32) -> bool) -> usize {
    let mut end = from;
    for i in from..list.len() {
        let is = wanted(list[i].1);
        list.swap(i, end);
        end += usize::from(is);
    }
    end
}

fn descending(a: &(TokenId, f32), b: &(TokenId, f32)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// Locally typical sampling (Meister et al. 2022): tokens whose surprise is nearest to the entropy come first.
fn keep_typical(list: &mut Vec<(TokenId, f32)>, share: f64) {
    // In one order whatever a filter before it left.
    list.sort_unstable_by(descending);
    let total = total_of(list);
    let surprise = |weight: f32| -(f64::from(weight) / total).ln();
    let entropy: f64 = list.iter().map(|(_, weight)| f64::from(*weight) / total * surprise(*weight)).sum();
    let distance = |weight: f32| (surprise(weight) - entropy).abs();
    list.sort_by(|a, b| distance(a.1).total_cmp(&distance(b.1)).then(a.0.cmp(&b.0)));
    let (kept, _) = continued(list, share * total, 0, 0.0);
    list.truncate(kept);
}

/// A number in [0, 1) from a counter generator: no state, so no order of drawing matters.
fn uniform(seed: u64, choice: u32, index: u32) -> f64 {
    let counter = u64::from(choice) << 32 | u64::from(index);
    let bits =
        mix(mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ mix(counter.wrapping_add(0xd1b5_4a32_d192_ed03)));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// Log-probability of `id` and of the `top` most probable tokens (descending, ties in ascending id).
pub(super) fn logprob(cpu: &Cpu, logits: &[f32], id: TokenId, top: u32) -> TokenLogprob {
    let log_sum = log_sum_exp(cpu, logits);
    let of = |logit: f32| logit - log_sum;
    let top = top_logits(logits, top as usize).into_iter().map(|(id, logit)| (id, of(logit))).collect();
    TokenLogprob { id, logprob: of(logits[id as usize]), top }
}

/// ln(sum exp(logit)): what a logit has too much to be a log-probability.
pub(super) fn log_sum_exp(cpu: &Cpu, logits: &[f32]) -> f32 {
    kernels::max_and_log_sum_exp(cpu, logits).1
}

fn top_logits(logits: &[f32], top: usize) -> Vec<(TokenId, f32)> {
    if top == 0 {
        return Vec::new();
    }
    let descending = |a: &(TokenId, f32), b: &(TokenId, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    let mut list: Vec<(TokenId, f32)> = Vec::with_capacity(4 * top);
    let mut floor = f32::NEG_INFINITY;
    for (id, logit) in logits.iter().enumerate().filter(|(_, logit)| !logit.is_nan()) {
        if *logit > floor || list.len() < top {
            list.push((id as TokenId, *logit));
            if list.len() == 4 * top {
                list.sort_unstable_by(descending);
                list.truncate(top);
                floor = list[top - 1].1;
            }
        }
    }
    list.sort_unstable_by(descending);
    list.truncate(top);
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu() -> Cpu {
        Cpu::new(kernels::Isa::detect(), 1)
    }

    /// The tokens that are left, in order, and their total.
    fn left(logits: &[f32], sampling: &Sampling) -> (Vec<TokenId>, f64) {
        let mut weights = logits.to_vec();
        let total = kernels::softmax_weights(&cpu(), &mut weights, sampling.temperature);
        let Candidates { mut list, total } = candidates(&weights, total, sampling);
        list.sort_unstable_by(descending);
        (list.into_iter().map(|(id, _)| id).collect(), total)
    }

    /// The same the slow way: everything is sorted.
    fn left_slowly(logits: &[f32], sampling: &Sampling) -> (Vec<TokenId>, f64) {
        let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weight = |logit: f32| (f64::from(logit - best) / f64::from(sampling.temperature)).exp();
        let mut list: Vec<(TokenId, f64)> = (0..).zip(logits.iter().map(|logit| weight(*logit))).collect();
        let floor = f64::from(WEIGHT_MIN);
        list.retain(|(_, weight)| *weight >= floor);
        list.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        if sampling.top_k > 0 {
            list.truncate(sampling.top_k as usize);
        }
        if sampling.top_p < 1.0 {
            let wanted = f64::from(sampling.top_p) * list.iter().map(|(_, weight)| weight).sum::<f64>();
            let mut sum = 0.0;
            let kept = list.iter().take_while(|(_, weight)| {
                let take = sum < wanted;
                sum += weight;
                take
            });
            let kept = kept.count().max(1);
            list.truncate(kept);
        }
        list.retain(|(_, weight)| *weight >= f64::from(sampling.min_p));
        (list.iter().map(|(id, _)| *id).collect(), list.iter().map(|(_, weight)| weight).sum())
    }

    /// Weights are rounded otherwise here and there, so the last token of a list may differ, and no more.
    #[test]
    fn filters_keep_what_they_keep_of_a_sorted_list() {
        let mut draws = crate::statistics::Draws::new(3, "sampler", 0);
        for case in 0..200 {
            let n = [1, 2, 63, 64, 65, 300, 5000, 49_152][case % 8];
            // From nearly flat to sharp; ties are frequent.
            let width = [0.1, 1.0, 4.0, 12.0][case / 8 % 4];
            let logits: Vec<f32> =
                (0..n).map(|_| ((draws.normal() * width * 16.0).round() / 16.0) as f32).collect();
            let sampling = settings(|s| {
                s.temperature = [0.3, 0.8, 1.0, 2.0][case % 4];
                s.top_p = [1.0, 0.95, 0.5, 0.999][case / 4 % 4];
                s.min_p = [0.0, 0.0, 0.05, 0.3][case / 16 % 4];
                s.top_k = [0, 0, 0, 40][case / 3 % 4];
            });
            let ((own, own_total), (slow, slow_total)) =
                (left(&logits, &sampling), left_slowly(&logits, &sampling));
            let same = own.iter().zip(&slow).take_while(|(a, b)| a == b).count();
            let longer = own.len().max(slow.len());
            assert!(same + 1 >= longer, "case {case}: {same} of {} and {}", own.len(), slow.len());
            assert!((own_total / slow_total - 1.0).abs() < 1e-4, "case {case}: {own_total} {slow_total}");
        }
    }

    /// The beginning and its end, whatever the order given.
    #[test]
    fn the_shortest_beginning_ends_where_a_sorted_list_would() {
        let mut draws = crate::statistics::Draws::new(4, "sampler", 1);
        for case in 0..400 {
            let n = [1, 2, 100, SORTED_MAX as u32, SORTED_MAX as u32 + 1, 1000, 20_000][case % 7];
            let depth = [0.01, 1.0, 12.0, 30.0][case / 7 % 4];
            let weight = |draws: &mut crate::statistics::Draws| (-depth * draws.uniform()).exp() as f32;
            let mut list: Vec<(TokenId, f32)> = (0..n).map(|id| (id, weight(&mut draws))).collect();
            // Ties are frequent.
            list.iter_mut().skip(1).step_by(3).for_each(|(_, weight)| *weight = (*weight * 8.0).ceil() / 8.0);
            let mut sorted = list.clone();
            sorted.sort_by(descending);
            let total = total_of(&list);
            let mass = [0.0, 1e-6, 0.5, 0.95, 1.0, 2.0][case / 28 % 6] * total * draws.uniform();
            let (len, sum) = shortest(&mut list, mass);
            let expected = &sorted[..len];
            let last = list[len - 1];
            list[..len].sort_by(descending);
            assert_eq!((&list[..len], Some(&last)), (expected, expected.last()), "case {case}");
            assert!((sum - total_of(expected)).abs() <= 1e-9 * total, "case {case}");
            let slack = 1e-9 * total;
            assert!(sum + slack >= mass || len as u32 == n, "case {case}: {sum} of {mass}");
            let before = sum - f64::from(last.1);
            assert!(len == 1 || before < mass + slack, "case {case}: {before} was enough for {mass}");
        }
        assert_eq!(shortest(&mut [], 1.0), (0, 0.0));
    }

    fn settings(change: impl FnOnce(&mut Sampling)) -> Sampling {
        let mut sampling = Sampling::default();
        change(&mut sampling);
        sampling
    }

    fn pick(
        logits: &mut [f32],
        sampling: &Sampling,
        history: &History,
        tokens: &[TokenId],
        generated: u32,
    ) -> TokenId {
        draw(&cpu(), logits, sampling, Past { history, tokens, generated }, None)
    }

    fn share_of_draws(logits: &[f32], sampling: &Sampling, id: TokenId) -> f64 {
        let n = 20_000;
        let hits = (0..n)
            .filter(|i| pick(&mut logits.to_vec(), sampling, &History::default(), &[], *i) == id)
            .count();
        hits as f64 / f64::from(n)
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let logits = [3f32.ln(), 1f32.ln(), f32::NEG_INFINITY];
        assert!((share_of_draws(&logits, &settings(|s| s.seed = 5), 0) - 0.75).abs() < 0.02);
        let hot = settings(|s| s.temperature = 0.5);
        assert!((share_of_draws(&logits, &hot, 0) - 0.9).abs() < 0.02, "temperature squares the odds");
    }

    #[test]
    fn the_same_seed_draws_the_same_and_choices_differ() {
        let logits = [0.0; 1000];
        let one = |seed, choice| {
            let sampling = settings(|s| (s.seed, s.choice) = (seed, choice));
            (0..8)
                .map(|i| pick(&mut logits.to_vec(), &sampling, &History::default(), &[], i))
                .collect::<Vec<_>>()
        };
        assert_eq!(one(1, 0), one(1, 0));
        assert_ne!(one(1, 0), one(1, 1));
        assert_ne!(one(1, 0), one(2, 0));
    }

    #[test]
    fn each_filter_keeps_what_it_says() {
        let logits: Vec<f32> = [0.5f32, 0.3, 0.15, 0.05].iter().map(|p| p.ln()).collect();
        let kept = |change: fn(&mut Sampling)| left(&logits, &settings(change)).0.len();
        assert_eq!(kept(|_| ()), 4);
        assert_eq!(kept(|s| s.top_k = 2), 2);
        assert_eq!(kept(|s| s.top_p = 0.5), 1);
        assert_eq!(kept(|s| s.top_p = 0.51), 2);
        assert_eq!(kept(|s| s.min_p = 0.25), 3);
        // Entropy 1.14; surprises 0.69, 1.20, 1.90, 3.00: the second token is the most typical.
        assert_eq!(left(&logits, &settings(|s| s.typical_p = 0.2)).0, [1]);
    }

    #[test]
    fn greedy_ties_go_to_the_lower_id_and_penalties_count() {
        let greedy = settings(|s| s.temperature = 0.0);
        assert_eq!(pick(&mut [1.0, 2.0, 2.0], &greedy, &History::default(), &[], 0), 1);
        let mut history = History::default();
        history.push(1);
        history.push(1);
        let frequency = settings(|s| (s.temperature, s.frequency_penalty) = (0.0, 0.6));
        assert_eq!(pick(&mut [1.0, 2.0, 0.0], &frequency, &history, &[], 0), 0);
        let repetition = settings(|s| (s.temperature, s.repetition_penalty) = (0.0, 3.0));
        assert_eq!(pick(&mut [1.0, 2.0, 0.0], &repetition, &History::default(), &[1], 0), 0);
        let outside = settings(|s| {
            (s.temperature, s.repetition_penalty, s.repetition_window) = (0.0, 3.0, 1);
        });
        assert_eq!(pick(&mut [1.0, 2.0, 0.0], &outside, &History::default(), &[1, 2], 0), 1);
        let banned = settings(|s| {
            (s.temperature, s.logit_bias) = (0.0, vec![(1, f32::NEG_INFINITY)]);
        });
        assert_eq!(pick(&mut [1.0, 2.0, 0.0], &banned, &History::default(), &[], 0), 0);
    }

    #[test]
    fn logprobs_are_a_log_softmax() {
        let logits: Vec<f32> = (0..100).map(|i| (i % 17) as f32).collect();
        let z: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
        let got = logprob(&cpu(), &logits, 3, 5);
        assert!((f64::from(got.logprob) - (3.0 - z)).abs() < 1e-5);
        assert_eq!(got.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [16, 33, 50, 67, 84]);
    }
}
