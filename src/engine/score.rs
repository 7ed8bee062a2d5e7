//! Scoring: continuations of one prompt, several at once, each on a lane that shares the prompt's rows.

use super::request::SequenceError;
use super::sampler;
use crate::kernels::{self, Cpu};
use crate::model::{Input, PageId, TokenId};

/// How far the continuations of a sequence are. The last token of a continuation is only predicted, never fed, so a
/// continuation of n tokens takes n - 1 rows.
#[derive(Default)]
pub(super) struct Score {
    /// Log-probabilities so far, by continuation; each starts with the one read at the last prompt row.
    done: Vec<Vec<f32>>,
    /// The first continuation that was not put on a lane yet.
    next: usize,
    /// The first lane writes into the sequence's own pages.
    lanes: Vec<Lane>,
}

/// Where one continuation after the other runs. Its rows overwrite those of the one before, before anything reads them.
#[derive(Default)]
struct Lane {
    /// `None`: nothing is left to run.
    continuation: Option<usize>,
    /// Rows of it that are computed.
    fed: usize,
    /// Rows of it in the step at hand.
    now: usize,
    /// Pages of the prompt that are full, then the lane's own; empty for the first lane.
    pages: Vec<PageId>,
}

/// What a lane needs before it can have rows in a step.
pub(super) struct LaneNeed {
    pub lane: usize,
    /// Rows after the prompt's, those of the step included.
    pub rows: usize,
}

impl Score {
    /// Reads the first token of every continuation from the logits of the last prompt row, `[vocab_size]`.
    pub fn begin(&mut self, cpu: &Cpu, continuations: &[Vec<TokenId>], logits: &[f32]) {
        let log_sum = sampler::log_sum_exp(cpu, logits);
        let first = |ids: &Vec<TokenId>| ids.first().map(|id| logits[*id as usize] - log_sum);
        self.done = continuations.iter().map(|ids| first(ids).into_iter().collect()).collect();
        self.lanes = vec![Lane::default()];
        self.refill(continuations);
    }

    /// Whether all rows of the prompt are in and continuations run.
    pub fn is_running(&self) -> bool {
        !self.lanes.is_empty()
    }

    /// Rows still to be computed.
    pub fn rows_left(&self, continuations: &[Vec<TokenId>]) -> usize {
        let running: usize = self.lanes.iter().map(|lane| lane.left(continuations)).sum();
        let waiting = continuations.get(self.next..).unwrap_or_default();
        running + waiting.iter().map(|ids| ids.len().saturating_sub(1)).sum::<usize>()
    }

    /// Forgets the plan for the last step.
    pub fn clear_step(&mut self) {
        self.lanes.iter_mut().for_each(|lane| lane.now = 0);
    }

    /// The next lane that could have some of `rows` rows in the step at hand, opened if there are fewer than `lanes_max`.
    pub fn next_need(
        &mut self,
        continuations: &[Vec<TokenId>],
        rows: usize,
        lanes_max: usize,
    ) -> Option<LaneNeed> {
        let free = |lane: &Lane| lane.now == 0 && lane.left(continuations) > 0;
        if !self.lanes.iter().any(free) && self.lanes.len() < lanes_max {
            self.lanes.push(Lane::default());
            self.refill(continuations);
        }
        let lane = self.lanes.iter().position(free)?;
        let left = self.lanes[lane].left(continuations);
        Some(LaneNeed { lane, rows: self.lanes[lane].fed + left.min(rows) })
    }

    /// Puts what runs on `lane` on the first one, which is idle, from its beginning: there it has pages for certain.
    pub fn move_to_first(&mut self, lane: usize) {
        let continuation = self.lanes[lane].continuation.take();
        if let Some(index) = continuation {
            self.done[index].truncate(1);
        }
        self.lanes[0].continuation = continuation;
        self.lanes[0].fed = 0;
    }

    /// The lane has its pages: its rows are part of the step. Returns how many they are.
    pub fn grant(&mut self, need: &LaneNeed) -> usize {
        let lane = &mut self.lanes[need.lane];
        lane.now = need.rows - lane.fed;
        lane.now
    }

    /// Pages of a lane other than the first.
    pub fn pages_mut(&mut self, lane: usize) -> &mut Vec<PageId> {
        &mut self.lanes[lane].pages
    }

    /// The lanes with rows in the step, in order: their pages (empty: the sequence's own) and for each row how far behind
    /// the prompt it stands and what it feeds.
    pub fn parts<'a>(
        &'a self,
        continuations: &'a [Vec<TokenId>],
    ) -> impl Iterator<Item = (&'a [PageId], impl Iterator<Item = (usize, Input)> + 'a)> + 'a {
        self.lanes.iter().filter(|lane| lane.now > 0).map(|lane| {
            let ids = lane.continuation.map_or(&[][..], |index| &continuations[index]);
            let rows = (lane.fed..lane.fed + lane.now).map(|i| (i, Input::Token(ids[i])));
            (&lane.pages[..], rows)
        })
    }

    /// Takes the logits of the step's rows, in order.
    pub fn advance<'l>(
        &mut self,
        cpu: &Cpu,
        continuations: &[Vec<TokenId>],
        logits: &mut impl Iterator<Item = &'l mut [f32]>,
    ) -> Result<(), SequenceError> {
        let mut finite = true;
        for lane in self.lanes.iter_mut().filter(|lane| lane.now > 0) {
            let Some(index) = lane.continuation else { continue };
            for (i, logits) in (lane.fed + 1..=lane.fed + lane.now).zip(&mut *logits) {
                finite &= kernels::all_finite(cpu.isa, logits);
                let logprob = logits[continuations[index][i] as usize] - sampler::log_sum_exp(cpu, logits);
                self.done[index].push(logprob);
            }
            lane.fed += lane.now;
            lane.now = 0;
        }
        self.refill(continuations);
        if finite { Ok(()) } else { Err(SequenceError::NonFiniteLogits) }
    }

    /// Gives lanes without rows the next continuations.
    fn refill(&mut self, continuations: &[Vec<TokenId>]) {
        for lane in self.lanes.iter_mut().filter(|lane| lane.left(continuations) == 0) {
            while continuations.get(self.next).is_some_and(|ids| ids.len() < 2) {
                self.next += 1;
            }
            lane.continuation = (self.next < continuations.len()).then_some(self.next);
            lane.fed = 0;
            self.next += usize::from(lane.continuation.is_some());
        }
    }

    /// Log-probabilities of each continuation, once no row is left.
    pub fn finish(&mut self) -> Vec<Vec<f32>> {
        std::mem::take(&mut self.done)
    }

    /// The lanes' own pages, when the sequence ends or starts anew; `shared` pages of the prompt are the sequence's.
    pub fn give_back(&mut self, shared: usize) -> Vec<PageId> {
        let lanes = std::mem::take(&mut self.lanes);
        lanes.into_iter().flat_map(|lane| lane.pages.into_iter().skip(shared)).collect()
    }
}

impl Lane {
    fn left(&self, continuations: &[Vec<TokenId>]) -> usize {
        self.continuation.map_or(0, |index| continuations[index].len() - 1 - self.fed)
    }
}
