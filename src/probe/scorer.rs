//! Log-probabilities of continuations under an arm, through the engine as a client's score request goes.

use super::ProbeError;
use super::arms::Arm;
use super::sets::Ask;
use crate::digest::Digest;
use crate::engine::{Engine, Event, Events, Priority, Request, Sampling, SequenceError, Want};
use crate::persona::card::Which;
use crate::persona::{Condition, frame};
use crate::text::{ChatOptions, Message, Role, Specials, Text};
use std::sync::Arc;

/// Prompts in the engine at once: enough for full batches, few enough to leave the queue to clients.
const WINDOW: usize = 24;

/// What came back for one ask.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// Natural log of the probability of each token of each continuation; `None`: the model's output was invalid.
    pub logprobs: Option<Vec<Vec<f32>>>,
    /// Tokens of prompt and continuations.
    pub tokens: u64,
}

impl Scored {
    /// Natural log of each continuation's probability; `None` where the output was invalid.
    pub fn sums(&self) -> Option<Vec<f64>> {
        let sum = |tokens: &Vec<f32>| tokens.iter().map(|value| f64::from(*value)).sum();
        self.logprobs.as_ref().map(|choices| choices.iter().map(sum).collect())
    }
}

/// What scores asks: the engine, or a script in tests.
pub trait Scorer {
    /// The asks in order. `each` is called after each and ends the work with `false`.
    fn score(
        &self,
        arm: &Arm,
        asks: &[&Ask],
        each: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<Scored>, ProbeError>;
}

/// The loaded model.
#[derive(Clone)]
pub struct EngineScorer {
    pub engine: Engine,
    pub text: Arc<Text>,
}

impl Scorer for EngineScorer {
    fn score(
        &self,
        arm: &Arm,
        asks: &[&Ask],
        each: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<Scored>, ProbeError> {
        let mut scored = Vec::with_capacity(asks.len());
        self.engine.run_in_order(
            WINDOW,
            asks.iter().map(|ask| self.request(arm, ask)),
            |events, tokens| {
                scored.push(Scored { logprobs: finished(events)?, tokens });
                if each() { Ok(()) } else { Err(ProbeError::Cancelled) }
            },
        )?;
        Ok(scored)
    }
}

impl EngineScorer {
    /// A continuation as its tokens, as it is scored.
    pub fn tokens(&self, choice: &str) -> Result<Vec<u32>, ProbeError> {
        Ok(self.text.tokenizer.encode(choice, Specials::AsText)?)
    }

    /// Prompt and continuations as tokens, under the arm's condition; and how many tokens these are.
    fn request(&self, arm: &Arm, ask: &Ask) -> Result<(Request, u64), ProbeError> {
        let prompt = self.prompt(arm, ask)?;
        let choices = ask.choices.iter().map(|choice| self.tokens(choice)).collect::<Result<Vec<_>, _>>()?;
        let tokens = prompt.len() + choices.iter().map(Vec::len).sum::<usize>();
        let (rows, owner) = arm.soft.rows_for(&ask.user)?;
        let mut condition = Condition::new(arm.edits.clone(), Sampling::default());
        condition.bos = self.text.begin_token();
        condition.soft = rows;
        condition.owner = owner;
        condition.cache_salt = Digest::of(b"demeanor.probe");
        let request = Request { priority: Priority::Job, ..condition.request(prompt, Want::Score(choices)) };
        Ok((request, tokens as u64))
    }

    /// A chat as it is served: the arm's texts around the user's message and the beginning of the answer.
    fn prompt(&self, arm: &Arm, ask: &Ask) -> Result<Vec<u32>, ProbeError> {
        let mut messages = vec![Message::new(Role::User, &ask.user)];
        let begun = !ask.begun.is_empty();
        if begun {
            messages.push(Message::new(Role::Assistant, &ask.begun));
        }
        let tokens = |text: &str| self.text.tokenizer.count(text);
        let framed = frame(&arm.system, arm.card.as_deref(), messages, &tokens, Which::All)?;
        let options = ChatOptions {
            add_generation_prompt: !begun,
            continue_final: begun,
            put_first: framed.put_first,
            put_last: framed.put_last,
            ..ChatOptions::default()
        };
        Ok(self.text.chat(&framed.messages, &options)?.ids)
    }
}

/// The numbers of one prompt. A model that gives none that are finite under an arm is a result, not an error.
fn finished(mut events: Events) -> Result<Option<Vec<Vec<f32>>>, ProbeError> {
    let mut found = None;
    while let Some(event) = events.next_blocking() {
        match event {
            Event::Scored(scored) => {
                if !scored.iter().flatten().all(|value| value.is_finite()) {
                    return Ok(None);
                }
                found = Some(scored);
            }
            Event::Failed(SequenceError::NonFiniteLogits) => return Ok(None),
            Event::Failed(error) => return Err(error.into()),
            Event::Done { .. } => return found.map(Some).ok_or(ProbeError::Incomplete),
            Event::Progress { .. } | Event::Prefilled { .. } | Event::Token { .. } | Event::Captured(_) => {}
        }
    }
    Err(ProbeError::Incomplete)
}
