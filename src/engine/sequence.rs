//! One sequence on its way: what is computed, what it holds, which rows come next.

mod cache;
mod guesses;
mod lanes;

pub(super) use cache::release;

use self::cache::InForce;
use super::InsideGuard;
use super::drafts::Drafts;
use super::request::{
    Capture, Event, FinishReason, Generate, Priority, Reduce, Request, SequenceError, TokenLogprob, Usage,
    Want,
};
use super::sampler::{self, History, Past};
use super::score::Score;
use crate::constraint::{Mask, Masks};
use crate::digest::Digest;
use crate::kernels::Cpu;
use crate::limits::PAGE_POSITIONS;
use crate::model::{Input, PageId, Phase, Row, Slot, TokenId, Wants};
use std::time::Instant;
use tokio::sync::mpsc::UnboundedSender;

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
    in_force: InForce,
    history: History,
    drafts: Drafts,
    /// The masks of a constrained answer.
    masks: Option<Masks>,
    /// Logits `[vocab_size]` whose mask is still being computed.
    undrawn: Option<Vec<f32>>,
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
        masks: Option<Masks>,
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
            in_force: InForce::default(),
            history: History::default(),
            drafts: Drafts::default(),
            masks,
            undrawn: None,
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

    /// Gives the pages back after a preemption; tokens drawn so far stay.
    pub fn forget_pages(&mut self) -> Vec<PageId> {
        self.computed = 0;
        self.keys.clear();
        // The last row gives them again; the mask stays where it is.
        self.undrawn = None;
        self.drafts.clear();
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

    /// Adds the next `n` rows to a step, in slots that each have pages of their own; of a score that runs continuations,
    /// what its lanes were granted.
    pub fn join<'a>(&'a self, n: usize, rows: &mut Vec<Row>, slots: &mut Vec<Slot<'a>>) {
        let row = |slot: usize, position: usize, input: Input| Row {
            slot: slot as u32,
            position: position as u32,
            phase: self.phase(position),
            input,
            wants: self.wants(position),
        };
        match &self.request.want {
            Want::Score(continuations) if self.score.is_running() => {
                for (pages, inputs) in self.score.parts(continuations) {
                    let place = |(i, input)| row(slots.len(), self.prompt_rows() + i, input);
                    rows.extend(inputs.map(place));
                    slots.push(self.slot(if pages.is_empty() { &self.pages } else { pages }));
                }
            }
            _ => {
                let input = |position: usize| match self.token_index(position) {
                    Some(index) => Input::Token(self.token(index)),
                    None => Input::Soft(position as u32 - self.request.soft_at),
                };
                let positions = self.computed..self.computed + n;
                rows.extend(positions.map(|position| row(slots.len(), position, input(position))));
                slots.push(self.slot(&self.pages));
            }
        }
    }

    fn slot<'a>(&'a self, pages: &'a [PageId]) -> Slot<'a> {
        Slot {
            pages,
            edits: &self.request.edits,
            soft: &self.request.soft,
            capture: match &self.request.want {
                Want::Capture(capture) => Some(&capture.spec),
                _ => None,
            },
        }
    }

    fn wants(&self, position: usize) -> Wants {
        // The last known row, and guesses after it.
        let gives_next = position + 1 >= self.known_rows();
        match &self.request.want {
            Want::Generate(generate) => {
                let of_prompt = generate.prompt_logprobs.is_some() && !self.prefilled;
                // With no token to draw, the last row's logits are of no use.
                let draws = gives_next && generate.tokens_max > self.generated;
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

    /// Takes the results of `rows` computed rows: logits in row order for those that wanted them, captures likewise. Rows
    /// of guesses that were not drawn count as not computed; others overwrite them.
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
        let has_guesses = rows.len() > self.ready_rows();
        let mut problem = None;
        for row in rows {
            let position = row.position as usize;
            let logits = if row.wants.logits { logits.next() } else { None };
            if self.finished || problem.is_some() || !self.holds(row) {
                continue;
            }
            self.computed += 1;
            if row.wants.capture
                && let (Some(values), Want::Capture(want)) = (captures.next(), &self.request.want)
            {
                self.capture.take(values, want);
            }
            if let Some(logits) = logits {
                if crate::kernels::all_finite(cpu.isa, logits) {
                    self.take_logits(cpu, position, logits);
                } else if has_guesses {
                    // Of a guess behind it a row sees one thing: values that are not finite. It is computed again alone.
                    self.drafts.stop();
                    self.computed -= 1;
                } else {
                    problem = Some(SequenceError::NonFiniteLogits);
                }
            }
        }
        if let Some(problem) = problem {
            self.fail(problem);
        } else if !self.finished {
            self.after_rows();
            self.report_progress();
        }
    }

    /// How far the prompt is, while it is not through.
    fn report_progress(&self) {
        if !matches!(self.request.want, Want::Generate(_)) || self.computed >= self.prompt_rows() {
            return;
        }
        let done = self.token_index(self.computed).map_or(self.request.soft_at, |index| index as u32);
        if self.first_token.is_none() {
            let _ = self.events.send(Event::Progress { done, cached: self.usage.cached_tokens });
        }
    }

    fn take_logits(&mut self, cpu: &Cpu, position: usize, logits: &mut [f32]) {
        match &self.request.want {
            Want::Generate(generate) => match self.predicted(position) {
                Some(next) => {
                    let top = generate.prompt_logprobs.unwrap_or(0);
                    self.prompt_logprobs.push(sampler::logprob(cpu, logits, self.tokens[next], top));
                }
                None => self.next_token(cpu, logits),
            },
            Want::Score(continuations) => self.score.begin(cpu, continuations, logits),
            Want::Capture(_) => {}
        }
    }

    /// Whether its next token waits for nothing but a mask.
    pub fn waits_for_mask(&self) -> bool {
        self.undrawn.is_some()
    }

    /// Draws the token that a late mask has held up, if the mask has come.
    pub fn draw_late(&mut self, cpu: &Cpu) {
        if self.masks.as_ref().is_some_and(Masks::is_ready)
            && let Some(mut logits) = self.undrawn.take()
        {
            self.next_token(cpu, &mut logits);
        }
    }

    /// Draws, or keeps the logits until their mask is there.
    fn next_token(&mut self, cpu: &Cpu, logits: &mut [f32]) {
        self.report_prefilled();
        let mask = match self.masks.as_mut().map(Masks::take) {
            None => None,
            Some(None) => {
                self.undrawn = Some(logits.to_vec());
                return;
            }
            Some(Some(Err(error))) => return self.fail(SequenceError::Constraint(error)),
            Some(Some(Ok(mask))) if mask.is_empty() => return self.finish(FinishReason::Stop),
            Some(Some(Ok(mask))) => Some(mask),
        };
        self.draw(cpu, logits, mask.as_ref());
        if let Some(masks) = self.masks.as_mut().filter(|_| !self.finished) {
            // The mask of the next token is computed while the model computes the row before it.
            masks.advance(self.tokens[self.tokens.len() - 1]);
        }
    }

    fn draw(&mut self, cpu: &Cpu, logits: &mut [f32], mask: Option<&Mask>) {
        let Want::Generate(generate) = &self.request.want else { return };
        // Log-probabilities are those of the model's logits, before anything changes them.
        let before = generate.logprobs.map(|_| logits.to_vec());
        let past = Past { history: &self.history, tokens: &self.tokens, generated: self.generated };
        let id = sampler::draw(cpu, logits, &generate.sampling, past, mask);
        let logprob = before.map(|logits| sampler::logprob(cpu, &logits, id, generate.logprobs.unwrap_or(0)));
        self.generated += 1;
        self.history.push(id);
        self.tokens.push(id);
        self.drafts.learn(id);
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
            let (cached, queued) = (self.usage.cached_tokens, self.usage.queued);
            let _ = self.events.send(Event::Prefilled { cached, queued, prompt });
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
