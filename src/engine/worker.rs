//! The engine thread: owns the model and its pages, fills steps, hands out results.

use super::budget::{PREFILL_ROWS_MIN, StepBudget};
use super::pages::Pages;
use super::request::{Forgotten, Priority, SequenceError};
use super::sequence::{self, Sequence};
use super::{EngineOptions, EngineStats, Incoming};
use crate::digest::Digest;
use crate::kernels::Cpu;
use crate::limits::{FORGOTTEN_OWNERS_MAX, PAGE_POSITIONS, SCORE_LANES_MAX};
use crate::model::{Model, ModelError, Row, Rows, Slot, StepOutput};
use crate::sync::lock;
use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvError, TryRecvError};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Floats of logits that one step may hold.
const STEP_LOGITS_MAX: usize = 16 << 20;
/// Jobs that run at once, beside the serving slots.
const RUNNING_JOBS_MAX: usize = 8;

/// State of the engine thread.
pub(super) struct Worker {
    model: Model,
    pages: Pages,
    options: EngineOptions,
    stats: Arc<EngineStats>,
    incoming: Receiver<Incoming>,
    waiting: VecDeque<Sequence>,
    running: Vec<Sequence>,
    output: StepOutput,
    /// Owners that were forgotten, oldest first: what of theirs was on its way ends when it comes in.
    forgotten: VecDeque<Digest>,
    /// Whether nothing can be computed until a mask comes.
    stalled: bool,
    budget: StepBudget,
}

/// One sequence's part of a step.
struct Share {
    /// Index into `running`.
    sequence: usize,
    rows: usize,
}

/// What a step gives one sequence.
struct Results<'a> {
    sequence: &'a mut Sequence,
    rows: &'a [Row],
    logits: Vec<&'a mut [f32]>,
    captures: Vec<Vec<f32>>,
    /// Guesses among the rows, and how many of them were right.
    guesses: (usize, usize),
}

impl Results<'_> {
    fn take(&mut self, cpu: &Cpu) {
        let guesses = self.rows.len().saturating_sub(self.sequence.ready_rows());
        let until = self.sequence.computed + self.rows.len();
        self.sequence.advance(cpu, self.rows, &mut self.logits.drain(..), &mut self.captures.drain(..));
        if guesses > 0 {
            self.guesses = (guesses, guesses - (until - self.sequence.computed));
        }
    }
}

impl Worker {
    pub fn new(
        model: Model,
        options: EngineOptions,
        stats: Arc<EngineStats>,
        incoming: Receiver<Incoming>,
    ) -> Worker {
        let pages = Pages::new(model.pages());
        stats.kv_pages_total.store(pages.total() as u64, Relaxed);
        Worker {
            model,
            pages,
            budget: StepBudget::new(options.step_budget_ms),
            options,
            stats,
            incoming,
            waiting: VecDeque::new(),
            running: Vec::new(),
            output: StepOutput::default(),
            forgotten: VecDeque::new(),
            stalled: false,
        }
    }

