//! One sequence on its way: what is computed, what it holds, which rows come next.

use super::InsideGuard;
use super::keys::{self, RowInput, RowKey};
use super::pages::Pages;
use super::request::{
    Capture, Event, FinishReason, Generate, Priority, Reduce, Request, SequenceError, TokenLogprob, Usage,
    Want,
};
use super::sampler::{self, History};
use super::score::{LaneNeed, Score};
use crate::digest::Digest;
use crate::kernels::Cpu;
use crate::limits::PAGE_POSITIONS;
use crate::model::{Input, PageId, Phase, Row, TokenId, Wants};
use std::ops::Range;
use std::time::Instant;
use tokio::sync::mpsc::UnboundedSender;

/// Rows that are worth the copy of a page: the copy costs about as much as computing one or two.
const COPIED_ROWS_MIN: usize = 4;

/// A request in the engine. Row positions count soft rows and tokens; token indices count tokens only.
pub(super) struct Sequence {
    pub request: Request,
    events: UnboundedSender<Event>,
    /// Prompt and generated tokens.
    tokens: Vec<TokenId>,
    /// Rows whose KV is in `pages`.
    pub computed: usize,
    pub pages: Vec<PageId>,
    /// Keys of the full pages so far, which the prefix cache has been offered or has given.
    keys: Vec<Digest>,
    history: History,
    generated: u32,
    prefilled: bool,
    prompt_logprobs: Vec<TokenLogprob>,
    score: Score,
    capture: CaptureState,
    usage: Usage,
    submitted: Instant,
    started: Option<Instant>,
    first_token: Option<Instant>,
    pub finished: bool,
    /// Whether it ended by an error: its last rows are nothing to build upon.
    failed: bool,
    _inside: InsideGuard,
}

#[derive(Default)]
struct CaptureState {
    sum: Vec<f64>,
    rows: Vec<Vec<f32>>,
}

impl Sequence {
    pub fn new(
        request: Request,
        events: UnboundedSender<Event>,
        submitted: Instant,
        inside: InsideGuard,
    ) -> Sequence {
        let usage = Usage {
            prompt_tokens: request.prompt.len() as u32,
            soft_rows: request.soft.len() as u32,
            ..Usage::default()
        };
        Sequence {
            tokens: request.prompt.clone(),
            request,
            events,
            computed: 0,
            pages: Vec::new(),
            keys: Vec::new(),
            history: History::default(),
            generated: 0,
            prefilled: false,
            prompt_logprobs: Vec::new(),
            score: Score::default(),
            capture: CaptureState::default(),
            usage,
            submitted,
            started: None,
            first_token: None,
            finished: false,
            failed: false,
            _inside: inside,
        }
    }

    pub fn priority(&self) -> Priority {
        self.request.priority
    }

    /// Whether nobody waits for the answer any more.
    pub fn abandoned(&self) -> bool {
        self.events.is_closed()
    }

    /// Rows of the prompt, soft rows included.
    fn prompt_rows(&self) -> usize {
        self.request.prompt.len() + self.request.soft.len()
    }

    /// Rows known so far: everything before the next drawn token.
    pub fn known_rows(&self) -> usize {
        self.tokens.len() + self.request.soft.len()
    }

    /// Rows that can be computed now.
    pub fn ready_rows(&self) -> usize {
        match &self.request.want {
            Want::Score(continuations) if self.score.is_running() => self.score.rows_left(continuations),
            _ => self.known_rows() - self.computed,
        }
    }

    /// Whether one row at a time is what is left: the next row gives the next token.
    pub fn decoding(&self) -> bool {
        matches!(self.request.want, Want::Generate(_)) && self.prefilled && self.ready_rows() == 1
    }

    /// Whether what is left are rows of continuations.
    pub fn is_scoring(&self) -> bool {
        self.score.is_running()
    }

    pub fn mark_started(&mut self) {
        if self.started.is_none() {
            let now = Instant::now();
            self.usage.queued = now - self.submitted;
            self.started = Some(now);
        }
    }

