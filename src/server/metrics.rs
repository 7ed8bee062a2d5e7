//! Counters of the HTTP side; `exposition` writes them down.

use super::ROUTES;
use super::openai::Finish;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The row of everything that is no route.
const OTHER: usize = ROUTES.len();
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
    pub finished_stop: AtomicU64,
    pub finished_length: AtomicU64,
    pub gate_served: AtomicU64,
    pub gate_warned: AtomicU64,
    pub gate_refused: AtomicU64,
    pub soft_prompt_queries: AtomicU64,
    pub soft_prompt_hits: AtomicU64,
    pub queue: Histogram,
    pub time_to_first_token: Histogram,
    pub inter_token: Histogram,
}

/// What the gate decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateDecision {
    Served,
    /// Served, with a warning.
    Warned,
    Refused,
}

struct Table<const N: usize>([Row<N>; ROUTES.len() + 1]);

impl<const N: usize> Default for Table<N> {
    fn default() -> Table<N> {
        Table(std::array::from_fn(|_| Row::default()))
    }
}

struct Row<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for Row<N> {
    fn default() -> Row<N> {
        Row(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

#[derive(Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS.len()],
    count: AtomicU64,
    micros: AtomicU64,
}

impl Histogram {
    /// Counts one value.
    pub fn observe(&self, seconds: f64) {
        if let Some(bucket) =
            BOUNDS.iter().position(|bound| seconds <= *bound).and_then(|i| self.buckets.get(i))
        {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add((seconds * 1e6) as u64, Ordering::Relaxed);
    }

    /// Bounds with the number of values up to each, then the sum in seconds and the number of all.
    pub fn read(&self) -> (Vec<(f64, u64)>, f64, u64) {
        let mut total = 0;
        let mut up_to = |(bound, bucket): (&f64, &AtomicU64)| {
            total += bucket.load(Ordering::Relaxed);
            (*bound, total)
        };
        let buckets = BOUNDS.iter().zip(&self.buckets).map(&mut up_to).collect();
        let sum = self.micros.load(Ordering::Relaxed) as f64 / 1e6;
        (buckets, sum, self.count.load(Ordering::Relaxed))
    }
}

/// Times the tokens of one request.
pub struct TokenWatch<'a> {
    metrics: &'a Metrics,
    /// When the client had sent all of it.
    received: Instant,
    /// Time of the last token, by sequence.
    last: Vec<Option<Instant>>,
}

impl TokenWatch<'_> {
    /// Sequence `index`, which had waited so long before its first step, has said something.
    pub fn token(&mut self, index: usize, queued: Duration) {
        let now = Instant::now();
        if self.last.len() <= index {
            self.last.resize(index + 1, None);
        }
        let Some(last) = self.last.get_mut(index) else { return };
        match last.replace(now) {
            Some(before) => self.metrics.inter_token.observe((now - before).as_secs_f64()),
            None => {
                self.metrics.queue.observe(queued.as_secs_f64());
                self.metrics.time_to_first_token.observe((now - self.received).as_secs_f64());
            }
        }
    }
}

/// The label of what is no route.
const NO_ROUTE: &str = "other";

/// A route as it appears in labels: the path of the route table, whatever names, ids or expressions stand in the
/// request's. `matched` is the path under which the router found it.
pub fn route_label(matched: Option<&str>) -> &'static str {
    let is_it = |path: &str| matched.is_some_and(|m| m == path || path.strip_prefix("/v1") == Some(m));
    ROUTES.iter().map(|(path, _)| *path).find(|path| is_it(path)).unwrap_or(NO_ROUTE)
}

impl Metrics {
    /// Watches the tokens of a request that came at `received`.
    pub fn watch(&self, received: Instant) -> TokenWatch<'_> {
        TokenWatch { metrics: self, received, last: Vec::new() }
    }

    /// Counts an answer to a request of the route with this label.
    pub fn count_request(&self, label: &str, status: u16) {
        let row = ROUTES.iter().position(|(path, _)| *path == label).unwrap_or(OTHER);
        let column = STATUSES.iter().position(|known| *known == status).unwrap_or(STATUSES.len());
        if let Some(cell) = self.requests.0.get(row).and_then(|row| row.0.get(column)) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn count_finish(&self, finish: Option<Finish>) {
        match finish {
            Some(Finish::Stop | Finish::ToolCalls) => self.finished_stop.fetch_add(1, Ordering::Relaxed),
            Some(Finish::Length) => self.finished_length.fetch_add(1, Ordering::Relaxed),
            None => 0,
        };
    }

    /// What the gate said of a request.
    pub fn count_gate(&self, decision: GateDecision) {
        let counter = match decision {
            GateDecision::Served => &self.gate_served,
            GateDecision::Warned => &self.gate_warned,
            GateDecision::Refused => &self.gate_refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// A user's soft prompt was wanted, and was in memory or had to be read or made.
    pub fn count_soft_prompt(&self, at_hand: bool) {
        self.soft_prompt_queries.fetch_add(1, Ordering::Relaxed);
        self.soft_prompt_hits.fetch_add(u64::from(at_hand), Ordering::Relaxed);
    }

    /// Answered requests by route and status, those that occurred.
    pub fn requests(&self) -> Vec<(&'static str, String, u64)> {
        let mut counts = Vec::new();
        let labels = ROUTES.iter().map(|(path, _)| *path).chain([NO_ROUTE]);
        for (route, row) in labels.zip(&self.requests.0) {
            for (column, cell) in row.0.iter().enumerate() {
                let count = cell.load(Ordering::Relaxed);
                if count > 0 {
                    let status = STATUSES.get(column).map_or("other".to_string(), u16::to_string);
                    counts.push((route, status, count));
                }
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_has_its_label() {
        for (path, _) in ROUTES {
            assert_eq!(route_label(Some(path)), *path);
            if let Some(short) = path.strip_prefix("/v1") {
                assert_eq!(route_label(Some(short)), *path);
            }
        }
        assert_eq!((route_label(None), route_label(Some("/x"))), (NO_ROUTE, NO_ROUTE));
    }

    #[test]
    fn histograms_are_cumulative() {
        let histogram = Histogram::default();
        for seconds in [0.0005, 0.02, 0.02, 99.0] {
            histogram.observe(seconds);
        }
        let (buckets, sum, count) = histogram.read();
        assert_eq!((buckets[0], buckets[11], count), ((0.001, 1), (10.0, 3), 4));
        assert!((sum - 99.0405).abs() < 1e-6, "{sum}");
    }

    #[test]
    fn what_came_before_the_queue_counts_for_the_first_token() {
        let metrics = Metrics::default();
        let received = Instant::now() - Duration::from_secs(3);
        let mut watch = metrics.watch(received);
        watch.token(0, Duration::ZERO);
        watch.token(0, Duration::ZERO);
        let (first, inter) = (metrics.time_to_first_token.read(), metrics.inter_token.read());
        assert!(first.1 >= 3.0 && first.2 == 1, "{first:?}");
        assert!(inter.1 < 3.0 && inter.2 == 1, "{inter:?}");
    }

    #[test]
    fn every_request_is_counted_once() {
        let metrics = Metrics::default();
        metrics.count_request("/v1/models", 200);
        metrics.count_request("/v1/models", 200);
        metrics.count_request("nonsense", 418);
        let counts = metrics.requests();
        assert_eq!(counts, [("/v1/models", "200".into(), 2), (NO_ROUTE, "other".into(), 1)]);
    }
}