    /// Runs until every handle is gone and nothing is left to do.
    pub fn run(mut self) {
        while self.receive() {
            self.drop_abandoned();
            self.admit();
            let result = catch_unwind(AssertUnwindSafe(|| self.step()));
            match result {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::error!(%error, "a step failed");
                    self.recover();
                }
                Err(_) => self.recover(),
            }
            self.retire();
        }
    }

    /// Takes what has come in; waits when there is nothing else to do. False: no handle is left and all is done.
    fn receive(&mut self) -> bool {
        loop {
            let idle = self.running.is_empty() && self.waiting.is_empty();
            match self.incoming.try_recv() {
                Ok(incoming) => self.take(incoming),
                Err(TryRecvError::Empty) if idle || self.stalled => match self.incoming.recv() {
                    Ok(incoming) => self.take(incoming),
                    Err(RecvError) => return false,
                },
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return !idle,
            }
        }
    }

    fn take(&mut self, incoming: Incoming) {
        self.stalled = false;
        match incoming {
            Incoming::MaskReady => {}
            Incoming::Run(mut sequence) if self.forgotten.contains(&sequence.request.owner) => {
                sequence.fail(SequenceError::OwnerDeleted);
            }
            Incoming::Run(sequence) => self.waiting.push_back(*sequence),
            Incoming::Ask(question) => question(self),
        }
    }

    /// See [`super::Engine::forget`].
    pub fn forget(&mut self, owner: Digest) -> Forgotten {
        if owner == Digest::default() {
            return Forgotten::default();
        }
        if !self.forgotten.contains(&owner) {
            if self.forgotten.len() == FORGOTTEN_OWNERS_MAX {
                self.forgotten.pop_front();
            }
            self.forgotten.push_back(owner);
        }
        let mut ended = 0;
        for sequence in self.waiting.iter_mut().chain(&mut self.running) {
            if sequence.request.owner == owner && !sequence.finished {
                sequence.fail(SequenceError::OwnerDeleted);
                ended += 1;
            }
        }
        self.waiting.retain(|sequence| !sequence.finished);
        self.retire();
        let pages = self.pages.disown(&owner);
        pages.iter().for_each(|page| self.model.reset_page(*page));
        Forgotten { sequences: ended, pages: pages.len() }
    }

    /// See [`super::Engine::owner_pages`].
    pub fn pages_of(&self, owner: Digest) -> usize {
        self.pages.of(&owner).len()
    }

    /// See [`super::Engine::nonzero_pages`].
    #[cfg(test)]
    pub fn nonzero_pages(&self) -> usize {
        (0..self.pages.total() as u32).filter(|page| !self.model.page_is_zero(*page)).count()
    }

    fn drop_abandoned(&mut self) {
        let before = self.waiting.len();
        self.waiting.retain(|sequence| !sequence.abandoned());
        let mut dropped = before - self.waiting.len();
        for sequence in &mut self.running {
            if sequence.abandoned() && !sequence.finished {
                sequence.finished = true;
                dropped += 1;
            }
        }
        self.stats.cancelled_total.fetch_add(dropped as u64, Relaxed);
        self.retire();
    }

    /// Moves waiting sequences into the running ones, serving before jobs, as long as slots and pages allow. While a
    /// serving one waits for pages, no job takes any.
    fn admit(&mut self) {
        for (priority, slots) in
            [(Priority::Serving, self.options.max_batch), (Priority::Job, RUNNING_JOBS_MAX)]
        {
            let mut running = self.running.iter().filter(|s| s.priority() == priority).count();
            let mut index = 0;
            while running < slots && index < self.waiting.len() {
                if self.waiting[index].priority() != priority {
                    index += 1;
                    continue;
                }
                let needed = self.waiting[index].known_rows().div_ceil(PAGE_POSITIONS);
                if needed > self.pages.available() && !self.running.is_empty() {
                    return;
                }
                let Some(mut sequence) = self.waiting.remove(index) else { break };
                self.read_cache(&mut sequence);
                sequence.mark_started();
                self.running.push(sequence);
                running += 1;
            }
        }
    }

    /// Lets a sequence begin where the prefix cache ends.
    fn read_cache(&mut self, sequence: &mut Sequence) {
        let asked = sequence.known_rows() as u64;
        if !sequence.reads_cache() {
            return;
        }
        let model = &mut self.model;
        sequence.adopt(&mut self.pages, |from, to, rows| model.copy_page(from, to, rows));
        self.stats.prefix_cache_queries_tokens_total.fetch_add(asked, Relaxed);
        self.stats.prefix_cache_hits_tokens_total.fetch_add(u64::from(sequence.cached_tokens()), Relaxed);
    }

    /// One forward pass over decode rows of all and as much prefill as the time budget holds.
    fn step(&mut self) -> Result<(), ModelError> {
        self.draw_late();
        let shares = self.shares();
        let shares = self.with_pages(shares);
        if shares.is_empty() {
            self.stalled = self.running.iter().any(Sequence::waits_for_mask);
            return Ok(());
        }
        let (mut rows, mut slots): (Vec<Row>, Vec<Slot>) = (Vec::new(), Vec::new());
        for share in &shares {
            self.running[share.sequence].join(share.rows, &mut rows, &mut slots);
        }
        let started = Instant::now();
        self.model.step(&Rows { rows: &rows, slots: &slots }, &mut self.output)?;
        drop(slots);
        let decodes = |share: &&Share| self.running[share.sequence].decoding();
        let decode_rows = shares.iter().filter(decodes).map(|share| share.rows).sum();
        self.budget.learn(rows.len(), decode_rows, started.elapsed());
        self.count(&rows, &shares);
        self.hand_out(&rows, &shares);
        Ok(())
    }

    /// Draws for sequences whose mask came after their row.
    fn draw_late(&mut self) {
        for sequence in &mut self.running {
            sequence.draw_late(self.model.cpu());
        }
        if self.running.iter().any(|sequence| sequence.finished) {
            self.retire();
        }
    }

    /// How many rows each running sequence gets: one each for those that decode, guesses if one does, then prefill in order of arrival,
    /// serving before jobs.
    fn shares(&mut self) -> Vec<Share> {
        let mut shares: Vec<Share> = Vec::new();
        let decoding = self.running.iter().filter(|sequence| sequence.decoding()).count();
        // Nobody's next token waits for the guesses of a neighbour.
        let guesses = if decoding == 1 { self.options.draft_max } else { 0 };
        for (sequence, state) in self.running.iter_mut().enumerate().filter(|(_, state)| state.decoding()) {
            let rows = 1 + state.guess(guesses);
            shares.push(Share { sequence, rows });
        }
        let decode_rows: usize = shares.iter().map(|share| share.rows).sum();
        let mut left = self.budget.prefill_rows(decode_rows);
        let logits_rows = (STEP_LOGITS_MAX / self.model.config().vocab_size).max(8);
        let mut logits_left = logits_rows.saturating_sub(decode_rows).max(1);
        for priority in [Priority::Serving, Priority::Job] {
            if priority == Priority::Job {
                // What serving leaves, but never nothing.
                left = left.max(PREFILL_ROWS_MIN);
                logits_left = logits_left.max(PREFILL_ROWS_MIN);
            }
            for (sequence, state) in self.running.iter().enumerate() {
                if state.priority() != priority || state.decoding() {
                    continue;
                }
                let many = state.gives_many_logits();
                let rows = state.ready_rows().min(left).min(if many { logits_left } else { usize::MAX });
                if rows == 0 {
                    continue;
                }
                left -= rows;
                logits_left -= if many { rows } else { 1.min(logits_left) };
                shares.push(Share { sequence, rows });
            }
        }
        shares
    }

    /// Gives each share the pages its rows need. When none is left, another sequence gives its own back and waits again
    /// (see [`Worker::victim`]); its result does not change by that, only its time.
    fn with_pages(&mut self, shares: Vec<Share>) -> Vec<Share> {
        let mut kept: Vec<Share> = Vec::new();
        let mut preempted: Vec<usize> = Vec::new();
        for share in shares {
            if preempted.contains(&share.sequence) {
                continue;
            }
            let rows = self.cover(share.sequence, share.rows, &mut preempted);
            if rows > 0 {
                kept.push(Share { rows, ..share });
            }
        }
        kept.retain(|share| !preempted.contains(&share.sequence));
        preempted.sort_unstable();
        // Indices of the kept shares move down with every sequence that leaves before them.
        for share in &mut kept {
            share.sequence -= preempted.iter().filter(|index| **index < share.sequence).count();
        }
        for index in preempted.into_iter().rev() {
            let sequence = self.running.remove(index);
            if !sequence.finished {
                self.stats.preemptions_total.fetch_add(1, Relaxed);
                self.waiting.push_front(sequence);
            }
        }
        kept
    }

    /// Who gives its pages to sequence `index`: the youngest job if a client waits for `index`, else the youngest of its
    /// own priority that came after it. So the oldest serving sequence always gets on.
    fn victim(&self, index: usize, preempted: &[usize]) -> Option<usize> {
        let priority = self.running[index].priority();
        let holds = |i: &usize| !self.running[*i].pages.is_empty() && !preempted.contains(i);
        let of = |wanted: Priority, from: usize| {
            (from..self.running.len())
                .rev()
                .find(|i| *i != index && self.running[*i].priority() == wanted && holds(i))
        };
        match priority {
            Priority::Serving => of(Priority::Job, 0).or_else(|| of(Priority::Serving, index + 1)),
            Priority::Job => of(Priority::Job, index + 1),
        }
    }

    /// Gives sequence `index` the pages for `rows` more rows; returns for how many it has them, 0 when it was preempted.
    fn cover(&mut self, index: usize, rows: usize, preempted: &mut Vec<usize>) -> usize {
        if !self.running[index].is_scoring() {
            let rows = self.without_guesses(index, rows);
            let until = self.running[index].computed + rows;
            return if self.cover_until(index, until, preempted) { rows } else { 0 };
        }
        self.running[index].clear_lanes();
        // Lanes make do with pages that are free; only the first one, in the sequence's own pages, gets its rows at any
        // price. So a score always gets on.
        let spare = self.running.len();
        let mut covered = 0;
        while covered < rows {
            let lanes_max = if self.pages.available() > spare { SCORE_LANES_MAX } else { 1 };
            let Some(mut need) = self.running[index].next_lane(rows - covered, lanes_max) else { break };
            if need.lane > 0 {
                let (sequence, model) = (&mut self.running[index], &mut self.model);
                let copy = |from, to, n| model.copy_page(from, to, n);
                let granted = sequence.cover_lane(&need, &mut self.pages, copy);
                covered += granted;
                if granted > 0 {
                    continue;
                }
                if covered > 0 {
                    break;
                }
                sequence.move_to_first_lane(need.lane);
                let Some(first) = sequence.next_lane(rows, 1) else { break };
                need = first;
            }
            let until = self.running[index].computed + need.rows;
            if !self.cover_until(index, until, preempted) {
                return 0;
            }
            covered += self.running[index].grant_lane(&need);
        }
        covered
    }

    /// `rows` without guesses where those would need a page that others may have to give.
    fn without_guesses(&self, index: usize, rows: usize) -> usize {
        let sequence = &self.running[index];
        let held = sequence.pages.len() * PAGE_POSITIONS;
        let has_room = sequence.computed + rows <= held || self.pages.available() > self.running.len();
        if has_room { rows } else { rows.min(sequence.ready_rows()) }
    }

    /// Whether sequence `index` has pages for its first `until` rows; takes them from the pool, or from a victim.
    fn cover_until(&mut self, index: usize, until: usize, preempted: &mut Vec<usize>) -> bool {
        loop {
            let sequence = &self.running[index];
            let needed = until.div_ceil(PAGE_POSITIONS);
            if sequence.pages.len() >= needed {
                return true;
            }
            if let Some(page) = self.pages.take(sequence.owner_of_page(sequence.pages.len())) {
                self.model.reset_page(page);
                self.running[index].pages.push(page);
                continue;
            }
            match self.victim(index, preempted) {
                Some(victim) => self.preempt(victim, preempted),
                None => {
                    let others = self
                        .running
                        .iter()
                        .enumerate()
                        .filter(|(i, _)| *i != index && !preempted.contains(i));
                    let alone = others.map(|(_, other)| other.pages.len()).sum::<usize>() == 0;
                    self.preempt(index, preempted);
                    if alone {
                        let total = self.pages.total() as u32;
                        self.running[index]
                            .fail(SequenceError::CacheTooSmall { needed: needed as u32, total });
                    }
                    return false;
                }
            }
        }
    }

    /// Takes a running sequence's pages back.
    fn preempt(&mut self, index: usize, preempted: &mut Vec<usize>) {
        let pages = self.running[index].forget_pages();
        sequence::release(pages, &mut self.pages);
        preempted.push(index);
    }

    /// Gives every sequence its results; drawing takes long enough to be shared among threads.
    fn hand_out(&mut self, rows: &[Row], shares: &[Share]) {
        let vocabulary = self.model.config().vocab_size;
        let mut logits = self.output.logits.chunks_exact_mut(vocabulary);
        let mut captures = self.output.captures.drain(..);
        let mut sequences: Vec<Option<&mut Sequence>> = self.running.iter_mut().map(Some).collect();
        let mut rest = rows;
        let mut results = Vec::with_capacity(shares.len());
        for share in shares {
            let (own, others) = rest.split_at(share.rows);
            rest = others;
            let wanted = |wants: fn(&Row) -> bool| own.iter().filter(|row| wants(row)).count();
            let logits = logits.by_ref().take(wanted(|row| row.wants.logits)).collect();
            let captures = captures.by_ref().take(wanted(|row| row.wants.capture)).collect();
            if let Some(sequence) = sequences[share.sequence].take() {
                results.push(Mutex::new(Results { sequence, rows: own, logits, captures, guesses: (0, 0) }));
            }
        }
        let cpu = self.model.cpu();
        cpu.pool.run(results.len(), &|i| lock(&results[i]).take(cpu));
        for results in &results {
            let mut results = lock(results);
            let (guesses, accepted) = results.guesses;
            self.stats.draft_tokens_total.fetch_add(guesses as u64, Relaxed);
            self.stats.draft_accepted_tokens_total.fetch_add(accepted as u64, Relaxed);
            results.sequence.keep_full_pages(&mut self.pages);
            let late = u64::from(results.sequence.waits_for_mask());
            self.stats.mask_waits_total.fetch_add(late, Relaxed);
        }
    }

    fn count(&self, rows: &[Row], shares: &[Share]) {
        let stats = &self.stats;
        let steered: usize = shares
            .iter()
            .filter(|share| self.running[share.sequence].is_steered())
            .map(|share| share.rows)
            .sum();
        stats.steps_total.fetch_add(1, Relaxed);
        stats.step_rows_total.fetch_add(rows.len() as u64, Relaxed);
        stats.step_sequences_total.fetch_add(shares.len() as u64, Relaxed);
        stats.steered_rows_total.fetch_add(steered as u64, Relaxed);
    }

    /// Lets finished sequences go.
    fn retire(&mut self) {
        for sequence in self.running.extract_if(.., |sequence| sequence.finished) {
            let usage = sequence.leave(&mut self.pages);
            self.stats.prompt_tokens_total.fetch_add(u64::from(usage.prompt_tokens), Relaxed);
            self.stats.generation_tokens_total.fetch_add(u64::from(usage.generated_tokens), Relaxed);
        }
        self.publish();
    }

    fn publish(&self) {
        let steered = self.running.iter().filter(|sequence| sequence.is_steered());
        let plans: BTreeSet<Digest> = steered.map(|sequence| sequence.request.edits.digest()).collect();
        self.stats.plans_active.store(plans.len() as u64, Relaxed);
        self.stats.requests_running.store(self.running.len() as u64, Relaxed);
        self.stats.requests_waiting.store(self.waiting.len() as u64, Relaxed);
        self.stats.kv_pages_in_use.store(self.pages.in_use() as u64, Relaxed);
    }

    /// After a step that failed: those that were in it fail, nothing of theirs is kept.
    fn recover(&mut self) {
        for mut sequence in self.running.drain(..) {
            sequence.fail(SequenceError::EngineFailed);
        }
        self.pages.owned().into_iter().for_each(|page| self.model.reset_page(page));
        self.pages = Pages::new(self.model.pages());
        self.output = StepOutput::default();
    }
}