    /// Whether the prefix cache may serve rows of this request: not when each prompt row must give something.
    pub fn reads_cache(&self) -> bool {
        let all_rows_needed = match &self.request.want {
            Want::Generate(generate) => generate.prompt_logprobs.is_some(),
            Want::Score(_) => false,
            Want::Capture(_) => true,
        };
        self.request.use_cache && (self.prefilled || !all_rows_needed)
    }

    /// Rows that may be kept for others: the continuations of a score are overwritten.
    fn keeps_rows_until(&self) -> usize {
        match self.request.want {
            _ if !self.request.use_cache => 0,
            Want::Score(_) => self.prompt_rows().min(self.computed),
            _ => self.computed,
        }
    }

    /// Gives the pages back after a preemption; tokens drawn so far stay.
    pub fn forget_pages(&mut self) -> Vec<PageId> {
        self.computed = 0;
        self.keys.clear();
        // A score starts anew: the rows of its continuations are nowhere else.
        let lanes = self.score.give_back(self.shared_pages());
        if let Want::Score(_) = self.request.want {
            self.score = Score::default();
            self.prefilled = false;
        }
        // A preempted prefill starts its per-row results anew.
        if !self.prefilled {
            self.prompt_logprobs.clear();
            self.capture = CaptureState::default();
        }
        std::mem::take(&mut self.pages).into_iter().chain(lanes).collect()
    }

    /// Full pages of the prompt: the continuations of a score share them.
    fn shared_pages(&self) -> usize {
        self.prompt_rows() / PAGE_POSITIONS
    }

    /// The next lane of a score that could have some of `rows` rows in the step at hand.
    pub fn next_lane(&mut self, rows: usize, lanes_max: usize) -> Option<LaneNeed> {
        match &self.request.want {
            Want::Score(continuations) => self.score.next_need(continuations, rows, lanes_max),
            _ => None,
        }
    }

    pub fn clear_lanes(&mut self) {
        self.score.clear_step();
    }

    /// Gives a lane the pages for its rows, as far as the cache has some; `copy` as in [`Sequence::adopt`]. Returns the
    /// rows that the lane has in the step, 0 when a page is missing.
    pub fn cover_lane(
        &mut self,
        need: &LaneNeed,
        cache: &mut Pages,
        mut copy: impl FnMut(PageId, PageId, usize),
    ) -> usize {
        let (rows, shared) = (self.prompt_rows(), self.shared_pages());
        let mut lane = std::mem::take(self.score.pages_mut(need.lane));
        if lane.is_empty() {
            lane.extend(&self.pages[..shared]);
        }
        while lane.len() < (rows + need.rows).div_ceil(PAGE_POSITIONS) {
            let Some(page) = cache.take(self.owner_of_page(lane.len())) else { break };
            // The rows of the prompt that do not fill a page; of later pages nothing.
            let from = self.pages.get(shared).copied().unwrap_or(page);
            copy(from, page, if lane.len() == shared { rows % PAGE_POSITIONS } else { 0 });
            lane.push(page);
        }
        let covered = lane.len() * PAGE_POSITIONS >= rows + need.rows;
        *self.score.pages_mut(need.lane) = lane;
        if covered { self.grant_lane(need) } else { 0 }
    }

    pub fn move_to_first_lane(&mut self, lane: usize) {
        self.score.move_to_first(lane);
    }

    pub fn grant_lane(&mut self, need: &LaneNeed) -> usize {
        self.score.grant(need)
    }

    pub fn cached_tokens(&self) -> u32 {
        self.usage.cached_tokens
    }

    /// Index of the token at a row, `None` for a soft row.
    fn token_index(&self, position: usize) -> Option<usize> {
        let (at, soft) = (self.request.soft_at as usize, self.request.soft.len());
        match position {
            p if p < at => Some(p),
            p if p < at + soft => None,
            p => Some(p - soft),
        }
    }

    /// The prompt token that the row at `position` predicts, soft rows between it and the token before included; none for
    /// the first token and for what follows the prompt.
    fn predicted(&self, position: usize) -> Option<usize> {
        let next = Some(position + 1).filter(|next| *next < self.prompt_rows())?;
        self.token_index(next).filter(|index| *index > 0)
    }

