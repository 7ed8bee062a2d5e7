//! The default mode (int8 activations) against the same reference, teacher-forced: how far its distributions are.

use crate::harness::{self, Setup, TestModel};
use crate::run::{self, fixture};
use demeanor::config::KvCacheFormat;
use demeanor::engine::TokenLogprob;
use std::sync::Arc;

struct Bounds {
    kl_mean: f64,
    kl_p99: f64,
    top1: f64,
    /// Agreement where the reference's best token leads by more than half a nat.
    top1_sure: f64,
}

#[test]
fn smollm2_distributions_stay_near() {
    let bounds = Bounds { kl_mean: 0.005, kl_p99: 0.03, top1: 0.95, top1_sure: 0.995 };
    check(Setup::new(TestModel::SmolLm2), "distributions_smollm2.json", bounds);
}

/// What eight bits for keys and values, and attention in bfloat16, cost beside that.
#[test]
fn smollm2_distributions_with_other_keys_and_values_stay_near() {
    for kv_format in [KvCacheFormat::Q8, KvCacheFormat::Bf16] {
        let bounds = Bounds { kl_mean: 0.006, kl_p99: 0.04, top1: 0.94, top1_sure: 0.99 };
        let setup = Setup { kv_format, ..Setup::new(TestModel::SmolLm2) };
        check(setup, "distributions_smollm2.json", bounds);
    }
}

#[test]
fn gemma_distributions_stay_near() {
    let bounds = Bounds { kl_mean: 0.01, kl_p99: 0.06, top1: 0.94, top1_sure: 0.995 };
    check(Setup::new(TestModel::Gemma), "distributions_gemma.json", bounds);
}

fn check(setup: Setup, name: &str, bounds: Bounds) {
    let engine = &harness::server(&setup).engine;
    let reference = fixture(name);
    let mut rows = reference["top"].as_array().expect("a list").iter();
    let (mut divergences, mut agree, mut sure, mut agree_sure) = (Vec::new(), 0, 0, 0);
    for text in reference["texts"].as_array().expect("a list") {
        let from = text["from"].as_u64().expect("an index") as usize;
        let got = run::distributions(engine, &run::ids(&text["ids"]), &Arc::default(), 2000);
        for (got, row) in got[from..].iter().zip(&mut rows) {
            let ids = run::ids(&row["ids"]);
            let logprobs: Vec<f64> = run::floats(&row["nll"]).iter().map(|nll| -nll * 1e-5).collect();
            divergences.push(divergence(&ids, &logprobs, got));
            let same = got.top[0].0 == ids[0];
            agree += usize::from(same);
            if logprobs[0] - logprobs[1] > 0.5 {
                sure += 1;
                agree_sure += usize::from(same);
            }
        }
    }
    assert!(rows.next().is_none(), "every stored position was compared");
    let n = divergences.len();
    assert!(n >= 600, "{n} positions");
    divergences.sort_by(f64::total_cmp);
    let mean = divergences.iter().sum::<f64>() / n as f64;
    let p99 = divergences[n * 99 / 100];
    let (top1, top1_sure) = (agree as f64 / n as f64, agree_sure as f64 / sure as f64);
    println!(
        "{name}: {n} positions, KL mean {mean:.4} p99 {p99:.4} nat, top-1 {top1:.3}, {top1_sure:.3} of {sure} sure ones"
    );
    assert!(mean <= bounds.kl_mean, "mean KL {mean}");
    assert!(p99 <= bounds.kl_p99, "p99 of KL {p99}");
    assert!(top1 >= bounds.top1, "top-1 agreement {top1}");
    assert!(top1_sure >= bounds.top1_sure, "top-1 agreement where sure {top1_sure}");
}

/// KL(reference || got) over the stored ids and one bucket for all others; merging lowers it a little (the fixture says
/// by how much).
fn divergence(ids: &[u32], logprobs: &[f64], got: &TokenLogprob) -> f64 {
    let (mut kl, mut p_rest, mut q_rest) = (0.0, 1.0, 1.0);
    for (id, logprob) in ids.iter().zip(logprobs) {
        let p = logprob.exp();
        let q_log = got.top.iter().find(|(other, _)| other == id).map_or(-30.0, |(_, q)| f64::from(*q));
        kl += p * (logprob - q_log);
        p_rest -= p;
        q_rest -= q_log.exp();
    }
    if p_rest > 0.0 {
        kl += p_rest * (p_rest / q_rest.max(1e-12)).ln();
    }
    kl
}
