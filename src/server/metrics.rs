//! Counters of the HTTP side and the Prometheus page.

use super::openai::Finish;
use crate::engine::{EngineInfo, EngineStats};
use crate::limits;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Routes as they appear in labels: no names, ids or expressions of users. The last one is everything else.
const ROUTES: [&str; 22] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/models",
    "/v1/personas",
    "/v1/score",
    "/v1/vectors",
    "/v1/traits",
    "/v1/jobs",
    "/tokenize",
    "/detokenize",
    "/apply-template",
    "/tokenizer_info",
    "/health",
    "/ready",
    "/live",
    "/metrics",
    "/v1/embeddings",
    "/v1/responses",
    "/completion",
    "/props",
    "/",
    "other",
];
const OTHER: usize = ROUTES.len() - 1;
/// Statuses counted one by one; the last slot takes the rest.
const STATUSES: [u16; 18] =
    [200, 201, 202, 204, 400, 401, 403, 404, 405, 408, 409, 413, 415, 421, 422, 429, 500, 503];
/// Upper bounds of the histograms' buckets in seconds.
const BOUNDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Counts what clients see. Shared by all requests; no locks.
#[derive(Default)]
pub struct Metrics {
    /// By route and status.
    requests: Table<{ STATUSES.len() + 1 }>,
    finished_stop: AtomicU64,
    finished_length: AtomicU64,
    time_to_first_token: Histogram,
    inter_token: Histogram,
}

#[derive(Default)]
struct Table<const N: usize>([Row<N>; ROUTES.len()]);

struct Row<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for Row<N> {
    fn default() -> Row<N> {
        Row(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

#[derive(Default)]
struct Histogram {
    buckets: [AtomicU64; BOUNDS.len()],
    count: AtomicU64,
    micros: AtomicU64,
}

impl Histogram {
    fn observe(&self, seconds: f64) {
        if let Some(bucket) =
            BOUNDS.iter().position(|bound| seconds <= *bound).and_then(|i| self.buckets.get(i))
        {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add((seconds * 1e6) as u64, Ordering::Relaxed);
    }

    fn write(&self, page: &mut Page, name: &str, help: &str) {
        page.head(name, help, "histogram");
        let mut total = 0;
        for (bound, bucket) in BOUNDS.iter().zip(&self.buckets) {
            total += bucket.load(Ordering::Relaxed);
            page.line(&format!("{name}_bucket{{le=\"{bound}\"}}"), total as f64);
        }
        let count = self.count.load(Ordering::Relaxed);
        page.line(&format!("{name}_bucket{{le=\"+Inf\"}}"), count as f64);
        page.line(&format!("{name}_sum"), self.micros.load(Ordering::Relaxed) as f64 / 1e6);
        page.line(&format!("{name}_count"), count as f64);
    }
}

/// Times the tokens of one request.
pub struct TokenWatch<'a> {
    metrics: &'a Metrics,
    started: Instant,
    /// Time of the last token, by sequence.
    last: Vec<Option<Instant>>,
}

impl TokenWatch<'_> {
    /// Sequence `index` has said something.
    pub fn token(&mut self, index: usize) {
        let now = Instant::now();
        if self.last.len() <= index {
            self.last.resize(index + 1, None);
        }
        let Some(last) = self.last.get_mut(index) else { return };
        match last.replace(now) {
            Some(before) => self.metrics.inter_token.observe((now - before).as_secs_f64()),
            None => self.metrics.time_to_first_token.observe((now - self.started).as_secs_f64()),
        }
    }
}

impl Metrics {
    pub fn watch(&self) -> TokenWatch<'_> {
        TokenWatch { metrics: self, started: Instant::now(), last: Vec::new() }
    }

    /// The label of a path.
    pub fn known_route(&self, path: &str) -> &'static str {
        let bare = path.strip_prefix("/v1").filter(|rest| rest.starts_with('/')).unwrap_or(path);
        let long = format!("/v1{bare}");
        let whole = |route: &&&str| **route == bare || **route == long;
        let below = |route: &&&str| {
            let rest = long.strip_prefix(**route).filter(|_| **route != "/");
            rest.is_some_and(|rest| rest.starts_with('/'))
        };
        ROUTES.iter().find(whole).or_else(|| ROUTES.iter().find(below)).unwrap_or(&ROUTES[OTHER])
    }

