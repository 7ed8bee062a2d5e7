//! Items through the engine: log-probabilities of a form's options under a plan, and what heads say at the answer.

use super::AlignmentError;
use super::forms::Form;
use crate::digest::Digest;
use crate::engine::{Capture, Engine, Event, Events, Priority, Reduce, Request, Want};
use crate::model::{CaptureSpec, Edits, SoftRows, TokenId};
use crate::text::{Specials, Text};
use std::sync::Arc;

/// Prompts that are in the engine at once: enough to share steps, few enough to leave the queue to clients.
const WINDOW: usize = 32;

/// A running model as a respondent. Its methods block; they belong on a thread of their own.
#[derive(Clone)]
pub struct Asker {
    pub engine: Engine,
    pub text: Arc<Text>,
}

/// A form in the model's tokens.
pub struct Tokens {
    /// One prompt per item.
    pub prompts: Vec<Vec<TokenId>>,
    /// One token per option.
    pub options: Vec<TokenId>,
}

/// Called with steps done and what is happening; an error ends the work.
pub type Progress<'p> = &'p mut dyn FnMut(u64, &str) -> Result<(), AlignmentError>;

impl Asker {
    /// `None` where an option is more than one token of this model, or two options begin alike.
    pub fn tokens(&self, form: &Form, texts: &[&str]) -> Result<Option<Tokens>, AlignmentError> {
        let encoded = (form.options.iter())
            .map(|option| self.text.tokenizer.encode(option, Specials::AsText))
            .collect::<Result<Vec<_>, _>>()
            .map_err(failed)?;
        let mut options: Vec<TokenId> = Vec::new();
        for ids in encoded {
            match ids[..] {
                [id] if !options.contains(&id) => options.push(id),
                _ => return Ok(None),
            }
        }
        let prompt = |text: &&str| self.text.complete(&form.prompt(text)).map_err(failed);
        Ok(Some(Tokens { prompts: texts.iter().map(prompt).collect::<Result<_, _>>()?, options }))
    }

    /// Log-probability of each option (natural log) for each of `items`, indices into the prompts.
    pub fn options(
        &self,
        tokens: &Tokens,
        items: &[usize],
        edits: &Arc<Edits>,
        progress: Progress<'_>,
    ) -> Result<Vec<Vec<f64>>, AlignmentError> {
        let options: Vec<Vec<TokenId>> = tokens.options.iter().map(|id| vec![*id]).collect();
        let requests = items
            .iter()
            .map(|&item| request(tokens.prompts[item].clone(), edits, Want::Score(options.clone())));
        self.run(requests, progress, |event| match event {
            Event::Scored(scored) => {
                Some(scored.iter().map(|option| option.iter().map(|x| f64::from(*x)).sum()).collect())
            }
            _ => None,
        })
    }

    /// `head[l][h]` of all heads at the last token, once for the first option put behind each item and once for the last
    /// one: `[2, n_blocks * n_heads * d_head]` for each item.
    pub fn heads(
        &self,
        tokens: &Tokens,
        progress: Progress<'_>,
    ) -> Result<Vec<[Vec<f32>; 2]>, AlignmentError> {
        let info = self.engine.info();
        let heads: Vec<(u32, u32)> =
            (0..info.n_blocks).flat_map(|l| (0..info.n_heads).map(move |h| (l, h))).collect();
        let edits = Arc::<Edits>::default();
        let ends: Vec<TokenId> =
            tokens.options.iter().take(1).chain(tokens.options.last()).copied().collect();
        let requests = tokens.prompts.iter().flat_map(|prompt| {
            ends.iter().map(|end| {
                let prompt = [&prompt[..], &[*end]].concat();
                let spec = CaptureSpec { resid: Vec::new(), heads: heads.clone() };
                let capture = Capture { spec, from: prompt.len() as u32 - 1, reduce: Reduce::Mean };
                request(prompt, &edits, Want::Capture(capture))
            })
        });
        let captured = self.run(requests, progress, |event| match event {
            Event::Captured(mut rows) => rows.pop(),
            _ => None,
        })?;
        let mut captured = captured.into_iter();
        let mut pairs = Vec::with_capacity(tokens.prompts.len());
        while let (Some(first), Some(last)) = (captured.next(), captured.next()) {
            pairs.push([first, last]);
        }
        Ok(pairs)
    }

    /// Answers of the requests, in their order.
    fn run<T>(
        &self,
        requests: impl Iterator<Item = Request>,
        progress: Progress<'_>,
        take: impl Fn(Event) -> Option<T>,
    ) -> Result<Vec<T>, AlignmentError> {
        let mut answers = Vec::new();
        self.engine.run_in_order(WINDOW, requests.map(|request| Ok((request, ()))), |events, ()| {
            answers.push(answer(events, &take)?);
            progress(answers.len() as u64, "asking the model")
        })?;
        Ok(answers)
    }
}

fn request(prompt: Vec<TokenId>, edits: &Arc<Edits>, want: Want) -> Request {
    Request {
        prompt,
        soft: SoftRows::none(),
        soft_at: 0,
        edits: edits.clone(),
        want,
        priority: Priority::Job,
        owner: Digest::default(),
        cache_salt: Digest::default(),
        use_cache: false,
    }
}

fn answer<T>(mut events: Events, take: &impl Fn(Event) -> Option<T>) -> Result<T, AlignmentError> {
    let mut found = None;
    while let Some(event) = events.next_blocking() {
        if let Event::Failed(error) = event {
            return Err(failed(error));
        }
        found = found.or(take(event));
    }
    found.ok_or_else(|| AlignmentError::Failed("the engine ended without an answer".into()))
}

fn failed(error: impl std::fmt::Display) -> AlignmentError {
    AlignmentError::Failed(error.to_string())
}
