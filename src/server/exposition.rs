//! The Prometheus page in the text format 0.0.4: our names, or vLLM's for what routers and autoscalers read by default.

use super::metrics::{Histogram, Metrics};
use crate::config::MetricsDialect;
use crate::engine::{EngineInfo, EngineStats};
use crate::limits;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a page is written from.
pub struct Facts<'a> {
    pub stats: &'a EngineStats,
    pub info: &'a EngineInfo,
    pub metrics: &'a Metrics,
    /// Name of the loaded model.
    pub model: &'a str,
}

/// The page under the names that the operator chose.
pub fn page(facts: &Facts, dialect: MetricsDialect) -> String {
    let mut page = Page { text: String::new(), labels: String::new() };
    if dialect != MetricsDialect::Vllm {
        ours(&mut page, facts);
    }
    if dialect != MetricsDialect::Demeanor {
        page.labels = format!("model_name=\"{}\"", escape(facts.model));
        vllms(&mut page, facts);
    }
    page.text
}

fn get(value: &AtomicU64) -> f64 {
    value.load(Ordering::Relaxed) as f64
}

/// Share of the pages of the KV cache that running sequences hold.
fn cache_usage(stats: &EngineStats) -> f64 {
    let pages = get(&stats.kv_pages_total);
    if pages > 0.0 { get(&stats.kv_pages_in_use) / pages } else { 0.0 }
}

fn ours(page: &mut Page, facts: &Facts) {
    let Facts { stats, info, metrics, model } = facts;
    let counters: [(&str, &str, &AtomicU64); 15] = [
        ("steps", "Forward passes.", &stats.steps_total),
        (
            "step_rows",
            "Rows of all forward passes; over steps, the mean rows of a pass.",
            &stats.step_rows_total,
        ),
        ("step_sequences", "Sequences with a row in a pass, over all passes.", &stats.step_sequences_total),
        ("steered_rows", "Rows that an intervention changed.", &stats.steered_rows_total),
        ("prompt_tokens", "Tokens of prompts.", &stats.prompt_tokens_total),
        ("generation_tokens", "Tokens drawn.", &stats.generation_tokens_total),
        (
            "prefix_cache_queries_tokens",
            "Prompt tokens looked up in the prefix cache.",
            &stats.prefix_cache_queries_tokens_total,
        ),
        (
            "prefix_cache_hits_tokens",
            "Prompt tokens found in the prefix cache.",
            &stats.prefix_cache_hits_tokens_total,
        ),
        ("preemptions", "Sequences put back for want of memory.", &stats.preemptions_total),
        ("draft_tokens", "Guessed tokens that a pass checked.", &stats.draft_tokens_total),
        ("draft_accepted_tokens", "Those of them that were drawn.", &stats.draft_accepted_tokens_total),
        ("mask_waits", "Draws that waited for the mask of their constraint.", &stats.mask_waits_total),
        ("cancelled", "Sequences whose client went away or wanted no more.", &stats.cancelled_total),
        ("soft_prompt_queries", "Soft prompts of users looked up.", &metrics.soft_prompt_queries),
        ("soft_prompt_cache_hits", "Soft prompts of users found in memory.", &metrics.soft_prompt_hits),
    ];
    for (name, help, value) in counters {
        page.one(&format!("demeanor_{name}_total"), "counter", help, get(value));
    }
    for (name, help, value) in [
        ("requests_running", "Sequences that have a place in the batch.", get(&stats.requests_running)),
        ("requests_waiting", "Sequences in the queue.", get(&stats.requests_waiting)),
        ("plans_active", "Different steering plans among the running sequences.", get(&stats.plans_active)),
        ("kv_cache_blocks", "Pages of the KV cache.", get(&stats.kv_pages_total)),
        ("kv_cache_block_tokens", "Positions of a page.", limits::PAGE_POSITIONS as f64),
        ("kv_cache_usage_ratio", "Share of pages that running sequences hold.", cache_usage(stats)),
    ] {
        page.one(&format!("demeanor_{name}"), "gauge", help, value);
    }
    let name = "demeanor_requests_total";
    page.head(name, "Requests answered, by route and status.", "counter");
    for (route, status, count) in metrics.requests() {
        page.line(name, &format!("route=\"{route}\",status=\"{status}\""), count as f64);
    }
    let name = "demeanor_choices_finished_total";
    page.head(name, "Choices that ended, by reason.", "counter");
    for (reason, count) in [("stop", &metrics.finished_stop), ("length", &metrics.finished_length)] {
        page.line(name, &format!("reason=\"{reason}\""), get(count));
    }
    let name = "demeanor_gate_total";
    page.head(name, "Requests by what the gate decided.", "counter");
    let decisions = [&metrics.gate_served, &metrics.gate_warned, &metrics.gate_refused];
    for (decision, count) in ["served", "warned", "refused"].iter().zip(decisions) {
        page.line(name, &format!("decision=\"{decision}\""), get(count));
    }
    let queued = "From submission to the first step of a sequence.";
    page.histogram("demeanor_queue_seconds", queued, &metrics.queue);
    let first = "From the end of the request's body to its first token.";
    page.histogram("demeanor_time_to_first_token_seconds", first, &metrics.time_to_first_token);
    let inter = "Between two tokens of one choice, as the server passes them on.";
    page.histogram("demeanor_inter_token_seconds", inter, &metrics.inter_token);
    page.head("demeanor_info", "What is running.", "gauge");
    let labels = format!(
        "version=\"{}\",model=\"{}\",arithmetic=\"{}\",isa=\"{}\"",
        super::BUILD,
        escape(model),
        escape(&info.arithmetic),
        escape(&info.isa)
    );
    page.line("demeanor_info", &labels, 1.0);
}