    /// Whose data row `position` is: rows from `soft_at` on are the owner's.
    fn owner_of_row(&self, position: usize) -> Digest {
        match position < self.request.soft_at as usize {
            true => Digest::default(),
            false => self.request.owner,
        }
    }

    /// Whose data page `index` holds: one row of an owner makes it theirs.
    pub fn owner_of_page(&self, index: usize) -> Digest {
        self.owner_of_row((index + 1) * PAGE_POSITIONS - 1)
    }

    fn phase(&self, position: usize) -> Phase {
        match position.checked_sub(self.prompt_rows() - 1) {
            Some(index) => Phase::Response(index as u32),
            None => Phase::Prompt,
        }
    }

    /// What the key of page `index` builds upon; pages before it have their keys.
    fn key_before(&self, index: usize) -> Digest {
        match index.checked_sub(1) {
            Some(before) => self.keys[before],
            None => keys::root(&self.request.cache_salt),
        }
    }

    /// Keys of known rows (rule 8: tokens, soft rows, the edits in force on each row).
    fn row_keys(&self, rows: Range<usize>) -> Vec<RowKey> {
        let edits = &self.request.edits;
        let prompt_edits = edits.digest_in_force(Phase::Prompt);
        let key = |position: usize| RowKey {
            input: match self.token_index(position) {
                Some(token) => RowInput::Token(self.tokens[token]),
                None => RowInput::Soft(self.request.soft.digest(), position as u32 - self.request.soft_at),
            },
            edits: match self.phase(position) {
                Phase::Prompt => prompt_edits,
                phase => edits.digest_in_force(phase),
            },
            owner: self.owner_of_row(position),
        };
        rows.map(key).collect()
    }

    /// Takes over what the prefix cache has of the known rows: full pages as they are, and of the page after them the rows
    /// that a kept page begins with, which `copy(from, to, rows)` copies. At least one row is left to compute.
    pub fn adopt(&mut self, cache: &mut Pages, mut copy: impl FnMut(PageId, PageId, usize)) {
        let most = self.known_rows() - 1;
        while (self.keys.len() + 1) * PAGE_POSITIONS <= most {
            let from = self.keys.len() * PAGE_POSITIONS;
            let rows = self.row_keys(from..from + PAGE_POSITIONS);
            let key = keys::page_key(&self.key_before(self.keys.len()), &rows);
            let Some(page) = cache.hold(&key) else { break };
            self.pages.push(page);
            self.keys.push(key);
        }
        self.computed = self.pages.len() * PAGE_POSITIONS;
        let rows = self.row_keys(self.computed..most.min(self.computed + PAGE_POSITIONS));
        if let Some((page, same)) = cache.hold_longest(&self.key_before(self.keys.len()), &rows) {
            if same >= COPIED_ROWS_MIN
                && let Some(own) = cache.take(self.owner_of_page(self.pages.len()))
            {
                copy(page, own, same);
                self.pages.push(own);
                self.computed += same;
            }
            cache.release(page);
        }
        if !self.prefilled {
            let is_token = |position: &usize| self.token_index(*position).is_some();
            self.usage.cached_tokens = (0..self.computed).filter(is_token).count() as u32;
        }
    }

    /// Keeps the pages that became full; each once.
    pub fn keep_full_pages(&mut self, cache: &mut Pages) {
        while (self.keys.len() + 1) * PAGE_POSITIONS <= self.keeps_rows_until() {
            let index = self.keys.len();
            let rows = self.row_keys(index * PAGE_POSITIONS..(index + 1) * PAGE_POSITIONS);
            let before = self.key_before(index);
            self.keys.push(keys::page_key(&before, &rows));
            cache.keep(self.pages[index], before, rows);
        }
    }

    /// Gives the pages back at the end; what stands in the last one, which is not full, is kept too.
    pub fn leave(mut self, cache: &mut Pages) -> Usage {
        let index = self.keys.len();
        let from = index * PAGE_POSITIONS;
        if !self.failed && from < self.keeps_rows_until() {
            let rows = self.row_keys(from..self.keeps_rows_until());
            cache.keep(self.pages[index], self.key_before(index), rows);
        }
        release(self.forget_pages(), cache);
        self.usage()
    }

