//! Guesses at the next tokens of an answer: what followed its last tokens where they stood before, in prompt or answer.

use crate::model::TokenId;

/// Last tokens that are looked up, at least and at most.
const SAME_MIN: usize = 2;
const SAME_MAX: usize = 4;
/// What a step costs beside its rows, in rows: of decode steps of one to sixteen rows (2.4, 2.9, 4.1 and 14 ms).
const STEP_ROWS: f32 = 2.2;
/// How often a guess is right, before anything is known of this answer.
const RATE_AT_FIRST: f32 = 0.4;
/// Weight of one more token in the estimate.
const RATE_STEP: f32 = 0.125;

/// The guesses of one sequence.
pub(super) struct Drafts {
    /// How often a guessed token was drawn, those before it being right, by the length of what was found again.
    rates: [f32; SAME_MAX + 1],
    /// That length, for the guess at hand.
    same: usize,
    /// Tokens that may come next.
    guess: Vec<TokenId>,
    /// Draws since the guess was made.
    drawn: usize,
    /// Whether there are none any more.
    stopped: bool,
}

impl Default for Drafts {
    fn default() -> Drafts {
        Drafts { rates: [RATE_AT_FIRST; SAME_MAX + 1], same: 0, guess: Vec::new(), drawn: 0, stopped: false }
    }
}

impl Drafts {
    /// Guesses what follows `tokens`. Returns how many of the guess, at most `most`, are worth a row each.
    pub fn guess(&mut self, tokens: &[TokenId], most: usize) -> usize {
        self.clear();
        if most == 0 || self.stopped {
            return 0;
        }
        let Some((same, next)) = find_again(tokens) else { return 0 };
        self.same = same;
        // What repeats itself goes on to do so.
        self.guess.extend(tokens[next..].iter().cycle().take(most));
        worthwhile(self.rates[same], self.guess.len())
    }

    /// Token `index` of the guess.
    pub fn token(&self, index: usize) -> TokenId {
        self.guess[index]
    }

    /// A token was drawn: learns from a guess even if it had no row, so that drafts come back when they would pay.
    pub fn learn(&mut self, id: TokenId) {
        let Some(guessed) = self.guess.get(self.drawn) else { return };
        let right = *guessed == id;
        let rate = &mut self.rates[self.same];
        *rate += RATE_STEP * (f32::from(u8::from(right)) - *rate);
        self.drawn += 1;
        if !right {
            self.guess.clear();
        }
    }

    /// Ends guessing in this answer.
    pub fn stop(&mut self) {
        self.stopped = true;
        self.clear();
    }

    pub fn clear(&mut self) {
        self.guess.clear();
        self.drawn = 0;
    }
}

/// Where most of the last tokens stand once more, the latest such place: how many they are and the index of what follows.
fn find_again(tokens: &[TokenId]) -> Option<(usize, usize)> {
    let last = tokens.last()?;
    let mut best = None;
    for next in (SAME_MIN..tokens.len()).rev().filter(|next| tokens[next - 1] == *last) {
        let pairs = tokens[..next].iter().rev().zip(tokens.iter().rev());
        let same = pairs.take(SAME_MAX).take_while(|(before, now)| before == now).count();
        if same >= SAME_MIN && best.is_none_or(|(most, _)| same > most) {
            best = Some((same, next));
        }
        if same == SAME_MAX {
            break;
        }
    }
    best
}

/// With how many guessed tokens, each right at `rate` if those before it are, the step gives most tokens in its time.
fn worthwhile(rate: f32, most: usize) -> usize {
    let (mut best, mut best_pace) = (0, 1.0 / (STEP_ROWS + 1.0));
    let (mut tokens, mut chance) = (1.0, 1.0);
    for n in 1..=most {
        chance *= rate;
        tokens += chance;
        let pace = tokens / (STEP_ROWS + 1.0 + n as f32);
        if pace > best_pace {
            (best, best_pace) = (n, pace);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_of_the_longest_places_is_found() {
        for (tokens, wanted) in [
            (&[][..], None),
            (&[1], None),
            (&[1, 1], None),
            (&[1, 1, 1], Some((2, 2))),
            (&[5, 7, 5, 8, 5], None),
            (&[1, 2, 9, 1, 2], Some((2, 2))),
            (&[1, 2, 9, 1, 2, 8, 1, 2], Some((2, 5))),
            // Three found earlier are better than two found later.
            (&[0, 1, 2, 9, 3, 1, 2, 8, 0, 1, 2], Some((3, 3))),
            // Four are as good as five, so the later place counts.
            (&[5, 1, 2, 3, 4, 9, 1, 2, 3, 4, 8, 5, 1, 2, 3, 4], Some((4, 10))),
        ] {
            assert_eq!(find_again(tokens), wanted, "{tokens:?}");
        }
    }

    #[test]
    fn drafts_are_longer_where_they_are_right_and_none_where_they_cost_more() {
        for (rate, wanted) in [(0.0, 0), (0.3, 0), (0.4, 1), (0.7, 2), (1.0, 8)] {
            assert_eq!(worthwhile(rate, 8), wanted, "{rate}");
        }
        assert_eq!(Drafts::default().guess(&[1, 2, 3, 1, 2], 0), 0);
    }

    /// A sequence whose guesses are wrong stops to draft, and begins again once they would have been right.
    #[test]
    fn an_answer_teaches_its_own_rate() {
        let (mut drafts, tokens) = (Drafts::default(), [1, 2, 3, 4, 1, 2]);
        assert_eq!(drafts.guess(&tokens, 6), 1);
        let guess: Vec<TokenId> = (0..6).map(|index| drafts.token(index)).collect();
        assert_eq!(guess, [3, 4, 1, 2, 3, 4]);
        let mut taught = |id: TokenId, times: usize| {
            for _ in 0..times {
                drafts.guess(&tokens, 2);
                drafts.learn(id);
                drafts.learn(id + 1);
            }
            drafts.guess(&tokens, 2)
        };
        assert_eq!(taught(9, 6), 0);
        assert_eq!(taught(3, 12), 2);
    }
}