/// vLLM's names with its one label, `model_name`. Those with `gpu_` are older spellings that some routers still read;
/// nothing here says that a GPU is in use.
fn vllms(page: &mut Page, facts: &Facts) {
    let Facts { stats, metrics, .. } = facts;
    let usage = cache_usage(stats);
    for (name, help, value) in [
        ("num_requests_running", "Sequences that have a place in the batch.", get(&stats.requests_running)),
        ("num_requests_waiting", "Sequences in the queue.", get(&stats.requests_waiting)),
        ("kv_cache_usage_perc", "Share of the KV cache in use, 0 to 1.", usage),
        ("gpu_cache_usage_perc", "Share of the KV cache in use, 0 to 1.", usage),
    ] {
        page.one(&format!("vllm:{name}"), "gauge", help, value);
    }
    let (queries, hits) = (&stats.prefix_cache_queries_tokens_total, &stats.prefix_cache_hits_tokens_total);
    for (name, help, value) in [
        ("prompt_tokens", "Tokens of prompts.", &stats.prompt_tokens_total),
        ("generation_tokens", "Tokens drawn.", &stats.generation_tokens_total),
        ("num_preemptions", "Sequences put back for want of memory.", &stats.preemptions_total),
        ("prefix_cache_queries", "Prompt tokens looked up in the prefix cache.", queries),
        ("prefix_cache_hits", "Prompt tokens found in the prefix cache.", hits),
        ("gpu_prefix_cache_queries", "Prompt tokens looked up in the prefix cache.", queries),
        ("gpu_prefix_cache_hits", "Prompt tokens found in the prefix cache.", hits),
        ("spec_decode_num_draft_tokens", "Guessed tokens that a pass checked.", &stats.draft_tokens_total),
        (
            "spec_decode_num_accepted_tokens",
            "Guessed tokens that were drawn.",
            &stats.draft_accepted_tokens_total,
        ),
    ] {
        page.one(&format!("vllm:{name}_total"), "counter", help, get(value));
    }
    let name = "vllm:request_success_total";
    page.head(name, "Choices that ended, by reason.", "counter");
    for (reason, count) in [("stop", &metrics.finished_stop), ("length", &metrics.finished_length)] {
        page.line(name, &format!("finished_reason=\"{reason}\""), get(count));
    }
    let name = "vllm:cache_config_info";
    page.head(name, "The KV cache as labels.", "gauge");
    let (size, blocks) = (limits::PAGE_POSITIONS, get(&stats.kv_pages_total));
    page.line(name, &format!("block_size=\"{size}\",num_gpu_blocks=\"{blocks}\""), 1.0);
    // There are no LoRA adapters here; routers that count them find none.
    let name = "vllm:lora_requests_info";
    page.head(name, "LoRA adapters in use: always none.", "gauge");
    page.line(name, "max_lora=\"0\",running_lora_adapters=\"\",waiting_lora_adapters=\"\"", 0.0);
    for (name, help, histogram) in [
        ("request_queue_time_seconds", "From submission to the first step.", &metrics.queue),
        ("time_to_first_token_seconds", "From a request to its first token.", &metrics.time_to_first_token),
        ("inter_token_latency_seconds", "Between two tokens of one choice.", &metrics.inter_token),
    ] {
        page.histogram(&format!("vllm:{name}"), help, histogram);
    }
}

