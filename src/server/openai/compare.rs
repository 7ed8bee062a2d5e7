//! `compare: true`: beside each choice its twin, the same prompt and seed in the same batch without steering and soft
//! prompt.

use super::answer::Answer;
use super::options::Options;
use crate::engine::{Request, Sampling, Want};
use crate::persona::Condition;
use crate::server::Context;
use serde_json::{Value, json};

/// The choices of each prompt: first those asked for, then their twins in the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choices {
    /// `n` of the request.
    asked: u32,
    has_twins: bool,
}

impl Choices {
    pub fn of(options: &Options) -> Choices {
        Choices { asked: options.choices, has_twins: options.compare }
    }

    /// Choices of one prompt, twins included.
    pub fn each(self) -> u32 {
        if self.has_twins { 2 * self.asked } else { self.asked }
    }

    /// The choice whose twin stands at `index`.
    fn twin_of(self, index: usize) -> Option<usize> {
        let asked = self.asked as usize;
        (self.has_twins && index % (2 * asked).max(1) >= asked).then(|| index - asked)
    }

    /// Says in a choice whose twin it is.
    pub fn mark(self, index: usize, choice: &mut Value) {
        if let Some(other) = self.twin_of(index) {
            choice["twin_of"] = json!(other);
        }
    }

    /// One request for each choice of a prompt. A twin draws with its choice's seed.
    pub fn requests(
        self,
        condition: &Condition,
        ids: &[u32],
        generate: impl Fn(Sampling) -> Want,
    ) -> Vec<Request> {
        let twin = self.has_twins.then(|| condition.unsteered());
        let conditions = [Some(condition), twin.as_ref()];
        let one = |condition: &Condition, choice: u32| {
            condition.request(ids.to_vec(), generate(condition.sampling_of(choice)))
        };
        let all = conditions.into_iter().flatten();
        all.flat_map(|condition| (0..self.asked).map(move |choice| (condition, choice)))
            .map(|(condition, choice)| one(condition, choice))
            .collect()
    }

    /// Says in the answer's `demeanor` object what the twins are.
    pub fn describe(self, context: &Context, condition: &Condition, answer: &mut Answer) {
        if self.has_twins {
            let twin = condition.unsteered();
            answer.demeanor["compare"] = json!({
                "choices": self.asked,
                "fingerprint": twin.fingerprint(&context.serving()),
                "condition": twin.digest().short(16),
            });
        }
    }

    /// A warning where the twins cannot differ.
    pub fn warning(self, condition: &Condition) -> Option<String> {
        let is_plain = condition.edits.is_empty() && condition.soft.is_empty();
        let message = "`compare`: neither steering nor a soft prompt is in force, so the twins say the same";
        (self.has_twins && is_plain).then(|| message.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twins_follow_their_choices_prompt_by_prompt() {
        let choices = Choices { asked: 2, has_twins: true };
        let twins: Vec<Option<usize>> = (0..8).map(|index| choices.twin_of(index)).collect();
        assert_eq!(twins, [None, None, Some(0), Some(1), None, None, Some(4), Some(5)]);
        assert_eq!(choices.each(), 4);
        let alone = Choices { asked: 2, has_twins: false };
        assert_eq!((alone.each(), alone.twin_of(1)), (2, None));
    }
}