    /// The next `n` rows for a step, in parts that each have pages of their own; of a score that runs continuations, what
    /// its lanes were granted.
    pub fn parts(&self, n: usize) -> Vec<(&[PageId], Vec<Row>)> {
        let row = |position: usize, input: Input| Row {
            slot: 0,
            position: position as u32,
            phase: self.phase(position),
            input,
            wants: self.wants(position),
        };
        match &self.request.want {
            Want::Score(continuations) if self.score.is_running() => {
                let parts = self.score.parts(continuations);
                parts
                    .map(|(pages, rows)| {
                        let pages: &[PageId] = if pages.is_empty() { &self.pages } else { pages };
                        (pages, rows.map(|(i, input)| row(self.prompt_rows() + i, input)).collect())
                    })
                    .collect()
            }
            _ => {
                let input = |position: usize| match self.token_index(position) {
                    Some(index) => Input::Token(self.tokens[index]),
                    None => Input::Soft(position as u32 - self.request.soft_at),
                };
                let rows = self.computed..self.computed + n;
                vec![(&self.pages, rows.map(|position| row(position, input(position))).collect())]
            }
        }
    }

    fn wants(&self, position: usize) -> Wants {
        let last_known = position + 1 == self.known_rows();
        match &self.request.want {
            Want::Generate(generate) => {
                let of_prompt = generate.prompt_logprobs.is_some() && !self.prefilled;
                // With no token to draw, the last row's logits are of no use.
                let draws = last_known && generate.tokens_max > self.generated;
                let predicts = of_prompt && self.predicted(position).is_some();
                Wants { logits: draws || predicts, capture: false }
            }
            Want::Score(_) => Wants { logits: position + 1 >= self.prompt_rows(), capture: false },
            Want::Capture(capture) => {
                let index = self.token_index(position);
                Wants { logits: false, capture: index.is_some_and(|index| index >= capture.from as usize) }
            }
        }
    }

    /// Most rows of this sequence that give logits if `n` rows are taken (memory of a step).
    pub fn gives_many_logits(&self) -> bool {
        match &self.request.want {
            Want::Generate(generate) => generate.prompt_logprobs.is_some() && !self.prefilled,
            Want::Score(_) => self.score.is_running(),
            Want::Capture(_) => false,
        }
    }

    pub fn is_steered(&self) -> bool {
        !self.request.edits.is_empty()
    }

