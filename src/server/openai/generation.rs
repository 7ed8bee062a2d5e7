//! Runs the sequences of one request side by side and hands on what they say, in order of arrival.

use super::choice::{Choice, ChoiceRules, Finish, Piece};
use crate::engine::{Engine, Event, Events, FinishReason, Request, SequenceError, SubmitError, TokenLogprob};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Something a client may be told.
#[derive(Debug)]
pub enum Happening {
    /// So many tokens of a choice's prompt went through.
    Progress {
        done: u32,
    },
    /// The prompt of a choice went through; its log-probabilities when they were asked for.
    Prefilled {
        prompt: Vec<TokenLogprob>,
    },
    Piece(Piece),
    Failed(SequenceError),
}

/// Counts and times of one sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Account {
    pub prompt_tokens: u32,
    pub cached_tokens: u32,
    pub generated_tokens: u32,
    /// Of the generated ones those before the answer proper; filled in by who splits the text.
    pub reasoning_tokens: u32,
    pub soft_rows: u32,
    pub queued: Duration,
    pub prefill: Duration,
    pub decode: Duration,
}

/// One sequence: waiting to be submitted, running, or done.
struct Sequence {
    choice: Choice,
    events: Option<Events>,
    account: Account,
    submitted: Instant,
    prefilled: Option<Instant>,
}

/// All sequences of a request. Dropping it cancels what still runs.
pub struct Generation {
    engine: Engine,
    sequences: Vec<Sequence>,
    waiting: VecDeque<(usize, Request)>,
    /// At most so many run at once: one request does not fill the queue by itself.
    running_max: usize,
    /// Where the next look for news begins, so that no sequence is favoured.
    turn: usize,
    received: Instant,
}

/// Pause before the queue is asked again when it was full and nothing of ours runs.
const FULL_PAUSE: Duration = Duration::from_millis(50);

impl Generation {
    /// Submits as many of the requests as may run at once. The first one's refusal is the request's. `received`: when
    /// the client had sent all of it.
    pub fn start(
        engine: &Engine,
        requests: Vec<Request>,
        rules: &ChoiceRules,
        running_max: usize,
        received: Instant,
    ) -> Result<Generation, SubmitError> {
        let now = Instant::now();
        let sequence = |request: &Request| Sequence {
            choice: Choice::new(rules),
            events: None,
            account: Account { prompt_tokens: request.prompt.len() as u32, ..Account::default() },
            submitted: now,
            prefilled: None,
        };
        let mut generation = Generation {
            engine: engine.clone(),
            sequences: requests.iter().map(sequence).collect(),
            waiting: requests.into_iter().enumerate().collect(),
            running_max: running_max.max(1),
            turn: 0,
            received,
        };
        match generation.submit_waiting() {
            Err(SubmitError::Full { .. }) if generation.running() > 0 => Ok(generation),
            Err(error) => Err(error),
            Ok(()) => Ok(generation),
        }
    }

    fn running(&self) -> usize {
        self.sequences.iter().filter(|sequence| sequence.events.is_some()).count()
    }

    fn submit_waiting(&mut self) -> Result<(), SubmitError> {
        while self.running() < self.running_max {
            let Some((index, request)) = self.waiting.front() else { break };
            let events = self.engine.submit(request.clone())?;
            if let Some(sequence) = self.sequences.get_mut(*index) {
                sequence.events = Some(events);
                sequence.submitted = Instant::now();
            }
            self.waiting.pop_front();
        }
        Ok(())
    }

    /// When the client had sent the whole request: what came before the queue counts for whoever waits.
    pub fn received(&self) -> Instant {
        self.received
    }

    pub fn account(&self, index: usize) -> Account {
        self.sequences.get(index).map(|sequence| sequence.account).unwrap_or_default()
    }

    /// The next news with the index of its sequence; `None` when all are done.
    pub async fn next(&mut self) -> Option<(usize, Happening)> {
        loop {
            match self.submit_waiting() {
                Ok(()) => {}
                Err(SubmitError::Full { .. }) => {}
                Err(error) => {
                    let (index, _) = self.waiting.pop_front()?;
                    tracing::warn!(%error, "a later sequence of a request was refused");
                    return Some((index, Happening::Failed(SequenceError::ShuttingDown)));
                }
            }
            if self.running() == 0 {
                if self.waiting.is_empty() {
                    return None;
                }
                tokio::time::sleep(FULL_PAUSE).await;
                continue;
            }
            let (index, event) = poll_fn(|cx| self.poll_event(cx)).await;
            if let Some(news) = self.take(index, event) {
                return Some((index, news));
            }
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<(usize, Option<Event>)> {
        let n = self.sequences.len();
        for step in 0..n {
            let index = (self.turn + step) % n;
            let Some(events) = self.sequences.get_mut(index).and_then(|sequence| sequence.events.as_mut())
            else {
                continue;
            };
            if let Poll::Ready(event) = pin!(events.next()).poll(cx) {
                self.turn = index + 1;
                return Poll::Ready((index, event));
            }
        }
        Poll::Pending
    }

    /// What an event means for its choice; `None` when there is nothing to tell.
    fn take(&mut self, index: usize, event: Option<Event>) -> Option<Happening> {
        let sequence = self.sequences.get_mut(index)?;
        let piece = match event {
            Some(Event::Progress { done, cached }) => {
                sequence.account.cached_tokens = cached;
                sequence.account.prefill = sequence.submitted.elapsed();
                return Some(Happening::Progress { done });
            }
            Some(Event::Prefilled { cached, queued, prompt }) => {
                let now = Instant::now();
                sequence.prefilled = Some(now);
                sequence.account.cached_tokens = cached;
                sequence.account.queued = queued;
                sequence.account.prefill = now - sequence.submitted;
                return Some(Happening::Prefilled { prompt });
            }
            Some(Event::Token { id, logprob }) => {
                let piece = sequence.choice.push(id, logprob);
                sequence.note_token();
                piece
            }
            Some(Event::Done { reason, usage }) => {
                let account = &mut sequence.account;
                account.cached_tokens = usage.cached_tokens;
                account.soft_rows = usage.soft_rows;
                (account.queued, account.prefill, account.decode) =
                    (usage.queued, usage.prefill, usage.decode);
                sequence.events = None;
                sequence.choice.finish(match reason {
                    FinishReason::Stop | FinishReason::Complete => Finish::Stop,
                    FinishReason::Length => Finish::Length,
                })
            }
            Some(Event::Failed(error)) => {
                sequence.events = None;
                return Some(Happening::Failed(error));
            }
            Some(Event::Scored(_) | Event::Captured(_)) => return None,
            None => {
                sequence.events = None;
                return Some(Happening::Failed(SequenceError::EngineFailed));
            }
        };
        if sequence.choice.finished() {
            sequence.events = None;
        }
        (!piece.is_empty()).then_some(Happening::Piece(piece))
    }
}

impl Sequence {
    fn note_token(&mut self) {
        self.account.generated_tokens = self.choice.tokens();
        if let Some(prefilled) = self.prefilled {
            self.account.decode = prefilled.elapsed();
        }
    }
}