    pub fn count_request(&self, route: &str, status: u16) {
        let row = ROUTES.iter().position(|known| *known == route).unwrap_or(OTHER);
        let column = STATUSES.iter().position(|known| *known == status).unwrap_or(STATUSES.len());
        if let Some(cell) = self.requests.0.get(row).and_then(|row| row.0.get(column)) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn count_finish(&self, finish: Option<Finish>) {
        match finish {
            Some(Finish::Stop) => self.finished_stop.fetch_add(1, Ordering::Relaxed),
            Some(Finish::Length) => self.finished_length.fetch_add(1, Ordering::Relaxed),
            None => 0,
        };
    }

    /// The page in Prometheus' text format 0.0.4.
    pub fn page(&self, stats: &EngineStats, info: &EngineInfo, model: &str) -> String {
        let mut page = Page(String::new());
        page.engine(stats);
        self.requests(&mut page);
        let ttft = "From the end of the request's body to its first token.";
        self.time_to_first_token.write(&mut page, "demeanor_time_to_first_token_seconds", ttft);
        let inter = "Between two tokens of one choice, as the server passes them on.";
        self.inter_token.write(&mut page, "demeanor_inter_token_seconds", inter);
        page.head("demeanor_info", "What is running.", "gauge");
        let label = format!(
            "demeanor_info{{version=\"{}\",model=\"{}\",arithmetic=\"{}\",isa=\"{}\"}}",
            super::BUILD,
            escape(model),
            escape(&info.arithmetic),
            escape(&info.isa)
        );
        page.line(&label, 1.0);
        page.0
    }

    fn requests(&self, page: &mut Page) {
        let name = "demeanor_requests_total";
        page.head(name, "Requests answered, by route and status.", "counter");
        for (route, row) in ROUTES.iter().zip(&self.requests.0) {
            for (column, cell) in row.0.iter().enumerate() {
                let count = cell.load(Ordering::Relaxed);
                let status = STATUSES.get(column).map_or("other".to_string(), u16::to_string);
                if count > 0 {
                    page.line(&format!("{name}{{route=\"{route}\",status=\"{status}\"}}"), count as f64);
                }
            }
        }
        let name = "demeanor_choices_finished_total";
        page.head(name, "Choices that ended, by reason.", "counter");
        for (reason, count) in [("stop", &self.finished_stop), ("length", &self.finished_length)] {
            page.line(&format!("{name}{{reason=\"{reason}\"}}"), count.load(Ordering::Relaxed) as f64);
        }
    }
}

/// The text being written.
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, value: f64) {
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.head(name, help, kind);
        self.line(name, value);
    }

    fn engine(&mut self, stats: &EngineStats) {
        let counters: [(&str, &str, &AtomicU64); 10] = [
            ("steps", "Forward passes.", &stats.steps_total),
            (
                "step_rows",
                "Rows of all forward passes; over steps, the mean rows of a pass.",
                &stats.step_rows_total,
            ),
            (
                "step_sequences",
                "Sequences with a row in a pass, over all passes.",
                &stats.step_sequences_total,
            ),
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
            ("cancelled", "Sequences whose client went away or wanted no more.", &stats.cancelled_total),
        ];
        for (name, help, value) in counters {
            let value = value.load(Ordering::Relaxed) as f64;
            self.one(&format!("demeanor_{name}_total"), "counter", help, value);
        }
        let get = |value: &AtomicU64| value.load(Ordering::Relaxed) as f64;
        let pages = get(&stats.kv_pages_total);
        let ratio = if pages > 0.0 { get(&stats.kv_pages_in_use) / pages } else { 0.0 };
        for (name, help, value) in [
            ("requests_running", "Sequences that have a place in the batch.", get(&stats.requests_running)),
            ("requests_waiting", "Sequences in the queue.", get(&stats.requests_waiting)),
            ("kv_cache_blocks_total", "Pages of the KV cache.", pages),
            ("kv_cache_block_tokens", "Positions of a page.", limits::PAGE_POSITIONS as f64),
            ("kv_cache_usage_ratio", "Share of pages that running sequences hold.", ratio),
        ] {
            self.one(&format!("demeanor_{name}"), "gauge", help, value);
        }
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_carry_no_names() {
        let metrics = Metrics::default();
        let table = [
            ("/chat/completions", "/v1/chat/completions"),
            ("/v1/chat/completions", "/v1/chat/completions"),
            ("/models", "/v1/models"),
            ("/v1/models/a@(0.8 warm)", "/v1/models"),
            ("/models/secret", "/v1/models"),
            ("/v1/vectors/warm/file", "/v1/vectors"),
            ("/v1/tokenize", "/tokenize"),
            ("/tokenize", "/tokenize"),
            ("/v1/health", "/health"),
            ("/", "/"),
            ("/x/y", "other"),
        ];
        for (path, route) in table {
            assert_eq!(metrics.known_route(path), route, "{path}");
        }
    }

    #[test]
    fn histograms_are_cumulative() {
        let histogram = Histogram::default();
        for seconds in [0.0005, 0.02, 0.02, 99.0] {
            histogram.observe(seconds);
        }
        let mut page = Page(String::new());
        histogram.write(&mut page, "t", "h");
        for line in [
            "t_bucket{le=\"0.001\"} 1\n",
            "t_bucket{le=\"10\"} 3\n",
            "t_bucket{le=\"+Inf\"} 4\n",
            "t_count 4\n",
        ] {
            assert!(page.0.contains(line), "{line} in {}", page.0);
        }
    }

    #[test]
    fn every_request_is_counted_once() {
        let metrics = Metrics::default();
        metrics.count_request("/v1/models", 200);
        metrics.count_request("/v1/models", 200);
        metrics.count_request("nonsense", 418);
        let mut page = Page(String::new());
        metrics.requests(&mut page);
        assert!(
            page.0.contains("demeanor_requests_total{route=\"/v1/models\",status=\"200\"} 2\n"),
            "{}",
            page.0
        );
        assert!(
            page.0.contains("demeanor_requests_total{route=\"other\",status=\"other\"} 1\n"),
            "{}",
            page.0
        );
    }
}