/// The text being written, and the labels that every line carries.
struct Page {
    text: String,
    labels: String,
}

impl Page {
    fn head(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: f64) {
        let all = [self.labels.as_str(), labels].map(str::trim);
        let all: Vec<&str> = all.into_iter().filter(|labels| !labels.is_empty()).collect();
        let _ = match all.is_empty() {
            true => writeln!(self.text, "{name} {value}"),
            false => writeln!(self.text, "{name}{{{}}} {value}", all.join(",")),
        };
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.head(name, help, kind);
        self.line(name, "", value);
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, help, "histogram");
        let (buckets, sum, count) = histogram.read();
        for (bound, total) in buckets {
            self.line(&format!("{name}_bucket"), &format!("le=\"{bound}\""), total as f64);
        }
        self.line(&format!("{name}_bucket"), "le=\"+Inf\"", count as f64);
        self.line(&format!("{name}_sum"), "", sum);
        self.line(&format!("{name}_count"), "", count as f64);
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn written(dialect: MetricsDialect) -> String {
        let (stats, info, metrics) = (EngineStats::default(), EngineInfo::default(), Metrics::default());
        metrics.count_request("/v1/models", 200);
        metrics.queue.observe(0.02);
        stats.requests_running.store(3, Ordering::Relaxed);
        page(&Facts { stats: &stats, info: &info, metrics: &metrics, model: "a\"b" }, dialect)
    }

    #[test]
    fn each_dialect_has_its_names_alone() {
        let own = written(MetricsDialect::Demeanor);
        assert!(own.contains("demeanor_requests_running 3\n") && !own.contains("vllm:"), "{own}");
        assert!(own.contains("demeanor_requests_total{route=\"/v1/models\",status=\"200\"} 1\n"), "{own}");
        assert!(own.contains("demeanor_queue_seconds_bucket{le=\"0.025\"} 1\n"), "{own}");
        let other = written(MetricsDialect::Vllm);
        assert!(other.contains("vllm:num_requests_running{model_name=\"a\\\"b\"} 3\n"), "{other}");
        assert!(!other.contains("demeanor_"), "{other}");
        assert_eq!(written(MetricsDialect::Both), own + &other);
    }

    #[test]
    fn every_name_has_one_head_and_a_suffix_of_its_kind() {
        let text = written(MetricsDialect::Both);
        let mut seen = BTreeSet::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').expect("a name and a kind");
            assert!(seen.insert(name), "{name} twice");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
            assert!(!["_count", "_sum", "_bucket"].iter().any(|end| name.ends_with(end)), "{name}");
        }
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().expect("a name");
            let bare = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            assert!(seen.contains(name) || bare.is_some_and(|bare| seen.contains(bare)), "{line}");
        }
    }
}