    /// Takes the results of `rows` computed rows: logits in row order for those that wanted them, captures likewise.
    pub fn advance<'a>(
        &mut self,
        cpu: &Cpu,
        rows: &[Row],
        logits: &mut impl Iterator<Item = &'a mut [f32]>,
        captures: &mut impl Iterator<Item = Vec<f32>>,
    ) {
        if let Want::Score(continuations) = &self.request.want
            && self.score.is_running()
        {
            match self.score.advance(cpu, continuations, logits) {
                Ok(()) => self.after_rows(),
                Err(error) => self.fail(error),
            }
            return;
        }
        let mut problem = None;
        for row in rows {
            let position = row.position as usize;
            if row.wants.capture
                && let (Some(values), Want::Capture(want)) = (captures.next(), &self.request.want)
            {
                self.capture.take(values, want);
            }
            if row.wants.logits
                && let Some(logits) = logits.next()
            {
                if crate::kernels::all_finite(logits) {
                    self.take_logits(cpu, position, logits);
                } else {
                    problem = Some(SequenceError::NonFiniteLogits);
                }
            }
        }
        self.computed += rows.len();
        if let Some(problem) = problem {
            self.fail(problem);
        } else if !self.finished {
            self.after_rows();
        }
    }

    fn take_logits(&mut self, cpu: &Cpu, position: usize, logits: &mut [f32]) {
        match &self.request.want {
            Want::Generate(generate) => match self.predicted(position) {
                Some(next) => {
                    let top = generate.prompt_logprobs.unwrap_or(0);
                    self.prompt_logprobs.push(sampler::logprob(cpu, logits, self.tokens[next], top));
                }
                None => self.draw(cpu, logits),
            },
            Want::Score(continuations) => self.score.begin(cpu, continuations, logits),
            Want::Capture(_) => {}
        }
    }

    fn draw(&mut self, cpu: &Cpu, logits: &mut [f32]) {
        self.report_prefilled();
        let Want::Generate(generate) = &self.request.want else { return };
        // Log-probabilities are those of the model's logits, before anything changes them.
        let before = generate.logprobs.map(|_| logits.to_vec());
        let id = sampler::draw(logits, &generate.sampling, &self.history, &self.tokens, self.generated);
        let logprob = before.map(|logits| sampler::logprob(cpu, &logits, id, generate.logprobs.unwrap_or(0)));
        self.generated += 1;
        self.history.push(id);
        self.tokens.push(id);
        let reason = self.reason_to_end(generate, id);
        let _ = self.events.send(Event::Token { id, logprob });
        if let Some(reason) = reason {
            self.finish(reason);
        }
    }

    fn reason_to_end(&self, generate: &Generate, id: TokenId) -> Option<FinishReason> {
        if generate.stop_tokens.contains(&id) {
            Some(FinishReason::Stop)
        } else if self.generated >= generate.tokens_max {
            Some(FinishReason::Length)
        } else {
            None
        }
    }

    /// What follows once rows are in: the end of a prompt without tokens to draw, of a score or of a capture.
    fn after_rows(&mut self) {
        if self.computed < self.prompt_rows() || self.finished {
            return;
        }
        match &self.request.want {
            Want::Generate(generate) => {
                if generate.tokens_max == 0 {
                    self.report_prefilled();
                    self.finish(FinishReason::Length);
                }
            }
            Want::Score(continuations) => {
                self.prefilled = true;
                if self.score.rows_left(continuations) == 0 {
                    let scored = self.score.finish();
                    self.report_prefilled();
                    let _ = self.events.send(Event::Scored(scored));
                    self.finish(FinishReason::Complete);
                }
            }
            Want::Capture(capture) => {
                let rows = self.capture.finish(capture.reduce);
                self.report_prefilled();
                let _ = self.events.send(Event::Captured(rows));
                self.finish(FinishReason::Complete);
            }
        }
    }

    fn report_prefilled(&mut self) {
        if self.first_token.is_none() {
            self.prefilled = true;
            let now = Instant::now();
            self.usage.prefill = now - self.started.unwrap_or(now);
            self.first_token = Some(now);
            let prompt = std::mem::take(&mut self.prompt_logprobs);
            let _ = self.events.send(Event::Prefilled { cached: self.usage.cached_tokens, prompt });
        }
    }

    fn finish(&mut self, reason: FinishReason) {
        self.usage.generated_tokens = self.generated;
        self.usage.decode = self.first_token.map(|first| first.elapsed()).unwrap_or_default();
        let _ = self.events.send(Event::Done { reason, usage: self.usage });
        self.finished = true;
    }

    pub fn fail(&mut self, error: SequenceError) {
        let _ = self.events.send(Event::Failed(error));
        self.finished = true;
        self.failed = true;
    }

    pub fn usage(&self) -> Usage {
        Usage { generated_tokens: self.generated, ..self.usage }
    }
}

/// Gives pages of one sequence back, the last first: of a sequence that is kept, the beginning is evicted last.
pub(super) fn release(pages: Vec<PageId>, cache: &mut Pages) {
    pages.into_iter().rev().for_each(|page| cache.release(page));
}

impl CaptureState {
    fn take(&mut self, values: Vec<f32>, want: &Capture) {
        match want.reduce {
            Reduce::Each => self.rows.push(values),
            Reduce::Mean => {
                self.sum.resize(values.len(), 0.0);
                self.sum.iter_mut().zip(&values).for_each(|(sum, value)| *sum += f64::from(*value));
                self.rows.push(Vec::new());
            }
        }
    }

    fn finish(&mut self, reduce: Reduce) -> Vec<Vec<f32>> {
        let rows = std::mem::take(&mut self.rows);
        match reduce {
            Reduce::Each => rows,
            Reduce::Mean => {
                let n = rows.len().max(1) as f64;
                vec![self.sum.iter().map(|sum| (sum / n) as f32).collect()]
            }
        }
    }
}
